"""What the writer answers while something else holds it up: done, surely not done, or in doubt, and never the wrong
one. Locks held by the tests, not time, decide what has happened when."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from app.ledger.refusals import OutcomeUnknown, Overloaded
from app.ledger.submissions import Receipt
from tests.books import check_invariants, connect, fetch, open_account, post, transaction
from tests.conftest import serve, wait_until
from tests.test_refusals import holding
from tests.test_writer import TRANSACTIONS, Books

WAITING = """
select count(*) from pg_stat_activity
 where datname = current_database() and wait_event_type = 'Lock' and (application_name = $1 or pid = $2)
"""
WRITER = "tallystick-writer"


@pytest.fixture
async def books(database: str, request: pytest.FixtureRequest) -> AsyncIterator[Books]:
    """A writer whose settings, and whose deadline, a test may choose."""
    settings = dict(getattr(request, "param", {}))
    deadline_s = settings.pop("deadline_s", 60)
    books = Books(database, **settings)
    books.writer._deadline_s = deadline_s
    yield await books.open()
    await books.writer.drain()
    await books.database.close()
    await check_invariants(database)


@contextlib.asynccontextmanager
async def blocked(books: Books) -> AsyncIterator[None]:
    """Hold a lock that every batch's write waits for, but no read."""
    connection = await connect(books.url)
    try:
        await connection.execute("begin; lock table events in share mode")
        yield
    finally:
        await connection.close()


async def wait_until_waiting(url: str, *, application: str = WRITER, pid: int = 0) -> None:
    """Wait until a connection waits for a lock."""
    connection = await connect(url)
    try:
        async with asyncio.timeout(60):
            while not await connection.fetchval(WAITING, application, pid):
                await asyncio.sleep(0.01)
    finally:
        await connection.close()


async def start(books: Books, key: str) -> asyncio.Task[Receipt]:
    """Submit a transaction, and wait until its batch waits for the lock."""
    posting = asyncio.create_task(books.post(key))
    await wait_until_waiting(books.url)
    return posting


async def queue(books: Books, key: str) -> asyncio.Task[Receipt]:
    """Submit a transaction that waits behind the batch under way."""
    before = sum(books.writer.waiting())
    posting = asyncio.create_task(books.post(key))
    async with asyncio.timeout(60):
        while sum(books.writer.waiting()) == before:
            await asyncio.sleep(0)
    return posting


async def count_recorded(books: Books) -> int:
    return len(await fetch(books.url, TRANSACTIONS))


@pytest.mark.anyio
@pytest.mark.parametrize("books", [{"write_pool_size": 1, "pool_timeout_s": 0.5}], indirect=True)
async def test_a_write_in_doubt_is_not_overloaded_when_no_connection_is_free(books: Books) -> None:
    """Its connection is lost with its statement on the way, and another task gets the only connection there is."""
    free = asyncio.Event()
    taken = asyncio.Event()

    async def take_the_connection() -> None:
        while not taken.is_set():
            with contextlib.suppress(Overloaded):
                async with books.database.writes.acquire():
                    taken.set()
                    await free.wait()

    async with blocked(books):
        posting = await start(books, "doubted")
        taking = asyncio.create_task(take_the_connection())
        await asyncio.sleep(0)  # now it is the first that waits for the connection
        killed = (
            "select pg_terminate_backend(pid) from pg_stat_activity "
            "where application_name = $1 and datname = current_database() and state <> 'idle'"
        )
        await fetch(books.url, killed, WRITER)
        await taken.wait()
        with pytest.raises(OutcomeUnknown):
            await posting
    free.set()
    await taking
    receipt = await books.post("doubted")
    assert [receipt.event.sequence] == [row["sequence"] for row in await fetch(books.url, TRANSACTIONS)]


@pytest.mark.anyio
@pytest.mark.parametrize("books", [{"write_pool_size": 1, "pool_timeout_s": 0.1}], indirect=True)
async def test_a_write_that_was_never_sent_is_overloaded_when_no_connection_is_free(books: Books) -> None:
    async with books.database.writes.acquire():
        with pytest.raises(Overloaded):
            await books.post("never")
    assert await count_recorded(books) == 0
    assert not (await books.post("never")).replayed


@pytest.mark.anyio
async def test_a_lost_race_is_tried_again_behind_the_row_lock(books: Books) -> None:
    """Rivals are always first to replace the head's revision: one after the other takes the head's row lock while the
    batch waits for it. A second try that began without the lock would lose to the second rival, and so on."""
    rivals: list[asyncpg.Connection] = []
    replace = "update heads set revision = revision + 1 where sequence > 0"
    try:
        for _ in range(6):
            rivals.append(await connect(books.url))
            await rivals[-1].execute("begin")
        await rivals[0].execute(replace)
        posting = await start(books, "raced")
        for rival, following in itertools.pairwise(rivals):
            replacing = asyncio.create_task(following.execute(replace))
            await wait_until_waiting(books.url, application="", pid=following.get_server_pid())
            await rival.execute("commit")
            await replacing
            if posting.done():
                break
            await wait_until_waiting_or_done(books, posting)
            if posting.done():
                break
        receipt = await posting
    finally:
        for rival in rivals:
            await rival.close()
    assert books.writer.counts.races_lost == 1
    assert receipt.event.sequence == 4


async def wait_until_waiting_or_done(books: Books, posting: asyncio.Task[Any]) -> None:
    waiting = asyncio.create_task(wait_until_waiting(books.url))
    await asyncio.wait([waiting, posting], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


@pytest.mark.anyio
async def test_when_a_stop_gives_up_only_what_no_batch_took_is_surely_not_done(books: Books) -> None:
    async with blocked(books):
        taken = await start(books, "taken")
        waiting = await queue(books, "waiting")
        books.writer.give_up()
        with pytest.raises(OutcomeUnknown):
            await taken
        with pytest.raises(Overloaded):
            await waiting
        with pytest.raises(Overloaded):
            await books.post("later")
    books.writer._given_up = False
    assert (await books.post("taken")).replayed
    assert not (await books.post("waiting")).replayed
    assert await count_recorded(books) == 2


@pytest.mark.anyio
@pytest.mark.parametrize("books", [{"deadline_s": 1}], indirect=True)
async def test_at_its_deadline_only_what_no_batch_took_is_surely_not_done(books: Books) -> None:
    async with blocked(books):
        taken = await start(books, "taken")
        waiting = await queue(books, "waiting")
        outcomes = await asyncio.gather(taken, waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [OutcomeUnknown, Overloaded]
    await books.writer.drain()
    assert await count_recorded(books) == 1
    books.writer._deadline_s = 60
    assert (await books.post("taken")).replayed
    assert not (await books.post("waiting")).replayed


@pytest.mark.anyio
async def test_a_drain_ends_when_all_is_answered(books: Books) -> None:
    async with blocked(books):
        first = await start(books, "first")
        second = await queue(books, "second")
        draining = asyncio.create_task(books.writer.drain())
        await asyncio.wait([draining], timeout=0.2)
        assert not draining.done()
    await draining
    assert await count_recorded(books) == 2
    assert (await first).event.sequence < (await second).event.sequence
    await books.writer.drain()


@pytest.mark.anyio
async def test_a_command_whose_caller_left_while_it_waited_has_no_effect(books: Books) -> None:
    async with blocked(books):
        first = await start(books, "first")
        second, third = await queue(books, "second"), await queue(books, "third")
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
    assert not (await first).replayed
    assert not (await third).replayed
    assert await count_recorded(books) == 2
    assert not (await books.post("second")).replayed


def test_a_read_is_never_in_doubt_about_an_expiry_that_it_needs(database: str) -> None:
    """Whatever became of the expiry, the read itself surely changed nothing."""
    with serve(database, write_deadline_s=2.0) as service, service.client() as client:
        assert client.post("/v1/ledgers", json={"name": "main"}).status_code == 201
        for path in ("a", "b"):
            open_account(client, "main", path)
        expires_at = (service.clock.now + timedelta(hours=1)).isoformat()
        assert post(client, "main", transaction("a", "b", pending=True, expires_at=expires_at)).status_code == 201
        with holding(database, "lock table events in share mode"):
            service.clock.advance(3600)
            answer = client.get("/v1/ledgers/main/accounts/a")
        assert (answer.status_code, answer.json()["code"]) == (503, "storage_unavailable")
        wait_until(lambda: client.get("/v1/ledgers/main/accounts/a").json().get("debits_pending") == "0")

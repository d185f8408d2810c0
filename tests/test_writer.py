"""The write path under trouble: races, lost connections, poison, stalls, callers that go away."""

import asyncio
import contextlib
import os
import re
import signal
import time
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Self
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx
import pytest

from app.db import Database, is_transient
from app.ledger.commands import CreateLedger, Move, OpenAccount, PostTransaction
from app.ledger.refusals import InternalError, LedgerNotFound
from app.ledger.submissions import CREATION_KEY, Submission
from app.ledger.writer import LedgerWriter
from tests.books import check_invariants, connect, fetch, open_books, transaction
from tests.conftest import KEY, Clock, settings_for, start_processes

pytestmark = pytest.mark.anyio


class Books:
    """A writer of its own on a database, with a ledger `main` and accounts a and b."""

    def __init__(self, database: str, **settings: object) -> None:
        self.url = database
        self.database = Database(settings_for(database, **settings))
        self.writer = LedgerWriter(self.database, Clock(), deadline_s=20)

    async def submit(self, command, key: str, ledger: str = "main"):
        creating = isinstance(command, CreateLedger)
        digest = CREATION_KEY if creating else key.encode().ljust(16, b"-")
        return await self.writer.submit(ledger, Submission(command, digest, b"f" * 16, "operator", key))

    async def open(self) -> Self:
        await self.submit(CreateLedger("main", None, {}), "")
        for path in ("a", "b"):
            await self.submit(OpenAccount(path, "USD/2", "debit", None, None, None, {}), path)
        return self

    async def post(self, key: str, *, description: str | None = None):
        moves = (Move("a", "b", 1),)
        return await self.submit(PostTransaction(moves, None, None, None, description, {}), key)

    async def revision(self) -> int:
        return (await fetch(self.url, "select revision from heads"))[0]["revision"]


@pytest.fixture
async def books(database: str) -> AsyncIterator[Books]:
    books = await Books(database).open()
    yield books
    await books.writer.drain()
    await books.database.close()
    await check_invariants(database)


async def test_what_waits_is_committed_together(books):
    """64 callers at once need two batches: the first one's, and that of all who came meanwhile."""
    before = await books.revision()
    receipts = await asyncio.gather(*(books.post(f"p{n}") for n in range(64)))
    assert list(range(4, 68)) == sorted(receipt.event.sequence for receipt in receipts)
    assert await books.revision() - before == 1


async def test_a_poisoned_command_fails_alone(books):
    """A planted CHECK fails the statement of all 64; the other 63 are answered, and the poison's key is not stored."""
    await fetch(books.url, "alter table events add constraint planted check (description <> 'poison')")
    posts = [books.post(f"p{n}", description="poison" if n == 37 else "fine") for n in range(64)]
    outcomes = await asyncio.gather(*posts, return_exceptions=True)
    assert [37] == [n for n, outcome in enumerate(outcomes) if isinstance(outcome, Exception)]
    assert isinstance(outcomes[37], InternalError)
    assert 63 == len({outcome.event.sequence for n, outcome in enumerate(outcomes) if n != 37})
    await fetch(books.url, "alter table events drop constraint planted")
    assert not (await books.post("p37", description="poison")).replayed


async def test_a_lost_race_is_decided_again(database):
    """Two processes' writers on one ledger: both are right, all the time."""
    one, other = await Books(database).open(), Books(database)
    try:
        posts = [(one, other)[n % 2].post(f"p{n}") for n in range(400)]
        receipts = await asyncio.gather(*posts)
        assert list(range(4, 404)) == sorted(receipt.event.sequence for receipt in receipts)
    finally:
        await one.database.close()
        await other.database.close()
    await check_invariants(database)


async def test_killed_backends_lose_and_double_nothing(books):
    """The server ends every connection of the writer again and again; every caller is answered, once."""

    async def kill() -> None:
        connection = await connect(books.url)
        for _ in range(10):
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where application_name = 'tallystick-writer' and datname = current_database()"
            )
            await asyncio.sleep(0.05)
        await connection.close()

    killing = asyncio.create_task(kill())
    count = 0
    while not killing.done():
        await asyncio.gather(*(books.post(f"p{count + n}") for n in range(32)))
        count += 32
    await killing
    recorded = await fetch(books.url, "select count(*) from events where kind = 'transaction_posted'")
    assert count == recorded[0]["count"]


@pytest.mark.parametrize("pause_s", [0.0, 0.001, 0.01, 0.1])
@pytest.mark.parametrize("ending", ["the server ends the session", "nobody reads what the server says"])
async def test_whatever_a_lost_session_raises_is_known_as_lost(books, pause_s, ending):
    """As after SIGSTOP: the server ended the session meanwhile, and its word for it is found at any point."""

    async def lose_a_session() -> None:
        async with books.database.writes.acquire() as connection, connection.transaction():
            await connection.execute("select 1")
            await fetch(books.url, "select pg_terminate_backend($1::integer)", connection.get_server_pid())
            if ending == "the server ends the session":
                await asyncio.sleep(pause_s)
            else:
                time.sleep(pause_s)
            await connection.execute("select 1")

    for _ in range(5):
        (error,) = await asyncio.gather(lose_a_session(), return_exceptions=True)
        assert isinstance(error, Exception)
        assert is_transient(error), repr(error)


def test_the_drivers_own_confusion_is_known_as_a_lost_connection():
    """Seen at COMMIT in a process that woke: "cannot switch to state 15; another operation (2) is in progress"."""
    assert is_transient(asyncpg.InternalClientError("cannot switch to state 15"))


async def test_a_commit_whose_reply_was_lost_is_found_and_not_repeated(database):
    """The connection is cut after the server has committed and before the writer hears of it."""
    async with cutting_proxy(database) as (through, cut_next_reply):
        books = await Books(through).open()
        try:
            cut_next_reply(b"insert into events")
            receipt = await books.post("doubted")
            assert receipt.replayed  # the first attempt had committed
            assert 4 == receipt.event.sequence
            assert [4] == [row["sequence"] for row in await fetch(database, TRANSACTIONS)]
        finally:
            await books.database.close()
    await check_invariants(database)


async def test_a_write_that_never_arrived_is_repeated(database):
    """The connection is cut before the server has seen the write."""
    async with cutting_proxy(database) as (through, cut_next_reply):
        books = await Books(through).open()
        try:
            cut_next_reply(b"insert into events", before=True)
            receipt = await books.post("doubted")
            assert not receipt.replayed
            assert [4] == [row["sequence"] for row in await fetch(database, TRANSACTIONS)]
        finally:
            await books.database.close()
    await check_invariants(database)


async def test_callers_that_go_away_harm_nobody(books):
    """Every third caller is cancelled while its batch is on its way; the others are answered."""
    tasks = [asyncio.create_task(books.post(f"p{n}")) for n in range(300)]
    for _ in range(5):  # long enough for the writer to take them, too short for the database to answer
        await asyncio.sleep(0)
    for task in tasks[::3]:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes[::3])
    answered = {outcome.event.sequence for n, outcome in enumerate(outcomes) if n % 3}
    assert 200 == len(answered)
    # What a cancelled caller asked for may have happened; asked again with its key, it is answered once.
    again = await asyncio.gather(*(books.post(f"p{n}") for n in range(0, 300, 3)))
    assert 300 == len(answered | {receipt.event.sequence for receipt in again})


async def test_a_ledger_that_nobody_created_is_not_found(books):
    with pytest.raises(LedgerNotFound):
        await books.submit(OpenAccount("a", "USD/2", "debit", None, None, None, {}), "k", ledger="other")
    # A name that was entered into the directory by a process that died then is no ledger yet, and can become one.
    await fetch(books.url, "insert into ledgers (name) values ('half')")
    with pytest.raises(LedgerNotFound):
        await books.submit(OpenAccount("a", "USD/2", "debit", None, None, None, {}), "k", ledger="half")
    assert 1 == (await books.submit(CreateLedger("half", None, {}), "", ledger="half")).event.sequence


async def test_an_event_is_recorded_no_earlier_than_the_one_before(books):
    """The clock of another process, or this one set back, never makes recorded time fall."""
    first = await books.post("p1")
    books.writer._clock.now = first.event.recorded_at - timedelta(minutes=1)
    second = await books.post("p2")
    assert first.event.recorded_at == second.event.recorded_at
    books.writer._clock.advance(3600)
    assert (await books.post("p3")).event.recorded_at > second.event.recorded_at


async def test_a_stopped_process_holds_up_nobody_and_doubles_nothing(two_processes):
    """A process is stopped (SIGSTOP) while it holds the ledger's row lock in mid-batch. The other one is answered
    within 6 seconds throughout, and the first, once it wakes, finds out what had become of its batch."""
    stalling, steady = two_processes.urls
    stopped = two_processes.processes[0].pid
    headers = {"Authorization": f"Bearer {KEY}"}
    limits = httpx.Limits(max_connections=100)
    async with httpx.AsyncClient(headers=headers, timeout=40, limits=limits) as client:
        client.base_url = steady
        await open_books(client, "main", ("a", "b"))
        posting = asyncio.Event()
        posting.set()
        sent: dict[str, int] = {}
        slowest = 0.0

        async def keep_posting(url: str, caller: int) -> None:
            nonlocal slowest
            count = 0
            while posting.is_set():
                key, count = f"{caller}-{count}", count + 1
                started = time.monotonic()
                answer = await post_through(client, f"{url}/v1/ledgers/main/transactions", key)
                if url == steady:
                    slowest = max(slowest, time.monotonic() - started)
                assert answer.status_code == 201, answer.text
                assert key not in sent
                sent[key] = answer.json()["sequence"]

        callers = [asyncio.create_task(keep_posting((stalling, steady)[n % 2], n)) for n in range(12)]
        await stop_while_it_holds_the_lock(stopped, two_processes.database)
        at_stop = len(sent)
        await asyncio.sleep(7)
        while_stopped = len(sent) - at_stop
        os.kill(stopped, signal.SIGCONT)
        await asyncio.sleep(1)
        posting.clear()
        await asyncio.gather(*callers)
    assert while_stopped > 0
    assert slowest < 6
    recorded = [row["sequence"] for row in await fetch(two_processes.database, TRANSACTIONS)]
    assert sorted(sent.values()) == recorded
    await check_invariants(two_processes.database)


async def test_sigterm_answers_what_was_accepted_and_exits(database, tmp_path):
    with start_processes(database, 1, tmp_path) as running:
        (url,), (process,) = running.urls, running.processes
        async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=30) as client:
            await open_books(client, "main", ("a", "b"))

            async def post(n: int) -> int | None:
                body, headers = transaction("a", "b"), {"Idempotency-Key": f"p{n}"}
                try:
                    answer = await client.post("/v1/ledgers/main/transactions", json=body, headers=headers)
                except httpx.TransportError:
                    return None  # it no longer listened, or closed a connection on which nothing was under way
                assert answer.status_code == 201, answer.text
                return answer.json()["sequence"]

            posts = [asyncio.create_task(post(n)) for n in range(300)]
            await asyncio.sleep(0.1)
            process.send_signal(signal.SIGTERM)
            answered = {sequence for sequence in await asyncio.gather(*posts) if sequence}
        assert 0 == await asyncio.to_thread(process.wait, 20)
    recorded = {row["sequence"] for row in await fetch(database, TRANSACTIONS)}
    assert answered
    assert answered <= recorded
    await check_invariants(database)


async def post_through(client: httpx.AsyncClient, url: str, key: str) -> httpx.Response:
    """Post as a client should: after a lost connection, the same again. (A process that wakes finds that the time of
    its kept-alive connections has passed, and closes them.)"""
    for _ in range(5):
        with contextlib.suppress(httpx.TransportError):
            return await client.post(url, json=transaction("a", "b"), headers={"Idempotency-Key": key})
    raise AssertionError("the connection was lost again and again")


TRANSACTIONS = "select sequence from events where kind = 'transaction_posted' order by sequence"


async def stop_while_it_holds_the_lock(pid: int, database: str) -> None:
    """Stop a process again and again, until one of its backends is left idle in a transaction."""
    connection = await connect(database)
    try:
        for _ in range(500):
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(0.03)
            holding = await connection.fetchval(
                "select count(*) from pg_stat_activity where application_name = 'tallystick-writer' "
                "and datname = current_database() and state = 'idle in transaction' "
                "and state_change < clock_timestamp() - interval '20 ms'"
            )
            if holding:
                return
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(0.02)
    finally:
        await connection.close()
    raise AssertionError("it was never stopped while it held the lock")


@contextlib.asynccontextmanager
async def cutting_proxy(database: str) -> AsyncIterator[tuple[str, Callable[..., None]]]:
    """A way to the database that can be cut around one statement: the address through it, and how to arm it."""
    parts = urlsplit(database)
    folder = parse_qs(parts.query).get("host", [None])[0]
    armed: list[tuple[bytes, bytes | None, bool]] = []
    running: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        running.add(asyncio.current_task())
        if folder is None:
            upstream_reader, upstream_writer = await asyncio.open_connection(parts.hostname, parts.port)
        else:
            upstream_reader, upstream_writer = await asyncio.open_unix_connection(f"{folder}/.s.PGSQL.5432")
        cutting = asyncio.Event()

        async def forward() -> None:
            seen = b""
            while data := await reader.read(65536):
                seen += data
                if armed and is_reached(*armed[0][:2], seen, data):
                    *_, before = armed.pop()
                    cutting.set()
                    if before:
                        break
                upstream_writer.write(data)
                await upstream_writer.drain()
            if not cutting.is_set():
                upstream_writer.close()

        async def back() -> None:
            while not cutting.is_set() and (data := await upstream_reader.read(65536)):
                if cutting.is_set():
                    break
                writer.write(data)
                await writer.drain()
            writer.close()

        try:
            with contextlib.suppress(ConnectionError):
                await asyncio.wait(
                    [asyncio.ensure_future(forward()), asyncio.ensure_future(back())],
                    return_when=asyncio.FIRST_COMPLETED,
                )
                # What was sent is carried out meanwhile, and its reply goes nowhere.
                await asyncio.sleep(0.3)
        finally:
            for end in (writer, upstream_writer):
                end.close()
                with contextlib.suppress(ConnectionError):
                    await end.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    def cut_next_reply(statement: bytes, *, at: bytes | None = None, before: bool = False) -> None:
        """Cut the connection that has prepared this statement when it is bound, or at another message."""
        armed.append((statement, at, before))

    try:
        yield f"postgresql+asyncpg://postgres@127.0.0.1:{port}{parts.path}?ssl=disable", cut_next_reply
    finally:
        server.close()
        await asyncio.gather(*running, return_exceptions=True)
        await server.wait_closed()


def is_reached(statement: bytes, at: bytes | None, seen: bytes, data: bytes) -> bool:
    """Whether these bytes execute a statement; or, if `at` says so, whether they hold that and the statement was sent.

    A statement is parsed once, under a name, and every execution binds the name alone.
    """
    if at is not None:
        return statement in seen and at in data
    parsed = re.findall(rb"P.{4}([^\x00]+)\x00([^\x00]*)\x00", seen, re.DOTALL)
    names = [name for name, text in parsed if statement in text]
    return b"B\x00" in data and (statement in data or any(b"\x00%b\x00" % name in data for name in names))

"""Connections to Postgres that fall silent: every ledger takes writes again within ten seconds, and no answer is wrong.

Not one that is closed: `tests/test_writer.py` has those. Here nothing more arrives, in either direction, and neither
end is told. Most tests bound an exchange with the database to a second; one has the bounds that a deployment has.
"""

import asyncio
import contextlib
import itertools
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import httpx
import pytest
from sqlalchemy import text

from app import db
from app.db import Database
from app.ledger.commands import CreateLedger, Move, OpenAccount, PostTransaction
from app.ledger.refusals import InternalError, OutcomeUnknown, Overloaded, StorageUnavailable
from app.ledger.submissions import CREATION_KEY, Receipt, Submission
from app.ledger.writer import LedgerWriter
from tests.books import check_invariants, fetch, fetch_now, open_account, open_books, post, transaction
from tests.conformance import check_answer
from tests.conftest import KEY, ROOT, Clock, as_service, serve, settings_for
from tests.silent_proxy import Silence, SilentProxy

pytestmark = pytest.mark.anyio

LEDGERS = ("main", "other")
# The demand is ten seconds; a machine that is busy with something else may take twice that.
SECONDS_MAX = 20
POSTED = """
select name, count(*) from events join ledgers using (ledger_id) where kind = 'transaction_posted' group by name
"""
END_FEED = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'tallystick-feed'"


class Process:
    """What a process of the service has of the database, with what its callers were answered."""

    def __init__(self, address: str, **settings: object) -> None:
        self.database = Database(settings_for(address, **({"database_timeout_s": 1.0} | settings)))
        self.writer = LedgerWriter(self.database, Clock(), deadline_s=20)
        self.answered: dict[str, list[int]] = {ledger: [] for ledger in LEDGERS}
        self._keys = (f"{id(self)}-{number}" for number in itertools.count())

    async def submit(self, ledger: str, command, key: str) -> Receipt:
        digest = CREATION_KEY if isinstance(command, CreateLedger) else key.encode().ljust(16, b"-")[-16:]
        return await self.writer.submit(ledger, Submission(command, digest, b"f" * 16, "operator", key))

    async def open_ledgers(self) -> None:
        for ledger in LEDGERS:
            await self.submit(ledger, CreateLedger(ledger, None, {}), "")
            for path in ("a", "b"):
                await self.submit(ledger, OpenAccount(path, "USD/2", "debit", None, None, None, {}), path)

    async def post(self, ledger: str, *, description: str | None = None, key: str | None = None) -> None:
        """Post as a client should: the same again with its key, until it is known what became of it."""
        key = key or next(self._keys)
        command = PostTransaction((Move("a", "b", 1),), None, None, None, description, {})
        while True:
            try:
                receipt = await self.submit(ledger, command, key)
            except (OutcomeUnknown, StorageUnavailable, Overloaded):
                await asyncio.sleep(0.05)
            else:
                self.answered[ledger].append(receipt.event.sequence)
                return

    async def close(self) -> None:
        await self.writer.drain()
        await self.database.close()


@asynccontextmanager
async def running(*addresses: str, **settings: object) -> AsyncIterator[list[Process]]:
    """Processes on a database with two ledgers, each with several connections of its writer that have been used."""
    processes = [Process(address, **settings) for address in addresses]
    try:
        await processes[0].open_ledgers()
        for process in processes:
            await asyncio.gather(*(process.post(ledger) for ledger in LEDGERS))
            assert process.database.connections_in_use()["write"][0] == 0
        yield processes
    finally:
        async with asyncio.timeout(SECONDS_MAX):
            await asyncio.gather(*(process.close() for process in processes))


async def takes_writes(process: Process, since: float) -> None:
    """Every ledger takes a write of this process within the bound."""

    async def post(ledger: str) -> None:
        await process.post(ledger)
        seconds = time.monotonic() - since
        assert seconds < SECONDS_MAX, f"{ledger} took a write {seconds:.1f} s after the silence"

    async with asyncio.timeout(SECONDS_MAX + 5):
        await asyncio.gather(*(post(ledger) for ledger in LEDGERS))


async def check_answers(database: str, *processes: Process) -> None:
    """What was answered is what is in the log, once."""
    counts = {row["name"]: row["count"] for row in await fetch(database, POSTED)}
    for ledger in LEDGERS:
        sequences = [sequence for process in processes for sequence in process.answered[ledger]]
        assert len(set(sequences)) == len(sequences)
        assert counts[ledger] == len(sequences)
    await check_invariants(database)


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not true():
            await asyncio.sleep(0.01)


@pytest.fixture
def proxy(database: str) -> Iterator[SilentProxy]:
    with SilentProxy(database) as proxy:
        yield proxy


async def lose_a_race(database: str, proxy: SilentProxy, post, rival: Process | None) -> asyncio.Task[None]:
    """Have a post run its second try, behind the row lock: another process is faster with its WRITE."""
    proxy.hold("writer", "WRITE")
    posting = asyncio.create_task(post)
    await until(proxy.holds.is_set)
    if rival is None:
        await fetch(database, "update heads set revision = revision + 1")
    else:
        await rival.post("main")
    proxy.let_go()
    return posting


FIRST_TRY = [Silence("writer", message, delivered) for message in ("READ", "WRITE") for delivered in (False, True)]
SECOND_TRY = [
    *(Silence("writer", message, delivered) for message in ("BEGIN", "LOCK", "COMMIT") for delivered in (False, True)),
    # The READ and the WRITE behind the lock: those of the first try pass.
    *(Silence("writer", message, after=1) for message in ("READ", "WRITE")),
]


def named(silence: Silence) -> str:
    return f"{silence.message}{'-delivered' if silence.delivered else ''}"


@pytest.mark.parametrize("silence", FIRST_TRY + SECOND_TRY, ids=named)
async def test_every_ledger_takes_writes_again(new_database, silence):
    """After a silence at any message of a batch: of one connection or of all, with one process or two."""

    async def fall_silent(everywhere: bool, processes: int) -> None:
        database = new_database()
        with SilentProxy(database) as proxy:
            async with running(*(proxy.url, database)[:processes]) as started:
                one, *rivals = started
                proxy.fall_silent(replace(silence, everywhere=everywhere))
                if silence in SECOND_TRY:
                    posting = await lose_a_race(database, proxy, one.post("main"), *rivals or [None])
                else:
                    posting = asyncio.create_task(one.post("main"))
                await until(proxy.fell.is_set)
                await asyncio.gather(*(takes_writes(process, proxy.fell_at) for process in started))
                await posting
                await check_answers(database, *started)

    async with asyncio.TaskGroup() as cases:
        for everywhere, processes in itertools.product((False, True), (1, 2)):
            cases.create_task(fall_silent(everywhere, processes))


async def test_a_rollback_that_is_not_answered_holds_up_nobody(database, proxy):
    """The command that failed behind the lock is answered as what it is, and left nothing behind."""
    await fetch(database, "alter table events add constraint planted check (description <> 'poison')")
    async with running(proxy.url) as (process,):
        proxy.fall_silent(Silence("writer", "ROLLBACK"))
        poison = await lose_a_race(database, proxy, process.post("main", description="poison"), None)
        await until(proxy.fell.is_set)
        await takes_writes(process, proxy.fell_at)
        with pytest.raises(InternalError):
            await poison
        await check_answers(database, process)


@pytest.mark.parametrize("message", ["STARTUP", "INITIALIZE"])
async def test_a_connection_that_is_silent_from_its_beginning(database, proxy, message):
    """The pool's own messages: a new connection is never established, or not made ready."""
    with SilentProxy(database) as other:
        async with running(other.url) as (process,):
            pass  # the ledgers are there
    started = Process(proxy.url)
    proxy.fall_silent(Silence("writer", message))
    try:
        posting = asyncio.create_task(started.post("main"))
        await until(proxy.fell.is_set)
        await takes_writes(started, proxy.fell_at)
        await posting
    finally:
        await started.close()
    await check_answers(database, process, started)


async def test_the_bounds_of_a_deployment_are_short_enough(database, proxy):
    """With the default settings: all connections of a process fall silent, one after the other in use meanwhile."""
    async with running(proxy.url, database_timeout_s=8.0) as (process,):
        proxy.fall_silent_now()
        posting = asyncio.create_task(process.post("main"))
        await asyncio.sleep(3)
        # Its own time would be over nine seconds after the silence: it is not given all of it.
        later = asyncio.create_task(process.post("other"))
        await takes_writes(process, proxy.fell_at)
        await asyncio.gather(posting, later)
        await check_answers(database, process)


async def test_what_is_idle_is_not_waited_for_one_after_the_other(database, proxy):
    """Where one connection timed out, those that idled beside it are replaced: each would cost as long again."""
    async with running(proxy.url) as (process,):
        await use_at_once(process, 4)
        proxy.fall_silent_now()
        await takes_writes(process, proxy.fell_at)
        # A batch of each of the two ledgers met a silent connection, and none of them another.
        assert process.writer.counts.interrupted == 2
        await use_at_once(process, 4)
        await check_answers(database, process)


async def use_at_once(process: Process, count: int) -> None:
    """Use so many connections of the writer's pool."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            connection = await stack.enter_async_context(process.database.writes.acquire())
            assert 1 == await connection.fetchval("select 1")


async def test_what_is_in_use_beside_a_silent_connection_is_given_up_soon(database, proxy, monkeypatch):
    """A statement that was sent shortly before another one timed out does not get all of its own time."""
    monkeypatch.setattr(db, "WRITE_SECONDS_MAX", 60.0)
    async with running(proxy.url, database_timeout_s=12.0) as (process,):
        proxy.fall_silent_now()
        posting = asyncio.create_task(process.post("main"))
        await asyncio.sleep(10)
        began = time.monotonic()
        await process.post("other")
        # Two seconds until the other times out, and one more; by itself it would have waited for twelve.
        assert time.monotonic() - began < 11
        await posting
        await check_answers(database, process)


async def test_a_silent_connection_is_not_rolled_back(database, proxy, monkeypatch):
    """An exchange timed out: a ROLLBACK on the same connection would wait too, and here as long as a minute."""
    monkeypatch.setattr(db, "WRITE_SECONDS_MAX", 60.0)
    async with running(proxy.url, database_timeout_s=60.0) as (process,):

        async def time_out() -> None:
            async with process.database.writes.acquire() as connection, connection.atomic():
                proxy.fall_silent_now()
                await connection.execute("select 1", timeout=0.2)

        async with asyncio.timeout(20):
            (error,) = await asyncio.gather(time_out(), return_exceptions=True)
        assert isinstance(error, TimeoutError)
        await takes_writes(process, proxy.fell_at)
        await check_answers(database, process)


async def test_closing_waits_for_no_silent_connection(database, proxy):
    async with running(proxy.url, database_timeout_s=60.0) as (process,):
        proxy.fall_silent_now()
        async with asyncio.timeout(5):
            await process.close()


async def test_a_read_waits_once_for_a_silent_connection(database, proxy):
    """Not again for its ROLLBACK, and nobody waits for those that idle beside it."""
    async with running(proxy.url, database_timeout_s=6.0) as (process,):
        await read_at_once(process, 4)

        async def read_in_silence() -> None:
            async with process.database.sessions() as session:
                await session.execute(text("select 1"))
                proxy.fall_silent_now()
                await session.execute(text("select 1"))

        with pytest.raises(TimeoutError):
            await read_in_silence()
        assert time.monotonic() - proxy.fell_at < 11.5  # twice as long as an exchange may take would be twelve
        await read_at_once(process, 4)


async def read_at_once(process: Process, count: int) -> None:
    """Read on so many connections of the pool."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            session = await stack.enter_async_context(process.database.sessions())
            assert 1 == await session.scalar(text("select 1"))


async def test_a_batch_that_nobody_waits_for_holds_up_nobody(database, proxy):
    """It is not tried again once everyone who waited for it is answered: others wait behind it."""
    async with running(proxy.url, database_timeout_s=1.0) as (process,):
        process.writer._deadline_s = 0.5
        proxy.fall_silent(Silence("writer", "READ"))
        with pytest.raises(OutcomeUnknown):
            await process.submit("main", PostTransaction((Move("a", "b", 1),), None, None, None, None, {}), "k")
        await process.writer.drain()
        assert process.writer.counts.outcomes["refused"] == 1
        await takes_writes(process, proxy.fell_at)
        await check_answers(database, process)


async def test_a_migration_that_falls_silent_does_not_keep_its_locks(database, proxy):
    """It holds the lock that every batch waits for; the server ends its transaction."""
    version = (await fetch(database, "select version_num from alembic_version"))[0]["version_num"]
    await fetch(database, "update alembic_version set version_num = $1", f"{int(version) - 1:04d}")
    async with running(database) as (process,):
        proxy.fall_silent(Silence("", "LOCK TABLE", delivered=True))
        migrating = subprocess.Popen(
            [sys.executable, "-m", "alembic", "upgrade", "head"],
            cwd=ROOT, env=os.environ | {"DATABASE_URL": proxy.url}, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            await until(proxy.fell.is_set)
            await takes_writes(process, proxy.fell_at)
        finally:
            migrating.kill()
            migrating.wait()
        await check_answers(database, process)


async def test_readiness_knows_a_writer_that_makes_no_progress(database, proxy, monkeypatch):
    """Where an exchange may take as long as it likes, which no setting admits; ready again with the next commit."""
    monkeypatch.setattr(db, "WRITE_SECONDS_MAX", 60.0)
    monkeypatch.setattr(db, "SUSPECT_SECONDS_MAX", 60.0)
    with serve(database, database_url=as_service(proxy.url), database_timeout_s=6.0, write_deadline_s=1.0) as service:
        async with httpx.AsyncClient(base_url=service.url, headers={"Authorization": f"Bearer {KEY}"}) as client:
            await open_books(client, "main", ("a", "b"))
            assert (0.0, 200) == (await oldest_batch(client), (await client.get("/readyz")).status_code)
            proxy.fall_silent(Silence("writer", "WRITE"))
            body, headers = transaction("a", "b"), {"Idempotency-Key": "p1"}
            answer = await client.post("/v1/ledgers/main/transactions", json=body, headers=headers)
            assert "outcome_unknown" == answer.json()["code"]
            stalled = await readiness(client, 503)
            check_answer(stalled)
            assert ("not_ready", "writer_stalled") == (stalled.json()["code"], stalled.json()["reason"])
            assert await oldest_batch(client) > 1.0
            await readiness(client, 200)
            assert 0.0 == await oldest_batch(client)
    await check_invariants(database)


async def readiness(client: httpx.AsyncClient, status: int) -> httpx.Response:
    async with asyncio.timeout(60):
        while (answer := await client.get("/readyz")).status_code != status:
            await asyncio.sleep(0.05)
        return answer


async def oldest_batch(client: httpx.AsyncClient) -> float:
    metrics = (await client.get("/metrics")).text
    return float(re.search(r"^tallystick_batch_oldest_seconds (.*)$", metrics, re.MULTILINE)[1])


# Beside the writer's batches: what a served process sends on each kind of its connections.
BESIDE = [
    Silence("feed", "LISTEN"),
    Silence("feed", "NOTIFY"),
    Silence("keys", "LOOK"),
    Silence("reads", "BEGIN"),
    Silence("reads", "READ"),
    Silence("reads", "ROLLBACK"),
    Silence("checks", "CHECK"),
    Silence("writer", "KEY LOCK"),
    Silence("writer", "KEY WRITE", delivered=True),
    Silence("writer", "COMMIT"),
]


class Caller:
    """Asks a served process for everything in turn, as a client should: after a 503 the same again."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.posted = 0
        self._numbers = itertools.count()
        for ledger in LEDGERS:
            assert 201 == client.post("/v1/ledgers", json={"name": ledger}).status_code
            for path in ("a", "b"):
                open_account(client, ledger, path)
        made = client.post("/v1/api-keys", json={"name": "reader", "operations": ["read"]})
        self._reader = {"Authorization": f"Bearer {made.json()['secret']}"}

    def post(self) -> None:
        for ledger in LEDGERS:
            key = f"p{next(self._numbers)}"
            self._until(201, lambda ledger=ledger, key=key: post(self.client, ledger, transaction("a", "b"), key))
            self.posted += 1

    def read(self) -> None:
        self._until(200, lambda: self.client.get("/v1/ledgers/main/accounts/a"))
        self._until(200, lambda: self.client.get("/v1/ledgers/main/accounts/a", headers=self._reader))
        self._until(200, lambda: self.client.get("/readyz"))

    def make_key(self) -> None:
        body = {"name": f"k{next(self._numbers)}", "operations": ["read"]}
        # Repeated after an unknown outcome it may be there: its secret is lost then, and it can be revoked.
        self._until((201, 409), lambda: self.client.post("/v1/api-keys", json=body))
        self._until(200, lambda: self.client.post(f"/v1/api-keys/{body['name']}/revoke"))

    def _until(self, status: int | tuple[int, ...], ask: Callable[[], httpx.Response]) -> None:
        wanted = (status,) if isinstance(status, int) else status
        deadline = time.monotonic() + 60
        while (answer := ask()).status_code not in wanted:
            assert 503 == answer.status_code, answer.text
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.mark.parametrize("everywhere", [False, True], ids=["one", "all"])
def test_a_served_process_works_again(database, everywhere):
    """After a silence on each kind of its connections: writes, reads, keys and readiness, and no answer is wrong."""
    with (
        SilentProxy(database) as proxy,
        serve(database, database_url=as_service(proxy.url), database_timeout_s=1.0) as service,
        service.client() as client,
    ):
        caller = Caller(client)
        for silence in BESIDE[::3] if everywhere else BESIDE:
            proxy.fall_silent(replace(silence, everywhere=everywhere))
            if silence.message == "LISTEN":
                fetch_now(database, END_FEED)
            deadline = time.monotonic() + 60
            while not proxy.fell.is_set():
                assert time.monotonic() < deadline, silence
                caller.post()
                caller.read()
                caller.make_key()
            caller.post()
            assert time.monotonic() - proxy.fell_at < SECONDS_MAX, silence
            caller.read()
            caller.make_key()
        listened, notified = (proxy.count("feed", message) for message in ("LISTEN", "NOTIFY"))
        assert listened > 2  # at the start, and after each of its silences
        deadline = time.monotonic() + 60
        while proxy.count("feed", "NOTIFY") == notified:
            assert time.monotonic() < deadline
            caller.post()
    assert caller.posted == fetch_now(database, "select count(*) from events where kind = 'transaction_posted'")[0][0]
    asyncio.run(check_invariants(database))

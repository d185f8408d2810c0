"""The sweep of holds that are due: a ledger that is locked, slow or failing keeps no other from its turn."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Self

import pytest

from app.clock import ClockWatch
from app.db import Database
from app.ledger.commands import CreateLedger, Move, OpenAccount, PostTransaction
from app.ledger.expiry import LEDGERS_MAX, Sweeper
from app.ledger.known_ledgers import LedgerRef
from app.ledger.refusals import Overloaded
from app.ledger.submissions import CREATION_KEY, Submission
from app.ledger.writer import LedgerWriter
from tests.books import check_invariants, connect, fetch
from tests.conftest import Clock, settings_for

pytestmark = pytest.mark.anyio

WAIT_SECONDS_MAX = 60
EXPIRED = "select ledger_id from events where kind = 'transaction_expired' order by xmin::text::bigint, sequence"


class WatchedWriter(LedgerWriter):
    """The writer, which notes the expiries that are asked for and those that have ended."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)  # type: ignore[arg-type]
        self.begun: list[int] = []
        self.ended: list[int] = []
        # Ledgers whose queues are full, and those whose expiry takes until their event is set.
        self.full: set[int] = set()
        self.slow: dict[int, asyncio.Event] = {}

    async def expire_holds(self, ledger: LedgerRef) -> None:
        ledger_id = ledger.ledger_id
        self.begun.append(ledger_id)
        try:
            if ledger_id in self.full:
                raise Overloaded()
            if ledger_id in self.slow:
                await self.slow[ledger_id].wait()
            await super().expire_holds(ledger)
        finally:
            self.ended.append(ledger_id)


class Books:
    """Ledgers with a hold each, on a clock of their own, and a sweep of them."""

    def __init__(self, database: str, *, connections: int = 8) -> None:
        self.url = database
        self.clock = Clock()
        self.start = self.clock.now
        self.database = Database(settings_for(database, write_pool_size=connections))
        self.writer = WatchedWriter(self.database, self.clock, deadline_s=60)
        self.watch = ClockWatch(self.database, self.clock, skew_max_s=1e9)
        self.sweeper = Sweeper(self.database, self.writer, self.watch, connections=connections)

    async def submit(self, ledger: str, command, key: str):
        digest = CREATION_KEY if isinstance(command, CreateLedger) else key.encode().ljust(16, b"-")
        return await self.writer.submit(ledger, Submission(command, digest, b"f" * 16, "operator", key))

    async def post(self, ledger: str, key: str, *, expires_s: float | None = None):
        hold = {} if expires_s is None else {"pending": True, "expires_at": self.start + timedelta(seconds=expires_s)}
        return await self.submit(ledger, PostTransaction((Move("a", "b", 1),), None, None, None, None, {}, **hold), key)

    async def open(self, ledger: str, expires_s: float | None = None) -> int:
        """A ledger, with a hold that expires so many seconds after the start; its id."""
        await self.submit(ledger, CreateLedger(ledger, None, {}), "")
        for path in ("a", "b"):
            await self.submit(ledger, OpenAccount(path, "USD/2", "debit", None, None, None, {}), path)
        if expires_s is not None:
            await self.post(ledger, "hold", expires_s=expires_s)
        return (await fetch(self.url, "select ledger_id from ledgers where name = $1", ledger))[0]["ledger_id"]

    async def expired(self) -> list[int]:
        return [row["ledger_id"] for row in await fetch(self.url, EXPIRED)]

    async def until_expired(self, *ledgers: int) -> None:
        await until(lambda: self.expired(), lambda expired: set(ledgers) <= set(expired))

    async def __aenter__(self) -> Self:
        await self.watch.confirm()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.wait_for(self.sweeper.close(), WAIT_SECONDS_MAX)
        await self.writer.drain()
        await self.database.close()
        await check_invariants(self.url)


async def until[Found](look: Callable[[], object], is_so: Callable[[Found], bool]) -> None:
    """Look again and again until it is so."""
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while not is_so(await look()):  # type: ignore[misc]
            await asyncio.sleep(0.05)


@contextlib.asynccontextmanager
async def locked(database: str, *ledgers: int) -> AsyncIterator[None]:
    """Hold the row locks of these ledgers' heads in a transaction that does nothing else."""
    connection = await connect(database)
    try:
        async with connection.transaction():
            await connection.execute("select from heads where ledger_id = any($1) for update", list(ledgers))
            yield
    finally:
        await connection.close()


async def test_a_slow_ledger_holds_up_no_other_and_is_not_begun_twice(database: str) -> None:
    """It is due first. The others expire meanwhile, also those that come due later."""
    async with Books(database, connections=4) as books:
        slow = await books.open("slow", 1)
        others = [await books.open(f"other{n}", 2 + n) for n in range(4)]
        later = [await books.open(f"later{n}", 100 + n) for n in range(4)]
        ends = books.writer.slow[slow] = asyncio.Event()
        books.clock.advance(10)
        books.sweeper.start()
        await books.until_expired(*others)
        books.clock.advance(200)
        await books.until_expired(*later)
        assert [slow, *others, *later] == list(dict.fromkeys(books.writer.begun))
        assert 1 == books.writer.begun.count(slow)
        assert slow not in books.writer.ended
        ends.set()
        await books.until_expired(slow)


async def test_a_stop_does_not_wait_for_a_slow_ledger(database: str) -> None:
    async with Books(database) as books:
        slow = await books.open("slow", 1)
        books.writer.slow[slow] = asyncio.Event()
        books.clock.advance(10)
        books.sweeper.start()
        await until(lambda: asyncio.sleep(0), lambda _: books.writer.begun)
        await asyncio.wait_for(books.sweeper.close(), WAIT_SECONDS_MAX)
        assert [slow] == books.writer.ended
        assert [] == await books.expired()


async def test_holds_expire_oldest_first_over_all_ledgers(database: str) -> None:
    """Shown with one ledger at a time, so that each is recorded before the next one begins."""
    async with Books(database, connections=2) as books:
        ledgers = {due: await books.open(f"due{due}", int(due)) for due in (5.0, 1.0, 4.0, 2.0, 3.0, 2.1)}
        not_due = await books.open("not-due", 1_000)
        books.clock.advance(10)
        books.sweeper.start()
        await books.until_expired(*ledgers.values())
        assert [ledgers[due] for due in sorted(ledgers)] == await books.expired()
        assert [ledgers[due] for due in sorted(ledgers)] == list(dict.fromkeys(books.writer.begun))
        assert not_due not in books.writer.begun


async def test_more_ledgers_than_one_look_brings_that_fail_keep_no_other_from_its_turn(database: str) -> None:
    """All that are due first are rejected. They expire as well when that is over."""
    async with Books(database, connections=4) as books:
        failing = [await books.open(f"failing{n}", 1) for n in range(LEDGERS_MAX + 1)]
        others = [await books.open(f"other{n}", 2) for n in range(3)]
        books.writer.full.update(failing)
        books.clock.advance(10)
        books.sweeper.start()
        await books.until_expired(*others)
        assert set(others) == set(await books.expired())
        assert failing + others == books.writer.begun[: len(failing) + len(others)]
        books.writer.full.clear()
        await books.until_expired(*failing)


async def test_a_ledger_that_fails_is_not_begun_in_every_sweep(database: str) -> None:
    """Its pauses double, so it costs less and less."""
    async with Books(database) as books:
        failing = await books.open("failing", 1)
        rule = "kind <> 'transaction_expired' or ledger_id <> " + str(failing)
        await fetch(database, f"alter table events add constraint planted check ({rule})")
        sweeps = [await books.open(f"sweep{n}", 100 * (n + 1)) for n in range(4)]
        books.clock.advance(10)
        books.sweeper.start()
        for ledger in sweeps:  # each expires in a sweep of its own
            books.clock.advance(100)
            await books.until_expired(ledger)
        tried = books.writer.begun.count(failing)
        assert 2 ** (tried - 2) <= books.sweeper._pauses[failing].seconds
        await fetch(database, "alter table events drop constraint planted")
        await books.until_expired(failing)
        await until(lambda: asyncio.sleep(0), lambda _: failing not in books.sweeper._pauses)


async def test_locked_ledgers_leave_connections_to_requests(database: str) -> None:
    """As many ledgers are locked as the writer has connections: the sweep waits for half of them only."""
    async with Books(database, connections=4) as books:
        shut = [await books.open(f"shut{n}", 1) for n in range(4)]
        await books.open("open")
        waiting = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and application_name = $1"
        async with locked(database, *shut):
            books.clock.advance(10)
            books.sweeper.start()
            await until(lambda: fetch(database, waiting, "tallystick-writer"), lambda found: found[0]["count"] == 2)
            assert 4 == (await books.post("open", "post")).event.sequence
            assert shut[:2] == books.writer.begun[:2]
            assert len(books.writer.begun) - len(books.writer.ended) <= 2
        await books.until_expired(*shut)

"""The feed's waiting: who has read a log to its end is woken when it grows, whichever process made it grow.

Three ways lead to a waiter, each slower and surer than the one before. A commit in this process wakes it directly.
A commit in another is told by NOTIFY: sent after the commit, on a connection of its own, gathered for 20 ms; it is
a hint that may be lost. And once a second one statement looks at the heads of all ledgers that are waited for: what
that net finds needs neither the hint nor a LISTEN that works, as behind pgbouncer in transaction mode.
"""

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import Context
from dataclasses import dataclass, field

import structlog
from sqlalchemy import select

from app.connections import Connection
from app.counts import FeedCounts
from app.db import Database
from app.ledger import queries, recorded
from app.ledger.refusals import Overloaded
from app.models import heads

log = structlog.get_logger()

CHANNEL = "tallystick_feed"
NOTIFY = "select pg_notify('tallystick_feed', payload) from unnest($1::text[]) as u (payload)"
GATHER_SECONDS = 0.02
LOOK_SECONDS = 1.0
RECONNECT_SECONDS = 1.0
# How long the connection may say nothing before it is asked whether it is still there.
SILENCE_SECONDS_MAX = 30.0


@dataclass(eq=False, slots=True)
class Waiter:
    """Somebody who has read the log of the ledger of this identity up to `after`."""

    identity: str
    after: int
    news: asyncio.Event = field(default_factory=asyncio.Event)
    released: bool = False


class Feed:
    """Wakes who waits for a log to grow. One per process, on its event loop."""

    def __init__(self, database: Database, *, waiters_max: int) -> None:
        self.counts = FeedCounts()
        self._sessions = database.sessions
        self._signals = database.signals
        self.waiters_max = waiters_max
        self._waiters: dict[int, set[Waiter]] = {}
        self._count = 0
        # The last sequence of each ledger that other processes have yet to be told of.
        self._unsent: dict[int, int] = {}
        self._has_unsent = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False

    @property
    def waiting(self) -> int:
        return self._count

    def start(self) -> None:
        for each in (self._keep_looking,) if self._signals is None else (self._keep_looking, self._keep_signalling):
            self._tasks.append(asyncio.create_task(each(), context=Context()))

    def release(self) -> None:
        """Answer everybody who waits now; who comes after may wait again."""
        for waiters in self._waiters.values():
            for waiter in waiters:
                waiter.released = True
                waiter.news.set()

    def stop(self) -> None:
        """Answer everybody who waits, and let nobody wait any more."""
        self._stopping = True
        self.release()

    async def close(self) -> None:
        self.stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def tell(self, ledger_id: int, sequence: int) -> None:
        """A log has come to this sequence, committed. Costs its caller nothing but this."""
        self._wake(ledger_id, sequence)
        if self._signals is None:
            return
        self._unsent[ledger_id] = sequence
        self._has_unsent.set()

    async def list_next_events(self, ledger: str, *, after: int, limit: int, wait_s: float) -> recorded.LogPage:
        """The log after a sequence, as soon as it holds anything there; an empty page if it does not in time.

        No session is held while waiting. Raises what `list_events` does, also if the ledger has another identity
        than when the waiting began, and `Overloaded` if too many wait.
        """
        deadline = asyncio.get_running_loop().time() + wait_s
        async with self._sessions() as session:
            head = await queries.get_head(session, ledger)
        with self._watch(head.ledger_id, head.identity, after) as waiter:
            # Read only under watch: what came before it had nobody to wake.
            page = await self._read(ledger, head.identity, after, limit)
            while not page.items and not self._lets_go(waiter) and not await _is_late(deadline, waiter.news):
                if self._lets_go(waiter):
                    break
                waiter.news.clear()
                page = await self._read(ledger, head.identity, after, limit)
            return page

    def _lets_go(self, waiter: Waiter) -> bool:
        return self._stopping or waiter.released

    async def _read(self, ledger: str, identity: str, after: int, limit: int) -> recorded.LogPage:
        async with self._sessions() as session:
            return await recorded.list_events(session, ledger, after=after, limit=limit, identity=identity)

    @contextmanager
    def _watch(self, ledger_id: int, identity: str, after: int) -> Iterator[Waiter]:
        if self._count >= self.waiters_max:
            raise Overloaded()
        waiter = Waiter(identity, after)
        self._count += 1
        self._waiters.setdefault(ledger_id, set()).add(waiter)
        try:
            yield waiter
        finally:
            self._count -= 1
            waiters = self._waiters[ledger_id]
            waiters.remove(waiter)
            if not waiters:
                del self._waiters[ledger_id]

    def _wake(self, ledger_id: int, sequence: int) -> None:
        for waiter in self._waiters.get(ledger_id, ()):
            if waiter.after < sequence:
                waiter.news.set()

    def _wake_of_the_past(self, looked_at: Iterable[int], heads: Mapping[int, tuple[str, int]]) -> None:
        """Wake those whose ledger was replaced or shortened, as when a backup was restored: what they read next tells
        them so."""
        for ledger_id in looked_at:
            identity, last = heads.get(ledger_id, ("", 0))
            for waiter in self._waiters.get(ledger_id, ()):
                if waiter.identity != identity or waiter.after > last:
                    waiter.news.set()

    async def _keep_looking(self) -> None:
        """The net under the notifications: one look for all who wait."""
        while not self._stopping:
            await asyncio.sleep(LOOK_SECONDS)
            if not self._waiters:
                continue
            looked_at = list(self._waiters)
            query = select(heads.c.ledger_id, heads.c.identity, heads.c.sequence)
            try:
                async with self._sessions() as session:
                    found = (await session.execute(query.where(heads.c.ledger_id.in_(looked_at)))).all()
            except Exception as error:
                log.warning("feed_look_failed", error=type(error).__name__)
                continue
            for ledger_id, _, sequence in found:
                self._wake(ledger_id, sequence)
            self._wake_of_the_past(looked_at, {ledger_id: (identity, last) for ledger_id, identity, last in found})

    async def _keep_signalling(self) -> None:
        """Hold the connection that tells other processes and hears from them; make it again when it is lost."""
        lost = False
        while not self._stopping and self._signals is not None:
            try:
                async with self._signals.acquire() as connection:
                    if lost:
                        log.info("feed_connected_again")
                    lost = False
                    await self._signal(connection, timeout_s=self._signals.timeout_s)
            except Exception as error:
                if not lost:
                    log.warning("feed_connection_lost", error=type(error).__name__)
                lost = True
            await asyncio.sleep(RECONNECT_SECONDS)

    async def _signal(self, connection: Connection, *, timeout_s: float) -> None:
        own = connection.get_server_pid()

        def hear(_: object, sender: int, __: str, payload: object) -> None:
            # Anybody with access to the database may send on the channel; what is not ours wakes nobody.
            with suppress(ValueError):
                ledger_id, sequence = map(int, str(payload).split(" "))
                if sender != own:
                    self._wake(ledger_id, sequence)

        connection.add_termination_listener(lambda _: self._has_unsent.set())
        await connection.add_listener(CHANNEL, hear)
        while not self._stopping:
            await _is_late(asyncio.get_running_loop().time() + SILENCE_SECONDS_MAX, self._has_unsent)
            self._has_unsent.clear()
            unsent, self._unsent = self._unsent, {}
            payloads = [f"{ledger_id} {sequence}" for ledger_id, sequence in unsent.items()]
            # With nothing to tell it asks only whether the connection is still there.
            await connection.execute(NOTIFY, payloads, timeout=timeout_s)
            await asyncio.sleep(GATHER_SECONDS)


async def _is_late(deadline: float, news: asyncio.Event) -> bool:
    """Wait for news until a time of the event loop; whether that passed without any."""
    try:
        async with asyncio.timeout_at(deadline):
            await news.wait()
    except TimeoutError:
        return True
    return False

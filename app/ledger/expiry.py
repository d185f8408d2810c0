"""Expiries that nobody asks for: once a second each process looks where holds are due, and has them expired.

Who reads or writes a ledger finds its due holds expired anyway; this keeps the log of a quiet one up to date.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import structlog
from sqlalchemy import select, tuple_

from app.background import Background
from app.clock import ClockWatch
from app.db import Database
from app.ledger.known_ledgers import LedgerRef
from app.ledger.refusals import ClockSkewed, Refusal
from app.ledger.writer import RECORDED_AHEAD_MAX, LedgerWriter
from app.models import heads

log = structlog.get_logger()

LOOK_SECONDS = 1.0
# How many ledgers one look brings.
LEDGERS_MAX = 100
# How many ledgers have their holds expired at once, where the writer has connections for it.
AT_ONCE_MAX = 8
# How long a ledger is left alone after a failure. The pause doubles with each failure in a row.
PAUSE_SECONDS_MIN = 1.0
PAUSE_SECONDS_MAX = 60.0


@dataclass(frozen=True, slots=True)
class Pause:
    """How long a ledger is left alone, and until when by the clock of the event loop."""

    seconds: float
    until: float


class Sweeper(Background):
    """One per process, on its event loop.

    `connections` is how many the writer has. The sweep uses half of them at most, so that ledgers that are slow or
    locked leave the other half to requests.
    """

    def __init__(self, database: Database, writer: LedgerWriter, watch: ClockWatch, *, connections: int) -> None:
        self._sessions = database.sessions
        self._writer = writer
        self._watch = watch
        self._slots = asyncio.Semaphore(max(1, min(AT_ONCE_MAX, connections // 2)))
        self._under_way: set[int] = set()
        self._pauses: dict[int, Pause] = {}

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while True:  # until it is cancelled
                await asyncio.sleep(LOOK_SECONDS)
                try:
                    await self._sweep(group)
                except ClockSkewed:
                    pass  # the clock watch has logged it, and another process sweeps
                except Exception as error:
                    # The database is away: the next look comes soon, and reads do not rely on it.
                    log.warning("expiry_failed", error=type(error).__name__)

    async def _sweep(self, group: asyncio.TaskGroup) -> None:
        """Begin the expiry of every ledger with holds that are due, the oldest first.

        Each ledger has one turn in a sweep, so those that fail keep no other from its turn. A slow one is still under
        way when the next sweep begins, and is not begun again.
        """
        due = set()
        async for ledger in self._list_due():
            ledger_id = ledger.ledger_id
            due.add(ledger_id)
            if ledger_id in self._under_way or self._is_paused(ledger_id):
                continue
            await self._slots.acquire()
            self._under_way.add(ledger_id)
            group.create_task(self._expire(ledger))
        self._pauses = {ledger_id: pause for ledger_id, pause in self._pauses.items() if ledger_id in due}

    async def _list_due(self) -> AsyncIterator[LedgerRef]:
        """The ledgers with holds that are due, the oldest first, page by page. No session is held between pages.

        Raises `ClockSkewed`.
        """
        now = self._watch.now()
        place = (heads.c.next_expiry, heads.c.ledger_id)
        due = select(*place, heads.c.identity).where(
            heads.c.next_expiry <= now,
            heads.c.recorded_at <= now + RECORDED_AHEAD_MAX,  # or the writer would record nothing
        )
        query = due.order_by(*place).limit(LEDGERS_MAX)
        page = query
        while True:
            async with self._sessions() as session:
                rows = (await session.execute(page)).all()
            for row in rows:
                yield LedgerRef(row.ledger_id, row.identity)
            if len(rows) < LEDGERS_MAX:
                return
            page = query.where(tuple_(*place) > tuple_(rows[-1].next_expiry, rows[-1].ledger_id))

    async def _expire(self, ledger: LedgerRef) -> None:
        ledger_id = ledger.ledger_id
        try:
            await self._writer.expire_holds(ledger)
            self._pauses.pop(ledger_id, None)
        except Exception as error:
            self._pause(ledger_id)
            name = error.code if isinstance(error, Refusal) else type(error).__name__
            log.warning("expiry_failed", ledger_id=ledger_id, error=name)
        finally:
            self._under_way.remove(ledger_id)
            self._slots.release()

    def _is_paused(self, ledger_id: int) -> bool:
        pause = self._pauses.get(ledger_id)
        return pause is not None and asyncio.get_running_loop().time() < pause.until

    def _pause(self, ledger_id: int) -> None:
        last = self._pauses.get(ledger_id)
        seconds = min(last.seconds * 2, PAUSE_SECONDS_MAX) if last else PAUSE_SECONDS_MIN
        self._pauses[ledger_id] = Pause(seconds, asyncio.get_running_loop().time() + seconds)

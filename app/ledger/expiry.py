"""Expiries that nobody asks for: once a second each process looks where holds are due, and has them expired.

Who reads or writes a ledger finds its due holds expired anyway; this keeps the log of a quiet one up to date.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime

import structlog
from sqlalchemy import select

from app.background import Background
from app.db import Database
from app.ledger.refusals import Refusal
from app.ledger.writer import LedgerWriter
from app.models import heads

log = structlog.get_logger()

LOOK_SECONDS = 1.0
LEDGERS_MAX = 100


class Sweeper(Background):
    """One per process, on its event loop."""

    def __init__(self, database: Database, writer: LedgerWriter, clock: Callable[[], datetime]) -> None:
        self._sessions = database.sessions
        self._writer = writer
        self._clock = clock

    async def _run(self) -> None:
        while True:  # until it is cancelled
            await asyncio.sleep(LOOK_SECONDS)
            try:
                while await self._sweep() == LEDGERS_MAX:
                    pass  # there are more
            except Exception as error:
                # The database is away: the next look comes soon, and reads do not rely on it.
                log.warning("expiry_failed", error=type(error).__name__)

    async def _sweep(self) -> int:
        """How many ledgers had holds that were due, and have none any more."""
        query = select(heads.c.ledger_id).where(heads.c.next_expiry <= self._clock()).order_by(heads.c.next_expiry)
        async with self._sessions() as session:
            due = list(await session.scalars(query.limit(LEDGERS_MAX)))
        swept = 0
        for ledger_id in due:
            try:
                await self._writer.expire_holds(ledger_id)
                swept += 1
            except Refusal as refusal:
                # The others are not to wait for it.
                log.warning("expiry_failed", ledger_id=ledger_id, error=refusal.code)
        return swept

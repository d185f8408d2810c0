"""The rows of one ledger, as a verification reads them."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.ledger.known_ledgers import LedgerRef
from app.ledger.refusals import StorageUnavailable

Sessions = async_sessionmaker[AsyncSession]
IDENTITY = text("select identity::text from heads where ledger_id = :ledger")


class Rows:
    """Each read has a session of its own, so that no snapshot lives longer than a page."""

    def __init__(self, sessions: Sessions, ledger: LedgerRef) -> None:
        self.sessions = sessions
        self.ledger_id, self._identity = ledger

    async def read(self, query: Any, **parameters: Any) -> Sequence[Row[Any]]:
        async with self.sessions() as session:
            return (await session.execute(query, {"ledger": self.ledger_id} | parameters)).all()

    async def check_identity(self) -> None:
        """Raise `StorageUnavailable` if a backup was restored meanwhile: some of what was read may be of another
        ledger."""
        if [self._identity] != [row.identity for row in await self.read(IDENTITY)]:
            raise StorageUnavailable()

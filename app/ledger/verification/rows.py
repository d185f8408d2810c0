"""The rows of one ledger, as a verification reads them."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

Sessions = async_sessionmaker[AsyncSession]


class Rows:
    """Each read has a session of its own, so that no snapshot lives longer than a page."""

    def __init__(self, sessions: Sessions, ledger_id: int) -> None:
        self.sessions = sessions
        self.ledger_id = ledger_id

    async def read(self, query: Any, **parameters: Any) -> Sequence[Row[Any]]:
        async with self.sessions() as session:
            return (await session.execute(query, {"ledger": self.ledger_id} | parameters)).all()

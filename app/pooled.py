"""Behind a pooler in transaction mode: each transaction may have another server, and nothing outlives one.

So what elsewhere is said once for a session is said at the beginning of every transaction, every statement is in one,
and none stays prepared.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import asyncpg
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine

from app.connections import Connection as DriverConnection
from app.connections import atomic

# What a pooler itself keeps for each of its clients. With any other setting it refuses a connection.
KEPT = ("application_name", "timezone")
# Arguments of the driver, and of SQLAlchemy's adapter, after which no statement has a name.
UNPREPARED = {"statement_cache_size": 0, "prepared_statement_cache_size": 0}


def get_kept(session: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in session.items() if name in KEPT}


def set_in_each_transaction(engine: AsyncEngine, session: dict[str, str]) -> None:
    """Have every transaction of the engine begin with these settings."""
    settings = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in _local(session).items())

    @event.listens_for(engine.sync_engine, "begin")
    def set_them(connection: Connection) -> None:
        connection.exec_driver_sql(f"select {settings}")


class PooledConnection:
    """What is used of the driver's connection, each statement in a transaction that has the settings."""

    def __init__(self, connection: DriverConnection, session: dict[str, str]) -> None:
        self._connection = connection
        settings = "".join(f"; set local {name} = '{value}'" for name, value in _local(session).items())
        self._begin = "begin isolation level read committed" + settings  # one message, one way there and back

    def atomic(self) -> AbstractAsyncContextManager[None]:
        """A transaction that is committed at the end of the block, or rolled back."""
        return atomic(self._connection, self._begin)

    async def fetch(self, query: str, *arguments: Any, timeout: float | None = None) -> list[asyncpg.Record]:  # noqa: ASYNC109
        async with self._in_transaction():
            return await self._connection.fetch(query, *arguments, timeout=timeout)

    async def fetchrow(self, query: str, *arguments: Any, timeout: float | None = None) -> asyncpg.Record | None:  # noqa: ASYNC109
        async with self._in_transaction():
            return await self._connection.fetchrow(query, *arguments, timeout=timeout)

    async def fetchval(self, query: str, *arguments: Any, timeout: float | None = None) -> Any:  # noqa: ASYNC109
        async with self._in_transaction():
            return await self._connection.fetchval(query, *arguments, timeout=timeout)

    async def execute(self, query: str, *arguments: Any, timeout: float | None = None) -> str:  # noqa: ASYNC109
        async with self._in_transaction():
            return await self._connection.execute(query, *arguments, timeout=timeout)

    @asynccontextmanager
    async def _in_transaction(self) -> AsyncIterator[None]:
        if self._connection.is_in_transaction():
            yield
        else:
            async with self.atomic():
                yield


def _local(session: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in session.items() if name not in KEPT}

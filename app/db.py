"""Connections: engines for reads, the writer, the feed, keys and checks. Nothing else in the service opens any."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from app.connections import SERVER_KEEP_ALIVE, Connection, timed_out
from app.ledger.known_ledgers import KnownLedgers
from app.ledger.refusals import Overloaded
from app.pooled import UNPREPARED, PooledConnection, get_kept, set_in_each_transaction
from app.settings import Settings

# Every read goes by keys, and what it reads is nearly always in memory. A server that believes in a spinning disk takes
# the scan of a small table for cheaper than a look-up, and repeats it account by account.
READ_SETTINGS = {
    "application_name": "tallystick-reads",
    "timezone": "UTC",
    "idle_in_transaction_session_timeout": "10s",
    "jit": "off",
    "random_page_cost": "1.1",
}

# A plan that the writer prepares while its tables are empty has to hold at any size: everything that could make
# it other than an index look-up is switched off, and operators cost nothing, so that of two indexes that tie the
# one with the more columns wins. The timeouts end a stalled holder of the row lock within 4 seconds.
WRITE_SETTINGS = {
    "application_name": "tallystick-writer",
    "timezone": "UTC",
    "default_transaction_isolation": "read committed",
    "lock_timeout": "5s",
    "idle_in_transaction_session_timeout": "4s",
    "jit": "off",
    "cpu_operator_cost": "0",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "enable_bitmapscan": "off",
    "enable_material": "off",
    "enable_memoize": "off",
}

CHECK_SETTINGS = {"application_name": "tallystick-checks", "timezone": "UTC", "statement_timeout": "5s"}

# The one connection of the feed, which tells other processes what was committed here and listens to them. It is idle
# for as long as nobody writes, and what it tells is a hint that needs no disk.
SIGNAL_SETTINGS = {
    "application_name": "tallystick-feed",
    "timezone": "UTC",
    "idle_session_timeout": "0",
    "synchronous_commit": "off",
}

# The one connection that keys are looked for on: how soon a revoked one is refused must not depend on what else waits.
KEY_SETTINGS = {"application_name": "tallystick-keys", "timezone": "UTC", "statement_timeout": "1s", "jit": "off"}

# An exchange of the writer takes no longer, whatever the settings allow a read: so a ledger whose connection has fallen
# silent takes writes again within 10 seconds. It is longer than a lock is waited for.
WRITE_SECONDS_MAX = 6.0
# A statement is ended by the server after this part of the time that an exchange may take: so where an exchange times
# out, it is the connection that is silent, and not the server that is slow.
STATEMENT_PART = 0.9
# After one connection fell silent, how long a statement may still take on another that is as old.
SUSPECT_SECONDS_MAX = 1.0

# What passes: the connection or the server went away, a rival held something for too long, or the server could not
# read or write a file (class 58). What says that data is damaged (class XX) does not pass: a person has to look.
_TRANSIENT = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # What the driver raises where the server's word that it ended the session is found in the middle of a statement.
    asyncpg.InternalClientError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.PostgresSystemError,
    asyncpg.exceptions.IdleInTransactionSessionTimeoutError,
    asyncpg.exceptions.TransactionTimeoutError,
    asyncpg.LockNotAvailableError,
    asyncpg.exceptions.TransactionRollbackError,
    asyncpg.ReadOnlySQLTransactionError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    OSError,
    TimeoutError,
    OperationalError,
    InterfaceError,
)


def is_transient(error: BaseException) -> bool:
    """Whether the same may go through on another connection, or later."""
    if isinstance(error, DBAPIError) and error.orig is not None and error.orig.__cause__ is not None:
        return isinstance(error.orig.__cause__, _TRANSIENT)
    return isinstance(error, _TRANSIENT)


class WriteConnections:
    """A pool of connections of its own, for the writer, the feed or keys, each statement committing by itself.

    What silences one connection silences, as a rule, all that are as old: a host that died, an address that moved, a
    NAT that started anew. So where one has timed out, the idle ones are replaced before they are used, and those in
    use are ended unless they answer soon. Otherwise each of them would cost the time of an exchange.
    """

    def __init__(self, engine: AsyncEngine, *, timeout_s: float, pooled: dict[str, str] | None = None) -> None:
        self._engine = engine
        self.timeout_s = timeout_s
        # The settings of the session, where a pooler in transaction mode lets nothing outlive a transaction.
        self._pooled = pooled
        # What each connection is in use for: an object that stands for one use of it.
        self._in_use: dict[Connection, object] = {}
        # Older connections are replaced.
        self._silent_at = float("-inf")
        event.listen(engine.sync_engine, "checkout", self._replace_silent)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A connection of the driver itself. One that fails in any unforeseen way does not return to the pool.

        Raises `Overloaded` if none comes free in time.
        """
        try:
            pooled = await self._engine.connect()
        except PoolTimeoutError:
            raise Overloaded() from None
        try:
            connection: Any = (await pooled.get_raw_connection()).driver_connection
            used: Any = connection if self._pooled is None else PooledConnection(connection, self._pooled)
            self._in_use[connection] = object()
            try:
                yield used
            except BaseException as error:
                if timed_out(error):
                    self._suspect_others()
                if (
                    connection.is_closed()
                    or connection.is_in_transaction()
                    or not isinstance(error, Exception)
                    or is_transient(error)
                    or is_transient(error.__cause__ or error)
                ):
                    connection.terminate()
                if connection.is_closed():
                    await pooled.invalidate()
                raise
            finally:
                del self._in_use[connection]
        finally:
            await pooled.close()

    def _replace_silent(self, connection: Any, *_: Any) -> None:
        if connection.driver_connection.is_closed() or connection.driver_connection.opened_at < self._silent_at:
            raise DisconnectionError()  # the pool connects anew

    def _suspect_others(self) -> None:
        self._silent_at = monotonic()
        # One that was made while the silent one was waited for was made over what works.
        suspects = {each: use for each, use in self._in_use.items() if each.opened_at < monotonic() - self.timeout_s}
        asyncio.get_running_loop().call_later(SUSPECT_SECONDS_MAX, self._end, suspects)

    def _end(self, suspects: dict[Connection, object]) -> None:
        for connection, use in suspects.items():
            if self._in_use.get(connection) is use:
                connection.terminate()


def limit_statements(session: dict[str, str], timeout_s: float) -> dict[str, str]:
    """The settings of a session whose statements end before an exchange does, unless it says when itself."""
    return {"statement_timeout": f"{max(1, int(timeout_s * STATEMENT_PART * 1000))}ms"} | session


def give_up_silent(context: ExceptionContext) -> None:
    """Take a connection on which an exchange has timed out for lost, as SQLAlchemy does by itself, and with it all of
    the pool that are as old."""
    if timed_out(context.original_exception):
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = True


class Database:
    """The engines: `sessions` for reads, `writes` for the writer, `signals` for the feed, `keys`, and `checks`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._write_timeout_s = min(settings.database_timeout_s, WRITE_SECONDS_MAX)
        self._reads = self._make_engine(
            READ_SETTINGS,
            isolation_level="REPEATABLE READ",
            execution_options={"postgresql_readonly": True},
            pool_size=settings.read_pool_size,
            pool_recycle=1800,
            pool_use_lifo=True,
        )
        event.listen(self._reads.sync_engine, "handle_error", give_up_silent)
        write_settings = WRITE_SETTINGS | {"plan_cache_mode": settings.plan_cache_mode}
        self._writes = self._make_engine(
            write_settings,
            timeout_s=self._write_timeout_s,
            isolation_level="AUTOCOMMIT",
            pool_size=settings.write_pool_size,
            pool_recycle=1800,
            pool_use_lifo=True,
        )
        self._signals = self._make_engine(SIGNAL_SETTINGS, isolation_level="AUTOCOMMIT", pool_size=1)
        self._keys = self._make_engine(KEY_SETTINGS, isolation_level="AUTOCOMMIT", pool_size=1)
        # Apart from the reads, so that a process whose reads all wait is not taken for one without a database.
        self.checks = self._make_engine(
            CHECK_SETTINGS,
            isolation_level="READ COMMITTED",
            pool_size=1,
            pool_recycle=1800,
        )
        event.listen(self.checks.sync_engine, "handle_error", give_up_silent)
        # What this process knows of the directory of ledgers: the sessions and the writer share it.
        self.ledgers = KnownLedgers()
        self.sessions: async_sessionmaker[AsyncSession] = async_sessionmaker(
            self._reads, expire_on_commit=False, info={"ledgers": self.ledgers}
        )
        self.writes = self._share(self._writes, write_settings, timeout_s=self._write_timeout_s)
        self.keys = self._share(self._keys, KEY_SETTINGS)
        # For comparing clocks: no load of the service keeps this connection busy.
        self.clock = self._share(self.checks, CHECK_SETTINGS)
        # Behind a pooler in transaction mode nobody can listen: then there is nothing to tell either.
        self.signals = None if settings.transaction_pooler else self._share(self._signals, SIGNAL_SETTINGS)

    def _make_engine(self, session: dict[str, str], *, timeout_s: float | None = None, **options: Any) -> AsyncEngine:
        """An engine whose every connection has these settings of the server. All that connects is made here.

        `timeout_s` bounds connecting, and each exchange with the server.
        """
        address, secured = self._settings.get_address(self._settings.database_url)
        pooled = self._settings.transaction_pooler
        timeout_s = timeout_s or self._settings.database_timeout_s
        session = limit_statements(session, timeout_s)
        arguments = {
            "connection_class": Connection,
            "server_settings": get_kept(session) if pooled else SERVER_KEEP_ALIVE | session,
            "timeout": timeout_s,
            "command_timeout": timeout_s,
            **secured,
            **(UNPREPARED if pooled else {}),
        }
        engine = create_async_engine(
            address,
            hide_parameters=True,
            max_overflow=0,
            pool_timeout=self._settings.pool_timeout_s,
            connect_args=arguments,
            **options,
        )
        if pooled and options["isolation_level"] != "AUTOCOMMIT":
            set_in_each_transaction(engine, session)
        return engine

    def _share(
        self, engine: AsyncEngine, session: dict[str, str], *, timeout_s: float | None = None
    ) -> WriteConnections:
        timeout_s = timeout_s or self._settings.database_timeout_s
        pooled = limit_statements(session, timeout_s) if self._settings.transaction_pooler else None
        return WriteConnections(engine, timeout_s=timeout_s, pooled=pooled)

    def connections_in_use(self) -> dict[str, tuple[int, int]]:
        """Of each pool, how many connections are in use and how many there may be."""
        pools = {"read": self._reads.pool, "write": self._writes.pool}
        return {name: (pool.checkedout(), pool.size()) for name, pool in pools.items()}  # type: ignore[attr-defined]

    async def close(self) -> None:
        await self._reads.dispose()
        await self._writes.dispose()
        await self._signals.dispose()
        await self.checks.dispose()
        await self._keys.dispose()

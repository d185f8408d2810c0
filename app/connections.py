"""A connection to Postgres on which every wait is bounded, also when the other end has fallen silent.

The engines bound each exchange (`command_timeout`). What is here bounds the rest: closing, rolling back after an
exchange that had no answer, and connections that are idle.
"""

import socket
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

import asyncpg

# The kernel asks a peer that has been quiet for 15 s whether it is there, and gives up after three answers are missing.
# Sent data that stays unacknowledged ends a connection sooner.
KEEP_ALIVE = {"TCP_KEEPIDLE": 15, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 15_000}

# The same on the server: it releases the locks of a client that is gone. While it sends an answer that the client does
# not read, no other timeout of the server applies.
SERVER_KEEP_ALIVE = {
    "tcp_keepalives_idle": "15",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "8s",
}


class Connection(asyncpg.Connection):
    """A connection of the driver, which knows its age, and waits for nothing when it is closed."""

    __slots__ = ("opened_at",)

    def __init__(self, protocol: Any, transport: Any, *arguments: Any) -> None:
        super().__init__(protocol, transport, *arguments)
        self.opened_at = time.monotonic()
        _keep_alive(transport.get_extra_info("socket"))

    def atomic(self) -> AbstractAsyncContextManager[None]:
        """A transaction that is committed at the end of the block, or rolled back."""
        return atomic(self, "begin")

    async def close(self, *, timeout: float | None = None) -> None:  # noqa: ASYNC109
        """Tell the server, and do not wait until it closes too: the driver would, for as long as it stays silent."""
        self.terminate()


# For who changes tables: a migration, `scripts/distribute`. A statement may take as long as an index on a large table.
OWNER_ARGUMENTS: dict[str, Any] = {"connection_class": Connection, "timeout": 30.0, "command_timeout": 3600.0}
# Where the connection falls silent, the server ends the transaction and its locks within seconds, so all others go on.
# Set in the transaction, since a pooler rejects it as a setting of a new session.
OWNER_LIMITS = "select " + ", ".join(
    f"set_config('{name}', '{value}', true)"
    for name, value in ({"idle_in_transaction_session_timeout": "5s"} | SERVER_KEEP_ALIVE).items()
)


@asynccontextmanager
async def atomic(connection: Connection, begin: str) -> AsyncIterator[None]:
    """A transaction, committed at the end of the block. If the block raises, it is rolled back.

    After an exchange that timed out it is not rolled back: ROLLBACK would wait as long again. Such a connection is not
    used again, and the server ends its transaction (`idle_in_transaction_session_timeout`).
    """
    await connection.execute(begin)
    try:
        yield
    except Exception as error:
        if not timed_out(error):
            # If this fails, the connection is still in a transaction, and is not used again.
            with suppress(Exception):
                await connection.execute("rollback")
        raise
    await connection.execute("commit")


def timed_out(error: BaseException | None) -> bool:
    """Whether the driver waited in vain for an answer of the server."""
    while error is not None and not isinstance(error, TimeoutError):
        error = error.__cause__
    return error is not None


def _keep_alive(connected: socket.socket | None) -> None:
    if connected is None or connected.family not in (socket.AF_INET, socket.AF_INET6):
        return
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE.items():
        # Not every system has each of them.
        if hasattr(socket, name):
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

"""The keys that the operator made, as a process knows them: no request waits for the database to be let in.

A task looks for changes three times a second, on a connection of its own. What it knows counts for a second from the
moment at which a look began: so a key that was revoked is refused by every process within a second of the answer that
said so, whatever happens to the looks. When they fail, who comes waits for one that succeeds, and is then told that
the storage is unavailable, which is what everything else would tell him.

Each look also reads the epoch of the database. When that has changed, a backup may have been restored: all keys are
read again from the first revision, and whatever else the process remembers of the database is dropped.
"""

import asyncio
from collections.abc import Callable
from datetime import datetime

import asyncpg
import structlog

from app.access.api_keys import Change, Epoch, read_changes
from app.access.callers import Caller
from app.background import Background
from app.connections import Connection
from app.db import WriteConnections
from app.ledger.refusals import StorageUnavailable

log = structlog.get_logger()

LOOK_SECONDS = 0.3
LOOK_SECONDS_MAX = 1.0
# For how long what a look found counts.
STALE_SECONDS = 1.0
WAIT_SECONDS_MAX = 2.0
WAITERS_MAX = 1_000
# What a host answers that keeps the control data of its server from ordinary roles.
NO_CONTROL = (
    asyncpg.InsufficientPrivilegeError,
    asyncpg.UndefinedFunctionError,
    asyncpg.FeatureNotSupportedError,
)


class KnownKey:
    """A key that is not revoked, by the hash of its secret."""

    __slots__ = ("caller", "expires_at", "name")

    def __init__(self, change: Change) -> None:
        self.name = change.name
        self.caller = Caller(change.label, change.scope, f"key:{change.name}", change.label)
        self.expires_at = change.expires_at

    def is_live(self, now: datetime) -> bool:
        return self.expires_at is None or now < self.expires_at


class KnownKeys(Background):
    """One per process, on its event loop."""

    def __init__(self, connections: WriteConnections, *, drop: Callable[[], None] = lambda: None) -> None:
        self._connections = connections
        # Drops what else this process remembers of the database.
        self._drop = drop
        self._keys: dict[bytes, KnownKey] = {}
        self._revision = 0
        self._epoch: Epoch | None = None
        self._control = True
        # When the last look that succeeded began, by the clock of the event loop.
        self._looked_at = float("-inf")
        self._looked = asyncio.Event()
        self._wanted = asyncio.Event()
        self._waiters = 0

    def find(self, secret_digest: bytes) -> KnownKey | None:
        """The key as of the last second; None if it is not known, or if what is known is older than that."""
        if asyncio.get_running_loop().time() - self._looked_at > STALE_SECONDS:
            return None
        return self._keys.get(secret_digest)

    async def find_anew(self, secret_digest: bytes) -> KnownKey | None:
        """The key as of now, which may take until the next look. Raises `StorageUnavailable` and `Overloaded`."""
        await self._wait_for_look()
        return self._keys.get(secret_digest)

    async def look(self) -> None:
        """Look at once, for what this process has just changed. Raises `StorageUnavailable` and `Overloaded`."""
        self._wanted.set()
        await self._wait_for_look()

    async def _wait_for_look(self) -> None:
        """Wait for a look that begins after this."""
        if self._waiters >= WAITERS_MAX:
            raise StorageUnavailable()  # so many wait only where nobody can look
        now = asyncio.get_running_loop().time()
        self._waiters += 1
        try:
            async with asyncio.timeout(WAIT_SECONDS_MAX):
                while self._looked_at <= now:
                    await self._looked.wait()
        except TimeoutError:
            raise StorageUnavailable() from None
        finally:
            self._waiters -= 1

    async def _run(self) -> None:
        failing = False
        while True:  # until it is cancelled
            self._wanted.clear()
            began = asyncio.get_running_loop().time()
            try:
                await self._look()
            except Exception as error:
                if not failing:
                    log.warning("api_keys_not_read", error=type(error).__name__)
                failing = True
            else:
                if failing:
                    log.info("api_keys_read_again")
                failing = False
                self._looked_at = began
                looked, self._looked = self._looked, asyncio.Event()
                looked.set()
            try:
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._wanted.wait()
            except TimeoutError:
                pass

    async def _look(self) -> None:
        async with asyncio.timeout(LOOK_SECONDS_MAX), self._connections.acquire() as connection:
            epoch, changes = await self._read(connection, self._revision)
            if epoch != self._epoch and self._epoch is not None:
                changed = [name for name, old, new in zip(Epoch._fields, self._epoch, epoch, strict=True) if old != new]
                log.warning("database_changed", changed=changed, detail="What was known of it is read again.")
                self._drop()
                # Its revisions may have been given out again, to other keys.
                epoch, changes = await self._read(connection, 0)
                self._keys.clear()
                self._revision = 0
            self._epoch = epoch
        for change in changes:
            if change.revoked:
                self._keys.pop(change.secret_digest, None)
            else:
                self._keys[change.secret_digest] = KnownKey(change)
            self._revision = change.revision

    async def _read(self, connection: Connection, after: int) -> tuple[Epoch, list[Change]]:
        try:
            return await read_changes(connection, after, timeout_s=LOOK_SECONDS_MAX, control=self._control)
        except NO_CONTROL:
            if not self._control:
                raise
        found = await read_changes(connection, after, timeout_s=LOOK_SECONDS_MAX, control=False)
        self._control = False
        return found

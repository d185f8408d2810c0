"""Whether this process should be sent requests."""

import asyncio
import time
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.db import Database, is_transient
from app.ledger.refusals import NotReady, StorageUnavailable

_ALEMBIC = Config(Path(__file__).parents[1] / "alembic.ini")
MIGRATION_HEAD = ScriptDirectory.from_config(_ALEMBIC).get_current_head() or ""

# An answer is good for so long: whoever asks more often than that costs the database nothing.
ANSWER_SECONDS = 1.0
CHECK_SECONDS_MAX = 3.0

CHECK = text("""
select (select version_num from alembic_version) as version,
       current_setting('fsync') = 'on' as fsync,
       current_setting('synchronous_commit') <> 'off' as synchronous_commit
""")


class Readiness:
    """One per process. `stopping` is set by the server on a signal, before anything else is done about it."""

    def __init__(self, database: Database, *, allow_unsafe: bool) -> None:
        self._checks = database.checks
        self._allow_unsafe = allow_unsafe
        self._asking = asyncio.Lock()
        self._asked = -ANSWER_SECONDS
        self._trouble: list[str] = []
        self.stopping = False

    async def check(self) -> list[str]:
        """What an operator should know though it works. Raises `NotReady` and `StorageUnavailable`."""
        if self.stopping:
            raise NotReady("stopping")
        async with self._asking:
            if time.monotonic() - self._asked >= ANSWER_SECONDS:
                self._trouble = await self._ask()
                self._asked = time.monotonic()
        for reason in self._trouble:
            if reason == "schema_behind" or not self._allow_unsafe:
                raise NotReady(reason)
        return self._trouble

    async def _ask(self) -> list[str]:
        try:
            async with asyncio.timeout(CHECK_SECONDS_MAX), self._checks.connect() as connection:
                found = (await connection.execute(CHECK)).one()
        except (DBAPIError, OSError) as error:
            if not isinstance(error, DBAPIError) or is_transient(error):
                raise StorageUnavailable() from error
            return ["schema_behind"]  # no such table: nothing was ever migrated
        trouble = {
            # Revisions are numbered, and a migration only adds: a later schema serves this version too.
            "schema_behind": (found.version or "") < MIGRATION_HEAD,
            "fsync_off": not found.fsync,
            "synchronous_commit_off": not found.synchronous_commit,
        }
        return [reason for reason, is_so in trouble.items() if is_so]

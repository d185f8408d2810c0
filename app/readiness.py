"""Whether this process should be sent requests."""

import asyncio
import time
from pathlib import Path

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from app.clock import ClockWatch
from app.db import Database, is_transient
from app.ledger.refusals import ClockSkewed, NotReady, StorageUnavailable
from app.ledger.writer import LedgerWriter
from app.models.grants import list_needed

# The last revision by the names of the files, which begin with it: to ask alembic would load it into every process.
MIGRATION_HEAD = max(file.name for file in (Path(__file__).parents[1] / "alembic/versions").glob("*.py"))[:4]

# An answer is good for so long: whoever asks more often than that costs the database nothing.
ANSWER_SECONDS = 1.0
CHECK_SECONDS_MAX = 3.0

# Whether the service's role may do what it needs, and whether it may do what would take the log's protection away: own
# a table, or be who owns it; change or remove what it may only add to; create objects; put triggers to sleep.
CHECK = text("""
with needed as (
  select c.oid, c.relowner, n."column", n.privilege
    from unnest(cast(:tables as text[]), cast(:columns as text[]), cast(:privileges as text[]))
         as n (name, "column", privilege)
    join pg_class c on c.oid = to_regclass(quote_ident(n.name))
), changed as (
  select n.oid, a.attname
    from (select distinct oid from needed) n join pg_attribute a on a.attrelid = n.oid
   where a.attnum > 0 and not a.attisdropped and has_column_privilege(n.oid, a.attnum, 'update')
)
select (select version_num from alembic_version) as version,
       current_setting('fsync') = 'on' as fsync,
       current_setting('synchronous_commit') <> 'off' as synchronous_commit,
       (select bool_and(case when "column" is null then has_table_privilege(oid, privilege)
                             else has_column_privilege(oid, "column", privilege) end) from needed) as granted,
       (select bool_or(pg_has_role(relowner, 'member') or has_table_privilege(oid, 'delete, truncate, trigger'))
          from needed)
       or exists (select from changed c
                   where not exists (select from needed n where n.oid = c.oid and n.privilege = 'update'
                                                            and coalesce(n."column", c.attname) = c.attname))
       or has_schema_privilege(current_schema(), 'create')
       or has_parameter_privilege('session_replication_role', 'set') as unrestricted
""")
NEEDED = dict(zip(("tables", "columns", "privileges"), map(list, zip(*list_needed(), strict=True)), strict=True))
# What an operator should know, and what only a setting admits; everything else keeps the process from being ready.
WARNINGS = frozenset({"role_unrestricted"})
UNSAFE = frozenset({"fsync_off", "synchronous_commit_off"})


class Readiness:
    """One per process. `stopping` is set by the server on a signal, before anything else is done about it."""

    def __init__(self, database: Database, writer: LedgerWriter, watch: ClockWatch, *, allow_unsafe: bool) -> None:
        self._checks = database.checks
        self._writer = writer
        self._watch = watch
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
                await self._watch.confirm()
                self._asked = time.monotonic()
        for reason in self._trouble:
            if reason not in WARNINGS and not (self._allow_unsafe and reason in UNSAFE):
                raise NotReady(reason)
        if self._writer.is_stalled:
            raise NotReady("writer_stalled")
        try:
            self._watch.now()
        except ClockSkewed:
            raise NotReady("clock_skewed") from None
        return self._trouble

    async def _ask(self) -> list[str]:
        try:
            async with asyncio.timeout(CHECK_SECONDS_MAX), self._checks.connect() as connection:
                found = (await connection.execute(CHECK, NEEDED)).one()
        except (DBAPIError, OSError) as error:
            if not isinstance(error, DBAPIError) or is_transient(error):
                raise StorageUnavailable() from error
            if isinstance(error.orig and error.orig.__cause__, asyncpg.InsufficientPrivilegeError):
                return ["grants_missing"]
            return ["schema_behind"]  # no such table: nothing was ever migrated
        trouble = {
            # Revisions are numbered, and a migration only adds: a later schema serves this version too.
            "schema_behind": (found.version or "") < MIGRATION_HEAD,
            "grants_missing": not found.granted,
            "fsync_off": not found.fsync,
            "synchronous_commit_off": not found.synchronous_commit,
            "role_unrestricted": found.unrestricted,
        }
        return [reason for reason, is_so in trouble.items() if is_so]

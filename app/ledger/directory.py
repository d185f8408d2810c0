"""The directory of ledgers: names to ids, which never change, and are kept in the process once seen."""

from contextlib import suppress

from asyncpg import UniqueViolationError

from app.db import WriteConnections, is_transient
from app.ledger.refusals import LedgerNotFound, StorageUnavailable

KNOWN_MAX = 100_000

# A head at sequence 0 is no ledger yet: the ledger begins with the event that creates it.
FIND = "select ledger_id from ledgers join heads using (ledger_id) where name = $1 and sequence > 0"
# Without `on conflict`: on Citus that wants more privileges on the directory, which every node has, than to add to it.
ENTER_NAME = "insert into ledgers (name) values ($1)"
ENTER_HEAD = """
insert into heads (ledger_id, sequence, revision, recorded_at)
select ledger_id, 0, 0, timestamptz '1900-01-01 00:00:00+00' from ledgers where name = $1
on conflict (ledger_id) do nothing
"""
ENTERED = "select ledger_id from ledgers where name = $1"


class Directory:
    def __init__(self, connections: WriteConnections) -> None:
        self._connections = connections
        self._known: dict[str, int] = {}

    async def get(self, name: str) -> int:
        """The id of a ledger. Raises `LedgerNotFound`."""
        ledger_id = self._known.get(name)
        return ledger_id if ledger_id is not None else await self._look_up(name, FIND)

    async def enter(self, name: str) -> int:
        """The id for a ledger of this name, made if there is none. The ledger itself is made by its first event."""
        ledger_id = self._known.get(name)
        if ledger_id is None:
            ledger_id = await self._look_up(name, ENTERED, ENTER_NAME, ENTER_HEAD, ENTERED)
        return ledger_id

    async def _look_up(self, name: str, *statements: str) -> int:
        try:
            async with self._connections.acquire() as connection:
                ledger_id = None
                for statement in statements:
                    if statement is ENTER_NAME and ledger_id is not None:
                        continue
                    # Another process may enter the name at the same moment.
                    with suppress(UniqueViolationError):
                        ledger_id = await connection.fetchval(statement, name, timeout=self._connections.timeout_s)
        except Exception as error:
            if is_transient(error):
                raise StorageUnavailable() from error
            raise
        if ledger_id is None:
            raise LedgerNotFound()
        if len(self._known) >= KNOWN_MAX:
            self._known.clear()
        self._known[name] = ledger_id
        return ledger_id

"""The directory of ledgers: names to ids and identities, which are kept in the process once seen."""

from contextlib import suppress
from uuid import uuid4

from asyncpg import Record, UniqueViolationError

from app.connections import Connection
from app.db import WriteConnections, is_transient
from app.ledger.known_ledgers import KnownLedgers, LedgerRef
from app.ledger.refusals import LedgerNotFound, StorageUnavailable

ENTERED = "select ledger_id, identity from ledgers join heads using (ledger_id) where name = $1"
# A head at sequence 0 is no ledger yet: the ledger begins with the event that creates it.
FIND = f"{ENTERED} and sequence > 0"
# Without `on conflict`: on Citus that wants more privileges on the directory, which every node has, than to add to it.
ENTER_NAME = "insert into ledgers (name) values ($1)"
# The identity is an argument: on Citus an `insert … select` may not call a volatile function.
ENTER_HEAD = """
insert into heads (ledger_id, sequence, revision, recorded_at, identity)
select ledger_id, 0, 0, timestamptz '1900-01-01 00:00:00+00', $2::uuid from ledgers where name = $1
on conflict (ledger_id) do nothing
"""


class Directory:
    def __init__(self, connections: WriteConnections, known: KnownLedgers) -> None:
        self._connections = connections
        self._known = known

    async def get(self, name: str) -> LedgerRef:
        """The ledger of this name, as far as it is known. Raises `LedgerNotFound`."""
        return self._known.find(name) or await self._look_up(name, entering=False)

    async def enter(self, name: str) -> LedgerRef:
        """The place for a ledger of this name, made if there is none. The ledger itself is made by its first event."""
        return self._known.find(name) or await self._look_up(name, entering=True)

    def forget(self, name: str, ledger: LedgerRef) -> None:
        """Look this name up again when it is asked for next."""
        self._known.forget(name, ledger)

    async def _look_up(self, name: str, *, entering: bool) -> LedgerRef:
        try:
            async with self._connections.acquire() as connection:
                found = await (self._enter(connection, name) if entering else self._fetch(connection, FIND, name))
        except Exception as error:
            if is_transient(error):
                raise StorageUnavailable() from error
            raise
        if found is None:
            raise LedgerNotFound()
        ledger = LedgerRef(found["ledger_id"], str(found["identity"]))
        self._known.keep(name, ledger)
        return ledger

    async def _enter(self, connection: Connection, name: str) -> Record | None:
        found = await self._fetch(connection, ENTERED, name)
        if found is None:
            # Another process may enter the name at the same moment.
            with suppress(UniqueViolationError):
                await connection.execute(ENTER_NAME, name, timeout=self._connections.timeout_s)
            with suppress(UniqueViolationError):
                await connection.execute(ENTER_HEAD, name, uuid4(), timeout=self._connections.timeout_s)
            found = await self._fetch(connection, ENTERED, name)
        return found

    async def _fetch(self, connection: Connection, query: str, name: str) -> Record | None:
        return await connection.fetchrow(query, name, timeout=self._connections.timeout_s)

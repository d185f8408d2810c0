"""The keys that the operator makes: the table, and what the operator does to it.

Each change takes the next `revision` under a lock that is held until its commit, so that revisions are in the order of
commits: whoever reads the rows beyond the last revision that it knows misses nothing.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from asyncpg import Record
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.access.secrets import digest, make_secret
from app.connections import Connection
from app.db import WriteConnections, is_transient
from app.ledger.pages import Page
from app.ledger.refusals import ApiKeyExists, ApiKeyNotFound, OutcomeUnknown, StorageUnavailable, TimeOutOfRange
from app.ledger.scopes import Scope
from app.models import api_keys

# Held by whoever changes the table; any number will do that nothing else takes.
LOCK = "select pg_advisory_xact_lock(7424217002)"
CREATE = """
insert into api_keys (name, label, secret_digest, operations, ledgers, account_prefix, amount_max, created_at,
                      created_by, expires_at, revision)
select $1, $2, $3, $4, $5, $6, $7::text::numeric, $8, $9, $10::text::timestamptz, coalesce(max(revision), 0) + 1
  from api_keys
on conflict (name) do nothing returning name
"""
REVOKE = """
update api_keys set revoked_at = $2, revoked_by = $3, revision = (select max(revision) + 1 from api_keys)
 where name = $1 and revoked_at is null
"""
# What changes when the database is another one, or the same at an earlier time: another server, one that was started
# again or promoted, a database or tables that were made again. Without the parts that a host may keep from its roles
# it is told nearly as well, since whatever replaces the data of a server starts it again.
_EPOCH = """
select {control}, pg_postmaster_start_time() as started_at, to_regclass('heads')::oid as heads_oid,
       (select oid from pg_database where datname = current_database()) as database_oid
"""
_CONTROL = """
(select system_identifier from pg_control_system()) as system_identifier,
       (select timeline_id from pg_control_checkpoint()) as timeline_id
"""
_NO_CONTROL = "null::bigint as system_identifier, null::integer as timeline_id"
# The epoch and the keys in one statement, so that both are of the same server. One row at least.
_CHANGES = """
select epoch.*, name, label, secret_digest, operations, ledgers, account_prefix, amount_max::text, expires_at,
       revoked_at is not null as revoked, revision
  from ({epoch}) as epoch left join api_keys on revision > $1 order by revision
"""
CHANGES = _CHANGES.format(epoch=_EPOCH.format(control=_CONTROL))
CHANGES_WITHOUT_CONTROL = _CHANGES.format(epoch=_EPOCH.format(control=_NO_CONTROL))
_SHOWN = (
    "name", "label", "operations", "ledgers", "account_prefix", "amount_max", "created_at", "created_by", "expires_at",
    "revoked_at", "revoked_by",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is shown: all but its secret, of which only a hash is kept."""

    name: str
    label: str
    operations: list[str]
    ledgers: list[str] | None
    account_prefix: str | None
    amount_max: int | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None = None
    revoked_by: str | None = None


@dataclass(frozen=True, slots=True)
class CreatedApiKey:
    api_key: ApiKey
    secret: str


class Epoch(NamedTuple):
    """What a process may remember of a database is good for: a change of any of these, and all of it may be wrong."""

    system_identifier: int | None
    timeline_id: int | None
    started_at: datetime
    database_oid: int
    heads_oid: int | None


@dataclass(frozen=True, slots=True)
class Change:
    """What became of a key at a revision."""

    name: str
    label: str
    secret_digest: bytes
    scope: Scope
    expires_at: datetime | None
    revoked: bool
    revision: int


async def create_api_key(connections: WriteConnections, key: ApiKey) -> CreatedApiKey:
    """Make a key and its secret, which is nowhere but in the answer.

    Raises `TimeOutOfRange`, `ApiKeyExists`, `StorageUnavailable` (surely without effect) and `OutcomeUnknown`.
    """
    if key.expires_at is not None and key.expires_at <= key.created_at:
        raise TimeOutOfRange(pointer="/expires_at")
    secret = make_secret()
    amount_max = None if key.amount_max is None else str(key.amount_max)
    bounds = key.operations, key.ledgers, key.account_prefix, amount_max
    # As text: the driver takes the last instant of the calendar for infinity, and reads that back without a time zone.
    made = key.created_at, key.created_by, None if key.expires_at is None else key.expires_at.isoformat()
    async with _changing(connections) as connection:
        row = await connection.fetchrow(CREATE, key.name, key.label, digest(secret.encode()), *bounds, *made)
        if row is None:
            raise ApiKeyExists()
    return CreatedApiKey(key, secret)


async def revoke_api_key(connections: WriteConnections, name: str, *, at: datetime, by: str) -> None:
    """Revoke a key, unless it was revoked before. Raises `StorageUnavailable` and `OutcomeUnknown`."""
    async with _changing(connections) as connection:
        await connection.execute(REVOKE, name, at, by)


async def get_api_key(session: AsyncSession, name: str) -> ApiKey:
    """Raises `ApiKeyNotFound`."""
    row = (await session.execute(_keys().where(api_keys.c.name == name))).one_or_none()
    if row is None:
        raise ApiKeyNotFound()
    return ApiKey(*row)


async def list_api_keys(session: AsyncSession, *, after: str | None, limit: int) -> Page[ApiKey, str]:
    """In the bytewise order of their names, also those that were revoked or have expired."""
    query = _keys().order_by(api_keys.c.name).limit(limit + 1)
    rows = (await session.execute(query if after is None else query.where(api_keys.c.name > after))).all()
    items = [ApiKey(*row) for row in rows[:limit]]
    return Page(items, items[-1].name if len(rows) > limit else None, 0)


def _keys() -> Any:
    return select(*(api_keys.c[name] for name in _SHOWN))


async def read_changes(
    connection: Connection, after: int, *, timeout_s: float, control: bool = True
) -> tuple[Epoch, list[Change]]:
    """The epoch of the database, and what became of keys since a revision, in order. `control` is whether the control
    data of the server may be read for it."""
    query = CHANGES if control else CHANGES_WITHOUT_CONTROL
    rows = await connection.fetch(query, after, timeout=timeout_s)
    epoch = Epoch(**{name: rows[0][name] for name in Epoch._fields})
    return epoch, [_change(row) for row in rows if row["name"] is not None]


def _change(row: Record) -> Change:
    amount_max = None if row["amount_max"] is None else int(row["amount_max"])
    ledgers = None if row["ledgers"] is None else frozenset(row["ledgers"])
    scope = Scope(frozenset(row["operations"]), ledgers, row["account_prefix"], amount_max)
    return Change(
        row["name"], row["label"], row["secret_digest"], scope, row["expires_at"], row["revoked"], row["revision"]
    )


@asynccontextmanager
async def _changing(connections: WriteConnections) -> AsyncIterator[Connection]:
    """A transaction that nobody else's change of the table overlaps."""
    sent = False
    try:
        async with connections.acquire() as connection, connection.atomic():
            await connection.execute(LOCK, timeout=connections.timeout_s)
            sent = True
            yield connection
    except Exception as error:
        if is_transient(error):
            raise (OutcomeUnknown() if sent else StorageUnavailable()) from error
        raise

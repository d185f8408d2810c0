"""Reads of ledgers and accounts. Each runs in one snapshot, and says the sequence of the log that it was read at."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Row, Select, literal_column, select, true
from sqlalchemy.ext.asyncio import AsyncSession

from app.ledger.known_ledgers import KnownLedgers, LedgerRef
from app.ledger.pages import ITEM_BYTES, Columns, Order, Page, bytes_said, read_page
from app.ledger.refusals import AccountNotFound, InvalidCursor, LedgerNotFound
from app.ledger.values import Account, Side
from app.models import accounts, entries, events, heads, ledgers

_ACCOUNT_BYTES = 1_200


@dataclass(frozen=True, slots=True)
class LedgerState:
    """A ledger's configuration in force, and the last event of its log."""

    name: str
    description: str | None
    metadata: dict[str, str]
    revision: int
    closed_before: datetime | None
    sequence: int
    recorded_at: datetime


@dataclass(frozen=True, slots=True)
class AccountState:
    """An account's configuration in force and its balances, as of `sequence`."""

    path: str
    asset: str
    normal_side: Side
    status: str
    minimum_balance: int | None
    maximum_balance: int | None
    description: str | None
    metadata: dict[str, str]
    revision: int
    version: int
    debits_posted: int
    credits_posted: int
    debits_pending: int
    credits_pending: int
    posted: int
    available: int
    sequence: int


@dataclass(frozen=True, slots=True)
class StatementLine:
    """What one entry posted to an account, and the balance after it."""

    version: int
    sequence: int
    side: Side
    amount: int
    balance: int
    effective_at: datetime
    recorded_at: datetime
    late: bool
    reference: str | None
    group: str | None
    description: str | None


# Ledgers


async def get_ledger(session: AsyncSession, name: str) -> LedgerState:
    """Raises `LedgerNotFound`."""
    row = await _find_by_name(session, name, _ledgers())
    if row is None:
        raise LedgerNotFound()
    return _ledger_state(row)


async def list_ledgers(
    session: AsyncSession, *, among: Collection[str] | None, after: str | None, limit: int
) -> Page[LedgerState, str]:
    """By name; only those `among` some, if that is not None."""
    query = _ledgers() if among is None else _ledgers().where(ledgers.c.name.in_(sorted(among)))
    rows, more = await read_page(session, query, ledgers.c.name, "oldest", after, limit, _ledger_size)
    return Page([_ledger_state(row) for row in rows], rows[-1].name if more else None, 0)


def _ledgers() -> Select[Any]:
    return (
        select(
            ledgers.c.name,
            heads.c.sequence,
            heads.c.recorded_at,
            heads.c.closed_before,
            heads.c.identity,
            *_DESCRIBED,
            events.c.configuration,
        )
        .join(heads, heads.c.ledger_id == ledgers.c.ledger_id)
        .join(events, (events.c.ledger_id == heads.c.ledger_id) & (events.c.sequence == heads.c.configured_by))
    )


def _ledger_state(row: Row[Any]) -> LedgerState:
    revision = row.configuration["revision"]
    described = row.name, row.description, row.metadata or {}
    return LedgerState(*described, revision, row.closed_before, row.sequence, row.recorded_at)


class ExpiryDue(Exception):
    """Holds of the ledger have to expire before its present state can be read."""

    def __init__(self, ledger: LedgerRef) -> None:
        self.ledger = ledger


class LedgerHead(NamedTuple):
    """The end of a ledger's log, as the snapshot of a session has it."""

    ledger_id: int
    sequence: int
    identity: str


async def get_head(
    session: AsyncSession, ledger: str, *, now: datetime | None = None, cursor_identity: str | None = None
) -> LedgerHead:
    """The head of the ledger of this name.

    Raises `LedgerNotFound`; `InvalidCursor` if a cursor was made in a ledger whose identity begins otherwise; and
    `ExpiryDue` where the present as of `now` is to be read and is not written yet.
    """
    row = await _find_by_name(session, ledger, _HEAD)
    if row is None or row.sequence == 0:
        raise LedgerNotFound()
    if cursor_identity is not None and not row.identity.startswith(cursor_identity):
        raise InvalidCursor()
    if now is not None and row.next_expiry is not None and row.next_expiry <= now:
        raise ExpiryDue(LedgerRef(row.ledger_id, row.identity))
    return LedgerHead(row.ledger_id, row.sequence, row.identity)


_HEAD = select(heads.c.ledger_id, heads.c.sequence, heads.c.identity, heads.c.next_expiry)


async def _find_by_name(session: AsyncSession, name: str, query: Select[Any]) -> Row[Any] | None:
    """What a query that includes the identity of heads finds of the ledger of this name, created or not.

    A statement that names an id, not a name, goes to one machine where there are many, so all statements of a session
    read one snapshot there too. After a backup was restored the id may be another ledger's, whose identity tells; then
    the name is looked up again, in the same snapshot.
    """
    known: KnownLedgers = session.info.setdefault("ledgers", KnownLedgers())
    ledger = known.find(name)
    if ledger is not None:
        row: Row[Any] | None = (await session.execute(query.where(heads.c.ledger_id == ledger.ledger_id))).one_or_none()
        if row is not None and row.identity == ledger.identity:
            return row
        known.forget(name, ledger)
    ledger_id = await session.scalar(select(ledgers.c.ledger_id).where(ledgers.c.name == name))
    if ledger_id is None:
        return None
    row = (await session.execute(query.where(heads.c.ledger_id == ledger_id))).one_or_none()
    if row is not None:
        known.keep(name, LedgerRef(ledger_id, row.identity))
    return row


# Accounts


async def get_account(session: AsyncSession, ledger: str, path: str, *, now: datetime) -> AccountState:
    """Raises `LedgerNotFound`, `AccountNotFound`, `ExpiryDue`."""
    ledger_id, sequence, _ = await get_head(session, ledger, now=now)
    row = (await session.execute(select_accounts(ledger_id).where(accounts.c.path == path))).one_or_none()
    if row is None:
        raise AccountNotFound()
    return make_account_state(row, sequence)


async def list_accounts(
    session: AsyncSession,
    ledger: str,
    *,
    after: str | None,
    limit: int,
    cursor_identity: str | None = None,
    now: datetime,
) -> Page[AccountState, str]:
    """In the bytewise order of their paths. Raises `LedgerNotFound`, `ExpiryDue`."""
    ledger_id, sequence, identity = await get_head(session, ledger, now=now, cursor_identity=cursor_identity)
    query = select_accounts(ledger_id)
    rows, more = await read_page(session, query, accounts.c.path, "oldest", after, limit, account_size)
    return Page(
        [make_account_state(row, sequence) for row in rows], rows[-1].path if more else None, sequence, identity
    )


def select_accounts(ledger_id: int) -> Select[Any]:
    configured = (events.c.ledger_id == accounts.c.ledger_id) & (events.c.sequence == accounts.c.configured_by)
    return (
        select(*_ACCOUNT, *_DESCRIBED)
        .join(events, configured)
        # Never null: said so that the index by path, which is partial, can be used.
        .where(accounts.c.ledger_id == ledger_id, accounts.c.path.is_not(None))
    )


def make_account_state(row: Row[Any], sequence: int) -> AccountState:
    account = Account(*row[: len(_ACCOUNT)])
    return AccountState(
        path=account.path,
        asset=account.asset,
        normal_side=account.normal_side,
        status=account.status,
        minimum_balance=account.minimum_balance,
        maximum_balance=account.maximum_balance,
        description=row.description,
        metadata=row.metadata or {},
        revision=account.revision,
        version=account.version,
        debits_posted=account.debits_posted,
        credits_posted=account.credits_posted,
        debits_pending=account.debits_pending,
        credits_pending=account.credits_pending,
        posted=account.posted,
        available=account.available,
        sequence=sequence,
    )


async def list_account_entries(
    session: AsyncSession,
    ledger: str,
    path: str,
    *,
    order: Order,
    after: int | None,
    limit: int,
    cursor_identity: str | None = None,
) -> Page[StatementLine, int]:
    """The statement in recorded order; a position is a version. Raises `LedgerNotFound`, `AccountNotFound`."""
    ledger_id, sequence, identity = await get_head(session, ledger, cursor_identity=cursor_identity)
    account_id = await session.scalar(
        select(accounts.c.account_id).where(accounts.c.ledger_id == ledger_id, accounts.c.path == path)
    )
    if account_id is None:
        raise AccountNotFound()
    query = select_statement(ledger_id, account_id)
    rows, more = await read_page(session, query, entries.c.version, order, after, limit, _line_size)
    return Page([make_statement_line(row) for row in rows], rows[-1].version if more else None, sequence, identity)


def select_statement(ledger_id: int, account_id: int) -> Select[Any]:
    return (
        select(
            entries.c.version,
            entries.c.sequence,
            entries.c.debit,
            entries.c.posted,
            entries.c.balance,
            entries.c.latest_effective,
            *ENTRY_EVENT.c,
        )
        .join(ENTRY_EVENT, true())
        .where(entries.c.ledger_id == ledger_id, entries.c.account_id == account_id, entries.c.posted > 0)
    )


def make_statement_line(row: Row[Any]) -> StatementLine:
    effective_at = row.effective_at or row.recorded_at
    return StatementLine(
        version=row.version,
        sequence=row.sequence,
        side="debit" if row.debit else "credit",
        amount=row.posted,
        balance=row.balance,
        effective_at=effective_at,
        recorded_at=row.recorded_at,
        late=effective_at < row.latest_effective,
        reference=row.reference,
        group=row.group,
        description=row.description,
    )


# The event of an entry, fenced: where few entries seem to qualify, a plan would rather scan all events.
ENTRY_EVENT = (
    select(
        events.c.recorded_at,
        events.c.effective_at,
        events.c.reference,
        events.c.group,
        events.c.description,
    )
    .where(events.c.ledger_id == entries.c.ledger_id, events.c.sequence == entries.c.sequence)
    .offset(literal_column("0"))
    .lateral("event")
)


def account_size(row: Columns) -> ColumnElement[int]:
    return _ACCOUNT_BYTES + bytes_said(row.description, row.metadata)


def _ledger_size(row: Columns) -> ColumnElement[int]:
    return ITEM_BYTES + bytes_said(row.description, row.metadata)


def _line_size(row: Columns) -> ColumnElement[int]:
    return ITEM_BYTES + bytes_said(row.reference, row.group, row.description)


_DESCRIBED = (events.c.description, events.c.metadata)
# In the order of the fields of `Account`.
_ACCOUNT = tuple(
    accounts.c[name]
    for name in (
        "account_id",
        "path",
        "asset",
        "normal_side",
        "status",
        "minimum_balance",
        "maximum_balance",
        "debits_posted",
        "credits_posted",
        "debits_pending",
        "credits_pending",
        "version",
        "revision",
        "configured_by",
        "latest_effective",
    )
)

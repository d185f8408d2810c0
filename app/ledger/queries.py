"""Reads. Each runs in one snapshot, and says the sequence of the log that it was read at."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, Select, Text, cast, func, literal_column, null, or_, select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.sql.expression import ColumnCollection

from app.ledger.refusals import AccountNotFound, LedgerNotFound, SequenceOutOfRange
from app.ledger.values import (
    Account,
    AccountEvent,
    Event,
    LedgerEvent,
    PeriodEvent,
    Posting,
    Side,
    TransactionEvent,
)
from app.models import accounts, entries, events, heads, ledgers

Order = Literal["newest", "oldest"]
Columns = ColumnCollection[str, Any]
# What an item of a list may be as JSON, from the columns of its row.
Size = Callable[[Columns], ColumnElement[int]]

# How many names of ledgers a process keeps with their ids.
KNOWN_MAX = 100_000
# A page ends before it would have this many bytes of JSON, however many items were asked for; one it always has.
PAGE_BYTES_MAX = 2_000_000
# What an item has at most beside its free text: names of properties, numbers and instants, and an account's path.
ITEM_BYTES = 500
_ACCOUNT_BYTES = 1_200
# What a posting has at most: two paths of 255 characters, an asset, amounts of 38 digits, and two versions.
_POSTING_BYTES = 800


@dataclass(frozen=True, slots=True)
class Page[Item, Position]:
    """Some items in order. `next` is the position to read on from, or None on the last page."""

    items: list[Item]
    next: Position | None
    sequence: int


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
    ledger_id = await _find_ledger_id(session, name)
    row = (await session.execute(_ledgers().where(heads.c.ledger_id == ledger_id))).one_or_none()
    if row is None:
        raise LedgerNotFound()
    return _ledger_state(row)


async def list_ledgers(
    session: AsyncSession, *, among: Collection[str] | None, after: str | None, limit: int
) -> Page[LedgerState, str]:
    """By name; only those `among` some, if that is not None."""
    query = _ledgers() if among is None else _ledgers().where(ledgers.c.name.in_(sorted(among)))
    rows, more = await _read_page(session, query, ledgers.c.name, "oldest", after, limit, _ledger_size)
    return Page([_ledger_state(row) for row in rows], rows[-1].name if more else None, 0)


def _ledgers() -> Select[Any]:
    return (
        select(
            ledgers.c.name,
            heads.c.sequence,
            heads.c.recorded_at,
            heads.c.closed_before,
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

    def __init__(self, ledger_id: int) -> None:
        self.ledger_id = ledger_id


async def _get_head(session: AsyncSession, ledger: str, *, now: datetime | None = None) -> tuple[int, int]:
    """The ledger's id and the last sequence of its log. Raises `LedgerNotFound`, and `ExpiryDue` where the present
    as of `now` is to be read and is not written yet."""
    query = select(heads.c.ledger_id, heads.c.sequence, heads.c.next_expiry).where(
        heads.c.ledger_id == await _find_ledger_id(session, ledger), heads.c.sequence > 0
    )
    row = (await session.execute(query)).one_or_none()
    if row is None:
        raise LedgerNotFound()
    if now is not None and row.next_expiry is not None and row.next_expiry <= now:
        raise ExpiryDue(row.ledger_id)
    return row.ledger_id, row.sequence


async def _find_ledger_id(session: AsyncSession, name: str) -> int | None:
    """The id that a name has in the directory, with or without a ledger. It never changes, so the sessions of a process
    share what they have seen; and a statement that names an id, not a name, goes to one machine where there are many,
    so all statements of a session read one snapshot there too."""
    known: dict[str, int] = session.info.setdefault("ledger_ids", {})
    ledger_id = known.get(name)
    if ledger_id is None:
        ledger_id = await session.scalar(select(ledgers.c.ledger_id).where(ledgers.c.name == name))
        if ledger_id is not None:
            if len(known) >= KNOWN_MAX:
                known.clear()
            known[name] = ledger_id
    return ledger_id


async def get_ledger_id(session: AsyncSession, name: str) -> int:
    """Raises `LedgerNotFound`."""
    ledger_id, _ = await _get_head(session, name)
    return ledger_id


# Accounts


async def get_account(session: AsyncSession, ledger: str, path: str, *, now: datetime) -> AccountState:
    """Raises `LedgerNotFound`, `AccountNotFound`, `ExpiryDue`."""
    ledger_id, sequence = await _get_head(session, ledger, now=now)
    row = (await session.execute(_accounts(ledger_id).where(accounts.c.path == path))).one_or_none()
    if row is None:
        raise AccountNotFound()
    return _account_state(row, sequence)


async def list_accounts(
    session: AsyncSession, ledger: str, *, after: str | None, limit: int, now: datetime
) -> Page[AccountState, str]:
    """In the bytewise order of their paths. Raises `LedgerNotFound`, `ExpiryDue`."""
    ledger_id, sequence = await _get_head(session, ledger, now=now)
    query = _accounts(ledger_id)
    rows, more = await _read_page(session, query, accounts.c.path, "oldest", after, limit, account_size)
    return Page([_account_state(row, sequence) for row in rows], rows[-1].path if more else None, sequence)


def _accounts(ledger_id: int) -> Select[Any]:
    configured = (events.c.ledger_id == accounts.c.ledger_id) & (events.c.sequence == accounts.c.configured_by)
    return (
        select(*_ACCOUNT, *_DESCRIBED)
        .join(events, configured)
        # Never null: said so that the index by path, which is partial, can be used.
        .where(accounts.c.ledger_id == ledger_id, accounts.c.path.is_not(None))
    )


def _account_state(row: Row[Any], sequence: int) -> AccountState:
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
    session: AsyncSession, ledger: str, path: str, *, order: Order, after: int | None, limit: int
) -> Page[StatementLine, int]:
    """The statement in recorded order; a position is a version. Raises `LedgerNotFound`, `AccountNotFound`."""
    ledger_id, sequence = await _get_head(session, ledger)
    account_id = await session.scalar(
        select(accounts.c.account_id).where(accounts.c.ledger_id == ledger_id, accounts.c.path == path)
    )
    if account_id is None:
        raise AccountNotFound()
    query = _statement(ledger_id, account_id)
    rows, more = await _read_page(session, query, entries.c.version, order, after, limit, _line_size)
    return Page([_statement_line(row) for row in rows], rows[-1].version if more else None, sequence)


def _statement(ledger_id: int, account_id: int) -> Select[Any]:
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


def _statement_line(row: Row[Any]) -> StatementLine:
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


# Transactions and events


async def get_events(session: AsyncSession, ledger: str, *, first: int, count: int) -> list[Event]:
    """Events that the log is known to hold, from one on. Raises `LedgerNotFound`."""
    ledger_id, _ = await _get_head(session, ledger)
    query = _events(ledger_id).where(events.c.sequence >= first, events.c.sequence < first + count)
    return await _read_events(session, ledger_id, (await session.execute(query.order_by(events.c.sequence))).all())


async def list_transactions(
    session: AsyncSession, ledger: str, *, order: Order, after: int | None, limit: int
) -> Page[Event, int]:
    """Raises `LedgerNotFound`."""
    ledger_id, sequence = await _get_head(session, ledger)
    query = _events(ledger_id).where(events.c.postings.is_not(None))
    rows, more = await _read_page(session, query, events.c.sequence, order, after, limit, event_size)
    found = await _read_events(session, ledger_id, rows)
    return Page(found, found[-1].sequence if more else None, sequence)


@dataclass(frozen=True, slots=True)
class LogPage:
    """Some events in the order of the log, the sequence to read on from, and the last one of the log."""

    items: list[Event]
    next_after_sequence: int
    sequence: int


async def list_events(session: AsyncSession, ledger: str, *, after: int, limit: int) -> LogPage:
    """The log after a sequence, without gaps. Raises `LedgerNotFound`, and `SequenceOutOfRange` beyond its end."""
    ledger_id, sequence = await _get_head(session, ledger)
    if after > sequence:
        raise SequenceOutOfRange()
    query = _events(ledger_id)
    rows, _ = await _read_page(session, query, events.c.sequence, "oldest", after, limit, event_size)
    found = await _read_events(session, ledger_id, rows)
    return LogPage(found, found[-1].sequence if found else after, sequence)


async def _read_page(
    session: AsyncSession,
    query: Select[Any],
    column: Any,
    order: Order,
    after: str | int | None,
    limit: int,
    size: Size,
) -> tuple[list[Row[Any]], bool]:
    """The rows of a page in the order of a column, with the bytes of JSON that they may become so far, and whether
    more follow them."""

    def placed(column: Any) -> Any:
        return column.desc() if order == "newest" else column

    if after is not None:
        query = query.where(column < after if order == "newest" else column > after)
    place = placed(column)
    # What is stored is no longer than what is said. Its sum stops the page without unpacking what it will not show.
    stored = func.coalesce(func.pg_column_size(query.selected_columns.get("metadata", null())), 0)
    rows_before = {"order_by": place, "rows": (None, -1)}
    numbered = query.add_columns(
        func.row_number().over(order_by=place).label("number"),
        func.coalesce(func.sum(stored).over(**rows_before), 0).label("stored_before"),
    )
    # One row more than was asked for tells whether anything follows. The windows run along the index, and stop with it.
    few = numbered.order_by(place).limit(limit + 1).subquery()
    so_far = func.sum(size(few.c)).over(order_by=placed(few.c[column.name])).label("bytes_so_far")
    looked_at = or_(few.c.number <= 2, few.c.stored_before <= PAGE_BYTES_MAX)
    sized = select(few, so_far, func.count().over().label("found")).where(looked_at).subquery()
    fits = or_(sized.c.number == 1, sized.c.bytes_so_far <= PAGE_BYTES_MAX)
    rows = list(await session.execute(select(sized).where(fits).order_by(sized.c.number)))
    return rows[:limit], bool(rows) and rows[0].found > len(rows[:limit])


def _events(ledger_id: int) -> Select[Any]:
    return select(events).where(events.c.ledger_id == ledger_id)


async def _read_events(session: AsyncSession, ledger_id: int, rows: Sequence[Row[Any]]) -> list[Event]:
    """Rows of the log as events. The accounts' paths and assets never change, so they may be read after them."""
    postings = {row.sequence: _split(row.postings) for row in rows if row.postings is not None}
    named = {numbers[place] for lines in postings.values() for numbers in lines for place in (0, 2)}
    query = select(accounts.c.account_id, accounts.c.path, accounts.c.asset).where(
        accounts.c.ledger_id == ledger_id, accounts.c.account_id.in_(named)
    )
    known = {row.account_id: (row.path, row.asset) for row in await session.execute(query)} if named else {}
    return [_event(row, postings.get(row.sequence), known) for row in rows]


def _split(postings: str) -> list[tuple[int, ...]]:
    return [tuple(map(int, posting.split(" "))) for posting in postings.split(";")]


def _event(row: Row[Any], postings: Iterable[tuple[int, ...]] | None, known: dict[int, tuple[str, str]]) -> Event:
    what = {
        "sequence": row.sequence,
        "kind": row.kind,
        "recorded_at": row.recorded_at,
        "actor": row.actor,
        "description": row.description,
        "metadata": row.metadata or {},
    }
    if postings is not None:
        return TransactionEvent(
            **what,
            postings=tuple(_posting(numbers, known) for numbers in postings),
            effective_at=row.effective_at or row.recorded_at,
            reference=row.reference,
            group=row.group,
            expires_at=row.expires_at,
            hold=None if row.kind == "transaction_reversed" else row.subject,
            reverses=row.subject if row.kind == "transaction_reversed" else None,
        )
    configuration = row.configuration
    if row.kind in ("period_closed", "period_reopened"):
        closed_before = configuration["closed_before"]
        return PeriodEvent(**what, closed_before=datetime.fromisoformat(closed_before) if closed_before else None)
    if row.account_id is None:
        return LedgerEvent(**what, **configuration)
    for limit in ("minimum_balance", "maximum_balance"):
        if configuration[limit] is not None:
            configuration[limit] = int(configuration[limit])
    return AccountEvent(**what, account_id=row.account_id, **configuration)


def _posting(numbers: tuple[int, ...], known: dict[int, tuple[str, str]]) -> Posting:
    debit_id, debit_version, credit_id, credit_version, amount, *of_hold = numbers
    released, hold_posting = of_hold or (0, None)
    debit_account, asset = known[debit_id]
    credit_account, _ = known[credit_id]
    return Posting(
        debit_account=debit_account,
        credit_account=credit_account,
        asset=asset,
        amount=amount,
        debit_id=debit_id,
        debit_version=debit_version,
        credit_id=credit_id,
        credit_version=credit_version,
        released=released,
        hold_posting=hold_posting,
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


def event_size(row: Columns) -> ColumnElement[int]:
    count = func.length(row.postings) - func.length(func.replace(row.postings, ";", "")) + 1
    said = _bytes_said(row.reference, row.group, row.description, row.metadata, row.configuration)
    return ITEM_BYTES + _POSTING_BYTES * func.coalesce(count, 0) + said


def account_size(row: Columns) -> ColumnElement[int]:
    return _ACCOUNT_BYTES + _bytes_said(row.description, row.metadata)


def _ledger_size(row: Columns) -> ColumnElement[int]:
    return ITEM_BYTES + _bytes_said(row.description, row.metadata)


def _line_size(row: Columns) -> ColumnElement[int]:
    return ITEM_BYTES + _bytes_said(row.reference, row.group, row.description)


def _bytes_said(*columns: ColumnElement[Any]) -> ColumnElement[int]:
    """What these are as JSON, which is as it will be answered or longer."""
    return func.octet_length(cast(func.json_build_array(*columns), Text))


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

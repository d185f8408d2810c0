"""Reads of the log: its events in their order, and the transactions among them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.ledger.known_ledgers import LedgerRef, LedgerReplaced
from app.ledger.pages import ITEM_BYTES, Columns, Order, Page, bytes_said, read_page
from app.ledger.queries import get_head
from app.ledger.refusals import SequenceOutOfRange
from app.ledger.values import AccountEvent, Event, LedgerEvent, PeriodEvent, Posting, TransactionEvent
from app.models import accounts, events, heads

# What a posting has at most: two paths of 255 characters, an asset, amounts of 38 digits, and two versions.
_POSTING_BYTES = 800


async def get_events(session: AsyncSession, ledger: LedgerRef, *, first: int, count: int) -> list[Event]:
    """Events that the log was seen to hold, from one on. Raises `LedgerReplaced` if it holds them no more."""
    ledger_id, identity = ledger
    head = select(heads.c.sequence).where(heads.c.ledger_id == ledger_id, heads.c.identity == identity)
    last = await session.scalar(head)
    if last is None or last < first + count - 1:
        raise LedgerReplaced()
    query = select_events(ledger_id).where(events.c.sequence >= first, events.c.sequence < first + count)
    return await read_events(session, ledger_id, (await session.execute(query.order_by(events.c.sequence))).all())


async def list_transactions(
    session: AsyncSession,
    ledger: str,
    *,
    order: Order,
    after: int | None,
    limit: int,
    cursor_identity: str | None = None,
) -> Page[Event, int]:
    """Raises `LedgerNotFound`."""
    ledger_id, sequence, identity = await get_head(session, ledger, cursor_identity=cursor_identity)
    query = select_events(ledger_id).where(events.c.postings.is_not(None))
    rows, more = await read_page(session, query, events.c.sequence, order, after, limit, event_size)
    found = await read_events(session, ledger_id, rows)
    return Page(found, found[-1].sequence if more else None, sequence, identity)


@dataclass(frozen=True, slots=True)
class LogPage:
    """Some events in the order of the log, the sequence to read on from, and the last one of the log."""

    items: list[Event]
    next_after_sequence: int
    sequence: int


async def list_events(
    session: AsyncSession, ledger: str, *, after: int, limit: int, identity: str | None = None
) -> LogPage:
    """The log after a sequence, without gaps.

    Raises `LedgerNotFound`, and `SequenceOutOfRange` beyond its end, or if it is not the log of this identity.
    """
    ledger_id, sequence, found_identity = await get_head(session, ledger)
    if after > sequence or identity not in (None, found_identity):
        raise SequenceOutOfRange()
    query = select_events(ledger_id)
    rows, _ = await read_page(session, query, events.c.sequence, "oldest", after, limit, event_size)
    found = await read_events(session, ledger_id, rows)
    return LogPage(found, found[-1].sequence if found else after, sequence)


def select_events(ledger_id: int) -> Select[Any]:
    return select(events).where(events.c.ledger_id == ledger_id)


async def read_events(session: AsyncSession, ledger_id: int, rows: Sequence[Row[Any]]) -> list[Event]:
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


def event_size(row: Columns) -> ColumnElement[int]:
    count = func.length(row.postings) - func.length(func.replace(row.postings, ";", "")) + 1
    said = bytes_said(row.reference, row.group, row.description, row.metadata, row.configuration)
    return ITEM_BYTES + _POSTING_BYTES * func.coalesce(count, 0) + said

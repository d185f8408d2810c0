"""Reads of transactions with what has become of them: holds, and what was reversed."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime

from sqlalchemy import Row, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.ledger.finding import _read_in_order
from app.ledger.queries import Order, Page, _events, _get_head, _read_events
from app.ledger.refusals import AccountNotFound, TransactionNotFound
from app.ledger.values import HoldStatus, TransactionEvent
from app.models import accounts, events, hold_lines, holds


@dataclass(frozen=True, slots=True)
class HoldLineState:
    posting: int
    held: int
    captured: int
    released: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TransactionState(TransactionEvent):
    """A transaction as the log recorded it, and what has become of it by `as_of_sequence`."""

    hold_status: HoldStatus | None
    hold_lines: tuple[HoldLineState, ...]
    reversed_by: int | None
    as_of_sequence: int


async def get_transaction(session: AsyncSession, ledger: str, sequence: int, *, now: datetime) -> TransactionState:
    """Raises `LedgerNotFound`, `ExpiryDue`, and `TransactionNotFound`, also for another kind of event."""
    ledger_id, last = await _get_head(session, ledger, now=now)
    query = _events(ledger_id).where(events.c.sequence == sequence, events.c.postings.is_not(None))
    row = (await session.execute(query)).one_or_none() if sequence <= last else None
    if row is None:
        raise TransactionNotFound()
    (event,) = await _read_events(session, ledger_id, [row])
    (state,) = await _read_states(session, ledger_id, [event], last)
    return state


async def list_account_holds(
    session: AsyncSession, ledger: str, path: str, *, order: Order, after: int | None, limit: int, now: datetime
) -> Page[TransactionState, int]:
    """The holds of which something is still pending on an account.

    Raises `LedgerNotFound`, `ExpiryDue`, `AccountNotFound`.
    """
    ledger_id, last = await _get_head(session, ledger, now=now)
    query = select(accounts.c.account_id).where(accounts.c.ledger_id == ledger_id, accounts.c.path == path)
    account_id = await session.scalar(query)
    if account_id is None:
        raise AccountNotFound()
    if after is None:
        after = last + 1 if order == "newest" else 0
    bounds = {"ledger_id": ledger_id, "account_id": account_id, "after": after, "limit": limit + 1}
    found = list(await session.scalars(_LIVE_HOLDS[order], bounds))
    items, more = await _read_in_order(session, ledger_id, found, limit)
    states = await _read_states(session, ledger_id, items, last)
    return Page(states, states[-1].sequence if more else None, last)


async def _read_states(
    session: AsyncSession, ledger_id: int, found: Iterable[TransactionEvent], last: int
) -> list[TransactionState]:
    transactions = list(found)
    named = [event.sequence for event in transactions]
    held = {event.sequence for event in transactions if event.kind == "transaction_held"}
    status: dict[int, HoldStatus] = {}
    lines: dict[int, list[HoldLineState]] = defaultdict(list)
    if held:
        query = select(holds.c.hold, holds.c.status)
        rows: Iterable[Row[tuple[int, HoldStatus]]] = await session.execute(
            query.where(holds.c.ledger_id == ledger_id, holds.c.hold == func.any(sorted(held)))
        )
        status = {row.hold: row.status for row in rows}
        line = hold_lines.c
        of_holds = select(line.hold, line.line, line.held, line.captured, line.released).where(
            line.ledger_id == ledger_id, line.hold == func.any(sorted(held))
        )
        for hold, *numbers in await session.execute(of_holds.order_by(line.hold, line.line)):
            lines[hold].append(HoldLineState(*numbers))
    query_reversed = select(events.c.subject, events.c.sequence).where(
        events.c.ledger_id == ledger_id, events.c.subject == func.any(named), events.c.kind == "transaction_reversed"
    )
    reversed_by = {row.subject: row.sequence for row in await session.execute(query_reversed)}
    return [
        TransactionState(
            **{field.name: getattr(event, field.name) for field in fields(TransactionEvent)},
            hold_status=status.get(event.sequence),
            hold_lines=tuple(lines[event.sequence]),
            reversed_by=reversed_by.get(event.sequence),
            as_of_sequence=last,
        )
        for event in transactions
    ]


# The live lines of an account stand in two partial indexes, one for each side, in the order of their holds.
_LIVE_HOLDS = {
    "oldest": text("""
select hold from (
 (select distinct hold from hold_lines where ledger_id = :ledger_id and debit_id = :account_id
     and captured + released < held and hold > :after order by hold limit :limit)
  union
 (select distinct hold from hold_lines where ledger_id = :ledger_id and credit_id = :account_id
     and captured + released < held and hold > :after order by hold limit :limit)) as live
 order by hold limit :limit
"""),
    "newest": text("""
select hold from (
 (select distinct hold from hold_lines where ledger_id = :ledger_id and debit_id = :account_id
     and captured + released < held and hold < :after order by hold desc limit :limit)
  union
 (select distinct hold from hold_lines where ledger_id = :ledger_id and credit_id = :account_id
     and captured + released < held and hold < :after order by hold desc limit :limit)) as live
 order by hold desc limit :limit
"""),
}

"""Reads of transactions with what has become of them: holds, and what was reversed."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, fields
from datetime import datetime
from functools import cache

from sqlalchemy import Row, TextClause, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.ledger.finding import WITHIN, _read_in_order, bounds_within
from app.ledger.pages import Order, Page
from app.ledger.queries import get_head
from app.ledger.recorded import read_events, select_events
from app.ledger.refusals import AccountNotFound, TransactionNotFound
from app.ledger.scopes import Scope, covers_transaction
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


async def get_transaction(
    session: AsyncSession, ledger: str, sequence: int, *, scope: Scope, now: datetime
) -> TransactionState:
    """Raises `LedgerNotFound`, `ExpiryDue`, and `TransactionNotFound`, also for another kind of event and for one that
    the scope does not cover."""
    ledger_id, last, _ = await get_head(session, ledger, now=now)
    query = select_events(ledger_id).where(events.c.sequence == sequence, events.c.postings.is_not(None))
    row = (await session.execute(query)).one_or_none() if sequence <= last else None
    if row is None:
        raise TransactionNotFound()
    (event,) = await read_events(session, ledger_id, [row])
    if not isinstance(event, TransactionEvent) or not covers_transaction(scope, event):
        raise TransactionNotFound()
    (state,) = await _read_states(session, ledger_id, [event], last)
    return state


async def list_account_holds(
    session: AsyncSession,
    ledger: str,
    path: str,
    *,
    order: Order,
    after: int | None,
    limit: int,
    cursor_identity: str | None = None,
    within: str | None = None,
    now: datetime,
) -> Page[TransactionState, int]:
    """The holds of which something is still pending on an account; of these, if `within` is a prefix, only those that
    name no account outside.

    Raises `LedgerNotFound`, `ExpiryDue`, `AccountNotFound`.
    """
    ledger_id, last, identity = await get_head(session, ledger, now=now, cursor_identity=cursor_identity)
    query = select(accounts.c.account_id).where(accounts.c.ledger_id == ledger_id, accounts.c.path == path)
    account_id = await session.scalar(query)
    if account_id is None:
        raise AccountNotFound()
    if after is None:
        after = last + 1 if order == "newest" else 0
    bounds = {"ledger_id": ledger_id, "account_id": account_id, "after": after, "limit": limit + 1}
    found = list(await session.scalars(_live_holds(order, within is not None), bounds | bounds_within(within)))
    items, more = await _read_in_order(session, ledger_id, found, limit)
    states = await _read_states(session, ledger_id, items, last)
    return Page(states, states[-1].sequence if more else None, last, identity)


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


@cache
def _live_holds(order: Order, within: bool) -> TextClause:
    """One of the few statements that these parts make."""
    if not within:
        return text(_LIVE_HOLDS[order])
    # How many of them lie outside is not known before, so the limits of the two sides go.
    live, ordered = _LIVE_HOLDS[order].removesuffix("\n").replace(" limit :limit)", ")").rsplit(" order by ", 1)
    return text("".join((live, _POSTINGS_OF, WITHIN, " order by ", ordered)))


_POSTINGS_OF = """
 cross join lateral (select postings from events where ledger_id = :ledger_id and sequence = hold offset 0) as e
 where true"""

# The live lines of an account stand in two partial indexes, one for each side, in the order of their holds.
_LIVE_HOLDS = {
    "oldest": """
select hold from (
 (select distinct hold from hold_lines where ledger_id = :ledger_id and debit_id = :account_id
     and captured + released < held and hold > :after order by hold limit :limit)
  union
 (select distinct hold from hold_lines where ledger_id = :ledger_id and credit_id = :account_id
     and captured + released < held and hold > :after order by hold limit :limit)) as live
 order by hold limit :limit
""",
    "newest": """
select hold from (
 (select distinct hold from hold_lines where ledger_id = :ledger_id and debit_id = :account_id
     and captured + released < held and hold < :after order by hold desc limit :limit)
  union
 (select distinct hold from hold_lines where ledger_id = :ledger_id and credit_id = :account_id
     and captured + released < held and hold < :after order by hold desc limit :limit)) as live
 order by hold desc limit :limit
""",
}

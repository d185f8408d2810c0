"""Finding transactions and accounts: each list has one filter beside its order, and is read from an index."""

from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import TextClause, bindparam, func, select, text, tuple_
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.types import BigInteger

from app.ledger import pages
from app.ledger.history import FOR_EVER, Moment, last_recorded
from app.ledger.pages import Order, Page, read_page
from app.ledger.queries import AccountState, account_size, get_head, make_account_state, select_accounts
from app.ledger.recorded import event_size, read_events, select_events
from app.ledger.statements import VERSIONS_OF
from app.ledger.values import EARLIEST, Event
from app.models import accounts, events

_INSTANT = timedelta(microseconds=1)


# Accounts


async def find_accounts(
    session: AsyncSession,
    ledger: str,
    *,
    asset: str | None = None,
    status: str | None = None,
    after: str | None,
    limit: int,
    cursor_identity: str | None = None,
    now: datetime,
) -> Page[AccountState, str]:
    """Those of an asset, or of a status, in the bytewise order of their paths. Raises `LedgerNotFound`, `ExpiryDue`."""
    ledger_id, sequence, identity = await get_head(session, ledger, now=now, cursor_identity=cursor_identity)
    filtered = accounts.c.asset == asset if asset is not None else accounts.c.status == status
    query = select_accounts(ledger_id).where(filtered)
    rows, more = await read_page(session, query, accounts.c.path, "oldest", after, limit, account_size)
    return Page(
        [make_account_state(row, sequence) for row in rows], rows[-1].path if more else None, sequence, identity
    )


async def list_accounts_below(
    session: AsyncSession,
    ledger: str,
    prefix: str,
    *,
    after: str | None,
    limit: int,
    cursor_identity: str | None = None,
    now: datetime,
) -> Page[AccountState, str]:
    """The account of the path itself, then those below it. Raises `LedgerNotFound`, `ExpiryDue`."""
    ledger_id, sequence, identity = await get_head(session, ledger, now=now, cursor_identity=cursor_identity)
    query = select_accounts(ledger_id)
    first: list[Any] = []
    if after is None:
        itself = query.where(accounts.c.path == prefix)
        first, _ = await read_page(session, itself, accounts.c.path, "oldest", None, 1, account_size)
    # By a range of bytes: `;` is what follows `:`. Between the path and this range others may lie.
    below = query.where(accounts.c.path >= f"{prefix}:", accounts.c.path < f"{prefix};")
    after, count = None if after == prefix else after, limit - len(first)
    found, more = await read_page(session, below, accounts.c.path, "oldest", after, count, account_size)
    allowed = pages.PAGE_BYTES_MAX - first[0].bytes_so_far if first else None
    rows = [row for row in found if allowed is None or row.bytes_so_far <= allowed]
    more = more or len(rows) < len(found)
    items = [make_account_state(row, sequence) for row in (*first, *rows)]
    return Page(items, items[-1].path if more else None, sequence, identity)


# Transactions


async def find_transactions(
    session: AsyncSession,
    ledger: str,
    *,
    reference: str | None = None,
    group: str | None = None,
    order: Order,
    after: int | None,
    limit: int,
    cursor_identity: str | None = None,
) -> Page[Event, int]:
    """Those of a reference, of which there is one at most, or of a group. Raises `LedgerNotFound`."""
    ledger_id, sequence, identity = await get_head(session, ledger, cursor_identity=cursor_identity)
    filtered = events.c.reference == reference if reference is not None else events.c.group == group
    query = select_events(ledger_id).where(events.c.postings.is_not(None), filtered)
    rows, more = await read_page(session, query, events.c.sequence, order, after, limit, event_size)
    found = await read_events(session, ledger_id, rows)
    return Page(found, found[-1].sequence if more else None, sequence, identity)


async def list_transactions_of_account(
    session: AsyncSession,
    ledger: str,
    path: str,
    *,
    order: Order,
    after: int | None,
    limit: int,
    cursor_identity: str | None = None,
    within: str | None = None,
) -> Page[Event, int]:
    """Those that name an account, none if there is no such account; of these, if `within` is a prefix, only those that
    name no account outside. Raises `LedgerNotFound`."""
    ledger_id, sequence, identity = await get_head(session, ledger, cursor_identity=cursor_identity)
    query = select(accounts.c.account_id).where(accounts.c.ledger_id == ledger_id, accounts.c.path == path)
    account_id = await session.scalar(query)
    key = {"ledger_id": ledger_id, "account_id": account_id}
    # Sequences rise with versions, so the place of one among the entries is searched by halving.
    known = sequence if after is None else after - 1 if order == "newest" else after
    versions = (await session.execute(VERSIONS_OF, key | {"effective": FOR_EVER, "sequence": known})).one_or_none()
    version = versions[1] if versions and (after is not None or order == "newest") else 0
    bounds = key | {"version": version, "limit": limit + 1} | bounds_within(within)
    found = list(await session.scalars(_of_account(order, within is not None), bounds)) if versions else []
    events_found, more = await _read_in_order(session, ledger_id, found, limit)
    return Page(events_found, events_found[-1].sequence if more else None, sequence, identity)


async def list_transactions_effective(
    session: AsyncSession,
    ledger: str,
    *,
    start: datetime | None,
    end: datetime | None,
    order: Order,
    after: Moment | None,
    pinned: int | None,
    limit: int,
    cursor_identity: str | None = None,
) -> Page[Any, Moment]:
    """Those effective from `start` on and before `end`, by effective time and then sequence, as known at `pinned`.

    Those that said when they were effective stand in an index; the others were effective when recorded, which
    rises with their sequence. Raises `LedgerNotFound`.
    """
    ledger_id, last, identity = await get_head(session, ledger, cursor_identity=cursor_identity)
    sequence = last if pinned is None else min(pinned, last)
    # From `low` up to and including `high`, as places.
    low = Moment(max(start or EARLIEST, EARLIEST) - _INSTANT, sequence)
    high = Moment(max(end or FOR_EVER, EARLIEST) - _INSTANT, sequence)
    if after is not None and order == "oldest":
        low = max(low, after)
    elif after is not None:
        high = min(high, Moment(after.effective_at, after.number - 1))

    place = tuple_(events.c.effective_at, events.c.sequence)
    falling = order == "newest"
    said = select(events.c.effective_at, events.c.sequence).where(
        events.c.ledger_id == ledger_id,
        events.c.effective_at.is_not(None),
        events.c.postings.is_not(None),
        events.c.sequence <= sequence,
        place > low,
        place <= high,
    )
    columns = (events.c.effective_at, events.c.sequence)
    said = said.order_by(*(column.desc() if falling else column for column in columns)).limit(limit + 1)
    places = [Moment(*row) for row in await session.execute(said)]
    if len(places) > limit:  # What lies beyond the last of these belongs to later pages.
        low, high = (places[-1], high) if falling else (low, places[-1])
    unsaid = select(events.c.recorded_at, events.c.sequence).where(
        events.c.ledger_id == ledger_id,
        events.c.effective_at.is_(None),
        events.c.postings.is_not(None),
        events.c.sequence > await _recorded_up_to(session, ledger_id, sequence, low),
        events.c.sequence <= await _recorded_up_to(session, ledger_id, sequence, high),
    )
    unsaid = unsaid.order_by(events.c.sequence.desc() if falling else events.c.sequence).limit(limit + 1)
    places += [Moment(*row) for row in await session.execute(unsaid)]
    places.sort(reverse=falling)
    found, more = await _read_in_order(session, ledger_id, [each.number for each in places[: limit + 1]], limit)
    return Page(found, places[len(found) - 1] if more else None, sequence, identity)


async def _recorded_up_to(session: AsyncSession, ledger_id: int, last: int, place: Moment) -> int:
    """The last sequence, up to `last`, whose place in order of recording is not beyond this one."""
    recorded = max(place.effective_at, EARLIEST)
    up_to = await last_recorded(session, ledger_id, last, recorded)
    before = await last_recorded(session, ledger_id, last, recorded - _INSTANT)
    return min(up_to, max(place.number, before))


async def _read_in_order(
    session: AsyncSession, ledger_id: int, sequences: list[int], limit: int
) -> tuple[list[Any], bool]:
    """The events of these sequences in this order, cut to a page, and whether more follow."""
    if not sequences:
        return [], False
    asked = bindparam("sequences", sequences, type_=ARRAY(BigInteger))
    found = func.unnest(asked).table_valued("sequence", with_ordinality="place", name="found").render_derived()
    query = select_events(ledger_id).join(found, found.c.sequence == events.c.sequence).add_columns(found.c.place)
    rows, more = await read_page(session, query, found.c.place, "oldest", None, limit, event_size)
    return await read_events(session, ledger_id, rows), more


def bounds_within(prefix: str | None) -> dict[str, str]:
    """What `WITHIN` needs to know of a prefix."""
    return {} if prefix is None else {"within": prefix, "below": f"{prefix}:", "beyond": f"{prefix};"}


# Of the row `e` of an event with postings: no account lies outside a prefix. Asked in the statement itself, so that
# neither a page's length nor its cursor tells of what is left out.
WITHIN = """ and not exists (
       select from string_to_table(e.postings, ';') as p (posting), unnest(array[1, 3]) as s (side)
        cross join lateral (
              select path from accounts
               where ledger_id = :ledger_id and account_id = split_part(p.posting, ' ', s.side)::bigint offset 0) as a
        where a.path <> :within and not (a.path >= :below and a.path < :beyond))"""


@cache
def _of_account(order: Order, within: bool) -> TextClause:
    """One of the few statements that these parts make."""
    return text("".join((_OF_ACCOUNT[order], WITHIN if within else "", _IN_ORDER[order])))


# The first entry of each transaction of an account, in the order of its versions: the window and the look-ups stop
# with the limit. (Sequences rise with versions, but a plan cannot know that: in their order it would sort them all.)
_OF_ACCOUNT = {
    "oldest": """
select x.sequence
  from (select version, sequence, lag(sequence) over (order by version) as former from entries
         where ledger_id = :ledger_id and account_id = :account_id and version > :version) as x
 cross join lateral (
       select postings from events where ledger_id = :ledger_id and sequence = x.sequence offset 0) as e
 where x.former is distinct from x.sequence and e.postings is not null""",
    "newest": """
select x.sequence
  from (select version, sequence, lag(sequence) over (order by version desc) as former from entries
         where ledger_id = :ledger_id and account_id = :account_id and version <= :version) as x
 cross join lateral (
       select postings from events where ledger_id = :ledger_id and sequence = x.sequence offset 0) as e
 where x.former is distinct from x.sequence and e.postings is not null""",
}
_IN_ORDER = {"oldest": " order by x.version limit :limit", "newest": " order by x.version desc limit :limit"}

"""Balances in the past: what was posted by any effective time, as known at any point of the log.

Each entry holds the balance after it and `latest_effective`, the latest effective time that its account had seen,
so both that and its sequence rise with `version` and are searched by halving over the primary key. Let vE be the
last version with latest_effective <= E, and vS the last with sequence <= S. Everything up to vE is effective by E,
on time or late; what comes after it counts only if it is late:

    balance(E, S) = balance after version min(vE, vS) + sum of late amounts with vE < version <= vS, effective <= E
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.ledger.queries import get_head
from app.ledger.refusals import AccountNotFound, SequenceOutOfRange
from app.ledger.values import Side
from app.models import accounts

# No entry is effective later.
FOR_EVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class AsOf:
    """Which past is asked for; None is no bound."""

    effective: datetime | None = None
    sequence: int | None = None
    recorded: datetime | None = None

    @property
    def is_past(self) -> bool:
        return self != AsOf()

    @property
    def effective_bound(self) -> datetime:
        return self.effective or FOR_EVER


class Moment(NamedTuple):
    """A position in effective order: a time, and what tells apart the items that share it."""

    effective_at: datetime
    number: int


@dataclass(frozen=True, slots=True)
class AccountBalance:
    account: str
    asset: str
    normal_side: Side
    posted: int
    as_of_effective: datetime | None
    sequence: int


async def get_account_balance(session: AsyncSession, ledger: str, path: str, as_of: AsOf) -> AccountBalance:
    """Raises `LedgerNotFound`, `AccountNotFound`, `SequenceOutOfRange`."""
    ledger_id, last, _ = await get_head(session, ledger)
    query = select(accounts.c.account_id, accounts.c.asset, accounts.c.normal_side)
    found = await session.execute(query.where(accounts.c.ledger_id == ledger_id, accounts.c.path == path))
    account = found.one_or_none()
    if account is None:
        raise AccountNotFound()
    sequence = await resolve(session, ledger_id, last, as_of)
    posted = await session.scalar(
        _BALANCE,
        {
            "ledger_id": ledger_id,
            "account_id": account.account_id,
            "effective": as_of.effective_bound,
            "sequence": sequence,
        },
    )
    return AccountBalance(path, account.asset, account.normal_side, int(posted), as_of.effective, sequence)


async def resolve(session: AsyncSession, ledger_id: int, last: int, as_of: AsOf) -> int:
    """The last sequence of the past that is asked for; 0 lies before the first event.

    Raises `SequenceOutOfRange` beyond `last`, the end of the log.
    """
    sequence = last if as_of.sequence is None else as_of.sequence
    if sequence > last:
        raise SequenceOutOfRange()
    if as_of.recorded is None:
        return sequence
    return await last_recorded(session, ledger_id, sequence, as_of.recorded)


async def last_recorded(session: AsyncSession, ledger_id: int, last: int, by: datetime) -> int:
    """The last sequence, up to `last`, that was recorded by an instant; 0 if none was."""
    return await session.scalar(_RECORDED_BY, {"ledger_id": ledger_id, "last": last, "recorded": by}) or 0


# The last event recorded by an instant. `recorded_at` never falls along the log, so it needs no index of its own.
RECORDED_BY = """
with recursive search (low, high) as (
  select 0::bigint, cast(:last as bigint) + 1
  union all
  select case when x.recorded_at <= :recorded then s.middle else s.low end,
         case when x.recorded_at <= :recorded then s.high else s.middle end
    from (select low, high, (low + high) / 2 as middle from search where high - low > 1) as s
   cross join lateral (
         select recorded_at from events where ledger_id = :ledger_id and sequence = s.middle offset 0) as x
)
select max(low) from search
"""

# For each account `a`: the last version whose `latest_effective` is not after :effective, and the last one whose
# sequence is not after :sequence. `low` always satisfies it (or is 0), `high` never does. The end is looked at
# first, since most accounts have nothing later.
VERSIONS = """
 cross join lateral (
  with recursive search (low, high) as (
    select case when a.latest_effective <= :effective then a.version else 0 end,
           case when a.latest_effective <= :effective then a.version + 1 else a.version end
    union all
    select case when x.latest_effective <= :effective then s.middle else s.low end,
           case when x.latest_effective <= :effective then s.high else s.middle end
      from (select low, high, (low + high) / 2 as middle from search where high - low > 1) as s
     cross join lateral (
           select latest_effective from entries
            where ledger_id = :ledger_id and account_id = a.account_id and version = s.middle offset 0) as x
  )
  select max(low) as version from search
 ) as effective
 cross join lateral (
  with recursive search (low, high) as (
    select case when x.sequence <= :sequence then a.version else 0 end,
           case when x.sequence <= :sequence then a.version + 1 else a.version end
      from (select (select sequence from entries where ledger_id = :ledger_id and account_id = a.account_id
                       and version = a.version) as sequence) as x
    union all
    select case when x.sequence <= :sequence then s.middle else s.low end,
           case when x.sequence <= :sequence then s.high else s.middle end
      from (select low, high, (low + high) / 2 as middle from search where high - low > 1) as s
     cross join lateral (
           select sequence from entries
            where ledger_id = :ledger_id and account_id = a.account_id and version = s.middle offset 0) as x
  )
  select max(low) as version from search
 ) as known
"""

# The formula at the head of this file, for each account `a`.
POSTED = "".join(
    (
        VERSIONS,
        """
 cross join lateral (
  select coalesce((select balance from entries where ledger_id = :ledger_id and account_id = a.account_id
                      and version = least(effective.version, known.version)), 0)
       + coalesce((select sum(amount) from late_entries where ledger_id = :ledger_id and account_id = a.account_id
                      and effective_at <= :effective
                      and version > effective.version and version <= known.version), 0) as posted
 ) as past
""",
    )
)

BALANCE = "".join(
    (
        "select past.posted::text from (",
        "select * from accounts where ledger_id = :ledger_id and account_id = :account_id offset 0) as a",
        POSTED,
    )
)
_BALANCE, _RECORDED_BY = text(BALANCE), text(RECORDED_BY)

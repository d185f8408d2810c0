"""Sums over accounts, by asset: totals below a prefix and the trial balance, now or as of any past."""

from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.ledger.history import POSTED, AsOf, resolve
from app.ledger.pages import Page
from app.ledger.queries import get_head

_COUNTERS = ("debits_posted", "credits_posted", "debits_pending", "credits_pending")


@dataclass(frozen=True, slots=True)
class AssetTotals:
    """Sums over accounts of one asset. Of the past only `posted` is known."""

    asset: str
    accounts: int
    posted: int
    debits_posted: int | None
    credits_posted: int | None
    debits_pending: int | None
    credits_pending: int | None


@dataclass(frozen=True, slots=True)
class TrialBalance:
    asset: str
    debit_balances: int
    credit_balances: int


async def get_totals(
    session: AsyncSession,
    ledger: str,
    *,
    prefix: str | None,
    as_of: AsOf,
    after: str | None,
    limit: int,
    cursor_identity: str | None = None,
    now: datetime,
) -> Page[AssetTotals, str]:
    """By asset, in bytewise order. Raises `LedgerNotFound`, `ExpiryDue`, `SequenceOutOfRange`."""
    present = None if as_of.is_past else now  # only the present shows what is pending
    summed = await _sum(session, ledger, "totals", prefix, as_of, after, limit, cursor_identity, present)
    rows, more, sequence, identity = summed
    items = [AssetTotals(row[0], row[1], int(row[2]), *map(_int_or_none, row[3:])) for row in rows]
    return Page(items, items[-1].asset if more else None, sequence, identity)


async def get_trial_balance(
    session: AsyncSession,
    ledger: str,
    *,
    as_of: AsOf,
    after: str | None,
    limit: int,
    cursor_identity: str | None = None,
) -> Page[TrialBalance, str]:
    """By asset, in bytewise order. Raises `LedgerNotFound`, `SequenceOutOfRange`."""
    summed = await _sum(session, ledger, "trial balance", None, as_of, after, limit, cursor_identity)
    rows, more, sequence, identity = summed
    items = [TrialBalance(asset, int(debits), int(credits)) for asset, debits, credits in rows]
    return Page(items, items[-1].asset if more else None, sequence, identity)


async def _sum(
    session: AsyncSession,
    ledger: str,
    what: str,
    prefix: str | None,
    as_of: AsOf,
    after: str | None,
    limit: int,
    cursor_identity: str | None,
    now: datetime | None = None,
) -> tuple[list[Any], bool, int, str]:
    ledger_id, last, identity = await get_head(session, ledger, now=now, cursor_identity=cursor_identity)
    sequence = await resolve(session, ledger_id, last, as_of)
    bounds: dict[str, Any] = {"ledger_id": ledger_id, "after": after or "", "limit": limit + 1}
    if prefix is not None:
        bounds |= {"prefix": prefix, "below": f"{prefix}:", "beyond": f"{prefix};"}
    if as_of.is_past:
        bounds |= {"sequence": sequence, "effective": as_of.effective_bound}
    statement = _statement(what, prefix is not None, as_of.is_past, sequence < last)
    rows = list(await session.execute(statement, bounds))
    return rows[:limit], len(rows) > limit, sequence, identity


def _int_or_none(text: str | None) -> int | None:
    return None if text is None else int(text)


@cache
def _statement(what: str, below_prefix: bool, past: bool, known: bool) -> TextClause:
    """One of the few statements that these parts make; `known` is whether the log goes on after :sequence."""
    parts = [_SUMS[what, past], _BELOW if below_prefix else _ALL]
    if past:
        # Only what was open by then; later accounts held nothing, and their assets may not have been there.
        parts += [_THEN.replace("{all}", _ALL_THEN[known]), " where a.account_id <= :sequence and a.asset > :after"]
    else:
        parts.append(" where a.asset > :after")
    return text("".join((*parts, " group by a.asset order by a.asset limit :limit")))


_POSTED = """case a.normal_side when 'debit' then a.debits_posted - a.credits_posted
                            else a.credits_posted - a.debits_posted end"""
# What an account had then. Most have nothing later, and what they have is what they had. Of a short account the last
# entry by then is found by reading backward, which is the formula of `history` without its searches: what follows
# the last entry with `latest_effective` up to :effective counts only if it is late. Only long accounts are searched.
_SHORT = 64
_THEN = "".join(
    (
        """
 cross join lateral (
  select case when {all} then """,
        _POSTED,
        f" when a.version <= {_SHORT} then",
        """ coalesce((
           select balance from entries where ledger_id = :ledger_id and account_id = a.account_id
              and latest_effective <= :effective and sequence <= :sequence order by version desc limit 1), 0)
         + case when a.latest_effective <= :effective then 0 else coalesce((
           select sum(late.amount) from late_entries as late
            cross join lateral (
                  select latest_effective, sequence from entries
                   where ledger_id = :ledger_id and account_id = a.account_id and version = late.version offset 0) as e
            where late.ledger_id = :ledger_id and late.account_id = a.account_id
              and late.effective_at <= :effective and e.latest_effective > :effective and e.sequence <= :sequence), 0)
           end""",
        " else (select past.posted from (select 1) as one",
        POSTED,
        ") end as posted offset 0) as past",
    )
)
# Whether an account's last entry was there by then: to know it of the log up to now, no entry is read.
_ALL_THEN = {
    False: "a.latest_effective <= :effective",
    True: "a.version = 0",
}
_RAISED = "a.debits_posted - a.credits_posted"
_RAISED_THEN = "case a.normal_side when 'debit' then past.posted else -past.posted end"
_SUMS = {
    ("totals", False): "".join(
        ("select a.asset, count(*), sum(", _POSTED, ")::text", *(f", sum(a.{name})::text" for name in _COUNTERS))
    ),
    ("totals", True): "".join(("select a.asset, count(*), sum(past.posted)::text", ", null::text" * len(_COUNTERS))),
    **{
        (
            "trial balance",
            past,
        ): f"select a.asset, sum(greatest({raised}, 0))::text, sum(greatest(-({raised}), 0))::text"
        for past, raised in ((False, _RAISED), (True, _RAISED_THEN))
    },
}
_ALL = " from (select * from accounts where ledger_id = :ledger_id) as a"
# The account of the path itself, and by a range of bytes those below it: `;` is what follows `:`.
_BELOW = """
  from (select * from accounts where ledger_id = :ledger_id and path = :prefix
         union all
        select * from accounts where ledger_id = :ledger_id and path >= :below and path < :beyond) as a
"""

"""The accounts of a ledger: their rows against their entries, the log, and what is held of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Row, text

from app.ledger.values import EARLIEST
from app.ledger.verification.checks import Findings
from app.ledger.verification.rebuilding import (
    Rebuilt,
    RebuiltAccounts,
    is_within_limits,
    read_configuration,
    read_counters,
    read_row_configuration,
)
from app.ledger.verification.rows import Rows

ACCOUNTS_PAGE = 500
ENTRIES_PAGE = 20_000

ACCOUNT_IDS = text("""
select account_id from accounts where ledger_id = :ledger and account_id > :after order by account_id limit :count
""")
# The accounts that have entries, one step along the index each.
ENTERED_IDS = text("""
with recursive found (account_id) as (
  (select account_id from entries where ledger_id = :ledger and account_id > :after order by account_id limit 1)
  union all
  select (select e.account_id from entries e where e.ledger_id = :ledger and e.account_id > found.account_id
           order by e.account_id limit 1)
    from found where found.account_id < :upto)
select account_id from found where account_id <= :upto
""")
# A row with its last entry and the event that configured it: one statement, so one snapshot.
ACCOUNTS = text("""
select a.account_id, a.path, a.asset, a.normal_side, a.status, a.minimum_balance::text as minimum_balance,
       a.maximum_balance::text as maximum_balance, a.debits_posted::text as debits_posted,
       a.credits_posted::text as credits_posted, a.debits_pending::text as debits_pending,
       a.credits_pending::text as credits_pending, a.version, a.revision, a.configured_by, a.latest_effective,
       e.version as last_version, e.balance::text as last_balance, e.latest_effective as last_latest,
       c.account_id as configured_account, c.configuration
  from unnest(cast(:accounts as bigint[])) as u (account_id)
 cross join lateral (select * from accounts x where x.ledger_id = :ledger and x.account_id = u.account_id offset 0) a
  left join lateral (select * from entries x where x.ledger_id = :ledger and x.account_id = u.account_id
                      order by x.version desc limit 1) e on true
  left join lateral (select * from events x where x.ledger_id = :ledger and x.sequence = a.configured_by
                     offset 0) c on true
""")
# Some versions of some accounts: their sums, those of them that came after a sequence, those without their event,
# and those that the postings of their event do not name.
FOLD = text("""
select u.account_id, count(e.version) as entries, count(*) filter (where later) as later_entries,
       array[coalesce(sum(posted) filter (where debit), 0), coalesce(sum(posted) filter (where not debit), 0),
             coalesce(sum(pending) filter (where debit), 0),
             coalesce(sum(pending) filter (where not debit), 0)]::text[] as sums,
       array[coalesce(sum(posted) filter (where debit and later), 0),
             coalesce(sum(posted) filter (where not debit and later), 0),
             coalesce(sum(pending) filter (where debit and later), 0),
             coalesce(sum(pending) filter (where not debit and later), 0)]::text[] as later_sums,
       count(*) filter (where e.version is not null and postings is null) as lost,
       min(e.version) filter (where postings is null) as first_lost,
       count(*) filter (where not named) as unnamed, min(e.version) filter (where not named) as first_unnamed
  from unnest(cast(:accounts as bigint[]), cast(:afters as bigint[]), cast(:uptos as bigint[]))
       as u (account_id, after, upto)
  left join lateral (
       select x.*, x.sequence > :upto as later from entries x
        where x.ledger_id = :ledger and x.account_id = u.account_id and x.version > u.after and x.version <= u.upto
       offset 0) e on true
  left join lateral (
       select v.postings,
              case when e.debit then strpos(';' || v.postings, ';' || e.account_id || ' ' || e.version || ' ') > 0
                   else strpos(v.postings || ';', ' ' || e.account_id || ' ' || e.version || ' ' ||
                        case when v.kind in ('transaction_posted', 'transaction_reversed') then e.posted || ';'
                             when v.kind = 'transaction_held' then e.pending || ';'
                             else e.posted || ' ' || -(e.posted + e.pending) || ' ' end) > 0
              end as named
         from events v where v.ledger_id = :ledger and v.sequence = e.sequence offset 0) v on true
 group by u.account_id
""")


async def verify_touched_accounts(
    rows: Rows, findings: Findings, touched: Iterable[int], configured: Mapping[int, int], *, after: int, upto: int
) -> None:
    """The accounts that a range of the log touches. `configured` has the last event of the range that configured
    each of those that one did."""
    ids = sorted(touched)
    for place in range(0, len(ids), ACCOUNTS_PAGE):
        await _verify_rows(rows, findings, ids[place : place + ACCOUNTS_PAGE], configured, after, upto)


async def verify_accounts(
    rows: Rows,
    findings: Findings,
    rebuilt: RebuiltAccounts,
    configured: Mapping[int, int],
    kept: Mapping[int, Sequence[int]],
    *,
    upto: int,
) -> AsyncIterator[int]:
    """Every account of a ledger, giving how far it has come; `kept` is what live holds keep pending of them."""
    after = 0
    whole = False
    while not whole:
        async with rows.sessions() as session:  # one snapshot: who has entries is held against who is there
            place = {"ledger": rows.ledger_id, "after": after}
            ids = list(await session.scalars(ACCOUNT_IDS, place | {"count": ACCOUNTS_PAGE}))
            whole = len(ids) < ACCOUNTS_PAGE
            end = 2**63 - 1 if whole else ids[-1]
            entered = set(await session.scalars(ENTERED_IDS, place | {"upto": end}))
        for stranger in sorted(entered - set(ids)):
            findings.see("entries_have_events", False, f"entries of account {stranger}, which there is not")
        found = await _verify_rows(rows, findings, ids, configured, 0, upto)
        folds = await _fold(rows, findings, found, upto)
        for row in found:
            _verify_fold(findings, row, folds[row.account_id], rebuilt, kept.get(row.account_id, (0, 0)), upto)
        if ids:
            after = ids[-1]
            yield after
    for missing in rebuilt.left:
        findings.see("log_rebuilds_accounts", False, f"account {missing}, which there is not")


async def _verify_rows(
    rows: Rows, findings: Findings, ids: Sequence[int], configured: Mapping[int, int], after: int, upto: int
) -> Sequence[Row[Any]]:
    """The rows of these accounts against their last entry and the event that configured them, which the events
    after one and up to another bear out."""
    found = await rows.read(ACCOUNTS, accounts=ids)
    for row in found:
        where = f"account {row.account_id} {row.path}"
        raised = int(row.debits_posted) - int(row.credits_posted)
        posted = raised if row.normal_side == "debit" else -raised
        last = (row.last_version or 0, int(row.last_balance or 0))
        findings.see("counters_are_fold_of_entries", (row.version, posted) == last, where)
        findings.see("latest_effective_runs", row.latest_effective == (row.last_latest or EARLIEST), where)
        by = row.configured_by
        known = configured.get(row.account_id, 0)
        configuration = read_row_configuration(row)
        holds = (
            row.configured_account == row.account_id
            and read_configuration(row.configuration) == configuration
            and (by == known if after < by <= upto else by > known)
        )
        findings.see("configuration_is_last_event", holds, where)
        findings.see("limits_hold", is_within_limits(configuration, read_counters(row)), where)
    return found


@dataclass(slots=True)
class _Fold:
    """The sums of an account's entries, in the order of its counters, and those of them after a sequence."""

    entries: int = 0
    later_entries: int = 0
    sums: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    later_sums: list[int] = field(default_factory=lambda: [0, 0, 0, 0])

    def add(self, part: Row[Any]) -> None:
        self.entries += part.entries
        self.later_entries += part.later_entries
        self.sums = [have + int(more) for have, more in zip(self.sums, part.sums, strict=True)]
        self.later_sums = [have + int(more) for have, more in zip(self.later_sums, part.later_sums, strict=True)]


async def _fold(rows: Rows, findings: Findings, accounts: Sequence[Row[Any]], upto: int) -> dict[int, _Fold]:
    """The entries of these accounts summed up to the versions that they had."""
    folds = {row.account_id: _Fold() for row in accounts}
    for portion in _portion((row.account_id, row.version) for row in accounts):
        ids, afters, uptos = zip(*portion, strict=True)
        for part in await rows.read(FOLD, accounts=list(ids), afters=list(afters), uptos=list(uptos), upto=upto):
            folds[part.account_id].add(part)
            where = f"of account {part.account_id}"
            findings.add("entries_have_events", part.entries, part.lost, f"entry {part.first_lost} {where}")
            findings.add("entries_have_postings", part.entries, part.unnamed, f"entry {part.first_unnamed} {where}")
    return folds


def _verify_fold(
    findings: Findings, row: Row[Any], fold: _Fold, rebuilt: RebuiltAccounts, kept: Sequence[int], upto: int
) -> None:
    """A row's counters as the sums of its entries, as the log alone has them, and as its live holds keep them."""
    where = f"account {row.account_id} {row.path}"
    counters = read_counters(row)
    findings.see("counters_are_fold_of_entries", (counters, row.version) == (fold.sums, fold.entries), where)
    known: Rebuilt | None = rebuilt.pop(row.account_id)
    if row.account_id > upto:
        return  # opened since
    then = [counter - later for counter, later in zip(counters, fold.later_sums, strict=True)]
    holds = (
        known is not None
        and (then, row.version - fold.later_entries) == (known.counters, known.version)
        and (row.configured_by > upto or known.configuration == read_row_configuration(row))
    )
    findings.see("log_rebuilds_accounts", holds, where)
    if known is not None:
        findings.see("pending_is_what_is_held", known.counters[2:] == list(kept), where)


def _portion(accounts: Iterable[tuple[int, int]]) -> Iterator[list[tuple[int, int, int]]]:
    """The versions of accounts in portions of a page: (account, after version, up to version)."""
    portion: list[tuple[int, int, int]] = []
    size = 0
    for account_id, version in accounts:
        for after in range(0, version, ENTRIES_PAGE):
            portion.append((account_id, after, min(after + ENTRIES_PAGE, version)))
            size += portion[-1][2] - after
            if size >= ENTRIES_PAGE:
                yield portion
                portion, size = [], 0
    if portion:
        yield portion

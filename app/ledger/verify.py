"""The invariants, recomputed from the rows, while others write.

What is recorded never changes, so the log and its entries up to a sequence may be read page by page, each in a
session of its own: no snapshot lives longer than a page. What does change, an account's row, is read in one statement
with its last entry; what the row counts is then summed from the entries up to the version that it had.

A range verifies some events and the accounts that they touch. The whole walks the log, the accounts, the late entries
and the keys of a ledger, and rebuilds every account from the log alone; it holds a few hundred bytes per account and
two bits per event in memory.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from sys import intern
from typing import Any

from sqlalchemy import Row, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.ledger import queries
from app.ledger.refusals import SequenceOutOfRange
from app.ledger.values import EARLIEST
from app.models import idempotency_keys

EVENTS_PAGE = 200
POSTINGS_BYTES_PAGE = 100_000
# A range ends early where it has looked at this many entries.
ENTRIES_RANGE_MAX = 20_000
ACCOUNTS_PAGE = 500
ENTRIES_PAGE = 20_000
LATE_PAGE = 2_000
KEYS_PAGE = 5_000

RANGE_CHECKS = (
    "sequence_gapless",
    "recorded_at_never_falls",
    "head_is_last_event",
    "entries_sum_to_zero",
    "postings_have_entries",
    "balances_run",
    "latest_effective_runs",
    "late_entries_match",
    "counters_are_fold_of_entries",
    "configuration_is_last_event",
    "limits_hold",
    "triggers_stand",
)
WHOLE_CHECKS = (
    *RANGE_CHECKS,
    "entries_have_events",
    "entries_have_postings",
    "log_rebuilds_accounts",
    "one_effect_per_key",
    "effects_have_keys",
)

# What guards the rows, and how it has to be switched: always, or unless a session plays a replica.
TRIGGERS = {
    **{(table, f"{table}_append_only"): "A" for table in ("events", "entries", "late_entries")},
    **{(table, f"{table}_append_only"): "A" for table in ("idempotency_keys", "ledgers", "accounts", "heads")},
    **{(table, f"{table}_kept"): "A" for table in ("events", "entries", "late_entries", "idempotency_keys")},
    **{(table, f"{table}_kept"): "A" for table in ("ledgers", "accounts", "heads")},
    **{("api_keys", f"api_keys_{name}"): "A" for name in ("append_only", "kept")},
    ("api_keys", "api_keys_forward"): "O",
    ("entries", "entries_zero_sum"): "O",
    ("events", "events_gapless"): "O",
    ("heads", "heads_forward"): "O",
    ("heads", "heads_configured"): "O",
    ("accounts", "accounts_forward"): "O",
    ("accounts", "accounts_shut"): "O",
}

HEAD = text("""
select h.sequence, h.recorded_at, l.sequence as last_sequence, l.recorded_at as last_recorded_at
  from heads h left join lateral (
       select sequence, recorded_at from events where ledger_id = h.ledger_id order by sequence desc limit 1) l on true
 where h.ledger_id = :ledger
""")
EVENTS = text("""
select sequence, kind, recorded_at, coalesce(effective_at, recorded_at) as effective_at, postings, account_id,
       configuration
  from events where ledger_id = :ledger and sequence > :after and sequence <= :upto order by sequence limit :count
""")
RECORDED = text("select recorded_at from events where ledger_id = :ledger and sequence = :sequence")
# Each side of each posting: its entry, the one before it in its account, the account, and its late entry.
SIDES = text("""
select e.sequence, e.debit, e.asset, e.posted::text as posted, e.pending::text as pending,
       e.balance::text as balance, e.latest_effective, f.balance::text as former_balance,
       f.latest_effective as former_latest, a.normal_side, a.asset as account_asset, l.amount::text as late_amount
  from unnest(cast(:accounts as bigint[]), cast(:versions as bigint[]), cast(:effectives as timestamptz[]))
       with ordinality as u (account_id, version, effective_at, place)
  left join lateral (select * from entries x where x.ledger_id = :ledger and x.account_id = u.account_id
                        and x.version = u.version offset 0) e on true
  left join lateral (select * from entries x where x.ledger_id = :ledger and x.account_id = u.account_id
                        and x.version = u.version - 1 offset 0) f on true
  left join lateral (select * from accounts x where x.ledger_id = :ledger and x.account_id = u.account_id
                     offset 0) a on true
  left join lateral (select * from late_entries x where x.ledger_id = :ledger and x.account_id = u.account_id
                        and x.effective_at = u.effective_at and x.version = u.version offset 0) l on true
 order by u.place
""")
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
# and those that the postings of their event do not name. A posting is `debit version credit version amount`.
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
                   else strpos(v.postings || ';', ' ' || e.account_id || ' ' || e.version || ' ' || e.posted || ';') > 0
              end as named
         from events v where v.ledger_id = :ledger and v.sequence = e.sequence offset 0) v on true
 group by u.account_id
""")
LATE = text("""
select l.account_id, l.effective_at, l.version, l.amount::text as amount, e.debit, e.posted::text as posted,
       e.latest_effective, coalesce(v.effective_at, v.recorded_at) as event_effective_at, a.normal_side
  from (select * from late_entries x where x.ledger_id = :ledger
           and (x.account_id, x.effective_at, x.version) > (:account, :effective_at, :version)
         order by x.account_id, x.effective_at, x.version limit :count) l
  left join lateral (select * from entries x where x.ledger_id = :ledger and x.account_id = l.account_id
                        and x.version = l.version offset 0) e on true
  left join lateral (select * from events x where x.ledger_id = :ledger and x.sequence = e.sequence
                     offset 0) v on true
  left join lateral (select * from accounts x where x.ledger_id = :ledger and x.account_id = l.account_id
                     offset 0) a on true
 order by l.account_id, l.effective_at, l.version
""")
GUARDS = text("""
select c.relname::text as table_name, t.tgname::text as name, t.tgenabled::text as enabled
  from pg_trigger t join pg_class c on c.oid = t.tgrelid
 where not t.tgisinternal and pg_table_is_visible(c.oid)
""")

Sessions = async_sessionmaker[AsyncSession]
Progress = Callable[[str, int], None]


@dataclass(slots=True)
class Check:
    """One invariant, as far as it was looked at."""

    name: str
    checked: int = 0
    offenders: int = 0
    first_offender: str | None = None

    def see(self, holds: bool, where: str) -> None:
        self.add(1, 0 if holds else 1, where)

    def add(self, checked: int, offenders: int, where: str) -> None:
        self.checked += checked
        self.offenders += offenders
        if offenders and self.first_offender is None:
            self.first_offender = where


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """What was verified of a ledger whose log had come to `sequence`."""

    ledger: str
    from_sequence: int
    to_sequence: int
    checks: list[Check]
    next_after_sequence: int
    sequence: int


@dataclass(slots=True)
class Rebuilt:
    """An account as the log alone has it."""

    configuration: tuple[Any, ...]
    counters: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    version: int = 0

    @property
    def within_limits(self) -> bool:
        _, _, normal_side, _, minimum, maximum, _ = self.configuration
        return _within(normal_side, self.counters, minimum, maximum)


async def verify_range(sessions: Sessions, ledger: str, *, after: int, limit: int) -> VerificationReport:
    """Verify the events after a sequence, so many at most, and the accounts that they touch.

    Raises `LedgerNotFound`, and `SequenceOutOfRange` beyond the end of the log.
    """
    verification = await _Verification.begin(sessions, ledger, RANGE_CHECKS)
    last = verification.last
    if after > last:
        raise SequenceOutOfRange()
    to = min(after + limit, last)
    reached = after
    async for place in verification.verify_log(after, to):
        reached = place
        if verification.entries_seen >= ENTRIES_RANGE_MAX:
            break
    for some in _slices(sorted(verification.touched), ACCOUNTS_PAGE):
        await verification.verify_accounts(some, after + 1, reached)
    return VerificationReport(ledger, after + 1, reached, verification.found, reached, last)


async def verify_ledger(
    sessions: Sessions, ledger: str, *, progress: Progress = lambda what, done: None
) -> VerificationReport:
    """Verify a ledger as far as its log has come. Raises `LedgerNotFound`.

    `progress` is told of each part (`events` and `accounts`), how far it has come by sequence.
    """
    verification = await _Verification.begin(sessions, ledger, WHOLE_CHECKS)
    last = verification.last
    verification.rebuilt = {}
    async for reached in verification.verify_log(0, last):
        progress("events", reached)
    async for reached in verification.verify_all_accounts(last):
        progress("accounts", min(reached, last))
    await verification.verify_late_entries()
    await verification.verify_keys(last)
    return VerificationReport(ledger, 1, last, verification.found, last, last)


class _Verification:
    """One verification under way: what it found, and what it keeps from the log to hold the accounts against."""

    def __init__(self, sessions: Sessions, ledger_id: int, names: Iterable[str]) -> None:
        self._sessions = sessions
        self._ledger_id = ledger_id
        self._checks = {name: Check(name) for name in names}
        self.last = 0
        self.entries_seen = 0
        self.touched: set[int] = set()
        # The last event of the range that configured each account.
        self.configured: dict[int, int] = {}
        # The accounts as the log has them, and the events that it has, if the whole is verified.
        self.rebuilt: dict[int, Rebuilt] | None = None
        self.present = bytearray()

    @classmethod
    async def begin(cls, sessions: Sessions, ledger: str, names: Iterable[str]) -> _Verification:
        async with sessions() as session:
            self = cls(sessions, await queries.get_ledger_id(session, ledger), names)
        (head,) = await self._read(HEAD)
        self.last = head.sequence
        holds = (head.sequence, head.recorded_at) == (head.last_sequence, head.last_recorded_at)
        self._see("head_is_last_event", holds, f"head at {head.sequence}, last event {head.last_sequence}")
        guards = {(row.table_name, row.name): row.enabled for row in await self._read(GUARDS)}
        for (table, name), enabled in TRIGGERS.items():
            self._see("triggers_stand", guards.get((table, name)) == enabled, f"trigger {name} on {table}")
        return self

    @property
    def found(self) -> list[Check]:
        return list(self._checks.values())

    def _see(self, name: str, holds: bool, where: str) -> None:
        self._checks[name].see(holds, where)

    async def _read(self, query: Any, **parameters: Any) -> Sequence[Row[Any]]:
        async with self._sessions() as session:
            return (await session.execute(query, {"ledger": self._ledger_id} | parameters)).all()

    # The log

    async def verify_log(self, after: int, to: int) -> AsyncIterator[int]:
        """Verify the events after one and up to another with their entries, giving how far it has come."""
        former = await self._read(RECORDED, sequence=after)
        recorded_at = former[0].recorded_at if former else EARLIEST
        if self.rebuilt is not None:
            self.present = bytearray(to // 8 + 1)
        while after < to:
            rows = _within_bytes(await self._read(EVENTS, after=after, upto=to, count=EVENTS_PAGE))
            if not rows:
                break  # what is missing at the end, the head tells
            for row in rows:
                self._see("sequence_gapless", row.sequence == after + 1, f"event {row.sequence}")
                self._see("recorded_at_never_falls", row.recorded_at >= recorded_at, f"event {row.sequence}")
                after, recorded_at = row.sequence, row.recorded_at
                if self.rebuilt is not None:
                    self.present[after // 8] |= 1 << after % 8
                if row.account_id is not None:
                    self._take_configuration(row)
            await self._verify_postings([row for row in rows if row.postings is not None])
            yield after
        if after < to:
            yield to

    def _take_configuration(self, row: Row[Any]) -> None:
        self.touched.add(row.account_id)
        self.configured[row.account_id] = row.sequence
        if self.rebuilt is None:
            return
        said = _configuration(row.configuration)
        known = self.rebuilt.get(row.account_id)
        if known is None:
            self.rebuilt[row.account_id] = known = Rebuilt(said)
        known.configuration = said
        self._see("limits_hold", known.within_limits, f"event {row.sequence}, account {row.account_id}")

    async def _verify_postings(self, rows: Sequence[Row[Any]]) -> None:
        sides: list[tuple[Row[Any], int, int, bool, int, int]] = []
        for row in rows:
            told = _read_postings(row.kind, row.postings)
            if told is None:
                self._see("postings_have_entries", False, f"event {row.sequence}, whose postings are not to be read")
                continue
            sides += [(row, *side) for side in told]
            self._rebuild(row, told)
        found = await self._read(
            SIDES,
            accounts=[side[1] for side in sides],
            versions=[side[2] for side in sides],
            effectives=[side[0].effective_at for side in sides],
        )
        self.entries_seen += len(sides)
        sums: dict[int, dict[str, list[int]]] = {row.sequence: {} for row in rows}
        strange: set[int] = set()
        for (event, account_id, version, debit, posted, pending), entry in zip(sides, found, strict=True):
            self.touched.add(account_id)
            where = f"entry {version} of account {account_id}, event {event.sequence}"
            wanted = (event.sequence, debit, str(posted), str(pending))
            same = wanted == (entry.sequence, entry.debit, entry.posted, entry.pending)
            self._see("postings_have_entries", same, where)
            if entry.sequence is None:
                continue
            sign = 1 if entry.debit else -1
            total = sums[event.sequence].setdefault(entry.asset, [0, 0])
            total[0] += sign * int(entry.posted)
            total[1] += sign * int(entry.pending)
            if entry.asset != entry.account_asset:
                strange.add(event.sequence)
            self._verify_entry(event.effective_at, version, entry, where)
        for sequence, totals in sums.items():
            holds = sequence not in strange and all(total == [0, 0] for total in totals.values())
            self._see("entries_sum_to_zero", holds, f"event {sequence}")

    def _verify_entry(self, effective_at: datetime, version: int, entry: Row[Any], where: str) -> None:
        """An entry against the one before it in its account."""
        raised = int(entry.posted) if entry.debit == (entry.normal_side == "debit") else -int(entry.posted)
        former = 0 if version == 1 else entry.former_balance
        self._see("balances_run", former is not None and int(entry.balance) == int(former) + raised, where)
        seen = entry.former_latest or EARLIEST
        self._see("latest_effective_runs", entry.latest_effective == max(seen, effective_at), where)
        late = str(raised) if effective_at < seen else None
        self._see("late_entries_match", entry.late_amount == late, where)

    def _rebuild(self, event: Row[Any], told: Iterable[tuple[int, int, bool, int, int]]) -> None:
        if self.rebuilt is None:
            return
        moved: set[int] = set()
        for account_id, _, debit, posted, pending in told:
            known = self.rebuilt.get(account_id)
            if known is not None:  # the account of no event is found by its entries
                known.counters[0 if debit else 1] += posted
                known.counters[2 if debit else 3] += pending
                known.version += 1
                moved.add(account_id)
        for account_id in moved:
            holds = self.rebuilt[account_id].within_limits
            self._see("limits_hold", holds, f"event {event.sequence}, account {account_id}")

    # The accounts

    async def verify_all_accounts(self, upto: int) -> AsyncIterator[int]:
        after = 0
        whole = False
        while not whole:
            async with self._sessions() as session:  # one snapshot: who has entries is held against who is there
                place = {"ledger": self._ledger_id, "after": after}
                ids = list(await session.scalars(ACCOUNT_IDS, place | {"count": ACCOUNTS_PAGE}))
                whole = len(ids) < ACCOUNTS_PAGE
                end = 2**63 - 1 if whole else ids[-1]
                entered = set(await session.scalars(ENTERED_IDS, place | {"upto": end}))
            for stranger in sorted(entered - set(ids)):
                self._see("entries_have_events", False, f"entries of account {stranger}, which there is not")
            rows = await self.verify_accounts(ids, 1, upto)
            await self._fold(rows, upto)
            if ids:
                after = ids[-1]
                yield after
        for missing in sorted(set(self.rebuilt or {})):
            self._see("log_rebuilds_accounts", False, f"account {missing}, which there is not")

    async def verify_accounts(self, ids: Sequence[int], after: int, upto: int) -> Sequence[Row[Any]]:
        """The rows of these accounts against their last entry and the event that configured them, which the events
        of a range bear out."""
        rows = await self._read(ACCOUNTS, accounts=ids)
        for row in rows:
            where = f"account {row.account_id} {row.path}"
            raised = int(row.debits_posted) - int(row.credits_posted)
            posted = raised if row.normal_side == "debit" else -raised
            last = (row.last_version or 0, int(row.last_balance or 0))
            self._see("counters_are_fold_of_entries", (row.version, posted) == last, where)
            self._see("latest_effective_runs", row.latest_effective == (row.last_latest or EARLIEST), where)
            by = row.configured_by
            known = self.configured.get(row.account_id, 0)
            holds = (
                row.configured_account == row.account_id
                and _configuration(row.configuration) == _row_configuration(row)
                and (by == known if after <= by <= upto else by > known)
            )
            self._see("configuration_is_last_event", holds, where)
            minimum, maximum = _row_configuration(row)[4:6]
            self._see("limits_hold", _within(row.normal_side, _counters(row), minimum, maximum), where)
        return rows

    async def _fold(self, rows: Sequence[Row[Any]], upto: int) -> None:
        """Each row's counters as the sums of its entries, and as the log alone has them."""
        totals = {row.account_id: _Fold() for row in rows}
        for slices in _pack((row.account_id, row.version) for row in rows):
            ids, afters, uptos = zip(*slices, strict=True)
            found = await self._read(FOLD, accounts=list(ids), afters=list(afters), uptos=list(uptos), upto=upto)
            for part in found:
                totals[part.account_id].add(part)
                where = f"of account {part.account_id}"
                self._checks["entries_have_events"].add(part.entries, part.lost, f"entry {part.first_lost} {where}")
                self._checks["entries_have_postings"].add(
                    part.entries, part.unnamed, f"entry {part.first_unnamed} {where}"
                )
        for row in rows:
            where, fold = f"account {row.account_id} {row.path}", totals[row.account_id]
            counters = _counters(row)
            holds = (counters, row.version) == (fold.sums, fold.entries)
            self._see("counters_are_fold_of_entries", holds, where)
            known = (self.rebuilt or {}).pop(row.account_id, None)
            if row.account_id > upto:
                continue  # opened since
            then = [counter - later for counter, later in zip(counters, fold.later_sums, strict=True)]
            self._see(
                "log_rebuilds_accounts",
                known is not None
                and (then, row.version - fold.later_entries) == (known.counters, known.version)
                and (row.configured_by > upto or known.configuration == _row_configuration(row)),
                where,
            )

    # What stands beside

    async def verify_late_entries(self) -> None:
        """Each late entry from its own side: those that entries should have were looked for with the entries."""
        place = {"account": 0, "effective_at": EARLIEST, "version": 0}
        rows: Sequence[Row[Any]] = await self._read(LATE, **place, count=LATE_PAGE)
        while rows:
            for row in rows:
                raised = None
                if row.posted is not None:
                    raised = int(row.posted) if row.debit == (row.normal_side == "debit") else -int(row.posted)
                holds = (
                    raised == int(row.amount)
                    and row.event_effective_at == row.effective_at
                    and row.effective_at < row.latest_effective
                )
                self._see("late_entries_match", holds, f"late entry {row.version} of account {row.account_id}")
            last = rows[-1]
            place = {"account": last.account_id, "effective_at": last.effective_at, "version": last.version}
            rows = await self._read(LATE, **place, count=LATE_PAGE)

    async def verify_keys(self, upto: int) -> None:
        """Each key's effect, once; and each event's key."""
        keys = idempotency_keys
        query = (
            select(keys.c.key, keys.c.sequence, keys.c.refusal.is_(None).label("effect"), keys.c.events)
            .where(keys.c.ledger_id == self._ledger_id)
            .order_by(keys.c.key)
            .limit(KEYS_PAGE)
        )
        keyed = bytearray(len(self.present))
        rows = await self._read(query)
        while rows:
            for row in rows:
                # Of a batch, so many events from its sequence on.
                made = range(row.sequence, row.sequence + (1 if row.events is None else row.events))
                for sequence in made if row.effect and row.sequence <= upto else ():
                    byte, bit = sequence // 8, 1 << sequence % 8
                    once = bool(self.present[byte] & bit) and not keyed[byte] & bit
                    keyed[byte] |= bit
                    self._see("one_effect_per_key", once, f"key {row.key.hex()} of event {sequence}")
            rows = await self._read(query.where(keys.c.key > rows[-1].key))
        lacking = int.from_bytes(self.present, "little") & ~int.from_bytes(keyed, "little")
        first = (lacking & -lacking).bit_length() - 1
        self._checks["effects_have_keys"].add(upto, lacking.bit_count(), f"event {first}")


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


def _read_postings(kind: str, postings: str) -> list[tuple[int, int, bool, int, int]] | None:
    """The entries that an event's postings say it made: account, version, whether it is the debit, and what it
    posted and left pending. None if nobody knows what such postings say."""
    if kind != "transaction_posted":
        return None
    told: list[tuple[int, int, bool, int, int]] = []
    with suppress(ValueError):
        for posting in postings.split(";"):
            debit_id, debit_version, credit_id, credit_version, amount = map(int, posting.split(" "))
            told += [(debit_id, debit_version, True, amount, 0), (credit_id, credit_version, False, amount, 0)]
        return told
    return None


def _configuration(said: dict[str, Any] | None) -> tuple[Any, ...] | None:
    """What an account event says of the account, in one order."""
    if said is None:
        return None
    minimum, maximum = said["minimum_balance"], said["maximum_balance"]
    return (
        said["path"],
        intern(said["asset"]),
        intern(said["normal_side"]),
        intern(said["status"]),
        None if minimum is None else int(minimum),
        None if maximum is None else int(maximum),
        said["revision"],
    )


def _row_configuration(row: Row[Any]) -> tuple[Any, ...] | None:
    names = ("path", "asset", "normal_side", "status", "minimum_balance", "maximum_balance", "revision")
    return _configuration({name: getattr(row, name) for name in names})


def _counters(row: Row[Any]) -> list[int]:
    return [int(row.debits_posted), int(row.credits_posted), int(row.debits_pending), int(row.credits_pending)]


def _within(normal_side: str, counters: Sequence[int], minimum: int | None, maximum: int | None) -> bool:
    """Whether an account with these counters is within its limits."""
    debits, credits, debits_pending, credits_pending = counters
    if normal_side == "debit":
        available, expected = debits - credits - credits_pending, debits - credits + debits_pending
    else:
        available, expected = credits - debits - debits_pending, credits - debits + credits_pending
    return (minimum is None or available >= minimum) and (maximum is None or expected <= maximum)


def _within_bytes(rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
    """The first of the rows, as many as the bytes of postings of a page allow; at least one, if there is any."""
    size = 0
    for place, row in enumerate(rows):
        size += len(row.postings or "")
        if size > POSTINGS_BYTES_PAGE and place:
            return rows[:place]
    return rows


def _pack(accounts: Iterable[tuple[int, int]]) -> Iterable[list[tuple[int, int, int]]]:
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


def _slices(items: Sequence[int], size: int) -> Iterable[Sequence[int]]:
    return [items[place : place + size] for place in range(0, len(items), size)]

"""The log of a ledger, event by event, with the entries that its postings name."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, text

from app.ledger.values import EARLIEST
from app.ledger.verification.bits import Bits
from app.ledger.verification.checks import Findings
from app.ledger.verification.hold_rows import verify_ended_holds
from app.ledger.verification.holds import HoldsFold
from app.ledger.verification.periods import ClosedBooks
from app.ledger.verification.postings import EXPIRED, HELD, Told, make_sides, read_postings
from app.ledger.verification.rebuilding import Rebuilt, RebuiltAccounts
from app.ledger.verification.rows import Rows
from app.ledger.verification.subjects import Tellings, find_holds_begun_before, verify_reversals

EVENTS_PAGE = 200
POSTINGS_BYTES_PAGE = 100_000
# How many ended holds may wait for their rows to be read.
ENDED_PAGE = 500

EVENTS = text("""
select sequence, kind, recorded_at, coalesce(effective_at, recorded_at) as effective_at, actor, postings, account_id,
       configuration, subject, expires_at
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


class Kept:
    """What a verification of the whole keeps of the log, to hold the other rows against."""

    def __init__(self, findings: Findings, upto: int) -> None:
        self.accounts = RebuiltAccounts()
        self.periods = ClosedBooks(findings)
        self.present = Bits(upto)
        # Those that no key asked for.
        self.keyless = Bits(upto)
        self.held = Bits(upto)
        self.reversed = Bits(upto)

    def take(self, event: Row[Any], told: Sequence[Told] | None) -> Iterable[tuple[int, Rebuilt]]:
        """Keep an event; the accounts that it changes, as it left them."""
        self.present.add(event.sequence)
        self.periods.follow(event)
        if event.kind == EXPIRED:
            self.keyless.add(event.sequence)
        elif event.kind == HELD:
            self.held.add(event.sequence)
        if event.account_id is not None:
            return [(event.account_id, self.accounts.configure(event.account_id, event.configuration))]
        return self.accounts.move(make_sides(event.kind, told)) if told else ()


class LogWalk:
    """A walk along the log. The whole keeps what it finds; a range only what it has touched."""

    def __init__(self, rows: Rows, findings: Findings, kept: Kept | None = None) -> None:
        self._rows = rows
        self._findings = findings
        self._kept = kept
        self.holds: HoldsFold
        self.rows_seen = 0
        self.touched: set[int] = set()
        # The last event of the walk that configured each account.
        self.configured: dict[int, int] = {}

    async def verify(self, after: int, upto: int) -> AsyncIterator[int]:
        """Verify the events after one and up to another with their entries, giving how far it has come."""
        former = await self._rows.read(RECORDED, sequence=after)
        recorded_at = former[0].recorded_at if former else EARLIEST
        self.holds = HoldsFold(self._findings, recorded_at)
        while after < upto:
            rows = _take_page(await self._rows.read(EVENTS, after=after, upto=upto, count=EVENTS_PAGE))
            if not rows:
                break  # what is missing at the end, the head tells
            for row in rows:
                self._findings.see("sequence_gapless", row.sequence == after + 1, f"event {row.sequence}")
                holds = row.recorded_at >= recorded_at
                self._findings.see("recorded_at_never_falls", holds, f"event {row.sequence}")
                after, recorded_at = row.sequence, row.recorded_at
            await self._verify_page(rows)
            yield after
        if after < upto:
            yield upto
        if self._kept is not None:
            await verify_ended_holds(self._rows, self._findings, self.holds.drop_ended())

    async def _verify_page(self, events: Sequence[Row[Any]]) -> None:
        tellings: list[tuple[Row[Any], list[Told]]] = []
        for event in events:
            told = None if event.postings is None else read_postings(event.kind, event.postings)
            if told is not None:
                tellings.append((event, told))
            elif event.postings is not None:
                where = f"event {event.sequence}, whose postings are not to be read"
                self._findings.see("postings_have_entries", False, where)
        await self._verify_entries(tellings)
        await verify_reversals(
            self._rows, self._findings, tellings, None if self._kept is None else self._kept.reversed
        )
        if self._kept is None:
            begun = await find_holds_begun_before(self._rows, tellings, self.holds.known)
            self.holds.known |= {hold.hold: hold for hold in begun}
            self.rows_seen += sum(len(hold.lines) for hold in begun)
        told_by = {event.sequence: told for event, told in tellings}
        for event in events:
            self._follow(event, told_by.get(event.sequence))
        if self._kept is not None and len(self.holds.ended) >= ENDED_PAGE:
            await verify_ended_holds(self._rows, self._findings, self.holds.drop_ended())

    def _follow(self, event: Row[Any], told: Sequence[Told] | None) -> None:
        """Take what an event changes, each after the one before it."""
        self.holds.follow(event, told)
        if event.account_id is not None:
            self.touched.add(event.account_id)
            self.configured[event.account_id] = event.sequence
        if self._kept is not None:
            for account_id, account in self._kept.take(event, told):
                where = f"event {event.sequence}, account {account_id}"
                self._findings.see("limits_hold", account.within_limits, where)

    async def _verify_entries(self, tellings: Tellings) -> None:
        sides = [(event, side) for event, told in tellings for side in make_sides(event.kind, told)]
        found = await self._rows.read(
            SIDES,
            accounts=[side.account_id for _, side in sides],
            versions=[side.version for _, side in sides],
            effectives=[event.effective_at for event, _ in sides],
        )
        self.rows_seen += len(sides)
        sums: dict[int, dict[str, list[int]]] = {event.sequence: {} for event, _ in tellings}
        strange: set[int] = set()
        for (event, side), entry in zip(sides, found, strict=True):
            self.touched.add(side.account_id)
            where = f"entry {side.version} of account {side.account_id}, event {event.sequence}"
            wanted = (event.sequence, side.debit, str(side.posted), str(side.pending))
            same = wanted == (entry.sequence, entry.debit, entry.posted, entry.pending)
            self._findings.see("postings_have_entries", same, where)
            if entry.sequence is None:
                continue
            sign = 1 if entry.debit else -1
            total = sums[event.sequence].setdefault(entry.asset, [0, 0])
            total[0] += sign * int(entry.posted)
            total[1] += sign * int(entry.pending)
            if entry.asset != entry.account_asset:
                strange.add(event.sequence)
            self._verify_entry(event.effective_at, side.version, entry, where)
        for sequence, totals in sums.items():
            holds = sequence not in strange and all(total == [0, 0] for total in totals.values())
            self._findings.see("entries_sum_to_zero", holds, f"event {sequence}")

    def _verify_entry(self, effective_at: datetime, version: int, entry: Row[Any], where: str) -> None:
        """An entry against the one before it in its account. One that posts nothing has no effective time."""
        posted = int(entry.posted)
        raised = posted if entry.debit == (entry.normal_side == "debit") else -posted
        former = 0 if version == 1 else entry.former_balance
        runs = former is not None and int(entry.balance) == int(former) + raised
        self._findings.see("balances_run", runs, where)
        seen = entry.former_latest or EARLIEST
        latest = max(seen, effective_at) if posted else seen
        self._findings.see("latest_effective_runs", entry.latest_effective == latest, where)
        late = str(raised) if posted and effective_at < seen else None
        self._findings.see("late_entries_match", entry.late_amount == late, where)


def _take_page(rows: Sequence[Row[Any]]) -> Sequence[Row[Any]]:
    """The first of the rows, as many as the bytes of postings of a page allow; at least one, if there is any."""
    size = 0
    for place, row in enumerate(rows):
        size += len(row.postings or "")
        if size > POSTINGS_BYTES_PAGE and place:
            return rows[:place]
    return rows

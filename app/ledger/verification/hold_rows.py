"""The rows of holds and of their lines, against what the log makes of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import Row, text

from app.ledger.verification.bits import Bits
from app.ledger.verification.checks import Findings
from app.ledger.verification.holds import Hold
from app.ledger.verification.postings import ENDED_AS, read_postings
from app.ledger.verification.rows import Rows

# How many lines of holds are read at once, and how many events that came meanwhile.
LINES_PAGE = 1_000
LATER_PAGE = 50
STRAYS_PAGE = 5_000

# Rows of holds with their lines, 'line debit_id credit_id held captured released ended' joined by ';', and where the
# log stands: one statement, so one snapshot.
HOLDS = text("""
select h.hold, h.status, h.expires_at, h.lines, l.said, (select sequence from heads where ledger_id = :ledger) as head
  from unnest(cast(:holds as bigint[])) with ordinality as u (hold, place)
  left join lateral (select * from holds x where x.ledger_id = :ledger and x.hold = u.hold offset 0) h on true
  left join lateral (
       select string_agg(concat_ws(' ', line, debit_id, credit_id, held, captured, released, ended::int), ';'
                         order by line) as said
         from hold_lines x where x.ledger_id = :ledger and x.hold = u.hold offset 0) l on true
 order by u.place
""")
LATER = text("""
select sequence, kind, postings, subject from events
 where ledger_id = :ledger and sequence > :after and sequence <= :upto order by sequence limit :count
""")
HOLD_IDS = text("""
select hold from holds where ledger_id = :ledger and hold > :after and hold <= :upto order by hold limit :count
""")
LINE_HOLD_IDS = text("""
select distinct hold from hold_lines where ledger_id = :ledger and hold > :after and hold <= :upto
 order by hold limit :count
""")


async def verify_ended_holds(rows: Rows, findings: Findings, holds: Sequence[Hold]) -> None:
    """The rows of holds that ended as far as the log was read: an ended hold stays as it ended."""
    for portion in _portion(holds):
        for hold, row in zip(portion, await _read_holds(rows, portion), strict=True):
            _verify_hold(findings, hold, row, exact=True)


async def verify_live_holds(rows: Rows, findings: Findings, live: dict[int, Hold], upto: int) -> AsyncIterator[int]:
    """The rows of holds that were live when the log had come so far, giving how far this has come. What became of
    them since is taken from the events up to the snapshot that the rows were read in."""
    for portion in _portion([live[hold] for hold in sorted(live)]):
        found = await _read_holds(rows, portion)
        await _catch_up(rows, live, upto, found[0].head)
        upto = found[0].head
        for hold, row in zip(portion, found, strict=True):
            _verify_hold(findings, hold, row, exact=True)
        yield portion[-1].hold


async def verify_touched_holds(rows: Rows, findings: Findings, holds: Iterable[Hold]) -> None:
    """The rows of holds that a range of the log touches: exactly, where a hold began and ended within the range;
    of the others what they hold, and that no less has become of them than the range says."""
    for portion in _portion(holds):
        for hold, row in zip(portion, await _read_holds(rows, portion), strict=True):
            _verify_hold(findings, hold, row, exact=hold.known_from_start and hold.status != "pending")


async def verify_no_strays(rows: Rows, findings: Findings, held: Bits, upto: int) -> None:
    """No hold, and no line of one, that the log as far as it was read does not know."""
    for query, what in ((HOLD_IDS, "hold"), (LINE_HOLD_IDS, "lines of hold")):
        after = -(2**63)
        while found := await rows.read(query, after=after, upto=upto, count=STRAYS_PAGE):
            for row in found:
                if row.hold not in held:
                    findings.see("holds_are_fold_of_events", False, f"{what} {row.hold}, which the log does not know")
            after = found[-1].hold


async def _read_holds(rows: Rows, holds: Sequence[Hold]) -> Sequence[Row[Any]]:
    return await rows.read(HOLDS, holds=[hold.hold for hold in holds])


async def _catch_up(rows: Rows, live: dict[int, Hold], after: int, upto: int) -> None:
    while events := await rows.read(LATER, after=after, upto=upto, count=LATER_PAGE):
        for event in events:
            hold = live.get(event.subject) if event.kind in ENDED_AS else None
            if hold is not None and hold.status == "pending":
                hold.take(event.kind, read_postings(event.kind, event.postings or "") or [])
        after = events[-1].sequence


def _verify_hold(findings: Findings, hold: Hold, row: Row[Any], *, exact: bool) -> None:
    where = f"hold {hold.hold}"
    if row.hold is None:
        findings.see("holds_are_fold_of_events", False, f"{where}, of which there is no row")
        return
    lines = [tuple(map(int, line.split(" "))) for line in (row.said or "").split(";") if line]
    same = (row.expires_at, row.lines) == (hold.expires_at, len(hold.lines))
    same = same and len(lines) == len(hold.lines) and (row.status == hold.status or not (exact or _is_ended(hold)))
    for place, (line, found) in enumerate(zip(hold.lines, lines, strict=False)):
        number, debit_id, credit_id, held, captured, released, ended = found
        same = same and (number, debit_id, credit_id, held) == (place, line.debit_id, line.credit_id, line.held)
        if exact:
            same = same and (captured, released) == (line.captured, line.released)
        else:
            same = same and captured >= line.captured and released >= line.released
        # A line ends with its hold, and then leaves nothing.
        same = same and bool(ended) == (row.status != "pending")
        within = captured + released == held if ended else captured + released <= held
        findings.see("captured_and_released_within_held", within, f"{where}, line {number}")
    findings.see("holds_are_fold_of_events", same, where)


def _is_ended(hold: Hold) -> bool:
    return hold.status != "pending"


def _portion(holds: Iterable[Hold]) -> Iterator[list[Hold]]:
    """The holds in portions of about a page of lines."""
    portion: list[Hold] = []
    size = 0
    for hold in holds:
        portion.append(hold)
        size += len(hold.lines)
        if size >= LINES_PAGE:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion

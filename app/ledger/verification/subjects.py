"""What an event is about: the transaction that it reverses, or the hold that it captures, voids or expires."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, text

from app.ledger.verification.bits import Bits
from app.ledger.verification.checks import Findings
from app.ledger.verification.holds import Hold
from app.ledger.verification.postings import ENDED_AS, HELD, REVERSED, REVERSIBLE, Told, read_postings
from app.ledger.verification.rows import Rows

# Each may have 500 postings, however few its reversal or its capture has.
SUBJECTS_PAGE = 20

SUBJECTS = text("""
select x.sequence, x.kind, x.postings, x.expires_at, r.sequence as first_reversal
  from unnest(cast(:sequences as bigint[])) as u (sequence)
 cross join lateral (select * from events x where x.ledger_id = :ledger and x.sequence = u.sequence offset 0) x
  left join lateral (
       select sequence from events r
        where :reversals and r.ledger_id = :ledger and r.kind = 'transaction_reversed' and r.subject = u.sequence
        order by r.sequence limit 1) r on true
""")

Tellings = Sequence[tuple[Row[Any], Sequence[Told]]]


async def verify_reversals(rows: Rows, findings: Findings, tellings: Tellings, reversed_before: Bits | None) -> None:
    """Each reversal against what it reverses, which no other may reverse: none of those that the log has shown
    before or, where a range is verified, none that the index of reversals knows."""
    reversals = [(event, told) for event, told in tellings if event.kind == REVERSED]
    for place in range(0, len(reversals), SUBJECTS_PAGE):
        some = reversals[place : place + SUBJECTS_PAGE]
        subjects = await _read_subjects(rows, [event.subject for event, _ in some], reversals=reversed_before is None)
        for event, told in some:
            where = f"event {event.sequence}, which reverses {event.subject}"
            subject = subjects.get(event.subject)
            if subject is None or subject.sequence >= event.sequence:
                findings.see("reversals_mirror", False, f"{where}, which was not before it")
                continue
            findings.see("reversals_mirror", _mirrors(told, subject), where)
            if reversed_before is None:
                first = subject.first_reversal == event.sequence
            else:
                first = subject.sequence not in reversed_before
                reversed_before.add(subject.sequence)
            findings.see("one_reversal_each", first, where)


async def find_holds_begun_before(rows: Rows, tellings: Tellings, known: dict[int, Hold]) -> list[Hold]:
    """The holds that these events are about and that are not known yet, as they were when they were recorded."""
    held_here = {event.sequence for event, _ in tellings if event.kind == HELD}
    named = {event.subject for event, _ in tellings if event.kind in ENDED_AS and event.subject is not None}
    lacking = sorted(named - held_here - known.keys())
    found: list[Hold] = []
    for place in range(0, len(lacking), SUBJECTS_PAGE):
        subjects = await _read_subjects(rows, lacking[place : place + SUBJECTS_PAGE], reversals=False)
        for sequence, subject in subjects.items():
            told = read_postings(subject.kind, subject.postings or "") if subject.kind == HELD else None
            if told is not None and sequence < tellings[0][0].sequence:
                found.append(Hold.begin(subject, told, known_from_start=False))
    return found


async def _read_subjects(rows: Rows, sequences: list[int | None], *, reversals: bool) -> dict[int, Row[Any]]:
    return {row.sequence: row for row in await rows.read(SUBJECTS, sequences=sequences, reversals=reversals)}


def _mirrors(told: Sequence[Told], subject: Row[Any]) -> bool:
    if subject.kind not in REVERSIBLE:
        return False
    posted = read_postings(subject.kind, subject.postings or "") or []
    swapped = [(posting.credit_id, posting.debit_id, posting.amount) for posting in posted if posting.amount > 0]
    return swapped == [(posting.debit_id, posting.credit_id, posting.amount) for posting in told]

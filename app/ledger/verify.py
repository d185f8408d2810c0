"""The invariants, recomputed from the rows, while others write.

What is recorded never changes, so the log and its entries up to a sequence may be read page by page, each in a
session of its own: no snapshot lives longer than a page. What does change, the row of an account or of a hold, is
read in one statement with what tells how far it has come: an account with its last entry, a hold with the head.

A range verifies some events, and the accounts and holds that they touch. Of a hold that began before the range or
outlives it, the range does not see everything that became of it, and no index finds the rest: it is seen that its row
holds what its event held, that no less was captured and released than the range says, that this sums to no more than
was held, and to all of it once the hold has ended. That a hold is exactly what all its events make of it is seen of
those that begin and end within the range, and by the whole.

The whole walks the log, the holds, the accounts, the late entries and the keys of a ledger, and rebuilds every account
and every hold from the log alone. It holds a few hundred bytes per account and per live hold in memory, and five bits
per event.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row

from app.ledger import queries
from app.ledger.known_ledgers import LedgerRef
from app.ledger.refusals import SequenceOutOfRange
from app.ledger.verification.accounts import verify_accounts, verify_touched_accounts
from app.ledger.verification.checks import RANGE_CHECKS, WHOLE_CHECKS, Check, Findings
from app.ledger.verification.guards import verify_guards, verify_head
from app.ledger.verification.hold_rows import verify_live_holds, verify_no_strays, verify_touched_holds
from app.ledger.verification.keys import verify_keys
from app.ledger.verification.late_entries import verify_late_entries
from app.ledger.verification.log import Kept, LogWalk
from app.ledger.verification.rows import Rows, Sessions

# A range ends early where it has looked at this many entries and lines of holds.
ROWS_RANGE_MAX = 20_000

# The parts of the whole that progress is told of, in their order.
PARTS = ("events", "holds", "accounts")
Progress = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """What was verified of a ledger whose log had come to `sequence`."""

    ledger: str
    from_sequence: int
    to_sequence: int
    checks: list[Check]
    next_after_sequence: int
    sequence: int


async def verify_range(sessions: Sessions, ledger: str, *, after: int, limit: int) -> VerificationReport:
    """Verify the events after a sequence, so many at most, and the accounts and holds that they touch.

    Raises `LedgerNotFound`, `SequenceOutOfRange` beyond the end of the log, and `StorageUnavailable` if a backup was
    restored meanwhile.
    """
    rows, findings, head = await _begin(sessions, ledger, RANGE_CHECKS)
    last = head.sequence
    if after > last:
        raise SequenceOutOfRange()
    walk = LogWalk(rows, findings)
    reached = after
    async for place in walk.verify(after, min(after + limit, last)):
        reached = place
        if walk.rows_seen >= ROWS_RANGE_MAX:
            break
    walk.holds.verify_live()
    await verify_touched_holds(rows, findings, walk.holds.known.values())
    await verify_touched_accounts(rows, findings, walk.touched, walk.configured, after=after, upto=reached)
    await rows.check_identity()
    return VerificationReport(ledger, after + 1, reached, findings.checks, reached, last)


async def verify_ledger(
    sessions: Sessions, ledger: str, *, progress: Progress = lambda part, done: None
) -> VerificationReport:
    """Verify a ledger as far as its log has come. Raises `LedgerNotFound`, and `StorageUnavailable` if a backup was
    restored meanwhile.

    `progress` is told of each part, how far it has come by sequence.
    """
    rows, findings, head = await _begin(sessions, ledger, WHOLE_CHECKS)
    last = head.sequence
    kept = Kept(findings, last)
    walk = LogWalk(rows, findings, kept)
    async for reached in walk.verify(0, last):
        progress("events", reached)
    kept.periods.verify_head(head.closed_before, last)
    walk.holds.verify_live()
    pending = walk.holds.sum_live()
    async for reached in verify_live_holds(rows, findings, walk.holds.known, last):
        progress("holds", reached)
    await verify_no_strays(rows, findings, kept.held, last)
    async for reached in verify_accounts(rows, findings, kept.accounts, walk.configured, pending, upto=last):
        progress("accounts", min(reached, last))
    await verify_late_entries(rows, findings)
    await verify_keys(rows, findings, kept.present, kept.keyless, last)
    await rows.check_identity()
    return VerificationReport(ledger, 1, last, findings.checks, last, last)


async def _begin(sessions: Sessions, ledger: str, names: Iterable[str]) -> tuple[Rows, Findings, Row[Any]]:
    async with sessions() as session:
        found = await queries.get_head(session, ledger)
    rows = Rows(sessions, LedgerRef(found.ledger_id, found.identity))
    findings = Findings(names)
    head = await verify_head(rows, findings)
    await verify_guards(rows, findings)
    return rows, findings, head

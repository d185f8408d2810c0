"""What the log makes of its holds: each of their lines, rebuilt from what held, captured and released it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row

from app.ledger.verification.checks import Findings
from app.ledger.verification.clocks import EXPIRED_LINES_MAX, Clocks
from app.ledger.verification.postings import CAPTURED, ENDED_AS, EXPIRED, HELD, Told


@dataclass(slots=True)
class Line:
    """One posting of a hold, and what has become of it."""

    debit_id: int
    credit_id: int
    held: int
    captured: int = 0
    released: int = 0

    @property
    def remaining(self) -> int:
        return self.held - self.captured - self.released


@dataclass(slots=True)
class Hold:
    """A hold as the log has it. Of one that began before what was read of the log, only a part is known."""

    hold: int
    expires_at: datetime | None
    lines: list[Line]
    known_from_start: bool
    status: str = "pending"

    @classmethod
    def begin(cls, event: Row[Any], told: Sequence[Told], *, known_from_start: bool) -> Hold:
        lines = [Line(posting.debit_id, posting.credit_id, posting.amount) for posting in told]
        return cls(event.sequence, event.expires_at, lines, known_from_start)

    def take(self, kind: str, told: Sequence[Told]) -> bool:
        """Take what an event says became of it; whether it names lines that there are, each once."""
        named = len({posting.line for posting in told}) == len(told)
        for posting in told:
            line = self.lines[posting.line] if 0 <= posting.line < len(self.lines) else None
            if line is None or (line.debit_id, line.credit_id) != (posting.debit_id, posting.credit_id):
                named = False
                continue
            line.captured += posting.amount
            line.released += posting.released
        # A capture keeps all of what it leaves, or releases it all; what leaves nothing ends the hold.
        released = any(posting.released for posting in told)
        if kind != CAPTURED or released or not any(line.remaining > 0 for line in self.lines):
            self.status = ENDED_AS[kind]
        return named


class HoldsFold:
    """Follows the log. It keeps the holds that are live, and those that have ended until they are dropped."""

    def __init__(self, findings: Findings, recorded_at: datetime) -> None:
        self._findings = findings
        self._clocks = Clocks(recorded_at)
        self.known: dict[int, Hold] = {}
        self.ended: list[Hold] = []

    def follow(self, event: Row[Any], told: Sequence[Told] | None) -> None:
        """Take the next event of the log, and what its postings tell."""
        about = self.known.get(event.subject) if event.kind in ENDED_AS else None
        self._clocks.follow(event, EXPIRED_LINES_MAX if about is None else len(about.lines))
        if told is None:
            return
        if event.kind == HELD:
            self.known[event.sequence] = Hold.begin(event, told, known_from_start=True)
        elif event.kind in ENDED_AS:
            self._take(event, about, told)

    def _take(self, event: Row[Any], hold: Hold | None, told: Sequence[Told]) -> None:
        where = f"event {event.sequence} of hold {event.subject}"
        if hold is None or hold.status != "pending":
            self._findings.see("holds_are_fold_of_events", False, f"{where}, which is not pending")
            return
        self._verify_due(event, hold, where)
        named = hold.take(event.kind, told)
        # Only a capture has an effective time of its own.
        dated = event.kind == CAPTURED or event.effective_at == event.recorded_at
        self._findings.see("holds_are_fold_of_events", named and dated, where)
        ended = hold.status != "pending"
        within = all(posting.amount >= 0 and posting.released >= 0 for posting in told) and all(
            line.remaining >= 0 and not (ended and hold.known_from_start and line.remaining) for line in hold.lines
        )
        self._findings.see("captured_and_released_within_held", within, where)
        if ended:
            self.ended.append(hold)

    def _verify_due(self, event: Row[Any], hold: Hold, where: str) -> None:
        if hold.expires_at is None and event.kind != EXPIRED:
            return
        holds = not self._clocks.have_ended(hold.hold, hold.expires_at)
        if event.kind == EXPIRED:
            due = hold.expires_at is not None and event.recorded_at >= hold.expires_at
            holds = holds and due and event.actor == "system"
        self._findings.see("expired_when_due", holds, where)

    def drop_ended(self) -> list[Hold]:
        """Those that have ended since the last time; what the log says of them later is said of no hold."""
        ended, self.ended = self.ended, []
        for hold in ended:
            del self.known[hold.hold]
        return ended

    def verify_live(self) -> None:
        """See that none that is live, as far as the log was followed, should have ended."""
        for hold in self.known.values():
            if hold.expires_at is not None and hold.status == "pending" and hold.known_from_start:
                overdue = self._clocks.have_ended(hold.hold, hold.expires_at)
                self._findings.see("expired_when_due", not overdue, f"hold {hold.hold}")

    def sum_live(self) -> dict[int, list[int]]:
        """What the live holds keep pending of each account, debits and credits."""
        kept: dict[int, list[int]] = {}
        for hold in self.known.values():
            for line in hold.lines:
                kept.setdefault(line.debit_id, [0, 0])[0] += line.remaining
                kept.setdefault(line.credit_id, [0, 0])[1] += line.remaining
        return kept

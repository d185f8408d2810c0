"""That nothing is recorded into closed books: every closing and reopening, replayed over the log."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row

from app.ledger.verification.checks import Findings

# The events whose effective time may not lie in closed books. What releases a hold may always happen.
DATED_KINDS = ("transaction_posted", "transaction_held", "transaction_captured", "transaction_reversed")


class ClosedBooks:
    """Before which instant the books are closed, as far as the log has been read."""

    def __init__(self, findings: Findings) -> None:
        self._findings = findings
        self._closed_before: datetime | None = None

    def follow(self, event: Row[Any]) -> None:
        """Hold an event against the instant that the books were closed before when it was recorded."""
        if event.kind in ("period_closed", "period_reopened"):
            said = event.configuration["closed_before"]
            self._closed_before = None if said is None else datetime.fromisoformat(said)
        elif event.kind in DATED_KINDS:
            holds = self._closed_before is None or event.effective_at >= self._closed_before
            self._findings.see("closed_periods_hold", holds, f"event {event.sequence}")

    def verify_head(self, closed_before: datetime | None, sequence: int) -> None:
        self._findings.see("closed_periods_hold", closed_before == self._closed_before, f"head at {sequence}")

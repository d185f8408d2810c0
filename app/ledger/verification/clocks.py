"""What the log itself proves of the clocks that its batches were decided by."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row

from app.ledger.values import EARLIEST
from app.ledger.verification.postings import EXPIRED

# A batch expires so many holds at most, of about so many lines. One that wrote fewer has written all that were due.
EXPIRIES_MAX = 1_000
EXPIRED_LINES_MAX = 2_000


class Clocks:
    """Follows the log, and says which holds must have ended by now.

    A time recorded is the later of the batch's clock and the time recorded before, so it may be ahead of the clock,
    and a capture recorded after its hold's time need not be wrong. But where the time rises, the event is the first
    of its batch, and the time is that batch's clock. Such a batch first wrote the expiry of every hold that was due
    by that clock, unless those were so many that it wrote nothing else. So once anything else is recorded at that
    time, no hold recorded before the rise and due by then is live any more: whoever captures, voids or expires one
    later relied on an expiry that was not written. Only this is claimed, since only this is always true.
    """

    def __init__(self, recorded_at: datetime) -> None:
        self._recorded_at = recorded_at
        self._risen_at = 0
        self._expiries = self._expired_lines = 0
        self._settled_before, self._settled_at = 0, EARLIEST

    def follow(self, event: Row[Any], lines: int) -> None:
        """Take the next event; of an expiry, how many lines its hold has."""
        if event.recorded_at > self._recorded_at:
            self._recorded_at, self._risen_at = event.recorded_at, event.sequence
            self._expiries = self._expired_lines = 0
        if event.kind == EXPIRED:
            self._expiries += 1
            self._expired_lines += lines
        elif self._expiries < EXPIRIES_MAX and self._expired_lines < EXPIRED_LINES_MAX:
            self._settled_before, self._settled_at = self._risen_at, self._recorded_at

    def have_ended(self, hold: int, expires_at: datetime | None) -> bool:
        """Whether such a hold must have ended before the event that was followed last."""
        return expires_at is not None and hold < self._settled_before and expires_at <= self._settled_at

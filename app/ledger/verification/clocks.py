"""What the log itself proves of the clocks that its batches were decided by."""

from datetime import datetime
from typing import Any

from sqlalchemy import Row

from app.ledger.values import EARLIEST
from app.ledger.verification.postings import EXPIRED

# A batch with fewer expiries than this has written all that were due.
EXPIRIES_MAX = 1_000


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
        self._expiries = 0
        self._settled_before, self._settled_at = 0, EARLIEST

    def follow(self, event: Row[Any]) -> None:
        if event.recorded_at > self._recorded_at:
            self._recorded_at, self._risen_at, self._expiries = event.recorded_at, event.sequence, 0
        if event.kind == EXPIRED:
            self._expiries += 1
        elif self._expiries < EXPIRIES_MAX:
            self._settled_before, self._settled_at = self._risen_at, self._recorded_at

    def have_ended(self, hold: int, expires_at: datetime | None) -> bool:
        """Whether such a hold must have ended before the event that was followed last."""
        return expires_at is not None and hold < self._settled_before and expires_at <= self._settled_at

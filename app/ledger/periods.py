"""The rules of periods: the books are closed before an instant, and reopened. As pure as the other rules."""

from datetime import datetime

from app.ledger.book import Book
from app.ledger.commands import ClosePeriod, ReopenPeriod
from app.ledger.refusals import PeriodClosed, TimeOutOfRange
from app.ledger.values import EARLIEST, Decision, PeriodEvent


def close_period(command: ClosePeriod, book: Book, *, now: datetime, actor: str) -> Decision:
    """Close the books before an instant, which only moves forward this way and never lies in the future: so what
    takes its recorded time for its effective time is never refused."""
    if not EARLIEST <= command.before <= now:
        raise TimeOutOfRange(pointer="/before")
    if book.closed_before is not None and command.before <= book.closed_before:
        raise TimeOutOfRange(pointer="/before")
    return _period("period_closed", command.before, command.reason, book, now=now, actor=actor)


def reopen_period(command: ReopenPeriod, book: Book, *, now: datetime, actor: str) -> Decision:
    """Move the instant that the books are closed before back to an earlier one, or away."""
    if book.closed_before is None:
        raise TimeOutOfRange(pointer="/before")
    if command.before is not None and not EARLIEST <= command.before < book.closed_before:
        raise TimeOutOfRange(pointer="/before")
    return _period("period_reopened", command.before, command.reason, book, now=now, actor=actor)


def check_period(effective_at: datetime | None, book: Book) -> None:
    """Refuse an effective time in closed books. None stands for the recorded time, which they cannot hold."""
    if effective_at is not None and book.closed_before is not None and effective_at < book.closed_before:
        raise PeriodClosed(pointer="/effective_at")


def _period(
    kind: str, closed_before: datetime | None, reason: str, book: Book, *, now: datetime, actor: str
) -> Decision:
    return Decision(
        PeriodEvent(
            sequence=book.next_sequence,
            kind=kind,
            recorded_at=book.recording_time(now),
            actor=actor,
            closed_before=closed_before,
            description=reason,
            metadata={},
        )
    )

"""What the log proves of the clocks behind it: which holds must have ended, and no more than that."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from app.ledger.book import READ_WITH_HOLDS
from app.ledger.verification.clocks import EXPIRED_LINES_MAX, EXPIRIES_MAX, Clocks

START = datetime(2026, 1, 1, tzinfo=UTC)
DUE = START + timedelta(seconds=5)


def follow(events: Iterable[tuple[str, float, int]]) -> Clocks:
    """The clocks after events of a kind, at a second, about a hold of so many lines; hold 1 was recorded before."""
    clocks = Clocks(START)
    for sequence, (kind, second, lines) in enumerate(events, start=2):
        recorded_at = START + timedelta(seconds=second)
        clocks.follow(SimpleNamespace(sequence=sequence, kind=kind, recorded_at=recorded_at), lines)
    return clocks


POSTED, EXPIRED = "transaction_posted", "transaction_expired"


@pytest.mark.parametrize(
    ("events", "ended"),
    [
        ([(POSTED, 4, 0)], False),
        ([(POSTED, 5, 0)], True),
        # The time of the log did not rise: its clock may have been behind.
        ([(POSTED, 0, 0)], False),
        # Other holds expire first, and in the same batch this one has to.
        ([(EXPIRED, 5, 1)], False),
        ([(EXPIRED, 5, 1), (POSTED, 5, 0)], True),
        ([(EXPIRED, 4, 1), (POSTED, 4, 0)], False),
        # Unless more were due than a batch takes.
        ([(EXPIRED, 5, 1)] * 999 + [(POSTED, 5, 0)], True),
        ([(EXPIRED, 5, 1)] * 1000 + [(POSTED, 5, 0)], False),
        ([(EXPIRED, 5, 500)] * 3 + [(POSTED, 5, 0)], True),
        ([(EXPIRED, 5, 500)] * 4 + [(POSTED, 5, 0)], False),
        ([(EXPIRED, 5, 500)] * 4 + [(POSTED, 6, 0)], True),
        # What was proved stays proved.
        ([(POSTED, 5, 0), *[(EXPIRED, 5, 500)] * 4, (POSTED, 5, 0)], True),
    ],
)
def test_a_hold_has_ended_once_a_clock_has_come_to_its_time(events, ended):
    assert ended == follow(events).have_ended(1, DUE)


def test_a_batch_expires_as_many_as_is_counted_on():
    assert f"limit {EXPIRIES_MAX})" in READ_WITH_HOLDS
    assert f"so_far - lines < {EXPIRED_LINES_MAX}\n" in READ_WITH_HOLDS


def test_a_hold_that_never_expires_need_not_end():
    assert not follow([(POSTED, 9, 0)]).have_ended(1, None)


def test_nothing_is_said_of_a_hold_recorded_since():
    """By a clock that was behind, it may have been recorded after its time."""
    assert not follow([(POSTED, 9, 0), ("transaction_held", 9, 0)]).have_ended(3, DUE)
    assert follow([(POSTED, 9, 0), ("transaction_held", 9, 0), (POSTED, 10, 0)]).have_ended(3, DUE)

"""What the postings of an event say, and what entries that makes."""

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

HELD = "transaction_held"
CAPTURED = "transaction_captured"
EXPIRED = "transaction_expired"
REVERSED = "transaction_reversed"
# What becomes of a hold by each kind of event that is about one, if the event ends it.
ENDED_AS = {CAPTURED: "captured", "transaction_voided": "voided", EXPIRED: "expired"}
# What can be reversed.
REVERSIBLE = ("transaction_posted", CAPTURED)


class Told(NamedTuple):
    """One posting, as its event tells of it. What it released, and of which line of the hold, only where it is
    about a hold."""

    debit_id: int
    debit_version: int
    credit_id: int
    credit_version: int
    amount: int
    released: int = 0
    line: int = 0


class Side(NamedTuple):
    """The entry that one side of a posting makes."""

    account_id: int
    version: int
    debit: bool
    posted: int
    pending: int


def read_postings(kind: str, postings: str) -> list[Told] | None:
    """What an event of this kind tells of its postings; None if nobody knows what such postings say."""
    if kind in ("transaction_posted", HELD, REVERSED):
        spaces = 4
    elif kind in ENDED_AS:
        spaces = 6
    else:
        return None
    said = postings.split(";")
    if any(posting.count(" ") != spaces for posting in said):
        return None
    with suppress(ValueError):
        return [Told(*map(int, posting.split(" "))) for posting in said]
    return None


def make_sides(kind: str, told: Sequence[Told]) -> list[Side]:
    """The entries that these postings make: a hold leaves pending what the others post or release of it."""
    sides: list[Side] = []
    for debit_id, debit_version, credit_id, credit_version, amount, released, _ in told:
        if kind == HELD:
            posted, pending = 0, amount
        elif kind in ENDED_AS:
            posted, pending = amount, -(amount + released)
        else:
            posted, pending = amount, 0
        sides.append(Side(debit_id, debit_version, True, posted, pending))
        sides.append(Side(credit_id, credit_version, False, posted, pending))
    return sides

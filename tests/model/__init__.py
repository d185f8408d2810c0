"""The same ledger in memory: the executable specification that the service is compared with.

Deliberately simple, and it shares nothing with the service: plain dicts and ints, one request after the other, no
database. Requests and answers are what openapi.yaml says they are, except that instants in answers are datetimes
(one instant has several spellings), that a refusal holds only what a program may rely on (no title, no detail),
and that a list is answered as everything that is left of it: how it is cut into pages is not the model's matter.

Requests are taken to be of the contract's form. The static refusals that a test of behaviour can stumble upon are
answered all the same: a write without a key, a posting from an account to itself, an expiry of what is no hold, and
a posting of a hold that is captured twice at once.

A hold expires by the clock alone, and its expiry is recorded before anything is decided on its ledger, and before
anything present is read of it. The service also records what is due when nobody asks; whoever compares the two reads
something present of each ledger after he has moved the clock.

Nothing is recorded after an event that was recorded more than a minute ahead of the clock: then a write is
`clock_skewed` unless its key was used before. No hold is due then: what moved the log so far had expired all that was
due by it.
"""

from datetime import datetime

from tests.model.book import AMOUNT_MAX, Answer, Body, Book, instant, ledger_in_force
from tests.model.reads import Reads
from tests.model.words import in_plain
from tests.model.writes import Writes


class Model(Writes, Reads):
    """The service, as its callers see it. `now` is its clock, which belongs to the test."""

    def __init__(self, now: datetime, actor: str = "operator") -> None:
        self.now = now
        self.actor = actor
        self.books: dict[str, Book] = {}


__all__ = ["AMOUNT_MAX", "Answer", "Body", "Book", "Model", "in_plain", "instant", "ledger_in_force"]

"""What a ledger is made of: its log, and what follows from it."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

AMOUNT_MAX = 10**38 - 1
AHEAD_MAX = timedelta(seconds=60)
RECORDED_AHEAD_MAX = timedelta(seconds=60)
EFFECTIVE_MIN = datetime(1900, 1, 1, tzinfo=UTC)
COUNTERS = ("debits_posted", "credits_posted", "debits_pending", "credits_pending")

type Body = dict[str, Any]
type Counters = dict[str, int]


@dataclass(frozen=True)
class Answer:
    """What a caller gets to see of one request."""

    status: int
    body: Body
    replayed: bool = False


class Refused(Exception):
    """The request is refused; unless it was told apart from the ledger's state, the refusal is frozen."""

    def __init__(self, status: int, code: str, **fields: Any) -> None:
        self.answer = Answer(status, {"status": status, "code": code, **fields})


@dataclass
class Account:
    """An account; its configuration in force takes the place of the one that it was opened with."""

    opened: Body
    since: int
    counters: Counters = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0))
    # How many entries it has; of them only what was posted is a line of its statement.
    version: int = 0
    statement: list[Body] = field(default_factory=list)
    latest_effective: datetime | None = None

    def in_its_sense(self, *, debits: int, credits: int) -> int:
        """What so many debits and credits make in the account's normal sense."""
        return debits - credits if self.opened["normal_side"] == "debit" else credits - debits

    def posted(self, counters: Counters | None = None) -> int:
        """The posted balance; of these counters, if they are not its own."""
        now = counters or self.counters
        return self.in_its_sense(debits=now["debits_posted"], credits=now["credits_posted"])

    def available(self, counters: Counters | None = None) -> int:
        """What is posted, less all that holds may yet take: what the minimum bounds."""
        now = counters or self.counters
        lowering = "credits_pending" if self.opened["normal_side"] == "debit" else "debits_pending"
        return self.posted(now) - now[lowering]

    def expected(self, counters: Counters | None = None) -> int:
        """What is posted, and all that holds may yet bring: what the maximum bounds."""
        now = counters or self.counters
        raising = "debits_pending" if self.opened["normal_side"] == "debit" else "credits_pending"
        return self.posted(now) + now[raising]


@dataclass(frozen=True)
class Line:
    """What one posting of a transaction adds to both of its accounts, before it is recorded."""

    debit_account: str
    credit_account: str
    posted: int = 0
    pending: int = 0
    released: int = 0
    hold_posting: int | None = None


@dataclass
class Hold:
    """A transaction that was held, and what has become of each of its postings."""

    transaction: Body
    captured: list[int]
    released: list[int]
    status: str = "pending"

    def held(self, number: int) -> int:
        return int(self.transaction["postings"][number]["amount"])

    def remaining(self, number: int) -> int:
        return self.held(number) - self.captured[number] - self.released[number]

    @property
    def numbers(self) -> range:
        """The numbers of its postings."""
        return range(len(self.transaction["postings"]))

    @property
    def live(self) -> list[int]:
        """The numbers of the postings of which something is still held."""
        return [number for number in self.numbers if self.remaining(number)]

    def is_due(self, now: datetime) -> bool:
        expires_at = self.transaction["expires_at"]
        return self.status == "pending" and expires_at is not None and expires_at <= now


@dataclass
class Book:
    """One ledger: its log, and what follows from it."""

    events: list[Body] = field(default_factory=list)
    accounts: dict[str, Account] = field(default_factory=dict)
    holds: dict[int, Hold] = field(default_factory=dict)
    references: set[str] = field(default_factory=set)
    keys: dict[str, tuple[str, Answer]] = field(default_factory=dict)

    @property
    def sequence(self) -> int:
        return len(self.events)

    def record(self, kind: str, now: datetime, actor: str) -> Body:
        """The next event of the log, stamped with a time that never falls along it."""
        last = self.events[-1]["recorded_at"] if self.events else now
        return {
            "sequence": self.sequence + 1,
            "kind": kind,
            "recorded_at": max(now, last),
            "actor": actor,
        }

    def is_ahead(self, now: datetime) -> bool:
        """Whether the last event was recorded so far ahead of the clock that nothing is recorded after it."""
        return bool(self.events) and self.events[-1]["recorded_at"] - now > RECORDED_AHEAD_MAX

    def transaction(self, sequence: int) -> Body:
        """The transaction with this sequence, which no other kind of event is."""
        event = self.events[sequence - 1] if 0 < sequence <= len(self.events) else {}
        if "transaction" not in event:
            raise Refused(404, "transaction_not_found")
        return event["transaction"]


def ledger_in_force(book: Book) -> Body:
    return [event["ledger"] for event in book.events if "ledger" in event][-1]


def closed_before(book: Book) -> datetime | None:
    """The instant that the books are closed before, which is what the last word on it says."""
    periods = [event["period"] for event in book.events if "period" in event]
    return periods[-1]["closed_before"] if periods else None


def transactions(book: Book) -> list[Body]:
    return [event["transaction"] for event in book.events if "transaction" in event]


def reversal_of(book: Book, sequence: int) -> int | None:
    return next((each["sequence"] for each in transactions(book) if each["reverses"] == sequence), None)


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)

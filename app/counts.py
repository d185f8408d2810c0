"""What the process has done, in plain numbers.

Whoever counts is on the one event loop of the process, so nothing here takes a lock, and counting costs well under a
microsecond. What Prometheus wants to hear is made of it when it asks (app/metrics.py). Nothing that a customer named
is kept here, but for the ledgers that the feed's consumers asked about, which are not shown.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from heapq import nlargest
from time import monotonic, perf_counter

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SUBMISSIONS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_000)
ENTRIES = (0, 2, 8, 32, 128, 512, 2_000, 6_000)
EVENTS_BEHIND = (0, 1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)

# Whoever has not asked the feed for so long is no consumer of this process any more.
CONSUMER_SECONDS = 60.0
CONSUMERS_KEPT_MAX = 10_000
CONSUMERS_SHOWN_MAX = 100


class Distribution:
    """How many values lay at or below each bound, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class RequestCounts:
    """What was asked, by operation of the contract, and what became of it."""

    def __init__(self, operations: Iterable[str]) -> None:
        self.operations = tuple(operations)
        # By operation, status and code of the refusal. All three are words of the contract: their number is bounded.
        self.answers: dict[tuple[str, int, str], int] = {}
        self.seconds: dict[str, Distribution] = {}

    def add(self, operation: str, status: int, code: str, seconds: float) -> None:
        answer = operation, status, code
        self.answers[answer] = self.answers.get(answer, 0) + 1
        try:
            self.seconds[operation].add(seconds)
        except KeyError:
            self.seconds[operation] = Distribution(SECONDS)
            self.seconds[operation].add(seconds)


@dataclass(eq=False, slots=True)
class BatchWork:
    """What one batch took, over all its tries."""

    number: int
    began: float = field(default_factory=perf_counter)
    elapsed: float = 0.0
    seconds: dict[str, float] = field(default_factory=dict)
    # The kinds of the events that were sent last, and how many entries with them: counted once they are committed.
    written: Sequence[str] = ()
    entries_written: int = 0
    events: int = 0
    entries: int = 0
    outcome: str = "committed"


class WriterCounts:
    """What the batches of the writer came to, and where they spent their time."""

    # WRITE commits by itself, so `write` includes the flush; only a try behind the head's lock has a `commit` apart.
    STAGES = ("lock", "read", "decide", "write", "commit")
    OUTCOMES = ("committed", "refused", "failed", "halved")

    def __init__(self) -> None:
        self.submissions = Distribution(SUBMISSIONS)
        self.entries = Distribution(ENTRIES)
        self.seconds = {stage: Distribution(SECONDS) for stage in self.STAGES}
        self.outcomes = dict.fromkeys(self.OUTCOMES, 0)
        self.races_lost = 0
        self.interrupted = 0
        # By kind; `transaction_expired` are the expiries.
        self.events: dict[str, int] = {}

    def took(self, work: BatchWork, stage: str, seconds: float) -> None:
        self.seconds[stage].add(seconds)
        work.seconds[stage] = work.seconds.get(stage, 0.0) + seconds

    def committed(self, work: BatchWork) -> None:
        for kind in work.written:
            self.events[kind] = self.events.get(kind, 0) + 1
        work.events += len(work.written)
        work.entries += work.entries_written
        work.written, work.entries_written = (), 0

    def end(self, work: BatchWork, submissions: int) -> None:
        work.elapsed = perf_counter() - work.began
        self.outcomes[work.outcome] += 1
        self.submissions.add(submissions)
        self.entries.add(work.entries)


class FeedCounts:
    """How far behind the end of the log those are who follow it: a consumer has no name but that of its key, and says
    where it is by where it asks on from."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.behind = Distribution(EVENTS_BEHIND)
        self._clock = clock
        # By key and ledger, the one that asked last at the end.
        self._asked: dict[tuple[str, str], tuple[int, float]] = {}

    def asked(self, consumer: str, ledger: str, *, behind: int) -> None:
        self.behind.add(behind)
        self._asked.pop((consumer, ledger), None)
        self._asked[consumer, ledger] = behind, self._clock()
        if len(self._asked) > CONSUMERS_KEPT_MAX:
            del self._asked[next(iter(self._asked))]

    def consumers(self) -> dict[str, int]:
        """Of each consumer that asked within the last minute, how far it was behind in the ledger where it was
        farthest; if they are many, of those that are farthest behind."""
        since = self._clock() - CONSUMER_SECONDS
        found: dict[str, int] = {}
        for (consumer, _), (behind, asked) in self._asked.items():
            if asked >= since:
                found[consumer] = max(behind, found.get(consumer, 0))
        return dict(nlargest(CONSUMERS_SHOWN_MAX, found.items(), key=lambda each: each[1]))


class VerificationCounts:
    """What `verifyLedger` found in this process."""

    def __init__(self) -> None:
        self.runs = 0
        self.events = 0
        self.last_run = 0.0
        self.checked: dict[str, int] = {}
        self.offenders: dict[str, int] = {}

    def add(self, found: dict[str, tuple[int, int]], *, events: int, at: float) -> None:
        """A run, with how much each check looked at and how many offenders it found."""
        self.runs += 1
        self.events += events
        self.last_run = at
        for check, (checked, offenders) in found.items():
            self.checked[check] = self.checked.get(check, 0) + checked
            self.offenders[check] = self.offenders.get(check, 0) + offenders

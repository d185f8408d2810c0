"""What waits to be written: submissions, what they are answered with, and the queue of one ledger."""

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from time import perf_counter

from app.ledger.commands import Command, PostBatch
from app.ledger.known_ledgers import LedgerRef, LedgerReplaced
from app.ledger.refusals import Refusal
from app.ledger.scopes import EVERYTHING, Scope
from app.ledger.values import Event

# The key of `createLedger`, whose name is its key. No client can send it: an empty key is refused at the edge.
CREATION_KEY = b""

BATCH_SUBMISSIONS_MAX = 1_000
BATCH_WEIGHT_MAX = 4_000
QUEUE_WEIGHT_MAX = 20_000


@dataclass(frozen=True, slots=True)
class Receipt:
    """A committed effect: its event, as it was at its own sequence, and whether it is a first answer given again.

    Of a batch of transactions, what became of each, in order.
    """

    results: tuple[Event | Refusal, ...]
    replayed: bool

    @property
    def event(self) -> Event:
        (event,) = self.results
        assert not isinstance(event, Refusal)  # noqa: S101
        return event


@dataclass(frozen=True, slots=True)
class Recorded:
    """An effect that an earlier commit made: so many events from `first` on, and refusals by their place."""

    first: int
    count: int
    refusals: dict[int, Refusal]

    def with_events(self, events: Sequence[Event]) -> Receipt:
        remaining = iter(events)
        places = range(self.count + len(self.refusals))
        return Receipt(tuple(self.refusals.get(place) or next(remaining) for place in places), replayed=True)


Outcome = Receipt | Recorded | Refusal | LedgerReplaced


@dataclass(eq=False, slots=True)
class Submission:
    """A command with its key and the scope of who asks, on its way through the writer."""

    command: Command
    key: bytes
    fingerprint: bytes
    actor: str
    request_id: str
    scope: Scope = EVERYTHING
    # What a trace calls the request, if it is traced: opaque here.
    trace: object = None
    answer: asyncio.Future[Receipt | Recorded] = field(init=False)

    def settle(self, outcome: Outcome) -> None:
        """Answer who waits for it, unless it has gone or was answered already."""
        if self.answer.done():
            return
        if isinstance(outcome, Refusal | LedgerReplaced):
            self.answer.set_exception(outcome)
        else:
            self.answer.set_result(outcome)


@dataclass(eq=False)
class Queue:
    """What waits for one ledger. Its task lives while there is something."""

    ledger: LedgerRef
    singles: deque[Submission] = field(default_factory=deque)
    batches: deque[Submission] = field(default_factory=deque)
    weight: int = 0
    task: asyncio.Task[None] | None = None
    # The batch that is under way, or the last one that was.
    taken: Sequence[Submission] = ()
    # When the batch under way was taken, or last came to a commit, by the clock of `time.perf_counter`.
    progress_at: float = field(default_factory=perf_counter)
    # Whether the batch before was a caller's: then the single ones that wait meanwhile go first.
    after_batch: bool = False

    @property
    def waiting(self) -> int:
        return len(self.singles) + len(self.batches)

    def _line(self, submission: Submission) -> deque[Submission]:
        return self.batches if isinstance(submission.command, PostBatch) else self.singles

    def put(self, submission: Submission) -> None:
        self._line(submission).append(submission)
        self.weight += submission.command.weight

    def withdraw(self, submission: Submission) -> bool:
        """Take back what no batch has taken yet; False if one has."""
        line = self._line(submission)
        if submission not in line:
            return False
        line.remove(submission)
        self.weight -= submission.command.weight
        return True

    def withdraw_all(self) -> list[Submission]:
        """Take back all that no batch has taken yet."""
        withdrawn = [*self.singles, *self.batches]
        self.singles.clear()
        self.batches.clear()
        self.weight = 0
        return withdrawn

    def take(self) -> list[Submission]:
        """All single commands that wait, within the bounds of a batch; or one caller's batch, which travels by
        itself. They take turns, so that neither keeps the other waiting."""
        self.after_batch = bool(self.batches) and not (self.singles and self.after_batch)
        if self.after_batch:
            batch = [self.batches.popleft()]
        else:
            batch, weight = [], 0
            while self.singles and len(batch) < BATCH_SUBMISSIONS_MAX:
                weight += self.singles[0].command.weight
                if batch and weight > BATCH_WEIGHT_MAX:
                    break
                batch.append(self.singles.popleft())
        self.weight -= sum(submission.command.weight for submission in batch)
        return batch

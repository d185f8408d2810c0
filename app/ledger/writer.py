"""The write path: one queue per ledger, group commit, compare-and-set.

A batch is whatever waits when the one before it has committed: there is no timer. One statement reads, pure rules
decide, one statement writes and commits by itself, then everyone is answered. No lock is held while our code runs,
so a process that stalls, stalls nobody; and a head's revision can be replaced only once, so several processes stay
correct beside each other.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass, field
from datetime import datetime
from time import perf_counter

import sentry_sdk
import structlog
from asyncpg import Connection

from app.counts import BatchWork, WriterCounts
from app.db import Database, is_transient
from app.ledger import queries
from app.ledger.book import Book, KeyRow, read_book
from app.ledger.directory import Directory
from app.ledger.holds import SYSTEM, expire_hold
from app.ledger.journal import write_book
from app.ledger.refusals import (
    BatchRefused,
    BooksRefuse,
    Forbidden,
    IdempotencyKeyReused,
    InternalError,
    LedgerExists,
    LedgerNotFound,
    NotFound,
    OutcomeUnknown,
    Overloaded,
    Refusal,
    ServiceFailed,
    StorageUnavailable,
    freeze,
    thaw,
)
from app.ledger.rules import decide
from app.ledger.scopes import EVERYTHING, Scope, check_command, check_replay, check_subject
from app.ledger.values import Command, CreateLedger, Event, ExpireHolds, PostBatch

log = structlog.get_logger()

# The key of `createLedger`, whose name is its key. No client can send it: an empty key is refused at the edge.
CREATION_KEY = b""

# Waits before the second and later tries of a batch. A stalled holder of the row lock is ended by the server
# within 4 seconds, and a restarted server is back within a few.
BACKOFF_S = (0.0, 0.1, 0.4, 1.0, 2.0)
BATCH_SUBMISSIONS_MAX = 1_000
BATCH_WEIGHT_MAX = 4_000
QUEUE_WEIGHT_MAX = 20_000
# From so many events on, deciding and writing are two turns of the event loop.
LONG_BATCH = 200
# Who comes after so many entries is decided in a batch of its own: how many a capture makes, only the books tell.
BATCH_ENTRIES_MAX = 6_000
# So often a batch may find that more holds are due than it could expire.
EXPIRY_ROUNDS_MAX = 1_000

LOCK = "select 1 from heads where ledger_id = $1 for no key update"


class RaceLost(Exception):
    """Another process replaced the head's revision first; nothing was written."""


class WriteInDoubt(Exception):
    """The connection was lost after a write had been sent: it may have been committed, or not."""


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


Outcome = Receipt | Recorded | Refusal


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


@dataclass(eq=False)
class Queue:
    """What waits for one ledger. Its task lives while there is something."""

    ledger_id: int
    singles: deque[Submission] = field(default_factory=deque)
    batches: deque[Submission] = field(default_factory=deque)
    weight: int = 0
    task: asyncio.Task[None] | None = None
    # The batch that is under way, or the last one that was.
    taken: Sequence[Submission] = ()
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


class LedgerWriter:
    """Carries submissions out, ledger by ledger. One per process, on its event loop."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        *,
        deadline_s: float,
        tell: Callable[[int, int], None] = lambda ledger_id, sequence: None,
        trace: Callable[[BatchWork, Sequence[Submission]], None] | None = None,
    ) -> None:
        self.counts = WriterCounts()
        self._tell = tell
        self._trace = trace
        # The sequence that each ledger's log will have come to when the batch under way is committed.
        self._grown: dict[int, int] = {}
        self._connections = database.writes
        self._directory = Directory(database.writes)
        self._sessions = database.sessions
        self._clock = clock
        self._deadline_s = deadline_s
        self._queues: dict[int, Queue] = {}
        self._batches = itertools.count(1)
        self._given_up = False

    async def submit(self, ledger: str, submission: Submission) -> Receipt:
        """Have one submission decided, recorded and committed in the ledger of this name; return after the commit.

        Raises the refusal that it met: of its scope, of the books, of its key, or of the service (`Overloaded` and
        `StorageUnavailable`: surely without effect; `OutcomeUnknown`: repeat it with the same key).
        """
        check_command(submission.scope, ledger, submission.command)
        receipt = await self._submit(ledger, submission)
        if isinstance(receipt, Recorded):
            async with self._sessions() as session:
                events = await queries.get_events(session, ledger, first=receipt.first, count=receipt.count)
            receipt = receipt.with_events(events)
        if receipt.replayed:
            check_replay(submission.scope, receipt.results)
        return receipt

    async def expire_holds(self, ledger_id: int) -> None:
        """Have the holds expired whose time has come; return after the commit. Raises what `submit` does."""
        await self._enqueue(ledger_id, Submission(ExpireHolds(), b"", b"", SYSTEM, "-"))

    def waiting(self) -> list[int]:
        """The weight that waits for each ledger that has something under way."""
        return [queue.weight for queue in self._queues.values()]

    async def drain(self) -> None:
        """Wait until everything that was submitted is answered; once given up, for nothing any more."""
        while tasks := [queue.task for queue in self._queues.values() if queue.task and not queue.task.done()]:
            if self._given_up:
                for task in tasks:
                    task.cancel()
            await asyncio.wait(tasks)

    def give_up(self) -> None:
        """Answer everybody who waits with what is known: nothing was done of what no batch has taken; of what one has
        taken, its key will tell."""
        self._given_up = True
        for queue in self._queues.values():
            for submission in queue.withdraw_all():
                _answer(submission, Overloaded())
            for submission in queue.taken:
                _answer(submission, OutcomeUnknown())

    async def _submit(self, ledger: str, submission: Submission) -> Receipt | Recorded:
        creating = isinstance(submission.command, CreateLedger)
        ledger_id = await (self._directory.enter(ledger) if creating else self._directory.get(ledger))
        return await self._enqueue(ledger_id, submission)

    async def _enqueue(self, ledger_id: int, submission: Submission) -> Receipt | Recorded:
        queue = self._queues.get(ledger_id)
        if queue is None:
            queue = self._queues[ledger_id] = Queue(ledger_id)
        if self._given_up or queue.weight + submission.command.weight > QUEUE_WEIGHT_MAX:
            raise Overloaded()
        submission.answer = asyncio.get_running_loop().create_future()
        queue.put(submission)
        if queue.task is None:
            # A context of its own: a task inherits its maker's, and would log the first caller's request for all.
            queue.task = asyncio.create_task(self._run(queue), context=Context())
        try:
            async with asyncio.timeout(self._deadline_s):
                return await submission.answer
        except TimeoutError:
            raise (Overloaded() if queue.withdraw(submission) else OutcomeUnknown()) from None

    async def _run(self, queue: Queue) -> None:
        while queue.waiting:
            # Who has gone away while waiting has no effect; who goes away later harms nobody.
            batch = [submission for submission in queue.take() if not submission.answer.done()]
            if not batch:
                continue
            queue.taken = batch
            try:
                await self._settle(queue.ledger_id, batch)
            except Exception as error:
                # Nothing is known to come here; but a task that died would leave its ledger without one.
                log.exception("batch_failed")
                sentry_sdk.capture_exception(error)
                for submission in batch:
                    _answer(submission, OutcomeUnknown())
        # No await lies between the last look and this, so nobody can have put anything in meanwhile.
        del self._queues[queue.ledger_id]

    async def _settle(self, ledger_id: int, batch: Sequence[Submission]) -> None:
        """Answer every submission of a batch, whatever happens.

        A command that fails the write for all is found by running the batch again in halves: it alone gets its
        500, and its key is not stored.
        """
        work = BatchWork(next(self._batches))
        with _logging(ledger_id, work.number, batch):
            try:
                outcomes = await self._commit(ledger_id, batch, work)
            except (LedgerNotFound, ServiceFailed) as refusal:
                work.outcome = "refused"
                outcomes = [type(refusal)() for _ in batch]
            except Exception as error:
                work.outcome = "failed" if len(batch) == 1 else "halved"
                if len(batch) == 1:
                    log.exception("submission_failed")
                    sentry_sdk.capture_exception(error)
                    outcomes = [InternalError()]
                else:
                    log.warning("batch_halved", size=len(batch), error=type(error).__name__)
                    self._end(work, batch)
                    middle = len(batch) // 2
                    await self._settle(ledger_id, batch[:middle])
                    await self._settle(ledger_id, batch[middle:])
                    return
        for submission, outcome in zip(batch, outcomes, strict=False):
            _answer(submission, outcome)
        self._end(work, batch[: len(outcomes)])
        if ledger_id in self._grown:
            self._tell(ledger_id, self._grown.pop(ledger_id))
        if len(outcomes) < len(batch):
            await self._settle(ledger_id, batch[len(outcomes) :])

    def _end(self, work: BatchWork, batch: Sequence[Submission]) -> None:
        self.counts.end(work, len(batch))
        if self._trace is not None:
            self._trace(work, batch)

    async def _commit(self, ledger_id: int, batch: Sequence[Submission], work: BatchWork) -> list[Outcome]:
        """Run the batch until it is known to be committed, a few times at most: the outcomes of those that it came to.

        After a lost race or a lost connection it runs behind the head's row lock, which waits out a backend that
        is still committing; then the keys tell what had been done.
        """
        in_doubt = False
        for attempt, pause_s in enumerate(BACKOFF_S):
            try:
                async with self._connections.acquire() as connection:
                    cycle = self._cycle if attempt == 0 else self._cycle_behind_lock
                    for _ in range(EXPIRY_ROUNDS_MAX):
                        outcomes = await cycle(connection, ledger_id, batch, work)
                        self.counts.committed(work)
                        if outcomes:
                            return outcomes
            except RaceLost:
                self.counts.races_lost += 1
                log.info("race_lost", attempt=attempt)
            except Overloaded:
                # No connection came free. What was sent before may be committed all the same: then look again.
                if not in_doubt:
                    raise
            except Exception as error:
                if not isinstance(error, WriteInDoubt) and not is_transient(error):
                    raise
                in_doubt = in_doubt or isinstance(error, WriteInDoubt)
                self.counts.interrupted += 1
                log.warning("batch_interrupted", attempt=attempt, error=repr(error.__cause__ or error))
                await asyncio.sleep(pause_s)
        raise OutcomeUnknown() if in_doubt else StorageUnavailable()

    async def _cycle_behind_lock(
        self, connection: Connection, ledger_id: int, batch: Sequence[Submission], work: BatchWork
    ) -> list[Outcome]:
        with _doubting():
            began = perf_counter()
            async with connection.transaction():
                # Read only in a statement after the one that locks: its snapshot would still be the older one.
                await connection.execute(LOCK, ledger_id, timeout=self._connections.timeout_s)
                self.counts.took(work, "lock", perf_counter() - began)
                outcomes = await self._cycle(connection, ledger_id, batch, work)
                began = perf_counter()
            self.counts.took(work, "commit", perf_counter() - began)
            return outcomes

    async def _cycle(
        self, connection: Connection, ledger_id: int, batch: Sequence[Submission], work: BatchWork
    ) -> list[Outcome]:
        """READ, DECIDE, WRITE, once: the outcomes of the first submissions, or none if it was only for expiries.
        Raises `RaceLost` if another process was faster."""
        now = self._clock()
        began = perf_counter()
        commands = [submission.command for submission in batch]
        book = await read_book(
            connection,
            ledger_id,
            keys={submission.key for submission in batch},
            paths={path for command in commands for path in command.paths},
            references={reference for command in commands for reference in command.references},
            subjects={subject for command in commands for subject in command.subjects},
            now=now,
            timeout_s=self._connections.timeout_s,
        )
        read = perf_counter()
        self.counts.took(work, "read", read - began)
        outcomes: list[Outcome] = []
        # An expiry is written before it is relied on; while more holds are due, nothing else is decided.
        for hold in book.due:
            book.apply(expire_hold(hold, book, now=now))
        if book.next_expiry is None or book.next_expiry > now:
            for submission in batch:
                if outcomes and len(book.entries) > BATCH_ENTRIES_MAX:
                    break
                outcomes.append(_decide(submission, book, now))
        decided = perf_counter()
        self.counts.took(work, "decide", decided - read)
        if not book.changes_nothing:
            if len(book.events) > LONG_BATCH:
                await asyncio.sleep(0)  # Deciding took its time: let others have the loop before the arrays are made.
            with _doubting():
                if not await write_book(connection, ledger_id, book, now=now, timeout_s=self._connections.timeout_s):
                    raise RaceLost()
            self.counts.took(work, "write", perf_counter() - decided)
            work.written = [event.kind for event in book.events]
            work.entries_written = len(book.entries)
            if book.events:
                self._grown[ledger_id] = book.sequence
            log.debug("batch_written", events=len(book.events), sequence=book.sequence)
        return outcomes


def _decide(submission: Submission, book: Book, now: datetime) -> Outcome:
    """Decide one submission and apply what it does, its key included; or find what its key stands for."""
    if isinstance(submission.command, ExpireHolds):
        return Receipt((), replayed=False)
    known = book.keys.get(submission.key)
    if known is not None:
        return _replay(submission, known, book)
    if book.sequence == 0 and not isinstance(submission.command, CreateLedger):
        return LedgerNotFound()
    before = book.save() if isinstance(submission.command, PostBatch) else None
    try:
        if isinstance(submission.command, PostBatch):
            return _decide_batch(submission, submission.command, book, now)
        check_subject(submission.scope, submission.command, book)
        decision = decide(submission.command, book, now=now, actor=submission.actor)
    except BooksRefuse as refusal:
        if before is not None:
            book.restore(before)
        book.keep(KeyRow(submission.key, submission.fingerprint, book.sequence, freeze(refusal)))
        return refusal
    except (NotFound, Forbidden) as refusal:
        # What the write is about is not there, or not for this caller. Neither is frozen: once it is, the key works.
        return refusal
    except Exception as error:
        if before is not None:
            book.restore(before)
        log.exception("decision_failed", request_id=submission.request_id)
        sentry_sdk.capture_exception(error)
        return InternalError()
    book.apply(decision)
    book.keep(KeyRow(submission.key, submission.fingerprint, decision.event.sequence))
    return Receipt((decision.event,), replayed=False)


def _decide_batch(submission: Submission, command: PostBatch, book: Book, now: datetime) -> Receipt:
    """Decide the transactions of a batch in their order. Raises `BatchRefused` for an atomic one, which the caller
    then takes back."""
    first = book.next_sequence
    results: list[Event | Refusal] = []
    for place, transaction in enumerate(command.transactions):
        try:
            decision = decide(transaction, book, now=now, actor=submission.actor)
        except BooksRefuse as refusal:
            if command.atomic:
                raise BatchRefused(index=place, problem=refusal) from None
            results.append(refusal)
        else:
            book.apply(decision)
            results.append(decision.event)
    refusals = {str(place): freeze(each) for place, each in enumerate(results) if isinstance(each, Refusal)}
    events = len(results) - len(refusals)
    sequence = first if events else book.sequence
    book.keep(KeyRow(submission.key, submission.fingerprint, sequence, None, events, refusals))
    return Receipt(tuple(results), replayed=False)


def _replay(submission: Submission, known: KeyRow, book: Book) -> Outcome:
    if known.fingerprint != submission.fingerprint:
        return LedgerExists() if submission.key == CREATION_KEY else IdempotencyKeyReused()
    if known.refusal is not None:
        refusal = thaw(known.refusal)
        refusal.replayed = True
        return refusal
    count = 1 if known.events is None else known.events
    refusals = {int(place): thaw(frozen) for place, frozen in (known.refusals or {}).items()}
    recorded = Recorded(known.sequence, count, refusals)
    place = known.sequence - book.head.sequence
    return recorded.with_events(book.events[place - 1 : place - 1 + count]) if place > 0 else recorded


def _answer(submission: Submission, outcome: Outcome) -> None:
    if submission.answer.done():  # its caller has gone
        return
    if isinstance(outcome, Refusal):
        submission.answer.set_exception(outcome)
    else:
        submission.answer.set_result(outcome)


@contextmanager
def _doubting() -> Iterator[None]:
    """Mark a lost connection as one that may have taken a commit with it."""
    try:
        yield
    except Exception as error:
        if is_transient(error):
            raise WriteInDoubt() from error
        raise


@contextmanager
def _logging(ledger_id: int, number: int, batch: Sequence[Submission]) -> Iterator[None]:
    """Have every line carry the batch and the requests that it serves."""
    request_ids = [submission.request_id for submission in batch]
    with structlog.contextvars.bound_contextvars(
        request_id="-", ledger_id=ledger_id, batch=number, request_ids=request_ids
    ):
        yield

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

import sentry_sdk
import structlog
from asyncpg import Connection

from app.db import Database, is_transient
from app.ledger import queries
from app.ledger.book import Book, KeyRow, read_book
from app.ledger.directory import Directory
from app.ledger.journal import write_book
from app.ledger.refusals import (
    REFUSALS,
    BooksRefuse,
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
)
from app.ledger.rules import decide
from app.ledger.values import Command, CreateLedger, Event

log = structlog.get_logger()

# The key of `createLedger`, whose name is its key. No client can send it: an empty key is refused at the edge.
CREATION_KEY = b""

# Waits before the second and later tries of a batch. A stalled holder of the row lock is ended by the server
# within 4 seconds, and a restarted server is back within a few.
BACKOFF_S = (0.0, 0.1, 0.4, 1.0, 2.0)
BATCH_SUBMISSIONS_MAX = 1_000
BATCH_WEIGHT_MAX = 4_000
QUEUE_WEIGHT_MAX = 20_000

LOCK = "select 1 from heads where ledger_id = $1 for no key update"


class RaceLost(Exception):
    """Another process replaced the head's revision first; nothing was written."""


class WriteInDoubt(Exception):
    """The connection was lost after a write had been sent: it may have been committed, or not."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """A committed effect: its event, as it was at its own sequence, and whether it is a first answer given again."""

    event: Event
    replayed: bool


@dataclass(frozen=True, slots=True)
class Recorded:
    """An effect that an earlier batch committed."""

    sequence: int


Outcome = Receipt | Recorded | Refusal


@dataclass(eq=False, slots=True)
class Submission:
    """A command with its key, on its way through the writer."""

    command: Command
    key: bytes
    fingerprint: bytes
    actor: str
    request_id: str
    answer: asyncio.Future[Receipt | Recorded] = field(init=False)


@dataclass(eq=False)
class Queue:
    """What waits for one ledger. Its task lives while there is something."""

    ledger_id: int
    waiting: deque[Submission] = field(default_factory=deque)
    weight: int = 0
    task: asyncio.Task[None] | None = None

    def put(self, submission: Submission) -> None:
        self.waiting.append(submission)
        self.weight += submission.command.weight

    def withdraw(self, submission: Submission) -> bool:
        """Take back what no batch has taken yet; False if one has."""
        if submission not in self.waiting:
            return False
        self.waiting.remove(submission)
        self.weight -= submission.command.weight
        return True

    def take(self) -> list[Submission]:
        """All that waits, within the bounds of a batch; at least one."""
        batch: list[Submission] = []
        weight = 0
        while self.waiting and len(batch) < BATCH_SUBMISSIONS_MAX:
            if batch and weight + self.waiting[0].command.weight > BATCH_WEIGHT_MAX:
                break
            batch.append(self.waiting.popleft())
            weight += batch[-1].command.weight
        self.weight -= weight
        return batch


class LedgerWriter:
    """Carries submissions out, ledger by ledger. One per process, on its event loop."""

    def __init__(self, database: Database, clock: Callable[[], datetime], *, deadline_s: float) -> None:
        self._connections = database.writes
        self._directory = Directory(database.writes)
        self._sessions = database.sessions
        self._clock = clock
        self._deadline_s = deadline_s
        self._queues: dict[int, Queue] = {}
        self._batches = itertools.count(1)

    async def submit(self, ledger: str, submission: Submission) -> Receipt:
        """Have one submission decided, recorded and committed in the ledger of this name; return after the commit.

        Raises the refusal that it met: of the books, of its key, or of the service (`Overloaded` and
        `StorageUnavailable`: surely without effect; `OutcomeUnknown`: repeat it with the same key).
        """
        outcome = await self._submit(ledger, submission)
        if isinstance(outcome, Receipt):
            return outcome
        async with self._sessions() as session:
            event = await queries.get_event(session, ledger, outcome.sequence)
        return Receipt(event, replayed=True)

    async def drain(self) -> None:
        """Wait until everything that was submitted is answered."""
        while tasks := [queue.task for queue in self._queues.values() if queue.task]:
            await asyncio.wait(tasks)

    async def _submit(self, ledger: str, submission: Submission) -> Receipt | Recorded:
        creating = isinstance(submission.command, CreateLedger)
        ledger_id = await (self._directory.enter(ledger) if creating else self._directory.get(ledger))
        queue = self._queues.get(ledger_id)
        if queue is None:
            queue = self._queues[ledger_id] = Queue(ledger_id)
        if queue.weight + submission.command.weight > QUEUE_WEIGHT_MAX:
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
        with _logging(ledger_id, next(self._batches), batch):
            try:
                outcomes = await self._commit(ledger_id, batch)
            except (LedgerNotFound, ServiceFailed) as refusal:
                outcomes = [type(refusal)() for _ in batch]
            except Exception as error:
                if len(batch) == 1:
                    log.exception("submission_failed")
                    sentry_sdk.capture_exception(error)
                    outcomes = [InternalError()]
                else:
                    log.warning("batch_halved", size=len(batch), error=type(error).__name__)
                    middle = len(batch) // 2
                    await self._settle(ledger_id, batch[:middle])
                    await self._settle(ledger_id, batch[middle:])
                    return
        for submission, outcome in zip(batch, outcomes, strict=True):
            _answer(submission, outcome)

    async def _commit(self, ledger_id: int, batch: Sequence[Submission]) -> list[Outcome]:
        """Run the batch until it is known to be committed, a few times at most.

        After a lost race or a lost connection it runs behind the head's row lock, which waits out a backend that
        is still committing; then the keys tell what had been done.
        """
        in_doubt = False
        for attempt, pause_s in enumerate(BACKOFF_S):
            try:
                async with self._connections.acquire() as connection:
                    if attempt == 0:
                        return await self._cycle(connection, ledger_id, batch)
                    return await self._cycle_behind_lock(connection, ledger_id, batch)
            except RaceLost:
                log.info("race_lost", attempt=attempt)
            except Overloaded:
                # No connection came free. What was sent before may be committed all the same: then look again.
                if not in_doubt:
                    raise
            except Exception as error:
                if not isinstance(error, WriteInDoubt) and not is_transient(error):
                    raise
                in_doubt = in_doubt or isinstance(error, WriteInDoubt)
                log.warning("batch_interrupted", attempt=attempt, error=repr(error.__cause__ or error))
                await asyncio.sleep(pause_s)
        raise OutcomeUnknown() if in_doubt else StorageUnavailable()

    async def _cycle_behind_lock(
        self, connection: Connection, ledger_id: int, batch: Sequence[Submission]
    ) -> list[Outcome]:
        with _doubting():
            async with connection.transaction():
                # Read only in a statement after the one that locks: its snapshot would still be the older one.
                await connection.execute(LOCK, ledger_id, timeout=self._connections.timeout_s)
                return await self._cycle(connection, ledger_id, batch)

    async def _cycle(self, connection: Connection, ledger_id: int, batch: Sequence[Submission]) -> list[Outcome]:
        """READ, DECIDE, WRITE, once. Raises `RaceLost` if another process was faster."""
        now = self._clock()
        book = await read_book(
            connection,
            ledger_id,
            keys={submission.key for submission in batch},
            paths={path for submission in batch for path in submission.command.paths},
            references={submission.command.reference for submission in batch if submission.command.reference},
            timeout_s=self._connections.timeout_s,
        )
        outcomes = [_decide(submission, book, now) for submission in batch]
        if book.new_keys:
            with _doubting():
                if not await write_book(connection, ledger_id, book, now=now, timeout_s=self._connections.timeout_s):
                    raise RaceLost()
            log.debug("batch_written", events=len(book.events), sequence=book.sequence)
        return outcomes


def _decide(submission: Submission, book: Book, now: datetime) -> Outcome:
    """Decide one submission and apply what it does, its key included; or find what its key stands for."""
    known = book.keys.get(submission.key)
    if known is not None:
        return _replay(submission, known, book)
    if book.sequence == 0 and not isinstance(submission.command, CreateLedger):
        return LedgerNotFound()
    try:
        decision = decide(submission.command, book, now=now, actor=submission.actor)
    except BooksRefuse as refusal:
        frozen = {"code": refusal.code, **refusal.fields()}
        book.keep(KeyRow(submission.key, submission.fingerprint, book.sequence, frozen))
        return refusal
    except NotFound as refusal:
        # What the write is about is not there. No 404 is frozen: once it is there, the same key works.
        return refusal
    except Exception as error:
        log.exception("decision_failed", request_id=submission.request_id)
        sentry_sdk.capture_exception(error)
        return InternalError()
    book.apply(decision)
    book.keep(KeyRow(submission.key, submission.fingerprint, decision.event.sequence))
    return Receipt(decision.event, replayed=False)


def _replay(submission: Submission, known: KeyRow, book: Book) -> Outcome:
    if known.fingerprint != submission.fingerprint:
        return LedgerExists() if submission.key == CREATION_KEY else IdempotencyKeyReused()
    if known.refusal is not None:
        refusal_fields = dict(known.refusal)
        refusal = REFUSALS[refusal_fields.pop("code")](**refusal_fields)
        refusal.replayed = True
        return refusal
    place = known.sequence - book.head.sequence
    return Receipt(book.events[place - 1], replayed=True) if place > 0 else Recorded(known.sequence)


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

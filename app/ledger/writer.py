"""The write path: one queue per ledger, group commit, compare-and-set.

A batch is whatever waits when the one before it has committed: there is no timer. One statement reads, pure rules
decide, one statement writes and commits by itself, then everyone is answered. No lock is held while our code runs,
so a process that stalls, stalls nobody; and a head's revision can be replaced only once, so several processes stay
correct beside each other.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import Context
from datetime import datetime, timedelta
from time import perf_counter

import sentry_sdk
import structlog

from app.clock import ClockWatch
from app.connections import Connection
from app.counts import BatchWork, WriterCounts
from app.db import Database, is_transient
from app.ledger import recorded
from app.ledger.book import read_book
from app.ledger.commands import CreateLedger, ExpireHolds
from app.ledger.deciding import decide_submission, reject_submission
from app.ledger.directory import Directory
from app.ledger.holds import SYSTEM, expire_hold
from app.ledger.journal import write_book
from app.ledger.known_ledgers import LedgerRef, LedgerReplaced
from app.ledger.refusals import (
    InternalError,
    OutcomeUnknown,
    Overloaded,
    ServiceFailed,
    StorageUnavailable,
)
from app.ledger.scopes import check_command, check_replay
from app.ledger.submissions import QUEUE_WEIGHT_MAX, Outcome, Queue, Receipt, Recorded, Submission

log = structlog.get_logger()

# Waits before the second and later tries of a batch. A stalled holder of the row lock is ended by the server
# within 4 seconds, and a restarted server is back within a few.
BACKOFF_S = (0.0, 0.1, 0.4, 1.0, 2.0)
# From so many events on, deciding and writing are two turns of the event loop.
LONG_BATCH = 200
# Who comes after so many entries is decided in a batch of its own: how many a capture makes, only the books tell.
BATCH_ENTRIES_MAX = 6_000
# So often a batch may find that more holds are due than it could expire.
EXPIRY_ROUNDS_MAX = 1_000
# Where the last event was recorded further ahead of the clock than this, one of the two times is wrong.
RECORDED_AHEAD_MAX = timedelta(minutes=1)

# How often a submission may find that its name has come to stand for another ledger.
LOOK_UPS_MAX = 3

LOCK = "select 1 from heads where ledger_id = $1 and identity = $2 for no key update"


class RaceLost(Exception):
    """Another process replaced the head's revision first; nothing was written."""


class WriteInDoubt(Exception):
    """The connection was lost after a write had been sent: it may have been committed, or not."""


class LedgerWriter:
    """Carries submissions out, ledger by ledger. One per process, on its event loop."""

    def __init__(
        self,
        database: Database,
        clock: Callable[[], datetime],
        *,
        deadline_s: float,
        watch: ClockWatch | None = None,
        tell: Callable[[int, int], None] = lambda ledger_id, sequence: None,
        trace: Callable[[BatchWork, Sequence[Submission]], None] | None = None,
    ) -> None:
        self.counts = WriterCounts()
        self._tell = tell
        self._trace = trace
        # The sequence that each ledger's log will have come to when the batch under way is committed.
        self._grown: dict[LedgerRef, int] = {}
        self._connections = database.writes
        self._directory = Directory(database.writes, database.ledgers)
        self._sessions = database.sessions
        self._clock = clock
        # Without one, the clock is taken for right.
        self._watch = watch
        self._deadline_s = deadline_s
        self._queues: dict[LedgerRef, Queue] = {}
        self._batches = itertools.count(1)
        self._given_up = False

    async def submit(self, ledger: str, submission: Submission) -> Receipt:
        """Have one submission decided, recorded and committed in the ledger of this name; return after the commit.

        Raises the refusal that it met: of its scope, of the books, of its key, or of the service (`Overloaded` and
        `StorageUnavailable`: surely without effect; `OutcomeUnknown`: repeat it with the same key).
        """
        check_command(submission.scope, ledger, submission.command)
        receipt = await self._submit(ledger, submission)
        if receipt.replayed:
            check_replay(submission.scope, receipt.results)
        return receipt

    async def expire_holds(self, ledger: LedgerRef) -> None:
        """Have the holds expired whose time has come; return after the commit. A ledger that is no more has none.
        Raises what `submit` does."""
        with suppress(LedgerReplaced):
            await self._enqueue(ledger, Submission(ExpireHolds(), b"", b"", SYSTEM, "-"))

    def waiting(self) -> list[int]:
        """The weight that waits for each ledger that has something under way."""
        return [queue.weight for queue in self._queues.values()]

    @property
    def stalled_s(self) -> float:
        """For how long the batch that has come to no commit for longest is under way; 0 if none is."""
        return max((perf_counter() - queue.progress_at for queue in self._queues.values()), default=0.0)

    @property
    def is_stalled(self) -> bool:
        """Whether a batch is under way for longer than anyone waits for it."""
        return self.stalled_s > self._deadline_s

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
                submission.settle(Overloaded())
            for submission in queue.taken:
                submission.settle(OutcomeUnknown())

    async def _submit(self, name: str, submission: Submission) -> Receipt:
        """Have it carried out in the ledger that the name stands for. If that is found to be another one than this
        process knew, nothing was done, and the name is looked up again."""
        look_up = self._directory.enter if isinstance(submission.command, CreateLedger) else self._directory.get
        for _ in range(LOOK_UPS_MAX):
            ledger = await look_up(name)
            try:
                receipt = await self._enqueue(ledger, submission)
                return receipt if isinstance(receipt, Receipt) else await self._read_events(ledger, receipt)
            except LedgerReplaced:
                log.info("ledger_looked_up_again", ledger_id=ledger.ledger_id)
                self._directory.forget(name, ledger)
        raise StorageUnavailable()

    async def _read_events(self, ledger: LedgerRef, found: Recorded) -> Receipt:
        async with self._sessions() as session:
            return found.with_events(await recorded.get_events(session, ledger, first=found.first, count=found.count))

    async def _enqueue(self, ledger: LedgerRef, submission: Submission) -> Receipt | Recorded:
        queue = self._queues.get(ledger)
        if queue is None:
            queue = self._queues[ledger] = Queue(ledger)
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
            queue.progress_at = perf_counter()
            try:
                await self._settle(queue.ledger, batch)
            except Exception as error:
                # Nothing is known to come here; but a task that died would leave its ledger without one.
                log.exception("batch_failed")
                sentry_sdk.capture_exception(error)
                for submission in batch:
                    submission.settle(OutcomeUnknown())
        # No await lies between the last look and this, so nobody can have put anything in meanwhile.
        del self._queues[queue.ledger]

    async def _settle(self, ledger: LedgerRef, batch: Sequence[Submission]) -> None:
        """Answer every submission of a batch, whatever happens.

        A command that fails the write for all is found by running the batch again in halves: it alone gets its
        500, and its key is not stored.
        """
        work = BatchWork(next(self._batches))
        with _logging(ledger.ledger_id, work.number, batch):
            try:
                outcomes = await self._commit(ledger, batch, work)
            except (LedgerReplaced, ServiceFailed) as refusal:
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
                    await self._settle(ledger, batch[:middle])
                    await self._settle(ledger, batch[middle:])
                    return
        for submission, outcome in zip(batch, outcomes, strict=False):
            submission.settle(outcome)
        self._end(work, batch[: len(outcomes)])
        if ledger in self._grown:
            self._tell(ledger.ledger_id, self._grown.pop(ledger))
        if len(outcomes) < len(batch):
            await self._settle(ledger, batch[len(outcomes) :])

    def _end(self, work: BatchWork, batch: Sequence[Submission]) -> None:
        self.counts.end(work, len(batch))
        if self._trace is not None:
            self._trace(work, batch)

    async def _commit(self, ledger: LedgerRef, batch: Sequence[Submission], work: BatchWork) -> list[Outcome]:
        """Run the batch until it is known to be committed, a few times at most: the outcomes of those that it came to.

        After a lost race or a lost connection it runs behind the head's row lock, which waits out a backend that
        is still committing; then the keys tell what had been done.
        """
        in_doubt = False
        for attempt, pause_s in enumerate(BACKOFF_S):
            if perf_counter() - work.began > self._deadline_s:
                break  # everyone who waited for it is answered, and others wait behind it
            try:
                if self._watch is not None:
                    await self._watch.confirm()
                async with self._connections.acquire() as connection:
                    cycle = self._cycle if attempt == 0 else self._cycle_behind_lock
                    for _ in range(EXPIRY_ROUNDS_MAX):
                        outcomes = await cycle(connection, ledger, batch, work)
                        self.counts.committed(work)
                        self._queues[ledger].progress_at = perf_counter()
                        if outcomes:
                            return outcomes
            except LedgerReplaced:
                if in_doubt:  # What was sent before was lost with the ledger that it was sent to, or was not done.
                    raise OutcomeUnknown() from None
                raise
            except RaceLost:
                self.counts.races_lost += 1
                log.info("race_lost", attempt=attempt)
            except (Overloaded, StorageUnavailable):
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
        self, connection: Connection, ledger: LedgerRef, batch: Sequence[Submission], work: BatchWork
    ) -> list[Outcome]:
        with _doubting():
            began = perf_counter()
            async with connection.atomic():
                # Read only in a statement after the one that locks: its snapshot would still be the older one.
                await connection.execute(LOCK, *ledger, timeout=self._connections.timeout_s)
                self.counts.took(work, "lock", perf_counter() - began)
                outcomes = await self._cycle(connection, ledger, batch, work)
                began = perf_counter()
            self.counts.took(work, "commit", perf_counter() - began)
            return outcomes

    async def _cycle(
        self, connection: Connection, ledger: LedgerRef, batch: Sequence[Submission], work: BatchWork
    ) -> list[Outcome]:
        """READ, DECIDE, WRITE, once: the outcomes of the first submissions, or none if it was only for expiries.
        Raises `RaceLost` if another process was faster, and `LedgerReplaced`."""
        now = self._clock()
        clock_is_right = self._watch is None or self._watch.is_right(now)
        began = perf_counter()
        commands = [submission.command for submission in batch]
        book = await read_book(
            connection,
            ledger,
            keys={submission.key for submission in batch},
            paths={path for command in commands for path in command.paths},
            references={reference for command in commands for reference in command.references},
            subjects={subject for command in commands for subject in command.subjects},
            now=now,
            timeout_s=self._connections.timeout_s,
        )
        read = perf_counter()
        self.counts.took(work, "read", read - began)
        if not clock_is_right or book.head.recorded_at - now > RECORDED_AHEAD_MAX:
            # Every event of this batch would be recorded at a wrong time, and no recorded time can be corrected.
            if clock_is_right:
                log.warning("ledger_ahead_of_clock", recorded_at=book.head.recorded_at.isoformat())
            work.outcome = "refused"
            return [reject_submission(submission, book) for submission in batch]
        outcomes: list[Outcome] = []
        # An expiry is written before it is relied on; while more holds are due, nothing else is decided.
        for hold in book.due:
            book.apply(expire_hold(hold, book, now=now))
        if book.next_expiry is None or book.next_expiry > now:
            for submission in batch:
                if outcomes and len(book.entries) > BATCH_ENTRIES_MAX:
                    break
                outcomes.append(decide_submission(submission, book, now))
        decided = perf_counter()
        self.counts.took(work, "decide", decided - read)
        if not book.changes_nothing:
            if len(book.events) > LONG_BATCH:
                await asyncio.sleep(0)  # Deciding took its time: let others have the loop before the arrays are made.
            with _doubting():
                if not await write_book(connection, ledger, book, now=now, timeout_s=self._connections.timeout_s):
                    raise RaceLost()
            self.counts.took(work, "write", perf_counter() - decided)
            work.written = [event.kind for event in book.events]
            work.entries_written = len(book.entries)
            if book.events:
                self._grown[ledger] = book.sequence
            log.debug("batch_written", events=len(book.events), sequence=book.sequence)
        return outcomes


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

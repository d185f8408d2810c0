"""What becomes of one submission: decided and applied, replayed, or refused. Pure, over the book of its batch."""

from datetime import datetime

import sentry_sdk
import structlog

from app.ledger.book import Book, KeyRow
from app.ledger.commands import CreateLedger, ExpireHolds, PostBatch
from app.ledger.refusals import (
    BatchRefused,
    BooksRefuse,
    ClockSkewed,
    Forbidden,
    IdempotencyKeyReused,
    InternalError,
    LedgerExists,
    LedgerNotFound,
    NotFound,
    Refusal,
    freeze,
    thaw,
)
from app.ledger.rules import decide
from app.ledger.scopes import check_subject
from app.ledger.submissions import CREATION_KEY, Outcome, Receipt, Recorded, Submission
from app.ledger.values import Event

log = structlog.get_logger()


def decide_submission(submission: Submission, book: Book, now: datetime) -> Outcome:
    """Decide one submission and apply what it does, its key included; or find what its key stands for."""
    if isinstance(submission.command, ExpireHolds):
        return Receipt((), replayed=False)
    found = _find_outcome(submission, book)
    if found is not None:
        return found
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


def reject_submission(submission: Submission, book: Book) -> Outcome:
    """Answer one submission where nothing may be recorded: what its key stands for, or `ClockSkewed`."""
    if isinstance(submission.command, ExpireHolds):
        return ClockSkewed()
    return _find_outcome(submission, book) or ClockSkewed()


def _find_outcome(submission: Submission, book: Book) -> Outcome | None:
    """What is answered without a decision: the effect that the key stands for, or that there is no ledger."""
    known = book.keys.get(submission.key)
    if known is not None:
        return _replay(submission, known, book)
    if book.sequence == 0 and not isinstance(submission.command, CreateLedger):
        return LedgerNotFound()
    return None


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

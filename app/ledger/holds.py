"""The rules of what is said about a transaction of the log: a hold is captured, voided or expires; what was posted
is reversed. As pure as the other rules.

Capture, void and expiry only narrow what is held, so no limit is checked: a capture cannot fail for funds.
"""

from dataclasses import replace
from datetime import datetime

from app.ledger.book import Book
from app.ledger.commands import CaptureTransaction, ReverseTransaction, VoidTransaction
from app.ledger.movements import Movement, check_effective, check_limits, check_not_frozen, check_open, check_reference
from app.ledger.periods import check_period
from app.ledger.refusals import (
    AlreadyCaptured,
    AlreadyReversed,
    AlreadyVoided,
    CaptureExceedsHold,
    HoldExpired,
    NotPending,
    NotReversible,
    TransactionNotFound,
)
from app.ledger.values import Decision, Hold, HoldLine, HoldStatus, TransactionEvent

# Who asks for an expiry: nobody but the ledger itself.
SYSTEM = "system"

ENDED_BY = {"captured": AlreadyCaptured, "voided": AlreadyVoided, "expired": HoldExpired}
REVERSIBLE = ("transaction_posted", "transaction_captured")


def open_hold(event: TransactionEvent) -> Hold:
    """A hold as the event that records it leaves it."""
    lines = tuple(
        HoldLine(
            posting=number,
            debit_account=posting.debit_account,
            credit_account=posting.credit_account,
            debit_id=posting.debit_id,
            credit_id=posting.credit_id,
            held=posting.amount,
            captured=0,
            released=0,
        )
        for number, posting in enumerate(event.postings)
    )
    return Hold(event.sequence, "pending", event.expires_at, event.group, lines)


def capture_transaction(command: CaptureTransaction, book: Book, *, now: datetime, actor: str) -> Decision:
    hold = _get_pending(command.subject, book)
    check_effective(command.effective_at, now=now)
    check_period(command.effective_at, book)
    check_reference(command.reference, book)
    # A closed account has nothing held on it, so nothing can be captured from or to it.
    to_post = _get_lines_to_post(command, hold)
    check_not_frozen((path for line in to_post for path in (line.debit_account, line.credit_account)), book)
    captured = _read_amounts(command, hold)
    kept = {line.posting: line.remaining - captured[line.posting] if command.keep else 0 for line in hold.lines}
    status: HoldStatus = "pending" if any(kept.values()) else "captured"
    return _narrow(command, hold, status, captured, kept, book, now=now, actor=actor)


def void_transaction(command: VoidTransaction, book: Book, *, now: datetime, actor: str) -> Decision:
    """Release what remains, whatever the accounts' status and the closed periods."""
    hold = _get_pending(command.subject, book)
    check_reference(command.reference, book)
    nothing = dict.fromkeys(range(len(hold.lines)), 0)
    return _narrow(command, hold, "voided", nothing, nothing, book, now=now, actor=actor)


def expire_hold(hold: Hold, book: Book, *, now: datetime) -> Decision:
    """Release what remains of a hold whose time has come, whatever the accounts' status and the closed periods."""
    nothing = dict.fromkeys(range(len(hold.lines)), 0)
    command = VoidTransaction(subject=hold.hold, reference=None, description=None, metadata={})
    return _narrow(command, hold, "expired", nothing, nothing, book, now=now, actor=SYSTEM)


def reverse_transaction(command: ReverseTransaction, book: Book, *, now: datetime, actor: str) -> Decision:
    """Post what was posted the other way: whole, and once."""
    subject = book.find_subject(command.subject)
    if subject is None:
        raise TransactionNotFound()
    if subject.kind not in REVERSIBLE:
        raise NotReversible()
    if command.subject in book.reversed:
        raise AlreadyReversed()
    check_effective(command.effective_at, now=now)
    check_period(command.effective_at, book)
    check_reference(command.reference, book)
    posted = [posting for posting in subject.postings if posting.amount]
    # A reversal debits what was credited.
    check_open((path for each in posted for path in (each.credit_account, each.debit_account)), book)
    recorded_at = book.recording_time(now)
    movement = Movement(book, book.next_sequence, command.effective_at or recorded_at)
    postings = tuple(
        movement.move(debit=each.credit_account, credit=each.debit_account, posted=each.amount) for each in posted
    )
    check_limits(movement.accounts, book)
    event = TransactionEvent(
        sequence=movement.sequence,
        kind="transaction_reversed",
        recorded_at=recorded_at,
        actor=actor,
        postings=postings,
        effective_at=movement.effective_at,
        reference=command.reference,
        group=subject.group,
        description=command.description,
        metadata=command.metadata,
        reverses=command.subject,
    )
    return Decision(event, tuple(movement.entries), tuple(movement.accounts.values()))


def _get_pending(sequence: int, book: Book) -> Hold:
    subject = book.find_subject(sequence)
    if subject is None:
        raise TransactionNotFound()
    hold = book.holds.get(sequence)
    if hold is None:
        raise NotPending()
    if hold.status != "pending":
        raise ENDED_BY[hold.status]()
    return hold


def _get_lines_to_post(command: CaptureTransaction, hold: Hold) -> list[HoldLine]:
    """The lines that the capture is to post, in the order of the hold, before its amounts are checked."""
    if command.amounts is None:
        return [line for line in hold.lines if line.remaining]
    named = {number for number, _ in command.amounts}
    return [line for line in hold.lines if line.posting in named]


def _read_amounts(command: CaptureTransaction, hold: Hold) -> dict[int, int]:
    """How much is captured of each posting of the hold. Raises `CaptureExceedsHold`."""
    if command.amounts is None:
        return {line.posting: line.remaining for line in hold.lines}
    captured = dict.fromkeys(range(len(hold.lines)), 0)
    for n, (number, amount) in enumerate(command.amounts):
        if number >= len(hold.lines):
            raise CaptureExceedsHold(pointer=f"/amounts/{n}/posting", available=0, required=amount)
        remaining = hold.lines[number].remaining
        if amount > remaining:
            raise CaptureExceedsHold(pointer=f"/amounts/{n}/amount", available=remaining, required=amount)
        captured[number] = amount
    return captured


def _narrow(
    command: CaptureTransaction | VoidTransaction,
    hold: Hold,
    status: HoldStatus,
    captured: dict[int, int],
    kept: dict[int, int],
    book: Book,
    *,
    now: datetime,
    actor: str,
) -> Decision:
    """Capture some of each line, keep some, and release what is left of it."""
    recorded_at = book.recording_time(now)
    effective_at = getattr(command, "effective_at", None) or recorded_at
    movement = Movement(book, book.next_sequence, effective_at)
    postings = []
    lines = []
    for line in hold.lines:
        posted = captured[line.posting]
        released = line.remaining - posted - kept[line.posting]
        lines.append(replace(line, captured=line.captured + posted, released=line.released + released))
        if posted or released:
            posting = movement.move(
                debit=line.debit_account,
                credit=line.credit_account,
                posted=posted,
                pending=-posted - released,
                released=released,
                hold_posting=line.posting,
            )
            postings.append(posting)
    event = TransactionEvent(
        sequence=movement.sequence,
        kind=f"transaction_{'captured' if status == 'pending' else status}",
        recorded_at=recorded_at,
        actor=actor,
        postings=tuple(postings),
        effective_at=effective_at,
        reference=command.reference,
        group=hold.group,
        description=command.description,
        metadata=command.metadata,
        hold=hold.hold,
    )
    after = replace(hold, status=status, lines=tuple(lines))
    return Decision(event, tuple(movement.entries), tuple(movement.accounts.values()), after)

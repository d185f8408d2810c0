"""The rules: a command and the books it meets, in; a whole decision or a refusal, out. No clock, no SQL, no HTTP."""

from collections.abc import Iterable
from datetime import datetime

from app.ledger.book import Book
from app.ledger.commands import (
    CaptureTransaction,
    ClosePeriod,
    Command,
    CreateLedger,
    ExpireHolds,
    Move,
    OpenAccount,
    PostBatch,
    PostTransaction,
    ReopenPeriod,
    ReverseTransaction,
    UpdateAccount,
    UpdateLedger,
    VoidTransaction,
)
from app.ledger.configurations import update_account, update_ledger
from app.ledger.holds import capture_transaction, open_hold, reverse_transaction, void_transaction
from app.ledger.movements import Movement, check_effective, check_limits, check_open, check_reference
from app.ledger.periods import check_period, close_period, reopen_period
from app.ledger.refusals import (
    AccountExists,
    AssetMismatch,
    LimitNotMet,
    TimeOutOfRange,
    UnknownAccount,
    ValidationFailed,
    VersionConflict,
)
from app.ledger.values import EARLIEST, Account, AccountEvent, Decision, LedgerEvent, TransactionEvent

BATCH_POSTINGS_MAX = 2_000


def decide(command: Command, book: Book, *, now: datetime, actor: str) -> Decision:
    """Decide one command on the books as the commands before it left them; `now` is the batch's clock.

    Raises a refusal of the books, in the published order, or `NotFound` for what a write is about. The books are
    not changed.
    """
    match command:
        case PostTransaction():
            return post_transaction(command, book, now=now, actor=actor)
        case OpenAccount():
            return open_account(command, book, now=now, actor=actor)
        case UpdateAccount():
            return update_account(command, book, now=now, actor=actor)
        case CaptureTransaction():
            return capture_transaction(command, book, now=now, actor=actor)
        case VoidTransaction():
            return void_transaction(command, book, now=now, actor=actor)
        case ReverseTransaction():
            return reverse_transaction(command, book, now=now, actor=actor)
        case ClosePeriod():
            return close_period(command, book, now=now, actor=actor)
        case ReopenPeriod():
            return reopen_period(command, book, now=now, actor=actor)
        case UpdateLedger():
            return update_ledger(command, book, now=now, actor=actor)
        case CreateLedger():
            return create_ledger(command, book, now=now, actor=actor)
        case PostBatch() | ExpireHolds():
            raise TypeError("what has several events, or none of its own, is not one decision")


def check_transaction(command: PostTransaction, within: str = "") -> None:
    """Refuse what no state of the books could allow: a posting between an account and itself, and an end of what is
    no hold. `within` points at the transaction in its request."""
    same = [n for n, move in enumerate(command.moves) if move.debit_account == move.credit_account]
    if same:
        message = "A posting needs two different accounts"
        errors = [{"pointer": f"{within}/postings/{n}/credit_account", "message": message} for n in same]
        raise ValidationFailed(errors[:20])
    if command.expires_at is not None and not command.pending:
        message = "Only a hold expires: it needs `pending`"
        raise ValidationFailed([{"pointer": f"{within}/expires_at", "message": message}])


def check_capture(numbers: Iterable[int]) -> None:
    """Refuse a capture that names a posting of the hold twice."""
    seen: set[int] = set()
    for n, number in enumerate(numbers):
        if number in seen:
            message = "A posting of the hold is named once"
            raise ValidationFailed([{"pointer": f"/amounts/{n}/posting", "message": message}])
        seen.add(number)


def check_batch(batch: PostBatch) -> None:
    """Refuse what no state of the books could allow, and a batch that would keep all others waiting."""
    for place, transaction in enumerate(batch.transactions):
        check_transaction(transaction, f"/transactions/{place}")
    if sum(len(transaction.moves) for transaction in batch.transactions) > BATCH_POSTINGS_MAX:
        message = f"A batch has at most {BATCH_POSTINGS_MAX} postings"
        raise ValidationFailed([{"pointer": "/transactions", "message": message}])


def create_ledger(command: CreateLedger, book: Book, *, now: datetime, actor: str) -> Decision:
    return Decision(
        LedgerEvent(
            sequence=book.next_sequence,
            kind="ledger_created",
            recorded_at=book.recording_time(now),
            actor=actor,
            name=command.name,
            description=command.description,
            metadata=command.metadata,
            revision=1,
        )
    )


def open_account(command: OpenAccount, book: Book, *, now: datetime, actor: str) -> Decision:
    if command.path in book.accounts:
        raise AccountExists(account=command.path)
    if command.minimum_balance is not None and command.minimum_balance > 0:
        raise LimitNotMet(pointer="/minimum_balance")
    if command.maximum_balance is not None and command.maximum_balance < 0:
        raise LimitNotMet(pointer="/maximum_balance")
    sequence = book.next_sequence
    account = Account(
        account_id=sequence,
        path=command.path,
        asset=command.asset,
        normal_side=command.normal_side,
        status="open",
        minimum_balance=command.minimum_balance,
        maximum_balance=command.maximum_balance,
        debits_posted=0,
        credits_posted=0,
        debits_pending=0,
        credits_pending=0,
        version=0,
        revision=1,
        configured_by=sequence,
        latest_effective=EARLIEST,
    )
    event = AccountEvent(
        sequence=sequence,
        kind="account_opened",
        recorded_at=book.recording_time(now),
        actor=actor,
        account_id=sequence,
        path=account.path,
        asset=account.asset,
        normal_side=account.normal_side,
        status=account.status,
        minimum_balance=account.minimum_balance,
        maximum_balance=account.maximum_balance,
        description=command.description,
        metadata=command.metadata,
        revision=account.revision,
    )
    return Decision(event, accounts=(account,))


def post_transaction(command: PostTransaction, book: Book, *, now: datetime, actor: str) -> Decision:
    """Post the moves, or hold them."""
    check_effective(command.effective_at, now=now)
    if command.expires_at is not None and command.expires_at <= now:
        raise TimeOutOfRange(pointer="/expires_at")
    check_period(command.effective_at, book)
    check_reference(command.reference, book)
    _check_accounts(command.moves, book)

    recorded_at = book.recording_time(now)
    movement = Movement(book, book.next_sequence, command.effective_at or recorded_at)
    amount_is = "pending" if command.pending else "posted"
    postings = tuple(
        movement.move(debit=move.debit_account, credit=move.credit_account, **{amount_is: move.amount})
        for move in command.moves
    )
    check_limits(movement.accounts, book)
    event = TransactionEvent(
        sequence=movement.sequence,
        kind="transaction_held" if command.pending else "transaction_posted",
        recorded_at=recorded_at,
        actor=actor,
        postings=postings,
        effective_at=movement.effective_at,
        reference=command.reference,
        group=command.group,
        description=command.description,
        metadata=command.metadata,
        expires_at=command.expires_at,
    )
    hold = open_hold(event) if command.pending else None
    return Decision(event, tuple(movement.entries), tuple(movement.accounts.values()), hold)


def _check_accounts(moves: tuple[Move, ...], book: Book) -> None:
    for n, move in enumerate(moves):
        for field, path in (("debit_account", move.debit_account), ("credit_account", move.credit_account)):
            if path not in book.accounts:
                raise UnknownAccount(pointer=f"/postings/{n}/{field}")
    for n, move in enumerate(moves):
        if book.accounts[move.debit_account].asset != book.accounts[move.credit_account].asset:
            raise AssetMismatch(pointer=f"/postings/{n}")
    check_open((path for move in moves for path in (move.debit_account, move.credit_account)), book)
    for n, move in enumerate(moves):
        # What the caller saw is held against the account before the whole transaction, also in a later posting.
        if move.expected_debit_version not in (None, book.accounts[move.debit_account].version):
            raise VersionConflict(pointer=f"/postings/{n}/expected_debit_version")
        if move.expected_credit_version not in (None, book.accounts[move.credit_account].version):
            raise VersionConflict(pointer=f"/postings/{n}/expected_credit_version")

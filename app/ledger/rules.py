"""The rules: a command and the books it meets, in; a whole decision or a refusal, out. No clock, no SQL, no HTTP."""

from collections.abc import Iterable
from datetime import datetime, timedelta

from app.ledger.book import Book
from app.ledger.configurations import update_account, update_ledger
from app.ledger.periods import check_period, close_period, reopen_period
from app.ledger.refusals import (
    AccountClosed,
    AccountExists,
    AccountFrozen,
    AmountOverflow,
    AssetMismatch,
    InsufficientFunds,
    LimitNotMet,
    MaximumExceeded,
    ReferenceExists,
    TimeOutOfRange,
    UnknownAccount,
    ValidationFailed,
    VersionConflict,
)
from app.ledger.values import (
    AMOUNT_MAX,
    EARLIEST,
    Account,
    AccountEvent,
    ClosePeriod,
    Command,
    CreateLedger,
    Decision,
    Entry,
    LedgerEvent,
    Move,
    OpenAccount,
    PostBatch,
    Posting,
    PostTransaction,
    ReopenPeriod,
    Side,
    TransactionEvent,
    UpdateAccount,
    UpdateLedger,
)

AHEAD_MAX = timedelta(minutes=1)
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
        case ClosePeriod():
            return close_period(command, book, now=now, actor=actor)
        case ReopenPeriod():
            return reopen_period(command, book, now=now, actor=actor)
        case UpdateLedger():
            return update_ledger(command, book, now=now, actor=actor)
        case CreateLedger():
            return create_ledger(command, book, now=now, actor=actor)
        case PostBatch():
            raise TypeError("a batch is decided by its transactions")


def check_moves(moves: Iterable[Move], within: str = "") -> None:
    """Refuse a posting between an account and itself, which no state of the books could allow. `within` points at
    the transaction in its request."""
    same = [n for n, move in enumerate(moves) if move.debit_account == move.credit_account]
    if same:
        message = "A posting needs two different accounts"
        errors = [{"pointer": f"{within}/postings/{n}/credit_account", "message": message} for n in same]
        raise ValidationFailed(errors[:20])


def check_batch(batch: PostBatch) -> None:
    """Refuse what no state of the books could allow, and a batch that would keep all others waiting."""
    for place, transaction in enumerate(batch.transactions):
        check_moves(transaction.moves, f"/transactions/{place}")
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
    effective_at = command.effective_at
    if effective_at is not None and not EARLIEST <= effective_at <= now + AHEAD_MAX:
        raise TimeOutOfRange(pointer="/effective_at")
    check_period(effective_at, book)
    if command.reference is not None and command.reference in book.references:
        raise ReferenceExists(pointer="/reference")
    _check_accounts(command.moves, book)

    recorded_at = book.recording_time(now)
    sequence = book.next_sequence
    effective_at = effective_at or recorded_at
    moved: dict[str, Account] = {}
    postings: list[Posting] = []
    entries: list[Entry] = []
    for move in command.moves:
        sides: list[Entry] = []
        for path, side in ((move.debit_account, "debit"), (move.credit_account, "credit")):
            before = moved.get(path) or book.accounts[path]
            moved[path], entry = _post(before, side, move.amount, sequence=sequence, effective_at=effective_at)
            sides.append(entry)
        debit, credit = sides
        entries += sides
        postings.append(
            Posting(
                debit_account=move.debit_account,
                credit_account=move.credit_account,
                asset=debit.asset,
                amount=move.amount,
                debit_id=debit.account_id,
                debit_version=debit.version,
                credit_id=credit.account_id,
                credit_version=credit.version,
            )
        )
    _check_limits(moved, book)
    event = TransactionEvent(
        sequence=sequence,
        kind="transaction_posted",
        recorded_at=recorded_at,
        actor=actor,
        postings=tuple(postings),
        effective_at=effective_at,
        reference=command.reference,
        group=command.group,
        description=command.description,
        metadata=command.metadata,
    )
    return Decision(event, tuple(entries), tuple(moved.values()))


def _check_accounts(moves: tuple[Move, ...], book: Book) -> None:
    for n, move in enumerate(moves):
        for field, path in (("debit_account", move.debit_account), ("credit_account", move.credit_account)):
            if path not in book.accounts:
                raise UnknownAccount(pointer=f"/postings/{n}/{field}")
    for n, move in enumerate(moves):
        if book.accounts[move.debit_account].asset != book.accounts[move.credit_account].asset:
            raise AssetMismatch(pointer=f"/postings/{n}")
    named = (book.accounts[path] for move in moves for path in (move.debit_account, move.credit_account))
    shut = [account for account in named if account.status != "open"]
    for status, refusal in (("closed", AccountClosed), ("frozen", AccountFrozen)):
        for account in shut:
            if account.status == status:
                raise refusal(account=account.path)
    for n, move in enumerate(moves):
        # What the caller saw is held against the account before the whole transaction, also in a later posting.
        if move.expected_debit_version not in (None, book.accounts[move.debit_account].version):
            raise VersionConflict(pointer=f"/postings/{n}/expected_debit_version")
        if move.expected_credit_version not in (None, book.accounts[move.credit_account].version):
            raise VersionConflict(pointer=f"/postings/{n}/expected_credit_version")


def _post(before: Account, side: Side, amount: int, *, sequence: int, effective_at: datetime) -> tuple[Account, Entry]:
    """Add a posted amount to one side of an account: the account afterwards, and the entry that says so."""
    late = effective_at < before.latest_effective
    after = Account(
        account_id=before.account_id,
        path=before.path,
        asset=before.asset,
        normal_side=before.normal_side,
        status=before.status,
        minimum_balance=before.minimum_balance,
        maximum_balance=before.maximum_balance,
        debits_posted=before.debits_posted + (amount if side == "debit" else 0),
        credits_posted=before.credits_posted + (amount if side == "credit" else 0),
        debits_pending=before.debits_pending,
        credits_pending=before.credits_pending,
        version=before.version + 1,
        revision=before.revision,
        configured_by=before.configured_by,
        latest_effective=before.latest_effective if late else effective_at,
    )
    entry = Entry(
        account_id=after.account_id,
        version=after.version,
        sequence=sequence,
        side=side,
        asset=after.asset,
        posted=amount,
        pending=0,
        balance=after.posted,
        raised=amount if side == before.normal_side else -amount,
        latest_effective=after.latest_effective,
        late_effective=effective_at if late else None,
    )
    return after, entry


def _check_limits(moved: dict[str, Account], book: Book) -> None:
    """Hold the result of a whole transaction against every limit: no account passes through here past its own."""
    for path, after in moved.items():
        if max(after.debits_posted + after.debits_pending, after.credits_posted + after.credits_pending) > AMOUNT_MAX:
            raise AmountOverflow(account=path)
    for path, after in moved.items():
        minimum = after.minimum_balance
        if minimum is not None and after.available < minimum:
            before = book.accounts[path].available
            raise InsufficientFunds(account=path, available=before - minimum, required=before - after.available)
    for path, after in moved.items():
        maximum = after.maximum_balance
        if maximum is not None and after.expected > maximum:
            before = book.accounts[path].expected
            raise MaximumExceeded(account=path, available=maximum - before, required=after.expected - before)

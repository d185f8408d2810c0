"""What all rules share that move amounts: the entries and accounts that come of it, and what has to hold of them."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from app.ledger.book import Book
from app.ledger.refusals import (
    AccountClosed,
    AccountFrozen,
    AmountOverflow,
    InsufficientFunds,
    MaximumExceeded,
    ReferenceExists,
    TimeOutOfRange,
)
from app.ledger.values import AMOUNT_MAX, EARLIEST, Account, Entry, Posting, Side

AHEAD_MAX = timedelta(minutes=1)


@dataclass(slots=True)
class Movement:
    """What one event moves, posting by posting: its entries, and the accounts as they are after them."""

    book: Book
    sequence: int
    effective_at: datetime
    accounts: dict[str, Account] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)

    def move(
        self,
        *,
        debit: str,
        credit: str,
        posted: int = 0,
        pending: int = 0,
        released: int = 0,
        hold_posting: int | None = None,
    ) -> Posting:
        """Add to what is posted and to what is pending, on the debit side of one account and the credit side of
        another."""
        debited = self._enter(debit, "debit", posted, pending)
        credited = self._enter(credit, "credit", posted, pending)
        return Posting(
            debit_account=debit,
            credit_account=credit,
            asset=debited.asset,
            # Only a hold makes anything pending: then that is its amount.
            amount=posted or max(pending, 0),
            debit_id=debited.account_id,
            debit_version=debited.version,
            credit_id=credited.account_id,
            credit_version=credited.version,
            released=released,
            hold_posting=hold_posting,
        )

    def _enter(self, path: str, side: Side, posted: int, pending: int) -> Entry:
        before = self.accounts.get(path) or self.book.accounts[path]
        # What posts nothing is effective at no time: it is never late, and makes nothing else late.
        effective_at = self.effective_at if posted else before.latest_effective
        late = effective_at < before.latest_effective
        debited = side == "debit"
        after = Account(
            account_id=before.account_id,
            path=before.path,
            asset=before.asset,
            normal_side=before.normal_side,
            status=before.status,
            minimum_balance=before.minimum_balance,
            maximum_balance=before.maximum_balance,
            debits_posted=before.debits_posted + (posted if debited else 0),
            credits_posted=before.credits_posted + (0 if debited else posted),
            debits_pending=before.debits_pending + (pending if debited else 0),
            credits_pending=before.credits_pending + (0 if debited else pending),
            version=before.version + 1,
            revision=before.revision,
            configured_by=before.configured_by,
            latest_effective=before.latest_effective if late else effective_at,
        )
        entry = Entry(
            account_id=after.account_id,
            version=after.version,
            sequence=self.sequence,
            side=side,
            asset=after.asset,
            posted=posted,
            pending=pending,
            balance=after.posted,
            raised=posted if side == before.normal_side else -posted,
            latest_effective=after.latest_effective,
            late_effective=effective_at if late else None,
        )
        self.accounts[path] = after
        self.entries.append(entry)
        return entry


def check_effective(effective_at: datetime | None, *, now: datetime) -> None:
    """Refuse an effective time that is out of range. None stands for the recorded time."""
    if effective_at is not None and not EARLIEST <= effective_at <= now + AHEAD_MAX:
        raise TimeOutOfRange(pointer="/effective_at")


def check_reference(reference: str | None, book: Book) -> None:
    if reference is not None and reference in book.references:
        raise ReferenceExists(pointer="/reference")


def check_open(paths: Iterable[str], book: Book) -> None:
    """Refuse accounts that take no postings: over all of them first the closed ones, then the frozen ones."""
    named = [book.accounts[path] for path in paths]
    for account in named:
        if account.status == "closed":
            raise AccountClosed(account=account.path)
    check_not_frozen((account.path for account in named), book)


def check_not_frozen(paths: Iterable[str], book: Book) -> None:
    for path in paths:
        if book.accounts[path].status == "frozen":
            raise AccountFrozen(account=path)


def check_limits(moved: dict[str, Account], book: Book) -> None:
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

"""The values that the ledger is made of: frozen, with amounts as ints and times as aware datetimes in UTC."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import ClassVar, Literal

Side = Literal["debit", "credit"]
Status = Literal["open", "frozen", "closed"]
HoldStatus = Literal["pending", "captured", "voided", "expired"]

AMOUNT_MAX = 10**38 - 1
# The earliest effective time, and so what an account without entries has seen at the latest.
EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)


# Commands: what callers ask for.


@dataclass(frozen=True, slots=True)
class CreateLedger:
    name: str
    description: str | None
    metadata: dict[str, str]

    # What a command names: the accounts, references and transactions that it is decided on, and about how many rows
    # it writes.
    paths: ClassVar[tuple[str, ...]] = ()
    references: ClassVar[tuple[str, ...]] = ()
    subjects: ClassVar[tuple[int, ...]] = ()
    weight: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class UpdateLedger:
    """The whole new configuration of a ledger, and the revision of the one that it is to replace."""

    name: str
    revision: int
    description: str | None
    metadata: dict[str, str]

    paths: ClassVar[tuple[str, ...]] = ()
    references: ClassVar[tuple[str, ...]] = ()
    subjects: ClassVar[tuple[int, ...]] = ()
    weight: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class OpenAccount:
    path: str
    asset: str
    normal_side: Side
    minimum_balance: int | None
    maximum_balance: int | None
    description: str | None
    metadata: dict[str, str]

    references: ClassVar[tuple[str, ...]] = ()
    subjects: ClassVar[tuple[int, ...]] = ()
    weight: ClassVar[int] = 3

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,)


@dataclass(frozen=True, slots=True)
class UpdateAccount:
    """The whole new configuration of an account, and the revision of the one that it is to replace."""

    path: str
    revision: int
    status: Status
    minimum_balance: int | None
    maximum_balance: int | None
    description: str | None
    metadata: dict[str, str]

    references: ClassVar[tuple[str, ...]] = ()
    subjects: ClassVar[tuple[int, ...]] = ()
    weight: ClassVar[int] = 3

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,)


@dataclass(frozen=True, slots=True)
class Move:
    """One posting as it is asked for."""

    debit_account: str
    credit_account: str
    amount: int
    # The versions of the accounts that the caller last saw, if they are to be those before the transaction.
    expected_debit_version: int | None = None
    expected_credit_version: int | None = None


@dataclass(frozen=True, slots=True)
class PostTransaction:
    """Post the moves, or hold them if they are pending."""

    moves: tuple[Move, ...]
    effective_at: datetime | None
    reference: str | None
    group: str | None
    description: str | None
    metadata: dict[str, str]
    pending: bool = False
    expires_at: datetime | None = None

    subjects: ClassVar[tuple[int, ...]] = ()

    @property
    def paths(self) -> Iterator[str]:
        for move in self.moves:
            yield move.debit_account
            yield move.credit_account

    @property
    def references(self) -> tuple[str, ...]:
        return () if self.reference is None else (self.reference,)

    @property
    def weight(self) -> int:
        return 2 + 2 * len(self.moves)


@dataclass(frozen=True, slots=True)
class PostBatch:
    """Transactions under one key, in their order: all or none of them, or each by itself."""

    transactions: tuple[PostTransaction, ...]
    atomic: bool

    subjects: ClassVar[tuple[int, ...]] = ()

    @property
    def paths(self) -> Iterator[str]:
        for transaction in self.transactions:
            yield from transaction.paths

    @property
    def references(self) -> tuple[str, ...]:
        return tuple(reference for transaction in self.transactions for reference in transaction.references)

    @property
    def weight(self) -> int:
        return sum(transaction.weight for transaction in self.transactions)


@dataclass(frozen=True, slots=True)
class _OnTransaction:
    """What is asked for about a transaction of the log. How many rows that writes, the log knows."""

    subject: int
    reference: str | None
    description: str | None
    metadata: dict[str, str]

    paths: ClassVar[tuple[str, ...]] = ()
    weight: ClassVar[int] = 20

    @property
    def references(self) -> tuple[str, ...]:
        return () if self.reference is None else (self.reference,)

    @property
    def subjects(self) -> tuple[int, ...]:
        return (self.subject,)


@dataclass(frozen=True, slots=True)
class CaptureTransaction(_OnTransaction):
    """Post what is held: amounts by the number of the hold's posting, or None for all that remains."""

    amounts: tuple[tuple[int, int], ...] | None
    keep: bool
    effective_at: datetime | None


@dataclass(frozen=True, slots=True)
class VoidTransaction(_OnTransaction):
    """Release what remains of a hold."""


@dataclass(frozen=True, slots=True)
class ReverseTransaction(_OnTransaction):
    effective_at: datetime | None


@dataclass(frozen=True, slots=True)
class ExpireHolds:
    """Ask for nothing but what every batch begins with: that the holds are expired whose time has come."""

    paths: ClassVar[tuple[str, ...]] = ()
    references: ClassVar[tuple[str, ...]] = ()
    subjects: ClassVar[tuple[int, ...]] = ()
    weight: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class ClosePeriod:
    before: datetime
    reason: str

    paths: ClassVar[tuple[str, ...]] = ()
    references: ClassVar[tuple[str, ...]] = ()
    subjects: ClassVar[tuple[int, ...]] = ()
    weight: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class ReopenPeriod:
    """Move the instant that the books are closed before back to an earlier one, or away."""

    before: datetime | None
    reason: str

    paths: ClassVar[tuple[str, ...]] = ()
    references: ClassVar[tuple[str, ...]] = ()
    subjects: ClassVar[tuple[int, ...]] = ()
    weight: ClassVar[int] = 2


Command = (
    CreateLedger
    | UpdateLedger
    | OpenAccount
    | UpdateAccount
    | PostTransaction
    | PostBatch
    | CaptureTransaction
    | VoidTransaction
    | ReverseTransaction
    | ExpireHolds
    | ClosePeriod
    | ReopenPeriod
)


# The state that commands are decided on.


@dataclass(frozen=True, slots=True)
class Head:
    """Where a ledger's log stands. `revision` is replaced by every batch that writes anything."""

    sequence: int
    revision: int
    recorded_at: datetime
    next_expiry: datetime | None = None
    closed_before: datetime | None = None
    # The event that says the ledger's configuration in force, and the revision of that.
    configured_by: int = 1
    configuration_revision: int = 1


@dataclass(frozen=True, slots=True)
class Account:
    """An account's limits and its four counters. Its id is the sequence that opened it."""

    account_id: int
    path: str
    asset: str
    normal_side: Side
    status: str
    minimum_balance: int | None
    maximum_balance: int | None
    debits_posted: int
    credits_posted: int
    debits_pending: int
    credits_pending: int
    version: int
    revision: int
    configured_by: int
    latest_effective: datetime

    @property
    def posted(self) -> int:
        """The posted balance in the account's normal sense."""
        if self.normal_side == "debit":
            return self.debits_posted - self.credits_posted
        return self.credits_posted - self.debits_posted

    @property
    def available(self) -> int:
        """Posted, less what is pending on the lowering side: what `minimum_balance` bounds."""
        return self.posted - (self.credits_pending if self.normal_side == "debit" else self.debits_pending)

    @property
    def expected(self) -> int:
        """Posted, and what is pending on the raising side: what `maximum_balance` bounds."""
        return self.posted + (self.debits_pending if self.normal_side == "debit" else self.credits_pending)


@dataclass(frozen=True, slots=True)
class HoldLine:
    """What has become of one posting of a hold."""

    posting: int
    debit_account: str
    credit_account: str
    debit_id: int
    credit_id: int
    held: int
    captured: int
    released: int

    @property
    def remaining(self) -> int:
        return self.held - self.captured - self.released


@dataclass(frozen=True, slots=True)
class Hold:
    """What has become of a hold, which is named by its sequence."""

    hold: int
    status: HoldStatus
    expires_at: datetime | None
    group: str | None
    lines: tuple[HoldLine, ...]


@dataclass(frozen=True, slots=True)
class Subject:
    """What a command about a transaction needs to know of it."""

    kind: str
    postings: tuple[Posting, ...]
    group: str | None


# What the log records.


@dataclass(frozen=True, slots=True)
class Posting:
    """What one posting did: `amount` was posted, or is held; `released` was given back of a hold's posting."""

    debit_account: str
    credit_account: str
    asset: str
    amount: int
    debit_id: int
    debit_version: int
    credit_id: int
    credit_version: int
    released: int = 0
    hold_posting: int | None = None


@dataclass(frozen=True, slots=True)
class LedgerEvent:
    sequence: int
    kind: str
    recorded_at: datetime
    actor: str
    name: str
    description: str | None
    metadata: dict[str, str]
    revision: int

    @property
    def ledger(self) -> LedgerEvent:
        return self


@dataclass(frozen=True, slots=True)
class AccountEvent:
    sequence: int
    kind: str
    recorded_at: datetime
    actor: str
    account_id: int
    path: str
    asset: str
    normal_side: Side
    status: str
    minimum_balance: int | None
    maximum_balance: int | None
    description: str | None
    metadata: dict[str, str]
    revision: int

    @property
    def account(self) -> AccountEvent:
        return self


@dataclass(frozen=True, slots=True)
class TransactionEvent:
    sequence: int
    kind: str
    recorded_at: datetime
    actor: str
    postings: tuple[Posting, ...]
    effective_at: datetime
    reference: str | None
    group: str | None
    description: str | None
    metadata: dict[str, str]
    expires_at: datetime | None = None
    # The hold that it captures, voids or expires; the transaction that it reverses.
    hold: int | None = None
    reverses: int | None = None

    @property
    def transaction(self) -> TransactionEvent:
        return self


@dataclass(frozen=True, slots=True)
class PeriodEvent:
    """From here on the books are closed before an instant, or not at all. Its description is the reason."""

    sequence: int
    kind: str
    recorded_at: datetime
    actor: str
    closed_before: datetime | None
    description: str
    metadata: dict[str, str]

    @property
    def reason(self) -> str:
        return self.description

    @property
    def period(self) -> PeriodEvent:
        return self


Event = LedgerEvent | AccountEvent | TransactionEvent | PeriodEvent


@dataclass(frozen=True, slots=True)
class Entry:
    """What one posting adds to one side of one account, and the account after it."""

    account_id: int
    version: int
    sequence: int
    side: Side
    asset: str
    posted: int
    pending: int
    # The posted balance after it, and what it added to that, in the account's normal sense.
    balance: int
    raised: int
    latest_effective: datetime
    # The entry's own effective time, if its account had already seen a later one.
    late_effective: datetime | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """All that one command does: its event, its entries, and what it moved as that is afterwards."""

    event: Event
    entries: tuple[Entry, ...] = ()
    accounts: tuple[Account, ...] = ()
    hold: Hold | None = None

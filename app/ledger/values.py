"""The values that the ledger is made of: frozen, with amounts as ints and times as aware datetimes in UTC."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

Side = Literal["debit", "credit"]
Status = Literal["open", "frozen", "closed"]
HoldStatus = Literal["pending", "captured", "voided", "expired"]

AMOUNT_MAX = 10**38 - 1
# The earliest effective time, and so what an account without entries has seen at the latest.
EARLIEST = datetime(1900, 1, 1, tzinfo=UTC)


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

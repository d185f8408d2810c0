"""What callers ask for. Each command names the accounts, references and transactions that it is decided on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from app.ledger.values import Side, Status


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

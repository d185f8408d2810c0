"""What callers ask for. Each command names the accounts, references and transactions that it is decided on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from app.ledger.values import Side, Status


class _Command:
    """What a command names: the accounts, references and transactions that it is decided on. Nothing, where it does
    not say otherwise. Each has a `weight` as well: about how many rows it writes."""

    __slots__ = ()

    @property
    def paths(self) -> Iterable[str]:
        return ()

    @property
    def references(self) -> Iterable[str]:
        return ()

    @property
    def subjects(self) -> Iterable[int]:
        return ()


@dataclass(frozen=True, slots=True)
class CreateLedger(_Command):
    name: str
    description: str | None
    metadata: dict[str, str]

    weight: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class UpdateLedger(_Command):
    """The whole new configuration of a ledger, and the revision of the one that it is to replace."""

    name: str
    revision: int
    description: str | None
    metadata: dict[str, str]

    weight: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class OpenAccount(_Command):
    path: str
    asset: str
    normal_side: Side
    minimum_balance: int | None
    maximum_balance: int | None
    description: str | None
    metadata: dict[str, str]

    weight: ClassVar[int] = 3

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,)


@dataclass(frozen=True, slots=True)
class UpdateAccount(_Command):
    """The whole new configuration of an account, and the revision of the one that it is to replace."""

    path: str
    revision: int
    status: Status
    minimum_balance: int | None
    maximum_balance: int | None
    description: str | None
    metadata: dict[str, str]

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
class PostTransaction(_Command):
    """Post the moves, or hold them if they are pending."""

    moves: tuple[Move, ...]
    effective_at: datetime | None
    reference: str | None
    group: str | None
    description: str | None
    metadata: dict[str, str]
    pending: bool = False
    expires_at: datetime | None = None

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
class PostBatch(_Command):
    """Transactions under one key, in their order: all or none of them, or each by itself."""

    transactions: tuple[PostTransaction, ...]
    atomic: bool

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
class _OnTransaction(_Command):
    """What is asked for about a transaction of the log. How many rows that writes, the log knows."""

    subject: int
    reference: str | None
    description: str | None
    metadata: dict[str, str]

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
class ExpireHolds(_Command):
    """Ask for nothing but what every batch begins with: that the holds are expired whose time has come."""

    weight: ClassVar[int] = 1


@dataclass(frozen=True, slots=True)
class ClosePeriod(_Command):
    before: datetime
    reason: str

    weight: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class ReopenPeriod(_Command):
    """Move the instant that the books are closed before back to an earlier one, or away."""

    before: datetime | None
    reason: str

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

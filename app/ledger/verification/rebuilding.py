"""Accounts as the log alone has them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from sys import intern
from typing import Any

from sqlalchemy import Row

from app.ledger.verification.postings import Side

Configuration = tuple[Any, ...]


@dataclass(slots=True)
class Rebuilt:
    """An account as the log alone has it."""

    configuration: Configuration | None
    counters: list[int] = field(default_factory=lambda: [0, 0, 0, 0])
    version: int = 0

    @property
    def within_limits(self) -> bool:
        return is_within_limits(self.configuration, self.counters)


class RebuiltAccounts:
    """The accounts of a ledger, rebuilt event by event."""

    def __init__(self) -> None:
        self._accounts: dict[int, Rebuilt] = {}

    def configure(self, account_id: int, said: dict[str, Any] | None) -> Rebuilt:
        configuration = read_configuration(said)
        account = self._accounts.setdefault(account_id, Rebuilt(configuration))
        account.configuration = configuration
        return account

    def move(self, sides: Iterable[Side]) -> Iterator[tuple[int, Rebuilt]]:
        """The accounts that an event moved, as it left them. One that no event opened is found by its entries."""
        moved: dict[int, Rebuilt] = {}
        for account_id, _, debit, posted, pending in sides:
            account = self._accounts.get(account_id)
            if account is not None:
                account.counters[0 if debit else 1] += posted
                account.counters[2 if debit else 3] += pending
                account.version += 1
                moved[account_id] = account
        return iter(moved.items())

    def pop(self, account_id: int) -> Rebuilt | None:
        return self._accounts.pop(account_id, None)

    @property
    def left(self) -> list[int]:
        """Those that nobody has asked for."""
        return sorted(self._accounts)


def read_configuration(said: dict[str, Any] | None) -> Configuration | None:
    """What an account event says of the account, in one order; None if that is not to be read."""
    if said is None:
        return None
    with suppress(KeyError, TypeError, ValueError):
        minimum, maximum = said["minimum_balance"], said["maximum_balance"]
        return (
            said["path"],
            intern(said["asset"]),
            intern(said["normal_side"]),
            intern(said["status"]),
            None if minimum is None else int(minimum),
            None if maximum is None else int(maximum),
            said["revision"],
        )
    return None


def read_row_configuration(row: Row[Any]) -> Configuration | None:
    names = ("path", "asset", "normal_side", "status", "minimum_balance", "maximum_balance", "revision")
    return read_configuration({name: getattr(row, name) for name in names})


def read_counters(row: Row[Any]) -> list[int]:
    return [int(row.debits_posted), int(row.credits_posted), int(row.debits_pending), int(row.credits_pending)]


def is_within_limits(configuration: Configuration | None, counters: Sequence[int]) -> bool:
    """Whether an account of this configuration with these counters is within its limits. Nobody can tell of one that
    is not to be read."""
    if configuration is None:
        return False
    _, _, normal_side, _, minimum, maximum, _ = configuration
    debits, credits, debits_pending, credits_pending = counters
    if normal_side == "debit":
        available, expected = debits - credits - credits_pending, debits - credits + debits_pending
    else:
        available, expected = credits - debits - debits_pending, credits - debits + credits_pending
    return (minimum is None or available >= minimum) and (maximum is None or expected <= maximum)

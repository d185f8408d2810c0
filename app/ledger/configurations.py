"""The rules of what is configured: how a ledger and an account change, after they were created.

The other rules are in `rules.py`, and call these; all are as pure.
"""

from dataclasses import replace
from datetime import datetime

from app.ledger.book import Book
from app.ledger.commands import UpdateAccount, UpdateLedger
from app.ledger.refusals import (
    AccountClosed,
    AccountFrozen,
    AccountNotEmpty,
    AccountNotFound,
    LimitNotMet,
    RevisionConflict,
)
from app.ledger.values import Account, AccountEvent, Decision, LedgerEvent, Status


def update_ledger(command: UpdateLedger, book: Book, *, now: datetime, actor: str) -> Decision:
    """Replace the whole configuration of a ledger. Its name never changes."""
    if command.revision != book.configuration_revision:
        raise RevisionConflict(pointer="/revision")
    return Decision(
        LedgerEvent(
            sequence=book.next_sequence,
            kind="ledger_changed",
            recorded_at=book.recording_time(now),
            actor=actor,
            name=command.name,
            description=command.description,
            metadata=command.metadata,
            revision=book.configuration_revision + 1,
        )
    )


def update_account(command: UpdateAccount, book: Book, *, now: datetime, actor: str) -> Decision:
    """Replace the whole configuration of an account. Its counters and its version stay as they are."""
    before = book.accounts.get(command.path)
    if before is None:
        raise AccountNotFound()
    if command.revision != before.revision:
        raise RevisionConflict(pointer="/revision")
    _check_limits(command, before)
    _check_status(command.status, before)
    sequence = book.next_sequence
    after = replace(
        before,
        status=command.status,
        minimum_balance=command.minimum_balance,
        maximum_balance=command.maximum_balance,
        revision=before.revision + 1,
        configured_by=sequence,
    )
    event = AccountEvent(
        sequence=sequence,
        kind="account_changed",
        recorded_at=book.recording_time(now),
        actor=actor,
        account_id=after.account_id,
        path=after.path,
        asset=after.asset,
        normal_side=after.normal_side,
        status=after.status,
        minimum_balance=after.minimum_balance,
        maximum_balance=after.maximum_balance,
        description=command.description,
        metadata=command.metadata,
        revision=after.revision,
    )
    return Decision(event, accounts=(after,))


def _check_limits(command: UpdateAccount, before: Account) -> None:
    """Refuse limits that the present balances, with what is pending, already break."""
    if command.minimum_balance is not None and before.available < command.minimum_balance:
        raise LimitNotMet(pointer="/minimum_balance")
    if command.maximum_balance is not None and before.expected > command.maximum_balance:
        raise LimitNotMet(pointer="/maximum_balance")


def _check_status(status: Status, before: Account) -> None:
    """Open to frozen and back, open to closed and back; whoever is neither, passes through open."""
    if (before.status, status) == ("frozen", "closed"):
        raise AccountFrozen(account=before.path)
    if (before.status, status) == ("closed", "frozen"):
        raise AccountClosed(account=before.path)
    if status == "closed" and (before.posted or before.debits_pending or before.credits_pending):
        raise AccountNotEmpty(account=before.path)

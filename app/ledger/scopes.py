"""What a caller may do: a scope, and the rules that hold a request, a command and an answer against it. Pure.

What a scope does not cover is `Forbidden` whether or not it exists, so that nothing can be learnt by asking. Only what
a command about a transaction touches stands in the books alone: there a transaction outside is one that does not exist.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from app.ledger.book import Book
from app.ledger.commands import CaptureTransaction, Command, PostBatch, PostTransaction, ReverseTransaction
from app.ledger.refusals import Forbidden, TransactionNotFound
from app.ledger.values import Posting, Subject, TransactionEvent

# What keys may be made for; the operator's own may beside that make keys.
OPERATIONS = ("read", "post", "hold", "admin")
OPERATOR = "operator"


@dataclass(frozen=True, slots=True)
class Scope:
    """What a caller may do; None is no bound."""

    operations: frozenset[str]
    ledgers: frozenset[str] | None = None
    prefix: str | None = None
    amount_max: int | None = None

    def covers(self, path: str) -> bool:
        """Whether an account is the prefix itself or lies below it, by whole segments."""
        return self.prefix is None or path == self.prefix or path.startswith(f"{self.prefix}:")

    def allows(self, amount: int) -> bool:
        return self.amount_max is None or amount <= self.amount_max

    def has_ledger(self, name: str) -> bool:
        return self.ledgers is None or name in self.ledgers

    @property
    def is_bound_in_the_books(self) -> bool:
        """Whether there is anything that only the books can tell."""
        return self.prefix is not None or self.amount_max is not None


EVERYTHING = Scope(frozenset((*OPERATIONS, OPERATOR)))


def check_request(
    scope: Scope, *, takes: frozenset[str], whole_ledger: bool, ledger: str | None, account: str | None
) -> None:
    """Hold an operation, with the ledger and the account of its path, against the scope. Raises `Forbidden`."""
    if takes.isdisjoint(scope.operations) or (whole_ledger and scope.prefix is not None):
        raise Forbidden()
    if (ledger is not None and not scope.has_ledger(ledger)) or (account is not None and not scope.covers(account)):
        raise Forbidden()


def check_filter(scope: Scope, name: str, filters: Mapping[str, Any]) -> None:
    """Hold the filters of a list against the scope: below a prefix, only the one of this name, within the prefix; else
    its pages, counts and cursors would tell of what lies outside. Raises `Forbidden`."""
    if scope.prefix is not None and not scope.covers(filters.get(name) or ""):
        raise Forbidden()


def check_command(scope: Scope, ledger: str, command: Command) -> None:
    """Hold what a command itself says against the scope. Raises `Forbidden`."""
    if scope is EVERYTHING:
        return
    if not scope.has_ledger(ledger) or not all(map(scope.covers, command.paths)):
        raise Forbidden()
    # References are unique in their ledger: who could take or try any would learn of those that lie outside.
    if scope.prefix is not None and not all(each.startswith(f"{scope.prefix}:") for each in command.references):
        raise Forbidden()
    for each in _transactions(command):
        if ("hold" if each.pending else "post") not in scope.operations:
            raise Forbidden()
        if not all(scope.allows(move.amount) for move in each.moves):
            raise Forbidden()
    if isinstance(command, CaptureTransaction) and not all(scope.allows(amount) for _, amount in command.amounts or ()):
        raise Forbidden()


def check_subject(scope: Scope, command: Command, book: Book) -> None:
    """Hold what a command is about against the scope, as the books have it.

    Raises `TransactionNotFound` where any of its accounts is not covered, as if it did not exist, and `Forbidden` for
    an amount that is too large.
    """
    if not scope.is_bound_in_the_books:
        return
    for sequence in command.subjects:
        subject = book.find_subject(sequence)
        if subject is None:
            return  # The rules say so, in their order.
        if not _covers_all(scope, subject.postings):
            raise TransactionNotFound()
        if not all(map(scope.allows, _amounts(command, subject, book))):
            raise Forbidden()


def check_replay(scope: Scope, results: Iterable[Any]) -> None:
    """Hold an answer that another key may have been given first against the scope. Raises `Forbidden`."""
    if not scope.is_bound_in_the_books:
        return
    for event in results:
        if isinstance(event, TransactionEvent) and not (
            _covers_all(scope, event.postings) and all(scope.allows(each.amount) for each in event.postings)
        ):
            raise Forbidden()


def covers_transaction(scope: Scope, event: TransactionEvent) -> bool:
    """Whether a transaction may be shown: all its accounts are covered."""
    return _covers_all(scope, event.postings)


def _covers_all(scope: Scope, postings: Iterable[Posting]) -> bool:
    return all(scope.covers(each.debit_account) and scope.covers(each.credit_account) for each in postings)


def _transactions(command: Command) -> tuple[PostTransaction, ...]:
    match command:
        case PostTransaction():
            return (command,)
        case PostBatch():
            return command.transactions
    return ()


def _amounts(command: Command, subject: Subject, book: Book) -> Iterator[int]:
    """What a command about a transaction posts, as far as it does not say so itself."""
    if isinstance(command, ReverseTransaction):
        yield from (posting.amount for posting in subject.postings)
    elif isinstance(command, CaptureTransaction) and command.amounts is None:
        hold = book.holds.get(command.subject)
        yield from (line.remaining for line in hold.lines) if hold is not None else ()

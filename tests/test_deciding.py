"""One batch of the writer, decided in memory: each command sees what those before it did, and nothing of a rejected
atomic batch stays."""

import copy
from collections.abc import Iterable
from datetime import timedelta
from itertools import count
from typing import Any

import pytest

from app.ledger.book import Book
from app.ledger.commands import (
    CaptureTransaction,
    ClosePeriod,
    Command,
    Move,
    PostBatch,
    PostTransaction,
    ReverseTransaction,
    UpdateLedger,
)
from app.ledger.deciding import decide_submission
from app.ledger.refusals import BatchRefused, IdempotencyKeyReused, InsufficientFunds, InternalError, Refusal
from app.ledger.submissions import Outcome, Receipt, Submission
from tests.test_rules import START, account, book_of, post

HOUR = timedelta(hours=1)
NUMBERS = count(1)
# Overdraws the wallet, whatever else the tests post.
TOO_MUCH = post(("bank", "wallet", 10**6))


def make_book() -> Book:
    """A bank, a wallet with 100 that cannot be overdrawn, and a shop."""
    wallet = account("wallet", 2, minimum_balance=0, debits_posted=100, version=1, latest_effective=START)
    return book_of(account("bank", 1), wallet, account("shop", 3))


def submit(book: Book, command: Command, key: str | None = None, *, fingerprint: bytes = b"f" * 16) -> Outcome:
    named = f"key-{next(NUMBERS)}" if key is None else key
    return decide_submission(Submission(command, named.encode(), fingerprint, "tester", "-"), book, START)


def record(book: Book, command: Command) -> int:
    """Decide a command that is recorded; the sequence of its event."""
    outcome = submit(book, command)
    assert isinstance(outcome, Receipt), outcome
    return outcome.event.sequence


def code(outcome: Outcome) -> str:
    assert isinstance(outcome, Refusal), outcome
    return outcome.code


def hold(*moves: tuple[str, str, int], **changes: Any) -> PostTransaction:
    return post(*moves, **({"pending": True} | changes))


def capture(sequence: int) -> CaptureTransaction:
    return CaptureTransaction(sequence, None, None, {}, amounts=None, keep=False, effective_at=None)


def reverse(sequence: int) -> ReverseTransaction:
    return ReverseTransaction(sequence, None, None, {}, effective_at=None)


def state(book: Book, *, but: Iterable[str] = ()) -> dict[str, Any]:
    """Every attribute of a book. Its values are frozen, so copies of its collections are enough."""
    return {name: copy.copy(value) for name, value in vars(book).items() if name not in but}


# Transactions of every kind that a batch may have: each changes other attributes of the book.
RECORDED = (
    post(("wallet", "shop", 5), reference="in-the-batch"),
    post(("bank", "shop", 1), effective_at=START - HOUR),
    hold(("shop", "wallet", 5), expires_at=START + HOUR),
    hold(("bank", "shop", 1), reference="held-in-the-batch"),
)


@pytest.fixture(params=["alone", "after other commands"])
def book(request: pytest.FixtureRequest) -> Book:
    """A book at the beginning of its batch, or moved along by commands of every kind."""
    book = make_book()
    if request.param == "after other commands":
        posted = record(book, post(("wallet", "shop", 7), reference="before"))
        held = record(book, hold(("shop", "bank", 5), expires_at=START + 2 * HOUR))
        record(book, hold(("wallet", "bank", 5)))
        record(book, reverse(posted))
        record(book, capture(held))
        record(book, ClosePeriod(START - 24 * HOUR, "audited"))
        record(book, UpdateLedger("main", 1, None, {}))
    return book


@pytest.mark.parametrize("recorded", [RECORDED[:1], RECORDED[1:2], RECORDED[2:3], RECORDED[3:], RECORDED])
def test_a_rejected_atomic_batch_changes_nothing_but_its_key(book: Book, recorded: tuple[PostTransaction, ...]) -> None:
    before = state(book, but=("keys", "new_keys"))
    keys = len(book.new_keys)

    outcome = submit(book, PostBatch((*recorded, TOO_MUCH), atomic=True))

    assert isinstance(outcome, BatchRefused)
    assert isinstance(outcome.problem, InsufficientFunds)
    assert outcome.index == len(recorded)
    assert state(book, but=("keys", "new_keys")) == before
    assert len(book.new_keys) == keys + 1


def test_an_atomic_batch_that_fails_unexpectedly_changes_nothing_at_all(book: Book) -> None:
    """An amount that is no number stands for any exception that no rule raises on purpose."""
    before = state(book)
    poison = PostTransaction((Move("bank", "shop", None),), None, None, None, None, {})  # type: ignore[arg-type]

    outcome = submit(book, PostBatch((*RECORDED, poison), atomic=True))

    assert isinstance(outcome, InternalError)
    assert state(book) == before


def test_what_an_atomic_batch_would_have_taken_is_free_for_the_next_command(book: Book) -> None:
    submit(book, PostBatch((*RECORDED, TOO_MUCH), atomic=True))
    sequence = book.next_sequence

    outcome = submit(book, PostBatch(RECORDED, atomic=True))

    assert isinstance(outcome, Receipt)
    assert [event.sequence for event in outcome.results] == list(range(sequence, sequence + len(RECORDED)))
    assert book.next_expiry == START + HOUR


def test_a_command_repeated_in_its_own_group_commit_is_a_replay() -> None:
    book = make_book()
    first, between = submit(book, RECORDED[0], "k"), submit(book, RECORDED[1])
    events = len(book.events)

    again = submit(book, RECORDED[0], "k")

    assert isinstance(first, Receipt)
    assert isinstance(between, Receipt)
    assert again == Receipt((first.event,), replayed=True)
    assert isinstance(submit(book, RECORDED[0], "k", fingerprint=b"g" * 16), IdempotencyKeyReused)
    assert (len(book.events), len(book.new_keys)) == (events, 2)


def test_a_rejection_repeated_in_its_own_group_commit_is_a_replay() -> None:
    book = make_book()
    first = submit(book, TOO_MUCH, "k")
    record(book, post(("wallet", "shop", 10**6)))

    again = submit(book, TOO_MUCH, "k")

    assert isinstance(again, InsufficientFunds)
    assert isinstance(first, InsufficientFunds)
    assert (again.fields(), again.replayed) == (first.fields(), True)


def test_a_batch_repeated_in_its_own_group_commit_has_each_result_at_its_place() -> None:
    book = make_book()
    batch = PostBatch((TOO_MUCH, RECORDED[0], TOO_MUCH, RECORDED[2], TOO_MUCH), atomic=False)
    record(book, RECORDED[1])
    first = submit(book, batch, "k")
    record(book, RECORDED[3])

    again = submit(book, batch, "k")

    assert isinstance(first, Receipt)
    assert isinstance(again, Receipt)
    assert [getattr(result, "sequence", "rejected") for result in again.results] == [
        "rejected", 102, "rejected", 103, "rejected",
    ]  # fmt: skip
    assert (again.results[1], again.results[3]) == (first.results[1], first.results[3])


def test_a_hold_is_captured_once_within_a_group_commit() -> None:
    book = make_book()
    held = record(book, hold(("shop", "wallet", 60)))
    assert code(submit(book, post(("shop", "wallet", 41)))) == "insufficient_funds"
    record(book, capture(held))
    assert code(submit(book, capture(held))) == "already_captured"
    assert book.accounts["wallet"].available == 40


def test_a_transaction_is_reversed_once_within_a_group_commit() -> None:
    book = make_book()
    posted = record(book, post(("shop", "wallet", 60)))
    record(book, reverse(posted))
    assert code(submit(book, reverse(posted))) == "already_reversed"
    assert book.accounts["wallet"].posted == 100


def test_a_closing_and_a_configuration_count_from_the_next_command_on() -> None:
    book = make_book()
    into = post(("bank", "shop", 1), effective_at=START - HOUR)
    record(book, into)
    record(book, ClosePeriod(START, "audited"))
    assert code(submit(book, into)) == "period_closed"
    record(book, UpdateLedger("main", 1, "renamed", {}))
    assert code(submit(book, UpdateLedger("main", 1, "renamed", {}))) == "revision_conflict"

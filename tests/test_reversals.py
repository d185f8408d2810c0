"""Reversals: whole, once, and linked both ways. Each edge is played to the model, and to the service with it."""

from datetime import timedelta

from tests.comparison import START, Books, column, refusal, statement
from tests.holding import HOUR, at, counters, expiries, funded, held, lines
from tests.model import AMOUNT_MAX, Answer
from tests.settled import books

__all__ = ["books"]


def test_a_reversal_posts_it_the_other_way_and_both_name_each_other(books: Books) -> None:
    funded(books)
    original = books.post(("wallet", "shop", 60), ("wallet", "bank", 10), group="g", reference="r").body["sequence"]
    books.advance(1)
    answer = books.reverse(original, description="A mistake", metadata={"a": "b"})
    now = START + timedelta(seconds=1)
    back = {"asset": "USD/2", "released": "0", "hold_posting": None, "credit_account": "wallet"}
    assert answer.body == {
        "sequence": original + 1,
        "kind": "transaction_reversed",
        "recorded_at": now,
        "effective_at": now,
        "expires_at": None,
        "actor": "operator",
        "hold": None,
        "reverses": original,
        "postings": [
            {**back, "debit_account": "shop", "amount": "60", "debit_version": 2, "credit_version": 4},
            {**back, "debit_account": "bank", "amount": "10", "debit_version": 3, "credit_version": 5},
        ],
        "reference": None,
        "group": "g",
        "description": "A mistake",
        "metadata": {"a": "b"},
    }
    assert books.read_transaction(original).body["reversed_by"] == original + 1
    assert books.read_transaction(original + 1).body["reversed_by"] is None
    assert counters(books, "wallet") == ["70", "170", "0", "0", "100", "100"]
    assert column(statement(books, "wallet"), "balance") == ["100", "40", "30", "90", "100"]


def test_a_capture_is_reversed_without_what_it_released(books: Books) -> None:
    funded(books)
    hold = held(books, ("wallet", "shop", 60), ("wallet", "bank", 10), ("wallet", "shop", 5), group="g")
    captured = books.capture(hold, (2, 5), (0, 20)).body["sequence"]
    answer = books.reverse(captured)
    assert [(p["debit_account"], p["amount"]) for p in answer.body["postings"]] == [("shop", "20"), ("shop", "5")]
    assert (answer.body["group"], answer.body["hold"], answer.body["reverses"]) == ("g", None, captured)
    assert lines(books, hold) == ["captured", "60 20 40", "10 0 10", "5 5 0"]
    assert counters(books, "wallet")[4:] == ["100", "100"]
    assert refusal(books.capture(hold)) == ["already_captured"]


def test_each_capture_of_a_hold_is_reversed_by_itself(books: Books) -> None:
    funded(books)
    hold = held(books)
    captures = [books.capture(hold, (0, 20), keep=True).body["sequence"] for _ in range(2)]
    for sequence in captures:
        assert books.reverse(sequence).status == 201
        assert refusal(books.reverse(sequence)) == ["already_reversed"]
    assert lines(books, hold) == ["pending", "60 40 0"]
    assert counters(books, "wallet") == ["40", "140", "20", "0", "100", "80"]


def test_a_transaction_is_reversed_once(books: Books) -> None:
    funded(books)
    original = books.post(("wallet", "shop", 5)).body["sequence"]
    first = books.reverse(original, key="k")
    assert refusal(books.reverse(original)) == ["already_reversed"]
    assert books.reverse(original, key="k") == Answer(201, first.body, replayed=True)
    assert refusal(books.reverse(original, key="k", description="")) == ["idempotency_key_reused"]


def test_holds_voids_expiries_and_reversals_are_not_reversed(books: Books) -> None:
    funded(books)
    hold, other = held(books), held(books, ("wallet", "shop", 1), expires_at=at(1))
    voided = books.void(hold).body["sequence"]
    books.advance(3600)
    expired = expiries(books)[0][0]
    reversal = books.reverse(hold - 1).body["sequence"]
    for sequence in (hold, other, voided, expired, reversal):
        assert refusal(books.reverse(sequence)) == ["not_reversible"]


def test_a_reversal_is_refused_for_funds_and_for_room(books: Books) -> None:
    funded(books)
    books.open("jar", "credit", minimum_balance="0")
    original = books.post(("wallet", "jar", 50)).body["sequence"]
    held(books, ("jar", "shop", 20))
    wanted = ("account", "available", "required")
    assert refusal(books.reverse(original), *wanted) == ["insufficient_funds", "jar", "30", "50"]
    books.post(("bank", "jar", 20))
    books.update("wallet", 1, minimum_balance="0", maximum_balance="99")
    assert refusal(books.reverse(original), *wanted) == ["maximum_exceeded", "wallet", "49", "50"]
    books.update("wallet", 2, minimum_balance="0")
    assert books.reverse(original).status == 201


def test_reversals_are_refused_in_the_published_order(books: Books) -> None:
    for path in ("a", "b", "c"):
        books.open(path, "credit", minimum_balance="0" if path == "b" else str(-AMOUNT_MAX))
    original = books.post(("a", "b", 5), reference="r").body["sequence"]
    books.post(("b", "c", 5))
    books.post(("c", "a", 5))
    books.update("a", 1, status="closed")
    books.update("b", 1, status="frozen", minimum_balance="0")
    books.close_before(START - HOUR)
    early, out = at(-2), "1899-12-31T23:59:59Z"
    assert refusal(books.reverse(1, reference="r", effective_at=out)) == ["transaction_not_found"]
    assert refusal(books.reverse(original, reference="r", effective_at=out), "pointer") == [
        "time_out_of_range", "/effective_at",
    ]  # fmt: skip
    assert refusal(books.reverse(original, reference="r", effective_at=early)) == ["period_closed"]
    assert refusal(books.reverse(original, reference="r")) == ["reference_exists"]
    assert refusal(books.reverse(original), "account") == ["account_closed", "a"]
    books.update("a", 2)
    assert refusal(books.reverse(original), "account") == ["account_frozen", "b"]
    books.update("b", 2, minimum_balance="0")
    assert refusal(books.reverse(original), "account") == ["insufficient_funds", "b"]
    books.post(("c", "b", 5))
    assert books.reverse(original, reference="s", effective_at=START.isoformat()).status == 201
    assert refusal(books.reverse(original, reference="r", effective_at=out)) == ["already_reversed"]


def test_a_reversal_counts_to_38_digits(books: Books) -> None:
    for path in ("a", "b", "c"):
        books.open(path)
    original = books.post(("a", "b", 1)).body["sequence"]
    books.post(("b", "c", AMOUNT_MAX))
    assert refusal(books.reverse(original), "account") == ["amount_overflow", "b"]


def test_a_reversal_may_belong_to_the_time_of_what_it_reverses(books: Books) -> None:
    funded(books)
    original = books.post(("wallet", "shop", 60)).body["sequence"]
    books.advance(60)
    answer = books.reverse(original, effective_at=START.isoformat(), reference="reversal")
    assert answer.body["effective_at"] == START
    assert column(statement(books, "shop"), "late") == [False, False]
    books.post(("wallet", "shop", 1))
    again = books.post(("wallet", "shop", 2)).body["sequence"]
    books.reverse(again, effective_at=START.isoformat())
    assert column(statement(books, "shop"), "late") == [False, False, False, False, True]


def test_a_reversal_and_a_capture_obey_closed_accounts_and_frozen_ones(books: Books) -> None:
    funded(books)
    original = books.post(("wallet", "shop", 100)).body["sequence"]
    books.update("wallet", 1, status="closed", minimum_balance="0")
    assert refusal(books.reverse(original), "account") == ["account_closed", "wallet"]
    books.update("shop", 1, status="frozen")
    assert refusal(books.reverse(original), "account") == ["account_closed", "wallet"]
    books.update("wallet", 2, minimum_balance="0")
    assert refusal(books.reverse(original), "account") == ["account_frozen", "shop"]

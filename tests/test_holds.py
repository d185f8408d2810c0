"""Holds: what they keep from others, and how they end. Each edge is played to the model, and to the service with it."""

from datetime import datetime, timedelta

import pytest

from tests.comparison import MICROSECOND, START, Books, Listing, column, moves, new_key, refusal, statement
from tests.looks import read_sums
from tests.model import AMOUNT_MAX, Answer, Body
from tests.settled import books

__all__ = ["books"]

HOUR = timedelta(hours=1)
ZERO = {"captured": "0", "released": "0"}


def funded(books: Books, amount: int = 100, **fields: str) -> None:
    """A bank, a wallet that cannot be overdrawn and has so much, and a shop."""
    books.open("bank")
    books.open("wallet", "credit", minimum_balance="0", **fields)
    books.open("shop", "credit")
    if amount:
        assert books.post(("bank", "wallet", amount)).status == 201


def held(books: Books, *postings: tuple[str, str, int], **fields: str) -> int:
    """Hold, by default so much of the wallet for the shop; the sequence of the hold."""
    answer = books.hold(*(postings or [("wallet", "shop", 60)]), **fields)
    assert answer.status == 201, answer
    return answer.body["sequence"]


def counters(books: Books, path: str) -> list[str]:
    names = ("debits_posted", "credits_posted", "debits_pending", "credits_pending", "posted", "available")
    account = books.read_account(path).body
    return [account[name] for name in names]


def lines(books: Books, hold: int) -> list[str]:
    """The status of a hold, and of each of its postings what was held, captured and released."""
    state = books.read_transaction(hold).body
    return [state["hold_status"]] + [f"{x['held']} {x['captured']} {x['released']}" for x in state["hold_lines"]]


def live(books: Books, path: str, order: str = "oldest") -> list[int]:
    return column(books.read_list(Listing("holds", "main", path, order), 2), "sequence")


def at(hours: float) -> str:
    return (START + hours * HOUR).isoformat()


def expiries(books: Books) -> list[tuple[int, int]]:
    """The sequence of each expiry in the log, and that of its hold."""
    log = books.read_events(0, 1000).body["items"]
    return [(e["sequence"], e["transaction"]["hold"]) for e in log if e["kind"] == "transaction_expired"]


# A hold


def test_a_hold_moves_nothing_and_is_no_longer_available(books: Books) -> None:
    funded(books)
    books.advance(1)
    answer = books.hold(("wallet", "shop", 60), group="order-1", expires_at=at(2), reference="r", description="Shoes")
    now = START + timedelta(seconds=1)
    posting = {"debit_account": "wallet", "credit_account": "shop", "asset": "USD/2", "amount": "60"}
    assert answer.body == {
        "sequence": 6,
        "kind": "transaction_held",
        "recorded_at": now,
        "effective_at": now,
        "expires_at": START + 2 * HOUR,
        "actor": "operator",
        "hold": None,
        "reverses": None,
        "postings": [{**posting, "released": "0", "hold_posting": None, "debit_version": 2, "credit_version": 1}],
        "reference": "r",
        "group": "order-1",
        "description": "Shoes",
        "metadata": {},
    }
    assert counters(books, "wallet") == ["0", "100", "60", "0", "100", "40"]
    assert counters(books, "shop") == ["0", "0", "0", "60", "0", "0"]
    assert column(statement(books, "wallet"), "balance") == ["100"]
    assert column(statement(books, "shop"), "balance") == []
    become = {"hold_status": "pending", "hold_lines": [{"posting": 0, "held": "60", **ZERO}], "reversed_by": None}
    assert books.read_transaction(6).body == answer.body | become | {"as_of_sequence": 6}
    assert live(books, "wallet") == live(books, "shop") == [6]
    assert live(books, "bank") == []


def test_a_hold_counts_against_the_minimum(books: Books) -> None:
    funded(books)
    held(books)
    wanted = ("account", "available", "required")
    assert refusal(books.hold(("wallet", "shop", 41)), *wanted) == ["insufficient_funds", "wallet", "40", "41"]
    assert refusal(books.post(("wallet", "shop", 41)), *wanted) == ["insufficient_funds", "wallet", "40", "41"]
    assert books.post(("wallet", "shop", 40)).status == 201
    assert refusal(books.post(("wallet", "shop", 1)), *wanted) == ["insufficient_funds", "wallet", "0", "1"]


def test_a_hold_counts_against_the_maximum(books: Books) -> None:
    books.open("bank")
    books.open("jar", "credit", maximum_balance="100")
    hold = held(books, ("bank", "jar", 60))
    wanted = ("account", "available", "required")
    assert refusal(books.hold(("bank", "jar", 41)), *wanted) == ["maximum_exceeded", "jar", "40", "41"]
    assert refusal(books.post(("bank", "jar", 41)), *wanted) == ["maximum_exceeded", "jar", "40", "41"]
    assert books.post(("bank", "jar", 40)).status == 201
    assert counters(books, "jar") == ["0", "40", "0", "60", "40", "40"]
    books.void(hold)
    assert books.post(("bank", "jar", 60)).status == 201


def test_what_a_hold_may_bring_is_not_there_yet(books: Books) -> None:
    """Neither to spend, nor against the maximum of the side that it takes from."""
    funded(books, 0)
    held(books, ("bank", "wallet", 60))
    assert refusal(books.post(("wallet", "shop", 1)), "available") == ["insufficient_funds", "0"]
    books.open("till", maximum_balance="10")
    books.post(("till", "bank", 10))
    held(books, ("shop", "till", 5))
    assert refusal(books.post(("till", "shop", 1)), "available") == ["maximum_exceeded", "0"]


def test_limits_apply_to_the_result_of_a_whole_hold(books: Books) -> None:
    """Pending never nets: what comes in by a hold does not make up for what goes out by it."""
    funded(books, 10)
    assert refusal(books.hold(("bank", "wallet", 5), ("wallet", "shop", 15)), "required") == [
        "insufficient_funds",
        "15",
    ]
    assert books.hold(("bank", "wallet", 5), ("wallet", "shop", 10)).status == 201
    assert counters(books, "wallet") == ["0", "10", "10", "5", "10", "0"]


def test_a_counter_holds_posted_and_pending_together(books: Books) -> None:
    for path in ("a", "b", "c"):
        books.open(path)
    hold = held(books, ("a", "b", AMOUNT_MAX))
    assert refusal(books.post(("a", "c", 1)), "account") == ["amount_overflow", "a"]
    assert refusal(books.hold(("c", "b", 1)), "account") == ["amount_overflow", "b"]
    assert books.post(("b", "c", AMOUNT_MAX)).status == 201
    books.capture(hold, (0, AMOUNT_MAX - 1))
    assert books.post(("a", "c", 1)).status == 422  # for now c is full
    assert books.post(("a", "b", 1)).status == 201


def test_a_hold_is_refused_as_a_post_is_and_in_the_same_order(books: Books) -> None:
    funded(books)
    books.open("euros", asset="EUR/2")
    books.open("cold")
    books.update("cold", 1, status="frozen")
    books.post(("bank", "shop", 1), reference="r")
    books.close_before(START - HOUR)
    fields = {"reference": "r", "expires_at": START.isoformat(), "effective_at": "1899-12-31T23:59:59Z"}
    postings = [("wallet", "cold", 101), ("wallet", "euros", 1), ("wallet", "none", 1)]
    out = "time_out_of_range"
    assert refusal(books.hold(*postings, **fields), "pointer") == [out, "/effective_at"]
    fields["effective_at"] = (START - 2 * HOUR).isoformat()
    assert refusal(books.hold(*postings, **fields), "pointer") == [out, "/expires_at"]
    fields["expires_at"] = (START + MICROSECOND).isoformat()
    assert refusal(books.hold(*postings, **fields), "pointer") == ["period_closed", "/effective_at"]
    fields["effective_at"] = (START - HOUR).isoformat()
    assert refusal(books.hold(*postings, **fields), "pointer") == ["reference_exists", "/reference"]
    fields["reference"] = "s"
    assert refusal(books.hold(*postings, **fields)) == ["unknown_account"]
    assert refusal(books.hold(*postings[:2], **fields)) == ["asset_mismatch"]
    assert refusal(books.hold(*postings[:1], **fields)) == ["account_frozen"]
    books.update("cold", 2)
    assert refusal(books.hold(*postings[:1], **fields)) == ["insufficient_funds"]
    assert books.hold(("wallet", "cold", 100), **fields).status == 201


def test_an_expiry_is_after_the_clock_and_of_a_hold(books: Books) -> None:
    funded(books)
    out = ["time_out_of_range", "/expires_at"]
    assert refusal(books.hold(("wallet", "shop", 1), expires_at=START.isoformat()), "pointer") == out
    assert refusal(books.hold(("wallet", "shop", 1), expires_at="0001-01-01T00:00:00Z"), "pointer") == out
    assert refusal(books.post(("wallet", "shop", 1), expires_at=at(1), key="k")) == ["validation_failed"]
    assert refusal(books.post(("wallet", "shop", 1), expires_at=at(1), pending=False)) == ["validation_failed"]
    assert books.post(("wallet", "shop", 1), key="k").status == 201
    assert books.hold(("wallet", "shop", 1), expires_at=(START + MICROSECOND).isoformat()).status == 201


def test_a_hold_may_last_as_long_as_the_calendar(books: Books) -> None:
    funded(books)
    last = "9999-12-31T23:59:59.999999Z"
    first = books.hold(("wallet", "shop", 1), expires_at=last, key="k")
    hold = first.body["sequence"]
    assert books.hold(("wallet", "shop", 1), expires_at=last, key="k") == Answer(201, first.body, replayed=True)
    assert books.read_transaction(hold).body["expires_at"] == datetime.fromisoformat(last)
    books.advance(365 * 86400)
    assert books.post(("wallet", "shop", 1)).status == 201
    assert books.capture(hold).status == 201


def test_a_hold_is_of_no_time_of_its_accounts(books: Books) -> None:
    """It is never late, and makes nothing late; only what is captured is of some time."""
    funded(books, 0)
    ahead = (START + timedelta(seconds=60)).isoformat()
    first = held(books, ("bank", "wallet", 5), effective_at=ahead)
    books.post(("bank", "wallet", 1))
    second = held(books, ("bank", "wallet", 5), effective_at=at(-9))
    assert column(statement(books, "wallet"), "late") == [False]
    books.capture(second, effective_at=at(-1))
    books.capture(first, effective_at=ahead)
    assert column(statement(books, "wallet"), "late") == [False, True, False]
    assert column(statement(books, "wallet"), "balance") == ["1", "6", "11"]
    assert column(statement(books, "wallet"), "version") == [2, 4, 5]


def test_what_is_not_posted_leaves_no_later_entry_late(books: Books) -> None:
    funded(books, 0)
    hold = held(books, ("bank", "wallet", 5), ("bank", "shop", 5))
    books.advance(60)
    books.capture(hold, (0, 5))
    books.post(("bank", "shop", 1), effective_at=at(0))
    assert column(statement(books, "shop"), "late") == [False]
    assert column(statement(books, "bank"), "late") == [False, True]


def test_a_hold_may_expect_versions(books: Books) -> None:
    funded(books)
    posting = {**moves(("wallet", "shop", 1))[0], "expected_debit_version": 1, "expected_credit_version": 0}
    body = {"postings": [posting], "pending": True}
    assert books.write("postTransaction", "main", "k", body).status == 201
    assert refusal(books.write("postTransaction", "main", "l", body)) == ["version_conflict"]


# Captures


def test_a_capture_posts_all_that_is_held(books: Books) -> None:
    funded(books)
    hold = held(books, ("wallet", "shop", 60), ("wallet", "bank", 10), group="g", reference="r", description="d")
    books.advance(1)
    answer = books.capture(hold, metadata={"a": "b"})
    now = START + timedelta(seconds=1)
    of_the_hold = {"asset": "USD/2", "released": "0", "debit_account": "wallet"}
    assert answer.body == {
        "sequence": hold + 1,
        "kind": "transaction_captured",
        "recorded_at": now,
        "effective_at": now,
        "expires_at": None,
        "actor": "operator",
        "hold": hold,
        "reverses": None,
        "postings": [
            of_the_hold
            | {"credit_account": "shop", "amount": "60", "hold_posting": 0, "debit_version": 4, "credit_version": 2},
            of_the_hold
            | {"credit_account": "bank", "amount": "10", "hold_posting": 1, "debit_version": 5, "credit_version": 3},
        ],
        "reference": None,
        "group": "g",
        "description": None,
        "metadata": {"a": "b"},
    }
    assert counters(books, "wallet") == ["70", "100", "0", "0", "30", "30"]
    assert counters(books, "shop") == ["0", "60", "0", "0", "60", "60"]
    assert lines(books, hold) == ["captured", "60 60 0", "10 10 0"]
    assert column(statement(books, "wallet"), "balance") == ["100", "40", "30"]
    assert live(books, "wallet") == live(books, "shop") == []
    assert books.read_transaction(hold + 1).body["hold_status"] is None


def test_what_a_capture_leaves_is_released(books: Books) -> None:
    funded(books)
    hold = held(books, ("wallet", "shop", 60), ("wallet", "bank", 10), ("wallet", "shop", 5))
    answer = books.capture(hold, (2, 4), (0, 20))
    said = [(p["hold_posting"], p["amount"], p["released"]) for p in answer.body["postings"]]
    assert said == [(0, "20", "40"), (1, "0", "10"), (2, "4", "1")]
    assert lines(books, hold) == ["captured", "60 20 40", "10 0 10", "5 4 1"]
    assert counters(books, "wallet") == ["24", "100", "0", "0", "76", "76"]
    assert counters(books, "bank") == ["100", "0", "0", "0", "100", "100"]
    assert column(statement(books, "wallet"), "amount") == ["100", "20", "4"]
    assert column(statement(books, "wallet"), "version") == [1, 5, 7]
    assert column(statement(books, "bank"), "amount") == ["100"]


def test_a_kept_remainder_is_captured_again_and_then_voided(books: Books) -> None:
    funded(books)
    hold = held(books, ("wallet", "shop", 60), ("wallet", "bank", 10))
    first = books.capture(hold, (0, 20), keep=True)
    assert [(p["hold_posting"], p["amount"], p["released"]) for p in first.body["postings"]] == [(0, "20", "0")]
    assert lines(books, hold) == ["pending", "60 20 0", "10 0 0"]
    assert counters(books, "wallet") == ["20", "100", "50", "0", "80", "30"]
    assert books.capture(hold, (1, 10), (0, 5), keep=True).status == 201
    assert lines(books, hold) == ["pending", "60 25 0", "10 10 0"]
    assert live(books, "shop") == [hold]
    assert live(books, "bank") == []
    answer = books.void(hold)
    assert [(p["hold_posting"], p["amount"], p["released"]) for p in answer.body["postings"]] == [(0, "0", "35")]
    assert lines(books, hold) == ["voided", "60 25 35", "10 10 0"]
    assert refusal(books.capture(hold)) == ["already_voided"]


def test_a_hold_captured_exactly_has_ended_even_if_the_remainder_was_to_be_kept(books: Books) -> None:
    funded(books)
    hold, other = held(books), held(books, ("wallet", "shop", 10), ("wallet", "shop", 20))
    assert books.capture(hold, (0, 60), keep=True).status == 201
    assert lines(books, hold) == ["captured", "60 60 0"]
    assert books.capture(other, (1, 20), keep=True).status == 201
    assert books.capture(other, keep=True).body["postings"][0]["hold_posting"] == 0
    assert lines(books, other) == ["captured", "10 10 0", "20 20 0"]
    for sequence in (hold, other):
        assert refusal(books.capture(sequence)) == ["already_captured"]
        assert refusal(books.void(sequence)) == ["already_captured"]


def test_a_capture_of_all_takes_what_earlier_ones_left(books: Books) -> None:
    funded(books)
    hold = held(books, ("wallet", "shop", 60), ("wallet", "bank", 10), ("wallet", "shop", 3))
    books.capture(hold, (0, 59), (1, 10), keep=True)
    answer = books.capture(hold)
    assert [(p["hold_posting"], p["amount"]) for p in answer.body["postings"]] == [(0, "1"), (2, "3")]


def test_more_than_is_held_is_not_captured(books: Books) -> None:
    funded(books)
    hold = held(books, ("wallet", "shop", 60), ("wallet", "bank", 10))
    wanted = ("pointer", "available", "required")
    code = "capture_exceeds_hold"
    assert refusal(books.capture(hold, (1, 10), (0, 61)), *wanted) == [code, "/amounts/1/amount", "60", "61"]
    assert refusal(books.capture(hold, (2, 5), (0, 61)), *wanted) == [code, "/amounts/0/posting", "0", "5"]
    assert refusal(books.capture(hold, (0, 60), (499, 1)), *wanted) == [code, "/amounts/1/posting", "0", "1"]
    books.capture(hold, (0, 50), (1, 10), keep=True)
    assert refusal(books.capture(hold, (0, 11)), *wanted) == [code, "/amounts/0/amount", "10", "11"]
    assert refusal(books.capture(hold, (1, 1)), *wanted) == [code, "/amounts/0/amount", "0", "1"]
    assert refusal(books.capture(hold, (0, AMOUNT_MAX)), *wanted) == [
        code, "/amounts/0/amount", "10", str(AMOUNT_MAX),
    ]  # fmt: skip
    assert lines(books, hold) == ["pending", "60 50 0", "10 10 0"]


def test_a_posting_is_named_once_in_a_capture(books: Books) -> None:
    funded(books)
    hold = held(books)
    assert refusal(books.capture(hold, (0, 1), (0, 2), key="k")) == ["validation_failed"]
    assert books.capture(hold, (0, 1), key="k").status == 201


def test_a_capture_never_fails_for_funds(books: Books) -> None:
    """What it takes was set aside by the hold, and what it brings had its room from then on."""
    funded(books, 60)
    books.open("jar", "credit", maximum_balance="60")
    hold = held(books, ("wallet", "jar", 60))
    assert refusal(books.post(("wallet", "shop", 1))) == ["insufficient_funds"]
    assert refusal(books.post(("bank", "jar", 1))) == ["maximum_exceeded"]
    assert books.update("wallet", 1, minimum_balance="0", maximum_balance="60").status == 200
    assert books.capture(hold, (0, 30), keep=True).status == 201
    assert refusal(books.post(("wallet", "shop", 1))) == ["insufficient_funds"]
    assert refusal(books.post(("bank", "jar", 1))) == ["maximum_exceeded"]
    assert books.capture(hold).status == 201
    assert counters(books, "wallet")[4:] == ["0", "0"]
    assert counters(books, "jar")[4:] == ["60", "60"]


def test_a_capture_has_a_time_of_its_own(books: Books) -> None:
    funded(books)
    hold = held(books, effective_at=at(-5))
    books.advance(60)
    assert refusal(books.capture(hold, effective_at="1899-12-31T23:59:59.999999Z")) == ["time_out_of_range"]
    ahead = (books.model.now + timedelta(seconds=60) + MICROSECOND).isoformat()
    assert refusal(books.capture(hold, effective_at=ahead), "pointer") == ["time_out_of_range", "/effective_at"]
    assert books.capture(hold, (0, 1), keep=True).body["effective_at"] == books.model.now
    assert books.capture(hold, effective_at=at(-3)).body["effective_at"] == START - 3 * HOUR


def test_a_reference_stands_on_a_capture_and_on_a_void(books: Books) -> None:
    funded(books)
    hold, other = held(books, reference="a"), held(books, ("wallet", "shop", 1))
    taken = ["reference_exists", "/reference"]
    assert refusal(books.capture(hold, reference="a"), "pointer") == taken
    assert books.capture(hold, (0, 1), keep=True, reference="b").body["reference"] == "b"
    assert refusal(books.void(other, reference="b"), "pointer") == taken
    assert books.void(other, reference="c").body["reference"] == "c"
    assert refusal(books.post(("bank", "shop", 1), reference="c")) == ["reference_exists"]
    found = books.read_list(Listing("transactions", "main"), 5).body["items"]
    assert [each["reference"] for each in found if each["reference"]] == ["c", "b", "a"]


def test_a_capture_into_closed_books_is_refused_and_a_void_is_not(books: Books) -> None:
    funded(books)
    hold, other = held(books, effective_at=at(-5)), held(books, ("wallet", "shop", 1), effective_at=at(-5))
    books.advance(3600)
    books.close_before(START + HOUR)
    assert refusal(books.capture(hold, effective_at=at(-5)), "pointer") == ["period_closed", "/effective_at"]
    assert refusal(books.capture(hold, effective_at=(START + HOUR - MICROSECOND).isoformat())) == ["period_closed"]
    assert books.capture(hold).body["effective_at"] == START + HOUR
    assert books.void(other).status == 201


def test_a_capture_on_a_frozen_account_waits_until_it_is_open(books: Books) -> None:
    funded(books)
    hold = held(books, ("wallet", "shop", 60), ("bank", "shop", 5))
    books.update("shop", 1, status="frozen")
    first = books.capture(hold, key="k")
    assert refusal(first, "account") == ["account_frozen", "shop"]
    books.update("bank", 1, status="frozen")
    assert refusal(books.capture(hold, (0, 1)), "account") == ["account_frozen", "shop"]
    books.update("shop", 2)
    assert refusal(books.capture(hold, (0, 1)), "account") == ["account_frozen", "bank"]
    books.update("bank", 2)
    assert books.capture(hold, key="k") == Answer(422, first.body, replayed=True)
    assert books.capture(hold).status == 201


def test_a_void_on_a_frozen_account_is_accepted(books: Books) -> None:
    funded(books)
    hold = held(books)
    books.update("wallet", 1, status="frozen")
    books.update("shop", 1, status="frozen")
    assert books.void(hold).status == 201
    assert lines(books, hold) == ["voided", "60 0 60"]
    assert counters(books, "wallet") == ["0", "100", "0", "0", "100", "100"]


def test_an_expiry_does_not_mind_a_frozen_account_or_a_closed_period(books: Books) -> None:
    funded(books)
    hold = held(books, expires_at=at(1))
    books.update("wallet", 1, status="frozen")
    books.advance(3600, look=False)
    books.close_before(START + HOUR)
    assert lines(books, hold) == ["expired", "60 0 60"]


def test_captures_are_refused_in_the_published_order(books: Books) -> None:
    """One request has every fault; as each is mended, the next one is answered."""
    funded(books)
    hold = held(books)
    books.post(("bank", "shop", 1), reference="r")
    books.update("wallet", 1, status="frozen")
    books.close_before(START - HOUR)
    early, out = at(-2), "1899-12-31T23:59:59Z"
    assert refusal(books.capture(hold + 9, (0, 99), reference="r", effective_at=out)) == ["transaction_not_found"]
    assert refusal(books.capture(hold - 1, (0, 99), reference="r", effective_at=out)) == ["not_pending"]
    assert refusal(books.capture(hold, (0, 99), reference="r", effective_at=out)) == ["time_out_of_range"]
    assert refusal(books.capture(hold, (0, 99), reference="r", effective_at=early)) == ["period_closed"]
    assert refusal(books.capture(hold, (0, 99), reference="r")) == ["reference_exists"]
    assert refusal(books.capture(hold, (0, 99), (1, 1))) == ["account_frozen"]
    books.update("wallet", 2)
    assert refusal(books.capture(hold, (0, 99), (1, 1)), "pointer") == ["capture_exceeds_hold", "/amounts/0/amount"]
    books.void(hold)
    assert refusal(books.capture(hold, (0, 99), reference="r", effective_at=out)) == ["already_voided"]
    assert refusal(books.void(hold, reference="r")) == ["already_voided"]


def test_only_a_hold_is_captured_or_voided(books: Books) -> None:
    funded(books)
    hold = held(books)
    posted, captured = hold - 1, books.capture(hold, (0, 1), keep=True).body["sequence"]
    voided = books.void(hold).body["sequence"]
    reversal = books.reverse(captured).body["sequence"]
    for sequence in (posted, captured, voided, reversal):
        assert refusal(books.capture(sequence)) == ["not_pending"]
        assert refusal(books.void(sequence)) == ["not_pending"]
    for sequence in (1, 2, reversal + 1, 2**53 - 1):
        assert refusal(books.capture(sequence)) == ["transaction_not_found"]
        assert refusal(books.void(sequence)) == ["transaction_not_found"]
        assert refusal(books.reverse(sequence)) == ["transaction_not_found"]


@pytest.mark.parametrize("operation", ["captureTransaction", "voidTransaction", "reverseTransaction"])
def test_a_sequence_guessed_ahead_leaves_its_key_free(books: Books, operation: str) -> None:
    funded(books)
    ahead = books.read_ledger().body["sequence"] + 1
    assert refusal(books.write(operation, "main", "k", {}, about=ahead)) == ["transaction_not_found"]
    books.post(("wallet", "shop", 1)) if operation == "reverseTransaction" else held(books)
    assert books.write(operation, "main", "k", {}, about=ahead).status == 201
    assert books.write(operation, "main", "k", {}, about=ahead).replayed
    assert refusal(books.write(operation, "main", "k", {}, about=ahead - 1)) == ["idempotency_key_reused"]
    assert refusal(books.write(operation, "other", "k", {}, about=ahead)) == ["ledger_not_found"]


def test_a_key_serves_one_operation_on_one_hold(books: Books) -> None:
    funded(books)
    hold, other = held(books), held(books, ("wallet", "shop", 1))
    first = books.capture(hold, (0, 5), keep=True, key="k")
    for again in (
        books.capture(other, (0, 5), keep=True, key="k"),
        books.capture(hold, (0, 5), key="k"),
        books.capture(hold, (0, 6), keep=True, key="k"),
        books.capture(hold, keep=True, key="k"),
        books.void(hold, key="k"),
        books.reverse(hold, key="k"),
    ):
        assert refusal(again) == ["idempotency_key_reused"]
    assert books.capture(hold, (0, 5), keep=True, key="k", metadata={}) == Answer(201, first.body, replayed=True)


def test_releasing_the_remainder_is_meant_if_nothing_is_said(books: Books) -> None:
    funded(books)
    hold = held(books)
    first = books.capture(hold, (0, 5), key="k")
    assert books.capture(hold, (0, 5), key="k", remainder="release") == Answer(201, first.body, replayed=True)
    plain = books.post(("bank", "shop", 1), key="p")
    assert books.post(("bank", "shop", 1), key="p", pending=False) == Answer(201, plain.body, replayed=True)
    assert refusal(books.hold(("bank", "shop", 1), key="p")) == ["idempotency_key_reused"]


def test_replays_of_a_hold_and_of_what_became_of_it_show_the_first_answers(books: Books) -> None:
    funded(books)
    firsts = {"hold": books.hold(("wallet", "shop", 60), ("bank", "shop", 9), key="hold", expires_at=at(9))}
    hold = firsts["hold"].body["sequence"]
    firsts["part"] = books.capture(hold, (0, 20), keep=True, key="part")
    firsts["void"] = books.void(hold, key="void")
    firsts["reverse"] = books.reverse(firsts["part"].body["sequence"], key="reverse")
    firsts["late"] = books.capture(hold, key="late")
    books.post(("bank", "wallet", 7))
    books.advance(10 * 3600)
    again = {
        "hold": books.hold(("wallet", "shop", 60), ("bank", "shop", 9), key="hold", expires_at=at(9)),
        "part": books.capture(hold, (0, 20), keep=True, key="part"),
        "void": books.void(hold, key="void"),
        "reverse": books.reverse(firsts["part"].body["sequence"], key="reverse"),
        "late": books.capture(hold, key="late"),
    }
    assert again == {name: Answer(first.status, first.body, replayed=True) for name, first in firsts.items()}
    assert firsts["late"].body["code"] == "already_voided"


def test_a_hold_names_its_accounts_several_times(books: Books) -> None:
    funded(books)
    hold = held(books, ("wallet", "shop", 10), ("shop", "bank", 5), ("wallet", "shop", 10), ("bank", "wallet", 3))
    assert counters(books, "wallet") == ["0", "100", "20", "3", "100", "80"]
    assert live(books, "wallet") == live(books, "shop") == live(books, "bank") == [hold]
    answer = books.capture(hold, (0, 4), (3, 1), keep=True)
    assert [(p["debit_version"], p["credit_version"]) for p in answer.body["postings"]] == [(5, 4), (4, 6)]
    assert counters(books, "wallet") == ["4", "101", "16", "2", "97", "81"]
    assert books.capture(hold, (2, 10), (1, 5)).status == 201
    assert lines(books, hold) == ["captured", "10 4 6", "5 5 0", "10 10 0", "3 1 2"]
    assert counters(books, "wallet") == ["14", "101", "0", "0", "87", "87"]
    assert counters(books, "shop") == ["5", "14", "0", "0", "9", "9"]


def test_an_account_with_anything_pending_does_not_close(books: Books) -> None:
    funded(books, 0)
    first, second = held(books, ("bank", "shop", 5)), held(books, ("shop", "bank", 5))
    for path in ("shop", "bank"):
        assert refusal(books.update(path, 1, status="closed"), "account") == ["account_not_empty", path]
    books.void(first)
    assert refusal(books.update("shop", 1, status="closed")) == ["account_not_empty"]
    books.void(second)
    assert books.update("shop", 1, status="closed").status == 200


def test_new_limits_are_held_against_what_holds_may_yet_do(books: Books) -> None:
    funded(books)
    held(books)
    minimum, maximum = ["limit_not_met", "/minimum_balance"], ["limit_not_met", "/maximum_balance"]
    assert refusal(books.update("wallet", 1, minimum_balance="41"), "pointer") == minimum
    assert refusal(books.update("shop", 1, maximum_balance="59"), "pointer") == maximum
    assert books.update("wallet", 1, minimum_balance="40", maximum_balance="100").status == 200
    assert books.update("shop", 1, minimum_balance="0", maximum_balance="60").status == 200


def test_an_account_of_which_nothing_is_held_any_more_may_close_before_the_rest_is_captured(books: Books) -> None:
    funded(books)
    books.open("fees", "credit")
    hold = held(books, ("wallet", "fees", 5), ("wallet", "shop", 10))
    books.capture(hold, (0, 5), keep=True)
    books.post(("fees", "bank", 5))
    assert books.update("fees", 1, status="closed").status == 200
    assert books.capture(hold).status == 201


def test_holds_stand_in_batches(books: Books) -> None:
    funded(books, 10)
    keep = {"postings": moves(("wallet", "shop", 10)), "pending": True, "expires_at": at(1)}
    spend = {"postings": moves(("wallet", "shop", 1))}
    head = books.read_ledger().body["sequence"]
    refused = books.write("postTransactionBatch", "main", "a", {"transactions": [keep, spend]})
    assert refusal(refused, "index") == ["batch_refused", 1]
    assert (books.read_ledger().body["sequence"], live(books, "wallet")) == (head, [])
    assert counters(books, "wallet")[5] == "10"
    body = {"transactions": [keep, spend, {**keep, "pending": False, "expires_at": at(1)}]}
    assert refusal(books.write("postTransactionBatch", "main", "b", body)) == ["validation_failed"]
    body = {"transactions": [keep, spend], "atomic": False}
    results = books.write("postTransactionBatch", "main", "b", body).body["results"]
    assert [results[0]["transaction"]["kind"], results[1]["problem"]["code"]] == [
        "transaction_held", "insufficient_funds",
    ]  # fmt: skip
    assert live(books, "wallet") == [head + 1]
    books.advance(3600)
    assert books.write("postTransactionBatch", "main", "c", {"transactions": [spend, spend]}).status == 200


def test_sums_show_what_is_pending(books: Books) -> None:
    funded(books)
    held(books)
    totals = read_sums(books, "totals").body["items"][0]
    assert (totals["debits_pending"], totals["credits_pending"]) == ("60", "60")
    read_sums(books, "trial-balance")
    past = read_sums(books, "totals", prefix="wallet", sequence=6).body["items"][0]
    assert (past["posted"], past["debits_pending"]) == ("100", None)


def test_live_holds_are_listed_newest_or_oldest_first(books: Books) -> None:
    funded(books)
    holds = [held(books, ("wallet", "shop", amount)) for amount in (1, 2, 3, 4, 5)]
    assert live(books, "wallet", "oldest") == holds
    assert live(books, "shop", "newest") == holds[::-1]
    books.capture(holds[1])
    books.void(holds[3])
    books.capture(holds[4], (0, 1), keep=True)
    assert live(books, "wallet") == [holds[0], holds[2], holds[4]]
    assert refusal(books.read_list(Listing("holds", "main", "none"), 5)) == ["account_not_found"]
    assert refusal(books.read_list(Listing("holds", "other", "wallet"), 5)) == ["ledger_not_found"]


# Expiry


def test_a_hold_expires_by_an_event_of_its_own(books: Books) -> None:
    funded(books)
    hold = held(books, group="g", expires_at=at(1), metadata={"a": "b"}, description="d", reference="r")
    books.advance(3600 - 0.000001)
    assert lines(books, hold) == ["pending", "60 0 0"]
    books.advance(0.000001)
    event = books.read_events(hold, 10).body["items"][0]
    posting = {"debit_account": "wallet", "credit_account": "shop", "asset": "USD/2", "amount": "0"}
    assert event["transaction"] == {
        "sequence": hold + 1,
        "kind": "transaction_expired",
        "recorded_at": START + HOUR,
        "effective_at": START + HOUR,
        "expires_at": None,
        "actor": "system",
        "hold": hold,
        "reverses": None,
        "postings": [{**posting, "released": "60", "hold_posting": 0, "debit_version": 3, "credit_version": 2}],
        "reference": None,
        "group": "g",
        "description": None,
        "metadata": {},
    }
    assert (event["actor"], event["kind"]) == ("system", "transaction_expired")
    assert lines(books, hold) == ["expired", "60 0 60"]
    assert counters(books, "wallet") == ["0", "100", "0", "0", "100", "100"]
    for refused in (books.capture(hold), books.void(hold)):
        assert refusal(refused) == ["hold_expired"]


def test_a_hold_captured_in_part_expires_with_the_rest(books: Books) -> None:
    funded(books)
    hold = held(books, ("wallet", "shop", 60), ("wallet", "bank", 10), ("wallet", "shop", 5), expires_at=at(1))
    books.capture(hold, (0, 20), (1, 10), keep=True)
    books.advance(3600)
    event = books.read_events(hold + 1, 10).body["items"][0]["transaction"]
    assert [(p["hold_posting"], p["amount"], p["released"]) for p in event["postings"]] == [
        (0, "0", "40"), (2, "0", "5"),
    ]  # fmt: skip
    assert lines(books, hold) == ["expired", "60 20 40", "10 10 0", "5 0 5"]
    assert refusal(books.capture(hold)) == ["hold_expired"]
    assert counters(books, "wallet") == ["30", "100", "0", "0", "70", "70"]


def test_a_capture_in_the_batch_that_expires_its_hold_comes_too_late(books: Books) -> None:
    funded(books)
    hold = held(books, expires_at=at(1))
    books.advance(3600, look=False)
    assert refusal(books.capture(hold, key="k")) == ["hold_expired"]
    assert expiries(books) == [(hold + 1, hold)]
    assert books.capture(hold, key="k").replayed


def test_a_capture_a_microsecond_before_its_hold_expires_is_in_time(books: Books) -> None:
    funded(books)
    hold = held(books, expires_at=at(1))
    books.advance(3600 - 0.000001)
    assert books.capture(hold, (0, 1), keep=True).status == 201
    books.advance(0.000001, look=False)
    assert refusal(books.void(hold)) == ["hold_expired"]
    assert lines(books, hold) == ["expired", "60 1 59"]


@pytest.mark.parametrize("look", ["account", "accounts", "totals", "transaction", "holds"])
def test_whatever_is_read_of_the_present_is_read_after_the_expiry(books: Books, look: str) -> None:
    funded(books)
    hold = held(books, expires_at=at(1))
    books.advance(3600, look=False)
    if look == "account":
        assert books.read_account("wallet").body["available"] == "100"
    elif look == "accounts":
        listed = books.read_list(Listing("accounts", "main"), 5)
        assert column(listed, "available") == ["100", "0", "100"]
    elif look == "totals":
        assert column(read_sums(books, "totals"), "debits_pending") == ["0"]
    elif look == "transaction":
        assert books.read_transaction(hold).body["hold_status"] == "expired"
    else:
        assert live(books, "wallet") == []
    assert expiries(books) == [(hold + 1, hold)]


def test_the_next_post_finds_what_an_expired_hold_has_given_back(books: Books) -> None:
    funded(books, 60)
    hold = held(books, expires_at=at(1))
    assert refusal(books.post(("wallet", "shop", 60))) == ["insufficient_funds"]
    books.advance(3600, look=False)
    answer = books.post(("wallet", "shop", 60))
    assert (answer.status, answer.body["sequence"]) == (201, hold + 2)
    assert answer.body["postings"][0]["debit_version"] == 4


def test_whatever_is_written_is_written_after_the_expiry(books: Books) -> None:
    """Also what is refused, and what is only answered again."""
    funded(books)
    first = books.hold(("wallet", "shop", 1), expires_at=at(1), key="k")
    held(books, ("wallet", "shop", 1), expires_at=at(2))
    held(books, ("wallet", "shop", 1), expires_at=at(3))
    held(books, ("wallet", "shop", 1), expires_at=at(4))
    for write, number in (
        (lambda: books.hold(("wallet", "shop", 1), expires_at=at(1), key="k"), 1),
        (lambda: books.post(("wallet", "none", 1)), 2),
        (lambda: books.close_before(START), 3),
        (lambda: books.post(("wallet", "shop", 1), key="k"), 4),
    ):
        books.advance(3600, look=False)
        write()
        assert len(expiries(books)) == number
    assert first.body["sequence"] == 6


def test_holds_expire_in_the_order_of_their_times(books: Books) -> None:
    funded(books)
    first = held(books, ("wallet", "shop", 1), expires_at=at(3))
    second = held(books, ("wallet", "shop", 1), expires_at=at(1))
    third = held(books, ("wallet", "shop", 1), expires_at=at(2))
    same = held(books, ("wallet", "shop", 1), expires_at=at(1))
    never = held(books, ("wallet", "shop", 1))
    ended = held(books, ("wallet", "shop", 1), expires_at=at(1))
    head = books.void(ended).body["sequence"]
    books.advance(2 * 3600, look=False)
    assert books.read_account("wallet").body["debits_pending"] == "2"
    assert expiries(books) == [(head + 1, second), (head + 2, same), (head + 3, third)]
    books.advance(86400)
    assert [hold for _, hold in expiries(books)][3:] == [first]
    assert live(books, "wallet") == [never]


def test_a_hold_expires_at_a_time_that_never_falls(books: Books) -> None:
    funded(books)
    hold = held(books, expires_at=at(1))
    books.advance(7200)
    other = held(books, ("wallet", "shop", 1), expires_at=(START + 2 * HOUR + MICROSECOND).isoformat())
    books.advance(-7200)
    assert refusal(books.hold(("wallet", "shop", 1), expires_at=START.isoformat())) == ["time_out_of_range"]
    early = held(books, ("wallet", "shop", 1), expires_at=(START + MICROSECOND).isoformat())
    books.advance(0.000001)
    assert lines(books, hold)[0] == lines(books, early)[0] == "expired"
    assert lines(books, other)[0] == "pending"
    assert books.read_events(early, 1).body["items"][0]["recorded_at"] == START + 2 * HOUR


def test_thousands_of_holds_due_at_once_expire_in_order(books: Books) -> None:
    """More than one batch of the service writes, and one look at the present is enough."""
    count = 2_500
    funded(books, count)
    times = [at(1 + (number * 7) % 11 / 100) for number in range(count)]
    for start in range(0, count, 1_000):
        transactions: list[Body] = [
            {"postings": moves(("wallet", "shop", 1)), "pending": True, "expires_at": time}
            for time in times[start : start + 1_000]
        ]
        answer = books.write("postTransactionBatch", "main", new_key(), {"transactions": transactions})
        assert answer.status == 200
    assert counters(books, "wallet")[5] == "0"
    books.advance(2 * 3600, look=False)
    assert counters(books, "wallet") == ["0", str(count), "0", "0", str(count), str(count)]
    ended = [e["transaction"] for e in books.model.books[books.prefix + "main"].events[5 + count :]]
    assert len(ended) == count
    assert [each["hold"] - 6 for each in ended] == sorted(range(count), key=lambda number: (times[number], number))
    assert live(books, "shop") == []


# Reversals


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

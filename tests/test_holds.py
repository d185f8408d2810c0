"""Holds: what they keep from others, and how they are captured and voided. Each edge is played to the model, and to
the service with it."""

from datetime import datetime, timedelta

import pytest

from tests.comparison import MICROSECOND, START, Books, Listing, column, moves, refusal, statement
from tests.holding import HOUR, at, counters, funded, held, lines, live
from tests.looks import read_sums
from tests.model import AMOUNT_MAX, Answer
from tests.settled import books

__all__ = ["books"]

ZERO = {"captured": "0", "released": "0"}


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


def test_a_hold_never_makes_an_entry_late_however_it_ends(books: Books) -> None:
    """A void and an expiry are effective when they are recorded, and yet date nothing of their accounts."""
    funded(books, 0)
    ahead = (START + timedelta(seconds=60)).isoformat()
    hold = held(books, ("bank", "wallet", 5), effective_at=ahead)
    assert held(books, ("bank", "wallet", 5), effective_at=ahead, expires_at=at(1)) == hold + 1
    books.advance(3600)
    assert books.void(hold).body["effective_at"] == START + HOUR
    assert lines(books, hold + 1) == ["expired", "5 0 5"]
    books.post(("bank", "wallet", 1), effective_at=at(-2))
    assert column(statement(books, "wallet"), "late") == [False]
    captured = held(books, ("bank", "wallet", 5), effective_at=ahead)
    books.capture(captured, effective_at=at(-1))
    books.post(("bank", "wallet", 1), effective_at=at(-0.5))
    books.post(("bank", "wallet", 1), effective_at=at(-1.5))
    assert column(statement(books, "wallet"), "late") == [False, False, False, True]


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
    assert refusal(books.capture(hold, (1, 1)), "account") == ["account_frozen", "bank"]
    books.update("bank", 2)
    assert books.capture(hold, key="k") == Answer(422, first.body, replayed=True)
    assert books.capture(hold).status == 201


def test_a_frozen_account_rejects_only_the_captures_that_post_to_it(books: Books) -> None:
    """Postings that a capture releases or leaves held do not count."""
    funded(books)
    books.open("fees", "credit")
    kept = held(books, ("wallet", "shop", 50), ("wallet", "fees", 5))
    released = held(books, ("wallet", "shop", 10), ("wallet", "fees", 1))
    books.update("fees", 1, status="frozen")
    for amounts in ([], [(1, 1)], [(0, 1), (1, 1)]):
        assert refusal(books.capture(kept, *amounts), "account") == ["account_frozen", "fees"]
    assert books.capture(kept, (0, 20), keep=True).status == 201
    assert books.capture(released, (0, 4)).status == 201
    assert lines(books, kept) == ["pending", "50 20 0", "5 0 0"]
    assert lines(books, released) == ["captured", "10 4 6", "1 0 1"]
    assert refusal(books.capture(kept), "account") == ["account_frozen", "fees"]
    books.update("fees", 2)
    assert books.capture(kept).status == 201


@pytest.mark.parametrize("status", ["frozen", "closed"])
def test_what_has_been_captured_whole_no_longer_counts(books: Books, status: str) -> None:
    """A posting of which nothing remains is not posted again. Only an account with nothing held on it is closed."""
    funded(books)
    books.open("fees", "credit")
    hold = held(books, ("wallet", "fees", 5), ("wallet", "shop", 50), ("bank", "fees", 2))
    assert books.capture(hold, (0, 5), (2, 2), keep=True).status == 201
    assert books.post(("fees", "bank", 7)).status == 201
    assert books.update("fees", 1, status=status).status == 200
    code = {"frozen": "account_frozen", "closed": "capture_exceeds_hold"}[status]
    assert refusal(books.capture(hold, (1, 1), (0, 1))) == [code]
    assert books.capture(hold).status == 201
    assert lines(books, hold) == ["captured", "5 5 0", "50 50 0", "2 2 0"]


def test_the_frozen_account_that_comes_first_in_the_hold_is_named(books: Books) -> None:
    """Whatever the order of `amounts`; of one posting the debited account before the credited one."""
    funded(books)
    books.open("fees", "credit")
    hold = held(books, ("wallet", "shop", 50), ("bank", "fees", 5))
    for path in ("fees", "shop", "bank"):
        books.update(path, 1, status="frozen")
    assert refusal(books.capture(hold, (1, 1), (0, 1)), "account") == ["account_frozen", "shop"]
    assert refusal(books.capture(hold, (1, 1)), "account") == ["account_frozen", "bank"]
    # The amounts are checked last, and a posting that the hold does not have has no accounts.
    assert refusal(books.capture(hold, (7, 1), (1, 99)), "account") == ["account_frozen", "bank"]
    assert refusal(books.capture(hold, (7, 1)), "pointer") == ["capture_exceeds_hold", "/amounts/0/posting"]


def test_what_is_released_on_a_frozen_account_is_accepted_and_what_is_posted_is_reversed(books: Books) -> None:
    """A reversal posts only what was posted, so what was only released does not count there either."""
    funded(books)
    books.open("fees", "credit")
    hold = held(books, ("wallet", "shop", 50), ("bank", "fees", 5))
    books.update("fees", 1, status="frozen")
    captured = books.capture(hold, (0, 50)).body["sequence"]
    assert lines(books, hold) == ["captured", "50 50 0", "5 0 5"]
    assert books.reverse(captured).status == 201


def test_a_void_on_a_frozen_account_is_accepted(books: Books) -> None:
    funded(books)
    hold = held(books)
    books.update("wallet", 1, status="frozen")
    books.update("shop", 1, status="frozen")
    assert books.void(hold).status == 201
    assert lines(books, hold) == ["voided", "60 0 60"]
    assert counters(books, "wallet") == ["0", "100", "0", "0", "100", "100"]


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


@pytest.mark.parametrize("side", ["debit", "credit"])
def test_new_limits_count_what_is_pending_on_their_own_side(books: Books, side: str) -> None:
    """A minimum counts what may yet leave the account, a maximum what may yet come in, and neither counts the other."""
    books.open("bank")
    books.open("a", side)
    raising, lowering = (("a", "bank"), ("bank", "a")) if side == "debit" else (("bank", "a"), ("a", "bank"))
    books.post((*raising, 100))
    held(books, (*raising, 7))
    held(books, (*lowering, 9))
    assert refusal(books.update("a", 1, minimum_balance="92"), "pointer") == ["limit_not_met", "/minimum_balance"]
    assert refusal(books.update("a", 1, maximum_balance="106"), "pointer") == ["limit_not_met", "/maximum_balance"]
    assert books.update("a", 1, minimum_balance="91", maximum_balance="107").status == 200


@pytest.mark.parametrize("side", ["debit", "credit"])
def test_an_account_with_anything_pending_on_one_side_alone_does_not_close(books: Books, side: str) -> None:
    books.open("bank")
    books.open("a", side)
    for postings in (("a", "bank", 5), ("bank", "a", 5)):
        hold = held(books, postings)
        assert refusal(books.update("a", 1, status="closed"), "account") == ["account_not_empty", "a"]
        books.void(hold)
    assert books.update("a", 1, status="closed").status == 200


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

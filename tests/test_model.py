"""The service answers as the model does, edge by edge. Each is played to the model alone, and to both together."""

from datetime import timedelta
from typing import Any

import pytest

from tests.comparison import (
    MICROSECOND,
    START,
    Books,
    Listing,
    column,
    expecting,
    new_key,
    refusal,
    statement,
)
from tests.model import AMOUNT_MAX, Answer, Body
from tests.settled import books

__all__ = ["books"]


def test_a_ledger_begins_with_the_event_that_created_it(books: Books) -> None:
    answer = books.create_ledger("other", description="Ours", metadata={"team": "payments"})
    expected = {
        "name": books.prefix + "other",
        "description": "Ours",
        "metadata": {"team": "payments"},
        "revision": 1,
        "sequence": 1,
        "recorded_at": START,
    }
    assert (answer.status, answer.body) == (201, expected)
    event = {"sequence": 1, "kind": "ledger_created", "recorded_at": START, "actor": "operator"}
    assert books.read_events(0, 10, "other").body["items"] == [{**event, "ledger": expected}]


def test_a_ledger_created_again_is_answered_as_the_first_time(books: Books) -> None:
    first = books.create_ledger("other", description="Ours")
    books.advance(5)
    books.write("createAccount", "other", "k", {"path": "a", "asset": "X/0", "normal_side": "debit"})
    assert books.create_ledger("other", description="Ours") == Answer(201, first.body, replayed=True)
    assert books.read_ledger("other").body == {
        **first.body,
        "closed_before": None,
        "sequence": 2,
        "recorded_at": START + timedelta(seconds=5),
    }


def test_a_ledger_of_the_same_name_with_another_body_is_refused(books: Books) -> None:
    assert refusal(books.create_ledger("main", description="")) == ["ledger_exists"]
    assert refusal(books.create_ledger("main", metadata={"a": "b"})) == ["ledger_exists"]
    assert books.create_ledger("main").replayed


def test_no_metadata_means_the_same_as_empty_metadata(books: Books) -> None:
    assert books.create_ledger("main", metadata={}).replayed
    books.open("a")
    books.open("b")
    books.post(("a", "b", 1), key="k")
    assert books.post(("a", "b", 1), key="k", metadata={}).replayed


def test_an_account_opens_with_its_configuration_and_empty_counters(books: Books) -> None:
    answer = books.open("a:b", "credit", minimum_balance="-5", maximum_balance="0", metadata={"k": "v"})
    configuration = {
        "path": "a:b",
        "asset": "USD/2",
        "normal_side": "credit",
        "status": "open",
        "minimum_balance": "-5",
        "maximum_balance": "0",
        "description": None,
        "metadata": {"k": "v"},
        "revision": 1,
    }
    assert answer.body == {**configuration, "sequence": 2, "recorded_at": START}
    counters = dict.fromkeys(("debits_posted", "credits_posted", "debits_pending", "credits_pending"), "0")
    assert books.read_account("a:b").body == {
        **configuration,
        **counters,
        "version": 0,
        "posted": "0",
        "available": "0",
        "sequence": 2,
    }


def test_an_account_opens_once(books: Books) -> None:
    books.open("a")
    assert refusal(books.open("a"), "account") == ["account_exists", "a"]
    assert refusal(books.open("a", minimum_balance="1"), "account") == ["account_exists", "a"]
    assert books.open("A").status == 201


def test_an_account_whose_limits_rule_out_zero_does_not_open(books: Books) -> None:
    minimum, maximum = ["limit_not_met", "/minimum_balance"], ["limit_not_met", "/maximum_balance"]
    assert refusal(books.open("a", minimum_balance="1"), "pointer") == minimum
    assert refusal(books.open("a", maximum_balance="-1"), "pointer") == maximum
    assert refusal(books.open("a", minimum_balance="5", maximum_balance="-5"), "pointer") == minimum
    assert refusal(books.open("a", minimum_balance="7", maximum_balance="3"), "pointer") == minimum
    assert books.open("a", minimum_balance="0", maximum_balance="0").status == 201


def test_accounts_are_listed_in_bytewise_order(books: Books) -> None:
    for path in ("b", "a:b", "a.b", "_", "B", "a-b", "a", "0", "a0", "a_b", "aB"):
        books.open(path)
    answer = books.read_list(Listing("accounts", "main"), 3)
    assert column(answer, "path") == ["0", "B", "_", "a", "a-b", "a.b", "a0", "a:b", "aB", "a_b", "b"]


def test_a_transaction_moves_value_and_numbers_its_entries(books: Books) -> None:
    books.open("bank")
    books.open("wallet", "credit")
    books.advance(1)
    answer = books.post(("bank", "wallet", 1250), ("wallet", "bank", 250), reference="r", group="g", description="d")
    plain = {"asset": "USD/2", "released": "0", "hold_posting": None}
    moved = {**plain, "debit_account": "bank", "credit_account": "wallet", "amount": "1250"}
    back = {**plain, "debit_account": "wallet", "credit_account": "bank", "amount": "250"}
    assert answer.body == {
        "sequence": 4,
        "kind": "transaction_posted",
        "recorded_at": START + timedelta(seconds=1),
        "effective_at": START + timedelta(seconds=1),
        "expires_at": None,
        "actor": "operator",
        "hold": None,
        "reverses": None,
        "postings": [
            {**moved, "debit_version": 1, "credit_version": 1},
            {**back, "debit_version": 2, "credit_version": 2},
        ],
        "reference": "r",
        "group": "g",
        "description": "d",
        "metadata": {},
    }
    become = {"hold_status": None, "hold_lines": [], "reversed_by": None, "as_of_sequence": 4}
    assert books.read_transaction(4).body == answer.body | become
    wallet = books.read_account("wallet").body
    assert [wallet[name] for name in ("debits_posted", "credits_posted", "posted", "version")] == [
        "250",
        "1250",
        "1000",
        2,
    ]
    assert column(statement(books, "wallet"), "balance") == ["1250", "1000"]
    assert column(statement(books, "bank", order="newest"), "side") == ["credit", "debit"]


def test_an_account_named_several_times_counts_each_posting(books: Books) -> None:
    books.open("a")
    books.open("b", "credit")
    books.open("c", "credit")
    answer = books.post(("a", "b", 1), ("a", "c", 2), ("a", "b", 3), ("a", "b", 3))
    assert [posting["debit_version"] for posting in answer.body["postings"]] == [1, 2, 3, 4]
    assert column(statement(books, "a"), "balance") == ["1", "3", "6", "9"]
    assert column(statement(books, "b"), "balance") == ["1", "4", "7"]


def test_a_posting_needs_two_different_accounts(books: Books) -> None:
    books.open("a")
    assert refusal(books.post(("a", "a", 1), key="k")) == ["validation_failed"]
    books.open("b")
    assert books.post(("a", "b", 1), key="k").status == 201


def test_limits_apply_to_the_result_of_the_whole_transaction(books: Books) -> None:
    books.open("a", minimum_balance="0", maximum_balance="0")
    books.open("b")
    assert books.post(("b", "a", 9), ("a", "b", 9)).status == 201
    assert books.post(("a", "b", 9), ("b", "a", 9)).status == 201
    assert books.post(("a", "b", 9), ("b", "a", 8)).status == 422


def test_insufficient_funds_tell_what_is_available_and_what_is_required(books: Books) -> None:
    books.open("bank", minimum_balance="-100")
    books.open("wallet", "credit", minimum_balance="-10")
    books.post(("bank", "wallet", 5))
    wanted = ("account", "available", "required")
    answer = books.post(("wallet", "bank", 15), ("wallet", "bank", 2), ("bank", "wallet", 1))
    assert refusal(answer, *wanted) == ["insufficient_funds", "wallet", "15", "16"]
    assert refusal(books.post(("wallet", "bank", 16)), *wanted) == [
        "insufficient_funds",
        "wallet",
        "15",
        "16",
    ]
    assert books.post(("wallet", "bank", 15)).status == 201
    answer = books.post(("wallet", "bank", 1))
    assert refusal(answer, *wanted) == ["insufficient_funds", "wallet", "0", "1"]


def test_an_exceeded_maximum_tells_the_room_and_what_is_required(books: Books) -> None:
    books.open("bank")
    books.open("jar", "credit", maximum_balance="10")
    books.post(("bank", "jar", 4))
    answer = books.post(("bank", "jar", 7))
    assert refusal(answer, "account", "available", "required") == ["maximum_exceeded", "jar", "6", "7"]
    assert books.post(("bank", "jar", 6)).status == 201


def test_books_refuse_in_the_published_order(books: Books) -> None:
    """One request has every fault; as each is mended, the next one is answered."""
    books.open("bank", "debit", maximum_balance="10")
    books.open("wallet", "credit", minimum_balance="0")
    books.open("euros", "credit", asset="EUR/2")
    books.open("full", "credit")
    books.open("spent", "debit")
    books.post(("spent", "full", AMOUNT_MAX), reference="r")
    late = (START - timedelta(days=1)).isoformat()

    postings = [("bank", "euros", 11), ("wallet", "spent", 1), ("spent", "full", 1), ("bank", "none", 1)]
    answer = books.post(*postings, reference="r", effective_at="1899-12-31T23:59:59Z")
    assert refusal(answer, "pointer") == ["time_out_of_range", "/effective_at"]
    answer = books.post(*postings, reference="r", effective_at=late)
    assert refusal(answer, "pointer") == ["reference_exists", "/reference"]
    answer = books.post(*postings, reference="s")
    assert refusal(answer, "pointer") == ["unknown_account", "/postings/3/credit_account"]
    answer = books.post(*postings[:3])
    assert refusal(answer, "pointer") == ["asset_mismatch", "/postings/0"]
    postings[0] = ("bank", "spent", 11)
    assert refusal(books.post(*postings[:3]), "account") == ["amount_overflow", "spent"]
    assert refusal(books.post(*postings[:2]), "account") == ["insufficient_funds", "wallet"]
    assert refusal(books.post(postings[0]), "account") == ["maximum_exceeded", "bank"]


def test_the_account_named_first_is_refused_first_and_the_debited_one_before_the_credited(
    books: Books,
) -> None:
    for path in ("z", "y", "x"):
        books.open(path, "credit", minimum_balance="0")
    books.open("bank", "debit", minimum_balance="0")
    assert refusal(books.post(("z", "bank", 1)), "account") == ["insufficient_funds", "z"]
    assert refusal(books.post(("y", "x", 1), ("x", "bank", 9)), "account") == ["insufficient_funds", "y"]
    answer = books.post(("none", "nothing", 1))
    assert refusal(answer, "pointer") == ["unknown_account", "/postings/0/debit_account"]


def test_a_counter_holds_38_digits_and_no_more(books: Books) -> None:
    books.open("a")
    books.open("b", "credit")
    books.open("c")
    assert books.post(("a", "b", AMOUNT_MAX)).status == 201
    assert refusal(books.post(("c", "b", 1)), "account") == ["amount_overflow", "b"]
    assert refusal(books.post(("b", "a", 1), ("a", "b", 1)), "account") == ["amount_overflow", "b"]
    assert books.post(("b", "a", AMOUNT_MAX)).status == 201
    assert books.read_account("a").body["posted"] == "0"
    assert refusal(books.post(("b", "c", 1)), "account") == ["amount_overflow", "b"]


def test_one_transaction_may_name_more_than_a_counter_holds(books: Books) -> None:
    books.open("a")
    books.open("b")
    answer = books.post(("a", "b", AMOUNT_MAX), ("a", "b", AMOUNT_MAX))
    assert refusal(answer, "account") == ["amount_overflow", "a"]


def test_limits_hold_at_the_largest_amounts(books: Books) -> None:
    books.open("a", "credit", minimum_balance=str(-AMOUNT_MAX))
    books.open("b", "debit", minimum_balance="0")
    books.open("c", "debit")
    assert books.post(("c", "a", AMOUNT_MAX)).status == 201
    answer = books.post(("a", "b", AMOUNT_MAX))
    assert refusal(answer, "available", "required") == ["insufficient_funds", "0", str(AMOUNT_MAX)]
    assert books.post(("a", "c", AMOUNT_MAX)).status == 201


def test_effective_times_reach_from_1900_to_a_minute_ahead(books: Books) -> None:
    books.open("a")
    books.open("b")
    ahead = START + timedelta(seconds=60)
    out = ["time_out_of_range", "/effective_at"]
    assert books.post(("a", "b", 1), effective_at=ahead.isoformat()).body["effective_at"] == ahead
    answer = books.post(("a", "b", 1), effective_at=(ahead + MICROSECOND).isoformat())
    assert refusal(answer, "pointer") == out
    assert books.post(("a", "b", 1), effective_at="1900-01-01T00:00:00Z").status == 201
    answer = books.post(("a", "b", 1), effective_at="1899-12-31T23:59:59.999999Z")
    assert refusal(answer, "pointer") == out
    assert refusal(books.post(("a", "b", 1), effective_at="0001-01-01T00:00:00Z"), "pointer") == out
    assert refusal(books.post(("a", "b", 1), effective_at="9999-12-31T23:59:59Z"), "pointer") == out


def test_recorded_at_never_falls_when_the_clock_does(books: Books) -> None:
    books.open("a")
    books.open("b")
    books.advance(-60)
    answer = books.post(("a", "b", 1))
    assert (answer.body["recorded_at"], answer.body["effective_at"]) == (START, START)
    answer = books.post(("a", "b", 1), effective_at=(START + MICROSECOND).isoformat())
    assert refusal(answer, "pointer") == ["time_out_of_range", "/effective_at"]
    books.advance(60.000001)
    assert books.post(("a", "b", 1)).body["recorded_at"] == START + MICROSECOND


def test_nothing_is_recorded_after_an_event_more_than_a_minute_ahead_of_the_clock(books: Books) -> None:
    books.open("a")
    books.open("b")
    first = books.post(("a", "b", 1), key="k")
    expires_at = (START + timedelta(seconds=1)).isoformat()
    books.advance(-60.000001)
    soon = (books.model.now + MICROSECOND).isoformat()
    for answer in (
        books.post(("a", "b", 1), key="other"),
        books.hold(("a", "b", 1), expires_at=expires_at),
        books.open("c"),
        books.close_before(soon),
        books.update("a", 1, description="x"),
        books.update_ledger(1, description="x"),
    ):
        assert refusal(answer) == ["clock_skewed"]
    assert books.read_account("a").body["version"] == 1
    assert books.read_ledger().body["sequence"] == 4
    # What is recorded is answered all the same, and the key of a write that was rejected is free.
    assert books.post(("a", "b", 1), key="k") == Answer(201, first.body, replayed=True)
    assert refusal(books.post(("a", "b", 2), key="k")) == ["idempotency_key_reused"]
    assert refusal(books.open("other", key="k")) == ["idempotency_key_reused"]
    books.advance(0.000001)
    assert books.post(("a", "b", 1), key="other").body["sequence"] == 5


def test_an_entry_is_late_if_its_account_has_seen_a_later_time(books: Books) -> None:
    for path in ("a", "b", "c"):
        books.open(path)
    yesterday = START - timedelta(days=1)
    books.post(("a", "b", 1), effective_at=yesterday.isoformat())
    books.post(("a", "b", 1), effective_at=yesterday.isoformat())
    before = (yesterday - MICROSECOND).isoformat()
    books.post(("a", "c", 1), ("b", "c", 1), ("a", "b", 1), effective_at=before)
    books.post(("c", "b", 1), effective_at=before)
    books.post(("a", "c", 1), effective_at=yesterday.isoformat())
    assert column(statement(books, "a"), "late") == [False, False, True, True, False]
    assert column(statement(books, "b"), "late") == [False, False, True, True, True]
    assert column(statement(books, "c"), "late") == [False, False, False, False]


def test_a_replay_shows_the_first_answer_however_the_books_have_moved_on(books: Books) -> None:
    opened = books.open("a", key="open")
    books.open("b")
    first = books.post(("a", "b", 5), key="k", effective_at="2029-12-31T20:00:00+01:00")
    books.advance(60)
    books.post(("a", "b", 7))
    again = books.post(("a", "b", 5), key="k", effective_at="2029-12-31T19:00:00Z")
    assert again == Answer(201, first.body, replayed=True)
    assert books.open("a", key="open") == Answer(201, opened.body, replayed=True)
    assert books.read_ledger().body["sequence"] == 5


def test_a_refusal_is_frozen_with_its_key(books: Books) -> None:
    books.open("bank")
    books.open("wallet", "credit", minimum_balance="0")
    first = books.post(("wallet", "bank", 5), key="k")
    unknown = books.post(("bank", "new", 5), key="u")
    books.post(("bank", "wallet", 5))
    books.open("new")
    assert books.post(("wallet", "bank", 5), key="k") == Answer(422, first.body, replayed=True)
    assert books.post(("bank", "new", 5), key="u") == Answer(422, unknown.body, replayed=True)
    assert books.post(("wallet", "bank", 5), key="another").status == 201
    assert refusal(books.post(("wallet", "bank", 4), key="k")) == ["idempotency_key_reused"]


def test_a_key_serves_one_request_of_one_operation(books: Books) -> None:
    books.open("a", key="k")
    books.open("b")
    reused = ["idempotency_key_reused"]
    assert refusal(books.post(("a", "b", 1), key="k")) == reused
    assert refusal(books.open("a", "credit", key="k")) == reused
    assert refusal(books.open("a", key="k", description="")) == reused
    assert books.open("a", key="k").replayed
    assert books.open("c", key="K").status == 201
    assert refusal(books.post(("a", "none", 1), key="k", reference="r")) == reused


def test_a_key_is_scoped_to_its_ledger(books: Books) -> None:
    books.open("a", key="k")
    books.create_ledger("other")
    answer = books.write("createAccount", "other", "k", {"path": "b", "asset": "X/0", "normal_side": "debit"})
    assert (answer.status, answer.replayed) == (201, False)


def test_what_the_books_did_not_decide_leaves_the_key_free(books: Books) -> None:
    body = {"path": "a", "asset": "X/0", "normal_side": "debit"}
    assert refusal(books.write("createAccount", "other", "k", body)) == ["ledger_not_found"]
    assert refusal(books.open("a", key=None)) == ["idempotency_key_required"]
    books.create_ledger("other")
    assert books.write("createAccount", "other", "k", body).status == 201


def test_a_reference_is_given_once_and_a_refused_transaction_leaves_it_free(books: Books) -> None:
    books.open("a")
    books.open("b")
    assert refusal(books.post(("a", "none", 1), reference="r")) == [
        "unknown_account",
    ]
    assert books.post(("a", "b", 1), reference="r").status == 201
    answer = books.post(("a", "b", 1), reference="r")
    assert (answer.status, answer.body["pointer"]) == (409, "/reference")
    assert books.post(("a", "b", 1), reference="R").status == 201


def test_a_refusal_takes_no_sequence(books: Books) -> None:
    books.open("a")
    books.open("a")
    books.post(("a", "b", 1))
    assert books.open("b").body["sequence"] == 3


def test_only_a_transaction_is_found_by_its_sequence(books: Books) -> None:
    books.open("a")
    books.open("b")
    sequence = books.post(("a", "b", 1)).body["sequence"]
    assert books.read_transaction(sequence).status == 200
    for other in (1, 2, sequence + 1, 2**53 - 1):
        assert refusal(books.read_transaction(other)) == ["transaction_not_found"]


def test_the_log_is_read_up_to_its_end_and_refused_beyond(books: Books) -> None:
    books.open("a")
    assert column(books.read_events(0, 1000), "sequence") == [1, 2]
    assert column(books.read_events(1, 1), "sequence") == [2]
    assert column(books.read_events(2, 1), "sequence") == []
    assert refusal(books.read_events(3, 1)) == ["sequence_out_of_range"]
    assert refusal(books.read_events(2**53 - 1, 1)) == ["sequence_out_of_range"]


def test_transactions_are_listed_newest_or_oldest_first(books: Books) -> None:
    books.open("a")
    books.open("b")
    for amount in range(1, 6):
        books.post(("a", "b", amount))
    oldest = books.read_list(Listing("transactions", "main", order="oldest"), 2)
    newest = books.read_list(Listing("transactions", "main", order="newest"), 2)
    assert column(oldest, "sequence") == [4, 5, 6, 7, 8]
    assert column(newest, "sequence") == [8, 7, 6, 5, 4]


@pytest.mark.parametrize("books", ["service"], indirect=True)  # the model has no cursors
def test_a_cursor_reads_on_in_its_own_list_alone(books: Books) -> None:
    books.open("a")
    books.open("b")
    books.post(("a", "b", 1), ("a", "b", 2), ("a", "b", 3))
    books.create_ledger("other")
    statement = Listing("entries", "main", "a", "oldest")
    cursor, after = books.read_page(statement, 1)
    assert cursor is not None
    books.post(("a", "b", 4))
    for other in (
        Listing("entries", "main", "b", "oldest"),
        Listing("entries", "main", "a", "newest"),
        Listing("entries", "other", "a", "oldest"),
        Listing("transactions", "main", "", "oldest"),
        Listing("accounts", "main"),
    ):
        books.refuse_cursor(other, cursor)
    books.read_page(statement, 10, cursor=cursor, after=after, say_order=False)
    books.read_page(statement, 10, cursor=cursor, after=after)


def test_what_is_not_there_is_not_found(books: Books) -> None:
    assert refusal(books.read_account("none")) == ["account_not_found"]
    assert refusal(books.read_list(Listing("entries", "main", "none"), 5)) == ["account_not_found"]
    not_found = ["ledger_not_found"]
    assert refusal(books.read_ledger("other")) == not_found
    assert refusal(books.read_account("a", "other")) == not_found
    assert refusal(books.read_transaction(1, "other")) == not_found
    assert refusal(books.read_events(9, 5, "other")) == not_found
    for kind in ("accounts", "entries", "transactions"):
        assert refusal(books.read_list(Listing(kind, "other", "a"), 5)) == not_found


# Conditions


def test_a_posting_may_expect_the_versions_that_its_caller_saw(books: Books) -> None:
    for path in ("a", "b", "c"):
        books.open(path)

    def post(*postings: Body, key: str = "", **fields: Any) -> Answer:
        return books.write("postTransaction", "main", new_key(key), {"postings": list(postings), **fields})

    debit, credit = "/postings/0/expected_debit_version", "/postings/0/expected_credit_version"
    first = post(expecting("a", "b", debit=0, credit=0), key="k")
    assert first.status == 201
    assert "expected_debit_version" not in first.body["postings"][0]
    assert refusal(post(expecting("a", "b", debit=0)), "pointer") == ["version_conflict", debit]
    assert refusal(post(expecting("a", "b", debit=1, credit=2)), "pointer") == ["version_conflict", credit]
    assert refusal(post(expecting("a", "b", debit=2**53 - 1)), "pointer") == ["version_conflict", debit]
    assert post(expecting("c", "b", debit=0)).status == 201
    assert post(expecting("a", "b", debit=1)).status == 201
    assert post(expecting("a", "b", debit=0, credit=0), key="k") == Answer(201, first.body, replayed=True)
    assert refusal(post(expecting("a", "b", debit=0), key="k")) == ["idempotency_key_reused"]
    assert refusal(post(expecting("a", "b"), key="k")) == ["idempotency_key_reused"]


def test_an_expected_version_is_that_before_the_whole_transaction(books: Books) -> None:
    for path in ("a", "b"):
        books.open(path)
    both = [expecting("a", "b", debit=0, credit=0), expecting("b", "a", debit=0, credit=0)]
    assert books.write("postTransaction", "main", "k", {"postings": both}).status == 201
    later = [expecting("a", "b", debit=2), expecting("b", "a", debit=3)]
    answer = books.write("postTransaction", "main", "l", {"postings": later})
    assert refusal(answer, "pointer") == ["version_conflict", "/postings/1/expected_debit_version"]


def test_conditions_are_judged_after_statuses_and_before_amounts(books: Books) -> None:
    books.open("a", minimum_balance="0")
    books.open("b")
    stale = {"postings": [expecting("a", "b", AMOUNT_MAX, debit=1, credit=1), expecting("a", "b", AMOUNT_MAX)]}
    books.update("b", 1, status="frozen")
    assert refusal(books.write("postTransaction", "main", "k1", stale)) == ["account_frozen"]
    books.update("b", 2)
    assert refusal(books.write("postTransaction", "main", "k2", stale)) == ["version_conflict"]
    stale["postings"][0] = expecting("a", "b", AMOUNT_MAX, debit=0, credit=0)
    assert refusal(books.write("postTransaction", "main", "k3", stale)) == ["amount_overflow"]


def test_what_does_not_move_a_version_meets_a_condition(books: Books) -> None:
    books.open("a")
    books.open("b")
    books.update("a", 1, description="changed")
    books.post(("a", "none", 1))
    posting = expecting("a", "b", debit=0)
    assert books.write("postTransaction", "main", "k", {"postings": [posting]}).status == 201

"""How accounts and ledgers are reconfigured, and books closed and reopened: each edge is played to the model, and to
the service with it."""

from datetime import timedelta

from tests.comparison import MICROSECOND, START, Books, refusal
from tests.model import Answer
from tests.settled import books

__all__ = ["books"]


# The life of an account


def test_an_account_is_reconfigured_whole_and_keeps_its_balances(books: Books) -> None:
    books.open("wallet", "credit", minimum_balance="-5", description="Old", metadata={"k": "v"})
    books.open("bank")
    books.post(("bank", "wallet", 5))
    books.advance(1)
    answer = books.update("wallet", 1, maximum_balance="10", metadata={"l": "w"})
    assert (answer.status, answer.body) == (
        200,
        {
            "path": "wallet",
            "asset": "USD/2",
            "normal_side": "credit",
            "status": "open",
            "minimum_balance": None,
            "maximum_balance": "10",
            "description": None,
            "metadata": {"l": "w"},
            "revision": 2,
            "sequence": 5,
            "recorded_at": START + timedelta(seconds=1),
        },
    )
    event = books.read_events(4, 1).body["items"][0]
    assert (event["kind"], event["account"]) == ("account_changed", answer.body)
    after = books.read_account("wallet").body
    assert [after[name] for name in ("revision", "version", "posted", "maximum_balance")] == [2, 1, "5", "10"]
    assert books.post(("wallet", "bank", 50)).status == 201
    assert refusal(books.post(("bank", "wallet", 56)), "required") == ["maximum_exceeded", "56"]


def test_a_reconfiguration_names_the_revision_that_it_saw(books: Books) -> None:
    books.open("a")
    books.open("b")
    stale = ["revision_conflict", "/revision"]
    assert refusal(books.update("a", 2), "pointer") == stale
    assert books.update("a", 1).body["revision"] == 2
    assert refusal(books.update("a", 1, minimum_balance="9"), "pointer") == stale
    assert refusal(books.update("a", 2**53 - 1), "pointer") == stale
    assert books.update("a", 2).body["revision"] == 3
    assert books.update("b", 1).status == 200


def test_a_busy_accounts_balances_do_not_move_its_revision(books: Books) -> None:
    books.open("a")
    books.open("b")
    for _ in range(3):
        books.post(("a", "b", 1))
    assert books.update("a", 1, minimum_balance="3").status == 200
    assert books.read_account("a").body["version"] == 3


def test_an_account_that_is_not_there_is_not_found_and_leaves_the_key_free(books: Books) -> None:
    assert refusal(books.update("a", 1, key="k")) == ["account_not_found"]
    assert refusal(books.update("a", 1, key="k", minimum_balance="0")) == ["account_not_found"]
    books.open("a")
    answer = books.update("a", 1, key="k")
    assert (answer.status, answer.replayed) == (200, False)
    assert refusal(books.update("b", 1, key="k")) == ["idempotency_key_reused"]
    body = {"revision": 1}
    assert refusal(books.write("updateAccount", "other", "k", body, about="a")) == ["ledger_not_found"]


def test_limits_that_present_balances_break_are_refused(books: Books) -> None:
    books.open("wallet", "credit")
    books.open("bank")
    books.post(("bank", "wallet", 5))
    minimum, maximum = ["limit_not_met", "/minimum_balance"], ["limit_not_met", "/maximum_balance"]
    assert refusal(books.update("wallet", 1, minimum_balance="6"), "pointer") == minimum
    assert refusal(books.update("wallet", 1, maximum_balance="4"), "pointer") == maximum
    assert refusal(books.update("wallet", 1, minimum_balance="6", maximum_balance="4"), "pointer") == minimum
    assert books.update("wallet", 1, minimum_balance="5", maximum_balance="5").status == 200
    assert refusal(books.post(("bank", "wallet", 1))) == ["maximum_exceeded"]
    assert refusal(books.post(("wallet", "bank", 1))) == ["insufficient_funds"]


def test_only_an_open_account_takes_postings(books: Books) -> None:
    for path in ("a", "b", "c"):
        books.open(path)
    assert books.update("a", 1, status="frozen").body["status"] == "frozen"
    assert books.update("b", 1, status="closed").body["status"] == "closed"
    assert books.read_account("a").body["status"] == "frozen"
    assert refusal(books.post(("a", "c", 1)), "account") == ["account_frozen", "a"]
    assert refusal(books.post(("c", "b", 1)), "account") == ["account_closed", "b"]
    assert refusal(books.post(("a", "c", 1), ("c", "b", 1)), "account") == ["account_closed", "b"]
    assert books.update("a", 2).body["status"] == "open"
    assert books.update("b", 2, status="open").body["status"] == "open"
    assert books.post(("a", "b", 1)).status == 201


def test_an_account_closes_only_when_it_is_empty(books: Books) -> None:
    books.open("a")
    books.open("b")
    books.post(("a", "b", 5))
    assert refusal(books.update("a", 1, status="closed"), "account") == ["account_not_empty", "a"]
    assert refusal(books.update("b", 1, status="closed"), "account") == ["account_not_empty", "b"]
    books.post(("b", "a", 5))
    assert books.update("a", 1, status="closed", description="Done").status == 200
    assert books.update("a", 2, status="closed", description="Done with").body["revision"] == 3
    assert refusal(books.update("a", 3, status="closed", minimum_balance="1")) == ["limit_not_met"]


def test_between_frozen_and_closed_an_account_passes_through_open(books: Books) -> None:
    books.open("a")
    books.open("b")
    books.post(("a", "b", 5))
    books.update("a", 1, status="frozen")
    assert books.update("a", 2, status="frozen").body["revision"] == 3
    assert refusal(books.update("a", 3, status="closed"), "account") == ["account_frozen", "a"]
    books.update("a", 3)
    books.post(("b", "a", 5))
    books.update("a", 4, status="closed")
    assert refusal(books.update("a", 5, status="frozen"), "account") == ["account_closed", "a"]
    assert books.update("a", 5).status == 200
    assert books.update("a", 6, status="frozen").status == 200


def test_account_writes_are_refused_in_the_published_order(books: Books) -> None:
    """One request has every fault; as each is mended, the next one is answered."""
    books.open("a")
    books.open("b")
    books.post(("a", "b", 5))
    books.update("a", 1, status="frozen")
    wrong = {"status": "closed", "minimum_balance": "6"}
    assert refusal(books.update("c", 1, **wrong)) == ["account_not_found"]
    assert refusal(books.update("a", 1, **wrong)) == ["revision_conflict"]
    assert refusal(books.update("a", 2, **wrong)) == ["limit_not_met"]
    assert refusal(books.update("a", 2, status="closed")) == ["account_frozen"]
    books.update("a", 2)
    assert refusal(books.update("a", 3, status="closed")) == ["account_not_empty"]


def test_a_reconfiguration_replayed_shows_its_own_event(books: Books) -> None:
    books.open("a")
    first = books.update("a", 1, key="k", minimum_balance="-9", metadata={"b": "1", "a": "2"})
    conflict = books.update("a", 1, key="c")
    books.advance(5)
    books.update("a", 2, status="frozen")
    again = books.update("a", 1, key="k", minimum_balance="-9", metadata={"a": "2", "b": "1"}, status="open")
    assert again == Answer(200, first.body, replayed=True)
    assert books.update("a", 1, key="c", metadata={}) == Answer(409, conflict.body, replayed=True)
    assert refusal(books.update("a", 1, key="k", minimum_balance="-9")) == ["idempotency_key_reused"]
    assert refusal(books.update("a", 1, key="c", status="closed")) == ["idempotency_key_reused"]


# The life of a ledger


def test_a_ledger_is_reconfigured_whole_and_its_log_goes_on(books: Books) -> None:
    books.create_ledger("other", description="Ours", metadata={"team": "payments"})
    books.advance(1)
    answer = books.update_ledger(1, ledger="other", metadata={"team": "treasury"})
    changed = {
        "name": books.prefix + "other",
        "description": None,
        "metadata": {"team": "treasury"},
        "revision": 2,
        "sequence": 2,
        "recorded_at": START + timedelta(seconds=1),
    }
    assert (answer.status, answer.body) == (200, changed)
    event = books.read_events(1, 1, "other").body["items"][0]
    assert (event["kind"], event["ledger"]) == ("ledger_changed", changed)
    opening = {"path": "a", "asset": "X/0", "normal_side": "debit"}
    assert books.write("createAccount", "other", "k", opening).body["sequence"] == 3
    assert books.read_ledger("other").body.items() >= (changed | {"sequence": 3}).items()


def test_a_ledger_is_reconfigured_from_the_revision_that_was_seen(books: Books) -> None:
    books.open("a")
    stale = ["revision_conflict", "/revision"]
    assert refusal(books.update_ledger(2), "pointer") == stale
    assert books.update_ledger(1, description="One").body["revision"] == 2
    assert refusal(books.update_ledger(1, description="Two"), "pointer") == stale
    assert books.update_ledger(2, description="Two").body["revision"] == 3
    assert books.read_ledger().body["description"] == "Two"
    assert refusal(books.update_ledger(1, ledger="other", key="k")) == ["ledger_not_found"]


def test_a_ledger_created_again_after_a_change_is_answered_as_the_first_time(books: Books) -> None:
    first = books.create_ledger("other", description="Ours")
    change = books.update_ledger(1, key="k", ledger="other", description="Theirs")
    books.update_ledger(2, ledger="other")
    assert books.create_ledger("other", description="Ours") == Answer(201, first.body, replayed=True)
    assert refusal(books.create_ledger("other", description="Theirs")) == ["ledger_exists"]
    again = books.update_ledger(1, key="k", ledger="other", description="Theirs", metadata={})
    assert again == Answer(200, change.body, replayed=True)
    assert refusal(books.update_ledger(1, key="k", ledger="other")) == ["idempotency_key_reused"]


# Periods

OCTOBER = START - timedelta(days=60)


def test_books_are_closed_before_an_instant_by_somebody_for_a_reason(books: Books) -> None:
    books.open("a")
    books.open("b")
    books.advance(1)
    answer = books.close_before(OCTOBER, reason="September is done")
    period = {
        "closed_before": OCTOBER,
        "reason": "September is done",
        "actor": "operator",
        "sequence": 4,
        "recorded_at": START + timedelta(seconds=1),
    }
    assert (answer.status, answer.body) == (201, period)
    event = books.read_events(3, 1).body["items"][0]
    assert (event["kind"], event["period"]) == ("period_closed", period)
    assert books.read_ledger().body["closed_before"] == OCTOBER
    assert refusal(books.read_transaction(4)) == ["transaction_not_found"]
    early = books.post(("a", "b", 1), effective_at=(OCTOBER - MICROSECOND).isoformat())
    assert refusal(early, "pointer") == ["period_closed", "/effective_at"]
    assert books.post(("a", "b", 1), effective_at=OCTOBER.isoformat()).status == 201
    assert books.post(("a", "b", 1)).status == 201


def test_books_close_up_to_the_clock_and_only_forward(books: Books) -> None:
    out = ["time_out_of_range", "/before"]
    assert refusal(books.close_before(START + MICROSECOND), "pointer") == out
    assert refusal(books.close_before("1899-12-31T23:59:59.999999Z"), "pointer") == out
    assert books.close_before(OCTOBER).status == 201
    assert refusal(books.close_before(OCTOBER), "pointer") == out
    assert refusal(books.close_before(OCTOBER - MICROSECOND), "pointer") == out
    assert books.close_before(OCTOBER + MICROSECOND).status == 201
    assert books.close_before(START).status == 201
    assert refusal(books.close_before(START + MICROSECOND)) == ["time_out_of_range"]


def test_what_happens_now_is_never_in_closed_books(books: Books) -> None:
    books.open("a")
    books.open("b")
    assert books.close_before(START).status == 201
    assert books.post(("a", "b", 1)).body["effective_at"] == START
    books.advance(-60)
    assert books.post(("a", "b", 1)).body["effective_at"] == START
    assert refusal(books.close_before(START), "pointer") == ["time_out_of_range", "/before"]
    assert refusal(books.post(("a", "b", 1), effective_at=books.model.now.isoformat())) == ["period_closed"]


def test_books_are_reopened_to_an_earlier_instant_or_whole(books: Books) -> None:
    books.open("a")
    books.open("b")
    out = ["time_out_of_range", "/before"]
    assert refusal(books.reopen(), "pointer") == out
    assert refusal(books.reopen(OCTOBER), "pointer") == out
    books.close_before(START)
    assert refusal(books.reopen(START), "pointer") == out
    assert refusal(books.reopen(START + MICROSECOND), "pointer") == out
    answer = books.reopen(OCTOBER, reason="The bank was wrong")
    assert [answer.body[name] for name in ("closed_before", "reason")] == [OCTOBER, "The bank was wrong"]
    assert books.read_events(answer.body["sequence"] - 1, 1).body["items"][0]["kind"] == "period_reopened"
    assert books.post(("a", "b", 1), effective_at=OCTOBER.isoformat()).status == 201
    assert refusal(books.post(("a", "b", 1), effective_at=(OCTOBER - MICROSECOND).isoformat())) == ["period_closed"]
    assert books.reopen().body["closed_before"] is None
    assert books.read_ledger().body["closed_before"] is None
    assert books.post(("a", "b", 1), effective_at="1900-01-01T00:00:00Z").status == 201
    assert refusal(books.reopen(), "pointer") == out
    assert books.close_before(OCTOBER).status == 201


def test_closed_books_refuse_after_impossible_times_and_before_references(books: Books) -> None:
    books.open("a")
    books.open("b")
    books.post(("a", "b", 1), reference="r")
    books.close_before(OCTOBER)
    answer = books.post(("a", "none", 1), reference="r", effective_at="1899-12-31T23:59:59Z")
    assert refusal(answer) == ["time_out_of_range"]
    answer = books.post(("a", "none", 1), reference="r", effective_at="2000-01-01T00:00:00Z")
    assert refusal(answer) == ["period_closed"]
    assert refusal(books.post(("a", "none", 1), reference="r", effective_at=OCTOBER.isoformat())) == [
        "reference_exists"
    ]


def test_periods_replayed_show_their_own_events(books: Books) -> None:
    closed = books.close_before(OCTOBER, key="c")
    opened = books.reopen(key="o")
    books.close_before(START)
    assert books.close_before(OCTOBER, key="c") == Answer(201, closed.body, replayed=True)
    assert books.reopen(key="o") == Answer(201, opened.body, replayed=True)
    assert refusal(books.close_before(OCTOBER, key="c", reason="other")) == ["idempotency_key_reused"]
    assert refusal(books.reopen(key="c")) == ["idempotency_key_reused"]

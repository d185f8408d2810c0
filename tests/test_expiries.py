"""Holds whose time has come. Each edge is played to the model, and to the service with it."""

import pytest

from tests.comparison import MICROSECOND, START, Books, Listing, column, moves, new_key, refusal
from tests.holding import HOUR, at, counters, expiries, funded, held, lines, live
from tests.looks import read_sums
from tests.model import Body
from tests.settled import books

__all__ = ["books"]


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
    books.advance(-60)
    now = books.model.now
    assert refusal(books.hold(("wallet", "shop", 1), expires_at=now.isoformat())) == ["time_out_of_range"]
    early = held(books, ("wallet", "shop", 1), expires_at=(now + MICROSECOND).isoformat())
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


def test_an_expiry_does_not_mind_a_frozen_account_or_a_closed_period(books: Books) -> None:
    funded(books)
    hold = held(books, expires_at=at(1))
    books.update("wallet", 1, status="frozen")
    books.advance(3600, look=False)
    books.close_before(START + HOUR)
    assert lines(books, hold) == ["expired", "60 0 60"]

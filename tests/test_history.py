"""Balances, totals and statements of the past: each named edge is played to the model, and to the service with it."""

from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.books import open_account, post, transaction
from tests.comparison import MICROSECOND, START, Books, refusal
from tests.looks import balance, read_sums, statement
from tests.model import AMOUNT_MAX
from tests.settled import books

__all__ = ["books"]


def posted(books: Books, path: str, **as_of: Any) -> str:
    return balance(books, path, **as_of).body["posted"]


def at(days: float) -> datetime:
    return START + timedelta(days=days)


def post_at(books: Books, amount: int, days: float) -> int:
    """Post between two accounts, effective so many days from now; the sequence it got."""
    if not books.model.books[books.prefix + "main"].accounts:
        books.open("a")
        books.open("b", "credit")
    return books.post(("a", "b", amount), effective_at=at(days).isoformat()).body["sequence"]


def test_without_a_bound_the_balance_is_that_of_now(books: Books) -> None:
    sequence = post_at(books, 5, -1)
    answer = {"account": "a", "asset": "USD/2", "normal_side": "debit", "posted": "5", "as_of_effective": None}
    assert balance(books, "a").body == {**answer, "sequence": sequence}
    assert posted(books, "b") == "5"
    post_at(books, 2, -3)
    assert posted(books, "b") == "7"


def test_an_account_without_entries_has_nothing_at_any_time(books: Books) -> None:
    books.open("a")
    assert posted(books, "a", effective=at(-9), recorded=at(9)) == "0"


def test_as_of_an_effective_time_includes_its_instant(books: Books) -> None:
    post_at(books, 5, -1)
    assert posted(books, "a", effective=at(-1)) == "5"
    assert posted(books, "a", effective=at(-1) - MICROSECOND) == "0"


def test_books_closed_before_an_instant_are_the_balance_a_microsecond_earlier(books: Books) -> None:
    post_at(books, 1, -2)
    post_at(books, 2, -1)  # The first instant of the next period.
    assert posted(books, "a", effective=at(-1) - MICROSECOND) == "1"


def test_a_late_entry_counts_from_its_effective_time_once_it_is_known(books: Books) -> None:
    first = post_at(books, 1, -1)
    late = post_at(books, 10, -5)
    later = post_at(books, 100, -3)
    assert [posted(books, "a", effective=at(-4), sequence=s) for s in (first, late, later)] == ["0", "10", "10"]
    assert [posted(books, "a", effective=at(-2), sequence=s) for s in (first, late, later)] == ["0", "10", "110"]
    assert [posted(books, "a", sequence=s) for s in (first, late, later)] == ["1", "11", "111"]


def test_newest_first_books_make_every_entry_late_and_are_right(books: Books) -> None:
    for day in range(1, 8):
        post_at(books, 10**day, -day)
    assert [posted(books, "a", effective=at(-day)) for day in (1, 4, 7, 8)] == ["11111110", "11110000", "10000000", "0"]


def test_entries_of_one_instant_count_together(books: Books) -> None:
    for day in (-2, -1, -2, -1, -2):
        post_at(books, 1, day)
    assert [posted(books, "a", effective=at(day)) for day in (-3, -2, -1)] == ["0", "3", "5"]


def test_what_is_effective_ahead_of_the_clock_is_posted_and_yet_to_come_in_the_books(books: Books) -> None:
    ahead = START + timedelta(seconds=60)
    books.open("a")
    books.open("b")
    books.post(("a", "b", 5), effective_at=ahead.isoformat())
    books.post(("a", "b", 7))
    assert [posted(books, "a", effective=t) for t in (START, ahead - MICROSECOND, ahead)] == ["7", "7", "12"]


def test_as_of_a_recorded_time_is_as_of_the_last_event_recorded_by_then(books: Books) -> None:
    first = post_at(books, 1, 0)
    books.advance(60)
    second = post_at(books, 10, 0)
    third = post_at(books, 100, 0)  # In the same instant.
    minute = START + timedelta(seconds=60)
    for recorded, expected in [
        (START - MICROSECOND, ("0", 0)),
        (START, ("1", first)),
        (minute - MICROSECOND, ("1", first)),
        (minute, ("111", third)),
        (at(9), ("111", third)),
    ]:
        answer = balance(books, "a", recorded=recorded).body
        assert (answer["posted"], answer["sequence"]) == expected
    assert balance(books, "a", recorded=minute, sequence=second).body["sequence"] == second
    assert balance(books, "a", recorded=START, sequence=second).body["sequence"] == first


def test_before_it_was_opened_an_account_has_nothing(books: Books) -> None:
    post_at(books, 1, 0)
    assert [posted(books, "a", sequence=sequence) for sequence in (0, 1, 2, 3)] == ["0"] * 4


def test_a_sequence_that_the_log_does_not_reach_is_refused(books: Books) -> None:
    last = post_at(books, 1, 0)
    for sequence in (last + 1, 2**53 - 1):
        assert refusal(balance(books, "a", sequence=sequence)) == ["sequence_out_of_range"]
        assert refusal(balance(books, "a", sequence=sequence, recorded=START)) == ["sequence_out_of_range"]
        assert refusal(balance(books, "none", sequence=sequence)) == ["account_not_found"]


def test_any_instant_of_the_calendar_may_be_asked_for(books: Books) -> None:
    post_at(books, 1, 0)
    for moment in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"):
        moment = datetime.fromisoformat(moment)
        assert posted(books, "a", effective=moment, recorded=moment) == ("1" if moment.year > 2000 else "0")


# Statements in effective order


def lines(books: Books, path: str, order: str = "oldest", **how: Any) -> list[Any]:
    return statement(books, path, order, **how).body["items"]


def both_ways(books: Books, path: str, limit: int = 2) -> list[tuple[int, str]]:
    """Each line's version and balance, oldest first; read in both orders."""
    oldest = [(line["version"], line["balance"]) for line in lines(books, path, limit=limit)]
    newest = [(line["version"], line["balance"]) for line in lines(books, path, "newest", limit=limit)]
    assert newest == oldest[::-1]
    return oldest


def test_a_statement_in_effective_order_sums_the_balance_along(books: Books) -> None:
    for amount, day in ((1, -3), (10, -1), (100, -2), (1000, -4), (10000, 0)):
        post_at(books, amount, day)
    assert both_ways(books, "a") == [(4, "1000"), (1, "1001"), (3, "1101"), (2, "1111"), (5, "11111")]
    assert both_ways(books, "b", limit=1) == both_ways(books, "a", limit=4)


def test_lines_of_one_instant_stand_in_recorded_order(books: Books) -> None:
    for day in (-1, -2, -1, -2, -1, -2):
        post_at(books, 1, day)
    assert [version for version, _ in both_ways(books, "a", limit=1)] == [2, 4, 6, 1, 3, 5]


def test_newest_first_books_are_turned_round(books: Books) -> None:
    for day in range(1, 8):
        post_at(books, day, -day)
    assert both_ways(books, "a") == [(7, "7"), (6, "13"), (5, "18"), (4, "22"), (3, "25"), (2, "27"), (1, "28")]


def test_pages_in_effective_order_stay_as_they_are_under_backdated_writers(books: Books) -> None:
    for day in (-1, -5, -3, -2, -4):
        post_at(books, 1, day)
    for order in ("oldest", "newest"):
        statement(books, "a", order, limit=1, meanwhile=lambda: [post_at(books, 1, day) for day in (-9, -3, 0)])


def test_an_account_without_entries_has_no_lines_in_either_order(books: Books) -> None:
    books.open("a")
    assert both_ways(books, "a") == []
    assert refusal(statement(books, "none")) == ["account_not_found"]


def test_a_cursor_of_one_sort_does_not_serve_the_other(client: Any, ledger: str) -> None:
    open_account(client, ledger, "a")
    open_account(client, ledger, "b")
    for _ in range(3):
        assert post(client, ledger, transaction("a", "b")).status_code == 201
    url = f"/v1/ledgers/{ledger}/accounts/a/entries"
    cursors = {sort: client.get(url, params={"limit": 1, "sort": sort}).json()["next_cursor"] for sort in SORTS}
    for sort, cursor in cursors.items():
        for beside in SORTS:
            answer = client.get(url, params={"cursor": cursor, "sort": beside})
            assert answer.status_code == (200 if sort == beside else 400), (sort, beside)
        assert len(client.get(url, params={"cursor": cursor}).json()["items"]) == 2


SORTS = ("recorded", "effective")


# Sums


def totals(books: Books, prefix: str | None = None, **as_of: Any) -> dict[str, str]:
    items = read_sums(books, "totals", prefix=prefix, **as_of).body["items"]
    return {item["asset"]: item["posted"] for item in items}


def trial_balance(books: Books, **as_of: Any) -> dict[str, tuple[str, str]]:
    items = read_sums(books, "trial-balance", **as_of).body["items"]
    sides = {item["asset"]: (item["debit_balances"], item["credit_balances"]) for item in items}
    assert all(debits == credits for debits, credits in sides.values())
    return sides


def test_totals_are_below_a_prefix_by_whole_segments(books: Books) -> None:
    books.open("bank")
    for number, path in enumerate(("u", "u:1", "u:1:w", "u-1", "u.1", "u0", "u:10", "u_1", "U:1")):
        books.open(path, "credit")
        books.post(("bank", path, 10**number))
    assert totals(books, "u") == {"USD/2": "1000111"}
    assert totals(books, "u:1") == {"USD/2": "110"}
    assert totals(books, "u:1:w") == {"USD/2": "100"}
    assert totals(books, "u:2") == {}
    assert totals(books) == {"USD/2": str(2 * 111111111)}


def test_totals_are_by_asset_with_their_counters(books: Books) -> None:
    for path, asset in (("a", "USD/2"), ("b", "USD/2"), ("c", "BTC/8"), ("d", "BTC/8"), ("e", "EUR/2")):
        books.open(path, asset=asset)
    sequence = books.post(("a", "b", 5), ("b", "a", 2), ("d", "c", 7)).body["sequence"]
    empty = {"debits_pending": "0", "credits_pending": "0", "posted": "0"}
    assert read_sums(books, "totals").body == {
        "items": [
            {"asset": "BTC/8", "accounts": 2, **empty, "debits_posted": "7", "credits_posted": "7"},
            {"asset": "EUR/2", "accounts": 1, **empty, "debits_posted": "0", "credits_posted": "0"},
            {"asset": "USD/2", "accounts": 2, **empty, "debits_posted": "7", "credits_posted": "7"},
        ],
        "as_of_effective": None,
        "sequence": sequence,
    }
    assert trial_balance(books) == {"BTC/8": ("7", "7"), "EUR/2": ("0", "0"), "USD/2": ("3", "3")}
    assert read_sums(books, "totals", limit=5) == read_sums(books, "totals", limit=2)


def test_sums_may_be_longer_than_a_balance(books: Books) -> None:
    for number in range(4):
        books.open(f"x:{number}", "debit")
        books.open(f"y:{number}", "credit")
        books.post((f"x:{number}", f"y:{number}", AMOUNT_MAX))
    assert totals(books, "y") == {"USD/2": str(4 * AMOUNT_MAX)}
    assert trial_balance(books) == {"USD/2": (str(4 * AMOUNT_MAX),) * 2}


def test_sums_of_the_past_are_of_what_was_posted_and_of_the_accounts_there_were(books: Books) -> None:
    first = post_at(books, 1, -1)
    late = post_at(books, 10, -5)
    books.open("coin", asset="BTC/8")
    assert totals(books, "a", effective=at(-2)) == {"USD/2": "10"}
    assert totals(books, "b", effective=at(-2), sequence=first) == {"USD/2": "0"}
    assert totals(books, sequence=late) == {"USD/2": "22"}
    assert totals(books, sequence=1) == totals(books, recorded=START - MICROSECOND) == {}
    assert totals(books, recorded=START) == {"BTC/8": "0", "USD/2": "22"}
    counters = read_sums(books, "totals", prefix="a", sequence=late).body["items"][0]
    assert counters["debits_posted"] is counters["debits_pending"] is None
    assert trial_balance(books, effective=at(-2)) == {"BTC/8": ("0", "0"), "USD/2": ("10", "10")}
    assert trial_balance(books, sequence=first) == {"USD/2": ("1", "1")}


def test_an_account_that_was_changed_later_was_there_before(books: Books) -> None:
    first = post_at(books, 1, 0)
    books.update("a", 1, description="Changed")
    assert totals(books, "a", sequence=first) == {"USD/2": "1"}
    assert trial_balance(books, sequence=first) == {"USD/2": ("1", "1")}
    assert read_sums(books, "totals", sequence=2).body["items"][0]["accounts"] == 1


def test_a_balance_on_the_other_side_stands_in_the_other_column(books: Books) -> None:
    for path, side in (("a", "debit"), ("b", "credit"), ("c", "debit")):
        books.open(path, side)
    books.post(("b", "a", 4), ("c", "b", 1))
    assert trial_balance(books) == trial_balance(books, effective=at(1)) == {"USD/2": ("4", "4")}


def test_sums_are_refused_where_there_is_nothing_to_sum(books: Books) -> None:
    for what in ("totals", "trial-balance"):
        assert refusal(read_sums(books, what, sequence=2)) == ["sequence_out_of_range"]


def test_a_cursor_of_sums_carries_what_was_asked_and_is_not_contradicted(client: Any, ledger: str) -> None:
    for asset in ("A/0", "B/0", "C/0"):
        open_account(client, ledger, f"x:{asset[0]}", asset=asset)
    asked = {"prefix": "x", "as_of_sequence": 4, "as_of_effective": "2026-01-01T00:00:00Z"}
    url = f"/v1/ledgers/{ledger}/totals"
    first = client.get(url, params={"limit": 1, **asked}).json()
    cursor = {"cursor": first["next_cursor"]}
    rest = [client.get(url, params={**cursor, **beside}).json() for beside in ({}, asked, {"prefix": "x"})]
    assert [[item["asset"] for item in page["items"]] for page in rest] == [["B/0", "C/0"]] * 3
    other = ({"prefix": "y"}, {"as_of_sequence": 3}, {"as_of_recorded": "2026-01-01T00:00:00Z"})
    for beside in other:
        assert client.get(url, params={**cursor, **beside}).json()["code"] == "invalid_cursor"
    assert client.get(f"/v1/ledgers/{ledger}/trial-balance", params=cursor).json()["code"] == "invalid_cursor"
    assert client.get(f"/v1/ledgers/{ledger}/accounts", params=cursor).json()["code"] == "invalid_cursor"


# Whatever the order in which entries arrive, the answer is that of a plain sum.

arrivals = st.one_of(
    st.lists(st.sampled_from([0.0, 0.0, -1.0, -2.0, -86400.0, 1.0, 59.0, 60.0]), min_size=1, max_size=25),
    st.integers(1, 25).map(lambda count: [-float(day) for day in range(count)]),  # newest first
    st.lists(st.floats(-3, 3).map(lambda jitter: round(jitter, 6)), min_size=1, max_size=25),
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    arrivals=arrivals,
    amounts=st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=25, max_size=25),
    asked=st.lists(st.tuples(st.integers(-1, 30), st.integers(0, 30), st.integers(-1, 1)), min_size=1, max_size=12),
)
def test_any_balance_of_the_past_is_a_plain_sum(service: Any, arrivals: Any, amounts: Any, asked: Any) -> None:
    before = service.clock.now
    books = Books(service)
    try:
        books.create_ledger("main")
        books.open("a")
        books.open("b", "credit")
        times = [START]
        for seconds, (amount, forward) in zip(arrivals, amounts, strict=False):
            effective = books.model.now + timedelta(seconds=seconds)
            sides = ("a", "b") if forward else ("b", "a")
            books.post((*sides, amount), effective_at=effective.isoformat())
            times += [effective, books.model.now]
            books.advance(1)
        last = books.model.books[books.prefix + "main"].sequence
        for moment, sequence, nudge in asked:
            effective = times[moment % len(times)] + nudge * MICROSECOND
            bounds: dict[str, Any] = {} if moment < 0 else {"effective": effective}
            if sequence % 3 == 0:
                bounds["sequence"] = min(sequence, last)
            if sequence % 2 == 0:
                bounds["recorded"] = START + timedelta(seconds=sequence)
            for path in ("a", "b"):
                balance(books, path, **bounds)
        both_ways(books, "a", limit=asked[0][1] % 5 + 1)
    finally:
        books.close()
        service.clock.now = before

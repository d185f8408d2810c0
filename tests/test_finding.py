"""Lists with a filter: each named edge is played to the model, and to the service with it."""

from datetime import datetime
from typing import Any

import pytest

from tests.books import open_account, post, transaction
from tests.comparison import MICROSECOND, START, Books
from tests.looks import find
from tests.settled import books
from tests.test_history import at

__all__ = ["books"]


def sequences(books: Books, order: str = "oldest", **filters: Any) -> list[int]:
    return [item["sequence"] for item in find(books, "transactions", order, **filters).body["items"]]


def paths(books: Books, **filters: Any) -> list[str]:
    return [item["path"] for item in find(books, "accounts", **filters).body["items"]]


def both_ways(books: Books, **filters: Any) -> list[int]:
    oldest = sequences(books, **filters)
    for limit in (1, 2, 5):
        assert sequences(books, "newest", limit=limit, **filters) == oldest[::-1]
        assert sequences(books, limit=limit, **filters) == oldest
    return oldest


def test_accounts_are_found_below_a_prefix_by_whole_segments(books: Books) -> None:
    for path in ("a", "a:b", "a:b:c", "a-b", "a.b", "a0", "a:c", "aB", "A:b", "b"):
        books.open(path)
    for limit in (1, 2, 5):
        assert paths(books, prefix="a", limit=limit) == ["a", "a:b", "a:b:c", "a:c"]
        assert paths(books, prefix="a:b", limit=limit) == ["a:b", "a:b:c"]
        assert paths(books, prefix="x", limit=limit) == []


def test_accounts_are_found_by_asset_or_by_status(books: Books) -> None:
    for number, asset in enumerate(("USD/2", "EUR/2", "USD/3", "USD/2", "U/2", "EUR/2", "USD/2")):
        books.open(f"a{number}", asset=asset)
    assert paths(books, asset="USD/2") == ["a0", "a3", "a6"]
    assert paths(books, asset="BTC/8") == []
    assert len(paths(books, status="open")) == 7
    assert paths(books, status="closed") == []


def test_transactions_are_found_by_account_once_each(books: Books) -> None:
    for path in ("a", "b", "c"):
        books.open(path)
    for pairs in ("ab ab ba", "bc", "cb ab", "ac ac ac ac", "bc cb"):
        books.post(*((pair[0], pair[1], 1) for pair in pairs.split()))
    assert both_ways(books, account="a") == [5, 7, 8]
    assert both_ways(books, account="b") == [5, 6, 7, 9]
    assert both_ways(books, account="none") == []


def test_transactions_are_found_by_reference_and_by_group(books: Books) -> None:
    books.open("a")
    books.open("b")
    for number, group in enumerate(("g", "h", "g", None, "G", "g")):
        said = {"reference": f"r{number}"} | ({"group": group} if group else {})
        books.post(("a", "b", 1), **said)
    assert both_ways(books, group="g") == [4, 6, 9]
    assert both_ways(books, group="none") == []
    assert both_ways(books, reference="r4") == [8]
    assert both_ways(books, reference="R4") == []


def effective_books(books: Books) -> None:
    """On-time, backdated, ahead of the clock, and several of one instant."""
    books.open("a")
    books.open("b")
    for day in (None, -1, -3, None, -2, -3, 0, None, 1 / 86400, -1):
        books.post(("a", "b", 1), **({} if day is None else {"effective_at": at(day).isoformat()}))
        books.advance(0.5 if day == -2 else 0)


def test_transactions_are_found_by_effective_time_in_its_order(books: Books) -> None:
    effective_books(books)
    assert both_ways(books, effective_from=at(-9)) == [6, 9, 8, 5, 13, 4, 7, 10, 11, 12]
    assert both_ways(books, effective_to=at(9)) == [6, 9, 8, 5, 13, 4, 7, 10, 11, 12]
    assert both_ways(books, effective_from=START, effective_to=at(9)) == [4, 7, 10, 11, 12]
    assert both_ways(books, effective_from=START + MICROSECOND) == [11, 12]


def test_a_range_begins_with_its_first_instant_and_ends_before_its_last(books: Books) -> None:
    effective_books(books)
    assert both_ways(books, effective_from=at(-3), effective_to=at(-1)) == [6, 9, 8]
    assert both_ways(books, effective_from=at(-1), effective_to=at(-1) + MICROSECOND) == [5, 13]
    assert both_ways(books, effective_from=at(-1), effective_to=at(-1)) == []
    assert both_ways(books, effective_from=at(1), effective_to=at(-9)) == []
    for moment in ("0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999+00:00"):
        assert len(both_ways(books, effective_to=datetime.fromisoformat(moment))) == (0 if moment < "1" else 10)


def test_pages_of_a_range_stay_as_they_are_under_backdated_writers(books: Books) -> None:
    effective_books(books)

    def write() -> None:
        for day in (-9, -3, -1, 0):
            books.post(("a", "b", 1), effective_at=at(day).isoformat())
        books.post(("a", "b", 1))

    for order in ("oldest", "newest"):
        assert len(sequences(books, order, limit=3, meanwhile=write, effective_to=at(9))) >= 10


@pytest.mark.parametrize(
    ("what", "filters"),
    [
        ("accounts", {"prefix": "a", "asset": "USD/2"}),
        ("accounts", {"asset": "USD/2", "status": "open"}),
        ("transactions", {"account": "a", "group": "g"}),
        ("transactions", {"reference": "r", "effective_to": "2026-01-01T00:00:00Z"}),
        ("transactions", {"group": "g", "effective_from": "2026-01-01T00:00:00Z"}),
    ],
)
def test_two_filters_are_refused(client: Any, ledger: str, what: str, filters: dict[str, str]) -> None:
    problem = client.get(f"/v1/ledgers/{ledger}/{what}", params=filters).json()
    assert problem["code"] == "validation_failed"
    assert problem["errors"][0]["pointer"] in filters


FILTERS = [
    {"account": "a"},
    {"group": "g"},
    {"effective_from": "2000-01-01T00:00:00Z"},
    {"effective_from": "2000-01-01T00:00:00Z", "effective_to": "2100-01-01T00:00:00+01:00"},
    {},
]


def test_a_cursor_carries_its_filter_and_is_not_contradicted(client: Any, ledger: str) -> None:
    for path in ("a", "b"):
        open_account(client, ledger, path)
    for _ in range(3):
        post(client, ledger, transaction("a", "b", group="g"))
    url = f"/v1/ledgers/{ledger}/transactions"
    for filters in FILTERS:
        cursor = client.get(url, params={"limit": 1, **filters}).json()["next_cursor"]
        for beside in [*FILTERS, {"account": "b"}, {"group": "G"}, {"reference": "r"}]:
            answer = client.get(url, params={"cursor": cursor, **beside})
            if beside.items() <= filters.items():
                assert len(answer.json()["items"]) == 2
            else:
                assert answer.json()["code"] == "invalid_cursor", (filters, beside)


@pytest.mark.parametrize("where", ["transactions", "transactions?group=g", "accounts/a/entries", "accounts/a/holds"])
@pytest.mark.parametrize(("order", "other"), [("newest", "oldest"), ("oldest", "newest"), (None, "oldest")])
def test_a_cursor_carries_its_order_and_is_not_contradicted(
    client: Any, ledger: str, where: str, order: str | None, other: str
) -> None:
    for path in ("a", "b"):
        open_account(client, ledger, path)
    for pending in (False, True) * 3:
        post(client, ledger, transaction("a", "b", group="g", pending=pending))
    path, _, query = where.partition("?")
    url, filters = f"/v1/ledgers/{ledger}/{path}", dict([query.split("=")] if query else [])
    asked = {} if order is None else {"order": order}
    first = client.get(url, params={"limit": 1, **filters, **asked}).json()
    cursor = {"cursor": first["next_cursor"], "limit": 1}
    second = client.get(url, params=cursor).json()
    assert second["items"] == client.get(url, params={**cursor, "order": order or "newest"}).json()["items"]
    assert client.get(url, params={**cursor, "order": other}).json()["code"] == "invalid_cursor"

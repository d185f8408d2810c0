"""Reads of the past, sums and filtered lists, which the service answers page by page as the model does at once."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from tests.comparison import PAGES_MAX, Books
from tests.model import Answer, Body, in_plain


def balance(books: Books, path: str, *, ledger: str = "main", **as_of: Any) -> Answer:
    """The posted balance of an account, now or as of then."""
    expected = books.model.get_balance(books.prefix + ledger, path, **as_of)
    if books.service is not None:
        got = books.send("GET", f"/{books.prefix}{ledger}/accounts/{path}/balance", params=in_params(as_of))
        books.compare(expected, got)
    return expected


def read_sums(
    books: Books, what: str, *, ledger: str = "main", prefix: str | None = None, limit: int = 1, **as_of: Any
) -> Answer:
    """The totals or the trial balance, now or as of then."""
    name = books.prefix + ledger
    if what == "totals":
        expected = books.model.get_totals(name, prefix, **as_of)
    else:
        expected = books.model.get_trial_balance(name, **as_of)
    params = in_params(as_of) | ({} if prefix is None else {"prefix": prefix})
    return read_pages(books, f"{ledger}/{what}", params, expected, limit)


def statement(
    books: Books, path: str, order: str = "oldest", *, ledger: str = "main", limit: int = 2, meanwhile: Any = None
) -> Answer:
    """The statement by effective time. Its pages are of one point of the log, whoever writes between them."""
    expected = books.model.list_entries_in_effective_order(books.prefix + ledger, path, order)
    params = {"sort": "effective", "order": order}
    return read_pages(books, f"{ledger}/accounts/{path}/entries", params, expected, limit, meanwhile)


def find(
    books: Books,
    what: str,
    order: str = "oldest",
    *,
    ledger: str = "main",
    limit: int = 2,
    meanwhile: Any = None,
    **filters: Any,
) -> Answer:
    """The accounts or the transactions that a filter lets through."""
    name = books.prefix + ledger
    if what == "accounts":
        expected = books.model.list_accounts(name, **filters)
    elif filters.keys() & {"effective_from", "effective_to"}:
        bounds = (filters.get("effective_from"), filters.get("effective_to"))
        expected = books.model.list_transactions_in_effective_order(name, order, *bounds)
    else:
        expected = books.model.list_transactions(name, order, **filters)
    params = {name: in_words(value) for name, value in filters.items()}
    params |= {"order": order} if what == "transactions" else {}
    return read_pages(books, f"{ledger}/{what}", params, expected, limit, meanwhile)


def read_pages(
    books: Books,
    path: str,
    params: Body,
    expected: Answer,
    limit: int,
    meanwhile: Callable[[], Any] | None = None,
) -> Answer:
    """Read a list of the service to its end; others may write between its pages."""
    items: list[Any] = []
    more: Body = params
    for number in range(PAGES_MAX if books.service is not None else 0):
        got = books.send("GET", f"/{books.prefix}{path}", params={"limit": limit, **more})
        if expected.status != 200 or got.status_code != 200:
            books.compare(expected, got)
            break
        page = in_plain(got.json())
        items += page["items"]
        assert len(page["items"]) <= limit
        assert page["items"] or not expected.body["items"], "an empty page, although more is left"
        assert items == expected.body["items"][: len(items)]
        if number == 0 or meanwhile is None:
            assert page == {**expected.body, "items": page["items"], "next_cursor": page["next_cursor"]}
        if page["next_cursor"] is None:
            assert items == expected.body["items"]
            break
        assert items != expected.body["items"], "a next page is promised, but nothing is left"
        more = {"cursor": page["next_cursor"]}
        if meanwhile is not None:
            meanwhile()
    return expected


def in_params(as_of: Body) -> Body:
    return {f"as_of_{name}": in_words(value) for name, value in as_of.items()}


def in_words(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value

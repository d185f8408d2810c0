"""Pages: whatever the size of their items, none is empty, none is too long, and together they are all."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from app.ledger import pages
from tests.books import new_key, open_account, post, transaction
from tests.conftest import serve

BYTES_MAX = 100_000
LONG = ":".join(["p" * 40] * 6)
METADATA = {f"{n:02}" + "n" * 62: "x" * 500 for n in range(50)}
ASSET = "A" * 32 + "/38"
LISTS: list[tuple[str, dict[str, Any]]] = [
    ("", {}),
    ("/wide/events", {}),
    ("/wide/accounts", {}),
    ("/wide/accounts", {"prefix": LONG}),
    ("/wide/accounts", {"asset": ASSET}),
    ("/wide/accounts", {"status": "open"}),
    *(
        (where, {"order": order, **how})
        for order in ("newest", "oldest")
        for where, how in (
            ("/wide/transactions", {}),
            ("/wide/transactions", {"account": LONG}),
            ("/wide/transactions", {"group": "g" * 255}),
            ("/wide/transactions", {"effective_from": "2000-01-01T00:00:00Z"}),
            (f"/wide/accounts/{LONG}/entries", {}),
            (f"/wide/accounts/{LONG}/entries", {"sort": "effective"}),
        )
    ),
]


@pytest.fixture(scope="module")
def wide(new_database: Callable[[], str]) -> Iterator[httpx.Client]:
    """A service with the largest items that the contract lets in, each of which deflates to next to nothing."""
    with serve(new_database()) as service, service.client() as client:
        for name in ("wide", *("l" * 60 + str(n) for n in range(8))):
            assert 201 == client.post("/v1/ledgers", json={"name": name, "metadata": METADATA}).status_code
        paths = [LONG, *(f"{LONG}:{n:08}" for n in range(11))]
        for path in paths:
            open_account(client, "wide", path, asset=ASSET, metadata=METADATA)
        for n in range(18):
            body = transaction(LONG, paths[1 + n % 11], 10**35, group="g" * 255, description='語"' * 500)
            body["postings"] *= 15
            body |= {"reference": '"' * 253 + f"{n:02}", "metadata": METADATA if n % 3 == 0 else {}}
            body |= {"effective_at": f"20{10 + n * 7 % 11}-01-01T00:00:00Z"} if n % 2 else {}
            assert 201 == post(client, "wide", body).status_code
        yield client


def pages_of(client: httpx.Client, where: str, how: dict[str, Any]) -> Iterator[tuple[list[Any], int]]:
    """The items of each page, as many as it gives, and its length in bytes."""
    params = {"limit": 1000} | how
    while True:
        answer = client.get(f"/v1/ledgers{where}", params=params)
        page = answer.json()
        yield page["items"], len(answer.content)
        if "next_after_sequence" in page:
            if page["next_after_sequence"] == page["sequence"]:
                return
            params = params | {"after_sequence": page["next_after_sequence"]}
        elif page["next_cursor"] is None:
            return
        else:
            params = {"limit": 1000, "cursor": page["next_cursor"]}


@pytest.mark.parametrize(("where", "how"), LISTS)
def test_a_page_is_no_longer_than_its_bytes(
    wide: httpx.Client, monkeypatch: pytest.MonkeyPatch, where: str, how: dict[str, Any]
) -> None:
    (whole, length), *rest = pages_of(wide, where, how)
    assert ([], True) == (rest, length > BYTES_MAX)
    monkeypatch.setattr(pages, "PAGE_BYTES_MAX", BYTES_MAX)
    found = list(pages_of(wide, where, how))
    assert [] == [length for _, length in found if length > BYTES_MAX]
    assert whole == [item for items, _ in found for item in items]
    # The estimate is of the longest item there can be, and yet not far from these.
    assert len(found) <= 3 * (length // BYTES_MAX + 1)


@pytest.mark.parametrize(("where", "how"), LISTS)
def test_no_page_is_empty_where_each_item_fills_one(
    wide: httpx.Client, monkeypatch: pytest.MonkeyPatch, where: str, how: dict[str, Any]
) -> None:
    ((whole, _),) = pages_of(wide, where, how)
    monkeypatch.setattr(pages, "PAGE_BYTES_MAX", 1)
    assert [[item] for item in whole] == [items for items, _ in pages_of(wide, where, how)]


def test_a_page_of_ordinary_items_has_as_many_as_were_asked_for(client: httpx.Client, ledger: str) -> None:
    open_account(client, ledger, "bank:cash")
    open_account(client, ledger, "users:42:wallet")
    said = {"reference": None, "description": "Card deposit", "metadata": {"customer": "42", "channel": "web"}}
    bodies = [transaction("bank:cash", "users:42:wallet", **(said | {"reference": f"r{n}"})) for n in range(1000)]
    url = f"/v1/ledgers/{ledger}/transaction-batches"
    body = json.dumps({"transactions": bodies, "atomic": True})
    headers = {"Idempotency-Key": new_key(), "Content-Type": "application/json"}
    assert 200 == client.post(url, content=body, headers=headers).status_code
    for where in ("transactions", "events", "accounts/bank:cash/entries"):
        for how in ({}, {"sort": "effective"}) if where.endswith("entries") else ({},):
            page = client.get(f"/v1/ledgers/{ledger}/{where}", params={"limit": 1000, **how}).json()
            assert 1000 == len(page["items"])

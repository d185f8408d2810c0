"""`Cache-Control`: what is kept will never be answered otherwise, and everything else is kept by nobody."""

from typing import Any

import httpx
import pytest

from app.api.caching import IS_PAST, PAST, PAST_SECONDS, never
from app.server import full_house
from tests.books import new_key, open_account, post, transaction
from tests.conformance import resolve
from tests.test_contract import OPERATIONS

KEPT = PAST.decode()
PAST_READS = ["accounts/wallet/balance", "totals", "totals?prefix=wallet", "trial-balance"]


@pytest.fixture
def books(client: httpx.Client, ledger: str) -> str:
    """The address of a ledger of four events: its creation, two accounts, and one transaction."""
    for path in ("cash", "wallet"):
        open_account(client, ledger, path)
    assert post(client, ledger, transaction("cash", "wallet", 5)).json()["sequence"] == 4
    return f"/v1/ledgers/{ledger}"


def go_on(client: httpx.Client, books: str) -> None:
    """Whatever may still happen: other amounts, backdated ones, other accounts, another asset, a hold, a freeze."""
    ledger = books.rsplit("/", 1)[1]
    open_account(client, ledger, "wallet:more")
    open_account(client, ledger, "wallet:points", asset="POINTS/0")
    for changes in ({}, {"effective_at": "1999-01-01T00:00:00Z"}, {"pending": True}):
        assert post(client, ledger, transaction("wallet", "wallet:more", 3, **changes)).status_code == 201
    reversal = client.post(f"{books}/transactions/4/reverse", json={}, headers={"Idempotency-Key": new_key()})
    frozen = client.put(
        f"{books}/accounts/wallet",
        json={"revision": 1, "status": "frozen", "description": "new"},
        headers={"Idempotency-Key": new_key()},
    )
    assert [201, 200] == [reversal.status_code, frozen.status_code], frozen.text


def get(client: httpx.Client, address: str, *, kept: bool) -> dict[str, Any]:
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == (KEPT if kept else "no-store"), address
    assert ("authorization" in answer.headers.get("vary", "").lower()) == kept
    return answer.json()


def test_a_page_that_ends_before_the_log_does_is_kept_and_stays_as_it_is(client: httpx.Client, books: str) -> None:
    pages = [f"{books}/events?limit=2", f"{books}/events?after_sequence=1&limit=2&wait_seconds=1"]
    first = [get(client, page, kept=True) for page in pages]
    go_on(client, books)
    for page, before in zip(pages, first, strict=True):
        after = get(client, page, kept=True)
        assert after.pop("sequence") > before.pop("sequence")
        assert after == before


@pytest.mark.parametrize(
    "query", ["", "?limit=4", "?after_sequence=2", "?after_sequence=4", "?after_sequence=3&limit=1"]
)
def test_a_page_that_reaches_the_end_of_the_log_is_not(client: httpx.Client, books: str, query: str) -> None:
    get(client, f"{books}/events{query}", kept=False)


@pytest.mark.parametrize("read", PAST_READS)
def test_what_was_known_at_a_sequence_is_kept_and_stays_as_it_is(client: httpx.Client, books: str, read: str) -> None:
    ask = f"{books}/{read}{'&' if '?' in read else '?'}"
    pasts = [f"{ask}as_of_sequence={sequence}" for sequence in (0, 3, 4)]
    pasts.append(f"{ask}as_of_sequence=4&as_of_effective=2026-01-01T00:00:00Z")
    pasts.append(f"{ask}as_of_sequence=4&as_of_recorded=2999-01-01T00:00:00Z")
    before = [get(client, past, kept=True) for past in pasts]
    go_on(client, books)
    assert [get(client, past, kept=True) for past in pasts] == before


@pytest.mark.parametrize("read", PAST_READS)
def test_what_a_time_alone_names_is_not(client: httpx.Client, books: str, read: str) -> None:
    """Not even a recorded one: more may be recorded at the same instant."""
    ask = f"{books}/{read}{'&' if '?' in read else '?'}"
    for query in ("", "as_of_effective=2026-01-01T00:00:00Z", "as_of_recorded=2999-01-01T00:00:00Z"):
        get(client, (ask + query).rstrip("?&"), kept=False)


def test_a_cursor_carries_the_sequence_that_its_page_is_read_at(client: httpx.Client, ledger: str) -> None:
    for path in ("a", "b", "c"):
        open_account(client, ledger, path, asset=f"{path.upper()}SSET/0")
    for read in ("totals", "trial-balance"):
        address = f"/v1/ledgers/{ledger}/{read}"
        fixed, present = (client.get(f"{address}?limit=1{more}").json() for more in ("&as_of_sequence=4", ""))
        get(client, f"{address}?cursor={fixed['next_cursor']}", kept=True)
        get(client, f"{address}?cursor={present['next_cursor']}", kept=False)


def test_no_refusal_is_kept(client: httpx.Client, books: str) -> None:
    later = f"{books}/accounts/later/balance?as_of_sequence=2"
    answers = [
        client.get(f"{books}/events?after_sequence=99&limit=1"),
        client.get(f"{books}/totals?as_of_sequence=99"),
        client.get(later),
        client.get(f"{books}/totals?as_of_sequence=2", headers={"Authorization": "Bearer nobody"}),
        client.get(f"{books}/totals?as_of_sequence=2", headers={"Accept": "text/html"}),
    ]
    assert [422, 422, 404, 401, 406] == [answer.status_code for answer in answers]
    assert {answer.headers["cache-control"] for answer in answers} == {"no-store"}
    open_account(client, books.rsplit("/", 1)[1], "later")
    assert get(client, later, kept=True)["posted"] == "0"


def test_nor_is_what_a_full_server_says() -> None:
    assert b"\r\ncache-control: no-store\r\n" in full_house().lower()


def test_the_table_has_every_operation() -> None:
    assert set(OPERATIONS) == set(IS_PAST)


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_contract_says_of_every_answer_what_the_table_does(name: str) -> None:
    method, _, said = OPERATIONS[name]
    for status, response in said["responses"].items():
        headers = resolve(response)["headers"]
        may_be_kept = status == "200" and IS_PAST[name] is not never
        expected = "Cache-Control-Past" if may_be_kept else "Cache-Control"
        assert headers["Cache-Control"] == {"$ref": f"#/components/headers/{expected}"}, status
        assert method == "get" or not may_be_kept
        assert "Vary" in headers or not may_be_kept


def test_a_restored_backup_is_not_hidden_for_long() -> None:
    assert PAST_SECONDS <= 3600

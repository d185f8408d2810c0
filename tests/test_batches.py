"""Batches of transactions: all or none, or each by itself, under one key."""

import asyncio
import json
import time
from datetime import timedelta
from typing import Any

import httpx
import pytest

from tests.books import check_invariants, fetch_now, new_key, open_account, post, transaction
from tests.conftest import Service


@pytest.fixture
def books(client: httpx.Client, ledger: str) -> str:
    """A ledger with a bank, and a wallet that cannot be overdrawn."""
    open_account(client, ledger, "bank")
    open_account(client, ledger, "wallet", normal_side="credit", minimum_balance="0")
    open_account(client, ledger, "other", asset="EUR/2")
    return ledger


def send(client: httpx.Client, ledger: str, bodies: list[Any], key: str | None = None, **fields: Any) -> httpx.Response:
    headers = {"Idempotency-Key": key or new_key()}
    content = {"transactions": bodies, **fields}
    return client.post(f"/v1/ledgers/{ledger}/transaction-batches", json=content, headers=headers)


def posted(client: httpx.Client, ledger: str, path: str) -> str:
    return client.get(f"/v1/ledgers/{ledger}/accounts/{path}").json()["posted"]


def head(client: httpx.Client, ledger: str) -> int:
    return client.get(f"/v1/ledgers/{ledger}").json()["sequence"]


IN = transaction("bank", "wallet", 100)
OUT = transaction("wallet", "bank", 70)


def test_later_transactions_see_what_earlier_ones_did(client, books):
    """The wallet is empty before; what the first brings in, the second may take out."""
    answer = send(client, books, [IN, OUT])
    assert 200 == answer.status_code
    results = answer.json()["results"]
    assert [5, 6] == [each["transaction"]["sequence"] for each in results]
    assert "30" == posted(client, books, "wallet")
    for each in results:
        read = client.get(f"/v1/ledgers/{books}/transactions/{each['transaction']['sequence']}").json()
        assert each["transaction"].items() <= read.items()


def test_an_atomic_batch_is_refused_as_a_whole(client, books):
    """The third takes too much: nothing of the first two remains, and the answer says which it was and why."""
    before = head(client, books)
    answer = send(client, books, [IN, OUT, OUT])
    assert 422 == answer.status_code
    problem = answer.json()
    assert ("batch_refused", 2) == (problem["code"], problem["index"])
    assert ("insufficient_funds", "30", "70") == tuple(problem["problem"][n] for n in ("code", "available", "required"))
    assert ("0", before) == (posted(client, books, "wallet"), head(client, books))


def test_a_refused_batch_is_frozen_with_its_key(client, books):
    first = send(client, books, [OUT], key="frozen")
    assert 422 == first.status_code
    assert 201 == post(client, books, IN).status_code
    again = send(client, books, [OUT], key="frozen")
    assert "true" == again.headers["Idempotency-Replayed"]
    assert _steady(first) == _steady(again)
    assert 200 == send(client, books, [OUT]).status_code


def test_each_by_itself_is_recorded_or_refused(client, books):
    bodies = [OUT, IN, OUT, transaction("bank", "nobody"), transaction("bank", "other"), OUT, IN]
    answer = send(client, books, bodies, atomic=False)
    assert 200 == answer.status_code
    results = answer.json()["results"]
    expected = ["insufficient_funds", 5, 6, "unknown_account", "asset_mismatch", "insufficient_funds", 7]
    assert expected == [_outcome(each) for each in results]
    assert "/postings/0/credit_account" == results[3]["problem"]["pointer"]
    assert "130" == posted(client, books, "wallet")


def test_a_batch_of_refusals_alone_changes_nothing_but_its_key(client, books):
    before = head(client, books)
    answer = send(client, books, [OUT, OUT], key="none", atomic=False)
    assert ["insufficient_funds"] * 2 == [_outcome(each) for each in answer.json()["results"]]
    assert before == head(client, books)
    assert 201 == post(client, books, IN).status_code
    again = send(client, books, [OUT, OUT], key="none", atomic=False)
    assert answer.content == again.content


@pytest.mark.parametrize("atomic", [True, False])
def test_a_replay_answers_the_first_answer_after_later_state(client, books, atomic):
    bodies = [IN, OUT] if atomic else [OUT, IN, OUT]
    first = send(client, books, bodies, key="again", atomic=atomic)
    assert 200 == first.status_code
    assert 201 == post(client, books, IN).status_code
    again = send(client, books, bodies, key="again", atomic=atomic)
    assert "true" == again.headers["Idempotency-Replayed"]
    assert first.content == again.content
    assert 422 == send(client, books, [IN], key="again").status_code


def test_defaults_and_empty_metadata_mean_the_same(client, books):
    first = send(client, books, [IN], key="same")
    again = send(client, books, [{**IN, "metadata": {}}], key="same", atomic=True)
    assert (200, "true") == (again.status_code, again.headers["Idempotency-Replayed"])
    assert first.content == again.content


def test_references_are_unique_within_a_batch_too(client, books):
    named = {**IN, "reference": "r"}
    problem = send(client, books, [named, named]).json()
    assert (1, "reference_exists") == (problem["index"], problem["problem"]["code"])
    results = send(client, books, [named, named], atomic=False).json()["results"]
    assert [5, "reference_exists"] == [_outcome(each) for each in results]
    # The batch that was taken back has not used the reference up; the one that was recorded has.
    assert 409 == post(client, books, named).status_code


def test_an_atomic_batch_of_holds_that_is_rejected_leaves_no_row(service, client, books):
    """Neither of its holds nor of their lines, and no expiry for the ledger to wait for."""
    held = {**IN, "pending": True, "expires_at": (service.clock.now + timedelta(hours=1)).isoformat()}
    answer = send(client, books, [held, {**IN, "pending": True}, OUT])
    assert ("batch_refused", 2) == (answer.json()["code"], answer.json()["index"])
    said = "select next_expiry, {} as rows from heads h join ledgers l using (ledger_id) where name = $1"
    counted = "(select count(*) from {} x where x.ledger_id = h.ledger_id)"
    for table in ("holds", "hold_lines", "entries"):
        assert [(None, 0)] == fetch_now(service.database, said.format(counted.format(table)), books)
    assert 200 == send(client, books, [held, IN]).status_code


def test_refuses_what_no_books_could_allow(client, books):
    same = transaction("bank", "bank")
    problem = send(client, books, [IN, same]).json()
    assert "/transactions/1/postings/0/credit_account" == problem["errors"][0]["pointer"]
    wide = {"postings": IN["postings"] * 500}
    problem = send(client, books, [wide] * 5).json()
    assert ("validation_failed", "/transactions") == (problem["code"], problem["errors"][0]["pointer"])
    assert 422 == send(client, books, [IN] * 1001).status_code
    assert 422 == send(client, books, []).status_code
    assert 413 == send(client, books, [{**IN, "description": "x" * 999}] * 1000 + [{"x": "y" * 1_200_000}]).status_code


def test_a_thousand_transactions_hold_nobody_up(books: str, service: Service):
    """Single posts go on between large batches, the event loop is never blocked for long, and the books balance."""
    asyncio.run(_stream_of_batches(service, books))


async def _stream_of_batches(service: Service, ledger: str) -> None:
    headers = {"Authorization": f"Bearer {service.key}"}
    body = json.dumps({"transactions": [IN] * 1000}).encode()
    async with httpx.AsyncClient(base_url=service.url, headers=headers, timeout=60) as client:
        done = asyncio.Event()
        singles: list[float] = []

        async def post_batches() -> None:
            for _ in range(6):
                typed = {"Idempotency-Key": new_key(), "Content-Type": "application/json"}
                path = f"/v1/ledgers/{ledger}/transaction-batches"
                answer = await client.post(path, content=body, headers=typed)
                assert 200 == answer.status_code
            done.set()

        async def post_singles() -> None:
            while not done.is_set():
                started = time.monotonic()
                typed = {"Idempotency-Key": new_key()}
                answer = await client.post(f"/v1/ledgers/{ledger}/transactions", json=IN, headers=typed)
                assert 201 == answer.status_code
                singles.append(time.monotonic() - started)

        await asyncio.gather(post_batches(), post_singles())
        wallet = (await client.get(f"/v1/ledgers/{ledger}/accounts/wallet")).json()
    assert str(100 * (6000 + len(singles))) == wallet["posted"]
    # One caller, who posts again as soon as it is answered, and so waits for one batch each time, and no more.
    assert len(singles) >= 5
    await check_invariants(service.database)


def _outcome(result: dict[str, Any]) -> Any:
    return result["problem"]["code"] if "problem" in result else result["transaction"]["sequence"]


def _steady(answer: httpx.Response) -> dict[str, Any]:
    return {name: value for name, value in answer.json().items() if name != "request_id"}

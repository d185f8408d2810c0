"""`Location`: what a 201 has created is got where it says, on a replay as well."""

from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.books import new_key, open_account, transaction
from tests.conformance import DOCUMENT, resolve
from tests.test_contract import OPERATIONS

# What is created without an address of its own: an event that only the log shows, and a key that is only listed.
WITHOUT = {"closePeriod", "reopenPeriod", "createApiKey"}


def write(client: httpx.Client, path: str, body: dict[str, Any]) -> httpx.Response:
    """The answer to a write, which its replay has repeated to the letter, `Location` included."""
    headers = {"Idempotency-Key": new_key()}
    first, again = (client.post(path, json=body, headers=headers) for _ in range(2))
    assert (first.status_code, first.headers["location"]) == (201, again.headers["location"]), first.text
    assert again.headers["idempotency-replayed"] == "true"
    return first


def follow(client: httpx.Client, answer: httpx.Response) -> dict[str, Any]:
    """What is found where the answer says: the reference is relative to the address that was asked."""
    found = client.get(answer.request.url.join(answer.headers["location"]))
    assert found.status_code == 200, found.text
    return found.json()


def test_a_ledger_is_where_its_creation_says(client: httpx.Client, ledger: str) -> None:
    answer = write(client, "/v1/ledgers", {"name": f"{ledger}.b-c_D"})
    assert answer.headers["location"] == f"/v1/ledgers/{ledger}.b-c_D"
    assert follow(client, answer)["name"] == f"{ledger}.b-c_D"


@pytest.mark.parametrize("path", ["cash", "users:42:wallet", "_a.b-c:D_.-:9", "a:" * 127 + "a"])
def test_an_account_is_where_its_opening_says(client: httpx.Client, ledger: str, path: str) -> None:
    body = {"path": path, "asset": "USD/2", "normal_side": "debit"}
    answer = write(client, f"/v1/ledgers/{ledger}/accounts", body)
    assert answer.headers["location"] == f"/v1/ledgers/{ledger}/accounts/{path}"
    assert follow(client, answer)["path"] == path


def test_what_is_said_of_a_transaction_has_an_address_of_its_own(client: httpx.Client, ledger: str) -> None:
    """A capture, a void and a reversal lead to themselves, not to what they are about."""
    for path in ("cash", "wallet"):
        open_account(client, ledger, path)
    at = f"/v1/ledgers/{ledger}/transactions"
    post = write(client, at, transaction("cash", "wallet", 5))
    captured, voided = (write(client, at, transaction("cash", "wallet", 5, pending=True)) for _ in range(2))
    said = [
        post,
        captured,
        voided,
        write(client, f"{captured.headers['location']}/capture", {}),
        write(client, f"{voided.headers['location']}/void", {}),
        write(client, f"{post.headers['location']}/reverse", {}),
    ]
    for answer in said:
        assert answer.headers["location"] == f"{at}/{answer.json()['sequence']}"
        assert follow(client, answer)["kind"] == answer.json()["kind"]
    assert len({answer.headers["location"] for answer in said}) == len(said)


def test_it_is_the_same_however_the_path_was_written(client: httpx.Client, ledger: str) -> None:
    for path in ("cash", "wallet"):
        open_account(client, ledger, path)
    encoded = "".join(f"%{ord(each):02X}" for each in ledger)
    body, headers = transaction("cash", "wallet"), {"Idempotency-Key": "encoded"}
    answer = client.post(f"/v1/ledgers/{encoded}/transactions", json=body, headers=headers)
    assert answer.headers["location"] == f"/v1/ledgers/{ledger}/transactions/{answer.json()['sequence']}"


def test_a_refusal_and_a_batch_have_none(client: httpx.Client, ledger: str) -> None:
    """A batch makes many, or none: each result names its sequence."""
    at = f"/v1/ledgers/{ledger}"
    refused = client.post(f"{at}/transactions", json=transaction("a", "b"), headers={"Idempotency-Key": "a"})
    batch = {"transactions": [transaction("a", "b")], "atomic": False}
    done = client.post(f"{at}/transaction-batches", json=batch, headers={"Idempotency-Key": "b"})
    assert [422, 200] == [refused.status_code, done.status_code]
    assert "location" not in refused.headers
    assert "location" not in done.headers


@pytest.mark.parametrize("name", OPERATIONS)
def test_the_contract_says_which_answers_have_one(name: str) -> None:
    for status, response in OPERATIONS[name][2]["responses"].items():
        said = resolve(response)
        expected = status == "201" and name not in WITHOUT
        assert expected == ("Location" in said["headers"]) == ("x-location" in said), status
        if expected:
            assert OPERATIONS[said["links"][said["x-location"]]["operationId"]][0] == "get"


@given(st.data())
def test_no_name_needs_percent_encoding(data: st.DataObject) -> None:
    for schema in ("LedgerName", "AccountPath"):
        pattern = DOCUMENT["components"]["schemas"][schema]["pattern"]
        name = data.draw(st.from_regex(pattern.removesuffix("$") + r"\Z"))
        assert quote(name, safe=":") == name

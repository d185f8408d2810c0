"""The page on threats: every test that it names is there, and what no other test shows is shown here."""

import ast
import re
from typing import Any

import httpx
import pytest

from tests.books import open_account, post, transaction
from tests.conformance import DOCUMENT
from tests.conftest import ROOT, Service
from tests.test_contract import OPERATIONS

PAGE = (ROOT / "docs/threats.md").read_text()
RISKS = [line for line in PAGE.splitlines() if line.startswith("| API")]


def test_the_ten_risks_are_answered_one_by_one() -> None:
    assert [line.split()[1] for line in RISKS] == [f"API{number}" for number in range(1, 11)]


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(tests/\w+\.py::\w+)`", PAGE))))
def test_a_test_that_the_page_names_is_there(name: str) -> None:
    file, function = name.split("::")
    tree = ast.parse((ROOT / file).read_text())
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_answer_to_a_risk_is_shown_by_a_test() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| Risk", "| | "))]
    assert len(rows) == 15
    assert [row for row in rows if not re.search(r"`tests/\w+\.py::\w+`", row.split("|")[3])] == []


@pytest.mark.parametrize("name", [name for name, (_, _, said) in OPERATIONS.items() if said.get("security") != []])
@pytest.mark.parametrize("authorization", [None, "Bearer nobody-knows-this-secret", "Basic Og==", "Bearer"])
def test_every_operation_but_the_health_checks_needs_a_key(
    service: Service, name: str, authorization: str | None
) -> None:
    """Before anything else is looked at: the ledger is not there, and the body is none."""
    method, path, _ = OPERATIONS[name]
    path = path.replace("{ledger}", "nobodys").replace("{account}", "a").replace("{sequence}", "1")
    headers = {"Authorization": authorization} if authorization else {}
    answer = httpx.request(method, service.url + path, headers=headers)
    assert (401, "unauthenticated") == (answer.status_code, answer.json()["code"])


def test_only_the_health_checks_are_open() -> None:
    assert [name for name, (_, _, said) in OPERATIONS.items() if said.get("security") == []] == [
        "getHealth", "getReadiness",
    ]  # fmt: skip


def test_no_request_names_an_address() -> None:
    """Neither by its format nor by its name."""
    asked = [said["requestBody"] for _, _, said in OPERATIONS.values() if "requestBody" in said]
    asked += [parameter for _, _, said in OPERATIONS.values() for parameter in said.get("parameters", [])]
    found = list(fields(asked, set()))
    assert len(found) > 30
    assert [name for name, schema in found if "uri" in str(schema.get("format", ""))] == []
    assert [
        name for name, _ in found if re.search(r"(^|_)(url|uri|href|link|host|callback|webhook)s?($|_)", name)
    ] == []


def fields(node: Any, seen: set[str]) -> Any:
    """Each property and parameter of what may be sent, with its schema."""
    if isinstance(node, list):
        for each in node:
            yield from fields(each, seen)
    elif isinstance(node, dict):
        reference = node.get("$ref")
        if reference and reference not in seen:
            seen.add(reference)
            target: Any = DOCUMENT
            for step in reference.removeprefix("#/").split("/"):
                target = target[step]
            yield from fields(target, seen)
        if "in" in node and "name" in node:
            yield node["name"], node["schema"]
        yield from node.get("properties", {}).items()
        for name, child in node.items():
            if name not in ("example", "examples", "links"):
                yield from fields(child, seen)


def test_nothing_of_one_ledger_is_found_in_another(client: httpx.Client) -> None:
    """Both have the same sequences; only one has the account, the transaction and what a cursor goes on in."""
    for name in ("theirs", "ours"):
        assert client.post("/v1/ledgers", json={"name": name}).status_code == 201
    for path in ("a", "b", "c"):
        open_account(client, "theirs", path)
        open_account(client, "ours", f"our-{path}")
    assert post(client, "theirs", transaction("a", "b")).json()["sequence"] == 5
    open_account(client, "ours", "our-d")
    cursor = client.get("/v1/ledgers/theirs/accounts?limit=1").json()["next_cursor"]
    for path in ("accounts/a", "accounts/a/entries", "accounts/a/balance", "accounts/a/holds", "transactions/5"):
        assert client.get(f"/v1/ledgers/theirs/{path}").status_code == 200
        assert client.get(f"/v1/ledgers/ours/{path}").status_code == 404
    taken = client.get(f"/v1/ledgers/ours/accounts?cursor={cursor}")
    assert taken.status_code == 400 or {item["path"] for item in taken.json()["items"]} <= {
        "our-a",
        "our-b",
        "our-c",
        "our-d",
    }
    crossed = post(client, "ours", transaction("our-a", "b"))
    assert (422, "unknown_account") == (crossed.status_code, crossed.json()["code"])
    for action in ("reverse", "capture", "void"):
        about = client.post(f"/v1/ledgers/ours/transactions/5/{action}", json={}, headers={"Idempotency-Key": action})
        assert (404, "transaction_not_found") == (about.status_code, about.json()["code"])

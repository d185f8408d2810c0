"""What every answer tells a browser, whoever gives it."""

from collections.abc import Iterator

import httpx
import pytest

from tests.books import fetch_now
from tests.conftest import KEY, Service, serve
from tests.test_contract import OPERATIONS

GUARDS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
NOTHING = "default-src 'none'; frame-ancestors 'none'"
PAGES = [
    "/docs", "/docs/holds", "/docs/reference/postTransaction", "/docs/try", "/docs/assets/try.js", "/openapi.json",
    "/openapi.yaml", "/problems", "/problems/insufficient_funds",
]  # fmt: skip


def check(answer: httpx.Response, *, policy: str | None = NOTHING, cache: str = "no-store") -> None:
    assert {name: answer.headers.get(name) for name in GUARDS} == GUARDS
    assert answer.headers["cache-control"] == cache
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert policy in (None, answer.headers["content-security-policy"])
    for name in (*GUARDS, "cache-control", "content-security-policy", "x-request-id"):
        assert len(answer.headers.get_list(name)) == 1, name
    assert not {"server", "x-powered-by", "access-control-allow-origin"} & set(answer.headers)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_answer_of_the_api_is_kept_by_nobody_and_framed_by_nobody(
    client: httpx.Client, ledger: str, name: str
) -> None:
    method, path, _ = OPERATIONS[name]
    path = path.replace("{ledger}", ledger).replace("{account}", "a").replace("{sequence}", "1")
    check(client.request(method, path))
    check(client.request(method, path, headers={"Authorization": "Bearer nobody"}))


def test_so_it_is_with_a_balance(client: httpx.Client, ledger: str) -> None:
    account = {"path": "cash", "asset": "USD/2", "normal_side": "debit"}
    path = f"/v1/ledgers/{ledger}/accounts"
    check(client.post(path, json=account, headers={"Idempotency-Key": "a"}))
    answer = client.get(f"{path}/cash")
    assert answer.json()["posted"] == "0"
    check(answer)


@pytest.mark.parametrize(("method", "path"), [
    ("GET", "/nowhere"), ("DELETE", "/v1/ledgers"), ("OPTIONS", "/v1/ledgers"), ("HEAD", "/v1/ledgers"), ("GET", "/"),
    ("GET", "/problems/nothing"), ("POST", "/docs"),
])  # fmt: skip
def test_so_it_is_with_what_no_operation_answers(service: Service, method: str, path: str) -> None:
    check(httpx.request(method, service.url + path, headers={"Authorization": f"Bearer {KEY}"}))


@pytest.mark.parametrize("path", PAGES)
def test_a_page_for_people_has_a_policy_of_its_own(service: Service, path: str) -> None:
    first = httpx.get(service.url + path)
    check(first, policy=None, cache="no-cache")
    check(
        httpx.get(service.url + path, headers={"If-None-Match": first.headers["etag"]}), policy=None, cache="no-cache"
    )
    assert "script-src 'self'" in first.headers["content-security-policy"]


def test_so_it_is_with_a_fault(broken: Service) -> None:
    with broken.client() as client:
        answer = client.get("/v1/ledgers")
    assert answer.status_code == 500
    check(answer)


@pytest.fixture
def broken(database: str) -> Iterator[Service]:
    with serve(database) as service:
        fetch_now(database, "alter table ledgers rename column name to planted")
        yield service


@pytest.mark.parametrize("path", [*PAGES, "/docs/assets/swagger-ui.css"])
def test_the_pages_can_be_closed(database: str, path: str) -> None:
    """To those with a key as well: then they are not there."""
    with serve(database, docs="closed") as service:
        for headers in ({}, {"Authorization": f"Bearer {KEY}"}):
            answer = httpx.get(service.url + path, headers=headers)
            assert (404, "route_not_found") == (answer.status_code, answer.json()["code"])
        assert httpx.get(f"{service.url}/healthz").status_code == 200

"""Every operation × every kind of caller: what each is answered, as a table, which docs/keys.md shows."""

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import httpx
import pytest

from tests.access import make_key, make_named_key
from tests.books import new_key, open_account, post, transaction
from tests.conformance import DOCUMENT
from tests.conftest import ROOT, Service, serve
from tests.test_tokens import KEYS, OTHER, claims, settings, sign

OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
# Who asks. What a key is bound by stands beside it; every key but those of one operation has all four.
CALLERS = {
    "none": "no `Authorization`",
    "garbage": "a bearer token that is no credential",
    "revoked": "a revoked API key",
    "expired": "an expired API key",
    "operator": "an API key from the settings",
    "read": "an API key with `read` only",
    "post": "an API key with `post` only",
    "hold": "an API key with `hold` only",
    "admin": "an API key with `admin` only",
    "all": "an API key with all four, in this ledger",
    "ledger": "an API key for another ledger",
    "prefix": "an API key with an account prefix that covers the request",
    "outside": "an API key with an account prefix that does not",
    "amount": "an API key for smaller amounts",
    "token": "a signed token with `read` and `hold`, in this ledger",
    "stale": "an expired signed token",
    "forged": "a token with a forged signature",
}
# ✓ is carried out, · is answered without anything of others, 401 is `unauthenticated`, 403 `forbidden`, 404
# `transaction_not_found` as for one that does not exist.
EXPECTED = """
| operation            | none | garbage | revoked | expired | operator | read | post | hold | admin | all | ledger | prefix | outside | amount | token | stale | forged |
|----------------------|------|---------|---------|---------|----------|------|------|------|-------|-----|--------|--------|---------|--------|-------|-------|--------|
| getHealth            | ✓    | ✓       | ✓       | ✓       | ✓        | ✓    | ✓    | ✓    | ✓     | ✓   | ✓      | ✓      | ✓       | ✓      | ✓     | ✓     | ✓      |
| getReadiness         | ✓    | ✓       | ✓       | ✓       | ✓        | ✓    | ✓    | ✓    | ✓     | ✓   | ✓      | ✓      | ✓       | ✓      | ✓     | ✓     | ✓      |
| getMetrics           | 401  | 401     | 401     | 401     | ✓        | 403  | 403  | 403  | 403   | 403 | 403    | 403    | 403     | 403    | 403   | 401   | 401    |
| createLedger         | 401  | 401     | 401     | 401     | ✓        | 403  | 403  | 403  | ✓     | 403 | 403    | 403    | 403     | ✓      | 403   | 401   | 401    |
| listLedgers          | 401  | 401     | 401     | 401     | ✓        | ✓    | 403  | 403  | 403   | ✓   | ·      | ✓      | ✓       | ✓      | ✓     | 401   | 401    |
| getLedger            | 401  | 401     | 401     | 401     | ✓        | ✓    | 403  | 403  | 403   | ✓   | 403    | ✓      | ✓       | ✓      | ✓     | 401   | 401    |
| updateLedger         | 401  | 401     | 401     | 401     | ✓        | 403  | 403  | 403  | ✓     | ✓   | 403    | 403    | 403     | ✓      | 403   | 401   | 401    |
| createAccount        | 401  | 401     | 401     | 401     | ✓        | 403  | 403  | 403  | ✓     | ✓   | 403    | ✓      | 403     | ✓      | 403   | 401   | 401    |
| listAccounts         | 401  | 401     | 401     | 401     | ✓        | ✓    | 403  | 403  | 403   | ✓   | 403    | ✓      | 403     | ✓      | ✓     | 401   | 401    |
| getAccount           | 401  | 401     | 401     | 401     | ✓        | ✓    | 403  | 403  | 403   | ✓   | 403    | ✓      | 403     | ✓      | ✓     | 401   | 401    |
| updateAccount        | 401  | 401     | 401     | 401     | ✓        | 403  | 403  | 403  | ✓     | ✓   | 403    | ✓      | 403     | ✓      | 403   | 401   | 401    |
| listAccountEntries   | 401  | 401     | 401     | 401     | ✓        | ✓    | 403  | 403  | 403   | ✓   | 403    | ✓      | 403     | ✓      | ✓     | 401   | 401    |
| listAccountHolds     | 401  | 401     | 401     | 401     | ✓        | ✓    | 403  | 403  | 403   | ✓   | 403    | ✓      | 403     | ✓      | ✓     | 401   | 401    |
| getAccountBalance    | 401  | 401     | 401     | 401     | ✓        | ✓    | 403  | 403  | 403   | ✓   | 403    | ✓      | 403     | ✓      | ✓     | 401   | 401    |
| getTotals            | 401  | 401     | 401     | 401     | ✓        | ✓    | 403  | 403  | 403   | ✓   | 403    | ✓      | 403     | ✓      | ✓     | 401   | 401    |
| getTrialBalance      | 401  | 401     | 401     | 401     | ✓        | ✓    | 403  | 403  | 403   | ✓   | 403    | 403    | 403     | ✓      | ✓     | 401   | 401    |
| postTransaction      | 401  | 401     | 401     | 401     | ✓        | 403  | ✓    | 403  | 403   | ✓   | 403    | ✓      | 403     | 403    | 403   | 401   | 401    |
| – with `pending`     | 401  | 401     | 401     | 401     | ✓        | 403  | 403  | ✓    | 403   | ✓   | 403    | ✓      | 403     | 403    | ✓     | 401   | 401    |
| listTransactions     | 401  | 401     | 401     | 401     | ✓        | ✓    | 403  | 403  | 403   | ✓   | 403    | ✓      | 403     | ✓      | ✓     | 401   | 401    |
| postTransactionBatch | 401  | 401     | 401     | 401     | ✓        | 403  | ✓    | 403  | 403   | ✓   | 403    | ✓      | 403     | 403    | 403   | 401   | 401    |
| getTransaction       | 401  | 401     | 401     | 401     | ✓        | ✓    | 403  | 403  | 403   | ✓   | 403    | ✓      | 404     | ✓      | ✓     | 401   | 401    |
| captureTransaction   | 401  | 401     | 401     | 401     | ✓        | 403  | 403  | ✓    | 403   | ✓   | 403    | ✓      | 404     | 403    | ✓     | 401   | 401    |
| voidTransaction      | 401  | 401     | 401     | 401     | ✓        | 403  | 403  | ✓    | 403   | ✓   | 403    | ✓      | 404     | ✓      | ✓     | 401   | 401    |
| reverseTransaction   | 401  | 401     | 401     | 401     | ✓        | 403  | ✓    | 403  | 403   | ✓   | 403    | ✓      | 404     | 403    | 403   | 401   | 401    |
| closePeriod          | 401  | 401     | 401     | 401     | ✓        | 403  | 403  | 403  | ✓     | ✓   | 403    | 403    | 403     | ✓      | 403   | 401   | 401    |
| reopenPeriod         | 401  | 401     | 401     | 401     | ✓        | 403  | 403  | 403  | ✓     | ✓   | 403    | 403    | 403     | ✓      | 403   | 401   | 401    |
| listEvents           | 401  | 401     | 401     | 401     | ✓        | ✓    | 403  | 403  | 403   | ✓   | 403    | 403    | 403     | ✓      | ✓     | 401   | 401    |
| verifyLedger         | 401  | 401     | 401     | 401     | ✓        | ✓    | 403  | 403  | 403   | ✓   | 403    | 403    | 403     | ✓      | ✓     | 401   | 401    |
| createApiKey         | 401  | 401     | 401     | 401     | ✓        | 403  | 403  | 403  | 403   | 403 | 403    | 403    | 403     | 403    | 403   | 401   | 401    |
| listApiKeys          | 401  | 401     | 401     | 401     | ✓        | 403  | 403  | 403  | 403   | 403 | 403    | 403    | 403     | 403    | 403   | 401   | 401    |
| revokeApiKey         | 401  | 401     | 401     | 401     | ✓        | 403  | 403  | 403  | 403   | 403 | 403    | 403    | 403     | 403    | 403   | 401   | 401    |
"""  # noqa: E501
HEADER, _, *ROWS = EXPECTED.strip().splitlines()


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip("|").split("|")]


TABLE = {cells(row)[0]: dict(zip(cells(HEADER)[1:], cells(row)[1:], strict=True)) for row in ROWS}
LEDGER = "matrix"
TOKEN = {"operations": ["read", "hold"], "ledgers": [LEDGER]}
BOOKS = f"/v1/ledgers/{LEDGER}"
INSIDE = {"debit": "shop:cash", "credit": "shop:sales"}
NUMBERS = itertools.count(1)


@dataclass
class Books:
    """A ledger with a posted transaction and holds of 100 within `shop`, and a secret for each kind of caller."""

    service: Service
    operator: httpx.Client
    secrets: dict[str, str | None] = field(default_factory=dict)

    def held(self) -> int:
        return post(self.operator, LEDGER, transaction(*INSIDE.values(), 100, pending=True)).json()["sequence"]

    def posted(self) -> int:
        return post(self.operator, LEDGER, transaction(*INSIDE.values(), 100)).json()["sequence"]

    def revision(self, path: str) -> int:
        return self.operator.get(path).json()["revision"]


@pytest.fixture(scope="module")
def books(new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Books]:
    jwks = tmp_path_factory.mktemp("issuer") / "jwks.json"
    jwks.write_text(json.dumps({"keys": KEYS}))
    with serve(new_database(), **settings(str(jwks))) as service, service.client() as client:
        yield prepare(service, client)


def prepare(service: Service, client: httpx.Client) -> Books:
    books = Books(service, client)
    for name in (LEDGER, "elsewhere"):
        assert client.post("/v1/ledgers", json={"name": name}).status_code == 201
    for path in (*INSIDE.values(), "shopping"):
        open_account(client, LEDGER, path)
    books.posted()
    books.held()
    expiring = make_key(client, expires_at=(service.clock.now + timedelta(seconds=1)).isoformat())
    revoked = make_named_key(client)
    assert client.post(f"/v1/api-keys/{revoked['api_key']['name']}/revoke").status_code == 200
    service.clock.advance(1)
    books.secrets = {
        "none": None,
        "garbage": "tsk_garbage",
        "revoked": revoked["secret"],
        "expired": expiring,
        "operator": service.key,
        **{each: make_key(client, each) for each in ("read", "post", "hold", "admin")},
        "all": make_key(client, ledgers=[LEDGER]),
        "ledger": make_key(client, ledgers=["elsewhere"]),
        "prefix": make_key(client, ledgers=[LEDGER], account_prefix="shop"),
        # Its name begins with that of the accounts, and it is no prefix of theirs by whole segments.
        "outside": make_key(client, account_prefix="shop:sal"),
        "amount": make_key(client, amount_max="99"),
        "token": sign(claims(service, exp=service.clock.now.timestamp() + 3_600, tallystick=TOKEN)),
        "stale": sign(claims(service, exp=service.clock.now.timestamp() - 60)),
        "forged": sign(claims(service), OTHER),
    }
    return books


type Make = Callable[[Books], tuple[str, str, dict[str, Any]]]


def read(path: str, **params: Any) -> Make:
    return lambda _: ("GET", path, {"params": params})


def write(path: str, **body: Any) -> Make:
    return lambda _: ("POST", f"{BOOKS}{path}", {"json": body})


def about(what: str, subject: Callable[[Books], int]) -> Make:
    return lambda books: ("POST", f"{BOOKS}/transactions/{subject(books)}/{what}", {"json": {}})


def change(path: str) -> Make:
    return lambda books: ("PUT", f"{BOOKS}{path}", {"json": {"revision": books.revision(f"{BOOKS}{path}")}})


def close(books: Books) -> tuple[str, str, dict[str, Any]]:
    before = f"2001-01-01T00:00:{next(NUMBERS) % 60:02}Z"
    books.operator.post(f"{BOOKS}/reopenings", json={"reason": "again"}, headers={"Idempotency-Key": new_key()})
    return "POST", f"{BOOKS}/closings", {"json": {"before": before, "reason": "done"}}


def reopen(books: Books) -> tuple[str, str, dict[str, Any]]:
    _, path, said = close(books)
    assert books.operator.post(path, **said, headers={"Idempotency-Key": new_key()}).status_code == 201
    return "POST", f"{BOOKS}/reopenings", {"json": {"reason": "again"}}


def revoke(books: Books) -> tuple[str, str, dict[str, Any]]:
    return "POST", f"/v1/api-keys/{make_named_key(books.operator)['api_key']['name']}/revoke", {}


ACCOUNT = f"{BOOKS}/accounts/shop:sales"
POSTED = transaction(*INSIDE.values(), 100)
ASK: dict[str, Make] = {
    "getHealth": read("/healthz"),
    "getReadiness": read("/readyz"),
    "getMetrics": read("/metrics"),
    "createLedger": lambda _: ("POST", "/v1/ledgers", {"json": {"name": f"new-{next(NUMBERS)}"}}),
    "listLedgers": read("/v1/ledgers"),
    "getLedger": read(BOOKS),
    "updateLedger": change(""),
    "createAccount": lambda _: (
        "POST",
        f"{BOOKS}/accounts",
        {"json": {"path": f"shop:{next(NUMBERS)}", "asset": "USD/2", "normal_side": "debit"}},
    ),
    "listAccounts": read(f"{BOOKS}/accounts", prefix="shop"),
    "getAccount": read(ACCOUNT),
    "updateAccount": change("/accounts/shop:sales"),
    "listAccountEntries": read(f"{ACCOUNT}/entries"),
    "listAccountHolds": read(f"{ACCOUNT}/holds"),
    "getAccountBalance": read(f"{ACCOUNT}/balance"),
    "getTotals": read(f"{BOOKS}/totals", prefix="shop:sales"),
    "getTrialBalance": read(f"{BOOKS}/trial-balance"),
    "postTransaction": write("/transactions", **POSTED),
    "– with `pending`": write("/transactions", **POSTED, pending=True),
    "listTransactions": read(f"{BOOKS}/transactions", account="shop:sales"),
    "postTransactionBatch": write("/transaction-batches", transactions=[POSTED, POSTED]),
    "getTransaction": lambda books: ("GET", f"{BOOKS}/transactions/{books.posted()}", {}),
    "captureTransaction": about("capture", Books.held),
    "voidTransaction": about("void", Books.held),
    "reverseTransaction": about("reverse", Books.posted),
    "closePeriod": close,
    "reopenPeriod": reopen,
    "listEvents": read(f"{BOOKS}/events"),
    "verifyLedger": read(f"{BOOKS}/verification"),
    "createApiKey": lambda _: (
        "POST",
        "/v1/api-keys",
        {"json": {"name": f"made-{next(NUMBERS)}", "operations": ["read"]}},
    ),
    "listApiKeys": read("/v1/api-keys"),
    "revokeApiKey": revoke,
}
CODES = {"401": "unauthenticated", "403": "forbidden", "404": "transaction_not_found"}


def ask(books: Books, operation: str, caller: str) -> httpx.Response:
    method, path, said = ASK[operation](books)
    with books.service.client(books.secrets[caller]) as client:
        return client.request(method, path, headers={"Idempotency-Key": new_key()}, **said)


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("operation", TABLE)
def test_every_caller_is_answered_by_every_operation_as_the_table_says(
    operation: str, caller: str, books: Books
) -> None:
    answer = ask(books, operation, caller)
    expected = TABLE[operation][caller]
    if expected in CODES:
        assert (expected, CODES[expected]) == (str(answer.status_code), answer.json()["code"])
        return
    assert answer.status_code in (200, 201), answer.text
    if expected == "·":
        assert LEDGER not in answer.text


@pytest.mark.parametrize("operation", TABLE)
def test_who_may_not_do_it_is_answered_alike_if_it_is_not_there(operation: str, books: Books) -> None:
    """Nothing in a refusal tells a ledger, an account or a transaction that exists from one that does not."""
    for caller in ("read", "post", "hold", "admin", "ledger", "outside"):
        if TABLE[operation][caller] not in ("403", "404"):
            continue
        method, path, said = ASK[operation](books)
        missing = path.replace("shop:sales", "shop:nobody")
        if caller == "ledger":
            missing = path.replace(LEDGER, "nowhere")
        if caller == "outside" and "/transactions/" in path:
            missing = path.replace(path.split("/")[5], "999999")
        with books.service.client(books.secrets[caller]) as client:
            there, not_there = (
                client.request(method, each, headers={"Idempotency-Key": new_key(), "X-Request-Id": "same"}, **said)
                for each in (path, missing)
            )
        assert (there.status_code, there.content) == (not_there.status_code, not_there.content)
        assert steady(there.headers) == steady(not_there.headers)


def steady(headers: httpx.Headers) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name != "date"}


def test_the_table_has_every_operation_and_every_caller() -> None:
    assert list(CALLERS) == cells(HEADER)[1:]
    assert set(TABLE) - {"– with `pending`"} == set(OPERATIONS)
    assert set(ASK) == set(TABLE)


def test_every_operation_says_what_it_takes() -> None:
    """`x-scope` is what the edge goes by, and what the table shows of the keys for one operation."""
    for name, (_, _, said) in OPERATIONS.items():
        rows = [TABLE[name], TABLE["– with `pending`"]] if name == "postTransaction" else [TABLE[name]]
        if said.get("security") == []:
            assert "x-scope" not in said
            continue
        taken = {each for row in rows for each in ("read", "post", "hold", "admin") if row[each] != "403"}
        # A batch of holds takes `hold`, as one of them does.
        taken |= {"hold"} if name == "postTransactionBatch" else set()
        assert taken == set(said["x-scope"]) - {"operator"}, name
        refused = all(row["prefix"] == "403" for row in rows) and said["x-scope"] != ["operator"]
        assert refused == said.get("x-whole-ledger", False), name
        assert {"403", "429"} <= set(said["responses"]), name


def shown() -> str:
    callers = "\n".join(f"| {name} | {said} |" for name, said in CALLERS.items())
    return f"| caller | credential |\n|---|---|\n{callers}\n\n{EXPECTED.strip()}\n"


def test_the_page_about_keys_shows_this_table() -> None:
    page = (ROOT / "docs" / "keys.md").read_text()
    begin, end = "<!-- table -->\n", "<!-- end of table -->"
    assert shown() == page.split(begin)[1].split(end)[0], "write it again: python -m tests.test_key_matrix"


if __name__ == "__main__":
    page = ROOT / "docs" / "keys.md"
    before, rest = page.read_text().split("<!-- table -->\n")
    page.write_text(f"{before}<!-- table -->\n{shown()}<!-- end of table -->{rest.split('<!-- end of table -->')[1]}")

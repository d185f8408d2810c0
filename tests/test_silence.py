"""Over every kind of failure that a request can meet: what was entrusted stands in no log and in no error report."""

import json
import os
import socket
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.postgres import Postgres
from tests.books import fetch_now
from tests.collectors import collecting
from tests.conftest import KEY, migrate, start_processes, wait_until

CANARIES = {
    "API key": KEY,
    "wrong API key": "kanari-wrong-key-4e7c",
    "amount": "9182736450",
    "account": "kanari-account-4e7c",
    "metadata": "kanari-metadata-4e7c",
    "description": "kanari-description-4e7c",
    "reference": "kanari-reference-4e7c",
    "idempotency key": "kanari-idempotency-4e7c",
    "query": "kanari-query-4e7c",
    "key of the DSN": "kanari0dsn4e7c",
    "password of the database": "kanari-password-4e7c",
}
ACCOUNTS = "/v1/ledgers/main/accounts"
TRANSACTIONS = "/v1/ledgers/main/transactions"
JSON = {"Content-Type": "application/json"}


def transaction(**changes: Any) -> dict[str, Any]:
    posting = {"debit_account": CANARIES["account"], "credit_account": "cash", "amount": CANARIES["amount"]}
    said = {"description": CANARIES["description"], "metadata": {"note": CANARIES["metadata"]}}
    return {"postings": [posting]} | said | changes


def posting(**changes: Any) -> dict[str, Any]:
    return transaction(postings=[transaction()["postings"][0] | changes])


@dataclass
class Caller:
    """Asks a process, with a canary wherever there is room for one."""

    url: str
    keys: int = 0
    failed: dict[str, int] = field(default_factory=dict)

    def ask(self, method: str, path: str, *, keyed: bool | str = False, **request: Any) -> httpx.Response:
        self.keys += 1
        key = f"{CANARIES['idempotency key']}-{keyed if isinstance(keyed, str) else self.keys}"
        headers = {"Authorization": f"Bearer {KEY}", "X-Whatever": CANARIES["metadata"]}
        headers |= {"Idempotency-Key": key} if keyed else {}
        return httpx.request(
            method, self.url + path, headers=headers | request.pop("headers", {}), timeout=30, **request
        )

    def fail(self, what: str, status: int, method: str, path: str, **request: Any) -> None:
        answer = self.ask(method, path, **request)
        assert (what, answer.status_code) == (what, status), answer.text
        self.failed[what] = status

    def refuse_post(self, what: str, status: int, body: dict[str, Any], keyed: bool | str = True) -> None:
        self.fail(what, status, "POST", TRANSACTIONS, keyed=keyed, json=body)


def fail_in_every_way(caller: Caller, address: str, stop_postgres: Callable[[], None]) -> None:
    account = {"asset": "USD/2", "normal_side": "debit", "description": CANARIES["description"]}
    assert caller.ask("POST", "/v1/ledgers", json={"name": "main"}).status_code == 201
    for path in ("cash", CANARIES["account"]):
        said = account | {"path": path, "maximum_balance": "99999999999"}
        assert caller.ask("POST", ACCOUNTS, keyed=True, json=said).status_code == 201
    post = caller.ask("POST", TRANSACTIONS, keyed="first", json=transaction(reference=CANARIES["reference"]))
    assert post.status_code == 201

    wrong = {"Authorization": f"Bearer {CANARIES['wrong API key']}"}
    caller.fail("unauthenticated", 401, "GET", "/v1/ledgers", headers=wrong)
    caller.fail("not acceptable", 406, "GET", "/v1/ledgers", headers={"Accept": CANARIES["metadata"]})
    caller.fail("unknown query", 422, "GET", f"/v1/ledgers?{CANARIES['query']}={CANARIES['query']}")
    caller.fail("repeated query", 400, "GET", f"/v1/ledgers?cursor={CANARIES['query']}&cursor=b")
    caller.fail("wrong cursor", 400, "GET", f"/v1/ledgers?cursor={CANARIES['query']}")
    caller.fail("no route", 404, "GET", f"/v1/{CANARIES['account']}")
    caller.fail("no ledger", 404, "GET", "/v1/ledgers/nobodys")
    caller.fail("no account", 404, "GET", f"{ACCOUNTS}/{CANARIES['account']}:of:nobody")
    caller.fail("wrong path", 422, "GET", f"{ACCOUNTS}/{CANARIES['account']}%20!")
    caller.fail("no method", 405, "DELETE", f"{ACCOUNTS}/{CANARIES['account']}")
    caller.fail("no key", 400, "POST", TRANSACTIONS, json=transaction())
    caller.fail("no JSON", 415, "POST", TRANSACTIONS, keyed=True, content=CANARIES["metadata"])
    broken = f'{{"metadata": {{"note": "{CANARIES["metadata"]}'.encode()
    caller.fail("broken JSON", 400, "POST", TRANSACTIONS, keyed=True, content=broken, headers=JSON)
    caller.fail("too large", 413, "POST", TRANSACTIONS, keyed=True, json={"m": CANARIES["metadata"] * 100_000})
    caller.refuse_post("unknown property", 422, transaction(**{CANARIES["metadata"]: CANARIES["metadata"]}))
    caller.refuse_post("a number for an amount", 422, posting(amount=int(CANARIES["amount"])))
    caller.refuse_post("NUL", 422, transaction(description=CANARIES["description"] + "\0"))
    caller.refuse_post("wrong name in metadata", 422, transaction(metadata={CANARIES["metadata"] + " ": "a"}))
    caller.refuse_post("unknown account", 422, posting(credit_account=CANARIES["account"] + "2"))
    caller.refuse_post("known reference", 409, transaction(reference=CANARIES["reference"]))
    caller.refuse_post("used key", 422, transaction(description=CANARIES["description"] + "2"), keyed="first")
    caller.refuse_post("past a limit", 422, posting(amount=CANARIES["amount"] + "0"))
    caller.refuse_post("time", 422, transaction(effective_at="2999-01-01T00:00:00Z"))
    batch = {"transactions": [posting(credit_account=CANARIES["account"] + "2")], "atomic": True}
    caller.fail("batch", 422, "POST", "/v1/ledgers/main/transaction-batches", keyed=True, json=batch)
    known = account | {"path": CANARIES["account"]}
    caller.fail("known account", 409, "POST", ACCOUNTS, keyed=True, json=known)
    caller.fail(
        "known ledger", 409, "POST", "/v1/ledgers", json={"name": "main", "description": CANARIES["description"]}
    )
    sequence = post.json()["sequence"]
    caller.fail("no hold", 422, "POST", f"{TRANSACTIONS}/{sequence}/capture", keyed=True, json={})
    with socket.create_connection(tuple(caller.url.removeprefix("http://").split(":"))) as raw:  # type: ignore[arg-type]
        raw.sendall(f"{CANARIES['account']} {CANARIES['metadata']}\r\n\r\n".encode())
        assert b" 400 " in raw.recv(1000)
    caller.failed["no HTTP"] = 400

    # A check's message quotes the row, and a renamed column's the statement with its parameters.
    fetch_now(address, "alter table entries add constraint planted check (posted <> 9182736450) not valid")
    caller.refuse_post("fault of a write", 500, transaction())
    fetch_now(address, "alter table accounts rename column version to planted")
    caller.fail("fault of a read", 500, "GET", f"{ACCOUNTS}/{CANARIES['account']}")
    caller.refuse_post("fault of the writer's read", 500, transaction())
    stop_postgres()
    caller.fail("read without a database", 503, "GET", f"{ACCOUNTS}/{CANARIES['account']}")
    caller.refuse_post("write without a database", 503, transaction())


@pytest.mark.parametrize("form", ["json", "console"])
def test_over_all_failures_nothing_entrusted_is_said(tmp_path: Path, form: str) -> None:
    """At the level that says most."""
    received: list[bytes] = []
    memory = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as data,
        Postgres(Path(data) / "postgres", durable=False) as postgres,
        collecting(received) as sentry,
    ):
        postgres.create_database("books")
        address = postgres.url("books")
        migrate(address)
        said = {
            "LOG_LEVEL": "DEBUG",
            "LOG_FORMAT": form,
            "SENTRY_DSN": f"http://{CANARIES['key of the DSN']}@{sentry}/1",
        }
        secretive = address.replace("postgres@", f"postgres:{CANARIES['password of the database']}@")
        with start_processes(secretive, 1, tmp_path, **said) as running:
            caller = Caller(running.urls[0])
            fail_in_every_way(caller, address, postgres.stop)
            faults = [what for what, status in caller.failed.items() if status == 500]
            wait_until(lambda: len(received) >= len(faults))
        logged = running.logs[0].read_text()
    assert len(caller.failed) >= 30
    assert len(faults) == 3
    reported = b"\n".join(received).decode()
    assert [what for what, canary in CANARIES.items() if canary in reported] == []
    assert [what for what, canary in CANARIES.items() if canary in logged] == []
    assert "Traceback" in logged
    for envelope in received:
        about, *_ = envelope.splitlines()
        assert not {"dsn", "trace"} & set(json.loads(about))

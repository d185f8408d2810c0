"""One effect per key: what a repeated request is answered, what it changes, and what counts as the same request."""

import asyncio
import hashlib
import json
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx
import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import MISSING, BaseModel

from app.api.contract import CONTRACT
from app.api.edge import canonical_json, fingerprint
from app.ledger.refusals import BooksRefuse
from generated import models
from tests.books import check_invariants, fetch_now
from tests.conftest import Service

REPLAYED = "Idempotency-Replayed"
TRANSACTION = {
    "postings": [
        {"debit_account": "cash", "credit_account": "wallet", "amount": "1250"},
        {"debit_account": "cash", "credit_account": "other", "amount": "7"},
    ],
    "effective_at": "2026-01-31T23:59:59.5Z",
    "reference": "deposit-1001",
    "group": "order-77",
    "description": "Card deposit — “fünf” \t\n/ \\ €",
    "metadata": {"Z": "ü", "channel": "card", "a.b:c-d_": ""},
}


class Caller:
    """Writes to one ledger."""

    def __init__(self, client: httpx.Client, ledger: str) -> None:
        self.client = client
        self.ledger = ledger
        self.noted: dict[str, int] = {}

    def write(self, resource: str, body: Any, key: str, **headers: str) -> httpx.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Idempotency-Key": key, "Content-Type": "application/json"} | headers
        return self.client.post(f"/v1/ledgers/{self.ledger}/{resource}", content=content, headers=headers)

    def open(self, path: str, key: str | None = None, **changes: Any) -> httpx.Response:
        body = {"path": path, "asset": "USD/2", "normal_side": "debit"} | changes
        return self.write("accounts", body, key or uuid.uuid4().hex)

    def post(self, debit: str, credit: str, amount: int, key: str | None = None, **changes: Any) -> httpx.Response:
        body = {"postings": [{"debit_account": debit, "credit_account": credit, "amount": str(amount)}]} | changes
        return self.write("transactions", body, key or uuid.uuid4().hex)

    def change(self, path: str, revision: int, key: str | None = None, **configuration: Any) -> httpx.Response:
        headers = {"Idempotency-Key": key or uuid.uuid4().hex}
        url = f"/v1/ledgers/{self.ledger}/accounts/{path}"
        return self.client.put(url, json={"revision": revision} | configuration, headers=headers)

    def hold(self, debit: str, credit: str, amount: int, **changes: Any) -> int:
        """The sequence of a new hold."""
        return self.post(debit, credit, amount, pending=True, **changes).json()["sequence"]

    def say(self, what: str, sequence: int, key: str | None = None, **body: Any) -> httpx.Response:
        """Capture, void or reverse a transaction."""
        return self.write(f"transactions/{sequence}/{what}", body, key or uuid.uuid4().hex)

    def sequence(self) -> int:
        return self.client.get(f"/v1/ledgers/{self.ledger}").json()["sequence"]


@pytest.fixture
def caller(client: httpx.Client, ledger: str) -> Caller:
    """A ledger with three accounts, one of which may not be overdrawn."""
    caller = Caller(client, ledger)
    for path in ("cash", "other"):
        assert caller.open(path).status_code == 201
    assert caller.open("wallet", normal_side="credit", minimum_balance="0").status_code == 201
    return caller


def is_replay(first: httpx.Response, again: httpx.Response) -> bool:
    """Whether the second is the first given again, to the byte but for the id of the request."""
    assert REPLAYED not in first.headers
    same = [(answer.status_code, without_request_id(answer)) for answer in (first, again)]
    return same[0] == same[1] and again.headers.get(REPLAYED) == "true"


def without_request_id(answer: httpx.Response) -> bytes:
    return answer.content.replace(answer.headers["x-request-id"].encode(), b"")


# The first answer again.


@pytest.mark.parametrize("resource", ["accounts", "transactions"])
def test_a_repeated_request_gets_the_first_answer_again_to_the_byte(caller: Caller, resource: str) -> None:
    account = {"path": "new", "asset": "USD/2", "normal_side": "credit", "maximum_balance": "5", "description": "ü"}
    body = account if resource == "accounts" else TRANSACTION
    first = caller.write(resource, body, "k")
    sequence = caller.sequence()
    again = [caller.write(resource, body, "k") for _ in range(3)]
    assert first.status_code == 201
    assert [(each.status_code, each.content) for each in again] == [(201, first.content)] * 3
    assert [each.headers[REPLAYED] for each in again] == ["true"] * 3
    assert REPLAYED not in first.headers
    assert caller.sequence() == sequence


def test_a_replay_keeps_the_order_in_which_metadata_was_said(caller: Caller) -> None:
    names = ("zebra", "a", "Z", "longest.of.all", "0")
    first = caller.post("cash", "wallet", 5, "k", metadata=dict.fromkeys(names, "x"))
    again = caller.post("cash", "wallet", 5, "k", metadata=dict.fromkeys(names, "x"))
    assert again.content == first.content


def test_a_replay_shows_nothing_of_what_happened_since(caller: Caller, service: Service) -> None:
    opened = caller.open("fresh", "opened")
    posted = caller.post("cash", "fresh", 100, "posted")
    service.clock.advance(3600)
    caller.post("fresh", "cash", 30)
    caller.post("cash", "other", 1, effective_at="2020-01-01T00:00:00Z")
    sequence = caller.sequence()
    assert is_replay(opened, caller.open("fresh", "opened"))
    assert is_replay(posted, caller.post("cash", "fresh", 100, "posted"))
    assert caller.sequence() == sequence


def test_a_replay_is_answered_to_whoever_knows_the_key_and_names_who_asked_first(
    caller: Caller, service: Service
) -> None:
    first = caller.post("cash", "wallet", 5, "k")
    assert first.json()["actor"] == "operator"
    with service.client("another-secret-of-the-tests") as second:
        again = Caller(second, caller.ledger).post("cash", "wallet", 5, "k")
    assert is_replay(first, again)


# What counts as the same request.

SAME = {
    "in another order": lambda body: dict(reversed([(k, reverse(v)) for k, v in body.items()])),
    "with white space": lambda body: json.dumps(body, indent=3, separators=(" \t,", " \r\n: ")).encode(),
    "with escapes": lambda body: json.dumps(body, ensure_ascii=True).replace("/", "\\/").encode(),
    "without escapes": lambda body: json.dumps(body, ensure_ascii=False).encode(),
    "with an offset for Z": lambda body: body | {"effective_at": "2026-01-31T23:59:59.5+00:00"},
    "in another zone": lambda body: body | {"effective_at": "2026-02-01T05:29:59.500000+05:30"},
    "in lower case": lambda body: body | {"effective_at": "2026-01-31t23:59:59.500z"},
}
OTHER = {
    "another amount": lambda body: body | {"postings": [body["postings"][0] | {"amount": "1251"}, body["postings"][1]]},
    "postings in another order": lambda body: body | {"postings": body["postings"][::-1]},
    "fewer postings": lambda body: body | {"postings": body["postings"][:1]},
    "a microsecond later": lambda body: body | {"effective_at": "2026-01-31T23:59:59.500001Z"},
    "no time": lambda body: {k: v for k, v in body.items() if k != "effective_at"},
    "another reference": lambda body: body | {"reference": "deposit-1002"},
    "another description": lambda body: body | {"description": body["description"] + " "},
    "an empty description": lambda body: body | {"description": ""},
    "another metadata name": lambda body: body | {"metadata": {"CHANNEL": "card"}},
    "another metadata value": lambda body: body | {"metadata": body["metadata"] | {"channel": "Card"}},
}


def reverse(value: Any) -> Any:
    return dict(reversed(value.items())) if isinstance(value, dict) else value


@pytest.mark.parametrize("how", SAME)
def test_a_body_that_means_the_same_is_the_same_request(caller: Caller, how: str) -> None:
    first = caller.write("transactions", TRANSACTION, "k")
    sequence = caller.sequence()
    again = caller.write("transactions", SAME[how](TRANSACTION), "k")
    assert first.status_code == 201
    assert is_replay(first, again), again.text
    assert caller.sequence() == sequence


@pytest.mark.parametrize("how", OTHER)
def test_refuses_a_key_that_was_used_for_another_body_and_changes_nothing(caller: Caller, how: str) -> None:
    first = caller.write("transactions", TRANSACTION, "k")
    sequence = caller.sequence()
    other = caller.write("transactions", OTHER[how](TRANSACTION), "k")
    assert (first.status_code, other.status_code, other.json()["code"]) == (201, 422, "idempotency_key_reused")
    assert REPLAYED not in other.headers
    assert caller.sequence() == sequence
    # And the key still stands for its first request.
    assert is_replay(first, caller.write("transactions", TRANSACTION, "k"))


def test_a_field_at_its_default_is_as_good_as_none(caller: Caller) -> None:
    """No metadata is what an account and a transaction have if nothing is said."""
    first = caller.post("cash", "wallet", 5, "k"), caller.open("new", "l", metadata={})
    assert is_replay(first[0], caller.post("cash", "wallet", 5, "k", metadata={}))
    assert is_replay(first[1], caller.open("new", "l"))


def test_refuses_a_key_that_was_used_by_another_operation(caller: Caller) -> None:
    caller.post("cash", "wallet", 5, "k")
    sequence = caller.sequence()
    assert caller.open("new", "k").json()["code"] == "idempotency_key_reused"
    assert caller.client.get(f"/v1/ledgers/{caller.ledger}/accounts/new").status_code == 404
    assert caller.sequence() == sequence


def test_refuses_another_body_for_the_key_of_a_refusal_too(caller: Caller) -> None:
    assert caller.post("wallet", "cash", 5, "k").json()["code"] == "insufficient_funds"
    assert caller.post("cash", "wallet", 5, "k").json()["code"] == "idempotency_key_reused"


def test_keys_are_compared_as_they_are_written(caller: Caller) -> None:
    first = [caller.post("cash", "wallet", 5, key) for key in ("key", "KEY", "key ".strip() + ".", "k" * 255)]
    assert [each.status_code for each in first] == [201] * 4
    assert [each.headers.get(REPLAYED) for each in first] == [None] * 4


def test_idempotency_keys_are_compared_to_their_last_character(caller: Caller) -> None:
    keys = ["k" * 254, "k" * 255, "k" * 254 + "l", "l" + "k" * 254]
    first = {key: caller.post("cash", "wallet", amount, key) for amount, key in enumerate(keys, 1)}
    assert [each.status_code for each in first.values()] == [201] * len(keys)
    assert all(is_replay(first[key], caller.post("cash", "wallet", amount, key)) for amount, key in enumerate(keys, 1))


def test_the_same_key_in_two_ledgers_is_two_keys(caller: Caller, client: httpx.Client) -> None:
    other = Caller(client, f"l{uuid.uuid4().hex}")
    client.post("/v1/ledgers", json={"name": other.ledger})
    for path in ("cash", "wallet"):
        other.open(path)
    first, second = caller.post("cash", "wallet", 5, "k"), other.post("cash", "wallet", 6, "k")
    assert [first.status_code, second.status_code] == [201, 201]
    assert is_replay(first, caller.post("cash", "wallet", 5, "k"))
    assert is_replay(second, other.post("cash", "wallet", 6, "k"))


# Refusals of the books are frozen with their key.

EXPECTING = {"debit_account": "cash", "credit_account": "other", "amount": "1", "expected_debit_version": 1}


def frozen_cases() -> dict[str, tuple[Callable[[Caller, str], httpx.Response], Callable[[Caller, Service], Any], int]]:
    """Each refusal of the books: a request that meets it, what happens then, and what a new key is answered."""

    def nothing(caller: Caller, service: Service) -> None:
        caller.post("cash", "wallet", 1)

    full = 10**38 - 1
    return {
        "account_exists": (lambda c, key: c.open("cash", key), nothing, 409),
        "limit_not_met": (lambda c, key: c.open("new", key, minimum_balance="1"), nothing, 422),
        "time_out_of_range": (
            lambda c, key: c.post("cash", "other", 1, key, effective_at="2038-01-01T00:00:00Z"),
            lambda c, service: service.clock.advance(20 * 365 * 86400),
            201,
        ),
        "reference_exists": (
            lambda c, key: c.post("cash", "other", 2, key, reference="taken"),
            nothing,
            409,
        ),
        "unknown_account": (lambda c, key: c.post("cash", "new", 1, key), lambda c, _: c.open("new"), 201),
        "asset_mismatch": (lambda c, key: c.post("cash", "coins", 1, key), nothing, 422),
        "period_closed": (
            lambda c, key: c.post("cash", "other", 1, key, effective_at="2001-01-01T00:00:00Z"),
            lambda c, _: c.write("reopenings", {"reason": "a correction"}, "reopening"),
            201,
        ),
        "version_conflict": (
            lambda c, key: c.write("transactions", {"postings": [EXPECTING]}, key),
            lambda c, _: c.post("cash", "other", 1),
            201,
        ),
        "revision_conflict": (lambda c, key: c.change("cash", 2, key), lambda c, _: c.change("cash", 1), 200),
        "account_not_empty": (
            lambda c, key: c.change("other", 1, key, status="closed"),
            lambda c, _: c.post("other", "full", 1),
            200,
        ),
        "account_frozen": (lambda c, key: c.post("cash", "frozen", 1, key), lambda c, _: c.change("frozen", 2), 201),
        "account_closed": (lambda c, key: c.post("cash", "closed", 1, key), lambda c, _: c.change("closed", 2), 201),
        "amount_overflow": (lambda c, key: c.post("full", "cash", full, key), nothing, 422),
        "insufficient_funds": (
            lambda c, key: c.post("wallet", "cash", 500, key),
            lambda c, _: c.post("cash", "wallet", 500),
            201,
        ),
        "maximum_exceeded": (
            lambda c, key: c.post("capped", "cash", 11, key),
            lambda c, _: c.post("cash", "capped", 1),
            201,
        ),
        "not_pending": (lambda c, key: c.say("capture", c.noted["post"], key), nothing, 422),
        "not_reversible": (lambda c, key: c.say("reverse", c.noted["hold"], key), nothing, 422),
        "already_captured": (lambda c, key: c.say("void", c.noted["captured"], key), nothing, 409),
        "already_voided": (lambda c, key: c.say("capture", c.noted["voided"], key), nothing, 409),
        "hold_expired": (lambda c, key: c.say("capture", c.noted["expired"], key), nothing, 409),
        "already_reversed": (lambda c, key: c.say("reverse", c.noted["reversed"], key), nothing, 409),
        "capture_exceeds_hold": (
            lambda c, key: c.say("capture", c.noted["hold"], key, amounts=[{"posting": 0, "amount": "6"}]),
            lambda c, _: c.say("void", c.noted["hold"]),
            409,
        ),
    }


def note_transactions(caller: Caller, service: Service) -> None:
    """A post and a hold, and one of each kind that has come to its end; the accounts are as they were before."""
    expires_at = (service.clock.now + timedelta(seconds=1)).isoformat()
    noted = {what: caller.hold("fees", "coffer", 5) for what in ("hold", "captured", "voided")}
    noted["expired"] = caller.hold("fees", "coffer", 5, expires_at=expires_at)
    noted |= {what: caller.post("fees", "coffer", 5).json()["sequence"] for what in ("post", "reversed")}
    for what, ended in (("capture", "captured"), ("void", "voided"), ("reverse", "reversed")):
        assert caller.say(what, noted[ended]).status_code == 201
    service.clock.advance(1)
    caller.client.get(f"/v1/ledgers/{caller.ledger}/accounts/fees")  # after which the expiry is in the log
    caller.noted = noted


@pytest.mark.parametrize("code", frozen_cases())
def test_a_refusal_is_frozen_with_its_key_whatever_happens_since(caller: Caller, service: Service, code: str) -> None:
    ask, happen, expected = frozen_cases()[code]
    caller.open("coins", asset="BTC/8")
    caller.open("full")
    caller.open("capped", maximum_balance="10")
    for path in ("fees", "coffer"):
        caller.open(path)
    for status in ("frozen", "closed"):
        caller.open(status)
        assert caller.change(status, 1, status=status).status_code == 200
    caller.post("full", "other", 1, reference="taken")
    caller.write("closings", {"before": "2002-01-01T00:00:00Z", "reason": "done"}, "closing")
    now = service.clock.now
    note_transactions(caller, service)
    before = caller.sequence()
    first = ask(caller, "k")
    assert first.json()["code"] == code
    assert caller.sequence() == before
    happen(caller, service)
    sequence = caller.sequence()
    assert is_replay(first, ask(caller, "k"))
    assert caller.sequence() == sequence
    again = ask(caller, "another")
    assert (again.status_code, again.headers.get(REPLAYED)) == (expected, None)
    assert is_replay(first, ask(caller, "k"))
    service.clock.now = now


def test_a_write_about_an_account_that_is_not_there_leaves_its_key_free(caller: Caller) -> None:
    assert caller.change("new", 1, "k").json()["code"] == "account_not_found"
    caller.open("new")
    changed = caller.change("new", 1, "k", status="frozen")
    assert (changed.status_code, changed.json()["status"]) == (200, "frozen")
    assert is_replay(changed, caller.change("new", 1, "k", status="frozen"))


def test_of_captures_at_once_one_takes_what_both_want(caller: Caller, service: Service) -> None:
    """Of all that race for a hold that cannot serve two, one is served, and the others learn how it ended."""
    for turn in range(5):
        hold = caller.hold("cash", "other", 5)
        before = caller.sequence()
        amounts = [{"posting": 0, "amount": "4"}]
        kept = {"amounts": amounts, "remainder": "keep"} if turn % 2 else {}
        answers = at_once(4, lambda which, hold=hold, kept=kept: caller.say("capture", hold, f"{hold}-{which}", **kept))
        codes = sorted(each.json().get("code", "") for each in answers)
        assert codes == [""] + ["capture_exceeds_hold" if kept else "already_captured"] * 3
        assert caller.sequence() == before + 1
    hold = caller.hold("cash", "other", 5)
    answers = at_once(4, lambda which: caller.say(("capture", "void")[which % 2], hold, f"race-{which}"))
    assert sorted(each.status_code for each in answers) == [201, 409, 409, 409]
    original = caller.post("cash", "other", 5).json()["sequence"]
    answers = at_once(4, lambda which: caller.say("reverse", original, f"reverse-{which}"))
    assert sorted(each.json().get("code", "") for each in answers) == [""] + ["already_reversed"] * 3
    asyncio.run(check_invariants(service.database))


def test_equal_captures_voids_and_reversals_at_once_are_one(caller: Caller) -> None:
    holds = [caller.hold("cash", "other", 5) for _ in range(2)]
    original = caller.post("cash", "other", 5).json()["sequence"]
    for what, sequence in (("capture", holds[0]), ("void", holds[1]), ("reverse", original)):
        answers = at_once(6, lambda _, what=what, sequence=sequence: caller.say(what, sequence, what))
        assert [each.status_code for each in answers] == [201] * 6
        assert len({each.content for each in answers}) == 1
        assert sorted(each.headers.get(REPLAYED, "") for each in answers) == [""] + ["true"] * 5


def test_replays_of_what_became_of_a_hold_are_the_first_answers_to_the_byte(caller: Caller, service: Service) -> None:
    now = service.clock.now
    said = {"metadata": {"zebra": "1", "a": "2"}, "description": "ü", "reference": "r"}
    expires_at = (now + timedelta(hours=1)).isoformat()
    held = caller.post("cash", "other", 9, "hold", pending=True, expires_at=expires_at, group="g")
    hold = held.json()["sequence"]
    amounts = [{"posting": 0, "amount": "4"}]
    captured = caller.say("capture", hold, "capture", amounts=amounts, remainder="keep", **said)
    reversal = caller.say("reverse", captured.json()["sequence"], "reverse", effective_at="2026-01-01T00:00:00Z")
    voided = caller.say("void", hold, "void", description="no")
    late = caller.say("capture", hold, "late")
    service.clock.advance(7200)
    caller.post("cash", "other", 1)
    assert is_replay(held, caller.post("cash", "other", 9, "hold", pending=True, expires_at=expires_at, group="g"))
    assert is_replay(captured, caller.say("capture", hold, "capture", amounts=amounts, remainder="keep", **said))
    again = caller.say("reverse", captured.json()["sequence"], "reverse", effective_at="2026-01-01T01:00:00+01:00")
    assert is_replay(reversal, again)
    assert is_replay(voided, caller.say("void", hold, "void", description="no"))
    assert is_replay(late, caller.say("capture", hold, "late", remainder="release"))
    service.clock.now = now


def test_open_is_the_status_that_is_meant_if_none_is_said(caller: Caller) -> None:
    first = caller.change("cash", 1, "k")
    assert is_replay(first, caller.change("cash", 1, "k", status="open", metadata={}))
    assert caller.change("cash", 1, "k", status="closed").json()["code"] == "idempotency_key_reused"
    assert caller.change("cash", 2, "null", status=None).json()["code"] == "validation_failed"
    for revision in ("2", True, 2.5, 0, 2**53):
        assert caller.change("cash", revision, "odd").json()["code"] == "validation_failed"


def test_every_refusal_of_the_books_is_tried_above() -> None:
    # Those of a batch have a file of their own.
    assert {refusal.code for refusal in BooksRefuse.__subclasses__()} == set(frozen_cases()) | {"batch_refused"}


# What never came to the books leaves the key free.

UNUSED: dict[str, tuple[bytes, dict[str, str]]] = {
    "malformed": (b'{"postings": [', {}),
    "of no known form": (json.dumps({"postings": []}).encode(), {}),
    "between an account and itself": (
        json.dumps({"postings": [{"debit_account": "cash", "credit_account": "cash", "amount": "1"}]}).encode(),
        {},
    ),
    "of another media type": (json.dumps(TRANSACTION).encode(), {"Content-Type": "text/plain"}),
    "too long": (b" " * (1 << 20) + b"{}", {}),
    "of nobody": (json.dumps(TRANSACTION).encode(), {"Authorization": "Bearer nobody"}),
    "for another answer": (json.dumps(TRANSACTION).encode(), {"Accept": "text/html"}),
}


@pytest.mark.parametrize("what", UNUSED)
def test_a_request_that_is_refused_before_the_books_does_not_use_its_key_up(caller: Caller, what: str) -> None:
    body, headers = UNUSED[what]
    assert caller.write("transactions", body, "k", **headers).status_code in (400, 401, 406, 413, 415, 422)
    accepted = caller.write("transactions", TRANSACTION, "k")
    assert (accepted.status_code, accepted.headers.get(REPLAYED)) == (201, None)


def test_a_key_sent_to_a_ledger_before_its_creation_is_free_after_it(client: httpx.Client) -> None:
    early = Caller(client, f"l{uuid.uuid4().hex}")
    assert early.open("cash", "k").json()["code"] == "ledger_not_found"
    client.post("/v1/ledgers", json={"name": early.ledger})
    answer = early.open("cash", "k")
    assert (answer.status_code, answer.headers.get(REPLAYED)) == (201, None)


# The name of a ledger is its key.


def test_a_ledger_created_again_is_answered_as_the_first_time(client: httpx.Client, service: Service) -> None:
    name = f"l{uuid.uuid4().hex}"
    body = {"name": name, "description": "Wallets", "metadata": {"a": "1", "b": "2"}}
    first = client.post("/v1/ledgers", json=body)
    service.clock.advance(60)
    Caller(client, name).open("cash")
    again = client.post("/v1/ledgers", json={"metadata": {"b": "2", "a": "1"}, "description": "Wallets", "name": name})
    assert is_replay(first, again)
    assert client.get(f"/v1/ledgers/{name}").json()["sequence"] == 2


@pytest.mark.parametrize(
    "change", [{"description": "Other"}, {"metadata": {"a": "1"}}, {"description": ""}], ids=lambda c: next(iter(c))
)
def test_refuses_a_ledger_of_the_same_name_with_another_body(client: httpx.Client, change: dict[str, Any]) -> None:
    name = f"l{uuid.uuid4().hex}"
    first = client.post("/v1/ledgers", json={"name": name})
    other = client.post("/v1/ledgers", json={"name": name} | change)
    assert (other.status_code, other.json()["code"], other.headers.get(REPLAYED)) == (409, "ledger_exists", None)
    assert client.get(f"/v1/ledgers/{name}").json()["sequence"] == 1
    assert is_replay(first, client.post("/v1/ledgers", json={"name": name}))


def test_no_key_that_a_client_sends_stands_for_the_creation_of_its_ledger(caller: Caller) -> None:
    body = {"name": caller.ledger}
    assert caller.write("transactions", body, "").json()["code"] == "idempotency_key_required"
    assert caller.client.post("/v1/ledgers", json=body, headers={"Idempotency-Key": "k"}).headers[REPLAYED] == "true"


# Equal keys at once.


def at_once(number: int, ask: Callable[[int], httpx.Response]) -> list[httpx.Response]:
    barrier = threading.Barrier(number)

    def wait_and_ask(which: int) -> httpx.Response:
        barrier.wait()
        return ask(which)

    with ThreadPoolExecutor(number) as threads:
        return list(threads.map(wait_and_ask, range(number)))


@pytest.mark.parametrize("number", [2, 8])
def test_of_equal_requests_at_once_one_takes_effect_and_the_others_are_answered_the_same(
    caller: Caller, service: Service, number: int
) -> None:
    for turn in range(10):
        before = caller.sequence()
        answers = at_once(number, lambda _, turn=turn: caller.post("cash", "wallet", 5, f"k{turn}"))
        assert [each.status_code for each in answers] == [201] * number
        assert len({each.content for each in answers}) == 1
        assert sorted(each.headers.get(REPLAYED, "") for each in answers) == [""] + ["true"] * (number - 1)
        assert caller.sequence() == before + 1
    wallet = caller.client.get(f"/v1/ledgers/{caller.ledger}/accounts/wallet").json()
    assert (wallet["posted"], wallet["version"]) == ("50", 10)
    asyncio.run(check_invariants(service.database))


def test_of_equal_refused_requests_at_once_all_get_the_one_refusal(caller: Caller) -> None:
    answers = at_once(6, lambda _: caller.post("wallet", "cash", 5, "k"))
    assert {each.json()["code"] for each in answers} == {"insufficient_funds"}
    assert sorted(each.headers.get(REPLAYED, "") for each in answers) == [""] + ["true"] * 5


def test_of_unequal_requests_with_one_key_at_once_one_takes_effect(caller: Caller) -> None:
    for turn in range(5):
        before = caller.sequence()
        answers = at_once(4, lambda which, turn=turn: caller.post("cash", "wallet", which + 1, f"k{turn}"))
        assert sorted(each.json().get("code", "") for each in answers) == [""] + ["idempotency_key_reused"] * 3
        assert caller.sequence() == before + 1


def test_of_equal_creations_at_once_one_creates_the_ledger(client: httpx.Client) -> None:
    name = f"l{uuid.uuid4().hex}"
    answers = at_once(6, lambda _: client.post("/v1/ledgers", json={"name": name}))
    assert [each.status_code for each in answers] == [201] * 6
    assert len({each.content for each in answers}) == 1
    assert sorted(each.headers.get(REPLAYED, "") for each in answers) == [""] + ["true"] * 5
    assert client.get(f"/v1/ledgers/{name}").json()["sequence"] == 1


# Fingerprints last for ever: a key that was stored years ago has to be known again.

GOLDEN_BODIES: dict[str, tuple[str, dict[str, str], type[BaseModel], dict[str, Any]]] = {
    "a ledger": ("createLedger", {}, models.CreateLedgerRequest, {"name": "golden"}),
    "a described ledger": (
        "createLedger",
        {},
        models.CreateLedgerRequest,
        {"name": "golden", "description": "Wallets — €", "metadata": {"team": "payments", "Z": "ü"}},
    ),
    "an account": (
        "createAccount",
        {"ledger": "golden"},
        models.CreateAccountRequest,
        {"path": "users:42:wallet", "asset": "USD/2", "normal_side": "credit"},
    ),
    "a limited account": (
        "createAccount",
        {"ledger": "golden"},
        models.CreateAccountRequest,
        {
            "path": "users:42:wallet",
            "asset": "USD/2",
            "normal_side": "credit",
            "minimum_balance": "0",
            "maximum_balance": "99999999999999999999999999999999999999",
            "description": "",
            "metadata": {"customer": "42"},
        },
    ),
    "a transaction": (
        "postTransaction",
        {"ledger": "golden"},
        models.PostTransactionRequest,
        {"postings": TRANSACTION["postings"][:1]},
    ),
    "a transaction that says everything": (
        "postTransaction",
        {"ledger": "golden"},
        models.PostTransactionRequest,
        TRANSACTION,
    ),
    "the same transaction in another ledger": (
        "postTransaction",
        {"ledger": "other"},
        models.PostTransactionRequest,
        TRANSACTION,
    ),
    "a batch": (
        "postTransactionBatch",
        {"ledger": "golden"},
        models.PostTransactionBatchRequest,
        {"transactions": [TRANSACTION, {"postings": TRANSACTION["postings"][:1]}]},
    ),
    "a batch of each by itself": (
        "postTransactionBatch",
        {"ledger": "golden"},
        models.PostTransactionBatchRequest,
        {"transactions": [TRANSACTION], "atomic": False},
    ),
    "a transaction on a condition": (
        "postTransaction",
        {"ledger": "golden"},
        models.PostTransactionRequest,
        {"postings": [EXPECTING | {"expected_credit_version": 2**53 - 1}]},
    ),
    "a hold": (
        "postTransaction",
        {"ledger": "golden"},
        models.PostTransactionRequest,
        {"postings": TRANSACTION["postings"][:1], "pending": True},
    ),
    "a hold that expires": (
        "postTransaction",
        {"ledger": "golden"},
        models.PostTransactionRequest,
        TRANSACTION | {"pending": True, "expires_at": "2026-02-07T00:00:00+01:00"},
    ),
    "a capture of all": (
        "captureTransaction",
        {"ledger": "golden", "sequence": "1234"},
        models.CaptureTransactionRequest,
        {},
    ),
    "a capture that says everything": (
        "captureTransaction",
        {"ledger": "golden", "sequence": "1234"},
        models.CaptureTransactionRequest,
        {
            "amounts": [{"posting": 1, "amount": "7"}, {"posting": 0, "amount": "1249"}],
            "remainder": "keep",
            **{name: TRANSACTION[name] for name in ("effective_at", "reference", "description", "metadata")},
        },
    ),
    "a capture of another hold": (
        "captureTransaction",
        {"ledger": "golden", "sequence": str(2**53 - 1)},
        models.CaptureTransactionRequest,
        {},
    ),
    "a void": ("voidTransaction", {"ledger": "golden", "sequence": "1234"}, models.VoidTransactionRequest, {}),
    "a void that says everything": (
        "voidTransaction",
        {"ledger": "golden", "sequence": "1234"},
        models.VoidTransactionRequest,
        {name: TRANSACTION[name] for name in ("reference", "description", "metadata")},
    ),
    "a reversal": (
        "reverseTransaction",
        {"ledger": "golden", "sequence": "1234"},
        models.ReverseTransactionRequest,
        {},
    ),
    "a reversal that says everything": (
        "reverseTransaction",
        {"ledger": "golden", "sequence": "1234"},
        models.ReverseTransactionRequest,
        {name: TRANSACTION[name] for name in ("effective_at", "reference", "description", "metadata")},
    ),
    "a changed ledger": ("updateLedger", {"ledger": "golden"}, models.UpdateLedgerRequest, {"revision": 1}),
    "a changed account": (
        "updateAccount",
        {"ledger": "golden", "account": "users:42:wallet"},
        models.UpdateAccountRequest,
        {"revision": 2**53 - 1},
    ),
    "a frozen account": (
        "updateAccount",
        {"ledger": "golden", "account": "users:42:wallet"},
        models.UpdateAccountRequest,
        {"revision": 2, "status": "frozen", "minimum_balance": "0", "metadata": {"customer": "42"}},
    ),
    "a closing": (
        "closePeriod",
        {"ledger": "golden"},
        models.ClosePeriodRequest,
        {"before": "2026-10-01T00:00:00Z", "reason": "September is done"},
    ),
    "a reopening": ("reopenPeriod", {"ledger": "golden"}, models.ReopenPeriodRequest, {"reason": "A correction"}),
}
GOLDEN = {
    "a ledger": "a04eb37483fb68aac04286ec52749757",
    "a described ledger": "d1e914985afd22438ec26c0b0c4b4b3c",
    "an account": "55cf87e6ee3b6baad6778341874ea592",
    "a limited account": "ab35d9ae93c5ad089049c0a413ae06f1",
    "a transaction": "eeb2992d852836c52a16688cfe69756b",
    "a transaction that says everything": "07b158a2749e905ca3c2305ec00b28bb",
    "the same transaction in another ledger": "dc38c94d11d14a427cd1716109287d62",
    "a batch": "dade328d6bd5c1c6808bf3c78e98a91a",
    "a batch of each by itself": "d7589d114864ba87cd122ec50cfb0055",
    "a transaction on a condition": "f7ed5d31efa525db2faf011ae84063ae",
    "a hold": "2ef8163750caec39bcf7a1e32b05a1db",
    "a hold that expires": "0a5b9c284589f20005b49ce929b9dca3",
    "a capture of all": "3c11ea378941b5334cac6bde69710575",
    "a capture that says everything": "c28591829a26ad548df1492eddce1180",
    "a capture of another hold": "b1681bba84988c672ddd14d2e7190edd",
    "a void": "57d92db7d311dbf0936bfffad0081afe",
    "a void that says everything": "21faaf195a78261199a2987d50ead1ae",
    "a reversal": "0eaaec1768231ee797ae519e8b13e86c",
    "a reversal that says everything": "ab05af19921a1f66bda69d6353ccff72",
    "a changed ledger": "b17898316f0a3e5ca268088fa40f4285",
    "a changed account": "278b04b2d0a862ed0b5bbd2ec05fa0f9",
    "a frozen account": "c93a7090afc57f3f9d109a5da695a118",
    "a closing": "d01b61d22fdae81142e44b96cf448bc3",
    "a reopening": "eb09562aa8f33fdaa995a6b8410fde01",
}


def golden_fingerprint(what: str) -> bytes:
    operation, path, model, body = GOLDEN_BODIES[what]
    return fingerprint(operation, path, model.model_validate_json(json.dumps(body)))


@pytest.mark.parametrize("what", GOLDEN_BODIES)
def test_a_fingerprint_stays_what_it_has_always_been(what: str) -> None:
    assert golden_fingerprint(what).hex() == GOLDEN[what]


def test_every_write_of_the_contract_has_golden_fingerprints() -> None:
    # Keys are made and revoked without one.
    writes = {name for name, operation in CONTRACT.operations.items() if operation.keyed} | {"createLedger"}
    assert {operation for operation, *_ in GOLDEN_BODIES.values()} == writes
    assert len(set(GOLDEN.values())) == len(GOLDEN) == len(GOLDEN_BODIES)


def test_a_fingerprint_is_the_hash_of_the_canonical_request_by_another_s_reckoning() -> None:
    operation, path, _, body = GOLDEN_BODIES["a transaction that says everything"]
    meaning = {"operation": operation, "path": path, "body": body | {"effective_at": "2026-01-31T23:59:59.500000Z"}}
    expected = hashlib.sha256(rfc8785.dumps(meaning)).digest()[:16]
    assert golden_fingerprint("a transaction that says everything") == expected


@pytest.mark.parametrize("what", GOLDEN_BODIES)
def test_a_contract_with_one_more_optional_field_gives_the_same_fingerprint(what: str) -> None:
    operation, path, model, body = GOLDEN_BODIES[what]

    class Grown(model):  # type: ignore[misc, valid-type]
        absent: str | MISSING = MISSING
        preset: int = 7
        listed: list[str] = []

    grown = Grown.model_validate_json(json.dumps(body))
    assert fingerprint(operation, path, grown).hex() == GOLDEN[what]
    explicit = Grown.model_validate_json(json.dumps(body | {"preset": 7, "listed": []}))
    assert fingerprint(operation, path, explicit).hex() == GOLDEN[what]
    used = Grown.model_validate_json(json.dumps(body | {"absent": ""}))
    assert fingerprint(operation, path, used).hex() != GOLDEN[what]


def test_the_service_stores_the_golden_fingerprints_under_the_digest_of_their_key(
    client: httpx.Client, service: Service
) -> None:
    said = {what: GOLDEN_BODIES[what] for what in ("a ledger", "an account", "a transaction")}
    client.post("/v1/ledgers", json=said["a ledger"][3])
    golden = Caller(client, "golden")
    golden.write("accounts", said["an account"][3], "key-1")
    golden.write("transactions", said["a transaction"][3], "key-2")
    stored = fetch_now(
        service.database,
        "select encode(key, 'hex'), encode(fingerprint, 'hex') from idempotency_keys "
        "where ledger_id = (select ledger_id from ledgers where name = 'golden') "
        "order by sequence, refusal is not null",
    )
    keys = ["", *(hashlib.sha256(key).hexdigest()[:32] for key in (b"key-1", b"key-2"))]
    assert [tuple(row) for row in stored] == list(zip(keys, (GOLDEN[what] for what in said), strict=True))


NAMES = st.text(st.characters(codec="ascii"), max_size=20)
VALUES = st.recursive(
    st.none() | st.booleans() | st.text(st.characters(exclude_categories=["Cs"]), max_size=30),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(NAMES, below, max_size=5),
    max_leaves=15,
)


@settings(max_examples=400, deadline=None)
@given(VALUES)
def test_canonical_json_is_what_another_implementation_of_rfc_8785_makes(value: Any) -> None:
    assert canonical_json(value) == rfc8785.dumps(value)

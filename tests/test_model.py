"""The service answers as the model does: edge by edge, and then whatever hypothesis comes upon.

Each named edge is played to the model alone, and to the model and the service together. A longer search than the
ordinary one: `HYPOTHESIS_PROFILE=campaign scripts/test tests/test_model.py`.
"""

import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from itertools import permutations
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    multiple,
    rule,
    run_state_machine_as_test,
)

from tests.conftest import Service
from tests.model import AMOUNT_MAX, Answer, Body, Model, in_plain, instant, ledger_in_force

START = datetime(2030, 1, 1, 12, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
TIMEOUT_SECONDS = 20
PAGES_MAX = 2_000

CAMPAIGN = os.environ.get("HYPOTHESIS_PROFILE") == "campaign"
PROFILE = settings(
    max_examples=3_000 if CAMPAIGN else 60,
    stateful_step_count=60 if CAMPAIGN else 40,
    deadline=None,
    report_multiple_bugs=False,
    phases=set(Phase) - {Phase.explain},  # which would send as many requests again
    suppress_health_check=list(HealthCheck),
)

# Refusals that leave their key free, or that another request had taken it.
UNFROZEN = {"idempotency_key_required", "validation_failed", "ledger_not_found", "idempotency_key_reused"}


@dataclass(frozen=True)
class Listing:
    """A list that is read page by page: the accounts, an account's statement, or the transactions."""

    kind: str
    ledger: str
    account: str = ""
    order: str = "newest"

    def path(self) -> str:
        return f"accounts/{self.account}/entries" if self.kind == "entries" else self.kind

    def position(self, item: Body) -> Any:
        return item[{"accounts": "path", "entries": "version", "transactions": "sequence"}[self.kind]]


class Books:
    """Asks the model and, where there is one, the service the same; every answer of both has to be the same.

    Ledgers go by short names here. In truth each name begins with a fresh prefix, so that nobody's ledgers meet,
    and the newest prefix sorts first, so that the list of all ledgers need not be read to its end.
    """

    def __init__(self, service: Service | None = None) -> None:
        self.service = service
        self.model = Model(START)
        self.prefix = f"0.{10**20 - time.time_ns():020d}.{secrets.token_hex(4)}."
        self.prose: dict[tuple[str, str], Body] = {}
        self.set_clock(START)
        if service is not None:
            self.client = httpx.Client(
                base_url=service.url,
                headers={"Authorization": f"Bearer {service.key}"},
                timeout=TIMEOUT_SECONDS,
            )

    def close(self) -> None:
        if self.service is not None:
            self.client.close()

    def set_clock(self, now: datetime) -> None:
        self.model.now = now
        if self.service is not None:
            self.service.clock.now = now

    def advance(self, seconds: float) -> None:
        self.set_clock(self.model.now + timedelta(seconds=seconds))

    # Writes

    def create_ledger(self, ledger: str, *, rewritten: bool = False, **fields: Any) -> Answer:
        body = {"name": self.prefix + ledger, **fields}
        expected = self.model.create_ledger(body)
        if self.service is not None:
            got = self._send("POST", "", body=rewrite(body) if rewritten else body)
            self._compare(expected, got, write=(ledger, ""))
        return expected

    def write(
        self,
        operation: str,
        ledger: str,
        key: str | None,
        body: Body,
        *,
        rewritten: bool = False,
        account: str = "",
    ) -> Answer:
        sent = rewrite(body, operation) if rewritten else body
        method, name = "POST", self.prefix + ledger
        match operation:
            case "createAccount":
                expected, path = self.model.create_account(name, key, sent), "/accounts"
            case "postTransactionBatch":
                expected, path = self.model.post_transaction_batch(name, key, sent), "/transaction-batches"
            case "closePeriod":
                expected, path = self.model.close_period(name, key, sent), "/closings"
            case "reopenPeriod":
                expected, path = self.model.reopen_period(name, key, sent), "/reopenings"
            case "updateLedger":
                expected = self.model.update_ledger(name, key, sent)
                method, path = "PUT", ""
            case "updateAccount":
                expected = self.model.update_account(name, account, key, sent)
                method, path = "PUT", f"/accounts/{account}"
            case _:
                expected, path = self.model.post_transaction(name, key, sent), "/transactions"
        if self.service is not None:
            got = self._send(method, f"/{name}{path}", body=sent, key=key)
            self._compare(expected, got, write=(ledger, key or ""))
        return expected

    def open(
        self, path: str, side: str = "debit", *, key: str | None = "", asset: str = "USD/2", **fields: Any
    ) -> Answer:
        body = {"path": path, "asset": asset, "normal_side": side, **fields}
        return self.write("createAccount", "main", self._key(key), body)

    def post(self, *postings: tuple[str, str, int], key: str | None = "", **fields: Any) -> Answer:
        moves = [{"debit_account": d, "credit_account": c, "amount": str(amount)} for d, c, amount in postings]
        return self.write("postTransaction", "main", self._key(key), {"postings": moves, **fields})

    def close_before(self, before: Any, *, key: str | None = "", reason: str = "done") -> Answer:
        before = before if isinstance(before, str) else before.isoformat()
        return self.write("closePeriod", "main", self._key(key), {"before": before, "reason": reason})

    def reopen(self, before: datetime | None = None, *, key: str | None = "", reason: str = "amiss") -> Answer:
        body = {"reason": reason} | ({} if before is None else {"before": before.isoformat()})
        return self.write("reopenPeriod", "main", self._key(key), body)

    def update_ledger(self, revision: int, *, key: str | None = "", ledger: str = "main", **fields: Any) -> Answer:
        return self.write("updateLedger", ledger, self._key(key), {"revision": revision, **fields})

    def update(self, path: str, revision: int, *, key: str | None = "", **fields: Any) -> Answer:
        return self.write("updateAccount", "main", self._key(key), {"revision": revision, **fields}, account=path)

    def _key(self, key: str | None) -> str | None:
        return secrets.token_hex(8) if key == "" else key

    # Reads

    def read_ledger(self, ledger: str = "main") -> Answer:
        return self._read(self.model.get_ledger(self.prefix + ledger), ledger, "")

    def read_account(self, path: str, ledger: str = "main") -> Answer:
        return self._read(self.model.get_account(self.prefix + ledger, path), ledger, f"/accounts/{path}")

    def read_transaction(self, sequence: int, ledger: str = "main") -> Answer:
        expected = self.model.get_transaction(self.prefix + ledger, sequence)
        return self._read(expected, ledger, f"/transactions/{sequence}")

    def _read(self, expected: Answer, ledger: str, path: str) -> Answer:
        if self.service is not None:
            self._compare(expected, self._send("GET", f"/{self.prefix}{ledger}{path}"))
        return expected

    def remaining(self, listing: Listing, after: Any = None) -> Answer:
        """What the model has of a list after a position."""
        ledger = self.prefix + listing.ledger
        if listing.kind == "accounts":
            return self.model.list_accounts(ledger, after=after)
        if listing.kind == "entries":
            return self.model.list_account_entries(ledger, listing.account, listing.order, after=after)
        return self.model.list_transactions(ledger, listing.order, after=after)

    def read_page(
        self,
        listing: Listing,
        limit: int,
        *,
        cursor: str | None = None,
        after: Any = None,
        say_order: bool = True,
    ) -> tuple[str | None, Any]:
        """Compare one page with what the model has left of the list; answer where the next one begins."""
        params: dict[str, Any] = {"limit": limit}
        if listing.kind != "accounts" and say_order:
            params["order"] = listing.order
        if cursor is not None:
            params["cursor"] = cursor
        got = self._send("GET", f"/{self.prefix}{listing.ledger}/{listing.path()}", params=params)
        expected = self.remaining(listing, after)
        if expected.status != 200 or got.status_code != 200:
            self._compare(expected, got)
            return None, None
        page, left = in_plain(got.json()), expected.body["items"]
        assert set(page) == {"items", "next_cursor", "sequence"}
        assert page["sequence"] == expected.body["sequence"]
        self._compare_part(page["items"], left, limit)
        if page["next_cursor"] is None:
            assert page["items"] == left
            return None, None
        assert page["items"] != left, "a next page is promised, but nothing is left"
        return page["next_cursor"], listing.position(page["items"][-1])

    def read_list(self, listing: Listing, limit: int) -> Answer:
        if self.service is not None:
            cursor, after = self.read_page(listing, limit)
            while cursor is not None:
                cursor, after = self.read_page(listing, limit, cursor=cursor, after=after)
        return self.remaining(listing)

    def read_events(self, after_sequence: int, limit: int, ledger: str = "main") -> Answer:
        """Compare one page of the log."""
        expected = self.model.list_events(self.prefix + ledger, after_sequence)
        if self.service is None:
            return expected
        params = {"after_sequence": after_sequence, "limit": limit}
        got = self._send("GET", f"/{self.prefix}{ledger}/events", params=params)
        if expected.status != 200 or got.status_code != 200:
            self._compare(expected, got)
            return expected
        page, left = in_plain(got.json()), expected.body["items"]
        self._compare_part(page["items"], left, limit)
        last = page["items"][-1]["sequence"] if page["items"] else after_sequence
        assert set(page) == {"items", "next_after_sequence", "sequence"}
        assert (page["next_after_sequence"], page["sequence"]) == (last, expected.body["sequence"])
        return expected

    def read_ledgers(self, limit: int) -> None:
        """Compare our part of the list of all ledgers, of which there are many."""
        mine: list[Body] = []
        params: dict[str, Any] = {"limit": limit}
        for _ in range(PAGES_MAX):
            page = in_plain(self._send("GET", "", params=params).json())
            names = [item["name"] for item in page["items"]]
            assert len(names) <= limit
            assert names == sorted(names)
            mine += [item for item in page["items"] if item["name"].startswith(self.prefix)]
            if page["next_cursor"] is None or names[-1] > self.prefix + "~":
                break
            params = {"limit": limit, "cursor": page["next_cursor"]}
        assert mine == self.model.list_ledgers().body["items"]

    def _compare_part(self, items: list[Body], left: list[Body], limit: int) -> None:
        assert items == left[: len(items)]
        assert len(items) <= limit
        assert items or not left, "an empty page, although more is left"

    def refuse_cursor(self, listing: Listing, cursor: str) -> None:
        params = {"cursor": cursor} | ({} if listing.kind == "accounts" else {"order": listing.order})
        got = self._send("GET", f"/{self.prefix}{listing.ledger}/{listing.path()}", params=params)
        self._compare(Answer(400, {"status": 400, "code": "invalid_cursor"}), got)

    # Comparison

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: dict[str, Any] | None = None,
        body: Body | None = None,
        key: str | None = None,
    ) -> httpx.Response:
        headers = {} if body is None else {"Content-Type": "application/json"}
        if key is not None:
            headers["Idempotency-Key"] = key
        content = None if body is None else json.dumps(body, ensure_ascii=False)
        return self.client.request(method, "/v1/ledgers" + path, params=params, content=content, headers=headers)

    def _compare(self, expected: Answer, got: httpx.Response, write: tuple[str, str] | None = None) -> None:
        body = got.json()
        media_type = "application/json" if got.status_code < 400 else "application/problem+json"
        assert got.headers["Content-Type"] == media_type, got.text
        replayed = got.headers.get("Idempotency-Replayed")
        assert replayed in (None, "true")
        assert Answer(got.status_code, in_plain(body), replayed is not None) == expected
        if got.status_code >= 400:
            assert body["request_id"] == got.headers["X-Request-Id"]
            prose = {name: body[name] for name in ("type", "title", "detail")}
            if write is not None and expected.replayed:
                assert prose == self.prose[write]
            elif write is not None and body["code"] not in UNFROZEN:
                self.prose[write] = prose


def rewrite(body: Body, operation: str = "") -> Body:
    """The same request in other words: another order, another offset, a default said or left unsaid."""
    other = dict(reversed(body.items()))
    if "transactions" in other:
        transactions = [rewrite(transaction) for transaction in other["transactions"]]
        return {"atomic": other.get("atomic", True), "transactions": transactions}
    for name in other.keys() & {"effective_at", "before"}:
        if "1900" < other[name] < "9000":
            zone = timezone(timedelta(hours=5, minutes=30))
            other[name] = instant(other[name]).astimezone(zone).isoformat()
    has_metadata = "reason" not in other
    if has_metadata and other.get("metadata", {}) == {} and other.pop("metadata", None) is None:
        other["metadata"] = {}
    default = operation == "updateAccount" and other.get("status", "open") == "open"
    if default and other.pop("status", None) is None:
        other["status"] = "open"
    if "postings" in other:
        other["postings"] = [dict(reversed(posting.items())) for posting in other["postings"]]
    return other


# The edges


@pytest.fixture(params=["model", "service"])
def books(request: pytest.FixtureRequest) -> Iterator[Books]:
    """Books with a ledger, `main`, on a clock of their own."""
    service = request.getfixturevalue("service") if request.param == "service" else None
    before = service.clock.now if service is not None else START
    books = Books(service)
    assert books.create_ledger("main").status == 201
    yield books
    if service is not None:
        check_the_end(books)
        service.clock.now = before
    books.close()


def refusal(answer: Answer, *fields: str) -> list[Any]:
    """The code of a refusal, and the fields asked for."""
    assert answer.status >= 400, answer
    return [answer.body["code"], *(answer.body[name] for name in fields)]


def column(answer: Answer, name: str) -> list[Any]:
    return [item[name] for item in answer.body["items"]]


def statement(books: Books, path: str, *, order: str = "oldest") -> Answer:
    return books.read_list(Listing("entries", "main", path, order), 2)


def test_a_ledger_begins_with_the_event_that_created_it(books: Books) -> None:
    answer = books.create_ledger("other", description="Ours", metadata={"team": "payments"})
    expected = {
        "name": books.prefix + "other",
        "description": "Ours",
        "metadata": {"team": "payments"},
        "revision": 1,
        "sequence": 1,
        "recorded_at": START,
    }
    assert (answer.status, answer.body) == (201, expected)
    event = {"sequence": 1, "kind": "ledger_created", "recorded_at": START, "actor": "operator"}
    assert books.read_events(0, 10, "other").body["items"] == [{**event, "ledger": expected}]


def test_a_ledger_created_again_is_answered_as_the_first_time(books: Books) -> None:
    first = books.create_ledger("other", description="Ours")
    books.advance(5)
    books.write("createAccount", "other", "k", {"path": "a", "asset": "X/0", "normal_side": "debit"})
    assert books.create_ledger("other", description="Ours") == Answer(201, first.body, replayed=True)
    assert books.read_ledger("other").body == {
        **first.body,
        "closed_before": None,
        "sequence": 2,
        "recorded_at": START + timedelta(seconds=5),
    }


def test_a_ledger_of_the_same_name_with_another_body_is_refused(books: Books) -> None:
    assert refusal(books.create_ledger("main", description="")) == ["ledger_exists"]
    assert refusal(books.create_ledger("main", metadata={"a": "b"})) == ["ledger_exists"]
    assert books.create_ledger("main").replayed


def test_no_metadata_means_the_same_as_empty_metadata(books: Books) -> None:
    assert books.create_ledger("main", metadata={}).replayed
    books.open("a")
    books.open("b")
    books.post(("a", "b", 1), key="k")
    assert books.post(("a", "b", 1), key="k", metadata={}).replayed


def test_an_account_opens_with_its_configuration_and_empty_counters(books: Books) -> None:
    answer = books.open("a:b", "credit", minimum_balance="-5", maximum_balance="0", metadata={"k": "v"})
    configuration = {
        "path": "a:b",
        "asset": "USD/2",
        "normal_side": "credit",
        "status": "open",
        "minimum_balance": "-5",
        "maximum_balance": "0",
        "description": None,
        "metadata": {"k": "v"},
        "revision": 1,
    }
    assert answer.body == {**configuration, "sequence": 2, "recorded_at": START}
    counters = dict.fromkeys(("debits_posted", "credits_posted", "debits_pending", "credits_pending"), "0")
    assert books.read_account("a:b").body == {
        **configuration,
        **counters,
        "version": 0,
        "posted": "0",
        "available": "0",
        "sequence": 2,
    }


def test_an_account_opens_once(books: Books) -> None:
    books.open("a")
    assert refusal(books.open("a"), "account") == ["account_exists", "a"]
    assert refusal(books.open("a", minimum_balance="1"), "account") == ["account_exists", "a"]
    assert books.open("A").status == 201


def test_an_account_whose_limits_rule_out_zero_does_not_open(books: Books) -> None:
    minimum, maximum = ["limit_not_met", "/minimum_balance"], ["limit_not_met", "/maximum_balance"]
    assert refusal(books.open("a", minimum_balance="1"), "pointer") == minimum
    assert refusal(books.open("a", maximum_balance="-1"), "pointer") == maximum
    assert refusal(books.open("a", minimum_balance="5", maximum_balance="-5"), "pointer") == minimum
    assert refusal(books.open("a", minimum_balance="7", maximum_balance="3"), "pointer") == minimum
    assert books.open("a", minimum_balance="0", maximum_balance="0").status == 201


def test_accounts_are_listed_in_bytewise_order(books: Books) -> None:
    for path in ("b", "a:b", "a.b", "_", "B", "a-b", "a", "0", "a0", "a_b", "aB"):
        books.open(path)
    answer = books.read_list(Listing("accounts", "main"), 3)
    assert column(answer, "path") == ["0", "B", "_", "a", "a-b", "a.b", "a0", "a:b", "aB", "a_b", "b"]


def test_a_transaction_moves_value_and_numbers_its_entries(books: Books) -> None:
    books.open("bank")
    books.open("wallet", "credit")
    books.advance(1)
    answer = books.post(("bank", "wallet", 1250), ("wallet", "bank", 250), reference="r", group="g", description="d")
    moved = {"asset": "USD/2", "debit_account": "bank", "credit_account": "wallet", "amount": "1250"}
    back = {"asset": "USD/2", "debit_account": "wallet", "credit_account": "bank", "amount": "250"}
    assert answer.body == {
        "sequence": 4,
        "kind": "transaction_posted",
        "recorded_at": START + timedelta(seconds=1),
        "effective_at": START + timedelta(seconds=1),
        "actor": "operator",
        "postings": [
            {**moved, "debit_version": 1, "credit_version": 1},
            {**back, "debit_version": 2, "credit_version": 2},
        ],
        "reference": "r",
        "group": "g",
        "description": "d",
        "metadata": {},
    }
    assert books.read_transaction(4).body == answer.body
    wallet = books.read_account("wallet").body
    assert [wallet[name] for name in ("debits_posted", "credits_posted", "posted", "version")] == [
        "250",
        "1250",
        "1000",
        2,
    ]
    assert column(statement(books, "wallet"), "balance") == ["1250", "1000"]
    assert column(statement(books, "bank", order="newest"), "side") == ["credit", "debit"]


def test_an_account_named_several_times_counts_each_posting(books: Books) -> None:
    books.open("a")
    books.open("b", "credit")
    books.open("c", "credit")
    answer = books.post(("a", "b", 1), ("a", "c", 2), ("a", "b", 3), ("a", "b", 3))
    assert [posting["debit_version"] for posting in answer.body["postings"]] == [1, 2, 3, 4]
    assert column(statement(books, "a"), "balance") == ["1", "3", "6", "9"]
    assert column(statement(books, "b"), "balance") == ["1", "4", "7"]


def test_a_posting_needs_two_different_accounts(books: Books) -> None:
    books.open("a")
    assert refusal(books.post(("a", "a", 1), key="k")) == ["validation_failed"]
    books.open("b")
    assert books.post(("a", "b", 1), key="k").status == 201


def test_limits_apply_to_the_result_of_the_whole_transaction(books: Books) -> None:
    books.open("a", minimum_balance="0", maximum_balance="0")
    books.open("b")
    assert books.post(("b", "a", 9), ("a", "b", 9)).status == 201
    assert books.post(("a", "b", 9), ("b", "a", 9)).status == 201
    assert books.post(("a", "b", 9), ("b", "a", 8)).status == 422


def test_insufficient_funds_tell_what_is_available_and_what_is_required(books: Books) -> None:
    books.open("bank", minimum_balance="-100")
    books.open("wallet", "credit", minimum_balance="-10")
    books.post(("bank", "wallet", 5))
    wanted = ("account", "available", "required")
    answer = books.post(("wallet", "bank", 15), ("wallet", "bank", 2), ("bank", "wallet", 1))
    assert refusal(answer, *wanted) == ["insufficient_funds", "wallet", "15", "16"]
    assert refusal(books.post(("wallet", "bank", 16)), *wanted) == [
        "insufficient_funds",
        "wallet",
        "15",
        "16",
    ]
    assert books.post(("wallet", "bank", 15)).status == 201
    answer = books.post(("wallet", "bank", 1))
    assert refusal(answer, *wanted) == ["insufficient_funds", "wallet", "0", "1"]


def test_an_exceeded_maximum_tells_the_room_and_what_is_required(books: Books) -> None:
    books.open("bank")
    books.open("jar", "credit", maximum_balance="10")
    books.post(("bank", "jar", 4))
    answer = books.post(("bank", "jar", 7))
    assert refusal(answer, "account", "available", "required") == ["maximum_exceeded", "jar", "6", "7"]
    assert books.post(("bank", "jar", 6)).status == 201


def test_books_refuse_in_the_published_order(books: Books) -> None:
    """One request has every fault; as each is mended, the next one is answered."""
    books.open("bank", "debit", maximum_balance="10")
    books.open("wallet", "credit", minimum_balance="0")
    books.open("euros", "credit", asset="EUR/2")
    books.open("full", "credit")
    books.open("spent", "debit")
    books.post(("spent", "full", AMOUNT_MAX), reference="r")
    late = (START - timedelta(days=1)).isoformat()

    postings = [("bank", "euros", 11), ("wallet", "spent", 1), ("spent", "full", 1), ("bank", "none", 1)]
    answer = books.post(*postings, reference="r", effective_at="1899-12-31T23:59:59Z")
    assert refusal(answer, "pointer") == ["time_out_of_range", "/effective_at"]
    answer = books.post(*postings, reference="r", effective_at=late)
    assert refusal(answer, "pointer") == ["reference_exists", "/reference"]
    answer = books.post(*postings, reference="s")
    assert refusal(answer, "pointer") == ["unknown_account", "/postings/3/credit_account"]
    answer = books.post(*postings[:3])
    assert refusal(answer, "pointer") == ["asset_mismatch", "/postings/0"]
    postings[0] = ("bank", "spent", 11)
    assert refusal(books.post(*postings[:3]), "account") == ["amount_overflow", "spent"]
    assert refusal(books.post(*postings[:2]), "account") == ["insufficient_funds", "wallet"]
    assert refusal(books.post(postings[0]), "account") == ["maximum_exceeded", "bank"]


def test_the_account_named_first_is_refused_first_and_the_debited_one_before_the_credited(
    books: Books,
) -> None:
    for path in ("z", "y", "x"):
        books.open(path, "credit", minimum_balance="0")
    books.open("bank", "debit", minimum_balance="0")
    assert refusal(books.post(("z", "bank", 1)), "account") == ["insufficient_funds", "z"]
    assert refusal(books.post(("y", "x", 1), ("x", "bank", 9)), "account") == ["insufficient_funds", "y"]
    answer = books.post(("none", "nothing", 1))
    assert refusal(answer, "pointer") == ["unknown_account", "/postings/0/debit_account"]


def test_a_counter_holds_38_digits_and_no_more(books: Books) -> None:
    books.open("a")
    books.open("b", "credit")
    books.open("c")
    assert books.post(("a", "b", AMOUNT_MAX)).status == 201
    assert refusal(books.post(("c", "b", 1)), "account") == ["amount_overflow", "b"]
    assert refusal(books.post(("b", "a", 1), ("a", "b", 1)), "account") == ["amount_overflow", "b"]
    assert books.post(("b", "a", AMOUNT_MAX)).status == 201
    assert books.read_account("a").body["posted"] == "0"
    assert refusal(books.post(("b", "c", 1)), "account") == ["amount_overflow", "b"]


def test_one_transaction_may_name_more_than_a_counter_holds(books: Books) -> None:
    books.open("a")
    books.open("b")
    answer = books.post(("a", "b", AMOUNT_MAX), ("a", "b", AMOUNT_MAX))
    assert refusal(answer, "account") == ["amount_overflow", "a"]


def test_limits_hold_at_the_largest_amounts(books: Books) -> None:
    books.open("a", "credit", minimum_balance=str(-AMOUNT_MAX))
    books.open("b", "debit", minimum_balance="0")
    books.open("c", "debit")
    assert books.post(("c", "a", AMOUNT_MAX)).status == 201
    answer = books.post(("a", "b", AMOUNT_MAX))
    assert refusal(answer, "available", "required") == ["insufficient_funds", "0", str(AMOUNT_MAX)]
    assert books.post(("a", "c", AMOUNT_MAX)).status == 201


def test_effective_times_reach_from_1900_to_a_minute_ahead(books: Books) -> None:
    books.open("a")
    books.open("b")
    ahead = START + timedelta(seconds=60)
    out = ["time_out_of_range", "/effective_at"]
    assert books.post(("a", "b", 1), effective_at=ahead.isoformat()).body["effective_at"] == ahead
    answer = books.post(("a", "b", 1), effective_at=(ahead + MICROSECOND).isoformat())
    assert refusal(answer, "pointer") == out
    assert books.post(("a", "b", 1), effective_at="1900-01-01T00:00:00Z").status == 201
    answer = books.post(("a", "b", 1), effective_at="1899-12-31T23:59:59.999999Z")
    assert refusal(answer, "pointer") == out
    assert refusal(books.post(("a", "b", 1), effective_at="0001-01-01T00:00:00Z"), "pointer") == out
    assert refusal(books.post(("a", "b", 1), effective_at="9999-12-31T23:59:59Z"), "pointer") == out


def test_recorded_at_never_falls_when_the_clock_does(books: Books) -> None:
    books.open("a")
    books.open("b")
    books.advance(-3600)
    answer = books.post(("a", "b", 1))
    assert (answer.body["recorded_at"], answer.body["effective_at"]) == (START, START)
    answer = books.post(("a", "b", 1), effective_at=START.isoformat())
    assert refusal(answer, "pointer") == ["time_out_of_range", "/effective_at"]
    books.advance(3600.000001)
    assert books.post(("a", "b", 1)).body["recorded_at"] == START + MICROSECOND


def test_an_entry_is_late_if_its_account_has_seen_a_later_time(books: Books) -> None:
    for path in ("a", "b", "c"):
        books.open(path)
    yesterday = START - timedelta(days=1)
    books.post(("a", "b", 1), effective_at=yesterday.isoformat())
    books.post(("a", "b", 1), effective_at=yesterday.isoformat())
    before = (yesterday - MICROSECOND).isoformat()
    books.post(("a", "c", 1), ("b", "c", 1), ("a", "b", 1), effective_at=before)
    books.post(("c", "b", 1), effective_at=before)
    books.post(("a", "c", 1), effective_at=yesterday.isoformat())
    assert column(statement(books, "a"), "late") == [False, False, True, True, False]
    assert column(statement(books, "b"), "late") == [False, False, True, True, True]
    assert column(statement(books, "c"), "late") == [False, False, False, False]


def test_a_replay_shows_the_first_answer_however_the_books_have_moved_on(books: Books) -> None:
    opened = books.open("a", key="open")
    books.open("b")
    first = books.post(("a", "b", 5), key="k", effective_at="2029-12-31T20:00:00+01:00")
    books.advance(60)
    books.post(("a", "b", 7))
    again = books.post(("a", "b", 5), key="k", effective_at="2029-12-31T19:00:00Z")
    assert again == Answer(201, first.body, replayed=True)
    assert books.open("a", key="open") == Answer(201, opened.body, replayed=True)
    assert books.read_ledger().body["sequence"] == 5


def test_a_refusal_is_frozen_with_its_key(books: Books) -> None:
    books.open("bank")
    books.open("wallet", "credit", minimum_balance="0")
    first = books.post(("wallet", "bank", 5), key="k")
    unknown = books.post(("bank", "new", 5), key="u")
    books.post(("bank", "wallet", 5))
    books.open("new")
    assert books.post(("wallet", "bank", 5), key="k") == Answer(422, first.body, replayed=True)
    assert books.post(("bank", "new", 5), key="u") == Answer(422, unknown.body, replayed=True)
    assert books.post(("wallet", "bank", 5), key="another").status == 201
    assert refusal(books.post(("wallet", "bank", 4), key="k")) == ["idempotency_key_reused"]


def test_a_key_serves_one_request_of_one_operation(books: Books) -> None:
    books.open("a", key="k")
    books.open("b")
    reused = ["idempotency_key_reused"]
    assert refusal(books.post(("a", "b", 1), key="k")) == reused
    assert refusal(books.open("a", "credit", key="k")) == reused
    assert refusal(books.open("a", key="k", description="")) == reused
    assert books.open("a", key="k").replayed
    assert books.open("c", key="K").status == 201
    assert refusal(books.post(("a", "none", 1), key="k", reference="r")) == reused


def test_a_key_is_scoped_to_its_ledger(books: Books) -> None:
    books.open("a", key="k")
    books.create_ledger("other")
    answer = books.write("createAccount", "other", "k", {"path": "b", "asset": "X/0", "normal_side": "debit"})
    assert (answer.status, answer.replayed) == (201, False)


def test_what_the_books_did_not_decide_leaves_the_key_free(books: Books) -> None:
    body = {"path": "a", "asset": "X/0", "normal_side": "debit"}
    assert refusal(books.write("createAccount", "other", "k", body)) == ["ledger_not_found"]
    assert refusal(books.open("a", key=None)) == ["idempotency_key_required"]
    books.create_ledger("other")
    assert books.write("createAccount", "other", "k", body).status == 201


def test_a_reference_is_given_once_and_a_refused_transaction_leaves_it_free(books: Books) -> None:
    books.open("a")
    books.open("b")
    assert refusal(books.post(("a", "none", 1), reference="r")) == [
        "unknown_account",
    ]
    assert books.post(("a", "b", 1), reference="r").status == 201
    answer = books.post(("a", "b", 1), reference="r")
    assert (answer.status, answer.body["pointer"]) == (409, "/reference")
    assert books.post(("a", "b", 1), reference="R").status == 201


def test_a_refusal_takes_no_sequence(books: Books) -> None:
    books.open("a")
    books.open("a")
    books.post(("a", "b", 1))
    assert books.open("b").body["sequence"] == 3


def test_only_a_transaction_is_found_by_its_sequence(books: Books) -> None:
    books.open("a")
    books.open("b")
    sequence = books.post(("a", "b", 1)).body["sequence"]
    assert books.read_transaction(sequence).status == 200
    for other in (1, 2, sequence + 1, 2**53 - 1):
        assert refusal(books.read_transaction(other)) == ["transaction_not_found"]


def test_the_log_is_read_up_to_its_end_and_refused_beyond(books: Books) -> None:
    books.open("a")
    assert column(books.read_events(0, 1000), "sequence") == [1, 2]
    assert column(books.read_events(1, 1), "sequence") == [2]
    assert column(books.read_events(2, 1), "sequence") == []
    assert refusal(books.read_events(3, 1)) == ["sequence_out_of_range"]
    assert refusal(books.read_events(2**53 - 1, 1)) == ["sequence_out_of_range"]


def test_transactions_are_listed_newest_or_oldest_first(books: Books) -> None:
    books.open("a")
    books.open("b")
    for amount in range(1, 6):
        books.post(("a", "b", amount))
    oldest = books.read_list(Listing("transactions", "main", order="oldest"), 2)
    newest = books.read_list(Listing("transactions", "main", order="newest"), 2)
    assert column(oldest, "sequence") == [4, 5, 6, 7, 8]
    assert column(newest, "sequence") == [8, 7, 6, 5, 4]


@pytest.mark.parametrize("books", ["service"], indirect=True)  # the model has no cursors
def test_a_cursor_reads_on_in_its_own_list_alone(books: Books) -> None:
    books.open("a")
    books.open("b")
    books.post(("a", "b", 1), ("a", "b", 2), ("a", "b", 3))
    books.create_ledger("other")
    statement = Listing("entries", "main", "a", "oldest")
    cursor, after = books.read_page(statement, 1)
    assert cursor is not None
    books.post(("a", "b", 4))
    for other in (
        Listing("entries", "main", "b", "oldest"),
        Listing("entries", "main", "a", "newest"),
        Listing("entries", "other", "a", "oldest"),
        Listing("transactions", "main", "", "oldest"),
        Listing("accounts", "main"),
    ):
        books.refuse_cursor(other, cursor)
    books.read_page(statement, 10, cursor=cursor, after=after, say_order=False)
    books.read_page(statement, 10, cursor=cursor, after=after)


def test_what_is_not_there_is_not_found(books: Books) -> None:
    assert refusal(books.read_account("none")) == ["account_not_found"]
    assert refusal(books.read_list(Listing("entries", "main", "none"), 5)) == ["account_not_found"]
    not_found = ["ledger_not_found"]
    assert refusal(books.read_ledger("other")) == not_found
    assert refusal(books.read_account("a", "other")) == not_found
    assert refusal(books.read_transaction(1, "other")) == not_found
    assert refusal(books.read_events(9, 5, "other")) == not_found
    for kind in ("accounts", "entries", "transactions"):
        assert refusal(books.read_list(Listing(kind, "other", "a"), 5)) == not_found


# The life of an account


def test_an_account_is_reconfigured_whole_and_keeps_its_balances(books: Books) -> None:
    books.open("wallet", "credit", minimum_balance="-5", description="Old", metadata={"k": "v"})
    books.open("bank")
    books.post(("bank", "wallet", 5))
    books.advance(1)
    answer = books.update("wallet", 1, maximum_balance="10", metadata={"l": "w"})
    assert (answer.status, answer.body) == (
        200,
        {
            "path": "wallet",
            "asset": "USD/2",
            "normal_side": "credit",
            "status": "open",
            "minimum_balance": None,
            "maximum_balance": "10",
            "description": None,
            "metadata": {"l": "w"},
            "revision": 2,
            "sequence": 5,
            "recorded_at": START + timedelta(seconds=1),
        },
    )
    event = books.read_events(4, 1).body["items"][0]
    assert (event["kind"], event["account"]) == ("account_changed", answer.body)
    after = books.read_account("wallet").body
    assert [after[name] for name in ("revision", "version", "posted", "maximum_balance")] == [2, 1, "5", "10"]
    assert books.post(("wallet", "bank", 50)).status == 201
    assert refusal(books.post(("bank", "wallet", 56)), "required") == ["maximum_exceeded", "56"]


def test_a_reconfiguration_names_the_revision_that_it_saw(books: Books) -> None:
    books.open("a")
    books.open("b")
    stale = ["revision_conflict", "/revision"]
    assert refusal(books.update("a", 2), "pointer") == stale
    assert books.update("a", 1).body["revision"] == 2
    assert refusal(books.update("a", 1, minimum_balance="9"), "pointer") == stale
    assert refusal(books.update("a", 2**53 - 1), "pointer") == stale
    assert books.update("a", 2).body["revision"] == 3
    assert books.update("b", 1).status == 200


def test_a_busy_accounts_balances_do_not_move_its_revision(books: Books) -> None:
    books.open("a")
    books.open("b")
    for _ in range(3):
        books.post(("a", "b", 1))
    assert books.update("a", 1, minimum_balance="3").status == 200
    assert books.read_account("a").body["version"] == 3


def test_an_account_that_is_not_there_is_not_found_and_leaves_the_key_free(books: Books) -> None:
    assert refusal(books.update("a", 1, key="k")) == ["account_not_found"]
    assert refusal(books.update("a", 1, key="k", minimum_balance="0")) == ["account_not_found"]
    books.open("a")
    answer = books.update("a", 1, key="k")
    assert (answer.status, answer.replayed) == (200, False)
    assert refusal(books.update("b", 1, key="k")) == ["idempotency_key_reused"]
    body = {"revision": 1}
    assert refusal(books.write("updateAccount", "other", "k", body, account="a")) == ["ledger_not_found"]


def test_limits_that_present_balances_break_are_refused(books: Books) -> None:
    books.open("wallet", "credit")
    books.open("bank")
    books.post(("bank", "wallet", 5))
    minimum, maximum = ["limit_not_met", "/minimum_balance"], ["limit_not_met", "/maximum_balance"]
    assert refusal(books.update("wallet", 1, minimum_balance="6"), "pointer") == minimum
    assert refusal(books.update("wallet", 1, maximum_balance="4"), "pointer") == maximum
    assert refusal(books.update("wallet", 1, minimum_balance="6", maximum_balance="4"), "pointer") == minimum
    assert books.update("wallet", 1, minimum_balance="5", maximum_balance="5").status == 200
    assert refusal(books.post(("bank", "wallet", 1))) == ["maximum_exceeded"]
    assert refusal(books.post(("wallet", "bank", 1))) == ["insufficient_funds"]


def test_only_an_open_account_takes_postings(books: Books) -> None:
    for path in ("a", "b", "c"):
        books.open(path)
    assert books.update("a", 1, status="frozen").body["status"] == "frozen"
    assert books.update("b", 1, status="closed").body["status"] == "closed"
    assert books.read_account("a").body["status"] == "frozen"
    assert refusal(books.post(("a", "c", 1)), "account") == ["account_frozen", "a"]
    assert refusal(books.post(("c", "b", 1)), "account") == ["account_closed", "b"]
    assert refusal(books.post(("a", "c", 1), ("c", "b", 1)), "account") == ["account_closed", "b"]
    assert books.update("a", 2).body["status"] == "open"
    assert books.update("b", 2, status="open").body["status"] == "open"
    assert books.post(("a", "b", 1)).status == 201


def test_an_account_closes_only_when_it_is_empty(books: Books) -> None:
    books.open("a")
    books.open("b")
    books.post(("a", "b", 5))
    assert refusal(books.update("a", 1, status="closed"), "account") == ["account_not_empty", "a"]
    assert refusal(books.update("b", 1, status="closed"), "account") == ["account_not_empty", "b"]
    books.post(("b", "a", 5))
    assert books.update("a", 1, status="closed", description="Done").status == 200
    assert books.update("a", 2, status="closed", description="Done with").body["revision"] == 3
    assert refusal(books.update("a", 3, status="closed", minimum_balance="1")) == ["limit_not_met"]


def test_between_frozen_and_closed_an_account_passes_through_open(books: Books) -> None:
    books.open("a")
    books.open("b")
    books.post(("a", "b", 5))
    books.update("a", 1, status="frozen")
    assert books.update("a", 2, status="frozen").body["revision"] == 3
    assert refusal(books.update("a", 3, status="closed"), "account") == ["account_frozen", "a"]
    books.update("a", 3)
    books.post(("b", "a", 5))
    books.update("a", 4, status="closed")
    assert refusal(books.update("a", 5, status="frozen"), "account") == ["account_closed", "a"]
    assert books.update("a", 5).status == 200
    assert books.update("a", 6, status="frozen").status == 200


def test_account_writes_are_refused_in_the_published_order(books: Books) -> None:
    """One request has every fault; as each is mended, the next one is answered."""
    books.open("a")
    books.open("b")
    books.post(("a", "b", 5))
    books.update("a", 1, status="frozen")
    wrong = {"status": "closed", "minimum_balance": "6"}
    assert refusal(books.update("c", 1, **wrong)) == ["account_not_found"]
    assert refusal(books.update("a", 1, **wrong)) == ["revision_conflict"]
    assert refusal(books.update("a", 2, **wrong)) == ["limit_not_met"]
    assert refusal(books.update("a", 2, status="closed")) == ["account_frozen"]
    books.update("a", 2)
    assert refusal(books.update("a", 3, status="closed")) == ["account_not_empty"]


def test_a_reconfiguration_replayed_shows_its_own_event(books: Books) -> None:
    books.open("a")
    first = books.update("a", 1, key="k", minimum_balance="-9", metadata={"b": "1", "a": "2"})
    conflict = books.update("a", 1, key="c")
    books.advance(5)
    books.update("a", 2, status="frozen")
    again = books.update("a", 1, key="k", minimum_balance="-9", metadata={"a": "2", "b": "1"}, status="open")
    assert again == Answer(200, first.body, replayed=True)
    assert books.update("a", 1, key="c", metadata={}) == Answer(409, conflict.body, replayed=True)
    assert refusal(books.update("a", 1, key="k", minimum_balance="-9")) == ["idempotency_key_reused"]
    assert refusal(books.update("a", 1, key="c", status="closed")) == ["idempotency_key_reused"]


# Conditions


def expecting(debited: str, credited: str, amount: int = 1, **versions: int) -> Body:
    expected = {f"expected_{side}_version": version for side, version in versions.items()}
    return {"debit_account": debited, "credit_account": credited, "amount": str(amount), **expected}


def test_a_posting_may_expect_the_versions_that_its_caller_saw(books: Books) -> None:
    for path in ("a", "b", "c"):
        books.open(path)

    def post(*postings: Body, key: str = "", **fields: Any) -> Answer:
        return books.write("postTransaction", "main", books._key(key), {"postings": list(postings), **fields})

    debit, credit = "/postings/0/expected_debit_version", "/postings/0/expected_credit_version"
    first = post(expecting("a", "b", debit=0, credit=0), key="k")
    assert first.status == 201
    assert "expected_debit_version" not in first.body["postings"][0]
    assert refusal(post(expecting("a", "b", debit=0)), "pointer") == ["version_conflict", debit]
    assert refusal(post(expecting("a", "b", debit=1, credit=2)), "pointer") == ["version_conflict", credit]
    assert refusal(post(expecting("a", "b", debit=2**53 - 1)), "pointer") == ["version_conflict", debit]
    assert post(expecting("c", "b", debit=0)).status == 201
    assert post(expecting("a", "b", debit=1)).status == 201
    assert post(expecting("a", "b", debit=0, credit=0), key="k") == Answer(201, first.body, replayed=True)
    assert refusal(post(expecting("a", "b", debit=0), key="k")) == ["idempotency_key_reused"]
    assert refusal(post(expecting("a", "b"), key="k")) == ["idempotency_key_reused"]


def test_an_expected_version_is_that_before_the_whole_transaction(books: Books) -> None:
    for path in ("a", "b"):
        books.open(path)
    both = [expecting("a", "b", debit=0, credit=0), expecting("b", "a", debit=0, credit=0)]
    assert books.write("postTransaction", "main", "k", {"postings": both}).status == 201
    later = [expecting("a", "b", debit=2), expecting("b", "a", debit=3)]
    answer = books.write("postTransaction", "main", "l", {"postings": later})
    assert refusal(answer, "pointer") == ["version_conflict", "/postings/1/expected_debit_version"]


def test_conditions_are_judged_after_statuses_and_before_amounts(books: Books) -> None:
    books.open("a", minimum_balance="0")
    books.open("b")
    stale = {"postings": [expecting("a", "b", AMOUNT_MAX, debit=1, credit=1), expecting("a", "b", AMOUNT_MAX)]}
    books.update("b", 1, status="frozen")
    assert refusal(books.write("postTransaction", "main", "k1", stale)) == ["account_frozen"]
    books.update("b", 2)
    assert refusal(books.write("postTransaction", "main", "k2", stale)) == ["version_conflict"]
    stale["postings"][0] = expecting("a", "b", AMOUNT_MAX, debit=0, credit=0)
    assert refusal(books.write("postTransaction", "main", "k3", stale)) == ["amount_overflow"]


def test_what_does_not_move_a_version_meets_a_condition(books: Books) -> None:
    books.open("a")
    books.open("b")
    books.update("a", 1, description="changed")
    books.post(("a", "none", 1))
    posting = expecting("a", "b", debit=0)
    assert books.write("postTransaction", "main", "k", {"postings": [posting]}).status == 201


# The life of a ledger


def test_a_ledger_is_reconfigured_whole_and_its_log_goes_on(books: Books) -> None:
    books.create_ledger("other", description="Ours", metadata={"team": "payments"})
    books.advance(1)
    answer = books.update_ledger(1, ledger="other", metadata={"team": "treasury"})
    changed = {
        "name": books.prefix + "other",
        "description": None,
        "metadata": {"team": "treasury"},
        "revision": 2,
        "sequence": 2,
        "recorded_at": START + timedelta(seconds=1),
    }
    assert (answer.status, answer.body) == (200, changed)
    event = books.read_events(1, 1, "other").body["items"][0]
    assert (event["kind"], event["ledger"]) == ("ledger_changed", changed)
    opening = {"path": "a", "asset": "X/0", "normal_side": "debit"}
    assert books.write("createAccount", "other", "k", opening).body["sequence"] == 3
    assert books.read_ledger("other").body.items() >= (changed | {"sequence": 3}).items()


def test_a_ledger_is_reconfigured_from_the_revision_that_was_seen(books: Books) -> None:
    books.open("a")
    stale = ["revision_conflict", "/revision"]
    assert refusal(books.update_ledger(2), "pointer") == stale
    assert books.update_ledger(1, description="One").body["revision"] == 2
    assert refusal(books.update_ledger(1, description="Two"), "pointer") == stale
    assert books.update_ledger(2, description="Two").body["revision"] == 3
    assert books.read_ledger().body["description"] == "Two"
    assert refusal(books.update_ledger(1, ledger="other", key="k")) == ["ledger_not_found"]


def test_a_ledger_created_again_after_a_change_is_answered_as_the_first_time(books: Books) -> None:
    first = books.create_ledger("other", description="Ours")
    change = books.update_ledger(1, key="k", ledger="other", description="Theirs")
    books.update_ledger(2, ledger="other")
    assert books.create_ledger("other", description="Ours") == Answer(201, first.body, replayed=True)
    assert refusal(books.create_ledger("other", description="Theirs")) == ["ledger_exists"]
    again = books.update_ledger(1, key="k", ledger="other", description="Theirs", metadata={})
    assert again == Answer(200, change.body, replayed=True)
    assert refusal(books.update_ledger(1, key="k", ledger="other")) == ["idempotency_key_reused"]


# Periods

OCTOBER = START - timedelta(days=60)


def test_books_are_closed_before_an_instant_by_somebody_for_a_reason(books: Books) -> None:
    books.open("a")
    books.open("b")
    books.advance(1)
    answer = books.close_before(OCTOBER, reason="September is done")
    period = {
        "closed_before": OCTOBER,
        "reason": "September is done",
        "actor": "operator",
        "sequence": 4,
        "recorded_at": START + timedelta(seconds=1),
    }
    assert (answer.status, answer.body) == (201, period)
    event = books.read_events(3, 1).body["items"][0]
    assert (event["kind"], event["period"]) == ("period_closed", period)
    assert books.read_ledger().body["closed_before"] == OCTOBER
    assert refusal(books.read_transaction(4)) == ["transaction_not_found"]
    early = books.post(("a", "b", 1), effective_at=(OCTOBER - MICROSECOND).isoformat())
    assert refusal(early, "pointer") == ["period_closed", "/effective_at"]
    assert books.post(("a", "b", 1), effective_at=OCTOBER.isoformat()).status == 201
    assert books.post(("a", "b", 1)).status == 201


def test_books_close_up_to_the_clock_and_only_forward(books: Books) -> None:
    out = ["time_out_of_range", "/before"]
    assert refusal(books.close_before(START + MICROSECOND), "pointer") == out
    assert refusal(books.close_before("1899-12-31T23:59:59.999999Z"), "pointer") == out
    assert books.close_before(OCTOBER).status == 201
    assert refusal(books.close_before(OCTOBER), "pointer") == out
    assert refusal(books.close_before(OCTOBER - MICROSECOND), "pointer") == out
    assert books.close_before(OCTOBER + MICROSECOND).status == 201
    assert books.close_before(START).status == 201
    assert refusal(books.close_before(START + MICROSECOND)) == ["time_out_of_range"]


def test_what_happens_now_is_never_in_closed_books(books: Books) -> None:
    books.open("a")
    books.open("b")
    assert books.close_before(START).status == 201
    assert books.post(("a", "b", 1)).body["effective_at"] == START
    books.advance(-3600)
    assert books.post(("a", "b", 1)).body["effective_at"] == START
    assert refusal(books.close_before(START), "pointer") == ["time_out_of_range", "/before"]
    assert refusal(books.post(("a", "b", 1), effective_at=books.model.now.isoformat())) == ["period_closed"]


def test_books_are_reopened_to_an_earlier_instant_or_whole(books: Books) -> None:
    books.open("a")
    books.open("b")
    out = ["time_out_of_range", "/before"]
    assert refusal(books.reopen(), "pointer") == out
    assert refusal(books.reopen(OCTOBER), "pointer") == out
    books.close_before(START)
    assert refusal(books.reopen(START), "pointer") == out
    assert refusal(books.reopen(START + MICROSECOND), "pointer") == out
    answer = books.reopen(OCTOBER, reason="The bank was wrong")
    assert [answer.body[name] for name in ("closed_before", "reason")] == [OCTOBER, "The bank was wrong"]
    assert books.read_events(answer.body["sequence"] - 1, 1).body["items"][0]["kind"] == "period_reopened"
    assert books.post(("a", "b", 1), effective_at=OCTOBER.isoformat()).status == 201
    assert refusal(books.post(("a", "b", 1), effective_at=(OCTOBER - MICROSECOND).isoformat())) == ["period_closed"]
    assert books.reopen().body["closed_before"] is None
    assert books.read_ledger().body["closed_before"] is None
    assert books.post(("a", "b", 1), effective_at="1900-01-01T00:00:00Z").status == 201
    assert refusal(books.reopen(), "pointer") == out
    assert books.close_before(OCTOBER).status == 201


def test_closed_books_refuse_after_impossible_times_and_before_references(books: Books) -> None:
    books.open("a")
    books.open("b")
    books.post(("a", "b", 1), reference="r")
    books.close_before(OCTOBER)
    answer = books.post(("a", "none", 1), reference="r", effective_at="1899-12-31T23:59:59Z")
    assert refusal(answer) == ["time_out_of_range"]
    answer = books.post(("a", "none", 1), reference="r", effective_at="2000-01-01T00:00:00Z")
    assert refusal(answer) == ["period_closed"]
    assert refusal(books.post(("a", "none", 1), reference="r", effective_at=OCTOBER.isoformat())) == [
        "reference_exists"
    ]


def test_periods_replayed_show_their_own_events(books: Books) -> None:
    closed = books.close_before(OCTOBER, key="c")
    opened = books.reopen(key="o")
    books.close_before(START)
    assert books.close_before(OCTOBER, key="c") == Answer(201, closed.body, replayed=True)
    assert books.reopen(key="o") == Answer(201, opened.body, replayed=True)
    assert refusal(books.close_before(OCTOBER, key="c", reason="other")) == ["idempotency_key_reused"]
    assert refusal(books.reopen(key="c")) == ["idempotency_key_reused"]


# What hypothesis comes upon

LEDGERS = ["a", "_", "B"]
PATHS = ["bank", "wallet", "jar", "bank:2", "Wallet", "bank-2"]
OPENED = PATHS[:3]
SECONDS = [0.000001, 1.0, 60.0, 60.000001, 3600.0, 86400.0]
HUGE = [AMOUNT_MAX, AMOUNT_MAX - 1, AMOUNT_MAX // 2, AMOUNT_MAX // 2 + 1, 2**63, 10**28 + 1]

ledgers = st.sampled_from([*LEDGERS[:1] * 8, *LEDGERS])
paths = st.sampled_from([*OPENED * 3, *PATHS])
limits = st.integers(1, 5)
listings = st.builds(
    lambda kind, ledger, path, order: {
        "accounts": Listing("accounts", ledger),
        "entries": Listing("entries", ledger, path, order),
        "transactions": Listing("transactions", ledger, "", order),
    }[kind],
    st.sampled_from(["entries", "entries", "transactions", "accounts"]),
    ledgers,
    paths,
    st.sampled_from(["oldest", "newest"]),
)
texts = st.sampled_from(["", "tea", "Tee für zwei\n\t🫖", "'; drop table events; --", '\\"', "\ufffd\u2028"])
metadata = st.dictionaries(st.sampled_from(["a", "b.c", "__proto__"]), texts, max_size=2)
amounts = st.sampled_from([*range(1, 10)] * 3 + HUGE)
balances = st.integers(-9, 20) | st.sampled_from([*HUGE, *(-huge for huge in HUGE)])
pairs = st.sampled_from([*permutations(OPENED, 2)] * 30 + [*permutations(PATHS, 2), ("bank", "bank")])
postings = st.builds(
    lambda pair, amount: {"debit_account": pair[0], "credit_account": pair[1], "amount": str(amount)},
    pairs,
    amounts,
)
several_postings = st.lists(postings, min_size=1, max_size=4)
texts_and_metadata = {"description": texts, "metadata": metadata}
ledger_fields = st.fixed_dictionaries({}, optional=texts_and_metadata)
accounts = st.fixed_dictionaries(
    {
        "path": st.sampled_from(PATHS),
        "asset": st.sampled_from(["USD/2", "USD/2", "POINTS/0"]),
        "normal_side": st.sampled_from(["debit", "credit"]),
    },
    optional={
        "minimum_balance": balances.map(lambda balance: str(min(balance, 1))),
        "maximum_balance": balances.map(lambda balance: str(max(balance, -1))),
        **texts_and_metadata,
    },
)
configurations = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["open", "open", "frozen", "closed"]),
        "minimum_balance": balances.map(lambda balance: str(min(balance, 5))),
        "maximum_balance": balances.map(lambda balance: str(max(balance, -5))),
        **texts_and_metadata,
    },
)
transactions = st.fixed_dictionaries(
    {"postings": several_postings},
    optional={
        "reference": st.sampled_from(["r1", "R1", "r2"]),
        "group": st.sampled_from(["g1", "{}"]),
        **texts_and_metadata,
    },
)
effective_times = st.sampled_from(
    [
        None,
        0.0,
        *(-seconds for seconds in SECONDS),
        *SECONDS[:4],
        "2029-12-31T23:59:59.999999-12:00",
        "1900-01-01T00:00:00Z",
        "1899-12-31T23:59:59.999999Z",
    ]
)


@dataclass(frozen=True)
class Write:
    operation: str
    ledger: str
    key: str
    body: Body
    account: str = ""


@dataclass(frozen=True)
class OpenPage:
    """A list of which a page has been read and more was promised."""

    listing: Listing
    cursor: str
    after: Any


class Comparison(RuleBasedStateMachine):
    """Any requests in any order, each of which the service has to answer as the model does."""

    writes = Bundle("writes")
    pages = Bundle("pages")

    def __init__(self, service: Service) -> None:
        super().__init__()
        self.books = Books(service)
        self.keys = 0
        self.passed = True

    @initialize(target=writes, sides=st.tuples(*[st.sampled_from(["debit", "credit"])] * 3))
    def open_the_books(self, sides: tuple[str, str, str]) -> Any:
        """A ledger and three accounts, so that the first transaction can already succeed."""
        self.create_ledger(LEDGERS[0], {}, rewritten=False)
        limits: list[Body] = [{}, {"minimum_balance": "-5"}, {"maximum_balance": "9"}]
        bodies = [
            {"path": path, "asset": "USD/2", "normal_side": side, **limit}
            for path, side, limit in zip(OPENED, sides, limits, strict=True)
        ]
        return multiple(*(self.open_account(LEDGERS[0], body) for body in bodies))

    @rule(ledger=ledgers, fields=ledger_fields, rewritten=st.booleans())
    def create_ledger(self, ledger: str, fields: Body, rewritten: bool) -> None:
        self.compared(self.books.create_ledger, ledger, rewritten=rewritten, **fields)

    @rule(target=writes, ledger=ledgers, body=accounts)
    def open_account(self, ledger: str, body: Body) -> Write:
        return self.send("createAccount", ledger, body)

    @rule(target=writes, ledger=ledgers, body=transactions, effective=effective_times)
    def post_transaction(self, ledger: str, body: Body, effective: Any) -> Write:
        if isinstance(effective, float):
            effective = (self.books.model.now + timedelta(seconds=effective)).isoformat()
        if effective is not None:
            body = {**body, "effective_at": effective}
        return self.send("postTransaction", ledger, body)

    @rule(target=writes, ledger=ledgers, bodies=st.lists(transactions, min_size=1, max_size=4), atomic=st.booleans())
    def post_a_batch(self, ledger: str, bodies: list[Body], atomic: bool) -> Write:
        return self.send("postTransactionBatch", ledger, {"transactions": bodies, "atomic": atomic})

    @rule(target=writes, pair=pairs, sides=st.sampled_from([["debit"], ["credit"], ["debit", "credit"]]), stale=limits)
    def post_what_expects_versions(self, pair: tuple[str, str], sides: list[str], stale: int) -> Write:
        """One in five expects a version that is not there."""
        book = self.books.model.books[self.books.prefix + LEDGERS[0]]
        accounts = dict(zip(("debit", "credit"), pair, strict=True))
        known = {side: book.accounts.get(accounts[side]) for side in sides}
        seen = {side: (len(account.entries) if account else 0) + stale // 5 for side, account in known.items()}
        return self.send("postTransaction", LEDGERS[0], {"postings": [expecting(*pair, **seen)]})

    @rule(target=writes, bodies=st.lists(several_postings, min_size=1, max_size=6))
    def post_plain_transactions(self, bodies: list[list[Body]]) -> Any:
        """What moves the balances on is what makes the rest worth asking."""
        return multiple(*(self.send("postTransaction", LEDGERS[0], {"postings": body}) for body in bodies))

    @rule(target=writes, ledger=ledgers, path=paths, stale=st.sampled_from([0] * 9 + [1]), body=configurations)
    def update_account(self, ledger: str, path: str, stale: int, body: Body) -> Write:
        book = self.books.model.books.get(self.books.prefix + ledger)
        known = book.accounts.get(path) if book else None
        revision = (known.opened["revision"] if known else 1) + stale
        return self.send("updateAccount", ledger, {"revision": revision, **body}, account=path)

    @rule(target=writes, ledger=ledgers, stale=st.sampled_from([0] * 5 + [1]), fields=ledger_fields)
    def update_ledger(self, ledger: str, stale: int, fields: Body) -> Write:
        book = self.books.model.books.get(self.books.prefix + ledger)
        revision = (ledger_in_force(book)["revision"] if book else 1) + stale
        return self.send("updateLedger", ledger, {"revision": revision, **fields})

    @rule(target=writes, ledger=ledgers, seconds=st.sampled_from([0.0, *SECONDS, -3600.0]), reopen=st.integers(0, 2))
    def move_the_period(self, ledger: str, seconds: float, reopen: int) -> Write:
        body = {"before": (self.books.model.now - timedelta(seconds=seconds)).isoformat(), "reason": "so"}
        if reopen == 2:
            del body["before"]
        return self.send("reopenPeriod" if reopen else "closePeriod", ledger, body)

    @rule(write=writes, rewritten=st.booleans())
    def retry(self, write: Write, rewritten: bool) -> None:
        self.send(write.operation, write.ledger, write.body, key=write.key, rewritten=rewritten, account=write.account)

    @rule(target=writes, write=writes, other=writes)
    def use_a_key_for_another_request(self, write: Write, other: Write) -> Write:
        return self.send(other.operation, other.ledger, other.body, key=write.key, account=other.account)

    @rule(seconds=st.sampled_from([*SECONDS, *(-seconds for seconds in SECONDS)]))
    def move_the_clock(self, seconds: float) -> None:
        self.books.advance(seconds)

    @rule(ledger=ledgers, path=paths, back=st.integers(-1, 5), limit=limits)
    def look_around(self, ledger: str, path: str, back: int, limit: int) -> None:
        """`back` counts sequences from the end of the log; -1 lies beyond it."""
        book = self.books.model.books.get(self.books.prefix + ledger)
        sequence = max(0, (book.sequence if book else 0) - back)
        self.compared(self.books.read_ledger, ledger)
        self.compared(self.books.read_account, path, ledger)
        self.compared(self.books.read_transaction, max(1, sequence), ledger)
        self.compared(self.books.read_events, sequence, limit, ledger)

    @rule(limit=limits)
    def list_ledgers(self, limit: int) -> None:
        self.compared(self.books.read_ledgers, limit)

    @rule(listing=listings, limit=limits)
    def read_a_list(self, listing: Listing, limit: int) -> None:
        self.compared(self.books.read_list, listing, limit)

    @rule(target=pages, listing=listings)
    def begin_a_list(self, listing: Listing) -> Any:
        return self.read_page(listing, 1)

    @rule(target=pages, page=consumes(pages), limit=limits, say_order=st.booleans(), other=listings)
    def read_on(self, page: OpenPage, limit: int, say_order: bool, other: Listing) -> Any:
        """A list goes on where it was left, whatever has been written since; no other list goes on there."""
        if other != page.listing:
            self.compared(self.books.refuse_cursor, other, page.cursor)
        return self.read_page(page.listing, limit, cursor=page.cursor, after=page.after, say_order=say_order)

    def send(
        self,
        operation: str,
        ledger: str,
        body: Body,
        *,
        key: str | None = None,
        rewritten: bool = False,
        account: str = "",
    ) -> Write:
        if key is None:
            self.keys += 1
            key = f"k{self.keys}"
        self.compared(self.books.write, operation, ledger, key, body, rewritten=rewritten, account=account)
        return Write(operation, ledger, key, body, account)

    def read_page(self, listing: Listing, limit: int, **position: Any) -> Any:
        cursor, after = self.compared(self.books.read_page, listing, limit, **position)
        return multiple() if cursor is None else OpenPage(listing, cursor, after)

    def compared(self, ask: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Ask, and remember if the answers differed: the end of such books says nothing new."""
        self.passed = False
        answer = ask(*args, **named)
        self.passed = True
        return answer

    def teardown(self) -> None:
        if self.passed:
            check_the_end(self.books)
        self.books.close()


def check_the_end(books: Books) -> None:
    """Compare all there is with the model, and hold what the service says of itself against the invariants."""
    books.read_ledgers(10)
    for name in books.model.books:
        ledger = name.removeprefix(books.prefix)
        head = books.read_ledger(ledger).body
        events = read_whole_log(books, name)
        assert events == books.model.books[name].events
        assert [event["sequence"] for event in events] == list(range(1, head["sequence"] + 1))
        recorded = [event["recorded_at"] for event in events]
        assert recorded == sorted(recorded)

        accounts = read_whole_list(books, Listing("accounts", ledger))
        opened = [event["account"]["path"] for event in events if event["kind"] == "account_opened"]
        assert [account["path"] for account in accounts] == sorted(opened)
        sums: dict[str, int] = {}
        for account in accounts:
            sums.setdefault(account["asset"], 0)
            sums[account["asset"]] += int(account["debits_posted"]) - int(account["credits_posted"])
            changes = [event["account"] for event in events if event.get("account", {}).get("path") == account["path"]]
            assert [change["revision"] for change in changes] == list(range(1, account["revision"] + 1))
            in_force = {name: value for name, value in changes[-1].items() if name in account and name != "sequence"}
            assert account | in_force == account
            lines = read_whole_list(books, Listing("entries", ledger, account["path"], "oldest"))
            check_statement(account, lines, changes)
        assert set(sums.values()) <= {0}


def read_whole_log(books: Books, name: str) -> list[Body]:
    events: list[Body] = []
    for _ in range(PAGES_MAX):
        params = {"after_sequence": len(events), "limit": 1000}
        page = in_plain(books._send("GET", f"/{name}/events", params=params).json())
        events += page["items"]
        if len(events) >= page["sequence"]:
            return events
    raise AssertionError("the log has no end")


def read_whole_list(books: Books, listing: Listing) -> list[Body]:
    """What the service says, which is what the model says; short enough here for one page."""
    params = {"limit": 1000} | ({} if listing.kind == "accounts" else {"order": listing.order})
    answer = books._send("GET", f"/{books.prefix}{listing.ledger}/{listing.path()}", params=params)
    items = in_plain(answer.json())["items"]
    assert items == books.remaining(listing).body["items"]
    return items


def check_statement(account: Body, entries: list[Body], changes: list[Body]) -> None:
    """An account's counters, its version and each balance are the fold of its entries, within the limits in force."""
    assert [entry["version"] for entry in entries] == list(range(1, account["version"] + 1))
    counters = {"debit": 0, "credit": 0}
    for number, entry in enumerate(entries):
        in_force = [change for change in changes if change["sequence"] < entry["sequence"]][-1]
        lower, upper = (in_force[name] and int(in_force[name]) for name in ("minimum_balance", "maximum_balance"))
        assert in_force["status"] == "open"
        counters[entry["side"]] += int(entry["amount"])
        raised = counters["debit"] - counters["credit"]
        balance = raised if account["normal_side"] == "debit" else -raised
        assert entry["balance"] == str(balance)
        if number + 1 == len(entries) or entries[number + 1]["sequence"] != entry["sequence"]:
            assert lower is None or balance >= lower
            assert upper is None or balance <= upper
    assert account["debits_posted"] == str(counters["debit"])
    assert account["credits_posted"] == str(counters["credit"])
    assert account["posted"] == account["available"] == (entries[-1]["balance"] if entries else "0")


def test_the_service_answers_whatever_is_asked_as_the_model_does(service: Service) -> None:
    before = service.clock.now
    try:
        run_state_machine_as_test(lambda: Comparison(service), settings=PROFILE)
    finally:
        service.clock.now = before

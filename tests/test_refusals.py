"""Every code of refusal, made by something real, for every operation that the contract says may answer it."""

import asyncio
import contextlib
import http.client
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from sqlalchemy.engine import make_url

from app.access.secrets import make_secret
from app.api import health, metrics
from app.api.problems import STATUS
from app.ledger.refusals import REFUSALS
from app.site.refusals import read_texts
from scripts.postgres import Postgres
from tests.books import check_invariants, connect, fetch_now
from tests.conformance import DOCUMENT, UNROUTED, check_answer, resolve
from tests.conftest import KEY, Service, migrate, serve, wait_until

LEDGER = "refusals"
FULL = str(10**38 - 1)
OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
# Every code that the contract gives an operation, with its status.
MATRIX = [
    (name, int(status), code)
    for name, (_, _, operation) in OPERATIONS.items()
    for status, response in operation["responses"].items()
    for code in resolve(response).get("x-codes", [])
]
IDS = [f"{name}-{code}" for name, _, code in MATRIX]
# What every problem document has.
ALWAYS = {"type", "title", "status", "code", "detail", "request_id"}
KEYS = itertools.count(1)


# Requests, made of the contract's own examples.


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)

    def with_headers(self, **headers: str) -> "Request":
        """With these headers, `_` for `-`; with None, without."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        kept = (self.headers | named).items()
        return replace(self, headers={name: value for name, value in kept if value is not None})

    def with_body(self, **changes: Any) -> "Request":
        return replace(self, body=self.body | changes)

    def content(self) -> bytes | None:
        return json.dumps(self.body).encode() if self.body is not None else None

    def send(self, service: Service) -> httpx.Response:
        """The answer, which has been held against the contract."""
        with service.client() as client:
            return client.request(
                self.method, self.path, content=self.content(), params=self.params, headers=self.headers
            )


def example(name: str, *, number: int = 0, ledger: str = LEDGER, **parameters: str) -> Request:
    """The request of the contract's examples, on a ledger of ours and with a key of its own."""
    method, path, operation = OPERATIONS[name]
    said = [resolve(parameter) for parameter in operation.get("parameters", [])]
    values = {each["name"]: str(each["example"]) for each in said if each["in"] == "path"}
    values |= {"sequence": str(NOTED[SUBJECTS[name]])} if name in SUBJECTS else {}
    headers = {"Idempotency-Key": f"key-{next(KEYS)}"} if any(p["name"] == "Idempotency-Key" for p in said) else {}
    if "requestBody" not in operation:
        return Request(method, path.format(**(values | {"ledger": ledger} | parameters)), headers=headers)
    (media,) = operation["requestBody"]["content"].items()
    body = list(media[1]["examples"].values())[number]["value"]
    if name == "createLedger":
        body = body | {"name": ledger}
    path = path.format(**(values | {"ledger": ledger} | parameters))
    return Request(method, path, body, headers | {"Content-Type": media[0]})


def post(debit: str, credit: str, amount: str, **changes: Any) -> Request:
    postings = [{"debit_account": debit, "credit_account": credit, "amount": amount}]
    return replace(example("postTransaction"), body={"postings": postings} | changes)


def fresh(name: str, service: Service | None = None) -> Request:
    """A write that nothing has been like, so that it would take effect. What is said of a transaction is said of one
    that is posted or held for it, if there is a service to do that."""
    number = next(KEYS)
    new = f"new{number}"
    if name in SUBJECTS and service is not None:
        made = post("bank:cash", "shop:sales", "5", pending=SUBJECTS[name] == "hold").send(service)
        return example(name, sequence=made.json()["sequence"]).with_body(description=new)
    if name in ("closePeriod", "reopenPeriod"):
        # One closes always later, the other reopens always earlier.
        year, days = (2020, number) if name == "closePeriod" else (2000, -number)
        return example(name).with_body(before=(datetime(year, 1, 1, tzinfo=UTC) + timedelta(days=days)).isoformat())
    asked = example(name)
    if name == "revokeApiKey":  # revoked once or twice, it is the same
        return asked
    if name == "postTransactionBatch":
        return asked.with_body(transactions=[each | {"reference": new} for each in asked.body["transactions"][:1]])
    return asked.with_body(**{NAMED_BY[name]: new})


# What is said of a transaction is said of one of these, if nothing else is said.
SUBJECTS = {"captureTransaction": "hold", "voidTransaction": "hold", "reverseTransaction": "deposit"}
# The sequences that they and others have in the books below.
NOTED = {"deposit": 5, "hold": 6, "to frozen": 16, "held for frozen": 17, "to closed": 18, "to full": 21, "to poor": 22,
         "from roofed": 24}  # fmt: skip
NAMED_BY = {
    **dict.fromkeys(SUBJECTS, "description"),
    "createLedger": "name",
    "createAccount": "path",
    "updateAccount": "description",
    "updateLedger": "description",
    "postTransaction": "reference",
    "createApiKey": "name",
}


def prepare(service: Service) -> Service:
    """The books that the examples of the contract make, and accounts for more refusals."""
    requests = [example("createLedger"), *(example("createAccount", number=number) for number in range(3))]
    requests += [example("postTransaction"), post("bank:cash", "shop:sales", "5", pending=True)]
    for changes in (
        {"path": "coins", "asset": "BTC/8"},
        {"path": "full"},
        {"path": "rich"},
        {"path": "capped", "maximum_balance": "10"},
        {"path": "frozen"},
        {"path": "closed"},
        {"path": "poor", "normal_side": "credit", "minimum_balance": "0"},
        {"path": "roofed", "maximum_balance": "10"},
    ):
        requests.append(example("createAccount").with_body(**changes))
    requests.append(post("full", "rich", FULL))
    requests += [post("bank:cash", "frozen", "1"), post("bank:cash", "frozen", "1", pending=True)]
    # There and back, so that it is empty; the other way, so that it has been credited; and more there than back.
    requests += [post("bank:cash", "closed", "1"), post("closed", "bank:cash", "1")]
    requests += [post("rich", "bank:cash", "1"), post("bank:cash", "full", "1")]
    requests += [post("bank:cash", "poor", "5"), post("poor", "bank:cash", "3")]
    requests += [post("bank:cash", "roofed", "5"), post("roofed", "bank:cash", "15")]
    requests.append(example("closePeriod").with_body(before="2010-01-01T00:00:00Z"))
    # Keys are of no ledger, and whoever runs the examples before makes this one.
    assert example("createApiKey").send(service).status_code in (201, 409)
    requests += [update(status, status) for status in ("frozen", "closed")]
    assert [request.send(service).status_code for request in requests] == [201] * (len(requests) - 2) + [200] * 2
    return service


def update(account: str, status: str, **changes: Any) -> Request:
    body = {"revision": 1, "status": status} | changes
    return replace(example("updateAccount", account=account), body=body)


def through_the_status(status: str, other: str) -> Callable[[str], Request]:
    """By a posting to an account of this status, or by the way from it to the other that is not open."""

    def make(name: str) -> Request:
        if name in SUBJECTS:
            noted = "held for frozen" if name == "captureTransaction" else f"to {status}"
            return example(name, sequence=str(NOTED[noted]))
        return update(status, other, revision=2) if name == "updateAccount" else post("bank:cash", status, "1")

    return make


def reversing(noted: str, otherwise: Request) -> Callable[[str], Request]:
    """By a reversal of this transaction, or by a post."""
    return lambda name: example(name, sequence=str(NOTED[noted])) if name == "reverseTransaction" else otherwise


# Real trouble.


@contextlib.contextmanager
def holding(database: str, lock: str) -> Iterator[Callable[[int], None]]:
    """Hold a lock until the block ends; gives a way to wait until so many connections wait for it."""
    waiting = (
        "select count(*) from pg_locks where not granted "
        "and database = (select oid from pg_database where datname = current_database())"
    )
    with asyncio.Runner() as runner:
        connection = runner.run(connect(database))
        try:
            runner.run(connection.execute(f"begin; {lock}"))
            yield lambda number: wait_until(lambda: runner.run(connection.fetchval(waiting)) >= number)
        finally:
            runner.run(connection.close())


@pytest.fixture(scope="module")
def books(service: Service) -> Service:
    """The shared service, with a ledger of this file's own."""
    return prepare(service)


@pytest.fixture(scope="module")
def hasty(new_database: Callable[[], str]) -> Iterator[Service]:
    """A service that waits for nothing for long, and has one connection of each kind."""
    with serve(
        new_database(),
        body_timeout_s=0.5,
        write_deadline_s=1.0,
        pool_timeout_s=0.2,
        read_pool_size=1,
        write_pool_size=1,
    ) as service:
        yield prepare(service)


@pytest.fixture(scope="module")
def limited(new_database: Callable[[], str]) -> Iterator[Service]:
    """A service that answers a key one request, and the next an hour later."""
    with serve(new_database(), key_requests_per_s=1 / 3600, key_burst=1) as service:
        yield service


@pytest.fixture(scope="module")
def skewed(new_database: Callable[[], str]) -> Iterator[Service]:
    """A service whose clock is a day ahead of the database's, on books with a hold that is due by that clock."""
    database = new_database()
    with serve(database) as service:
        prepare(service)
        expires_at = (service.clock.now + timedelta(hours=1)).isoformat()
        held = post("bank:cash", "shop:sales", "5", pending=True, expires_at=expires_at).send(service)
        assert held.status_code == 201
    with serve(database, clock_skew_max_s=5.0) as service:
        service.clock.advance(86400)
        yield service


@pytest.fixture(scope="module")
def broken(new_database: Callable[[], str]) -> Iterator[dict[str, Service]]:
    """Two services on databases in which something is planted that nobody foresaw: for reads, and for writes."""
    faults = {
        "reads": "alter table heads rename column sequence to planted; "
        "alter table api_keys rename column created_by to planted",
        "writes": "alter table events add constraint planted check (false) not valid; "
        "alter table api_keys add constraint planted check (false) not valid",
    }
    with contextlib.ExitStack() as stack:
        services = {kind: prepare(stack.enter_context(serve(new_database()))) for kind in faults}
        for kind, statement in faults.items():
            for each in statement.split("; "):
                fetch_now(services[kind].database, each)
        yield services


@pytest.fixture(scope="module")
def abandoned() -> Iterator[Service]:
    """A service whose Postgres has stopped under it."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").exists() else None) as folder:
        with Postgres(Path(folder) / "postgres", durable=False) as postgres:
            postgres.create_database("books")
            migrate(postgres.url("books"))
            with serve(postgres.url("books"), database_timeout_s=1.0) as service:
                prepare(service)
                postgres.stop()
                yield service


# Each code: how an operation comes to answer it.


def while_its_database_forgets(name: str, request: pytest.FixtureRequest) -> httpx.Response:
    """The tests' Postgres has fsync off, and this service was not told that it may."""
    with serve(request.getfixturevalue("database"), allow_unsafe_database=False) as service:
        return example(name).send(service)


type Make = Callable[[str, pytest.FixtureRequest], httpx.Response]


def post_into_closed_books(name: str, request: pytest.FixtureRequest) -> httpx.Response:
    """Into books that are closed, whatever was reopened before."""
    books = request.getfixturevalue("books")
    fresh("closePeriod").send(books)
    return fresh(name, books).with_body(effective_at="1950-01-01T00:00:00Z").send(books)


WHEN = {"closePeriod": "before", "reopenPeriod": "before", "createApiKey": "expires_at"}


def name_a_wrong_time(name: str, request: pytest.FixtureRequest) -> httpx.Response:
    books = request.getfixturevalue("books")
    field = WHEN.get(name, "effective_at")
    return fresh(name, books).with_body(**{field: "1899-12-31T23:59:59.999999Z"}).send(books)


def repeat_a_reference(name: str, request: pytest.FixtureRequest) -> httpx.Response:
    books = request.getfixturevalue("books")
    return fresh(name, books).with_body(reference=example("postTransaction").body["reference"]).send(books)


def after(ending: str) -> Make:
    """Once something else was said of the same transaction."""

    def make(name: str, request: pytest.FixtureRequest) -> httpx.Response:
        books = request.getfixturevalue("books")
        asked = fresh(name, books)
        before = asked.path.rsplit("/", 1)[0] + f"/{ending}"
        assert replace(asked, path=before, headers=example(name).headers).send(books).status_code == 201
        return asked.send(books)

    return make


def after_it_expired(name: str, request: pytest.FixtureRequest) -> httpx.Response:
    books = request.getfixturevalue("books")
    expires_at = (books.clock.now + timedelta(seconds=1)).isoformat()
    hold = post("bank:cash", "shop:sales", "5", pending=True, expires_at=expires_at).send(books).json()
    books.clock.advance(1)
    return example(name, sequence=hold["sequence"]).send(books)


def capture_too_much(name: str, request: pytest.FixtureRequest) -> httpx.Response:
    books = request.getfixturevalue("books")
    return fresh(name, books).with_body(amounts=[{"posting": 0, "amount": "6"}]).send(books)


def ask_with_a_key_for_something_else(name: str, request: pytest.FixtureRequest) -> httpx.Response:
    service = request.getfixturevalue("books")
    other = "post" if "read" in OPERATIONS[name][2]["x-scope"] else "read"
    made = example("createApiKey").with_body(name=f"other-{next(KEYS)}", operations=[other]).send(service)
    return example(name).with_headers(Authorization=f"Bearer {made.json()['secret']}").send(service)


def ask_too_often(name: str, request: pytest.FixtureRequest) -> httpx.Response:
    limited = request.getfixturevalue("limited")
    with limited.client() as client:
        while (answer := client.get("/v1/api-keys")).status_code == 200:
            pass
    assert answer.status_code == 429
    return example(name).send(limited)


type Maker = Callable[[Request], Request]


def on_books(make: Callable[[str], Request]) -> Make:
    """By a request to the service in its usual state."""
    return lambda name, request: make(name).send(request.getfixturevalue("books"))


def of_example(change: Maker) -> Make:
    """By the operation's example, changed."""
    return on_books(lambda name: change(example(name)))


def repeat_a_header(name: str, request: pytest.FixtureRequest) -> httpx.Response:
    service, asked = request.getfixturevalue("books"), example(name)
    headers = [*asked.headers.items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    with service.client() as client:
        return client.request(asked.method, asked.path, content=asked.content(), headers=headers)


def never_send_the_body(name: str, request: pytest.FixtureRequest) -> httpx.Response:
    """By a client that promises a body over a socket of its own, and sends half of it."""
    service, asked = request.getfixturevalue("hasty"), example(name)
    connection = http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=10)
    connection.putrequest(asked.method, asked.path)
    for header in (asked.headers | {"Authorization": f"Bearer {KEY}", "Content-Length": "1000"}).items():
        connection.putheader(*header)
    connection.endheaders(b'{"postings": [')
    with contextlib.closing(connection), connection.getresponse() as raw:
        sent = httpx.Request(asked.method, service.url + asked.path)
        answer = httpx.Response(raw.status, headers=raw.getheaders(), content=raw.read(), request=sent)
    check_answer(answer)
    return answer


def while_connections_are_held(name: str, request: pytest.FixtureRequest) -> httpx.Response:
    """While others wait for locks on the only connections."""
    service = request.getfixturevalue("hasty")
    others = [example("getLedger"), fresh("createLedger")]
    with ThreadPoolExecutor(len(others)) as threads:
        with holding(service.database, "lock table heads, ledgers") as wait_for:
            asked = [threads.submit(other.send, service) for other in others]
            wait_for(len(others))
            answer = example(name).send(service)
        # Others may wait too, such as the look for holds that are due: then even one of these is refused.
        for each, expected in zip(asked, (200, 201), strict=True):
            assert each.result().status_code in (expected, 503)
    return answer


def while_its_database_is_away(name: str, request: pytest.FixtureRequest) -> httpx.Response:
    asked = example(name)
    if name == "getMetrics":  # which itself asks the database for nothing: but whose key is it?
        asked = asked.with_headers(Authorization=f"Bearer {make_secret()}")
    return asked.send(request.getfixturevalue("abandoned"))


def while_its_write_is_held(name: str, request: pytest.FixtureRequest) -> httpx.Response:
    """By a write that waits for a lock past its deadline, and takes effect once afterwards."""
    service = request.getfixturevalue("hasty")
    asked = fresh(name, service)
    with holding(service.database, "lock table events, api_keys in share mode"):
        answer = asked.send(service)
    again = asked.send(service)
    if name.endswith("ApiKey"):  # whose transaction ended with its caller
        assert again.status_code in (200, 201)
        return answer
    (success,) = (int(status) for status in OPERATIONS[name][2]["responses"] if status.startswith("2"))
    assert (again.status_code, again.headers.get("Idempotency-Replayed")) == (success, "true")
    return answer


def by_a_planted_fault(name: str, request: pytest.FixtureRequest) -> httpx.Response:
    if name in ("getHealth", "getReadiness"):  # What they touch can be away, so only a fault of the process will do.
        books = request.getfixturevalue("books")
        for answer in ("Health", "Readiness"):
            request.getfixturevalue("monkeypatch").setattr(health.models, answer, lambda **_: 1 / 0)
        return example(name).send(books)
    if name == "getMetrics":  # It counts what is in the process.
        request.getfixturevalue("monkeypatch").setattr(metrics, "generate_latest", lambda _: 1 / 0)
        return example(name).send(request.getfixturevalue("books"))
    broken = request.getfixturevalue("broken")
    if OPERATIONS[name][0] == "GET":
        return example(name).send(broken["reads"])
    return fresh(name).send(broken["writes"])


def with_a_wrong_clock(name: str, request: pytest.FixtureRequest) -> httpx.Response:
    asked = example(name) if OPERATIONS[name][0] == "GET" else fresh(name)
    return asked.send(request.getfixturevalue("skewed"))


def reuse_a_key(name: str, request: pytest.FixtureRequest) -> httpx.Response:
    service, first = request.getfixturevalue("books"), example(name)
    first.send(service)
    return replace(first, body=OTHER_BODIES[name]).send(service)


def beyond(asked: Request) -> str:
    """The parameter that may point beyond the end of the log."""
    return "after_sequence" if asked.path.endswith(("/events", "/verification")) else "as_of_sequence"


OTHER_BODIES = {
    **{name: {"description": "another"} for name in SUBJECTS},
    "createAccount": {"path": "other", "asset": "USD/2", "normal_side": "debit"},
    "updateAccount": {"revision": 7},
    "updateLedger": {"revision": 7},
    "closePeriod": {"before": "1950-01-01T00:00:00Z", "reason": "another"},
    "reopenPeriod": {"reason": "another"},
    "postTransaction": {
        "postings": [{"debit_account": "bank:cash", "credit_account": "users:42:wallet", "amount": "1"}]
    },
}
OTHER_BODIES["postTransactionBatch"] = {"transactions": [OTHER_BODIES["postTransaction"]]}


def post_batch(*transactions: Request) -> Request:
    return example("postTransactionBatch").with_body(transactions=[each.body for each in transactions])


MAKE: dict[str, Make] = {
    "malformed_request": repeat_a_header,
    "validation_failed": of_example(lambda asked: replace(asked, params={"planet": "mars"})),
    "unauthenticated": of_example(lambda asked: asked.with_headers(Authorization="Bearer a-secret-of-nobody")),
    "forbidden": ask_with_a_key_for_something_else,
    "rate_limited": ask_too_often,
    "api_key_exists": of_example(lambda asked: asked),
    "api_key_not_found": on_books(lambda name: example(name, api_key="nobody")),
    "not_acceptable": of_example(lambda asked: asked.with_headers(Accept="text/html, application/json;q=0")),
    "idempotency_key_required": of_example(lambda asked: asked.with_headers(Idempotency_Key=None)),
    "invalid_cursor": of_example(lambda asked: replace(asked, params={"cursor": "bm9uZSBvZiBvdXJz"})),
    "unsupported_media_type": of_example(lambda asked: asked.with_headers(Content_Type="text/plain")),
    "content_too_large": of_example(lambda asked: asked.with_body(description="x" * (1 << 21))),
    "request_timeout": never_send_the_body,
    "ledger_not_found": on_books(lambda name: example(name, ledger="nowhere")),
    "account_not_found": on_books(lambda name: example(name, account="users:43:wallet")),
    "transaction_not_found": on_books(lambda name: example(name, sequence="1")),
    "sequence_out_of_range": of_example(lambda asked: replace(asked, params={beyond(asked): "1000000"})),
    "idempotency_key_reused": reuse_a_key,
    "ledger_exists": of_example(lambda asked: asked.with_body(description="Another")),
    "account_exists": of_example(lambda asked: asked),
    "version_conflict": on_books(
        lambda name: replace(
            example(name),
            body={
                "postings": [
                    {
                        "debit_account": "bank:cash",
                        "credit_account": "users:42:wallet",
                        "amount": "1",
                        "expected_debit_version": 1_000_000,
                    }
                ]
            },
        )
    ),
    "revision_conflict": of_example(lambda asked: asked.with_body(revision=1_000_000)),
    "limit_not_met": on_books(
        lambda name: (
            update("coins", "open", maximum_balance="-1")
            if name == "updateAccount"
            else example(name).with_body(path="new", maximum_balance="-1")
        )
    ),
    "account_not_empty": on_books(lambda _: update("full", "closed")),
    "account_frozen": on_books(through_the_status("frozen", "closed")),
    "account_closed": on_books(through_the_status("closed", "frozen")),
    "time_out_of_range": name_a_wrong_time,
    "period_closed": post_into_closed_books,
    "reference_exists": repeat_a_reference,
    "not_pending": on_books(lambda name: example(name, sequence=str(NOTED["deposit"]))),
    "already_captured": after("capture"),
    "already_voided": after("void"),
    "hold_expired": after_it_expired,
    "capture_exceeds_hold": capture_too_much,
    "not_reversible": on_books(lambda name: example(name, sequence=str(NOTED["hold"]))),
    "already_reversed": after("reverse"),
    "unknown_account": on_books(lambda _: post("bank:cash", "users:43:wallet", "1")),
    "asset_mismatch": on_books(lambda _: post("bank:cash", "coins", "1")),
    "amount_overflow": on_books(reversing("to full", post("full", "bank:cash", "1"))),
    "insufficient_funds": on_books(reversing("to poor", post("users:42:wallet", "bank:cash", "5000"))),
    "maximum_exceeded": on_books(reversing("from roofed", post("capped", "bank:cash", "11"))),
    "batch_refused": on_books(
        lambda _: post_batch(post("bank:cash", "users:42:wallet", "1"), post("users:42:wallet", "bank:cash", "90000"))
    ),
    "internal_error": by_a_planted_fault,
    "overloaded": while_connections_are_held,
    "storage_unavailable": while_its_database_is_away,
    "clock_skewed": with_a_wrong_clock,
    "not_ready": while_its_database_forgets,
    "outcome_unknown": while_its_write_is_held,
    "route_not_found": on_books(lambda _: Request("GET", "/v1/ledgers/")),
    "method_not_allowed": on_books(lambda _: Request("DELETE", "/v1/ledgers")),
}
# What the document of a code says beside what every one does; of an operation, where it says something else.
SAYS: dict[str, dict[str, Any]] = {
    "malformed_request": {"pointer": "Idempotency-Key"},
    "validation_failed": {"errors": [{"pointer": "", "message": "A query parameter is not known"}]},
    "not_ready": {"reason": "fsync_off"},
    "account_exists": {"account": "bank:cash"},
    "revision_conflict": {"pointer": "/revision"},
    "version_conflict": {"pointer": "/postings/0/expected_debit_version"},
    "limit_not_met": {"pointer": "/maximum_balance"},
    "account_not_empty": {"account": "full"},
    "account_frozen": {"account": "frozen"},
    "account_closed": {"account": "closed"},
    "time_out_of_range": {"pointer": "/effective_at"},
    "closePeriod time_out_of_range": {"pointer": "/before"},
    "reopenPeriod time_out_of_range": {"pointer": "/before"},
    "createApiKey time_out_of_range": {"pointer": "/expires_at"},
    "period_closed": {"pointer": "/effective_at"},
    "reference_exists": {"pointer": "/reference"},
    "unknown_account": {"pointer": "/postings/0/credit_account"},
    "asset_mismatch": {"pointer": "/postings/0"},
    "amount_overflow": {"account": "full"},
    "insufficient_funds": {"account": "users:42:wallet", "available": "1250", "required": "5000"},
    "reverseTransaction insufficient_funds": {"account": "poor", "available": "2", "required": "5"},
    "maximum_exceeded": {"account": "capped", "available": "10", "required": "11"},
    "reverseTransaction maximum_exceeded": {"account": "roofed", "available": "0", "required": "5"},
    "capture_exceeds_hold": {"pointer": "/amounts/0/amount", "available": "5", "required": "6"},
    "batch_refused": {
        "index": 1,
        "problem": {
            "type": "/problems/insufficient_funds",
            "title": "The account would fall below its minimum balance",
            "status": 422,
            "code": "insufficient_funds",
            "detail": "The account would fall below its minimum balance.",
            "account": "users:42:wallet",
        },
    },
}


# The document that docs/problems.md shows of each code, and so its page.
SHOWN = {code: json.loads(text.partition("```json\n")[2].removesuffix("```")) for code, text in read_texts().items()}


def varying(body: dict[str, Any]) -> dict[str, Any]:
    """A document as it is shown, without what differs from run to run."""
    shown = body | {"request_id": "…"}
    if "problem" in shown:
        shown["problem"] = shown["problem"] | {"available": "…", "required": "…"}
    return shown


def check_refusal(answer: httpx.Response, code: str, name: str = "") -> None:
    """Everything that a client may rely on in a refusal of this code."""
    body = answer.json()
    assert (answer.status_code, body["code"]) == (STATUS[REFUSALS[code]], code)
    assert answer.headers["Content-Type"] == "application/problem+json"
    expected = {
        "type": f"/problems/{code}",
        "title": REFUSALS[code].title,
        "status": answer.status_code,
        "code": code,
        "detail": f"{REFUSALS[code].title}.",
        "request_id": answer.headers["X-Request-Id"],
    }
    if code == "batch_refused":  # what was there before the batch depends on what else was posted
        assert int(body["problem"].pop("required")) > int(body["problem"].pop("available"))
    assert body == expected | SAYS.get(f"{name} {code}", SAYS.get(code, {}))
    if f"{name} {code}" not in SAYS:
        assert SHOWN[code] == varying(body), "docs/problems.md shows another document than was answered"
    assert answer.headers.get("WWW-Authenticate") == ("Bearer" if answer.status_code == 401 else None)
    waits = {429: range(1, 3_601), 503: (1,)}.get(answer.status_code, (0,))
    assert int(answer.headers.get("Retry-After", 0)) in waits
    assert ("Allow" in answer.headers) == (answer.status_code == 405)


@pytest.mark.parametrize(("name", "status", "code"), MATRIX, ids=IDS)
def test_every_code_of_every_operation_is_answered_by_it(
    name: str, status: int, code: str, request: pytest.FixtureRequest
) -> None:
    answer = MAKE[code](name, request)
    assert answer.status_code == status
    check_refusal(answer, code, name)


@pytest.mark.parametrize("code", UNROUTED)
def test_refuses_what_no_operation_is_there_for(code: str, request: pytest.FixtureRequest) -> None:
    check_refusal(MAKE[code]("", request), code)


@pytest.mark.parametrize("path", DOCUMENT["paths"])
def test_refuses_a_method_that_a_path_does_not_have_and_names_those_that_it_has(path: str, books: Service) -> None:
    concrete = path.format(ledger="nowhere", account="nobody", sequence="1", api_key="nobody")
    answer = Request("DELETE", concrete).send(books)
    check_refusal(answer, "method_not_allowed")
    assert answer.headers["Allow"].split(", ") == sorted(method.upper() for method in DOCUMENT["paths"][path])


@pytest.mark.parametrize("code", REFUSALS)
def test_the_type_of_every_problem_is_a_page_that_explains_it(code: str, service: Service) -> None:
    """For people who follow it without a key."""
    page = httpx.get(f"{service.url}/problems/{code}")
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert code in page.text


def test_the_codes_of_the_code_the_contract_and_this_file_are_the_same() -> None:
    documented = {code for _, _, code in MATRIX}
    assert {refusal.code for refusal in STATUS} == set(REFUSALS)
    assert documented | set(UNROUTED) == set(REFUSALS)
    assert not documented & set(UNROUTED)
    assert set(MAKE) == set(REFUSALS)
    assert all(f"`{code}`" in DOCUMENT["info"]["description"] for code in UNROUTED)


def test_every_code_has_one_status_and_the_contract_the_same() -> None:
    assert {(code, status) for _, status, code in MATRIX} == {
        (refusal.code, status) for refusal, status in STATUS.items() if refusal.code not in UNROUTED
    }
    assert {REFUSALS[code]: status for code, status in UNROUTED.items()}.items() <= STATUS.items()


def test_the_fields_of_a_refusal_are_those_of_its_document() -> None:
    """And of the contract's schema; so none that is added can go unseen here."""
    named = {code: {each.name for each in fields(refusal)} for code, refusal in REFUSALS.items()}
    said = {code: set(says) for code, says in SAYS.items() if " " not in code}
    assert said == {code: each for code, each in named.items() if each}
    assert all(set(says) == named[code.split(" ")[1]] for code, says in SAYS.items() if " " in code)
    assert set().union(*named.values()) | ALWAYS == set(
        DOCUMENT["components"]["schemas"]["ProblemDetails"]["properties"]
    )


# More ways to the codes that need trouble.


def test_refuses_a_write_that_no_batch_took_before_its_deadline_and_never_carries_it_out(hasty: Service) -> None:
    first, second = (example("createAccount").with_body(path=f"late{n}") for n in (1, 2))
    with ThreadPoolExecutor(1) as threads:
        with holding(hasty.database, "lock table events in share mode") as wait_for:
            asked = threads.submit(first.send, hasty)
            wait_for(1)
            check_refusal(second.send(hasty), "overloaded")
        assert asked.result().json()["code"] == "outcome_unknown"
    assert first.send(hasty).headers["Idempotency-Replayed"] == "true"
    assert example("getAccount", account="late2").send(hasty).status_code == 404
    assert "Idempotency-Replayed" not in second.send(hasty).headers


def test_one_post_that_postgres_refuses_fails_alone_and_leaves_its_key_free(database: str) -> None:
    with serve(database) as service:
        prepare(service)
        planted = "alter table events add constraint planted check (description is distinct from 'planted')"
        fetch_now(database, planted)
        asked = [
            post("bank:cash", "users:42:wallet", "1", description="planted" if n == 3 else "usual") for n in range(12)
        ]
        with ThreadPoolExecutor(len(asked) + 1) as threads:
            with holding(database, "lock table events in share mode") as wait_for:
                first = threads.submit(example("createAccount").with_body(path="first").send, service)
                wait_for(1)
                answers = [threads.submit(each.send, service) for each in asked]
                time.sleep(0.5)  # They gather behind the first, and go in one batch.
            statuses = [each.result().status_code for each in answers]
        assert first.result().status_code == 201
        assert statuses == [500 if n == 3 else 201 for n in range(12)]
        account = example("getAccount").send(service).json()
        assert (account["posted"], account["version"]) == (str(1250 + 11), 12)
        check_refusal(asked[3].send(service), "internal_error")
        fetch_now(database, "alter table events drop constraint planted")
        freed = asked[3].send(service)
        assert (freed.status_code, freed.headers.get("Idempotency-Replayed")) == (201, None)
    asyncio.run(check_invariants(database))


def test_a_service_without_its_database_is_alive_but_not_ready(abandoned: Service) -> None:
    assert example("getHealth").send(abandoned).status_code == 200
    check_refusal(example("getReadiness").send(abandoned), "storage_unavailable")


@pytest.mark.parametrize("name", ["getReadiness", "getLedger", "createLedger", "postTransaction"])
def test_a_service_whose_database_was_dropped_says_that_it_cannot_be_reached(name: str, orphan: Service) -> None:
    check_refusal(example(name).send(orphan), "storage_unavailable")


@pytest.fixture(scope="module")
def orphan(new_database: Callable[[], str], postgres: Postgres) -> Iterator[Service]:
    with serve(new_database()) as service:
        prepare(service)
        database = make_url(service.database)
        fetch_now(postgres.url("postgres"), f"drop database {database.database} with (force)")
        yield service


def test_a_write_in_doubt_is_never_called_surely_without_effect(database: str) -> None:
    """Its statement was sent and lost; that no connection is free to look what became of it is another matter."""
    with serve(database, write_pool_size=1, pool_timeout_s=0.4, database_timeout_s=1.0) as service:
        prepare(service)
        other = example("createLedger", ledger="other")
        assert other.send(service).status_code == 201
        with ThreadPoolExecutor(2) as threads:
            with holding(database, "lock table events in share mode") as wait_for:
                asked = threads.submit(fresh("postTransaction").send, service)
                wait_for(1)
                time.sleep(0.75)  # Until shortly before its statement is given up, so that the rival waits next.
                threads.submit(example("createAccount", ledger="other").send, service)
                answer = asked.result()
        check_refusal(answer, "outcome_unknown")


def test_what_was_in_trouble_works_when_the_trouble_is_over(hasty: Service, request: pytest.FixtureRequest) -> None:
    for name in ("getLedger", "postTransaction"):
        check_refusal(while_connections_are_held(name, request), "overloaded")
    assert example("getLedger").send(hasty).status_code == 200
    assert post("bank:cash", "users:42:wallet", "1").send(hasty).status_code == 201

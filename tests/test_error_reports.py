"""What leaves the process when something unforeseen happens: that it did and where, and nothing that was said."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
import sentry_sdk

from app.main import create_app
from tests.books import fetch_now
from tests.collectors import collecting
from tests.conftest import KEY, Service, free_port, serve, settings_for, wait_until

# What a report must not hold: what the caller said and is known by, and where the database is.
CANARIES = {
    "API key": KEY,
    "idempotency key": "kanari-idempotency-4e7c",
    "description": "kanari-description-4e7c",
    "metadata": "kanari-metadata-4e7c",
    "reference": "kanari-reference-4e7c",
    "account": "kanari-account-4e7c",
    "amount": "9182736450",
    "header": "kanari-header-4e7c",
    "query": "kanariquery4e7c",
    "key of the DSN": "kanari0dsn4e7c",
    "password of the database": "kanari-password-4e7c",
}
TRANSACTIONS = "/v1/ledgers/main/transactions"


@dataclass
class Collector:
    """What stands in for Sentry: takes whatever is sent to it."""

    address: str
    received: list[bytes] = field(default_factory=list)

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of all envelopes: each is a line about itself, then a line about each item before the item."""
        found = []
        for envelope in self.received:
            lines = envelope.split(b"\n")
            for about, item in zip(lines[1::2], lines[2::2], strict=False):
                if json.loads(about)["type"] == "event":
                    found.append(json.loads(item))
        return found

    def settle(self, number: int) -> list[dict[str, Any]]:
        """The events, once there are as many and no more of them come."""
        sentry_sdk.flush(timeout=5)
        wait_until(lambda: len(self.events) >= number, seconds_max=10)
        time.sleep(0.2)
        return self.events


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector("")
    with collecting(collector.received) as address:
        collector.address = f"http://{CANARIES['key of the DSN']}@{address}/1"
        yield collector
    sentry_sdk.get_client().close(timeout=1)
    sentry_sdk.init(
        default_integrations=False, auto_enabling_integrations=False
    )  # For whoever comes after us in this process: reports nothing.


@pytest.fixture
def reporting(database: str, collector: Collector) -> Iterator[Service]:
    """A service with books that reports to the collector."""
    secretive = database.replace("postgres@", f"postgres:{CANARIES['password of the database']}@")
    with serve(secretive, sentry_dsn=collector.address, environment="tests") as service:
        assert ask(service, "POST", "/v1/ledgers", json={"name": "main"}).status_code == 201
        for path in ("cash", CANARIES["account"]):
            account = {"path": path, "asset": "USD/2", "normal_side": "debit"}
            assert ask(service, "POST", "/v1/ledgers/main/accounts", path, json=account).status_code == 201
        service.database = database
        yield service


def ask(service: Service, method: str, path: str, key: str = "", **request: Any) -> httpx.Response:
    headers = {"X-Whatever": CANARIES["header"]}
    headers |= {"Idempotency-Key": f"{CANARIES['idempotency key']}-{key}"} if key else {}
    with service.client() as client:
        return client.request(method, path, headers=headers | request.pop("headers", {}), **request)


def post(service: Service, key: str, **changes: Any) -> httpx.Response:
    accounts = {"debit_account": "cash", "credit_account": CANARIES["account"]}
    said = {
        "postings": [accounts | {"amount": CANARIES["amount"]}],
        "description": CANARIES["description"],
        "metadata": {"note": CANARIES["metadata"]},
        "reference": f"{CANARIES['reference']}-{key}",
    }
    return ask(service, "POST", TRANSACTIONS, key, json=said | changes)


def kinds(event: dict[str, Any]) -> list[str]:
    return [error["type"] for error in event["exception"]["values"]]


def check_silent(collector: Collector) -> None:
    """Nothing entrusted stands in anything that was sent, and neither does what an error said."""
    sent = b"\n".join(collector.received).decode()
    assert [what for what, canary in CANARIES.items() if canary in sent] == []
    for event in collector.events:
        assert not {"request", "user", "extra", "breadcrumbs", "server_name"} & set(event)
        for error in event["exception"]["values"]:
            assert error["value"] == ""
            for frame in error["stacktrace"]["frames"]:
                assert not {"vars", "context_line", "pre_context", "post_context"} & set(frame)


def test_a_write_that_postgres_refuses_is_reported_once_and_without_what_was_written(
    reporting: Service, collector: Collector
) -> None:
    """Its message would quote the whole row."""
    fetch_now(reporting.database, "alter table events add constraint planted check (reference is null)")
    assert post(reporting, "a").status_code == 500
    (event,) = collector.settle(1)
    assert "CheckViolationError" in kinds(event)
    assert "write_book" in {frame["function"] for error in event["exception"]["values"] for frame in frames(error)}
    assert (event["level"], event["environment"]) == ("error", "tests")
    check_silent(collector)


def frames(error: dict[str, Any]) -> list[dict[str, Any]]:
    return error["stacktrace"]["frames"]


def test_a_read_that_fails_is_reported_once_and_without_what_was_asked(
    reporting: Service, collector: Collector
) -> None:
    """The message of its error would quote the statement and its parameters."""
    fetch_now(reporting.database, "alter table accounts rename column version to planted")
    path = f"/v1/ledgers/main/accounts/{CANARIES['account']}"
    assert ask(reporting, "GET", path).status_code == 500
    (event,) = collector.settle(1)
    assert "UndefinedColumnError" in kinds(event)
    check_silent(collector)


def test_a_decision_that_fails_is_reported_once(reporting: Service, collector: Collector) -> None:
    """Here on a clock without a time zone, which no rule can compare with the log."""
    reporting.clock.now = reporting.clock.now.replace(tzinfo=None)
    assert post(reporting, "a").status_code == 500
    (event,) = collector.settle(1)
    assert kinds(event) == ["TypeError"]
    check_silent(collector)


def test_every_fault_of_several_is_reported(reporting: Service, collector: Collector) -> None:
    fetch_now(reporting.database, "alter table events add constraint planted check (reference is null)")
    assert [post(reporting, f"{n}").status_code for n in range(3)] == [500] * 3
    assert len(collector.settle(3)) == 3
    check_silent(collector)


def test_what_is_no_fault_of_the_service_is_not_reported(reporting: Service, collector: Collector) -> None:
    answers = [
        post(reporting, "a"),
        post(reporting, "a"),
        post(reporting, "b", reference=f"{CANARIES['reference']}-a"),
        post(reporting, "c", planet=CANARIES["metadata"]),
        ask(reporting, "GET", "/v1/ledgers", headers={"Authorization": "Bearer nobody"}),
        ask(reporting, "GET", f"/v1/ledgers?cursor={CANARIES['query']}"),
        ask(reporting, "GET", "/nowhere"),
        ask(reporting, "DELETE", "/v1/ledgers"),
        ask(reporting, "POST", "/v1/ledgers", content=b"{", headers={"Content-Type": "application/json"}),
    ]
    assert [answer.status_code for answer in answers] == [201, 201, 409, 422, 401, 400, 404, 405, 400]
    fetch_now(
        reporting.database,
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where datname = current_database() and application_name like 'tallystick%'",
    )
    assert ask(reporting, "GET", "/v1/ledgers/main").status_code in (200, 503)
    assert post(reporting, "d").status_code == 201
    assert collector.settle(0) == []


def test_a_collector_that_is_away_harms_nobody(database: str, collector: Collector) -> None:
    with serve(database, sentry_dsn=f"http://public@127.0.0.1:{free_port()}/1") as service:
        ask(service, "POST", "/v1/ledgers", json={"name": "main"})
        fetch_now(database, "alter table events add constraint planted check (false) not valid")
        began = time.monotonic()
        account = {"path": "cash", "asset": "USD/2", "normal_side": "debit"}
        assert ask(service, "POST", "/v1/ledgers/main/accounts", "a", json=account).status_code == 500
        assert time.monotonic() - began < 5
    assert collector.received == []


def test_without_an_address_nothing_is_reported(database: str) -> None:
    create_app(settings_for(database))
    assert sentry_sdk.get_client().transport is None
    assert sentry_sdk.capture_exception(ValueError()) is None

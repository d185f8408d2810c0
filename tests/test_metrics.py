"""What Prometheus is told: that it is true, that it names nobody, and who may ask."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.counts import CONSUMER_SECONDS, CONSUMERS_SHOWN_MAX, Distribution, FeedCounts
from app.ledger.verification.checks import RANGE_CHECKS, WHOLE_CHECKS
from tests.books import fetch_now
from tests.conftest import KEY, ROOT, SECOND_KEY, Service, serve
from tests.test_refusals import holding

# Whatever a customer or a client may name, and an amount. None of it may be a label or stand in a help text.
CANARIES = {
    "ledger": "kanari-ledger",
    "account": "kanari-account",
    "asset": "KANARI/2",
    "reference": "kanari-reference",
    "group": "kanari-group",
    "description": "kanari-description",
    "metadata": "kanari-metadata",
    "idempotency key": "kanari-key",
    "amount": "9182736450",
    "request id": "kanari-request",
    "unknown path": "kanari-path",
    "method": "PROPFIND",
    "query": "kanari-query",
    "code": "kanari-code",
    "API key": KEY,
}
LEDGER = f"/v1/ledgers/{CANARIES['ledger']}"


@pytest.fixture(scope="module")
def fresh(new_database: Any) -> Iterator[Service]:
    """A service of its own, whose counts nobody else moves, with books that name the canaries."""
    with serve(new_database()) as service:
        with service.client() as client:
            assert client.post("/v1/ledgers", json={"name": CANARIES["ledger"]}).status_code == 201
            for path in ("cash", CANARIES["account"]):
                account = {"path": path, "asset": CANARIES["asset"], "normal_side": "debit"}
                assert send(client, "/accounts", path, account).status_code == 201
        yield service


def send(client: httpx.Client, path: str, key: str, body: dict[str, Any]) -> httpx.Response:
    headers = {"Idempotency-Key": f"{CANARIES['idempotency key']}-{key}", "X-Request-Id": CANARIES["request id"]}
    return client.post(LEDGER + path, json=body, headers=headers)


def transaction(**changes: Any) -> dict[str, Any]:
    posting = {"debit_account": "cash", "credit_account": CANARIES["account"], "amount": CANARIES["amount"]}
    said = {name: CANARIES[name] for name in ("group", "description")}
    return {"postings": [posting], "metadata": {CANARIES["metadata"]: CANARIES["metadata"]}} | said | changes


class Told:
    """The samples of one scrape."""

    def __init__(self, client: httpx.Client) -> None:
        answer = client.get("/metrics")
        assert answer.status_code == 200
        self.text = answer.text
        self.families = list(text_string_to_metric_families(answer.text))
        self._samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families
            for sample in family.samples
        }

    def get(self, name: str, **labels: str) -> float:
        return self._samples.get((f"tallystick_{name}", frozenset(labels.items())), 0.0)


class Change:
    """What one scrape says more than the one before it."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        self._before = Told(client)

    def __enter__(self) -> "Change":
        return self

    def __exit__(self, *_: object) -> None:
        self._after = Told(self._client)

    def of(self, name: str, **labels: str) -> float:
        return self._after.get(name, **labels) - self._before.get(name, **labels)


def test_requests_are_counted_by_operation_status_and_code(fresh: Service) -> None:
    with fresh.client() as client, Change(client) as change:
        assert send(client, "/transactions", "a", transaction(reference=CANARIES["reference"])).status_code == 201
        assert send(client, "/transactions", "b", transaction(reference=CANARIES["reference"])).status_code == 409
        assert client.get(f"{LEDGER}/accounts/nobody").status_code == 404
    assert change.of("requests_total", operation="postTransaction", status="201") == 1
    assert change.of("requests_total", operation="postTransaction", status="409") == 1
    assert change.of("refusals_total", operation="postTransaction", code="reference_exists") == 1
    assert change.of("refusals_total", operation="getAccount", code="account_not_found") == 1
    assert change.of("request_seconds_count", operation="postTransaction") == 2
    assert change.of("request_seconds_sum", operation="postTransaction") > 0


def test_what_no_operation_is_asked_for_has_no_label_of_its_own(fresh: Service) -> None:
    with fresh.client() as client, Change(client) as change:
        client.get(f"/{CANARIES['unknown path']}")
        client.request(CANARIES["method"], f"{LEDGER}/accounts")
        client.get("/docs")
    assert change.of("requests_total", operation="-", status="404") == 1
    assert change.of("requests_total", operation="-", status="405") == 1
    assert change.of("requests_total", operation="-", status="200") == 1


def test_a_batch_is_counted_with_its_size_its_stages_and_its_events(fresh: Service) -> None:
    with fresh.client() as client, Change(client) as change:
        assert send(client, "/transactions", "c", transaction()).status_code == 201
        assert send(client, "/transactions", "c", transaction()).status_code == 201
        hold = transaction(pending=True, expires_at=fresh.clock.now.replace(year=2100).isoformat())
        assert send(client, "/transactions", "d", hold).status_code == 201
        batch = {"transactions": [transaction()] * 10}
        assert send(client, "/transaction-batches", "e", batch).status_code == 200
    assert change.of("batches_total", outcome="committed") == 4
    assert change.of("batch_submissions_sum") == 4
    assert change.of("batch_submissions_bucket", le="1.0") == 4
    assert change.of("batch_entries_sum") == 2 + 0 + 2 + 20
    # The replay of the second was read and decided, and wrote nothing.
    for stage, times in (("read", 4), ("decide", 4), ("write", 3), ("lock", 0), ("commit", 0)):
        assert change.of("batch_stage_seconds_count", stage=stage) == times, stage
    assert change.of("events_total", kind="transaction_posted") == 11
    assert change.of("events_total", kind="transaction_held") == 1


def test_an_expiry_is_counted_when_it_is_written(fresh: Service) -> None:
    with fresh.client() as client, Change(client) as change:
        soon = transaction(pending=True, expires_at=fresh.clock.now.replace(microsecond=0).isoformat())
        fresh.clock.advance(-60)
        assert send(client, "/transactions", "f", soon).status_code == 201
        fresh.clock.advance(60)
        assert client.get(f"{LEDGER}/accounts/cash").status_code == 200
    assert change.of("events_total", kind="transaction_expired") == 1


def test_trouble_of_the_database_and_bugs_are_counted(database: str) -> None:
    with serve(database) as service, service.client() as client:
        client.post("/v1/ledgers", json={"name": CANARIES["ledger"]})
        account = {"asset": "USD/2", "normal_side": "debit"}
        with Change(client) as change:
            with ThreadPoolExecutor(1) as threads:
                with holding(database, "lock table heads") as wait_for:
                    opening = threads.submit(send, client, "/accounts", "a", account | {"path": "a"})
                    wait_for(1)
                    # A connection that is idle would be replaced without trouble.
                    fetch_now(
                        database,
                        "select pg_terminate_backend(pid) from pg_stat_activity "
                        "where datname = current_database() and application_name = 'tallystick-writer'",
                    )
                assert opening.result().status_code == 201
            fetch_now(database, "alter table events add constraint planted check (sequence < 3)")
            assert send(client, "/accounts", "b", account | {"path": "b"}).status_code == 500
        assert change.of("batches_interrupted_total") >= 1
        assert change.of("batch_stage_seconds_count", stage="lock") >= 1
        assert change.of("batch_stage_seconds_count", stage="commit") >= 1
        assert change.of("batches_total", outcome="failed") == 1
        # What was sent and not committed is not counted as recorded.
        assert change.of("events_total", kind="account_opened") == 1


def test_two_apps_in_a_process_count_apart(fresh: Service, service: Service) -> None:
    with fresh.client() as client, service.client() as other, Change(client) as change:
        other.get("/v1/ledgers")
    assert change.of("requests_total", operation="listLedgers", status="200") == 0


def test_nothing_waits_when_nothing_is_asked(fresh: Service) -> None:
    with fresh.client() as client:
        told = Told(client)
    assert [told.get(f"queue_{what}") for what in ("ledgers", "weight", "weight_heaviest")] == [0, 0, 0]
    assert told.get("queue_weight_limit") == 20_000
    assert told.get("feed_waiters") == 0
    assert told.get("connections_max", pool="write") == 4


def test_a_consumer_is_as_far_behind_as_where_it_asks_on_from(fresh: Service) -> None:
    with fresh.client() as client, fresh.client(SECOND_KEY) as second:
        head = client.get(f"{LEDGER}/events").json()["sequence"]
        with Change(client) as change:
            assert second.get(f"{LEDGER}/events?after_sequence={head - 2}").status_code == 200
            assert client.get(f"{LEDGER}/events?after_sequence={head}").status_code == 200
        told = Told(client)
    assert change.of("feed_behind_events_sum") == 2
    assert change.of("feed_behind_events_bucket", le="0.0") == 1
    assert told.get("feed_consumer_behind_events", consumer="second") == 2
    assert told.get("feed_consumer_behind_events", consumer="operator") == 0


def test_a_consumer_counts_where_it_is_farthest_behind_and_only_while_it_asks() -> None:
    now = 0.0
    counts = FeedCounts(lambda: now)
    counts.asked("shop", "one", behind=7)
    counts.asked("shop", "two", behind=3)
    counts.asked("bank", "one", behind=0)
    assert counts.consumers() == {"shop": 7, "bank": 0}
    now = CONSUMER_SECONDS
    counts.asked("shop", "two", behind=1)
    assert counts.consumers() == {"shop": 7, "bank": 0}
    now += 1
    assert counts.consumers() == {"shop": 1}


def test_many_consumers_are_not_all_shown() -> None:
    counts = FeedCounts()
    for number in range(CONSUMERS_SHOWN_MAX + 50):
        counts.asked(f"key-{number}", "one", behind=number)
    shown = counts.consumers()
    assert len(shown) == CONSUMERS_SHOWN_MAX
    assert min(shown.values()) == 50


def test_a_distribution_counts_a_bound_among_what_lies_below_it() -> None:
    distribution = Distribution((1, 2))
    for value in (0, 1, 1.5, 2, 3):
        distribution.add(value)
    assert distribution.counts == [2, 2, 1]
    assert distribution.total == 7.5


def test_a_verification_leaves_what_it_found(database: str) -> None:
    with serve(database) as service, service.client() as client:
        client.post("/v1/ledgers", json={"name": CANARIES["ledger"]})
        for path in ("cash", "wallet"):
            send(client, "/accounts", path, {"path": path, "asset": "USD/2", "normal_side": "debit"})
        told = Told(client)
        assert told.get("verification_last_run_timestamp_seconds") == 0
        assert [told.get("verification_offenders_total", check=check) for check in RANGE_CHECKS] == [0] * len(
            RANGE_CHECKS
        )
        assert client.get(f"{LEDGER}/verification").status_code == 200
        fetch_now(database, "drop trigger entries_zero_sum on entries")
        with Change(client) as change:
            assert client.get(f"{LEDGER}/verification").status_code == 200
        assert change.of("verification_offenders_total", check="triggers_stand") == 1
        assert change.of("verification_events_total") == 3
        assert change.of("verifications_total") == 1
        last = Told(client).get("verification_last_run_timestamp_seconds")
        assert last == pytest.approx(service.clock.now.timestamp())


def verify(database: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.verify", *arguments]
    environment = os.environ | {"DATABASE_URL": database}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_whole_verification_is_written_for_the_textfile_collector(database: str, tmp_path: Path) -> None:
    with serve(database) as service, service.client() as client:
        for name in (CANARIES["ledger"], "other"):
            client.post("/v1/ledgers", json={"name": name})
        send(client, "/accounts", "a", {"path": CANARIES["account"], "asset": "USD/2", "normal_side": "debit"})
    file = tmp_path / "tallystick.prom"
    assert verify(database, "--metrics", str(file)).returncode == 0
    told = samples(file)
    assert {name for name, _ in told} == listed_metrics("tallystick_verify_")
    assert told["tallystick_verify_ledgers", ""] == 2
    assert told["tallystick_verify_events", ""] == 3
    assert abs(told["tallystick_verify_last_run_timestamp_seconds", ""] - time.time()) < 600
    assert {check: told["tallystick_verify_offenders", check] for check in WHOLE_CHECKS} == dict.fromkeys(
        WHOLE_CHECKS, 0
    )
    assert "kanari" not in file.read_text()

    fetch_now(database, "drop trigger entries_zero_sum on entries")
    assert verify(database, "--metrics", str(file)).returncode == 1
    assert samples(file)["tallystick_verify_offenders", "triggers_stand"] == 2
    # Neither a run over one ledger nor one that did not come to its end is written.
    written = file.read_text()
    assert verify(database, "other", "--metrics", str(file)).returncode == 2
    assert verify(database.replace("test_", "none_"), "--metrics", str(file)).returncode == 1
    assert written == file.read_text()
    assert "Cannot write" in verify(database, "--metrics", str(tmp_path / "nowhere" / "file")).stderr


def samples(file: Path) -> dict[tuple[str, str], float]:
    return {
        (sample.name, sample.labels.get("check", "")): sample.value
        for family in text_string_to_metric_families(file.read_text())
        for sample in family.samples
    }


def listed_metrics(prefix: str) -> set[str]:
    """The metrics on the page."""
    lines = (ROOT / "docs" / "seeing.md").read_text().splitlines()
    return {name for line in lines if line.startswith(f"| `{prefix}") for name in line.split("`")[1:2]}


def test_nothing_that_anybody_named_stands_in_it(fresh: Service) -> None:
    """After each of these was said in every way in which it can be."""
    with fresh.client() as client:
        send(client, "/transactions", "g", transaction(reference=CANARIES["reference"] + "-g"))
        send(client, "/transactions", "h", transaction() | {CANARIES["code"]: 1})
        client.get(f"/{CANARIES['unknown path']}")
        client.get(f"/problems/{CANARIES['code']}")
        client.get(f"/v1/ledgers?cursor={CANARIES['query']}&{CANARIES['query']}=1")
        client.request(CANARIES["method"], LEDGER)
        client.get(f"{LEDGER}/accounts/{CANARIES['account']}/entries")
        client.get(f"{LEDGER}/events")
        client.get(f"{LEDGER}/verification")
        client.get(f"/v1/ledgers/{CANARIES['ledger']}-unknown")
        told = Told(client)
    assert told.get("requests_total", operation="postTransaction", status="422") >= 1
    assert [what for what, canary in CANARIES.items() if canary.lower() in told.text.lower()] == []


def test_it_is_text_that_prometheus_reads(fresh: Service) -> None:
    with fresh.client() as client:
        wanted = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1"
        answer = client.get("/metrics", headers={"Accept": wanted})
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert client.get("/metrics", headers={"Accept": "text/*"}).status_code == 200
        assert client.get("/metrics", headers={"Accept": "application/json"}).status_code == 406
        told = Told(client)
    assert {family.type for family in told.families if family.name.startswith("tallystick")} == {
        "counter", "gauge", "histogram",
    }  # fmt: skip
    assert not [family.name for family in told.families if not family.documentation]


@pytest.mark.parametrize(("metrics", "nobody", "stranger", "keyed"), [
    ("key", 401, 401, 200),
    ("open", 200, 200, 200),
    ("closed", 404, 404, 404),
])  # fmt: skip
def test_who_may_read_it(database: str, metrics: str, nobody: int, stranger: int, keyed: int) -> None:
    with serve(database, metrics=metrics) as service:
        for key, status in ((None, nobody), ("somebody-elses-secret", stranger), (KEY, keyed)):
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            assert httpx.get(f"{service.url}/metrics", headers=headers).status_code == status


def test_every_metric_is_on_the_page_and_no_other(fresh: Service) -> None:
    with fresh.client() as client:
        told = Told(client)
    own = {
        family.name + ("_total" if family.type == "counter" else "")
        for family in told.families
        if family.name.startswith("tallystick_")
    }
    assert own == listed_metrics("tallystick_") - listed_metrics("tallystick_verify_")

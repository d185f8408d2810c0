"""Traces: what leaves for a collector, what of a caller's is taken, and that without an address there are none."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.collectors import collecting
from tests.conftest import KEY, ROOT, Service, free_port, serve, settings_for

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
CALLER = f"00-{TRACE}-{SPAN}-01"
MALFORMED = [
    "", "nonsense", CALLER.upper(), f"00-{TRACE}-{SPAN}", f"00-{TRACE}-{SPAN}-1", f"00-{TRACE[:-1]}-{SPAN}-01",
    f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", f"ff-{TRACE}-{SPAN}-01", f"{CALLER}-more", f"0-{CALLER}",
    f"{CALLER},{CALLER}", f"00-{TRACE}-{SPAN}-0g", "x" * 5000, f"00-{TRACE[:-1]}é-{SPAN}-01",
]  # fmt: skip
# What a span must not hold.
CANARIES = {
    "API key": KEY,
    "ledger": "kanari-ledger-4e7c",
    "account": "kanari-account-4e7c",
    "idempotency key": "kanari-idempotency-4e7c",
    "description": "kanari-description-4e7c",
    "metadata": "kanari-metadata-4e7c",
    "reference": "kanari-reference-4e7c",
    "amount": "9182736450",
    "header": "kanari-header-4e7c",
    "query": "kanariquery4e7c",
    "unknown path": "kanari-path-4e7c",
    "tracestate": "kanari-state-4e7c",
}
LEDGER = f"/v1/ledgers/{CANARIES['ledger']}"


@dataclass
class Collector:
    """What stands in for a collector of OpenTelemetry: takes whatever is sent to it."""

    address: str = ""
    received: list[bytes] = field(default_factory=list)

    @property
    def spans(self) -> list[Any]:
        requests = [ExportTraceServiceRequest.FromString(each) for each in self.received]
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    with collecting(collector.received) as address:
        collector.address = f"http://{address}/v1/traces"
        yield collector


def ask(service: Service, method: str, path: str, key: str = "", **request: Any) -> httpx.Response:
    headers = {"X-Whatever": CANARIES["header"], "tracestate": f"vendor={CANARIES['tracestate']}"}
    headers |= {"Idempotency-Key": f"{CANARIES['idempotency key']}-{key}"} if key else {}
    with service.client() as client:
        return client.request(method, path, headers=headers | request.pop("headers", {}), **request)


def open_books(service: Service) -> None:
    assert ask(service, "POST", "/v1/ledgers", json={"name": CANARIES["ledger"]}).status_code == 201
    for path in ("cash", CANARIES["account"]):
        account = {"path": path, "asset": "USD/2", "normal_side": "debit"}
        assert ask(service, "POST", f"{LEDGER}/accounts", path, json=account).status_code == 201


def post(service: Service, key: str, **headers: str) -> httpx.Response:
    posting = {"debit_account": "cash", "credit_account": CANARIES["account"], "amount": CANARIES["amount"]}
    said = {name: CANARIES[name] for name in ("description", "reference")}
    said["reference"] += key
    body = {"postings": [posting], "metadata": {"note": CANARIES["metadata"]}} | said
    return ask(service, "POST", f"{LEDGER}/transactions", key, json=body, headers=headers)


def attributes(span: Any) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def test_a_request_is_a_span_of_its_callers_trace_and_its_batch_is_linked_to_it(
    database: str, collector: Collector
) -> None:
    with serve(database, traces_endpoint=collector.address, traces_ratio=0.0) as service:
        open_books(service)
        answer = post(service, "a", traceparent=CALLER)
        assert answer.status_code == 201
        assert post(service, "b").status_code == 201
    # The ratio traces nobody, so what is there is what the caller had traced.
    (request,) = collector.named("postTransaction")
    (batch,) = collector.named("batch")
    assert len(collector.spans) == 2
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, SPAN)
    assert answer.headers["traceparent"] == f"00-{TRACE}-{request.span_id.hex()}-01"
    assert attributes(request) == {
        "http.request.method": "POST",
        "http.response.status_code": 201,
        "http.route": "/v1/ledgers/{ledger}/transactions",
        "tallystick.code": "-",
    }
    assert [(link.trace_id, link.span_id) for link in batch.links] == [(request.trace_id, request.span_id)]
    assert batch.trace_id != request.trace_id
    assert not batch.parent_span_id
    said = attributes(batch)
    assert (said["tallystick.submissions"], said["tallystick.events"], said["tallystick.entries"]) == (1, 1, 2)
    assert {f"tallystick.{stage}_seconds" for stage in ("read", "decide", "write")} <= set(said)
    assert request.start_time_unix_nano <= batch.start_time_unix_nano <= batch.end_time_unix_nano


def test_a_caller_that_does_not_trace_is_not_traced(database: str, collector: Collector) -> None:
    with serve(database, traces_endpoint=collector.address) as service:
        answer = ask(service, "GET", "/v1/ledgers", headers={"traceparent": f"00-{TRACE}-{SPAN}-00"})
        assert answer.headers["traceparent"].startswith(f"00-{TRACE}-")
        assert answer.headers["traceparent"].endswith("-00")
    assert collector.spans == []


@pytest.mark.parametrize("said", MALFORMED)
def test_a_malformed_traceparent_is_as_good_as_none(tracing: Service, said: str) -> None:
    answer = ask(tracing, "GET", "/v1/ledgers", headers={"traceparent": said.encode()})
    assert answer.status_code == 200
    begun = answer.headers["traceparent"]
    assert TRACE not in begun
    assert int(begun.split("-")[3], 16) & 1


@pytest.mark.parametrize(("said", "flags"), [
    (CALLER, "01"), (f"00-{TRACE}-{SPAN}-ff", "01"), (f"00-{TRACE}-{SPAN}-fe", "00"),
    # A version to come, with or without more than we know of.
    (f"01-{TRACE}-{SPAN}-01", "01"), (f"cc-{TRACE}-{SPAN}-01-what-comes", "01"),
])  # fmt: skip
def test_a_traceparent_is_read_as_the_specification_says(tracing: Service, said: str, flags: str) -> None:
    answer = ask(tracing, "GET", "/v1/ledgers", headers={"traceparent": said})
    assert answer.headers["traceparent"].startswith(f"00-{TRACE}-")
    assert answer.headers["traceparent"].endswith(f"-{flags}")
    assert SPAN not in answer.headers["traceparent"]


def test_two_of_them_are_none(tracing: Service) -> None:
    two = [("Authorization", f"Bearer {KEY}"), ("traceparent", CALLER), ("Traceparent", CALLER)]
    answer = httpx.get(f"{tracing.url}/v1/ledgers", headers=two)
    assert TRACE not in answer.headers["traceparent"]


@pytest.fixture(scope="module")
def tracing(new_database: Any) -> Iterator[Service]:
    """A service that traces, to where nobody is."""
    with serve(
        new_database(), traces_endpoint=f"http://127.0.0.1:{free_port()}/v1/traces", log_level="ERROR"
    ) as service:
        yield service


def test_no_span_says_what_anybody_said(database: str, collector: Collector) -> None:
    with serve(database, traces_endpoint=collector.address) as service:
        open_books(service)
        answers = [
            post(service, "a"),
            post(service, "a"),
            ask(service, "GET", f"{LEDGER}/accounts/{CANARIES['account']}"),
            ask(service, "GET", f"/v1/ledgers?cursor={CANARIES['query']}"),
            ask(service, "GET", f"/{CANARIES['unknown path']}"),
            ask(service, "GET", f"/v1/ledgers/{CANARIES['unknown path']}"),
            ask(service, "POST", "/v1/ledgers", content=b"{", headers={"Content-Type": "application/json"}),
        ]
        assert [answer.status_code for answer in answers] == [201, 201, 200, 400, 404, 404, 400]
        service.clock.now = service.clock.now.replace(tzinfo=None)
        assert post(service, "fault").status_code == 500
    sent = b"\n".join(collector.received)
    assert [what for what, canary in CANARIES.items() if canary.encode() in sent] == []
    assert {span.name for span in collector.spans} >= {"postTransaction", "getAccount", "batch", "unknown"}
    assert {
        span.status.code for span in collector.spans if attributes(span).get("http.response.status_code") == 500
    } == {2}


def test_the_log_names_the_trace(database: str, collector: Collector) -> None:
    # Not capsys, whose file is closed while services of other tests still write to it.
    with (
        redirect_stdout(io.StringIO()) as stdout,
        serve(database, traces_endpoint=collector.address, log_level="INFO") as service,
    ):
        ask(service, "GET", "/v1/ledgers", headers={"traceparent": CALLER})
    assert f'"trace_id": "{TRACE}"' in stdout.getvalue()


def test_a_collector_that_is_away_harms_nobody(database: str) -> None:
    with serve(database, traces_endpoint=f"http://127.0.0.1:{free_port()}/v1/traces", log_level="ERROR") as service:
        open_books(service)
        assert post(service, "a").status_code == 201


def test_without_an_address_nothing_of_it_is_imported() -> None:
    """Nor is anything said of a trace."""
    script = (
        "import sys; from app.main import create_app; from app.settings import Settings; "
        "create_app(Settings(_env_file=None, database_url='postgresql://nobody@localhost/none', development=True)); "
        "print([name for name in sys.modules if name.startswith('opentelemetry.sdk') or name == 'requests'])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_without_an_address_a_traceparent_is_still_on_the_answer_and_in_the_log(database: str) -> None:
    """The caller's own span, since there is none of ours; beside the request's id, which it neither makes nor is."""
    with redirect_stdout(io.StringIO()) as stdout, serve(database, log_level="INFO") as service:
        assert settings_for(service.database).traces_endpoint is None
        answer = ask(service, "GET", "/v1/ledgers", headers={"traceparent": CALLER, "X-Request-Id": "mine"})
        refused = ask(service, "GET", "/v1/ledgers/none", headers={"traceparent": f"cc-{TRACE}-{SPAN}-fe-more"})
        without = ask(service, "GET", "/v1/ledgers")
    assert (answer.headers["traceparent"], answer.headers["x-request-id"]) == (CALLER, "mine")
    assert (refused.status_code, refused.headers["traceparent"]) == (404, f"00-{TRACE}-{SPAN}-00")
    assert "traceparent" not in without.headers
    assert not [one for one in (answer, refused) if "tracestate" in one.headers]
    lines = [json.loads(line) for line in stdout.getvalue().splitlines() if '"event": "request"' in line]
    assert [line.get("trace_id") for line in lines] == [TRACE, TRACE, None]
    assert lines[0]["request_id"] == "mine"
    assert CANARIES["tracestate"] not in json.dumps(lines)


@pytest.mark.parametrize("said", MALFORMED)
def test_without_an_address_a_malformed_one_is_as_good_as_none(service: Service, said: str) -> None:
    answer = ask(service, "GET", "/v1/ledgers", headers={"traceparent": said.encode()})
    assert answer.status_code == 200
    assert "traceparent" not in answer.headers


def test_without_an_address_two_of_them_are_none(service: Service) -> None:
    two = [("Authorization", f"Bearer {KEY}"), ("traceparent", CALLER), ("Traceparent", CALLER)]
    assert "traceparent" not in httpx.get(f"{service.url}/v1/ledgers", headers=two).headers

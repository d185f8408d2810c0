"""What a process says: every line of one form, one line per request, and nothing of what it must keep to itself."""

import json
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from scripts.postgres import Postgres
from tests.books import fetch_now
from tests.conftest import KEY, migrate, start_processes

# What clients and operators trust the service with. Each stands in requests that succeed and in such that fail.
CANARIES = {
    "API key": KEY,
    "unknown API key": "kanari-wrong-key-4e7c",
    "idempotency key": "kanari-idempotency-4e7c",
    "description": "kanari-description-4e7c",
    "metadata": "kanari-metadata-4e7c",
    "amount": "9182736450",
    "invented property": "kanari-property-4e7c",
    "malformed body": "kanari-malformed-4e7c",
    "query": "kanari-query-4e7c",
    "unknown path": "kanari-path-4e7c",
    "request id of another form": "kanari request",
    "password of the database": "kanari-password-4e7c",
}
WRITER = {"batch_written", "batch_interrupted", "batch_halved", "submission_failed", "decision_failed", "race_lost"}
TRANSACTIONS = "/v1/ledgers/main/transactions"
PLANT = "alter table events add constraint planted check (\"group\" is distinct from 'planted')"
BREAK = "alter table accounts rename column version to planted"


@dataclass
class Spoken:
    """What was asked of a process and answered, by the request's id, and all that it wrote meanwhile."""

    text: str = ""
    answers: dict[str, httpx.Response] = field(default_factory=dict)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    def asked(self, route: str, status: int) -> set[str]:
        """The ids of the requests to a path that were answered with a status."""
        found = self.answers.items()
        return {name for name, each in found if each.status_code == status and each.request.url.path == route}


def body(**changes: Any) -> dict[str, Any]:
    posting = {"debit_account": "cash", "credit_account": "wallet", "amount": CANARIES["amount"]}
    said = {"description": CANARIES["description"], "metadata": {"note": CANARIES["metadata"]}}
    return {"postings": [posting]} | said | changes


class Caller:
    """Asks a process, each time under an id of its own, and remembers its answers."""

    def __init__(self, url: str, spoken: Spoken) -> None:
        self._url = url
        self._spoken = spoken

    def ask(self, method: str, path: str, key: str = "", **request: Any) -> httpx.Response:
        name = f"request-{len(self._spoken.answers):03}"
        headers = {"Authorization": f"Bearer {KEY}", "X-Request-Id": name} | request.pop("headers", {})
        headers |= {"Idempotency-Key": f"{CANARIES['idempotency key']}-{key}"} if key else {}
        self._spoken.answers[name] = answer = httpx.request(
            method, self._url + path, headers=headers, timeout=30, **request
        )
        return answer

    def post(self, key: str, **changes: Any) -> httpx.Response:
        return self.ask("POST", TRANSACTIONS, key, json=body(**changes))

    def open_books(self) -> None:
        said = {"description": CANARIES["description"], "metadata": {"note": CANARIES["metadata"]}}
        self.ask("POST", "/v1/ledgers", json={"name": "main"} | said)
        for path in ("cash", "wallet"):
            account = {"path": path, "asset": "USD/2", "normal_side": "debit"} | said
            assert self.ask("POST", "/v1/ledgers/main/accounts", path, json=account).status_code == 201


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Spoken:
    """A day in the life of a process: work, refusals, faults, a lost connection, and in the end a lost database."""
    spoken = Spoken()
    folder = tmp_path_factory.mktemp("logs")
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as data:
        with Postgres(Path(data) / "postgres", durable=False) as postgres:
            postgres.create_database("books")
            address = postgres.url("books")
            migrate(address)
            secretive = address.replace("postgres@", f"postgres:{CANARIES['password of the database']}@")
            with start_processes(secretive, 1, folder, LOG_LEVEL="DEBUG", LOG_FORMAT="json") as running:
                caller = Caller(running.urls[0], spoken)
                caller.open_books()
                with ThreadPoolExecutor(8) as threads:
                    posts = list(threads.map(lambda n: caller_of(running.urls[0], spoken, n), range(8)))
                assert [each.status_code for each in posts] == [201] * 8
                caller.post("replayed")
                caller.post("replayed")
                for path in ("", "/accounts", "/accounts/cash", "/accounts/cash/entries", "/transactions", "/events"):
                    assert caller.ask("GET", f"/v1/ledgers/main{path}").status_code == 200
                refuse(caller)
                fetch_now(
                    address,
                    "select pg_terminate_backend(pid) from pg_stat_activity "
                    "where datname = current_database() and application_name like 'tallystick%'",
                )
                assert caller.post("reconnected").status_code == 201
                assert caller.ask("GET", "/v1/ledgers/main").status_code in (200, 503)
                fetch_now(address, PLANT)
                assert caller.post("fault", group="planted").status_code == 500
                fetch_now(address, BREAK)
                assert caller.ask("GET", "/v1/ledgers/main/accounts/cash").status_code == 500
                postgres.stop()
                assert caller.ask("GET", "/v1/ledgers/main").status_code == 503
                assert caller.post("storage").status_code == 503
            spoken.text = running.logs[0].read_text()
    return spoken


def caller_of(url: str, spoken: Spoken, number: int) -> httpx.Response:
    """One of several at once, whose ids must not depend on who comes first."""
    apart = Spoken()
    answer = Caller(url, apart).ask(
        "POST", TRANSACTIONS, f"{number}", json=body(), headers={"X-Request-Id": f"at-once-{number}"}
    )
    spoken.answers[f"at-once-{number}"] = answer
    return answer


def refuse(caller: Caller) -> None:
    """Each kind of refusal, with a canary in whatever is refused."""
    wrong = CANARIES["invented property"]
    malformed = b'{"postings": "' + CANARIES["malformed body"].encode()
    json_type = {"Content-Type": "application/json"}
    for status, answer in (
        (401, caller.ask("GET", "/v1/ledgers", headers={"Authorization": f"Bearer {CANARIES['unknown API key']}"})),
        (400, caller.ask("POST", TRANSACTIONS, "a", content=malformed, headers=json_type)),
        (422, caller.ask("POST", TRANSACTIONS, "b", json=body(**{wrong: wrong}))),
        (422, caller.ask("POST", TRANSACTIONS, "c", json=body(description=CANARIES["description"] + "\0"))),
        (422, caller.ask("POST", TRANSACTIONS, "d", json=body(metadata={wrong + " ": CANARIES["metadata"]}))),
        (422, caller.ask("GET", f"/v1/ledgers?{CANARIES['query']}={CANARIES['query']}")),
        (400, caller.ask("GET", f"/v1/ledgers?cursor={CANARIES['query']}")),
        (404, caller.ask("GET", f"/v1/{CANARIES['unknown path']}")),
        (405, caller.ask("DELETE", "/v1/ledgers")),
        (422, caller.post("e", postings=[body()["postings"][0] | {"debit_account": "nobody"}])),
        (422, caller.post("replayed", description=CANARIES["description"] + " another")),
        (409, caller.ask("POST", "/v1/ledgers", json={"name": "main"})),
    ):
        assert answer.status_code == status, answer.text
    odd = httpx.get(f"{caller._url}/healthz", headers={"X-Request-Id": CANARIES["request id of another form"]})
    caller._spoken.answers[odd.headers["X-Request-Id"]] = odd


def test_every_line_is_one_json_object_that_says_what_when_how_grave_and_for_whom(spoken: Spoken) -> None:
    for line in spoken.lines:
        assert isinstance(line, dict)
        assert {"request_id", "level", "time", "event"} <= set(line)
        assert line["level"] in ("debug", "info", "warning", "error", "critical")
        said = datetime.fromisoformat(line["time"])
        assert said.utcoffset() == timedelta(0)
        assert abs(datetime.now(UTC) - said) < timedelta(minutes=10)
    times = [line["time"] for line in spoken.lines]
    assert sorted(times) == times


def test_every_request_has_exactly_one_line_that_says_what_became_of_it(spoken: Spoken) -> None:
    by_name: dict[str, list[dict[str, Any]]] = {}
    for line in spoken.of("request"):
        by_name.setdefault(line["request_id"], []).append(line)
    for name, answer in spoken.answers.items():
        (line,) = by_name.pop(name)
        code = answer.json().get("code", "-")
        assert answer.headers["X-Request-Id"] == name
        assert (line["method"], line["status"], line["code"]) == (answer.request.method, answer.status_code, code)
        assert 0 < line["duration_ms"] < 30_000
        assert line["level"] == "info"
        assert {"route", "ledger", "actor", "operation"} <= set(line)
    # What is left are the looks of whoever waited for the start.
    assert {line["route"] for lines in by_name.values() for line in lines} == {"/readyz"}


@pytest.mark.parametrize(
    ("route", "status", "expected"),
    [
        (TRANSACTIONS, 201, ("/v1/ledgers/{ledger}/transactions", "postTransaction", "main", "operator")),
        (TRANSACTIONS, 500, ("/v1/ledgers/{ledger}/transactions", "postTransaction", "main", "operator")),
        (TRANSACTIONS, 503, ("/v1/ledgers/{ledger}/transactions", "postTransaction", "main", "operator")),
        ("/v1/ledgers", 401, ("/v1/ledgers", "listLedgers", "-", "-")),
        ("/v1/ledgers", 201, ("/v1/ledgers", "createLedger", "-", "operator")),
        ("/healthz", 200, ("/healthz", "getHealth", "-", "-")),
        (f"/v1/{CANARIES['unknown path']}", 404, ("-", "-", "-", "-")),
    ],
)
def test_the_line_of_a_request_names_its_route_ledger_and_actor(
    spoken: Spoken, route: str, status: int, expected: tuple[str, ...]
) -> None:
    asked = spoken.asked(route, status)
    lines = [line for line in spoken.of("request") if line["request_id"] in asked]
    assert asked
    assert {tuple(line[name] for name in ("route", "operation", "ledger", "actor")) for line in lines} == {expected}


def test_the_writers_lines_name_their_batch_and_the_requests_it_serves_and_no_one_request(spoken: Spoken) -> None:
    lines = [line for line in spoken.lines if line["event"] in WRITER]
    assert {line["event"] for line in lines} >= {"batch_written", "submission_failed", "batch_interrupted"}
    for line in lines:
        assert line["request_id"] == "-"
        assert line["batch"] >= 1
        assert line["ledger_id"] >= 1
        assert line["request_ids"]
        assert set(line["request_ids"]) <= set(spoken.answers)


def test_every_write_is_served_by_one_batch_and_no_read_by_any(spoken: Spoken) -> None:
    served = [name for line in spoken.of("batch_written") for name in line["request_ids"]]
    assert len(set(served)) == len(served)
    assert {name for name in spoken.answers if name.startswith("at-once")} <= set(served)
    assert {spoken.answers[name].request.method for name in served} == {"POST"}
    numbers = [line["batch"] for line in spoken.of("batch_written")]
    assert sorted(set(numbers)) == numbers


def test_an_unforeseen_error_is_logged_with_where_it_came_up(spoken: Spoken) -> None:
    failed = [line for line in spoken.lines if "exception" in line]
    assert {line["level"] for line in failed} == {"error"}
    for route in (TRANSACTIONS, "/v1/ledgers/main/accounts/cash"):
        (name,) = spoken.asked(route, 500)
        mine = [line for line in failed if name in (line["request_id"], *line.get("request_ids", ()))]
        assert mine
        assert all("Traceback" in line["exception"] for line in mine)


def test_trouble_of_the_database_is_a_warning_without_a_traceback(spoken: Spoken) -> None:
    interrupted = spoken.of("batch_interrupted")
    assert {line["level"] for line in interrupted} == {"warning"}
    assert not [line for line in interrupted if "exception" in line]


def test_the_lines_of_uvicorn_go_the_same_way(spoken: Spoken) -> None:
    lines = [line for line in spoken.lines if line.get("logger", "").startswith("uvicorn")]
    said = [line["event"].split(" ")[0] for line in lines]
    assert said[0] == "Started"
    assert said[-1] == "Finished"
    assert {line["request_id"] for line in lines} == {"-"}
    # Its own line of each request would be a second one, and would show the query.
    assert not [line for line in lines if line["logger"] == "uvicorn.access"]


@pytest.mark.parametrize("what", CANARIES)
def test_nothing_that_was_entrusted_is_ever_logged(spoken: Spoken, what: str) -> None:
    found = [line for line in spoken.text.splitlines() if CANARIES[what] in line]
    assert [(json.loads(line)["event"], place(line, CANARIES[what])) for line in found] == []


def place(line: str, canary: str) -> str:
    at = line.index(canary)
    return line[max(0, at - 150) : at + 50]


def test_for_people_a_fault_is_shown_without_the_values_of_variables(database: str, tmp_path: Path) -> None:
    """And at the level WARNING, without a line for each request."""
    spoken = Spoken()
    fetch_now(database, "alter table events add constraint planted check (sequence < 3)")
    with start_processes(database, 1, tmp_path, LOG_LEVEL="WARNING", LOG_FORMAT="console") as running:
        caller = Caller(running.urls[0], spoken)
        caller.ask("POST", "/v1/ledgers", json={"name": "main"})
        account = {"asset": "USD/2", "normal_side": "debit"}
        statuses = [
            caller.ask("POST", "/v1/ledgers/main/accounts", path, json=account | {"path": path}).status_code
            for path in ("cash", "wallet")
        ]
        assert statuses == [201, 500]
        assert caller.ask("GET", "/healthz").status_code == 200
    said = running.logs[0].read_text()
    assert "Traceback (most recent call last)" in said
    assert "submission_failed" in said
    assert "planted" in said
    assert "Logging error" not in said
    assert not [line for line in said.splitlines() if line.startswith("{")]
    assert "duration_ms" not in said
    # Renderers that show variables draw boxes around them.
    assert not set("╭│╰") & set(said)
    assert [what for what, canary in CANARIES.items() if canary in said] == []

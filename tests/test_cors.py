"""CORS: who is named may call from a browser and read every answer; without the setting nothing of it is there."""

from collections.abc import Callable, Iterator

import httpx
import pytest
from pydantic import ValidationError

from tests.books import fetch_now
from tests.conftest import KEY, Service, serve, settings_for
from tests.test_contract import OPERATIONS

APP, OTHER = "https://app.example.com", "http://localhost:5173"
EXPOSED = {
    "Content-Encoding", "Idempotency-Replayed", "Location", "Retry-After", "Vary", "WWW-Authenticate", "X-Request-Id",
    "traceparent",
}  # fmt: skip


@pytest.fixture(scope="module")
def open_service(new_database: Callable[[], str]) -> Iterator[Service]:
    with serve(new_database(), cors_origins=f"{APP}, {OTHER}") as service:
        yield service


def ask(service: Service, method: str, path: str, origin: str | None, key: str = KEY, **headers: str) -> httpx.Response:
    headers |= {"Authorization": f"Bearer {key}"} if key else {}
    headers |= {"Origin": origin} if origin else {}
    return httpx.request(method, service.url + path, headers=headers)


def preflight(service: Service, path: str, origin: str, method: str = "POST") -> httpx.Response:
    wanted = {
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "authorization,idempotency-key",
    }
    return ask(service, "OPTIONS", path, origin, key="", **wanted)


def told(answer: httpx.Response) -> set[str]:
    return {name for name in answer.headers if name.startswith("access-control-")}


@pytest.mark.parametrize("origin", [APP, OTHER])
@pytest.mark.parametrize("path", sorted({path for _, path, _ in OPERATIONS.values()}))
def test_a_preflight_is_answered_without_a_key_with_what_the_contract_has(
    open_service: Service, path: str, origin: str
) -> None:
    concrete = path.format(ledger="main", account="a:b", sequence=1, api_key="k")
    answer = preflight(open_service, concrete, origin)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == origin
    has = {method.upper() for method, at, _ in OPERATIONS.values() if at == path}
    assert set(answer.headers["access-control-allow-methods"].split(", ")) == has
    takes = {name.lower() for name in answer.headers["access-control-allow-headers"].split(", ")}
    assert takes == {"authorization", "content-type", "idempotency-key", "x-request-id", "traceparent", "tracestate"}
    assert answer.headers["access-control-max-age"] == "7200"
    assert "access-control-allow-credentials" not in answer.headers
    assert "Origin" in answer.headers["vary"]
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("path", ["/v1/ledgers", "/v1/ledgers/nothing", "/nowhere", "/v1/ledgers?limit=0"])
@pytest.mark.parametrize("key", [KEY, "nobody", ""])
def test_whoever_is_named_can_read_every_answer_and_why_it_was_refused(
    open_service: Service, path: str, key: str
) -> None:
    answer = ask(open_service, "GET", path, APP, key)
    assert answer.headers["access-control-allow-origin"] == APP
    assert set(answer.headers["access-control-expose-headers"].split(", ")) == EXPOSED
    assert "Origin" in answer.headers["vary"]
    assert told(answer) == {"access-control-allow-origin", "access-control-expose-headers"}


@pytest.mark.parametrize("origin", [
    "https://evil.example", "https://app.example.com.evil.example", "http://app.example.com", "null", "*", APP.upper(),
    "https://app.example.com:8443", "https://app.example.com/", f"{APP},{OTHER}", f"{APP} {OTHER}", "https://xapp.example.com",
])  # fmt: skip
def test_whoever_is_not_named_is_told_nothing(open_service: Service, origin: str) -> None:
    asked, answer = preflight(open_service, "/v1/ledgers", origin), ask(open_service, "GET", "/v1/ledgers", origin)
    assert [405, 200] == [asked.status_code, answer.status_code]
    assert told(asked) == told(answer) == set()
    assert "Origin" in asked.headers["vary"]
    assert "Origin" in answer.headers["vary"]


def test_of_two_origins_neither_counts(open_service: Service) -> None:
    answer = httpx.get(f"{open_service.url}/healthz", headers=[("Origin", APP), ("Origin", OTHER)])
    assert told(answer) == set()


def test_an_options_that_is_no_preflight_is_refused_as_ever(open_service: Service) -> None:
    answer = ask(open_service, "OPTIONS", "/v1/ledgers", APP)
    assert (405, "GET, POST") == (answer.status_code, answer.headers["allow"])
    assert preflight(open_service, "/nowhere", APP).status_code == 404


def test_a_fault_can_be_read_too(database: str) -> None:
    with serve(database, cors_origins=APP, log_level="ERROR") as service:
        fetch_now(database, "alter table ledgers rename column name to planted")
        answer = ask(service, "GET", "/v1/ledgers", APP)
    assert (500, APP) == (answer.status_code, answer.headers["access-control-allow-origin"])


def test_without_the_setting_nothing_of_it_is_there(service: Service) -> None:
    answers = [preflight(service, "/v1/ledgers", APP), ask(service, "POST", "/v1/ledgers", APP)]
    assert [405, 415] == [answer.status_code for answer in answers]
    assert [told(answer) for answer in answers] == [set(), set()]
    assert not [answer for answer in answers if "vary" in answer.headers]


@pytest.mark.parametrize("said", [
    "*", "null", "app.example.com", "https://", f"{APP}/", f"{APP}/path", APP.upper(), "https://*.example.com",
    f"{APP}:443", "http://localhost:80", f"{APP}:0", f"{APP};{OTHER}", "https://user@app.example.com",
])  # fmt: skip
def test_what_no_browser_would_say_is_no_origin(said: str) -> None:
    with pytest.raises(ValidationError, match="CORS_ORIGINS"):
        settings_for("postgresql://nobody@localhost/none", cors_origins=said)


def test_several_origins_are_taken() -> None:
    said = f" {APP} ,,{OTHER},http://[::1]:8080,capacitor://localhost"
    settings = settings_for("postgresql://nobody@localhost/none", cors_origins=said)
    assert settings.origins() == {APP, OTHER, "http://[::1]:8080", "capacitor://localhost"}

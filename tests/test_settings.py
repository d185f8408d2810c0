"""Settings: what is taken, what is refused, and that no error shows a secret."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr, ValidationError
from pydantic.fields import FieldInfo
from sqlalchemy.engine import make_url

from app.settings import DatabaseSettings, MigrationSettings, Settings
from tests.conftest import ROOT, serve

# First what migrations share with the service, then what they alone need.
FIELDS = DatabaseSettings.model_fields | {
    name: each
    for settings in (MigrationSettings, Settings)
    for name, each in settings.model_fields.items()
    if name not in DatabaseSettings.model_fields
}
SECRET = "0123456789abcdef"
OTHER = "another-secret-0"
DATABASE = "postgresql+asyncpg://ledger:hunter2hunter2@db.internal:5433/books"
# Stands in every secret of a start that fails, and nowhere in what it prints.
CANARY = "kanari4e7c"
CANARY_DATABASE = f"postgresql+asyncpg://ledger:{CANARY}@127.0.0.1:1/books"


def settings(**values: Any) -> Settings:
    return Settings(_env_file=None, **({"database_url": DATABASE, "api_key": SECRET} | values))


def refused(**values: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        settings(**values)
    return str(caught.value)


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FIELDS:
        monkeypatch.delenv(name.upper(), raising=False)


# API_KEY


@pytest.mark.parametrize(
    ("api_key", "actors"),
    [
        (SECRET, {SECRET: "operator"}),
        (f"shop:{SECRET}", {SECRET: "shop"}),
        (f"{SECRET},shop:{OTHER}", {SECRET: "operator", OTHER: "shop"}),
        (f"shop:{SECRET},shop:{OTHER}", {SECRET: "shop", OTHER: "shop"}),
        (f"  {SECRET} ,\n shop:{OTHER}\t", {SECRET: "operator", OTHER: "shop"}),
        (f",{SECRET},,", {SECRET: "operator"}),
        (f"a.b-c_D9:{SECRET}", {SECRET: "a.b-c_D9"}),
        ("l" * 64 + f":{SECRET}", {SECRET: "l" * 64}),
        ("x" * 500, {"x" * 500: "operator"}),
        ("!#$%&'()*+-./;<=>?@[]^_`{|}~", {"!#$%&'()*+-./;<=>?@[]^_`{|}~": "operator"}),
    ],
)
def test_takes_bare_secrets_and_labelled_ones(api_key: str, actors: dict[str, str]) -> None:
    assert settings(api_key=api_key).actors() == actors


@pytest.mark.parametrize(
    ("api_key", "said"),
    [
        ("short", "the secret of key 1 is not of 16 or more"),
        (SECRET[1:], "the secret of key 1 is not of 16 or more"),
        (f"{SECRET},shop:short", "the secret of key 2 is not of 16 or more"),
        (f"shop:{SECRET[1:]}", "the secret of key 1 is not of 16 or more"),
        ("0123456789 abcdef", "the secret of key 1 is not of 16 or more"),
        ("0123456789äbcdef", "the secret of key 1 is not of 16 or more"),
        (f"shop:{SECRET}:", "the label of key 1 is not made of"),
        (f"system:{SECRET}", "key 1 has the label `system`"),
        (f"{OTHER},system:{SECRET}", "key 2 has the label `system`"),
        (f":{SECRET}", "the label of key 1 is not made of"),
        (f"a b:{SECRET}", "the label of key 1 is not made of"),
        (f"ü:{SECRET}", "the label of key 1 is not made of"),
        (f"a:b:{SECRET}", "the label of key 1 is not made of"),
        ("l" * 65 + f":{SECRET}", "the label of key 1 is not made of"),
    ],
)
def test_refuses_keys_that_are_too_weak_or_badly_named_without_showing_them(api_key: str, said: str) -> None:
    error = refused(api_key=api_key)
    assert f"API_KEY: {said}" in error
    assert [part for part in (SECRET, OTHER, SECRET[1:], "hunter2", api_key) if part in error] == []


@pytest.mark.parametrize("api_key", ["", " ", ",", " , "])
def test_refuses_to_start_without_a_key_except_for_development(api_key: str) -> None:
    assert "API_KEY is not set" in refused(api_key=api_key)
    assert "API_KEY is not set" in refused(api_key=api_key, development=False)
    assert settings(api_key=api_key, development=True).actors() == {}


def test_a_secret_shows_in_no_representation() -> None:
    shown = settings(api_key=f"shop:{SECRET}", sentry_dsn=f"https://{OTHER}@localhost/1")
    assert [part for part in (SECRET, OTHER) if part in repr(shown) + str(shown)] == []


def test_development_without_keys_lets_everybody_in_and_with_keys_nobody_else(database: str) -> None:
    with serve(database, api_key="", development=True) as service, service.client(None) as client:
        assert client.post("/v1/ledgers", json={"name": "main"}).status_code == 201
        (event,) = client.get("/v1/ledgers/main/events").json()["items"]
        assert event["actor"] == "operator"
    with serve(database, api_key=SECRET, development=True) as service:
        with service.client(None) as nobody, service.client(SECRET) as somebody:
            assert nobody.get("/v1/ledgers").status_code == 401
            assert somebody.get("/v1/ledgers").status_code == 200


def test_keys_rotate_and_events_name_whose_key_asked(database: str) -> None:
    old, new = "the-old-secret-of-shop", "the-new-secret-of-shop"
    for number, (keys, known) in enumerate(
        (
            (f"{SECRET},shop:{old}", (SECRET, old)),
            (f"{SECRET},shop:{old},shop:{new}", (SECRET, old, new)),
            (f"{SECRET},shop:{new}", (SECRET, new)),
        )
    ):
        with serve(database, api_key=keys) as service:
            for secret in (SECRET, old, new):
                with service.client(secret) as client:
                    name = f"l{number}-{secret}"
                    answer = client.post("/v1/ledgers", json={"name": name})
                    assert answer.status_code == (201 if secret in known else 401)
                    if secret in known:
                        (event,) = client.get(f"/v1/ledgers/{name}/events").json()["items"]
                        assert event["actor"] == ("operator" if secret == SECRET else "shop")


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        f"Bearer  {SECRET}",
        f"Bearer {SECRET[:-1]}",
        f"Bearer {SECRET}0",
        f"Bearer shop:{OTHER}",
        f"Bearer {SECRET},{OTHER}",
        f"Bearer {SECRET.upper()}",
        f"Basic {SECRET}",
        SECRET,
    ],
)
def test_refuses_whatever_is_not_a_known_secret(authorization: str | None, two_keys: str) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    answer = httpx.get(f"{two_keys}/v1/ledgers", headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")


@pytest.mark.parametrize("authorization", [f"Bearer {SECRET}", f"bearer {OTHER}", f"BEARER {OTHER}"])
def test_takes_a_known_secret_whatever_the_case_of_its_scheme(authorization: str, two_keys: str) -> None:
    assert httpx.get(f"{two_keys}/v1/ledgers", headers={"Authorization": authorization}).status_code == 200


@pytest.fixture(scope="module")
def two_keys(new_database: Any) -> Any:
    with serve(new_database(), api_key=f"{SECRET},shop:{OTHER}") as service:
        yield service.url


# DATABASE_URL


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (DATABASE, DATABASE),
        ("postgres://u:p@h/books", "postgresql+asyncpg://u:p@h/books"),
        ("postgresql://u:p@h:5433/books", "postgresql+asyncpg://u:p@h:5433/books"),
        ("postgresql://u@/books?host=/run/postgresql", "postgresql+asyncpg://u@/books?host=/run/postgresql"),
        ("postgres://u:p%40ss%2Fw%3Ard@h/books", "postgresql+asyncpg://u:p%40ss%2Fw%3Ard@h/books"),
        ("postgres://u:p@h/books?sslmode=require", "postgresql+asyncpg://u:p@h/books?ssl=require"),
        (
            "postgresql+asyncpg://u:p@h/books?sslmode=verify-full&host=/tmp",
            "postgresql+asyncpg://u:p@h/books?ssl=verify-full&host=/tmp",
        ),
        ("postgres://u:p@[::1]:5432/books", "postgresql+asyncpg://u:p@[::1]:5432/books"),
    ],
)
def test_takes_the_forms_in_which_hosts_give_out_addresses(given: str, taken: str) -> None:
    assert make_url(settings(database_url=given).database_url) == make_url(taken)


@pytest.mark.parametrize(
    "given",
    [
        "postgresql+psycopg://ledger:hunter2hunter2@h/books",
        "mysql://ledger:hunter2hunter2@h/books",
        "sqlite:///hunter2hunter2.db",
        "postgresql://ledger:hunter2hunter2",
        "postgresql://ledger:hunter2hunter2/books",
    ],
)
def test_refuses_other_databases_without_showing_their_address(given: str) -> None:
    error = refused(database_url=given)
    assert "DATABASE_URL must be a postgresql+asyncpg:// address" in error
    assert "hunter2" not in error


@pytest.mark.parametrize("option", ["sslmode", "ssl", "sslrootcert"])
def test_rejects_an_address_with_an_option_given_twice(option: str) -> None:
    error = refused(database_url=f"postgres://u:hunter2hunter2@h/books?{option}=require&{option}=disable")
    assert "twice" in error or "sslmode must be one of" in error
    assert "hunter2" not in error


def test_a_service_works_on_the_short_form_of_its_address(database: str) -> None:
    with serve(database.replace("postgresql+asyncpg:", "postgres:")) as service, service.client() as client:
        assert client.get("/readyz").status_code == 200


# Where settings come from.


def test_settings_come_from_the_environment_and_else_from_a_file_beside_the_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text(f"DATABASE_URL={DATABASE}\nAPI_KEY=shop:{SECRET}\nPORT=9000\nSOMEBODY_ELSES=1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PORT", "9001")
    found = Settings()
    assert (found.database_url, found.actors(), found.port) == (DATABASE, {SECRET: "shop"}, 9001)


def test_settings_never_change() -> None:
    with pytest.raises(ValidationError):
        settings().port = 1


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("port", (-1, 65536, "http")),
        ("log_level", ("debug", "TRACE", "")),
        ("log_format", ("text",)),
        ("shutdown_timeout_s", (0, 601)),
        ("read_pool_size", (0, 101)),
        ("write_pool_size", (0, 101)),
        ("pool_timeout_s", (0, 61)),
        ("database_timeout_s", (0, 61)),
        ("write_deadline_s", (0, 121)),
        ("body_timeout_s", (0, 121)),
        ("feed_waiters_max", (0, 100_001)),
        ("key_requests_per_s", (-1, 1_000_001)),
        ("key_burst", (0, 1_000_001)),
        ("address_failures_per_s", (-1, 1_000_001)),
        ("address_failure_burst", (0, 1_000_001)),
        ("trusted_proxies", ("nowhere", "10.0.0.0/33", "10.0.0.1/8", "10.0.0.1,*x")),
        ("development", ("perhaps",)),
    ],
)
def test_refuses_values_out_of_their_limits(name: str, values: tuple[Any, ...]) -> None:
    for value in values:
        assert name in refused(**{name: value})


def test_every_number_has_limits() -> None:
    """A limit on everything: no pool and no wait is unbounded."""
    numbers = [name for name, each in Settings.model_fields.items() if each.annotation in (int, float)]
    assert [name for name in numbers if len(Settings.model_fields[name].metadata) < 2] == []


# What a start that fails prints.


def start(**environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if name.lower() not in FIELDS}
    command = [sys.executable, "-m", "app"]
    return subprocess.run(
        command, cwd=ROOT, env=clean | environment, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"DATABASE_URL": CANARY_DATABASE}, "API_KEY is not set"),
        ({"DATABASE_URL": CANARY_DATABASE, "API_KEY": CANARY}, "the secret of key 1 is not of 16"),
        (
            {"DATABASE_URL": CANARY_DATABASE.replace("asyncpg", "psycopg"), "API_KEY": CANARY * 2},
            "DATABASE_URL must be",
        ),
        ({"DATABASE_URL": CANARY_DATABASE, "API_KEY": CANARY * 2, "SENTRY_DSN": f"no-dsn-{CANARY}"}, ""),
    ],
    ids=["no key", "short key", "driver", "sentry"],
)
def test_a_start_that_is_refused_says_why_and_shows_no_secret(environment: dict[str, str], said: str) -> None:
    done = start(**environment)
    assert done.returncode != 0
    assert said in done.stderr + done.stdout
    assert CANARY not in done.stderr + done.stdout


# The page of settings.


def settings_table() -> list[str]:
    """The rows of the page's table, as they follow from the class."""
    rows = ["| Variable | Default | Meaning |", "|---|---|---|"]
    for name, each in FIELDS.items():
        rows.append(f"| `{name.upper()}` | {shown_default(each)} | {each.description} |")
    return rows


def shown_default(each: FieldInfo) -> str:
    if each.is_required():
        return "required"
    default = each.default.get_secret_value() if isinstance(each.default, SecretStr) else each.default
    if default in (None, ""):
        return "none"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def test_the_page_lists_exactly_the_settings_there_are() -> None:
    lines = (ROOT / "docs" / "settings.md").read_text().splitlines()
    begin = lines.index("| Variable | Default | Meaning |")
    table = lines[begin : lines.index("", begin)]
    assert [line.strip() for line in table] == settings_table()


def test_every_setting_is_described_in_one_line() -> None:
    described = {name: each.description or "" for name, each in FIELDS.items()}
    assert [name for name, said in described.items() if not said.endswith(".") or set("\n|") & set(said)] == []

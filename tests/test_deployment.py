"""What is handed to those who run containers: the image, compose, Fly and Railway; and what these do at a deploy."""

import asyncio
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml
from sqlalchemy.engine import make_url

from app.settings import Settings
from scripts.postgres import Postgres
from scripts.replace import migrate_ahead
from tests.books import check_invariants, fetch_now, post, transaction
from tests.conftest import KEY, ROOT, SERVICE_ROLE, Service, free_port, is_up, wait_until
from tests.test_feed import client_of, prepare
from tests.test_refusals import holding

DOCKERFILE = (ROOT / "Dockerfile").read_text()
FLY = tomllib.loads((ROOT / "fly.toml").read_text())
RAILWAY = json.loads((ROOT / "railway.json").read_text())
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
# The last stage of the Dockerfile: what is in the image.
IMAGE = DOCKERFILE.rpartition("\nFROM ")[2].replace("\\\n", " ").splitlines()


def instruction(name: str) -> str:
    (found,) = (line.split(" ", 1)[1] for line in IMAGE if line.startswith(f"{name} "))
    return found


def default(setting: str) -> float:
    return Settings.model_fields[setting].default


# What is written down.


def test_the_linter_of_dockerfiles_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stdout)


def test_the_image_is_small_and_nobodys() -> None:
    """Built in another stage from what is locked; run by a user who has a number and owns nothing."""
    assert DOCKERFILE.count("\nFROM ") == 3
    assert "uv sync --locked --no-default-groups" in DOCKERFILE
    assert not [line for line in IMAGE if "apt" in line or "uv " in line]
    user, group = instruction("USER").split(":")
    assert int(user) > 0 < int(group)
    assert ["python", "-m", "app"] == json.loads(instruction("CMD")), "as process 1, without a shell before it"
    assert "/readyz" in DOCKERFILE.partition("HEALTHCHECK")[2]
    assert "SIGTERM" == instruction("STOPSIGNAL")
    assert "/srv/sbom.cdx.json" in DOCKERFILE
    assert not DOCKERFILE.startswith("# syntax")


def test_what_is_copied_into_an_image_is_named() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line.removeprefix("!") for line in lines if line.startswith("!")}
    assert "*" == next(line for line in lines if not line.startswith("#"))
    served = {"docs", "README.md", "CHANGELOG.md"}  # as the site at /docs
    assert served | {"alembic", "alembic.ini", "app", "generated", "openapi.yaml", "pyproject.toml", "uv.lock"} == kept


@pytest.mark.parametrize("service", ["api", "migrate"])
def test_compose_lets_the_service_do_nothing_but_serve(service: str) -> None:
    said = COMPOSE["services"][service]
    assert said["read_only"]
    assert ["ALL"] == said["cap_drop"]
    assert ["no-new-privileges:true"] == said["security_opt"]


def test_each_waits_longer_for_a_stop_than_it_can_take() -> None:
    longest = default("shutdown_timeout_s")
    assert default("drain_s") < longest
    assert int(COMPOSE["services"]["api"]["stop_grace_period"].removesuffix("s")) > longest
    assert int(FLY["kill_timeout"].removesuffix("s")) > longest
    assert RAILWAY["deploy"]["drainingSeconds"] > longest


def test_each_migrates_first_and_asks_for_readiness() -> None:
    assert ["alembic", "upgrade", "head"] == COMPOSE["services"]["migrate"]["command"]
    assert {"migrate": {"condition": "service_completed_successfully"}} == COMPOSE["services"]["api"]["depends_on"]
    assert "alembic upgrade head" == FLY["deploy"]["release_command"]
    assert ["/readyz"] == [each["path"] for each in FLY["http_service"]["checks"]]
    assert ["alembic upgrade head"] == RAILWAY["deploy"]["preDeployCommand"]
    assert "/readyz" == RAILWAY["deploy"]["healthcheckPath"]
    assert FLY["env"]["PORT"] == str(FLY["http_service"]["internal_port"])


def test_compose_migrates_as_one_role_and_serves_as_another_that_it_makes() -> None:
    migrating, serving = (COMPOSE["services"][name]["environment"] for name in ("migrate", "api"))
    service = make_url(serving["DATABASE_URL"])
    assert serving["DATABASE_URL"] == migrating["DATABASE_URL"], "whom the migrations grant what it needs"
    assert make_url(migrating["MIGRATION_DATABASE_URL"]).username != service.username
    assert "MIGRATION_DATABASE_URL" not in serving
    (script,) = [each for each in COMPOSE["services"]["db"]["volumes"] if "initdb" in each]
    made = (ROOT / script.partition(":")[0]).read_text()
    assert f"create role {service.username} login password '{service.password}';" in made


# What they do.


@dataclass(frozen=True)
class Platform:
    """Its variables, the form of its addresses, and how it ends a process."""

    release: str
    variables: dict[str, str]
    query: str
    signum: signal.Signals
    kill_s: float


PLATFORMS = {
    "Fly": Platform(
        FLY["deploy"]["release_command"],
        FLY["env"] | {"FLY_APP_NAME": "tallystick", "FLY_REGION": "fra", "FLY_MACHINE_ID": "e2865013c02d86"},
        "sslmode=disable",
        signal.Signals[FLY["kill_signal"]],
        int(FLY["kill_timeout"].removesuffix("s")),
    ),
    "Railway": Platform(
        RAILWAY["deploy"]["preDeployCommand"][0],
        {"RAILWAY_ENVIRONMENT_NAME": "production", "RAILWAY_SERVICE_NAME": "tallystick", "RAILWAY_REPLICA_ID": "1"},
        "sslmode=prefer&channel_binding=prefer",
        signal.SIGTERM,
        RAILWAY["deploy"]["drainingSeconds"],
    ),
}


class Deploy:
    """A platform with an empty database, deploying one version after another."""

    def __init__(self, platform: Platform, database: str, folder: Path) -> None:
        self.platform = platform
        socket = make_url(database)
        where = f"@/{socket.database}?host={socket.query['host']}&{platform.query}"
        addresses = {"MIGRATION_DATABASE_URL": f"postgres://{socket.username}{where}"}
        addresses["DATABASE_URL"] = f"postgres://{SERVICE_ROLE}{where}"
        self._log = folder / "log"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
        self.environment |= platform.variables | addresses | {"API_KEY": KEY, "DRAIN_S": "1"}
        self.environment |= {"ALLOW_UNSAFE_DATABASE": "true", "LOG_LEVEL": "WARNING"}

    def release(self) -> None:
        command = [sys.executable, "-m", *shlex.split(self.platform.release)]
        subprocess.run(command, cwd=ROOT, env=self.environment, check=True)

    @contextmanager
    def machine(self) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
        port = free_port()
        command = [sys.executable, *json.loads(instruction("CMD"))[1:]]
        with self._log.open("ab") as log:
            process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment | {"PORT": str(port)}, stdout=log, stderr=log
            )
        try:
            wait_until(lambda: is_up(f"http://127.0.0.1:{port}"), seconds_max=60)
            yield f"http://127.0.0.1:{port}", process
        finally:
            process.kill()
            process.wait()

    def end(self, process: subprocess.Popen[bytes]) -> None:
        """The platform's signal, and its kill after its time; which must not be needed."""
        process.send_signal(self.platform.signum)
        assert 0 == process.wait(timeout=self.platform.kill_s)


@pytest.mark.usefixtures("template")  # with which the service's role is made
@pytest.mark.parametrize("name", PLATFORMS)
def test_a_deploy_loses_nothing(name: str, postgres: Postgres, tmp_path: Path) -> None:
    """The first version from an empty database; then the next beside it, whose release step has migrated ahead."""
    postgres.create_database(f"deployed to {name}")
    database = postgres.url(f"deployed to {name}")
    deploy = Deploy(PLATFORMS[name], database, tmp_path)
    deploy.release()
    with ExitStack() as stack, ThreadPoolExecutor(2) as threads:
        old_url, old = stack.enter_context(deploy.machine())
        old_client = stack.enter_context(client_of(old_url))
        prepare(old_client)
        asyncio.run(migrate_ahead(database, tmp_path))
        new_url, _ = stack.enter_context(deploy.machine())
        new_client = stack.enter_context(client_of(new_url))
        for client in (old_client, new_client):
            ready = client.get("/readyz")
            assert 200 == ready.status_code, "side by side, on either side of the migration"
            assert "role_unrestricted" not in ready.json()["warnings"]
            assert 201 == post(client, "main", transaction("a", "b")).status_code
        with holding(database, "lock table events in share mode") as wait_for:
            in_flight = threads.submit(post, old_client, "main", transaction("a", "b"))
            wait_for(1)
            ended = threads.submit(deploy.end, old)
            time.sleep(3)
        assert 201 == in_flight.result().status_code
        ended.result()
        assert 3 + 3 == new_client.get("/v1/ledgers/main").json()["sequence"]
        with pytest.raises(httpx.TransportError):
            old_client.get("/healthz")
        asyncio.run(check_invariants(database))
    assert 6 == fetch_now(database, "select count(*) from events")[0][0]


@pytest.mark.parametrize("page", ["fly.md", "railway.md"])
def test_the_last_step_of_each_page_posts_a_transaction(page: str, service: Service) -> None:
    said = (ROOT / "docs" / page).read_text().partition("## 4.")[2]
    (commands,) = re.findall(r"```sh\n(.*?)```", said, re.DOTALL)
    commands = re.sub(r"^url=.*$", f"url={service.url} key={service.key}", commands, flags=re.MULTILINE)
    commands = commands.replace("main", page.partition(".")[0])
    done = subprocess.run(["bash", "-euc", commands], capture_output=True, text=True, check=False, timeout=60)
    answers = [json.loads(line) for line in re.sub(r"\}\{", "}\n{", done.stdout).splitlines()]
    assert ["ok", 1, 2, 3, 4] == [
        answer.get("status") if not n else answer["sequence"] for n, answer in enumerate(answers)
    ]


def test_processes_are_replaced_under_load_without_a_failed_request() -> None:
    """A short run of the campaign, behind HAProxy where there is one: two replacements, and a migration between."""
    command = [sys.executable, "-m", "scripts.replace", "--times", "2", "--rate", "30", "--drain", "2", "--unsafe"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)
    assert 0 == done.returncode, done.stdout + done.stderr

"""A throwaway real Postgres for the session, a migrated database copied for whoever needs a fresh one, and the
service on it: in process on a clock that the tests own, or as processes of its own."""

import asyncio
import contextlib
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import make_url

from app.main import create_app
from app.server import Server, configure_server
from app.settings import Settings
from scripts.answers import documented, find_faults
from scripts.postgres import Postgres
from tests.books import connect
from tests.conformance import ANSWERED, check_answer

ROOT = Path(__file__).parents[1]
KEY = "a-secret-of-the-tests"
SECOND_KEY = "another-secret-of-the-tests"
# The role that the service works as. The addresses that tests hold are the owner's.
SERVICE_ROLE = "tallystick_service"


# Whether every test was chosen, and what is to be said of the answers when they are over.
WHOLE = pytest.StashKey[bool]()
VERDICT = pytest.StashKey[list[str]]()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    chosen = any(config.getoption(name, None) for name in ("keyword", "markexpr", "deselect", "lf"))
    config.stash[WHOLE] = not chosen and {item.path for item in items} == set((ROOT / "tests").glob("test_*.py"))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """What a process of pytest-xdist was answered counts here."""
    said = getattr(node, "workeroutput", {})
    ANSWERED.merge(said.get("answers", []))
    node.config.stash[WHOLE] = said.get("whole", False)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail a whole run in which one of the contract's answers was given to no test."""
    config, whole = session.config, session.config.stash.get(WHOLE, False)
    if hasattr(config, "workeroutput"):
        config.workeroutput |= {"answers": ANSWERED.rows(), "whole": whole}
        return
    if file := os.environ.get("TALLYSTICK_ANSWERS"):
        ANSWERED.write(Path(file), by="tests")
    if not whole or exitstatus:
        why = "a test failed" if whole else "this is not a whole run"
        config.stash[VERDICT] = [f"Whether every documented answer was given was not looked at: {why}."]
        return
    faults = find_faults(ANSWERED.counts)
    config.stash[VERDICT] = faults or [f"Each of the {len(documented())} documented answers was given."]
    session.exitstatus = pytest.ExitCode.TESTS_FAILED if faults else pytest.ExitCode.OK


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in terminalreporter.config.stash.get(VERDICT, []):
        terminalreporter.line(line)


class MovedClock:
    """The time of this machine, moved by so many seconds."""

    def __init__(self, ahead_s: float = 0.0) -> None:
        self.ahead_s = ahead_s

    def __call__(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.ahead_s)


class Clock:
    """The service's clock, in the hands of a test."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class Service:
    """The service in a thread of this process, behind a real socket."""

    url: str
    database: str
    clock: Clock = field(default_factory=Clock)
    key: str = KEY
    server: Server | None = None

    def has_forgotten(self, port: int) -> bool:
        """Whether nothing is left of the connection from this port, and of no request at all."""
        assert self.server is not None
        state = self.server.server_state
        return not state.tasks and port not in [connection.client[1] for connection in list(state.connections)]

    def client(self, key: str | None = KEY) -> httpx.Client:
        """A client whose every answer is held against the contract."""
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=30, event_hooks={"response": [check_answer]})


@dataclass
class Processes:
    urls: list[str]
    database: str
    key: str = KEY
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    logs: list[Path] = field(default_factory=list)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    memory = Path("/dev/shm")  # where there is one, a database is copied in a tenth of the time
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        with Postgres(Path(folder) / "postgres", durable=False) as server:
            yield server


@pytest.fixture(scope="session")
def template(postgres: Postgres) -> str:
    """The name of a database made by the real migrations, which grant the service's role what it needs."""
    postgres.create_database("template")
    migrate(postgres.url("template"))
    return "template"


@pytest.fixture(scope="session")
def new_database(request: pytest.FixtureRequest) -> Callable[[], str]:
    if request.config.getoption("citus", None):
        return request.getfixturevalue("citus_cluster").copy_template
    postgres, template = (request.getfixturevalue(name) for name in ("postgres", "template"))
    numbers = itertools.count(1)

    def create() -> str:
        name = f"test_{next(numbers)}"
        postgres.create_database(name, template=template)
        return postgres.url(name)

    return create


@pytest.fixture
def database(new_database: Callable[[], str], request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a fresh database."""
    cluster = request.getfixturevalue("citus_cluster") if request.config.getoption("citus", None) else None
    address = new_database()
    yield address
    if cluster is not None:  # elsewhere they go with their server
        cluster.drop(address)


@pytest.fixture(scope="session")
def service(new_database: Callable[[], str]) -> Iterator[Service]:
    with serve(new_database()) as running:
        yield running


@pytest.fixture
def client(service: Service) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client


@pytest.fixture
def ledger(client: httpx.Client) -> str:
    """The name of a fresh ledger on the shared service."""
    name = f"l{uuid.uuid4().hex[:12]}"
    assert client.post("/v1/ledgers", json={"name": name}).status_code == 201
    return name


@pytest.fixture
def two_processes(database: str, tmp_path: Path) -> Iterator[Processes]:
    with start_processes(database, 2, tmp_path) as running:
        yield running


def settings_for(database: str, **changes: object) -> Settings:
    api_key = f"{KEY},second:{SECOND_KEY}"
    values = {"database_url": as_service(database), "api_key": api_key, "log_level": "WARNING", "body_timeout_s": 2.0}
    values |= {"drain_s": 0, "allow_unsafe_database": True}  # the throwaway server has fsync off
    values["clock_skew_max_s"] = 1e9  # the service's clock belongs to the tests
    values["address_failures_per_s"] = 0  # or the tests of refusals would meet it
    return Settings(_env_file=None, **(values | changes))


@contextlib.contextmanager
def serve(database: str, *, clock: MovedClock | None = None, **changes: object) -> Iterator[Service]:
    """The service in a thread, on a clock of its own, until the block ends."""
    service = Service("", database)
    settings = settings_for(database, shutdown_timeout_s=5, **changes)
    server = Server(configure_server(create_app(settings, clock or service.clock), settings, port=0))
    service.server = server
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    service.url = f"http://127.0.0.1:{port}"
    try:
        yield service
    finally:
        server.should_exit = True
        thread.join(timeout=20)


@contextlib.contextmanager
def start_processes(database: str, count: int, folder: Path, **environment: str) -> Iterator[Processes]:
    """The service as processes of its own on one database, stopped by their own ids at the end."""
    running = Processes([], database)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    try:
        for number in range(count):
            port = free_port()
            log = folder / f"process-{number}.log"
            variables = {
                "DATABASE_URL": as_service(database),
                "API_KEY": KEY,
                "PORT": str(port),
                "LOG_LEVEL": "WARNING",
            }
            variables |= {"DRAIN_S": "0", "ALLOW_UNSAFE_DATABASE": "true"}  # the throwaway server has fsync off
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", "app"], cwd=ROOT, env=clean | variables | environment,
                    stdout=output, stderr=subprocess.STDOUT,
                )  # fmt: skip
            running.processes.append(process)
            running.logs.append(log)
            running.urls.append(f"http://127.0.0.1:{port}")
        for url in running.urls:
            wait_until(lambda url=url: is_up(url), seconds_max=120)  # a busy machine takes its time
        yield running
    finally:
        for process in running.processes:
            process.terminate()
        for process in running.processes:
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        # Shown beside the failure of a test: what the processes themselves say went wrong.
        for log in running.logs:
            print(*(line for line in log.read_text().splitlines() if '"level": "error"' in line), sep="\n")


def migrate(database: str) -> None:
    asyncio.run(make_role(database))
    config = Config(ROOT / "alembic.ini")
    config.attributes |= {"database_url": database, "service_role": SERVICE_ROLE}
    command.upgrade(config, "head")


async def make_role(database: str) -> None:
    """Have the service's role on this server, where it is not there yet."""
    owner = await connect(database)
    if not await owner.fetchval("select count(*) from pg_roles where rolname = $1", SERVICE_ROLE):
        await owner.execute(f"create role {SERVICE_ROLE} login")
    await owner.close()


def as_service(database: str) -> str:
    """The address of the same database for the role that may do only what the service does."""
    return make_url(database).set(username=SERVICE_ROLE).render_as_string(hide_password=False)


def is_up(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(true: Callable[[], bool], *, seconds_max: float = 30) -> None:
    deadline = time.monotonic() + seconds_max
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)

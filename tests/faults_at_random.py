"""Two processes of the service on a Postgres of their own, and the faults that a seed has happen to them.

Every fault is bounded: what was stopped goes on, what was killed is started again, and what was locked is released.
"""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from sqlalchemy.engine import make_url

from scripts.postgres import Postgres
from tests.books import connect
from tests.conftest import KEY, ROOT, SERVICE_ROLE, free_port, migrate
from tests.unreliable_network import UnreliableNetwork

DATABASE = "books"
READY_SECONDS_MAX = 120
EXIT_SECONDS_MAX = 60
TRIES_MAX = 500
CALM_SECONDS_MAX = 5
# Shorter than the longest faults, so that callers meet every answer that the service has for trouble.
DEADLINES = {"WRITE_DEADLINE_S": "2.5", "DATABASE_TIMEOUT_S": "2", "POOL_TIMEOUT_S": "1"}


@dataclass
class Process:
    """One process of the service, on the same port whenever it is started again."""

    environment: dict[str, str]
    log: Path
    port: int = field(default_factory=free_port)
    running: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self.running is not None
        return self.running.pid

    async def start(self) -> None:
        """Return when it is ready."""
        with self.log.open("ab") as output:
            self.running = subprocess.Popen(
                [sys.executable, "-m", "app"], cwd=ROOT, env=self.environment | {"PORT": str(self.port)},
                stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        deadline = time.monotonic() + READY_SECONDS_MAX
        async with httpx.AsyncClient(timeout=5) as client:
            while not await self._is_ready(client):
                assert self.running.poll() is None, "the service ended as it started"
                assert time.monotonic() < deadline, f"the service was not ready in {READY_SECONDS_MAX} s"
                await asyncio.sleep(0.05)

    async def _is_ready(self, client: httpx.AsyncClient) -> bool:
        try:
            return (await client.get(f"{self.url}/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    async def end(self, signum: signal.Signals) -> None:
        """Return when it has exited; it is killed if a signal to stop does not end it."""
        if self.running is None or self.running.poll() is not None:
            return
        self.running.send_signal(signum)
        try:
            await asyncio.to_thread(self.running.wait, EXIT_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.running.kill()
            await asyncio.to_thread(self.running.wait)
            raise


@dataclass
class Deployment:
    """The service in two processes, each behind an unreliable network of its own, and Postgres."""

    folder: Path
    postgres: Postgres
    processes: list[Process]
    networks: list[UnreliableNetwork]

    @property
    def database(self) -> str:
        """The address of the database itself, as its owner."""
        return self.postgres.url(DATABASE)

    def find_errors(self) -> list[str]:
        """What the processes logged as an error: nothing that a database does or a client sends is one."""
        logs = [process.log.read_text(errors="replace") for process in self.processes]
        return [line for log in logs for line in log.splitlines() if '"level": "error"' in line]


@contextlib.asynccontextmanager
async def deploy(folder: Path, *, fsync: bool) -> AsyncIterator[Deployment]:
    """Start everything in this folder, and stop it at the end."""
    settings = {} if fsync else {"fsync": "off", "full_page_writes": "off"}
    postgres = Postgres(folder / "postgres", settings=settings)
    await asyncio.to_thread(postgres.start)
    try:
        await asyncio.to_thread(postgres.create_database, DATABASE)
        await asyncio.to_thread(migrate, postgres.url(DATABASE))
        async with contextlib.AsyncExitStack() as stack:

            def find_socket() -> str:
                try:
                    return f"{make_url(postgres.url(DATABASE)).query['host']}/.s.PGSQL.5432"
                except AssertionError as stopped:
                    raise ConnectionRefusedError("Postgres is stopped") from stopped

            networks = [await stack.enter_async_context(UnreliableNetwork(find_socket)) for _ in range(2)]
            clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
            processes = []
            for number, network in enumerate(networks):
                address = f"postgresql+asyncpg://{SERVICE_ROLE}@127.0.0.1:{network.port}/{DATABASE}?ssl=disable"
                variables = {"DATABASE_URL": address, "API_KEY": KEY, "LOG_LEVEL": "WARNING", "LOG_FORMAT": "json"}
                variables |= {"DRAIN_S": "0", **DEADLINES} | ({} if fsync else {"ALLOW_UNSAFE_DATABASE": "true"})
                processes.append(Process(clean | variables, folder / f"process-{number}.log"))
            try:
                await asyncio.gather(*(process.start() for process in processes))
                yield Deployment(folder, postgres, processes, networks)
            finally:
                for process in processes:
                    if process.running is not None and process.running.poll() is None:
                        process.running.send_signal(signal.SIGCONT)
                await asyncio.gather(*(process.end(signal.SIGTERM) for process in processes))
    finally:
        await asyncio.to_thread(postgres.stop)


class Faults:
    """What a seed has happen to a deployment, one fault after the other, in two lanes at once: one for connections and
    locks, one for processes and for Postgres itself."""

    def __init__(self, deployment: Deployment, seed: int, progress: Callable[[], int], *, apart: int) -> None:
        """`progress` counts what callers have done, of which so much lies between two faults at most."""
        self.deployment = deployment
        self.counts: Counter[str] = Counter()
        self._seed = seed
        self._progress = progress
        self._apart = apart
        small: dict[str, Callable[[random.Random], Awaitable[None]]] = {
            "connection cut": self._cut_a_connection,
            "connection silent": self._silence_a_connection,
            "backends killed": self._kill_backends,
            "backend stopped": self._stop_a_backend,
            "head locked": self._lock_the_head,
        }
        large: dict[str, Callable[[random.Random], Awaitable[None]]] = {
            "process stopped": self._stop_a_process,
            "process killed": self._kill_a_process,
            "process replaced": self._replace_a_process,
            "Postgres restarted": self._restart_postgres,
            "Postgres crashed": self._crash_postgres,
        }
        self.lanes = (small, large)

    async def inject(self, times: int) -> None:
        """Have every large fault happen so many times, and every small one twice as often, in the order of the seed."""
        await asyncio.gather(*(self._inject(lane, times * (2, 1)[n], n) for n, lane in enumerate(self.lanes)))

    async def _inject(
        self, lane: dict[str, Callable[[random.Random], Awaitable[None]]], times: int, number: int
    ) -> None:
        chance = random.Random(f"{self._seed}-{number}")
        order = [name for _ in range(times) for name in chance.sample([*lane], len(lane))]
        for name in order:
            await self._let_callers_work(chance.randint(5, self._apart))
            await self._have_it_happen(name, lane[name], chance)

    async def _have_it_happen(
        self, name: str, fault: Callable[[random.Random], Awaitable[None]], chance: random.Random
    ) -> None:
        """Try until it has happened: Postgres may be away because of another fault, or the backend gone."""
        for _ in range(TRIES_MAX):
            try:
                await fault(chance)
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await asyncio.sleep(0.2)
            else:
                self.counts[name] += 1
                return
        raise AssertionError(f"{name}: not possible in {TRIES_MAX} tries")

    async def _let_callers_work(self, operations: int) -> None:
        """Wait until so much has been answered, or for a while: everything may stand still because of a fault."""
        until = self._progress() + operations
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CALM_SECONDS_MAX):
                while self._progress() < until:
                    await asyncio.sleep(0.02)

    # Connections and locks

    async def _cut_a_connection(self, chance: random.Random) -> None:
        if not chance.choice(self.deployment.networks).cut(chance):
            raise OSError("no connection is open")

    async def _silence_a_connection(self, chance: random.Random) -> None:
        if not chance.choice(self.deployment.networks).silence(chance, chance.uniform(0.2, 4.0)):
            raise OSError("no connection is open")

    async def _kill_backends(self, chance: random.Random) -> None:
        one_process_only = chance.random() < 0.5
        query = "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and "
        async with self._connection() as connection:
            if one_process_only:
                await connection.execute(
                    f"{query} pid = (select pid from pg_stat_activity where application_name = 'tallystick-writer'"
                    " order by state_change desc limit 1)"
                )
            else:
                await connection.execute(f"{query} application_name like 'tallystick-%'")

    async def _stop_a_backend(self, chance: random.Random) -> None:
        """A backend of a writer falls silent, wherever it is, with all that it has locked."""
        seconds = chance.uniform(0.2, 2.5)
        async with self._connection() as connection:
            pid = await connection.fetchval(
                "select pid from pg_stat_activity where application_name = 'tallystick-writer'"
                " order by state_change desc limit 1"
            )
        if pid is None:
            raise OSError("no writer is connected")
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    async def _lock_the_head(self, chance: random.Random) -> None:
        seconds = chance.uniform(0.1, 3.0)
        async with self._connection() as connection, connection.transaction():
            await connection.execute("select 1 from heads for update")
            await asyncio.sleep(seconds)

    # Processes and Postgres

    async def _stop_a_process(self, chance: random.Random) -> None:
        process, seconds = chance.choice(self.deployment.processes), chance.uniform(0.2, 4.0)
        os.kill(process.pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            os.kill(process.pid, signal.SIGCONT)

    async def _kill_a_process(self, chance: random.Random) -> None:
        process = chance.choice(self.deployment.processes)
        await process.end(signal.SIGKILL)
        await process.start()

    async def _replace_a_process(self, chance: random.Random) -> None:
        process = chance.choice(self.deployment.processes)
        await process.end(signal.SIGTERM)
        await process.start()

    async def _restart_postgres(self, chance: random.Random) -> None:
        await self._stop_and_start(chance.choice([0.0, chance.uniform(0.0, 1.0), chance.uniform(2.0, 5.0)]))

    async def _crash_postgres(self, chance: random.Random) -> None:
        """An immediate shutdown: every backend is gone at once, and the next start recovers from the WAL."""
        pid_file = self.deployment.folder / "postgres" / "data" / "postmaster.pid"
        os.kill(int(pid_file.read_text().split("\n", 1)[0]), signal.SIGQUIT)
        await self._stop_and_start(chance.choice([0.0, chance.uniform(0.0, 1.0)]))

    async def _stop_and_start(self, pause_s: float) -> None:
        await asyncio.to_thread(self.deployment.postgres.stop)
        try:
            await asyncio.sleep(pause_s)
        finally:
            await asyncio.to_thread(self.deployment.postgres.start)

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        try:
            async with asyncio.timeout(5):
                connection = await connect(self.deployment.database)
        except (AssertionError, TimeoutError) as error:  # Postgres is stopped, and has no address then
            raise OSError("Postgres is away") from error
        try:
            yield connection
        finally:
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                await connection.close(timeout=2)

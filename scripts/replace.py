"""Two processes under load are replaced one after the other, and nobody notices: `scripts/replace`.

A Postgres of its own with fsync on, two processes of the service behind HAProxy, and callers at 70 % of what that was
found to do. Each replacement starts a new process beside the two, waits until it is ready, and sends SIGTERM to the
oldest; HAProxy learns of both from /readyz and repeats nothing. Half way the release step adds a nullable column to
the tables of the log, while everybody posts. At the end every acknowledged post has to be in the log exactly once,
where its answer said, and the books are verified. Exits with 1 if a single request failed.

Without HAProxy (`apt-get install haproxy`), or with --no-proxy, the callers look at /readyz themselves.
"""

import argparse
import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import uvloop
from alembic import command
from alembic.config import Config

from app.readiness import MIGRATION_HEAD
from scripts.postgres import Postgres
from scripts.traffic import Traffic, count_failures, describe, find_faults, open_books, until_ready

ROOT = Path(__file__).parents[1]
KEY = "a-secret-of-the-replacement"
CALLERS = 32
EACH = 10  # after so many replacements it measures, and says how it goes
SLOTS = 3  # two that serve, and one for the next
LOOK_SECONDS = 0.2
TABLES = ("events", "entries", "accounts", "idempotency_keys", "heads")

HAPROXY = """
global
    maxconn 4000
defaults
    mode http
    retries 0
    timeout connect 5s
    timeout client 60s
    timeout server 60s
    timeout check 5s
listen ledger
    bind 127.0.0.1:{port}
    balance roundrobin
    option httpchk GET /readyz
    http-check expect status 200
    default-server check inter {inter_ms}ms fall 1 rise 1
"""

MIGRATION = """
import sqlalchemy as sa
from alembic import op

revision = "{revision}"
down_revision = "{head}"


def upgrade() -> None:
    for table in {tables!r}:
        op.add_column(table, sa.Column("of_the_campaign", sa.Text()))
"""


@dataclass
class Process:
    port: int
    popen: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@dataclass
class Fleet:
    """The processes that serve, oldest first, and the ports for them."""

    database: str
    folder: Path
    drain_s: float
    allow_unsafe: bool
    ports: list[int] = field(default_factory=list)
    serving: list[Process] = field(default_factory=list)
    started: int = 0
    stops: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    async def start(self) -> Process:
        taken = {process.port for process in self.serving}
        port = next(port for port in self.ports if port not in taken)
        self.started += 1
        environment = os.environ | {
            "DATABASE_URL": self.database,
            "API_KEY": KEY,
            "PORT": str(port),
            "LOG_LEVEL": "WARNING",
            "LOG_FORMAT": "json",
            "DRAIN_S": str(self.drain_s),
            "ALLOW_UNSAFE_DATABASE": str(self.allow_unsafe).lower(),
        }
        with (self.folder / "service.log").open("ab") as log:
            popen = subprocess.Popen([sys.executable, "-m", "app"], cwd=ROOT, env=environment, stdout=log, stderr=log)
        process = Process(port, popen)
        try:
            await until_ready(process.url)
        except RuntimeError:
            popen.kill()
            raise
        self.serving.append(process)
        return process

    async def stop(self, process: Process) -> None:
        began = time.perf_counter()
        process.popen.send_signal(signal.SIGTERM)
        while (status := process.popen.poll()) is None and time.perf_counter() - began < 60:
            await asyncio.sleep(0.02)
        self.stops.append(time.perf_counter() - began)
        if status != 0:
            self.faults.append(f"a process ended with {status}")
        self.serving.remove(process)

    def kill(self) -> None:
        for process in self.serving:
            if process.popen.poll() is None:
                process.popen.terminate()
        for process in self.serving:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.popen.wait(30)


class Balancer:
    """What a proxy does, for where there is none: it looks who is ready, and takes them in turns."""

    def __init__(self, ports: list[int]) -> None:
        self._urls = [f"http://127.0.0.1:{port}" for port in ports]
        self._ready: list[str] = []
        self._turn = 0

    async def keep_looking(self) -> None:
        async with httpx.AsyncClient(timeout=5) as client:
            while True:  # until it is cancelled
                found = await asyncio.gather(*(self._is_ready(client, url) for url in self._urls))
                self._ready = [url for url, ready in zip(self._urls, found, strict=True) if ready]
                await asyncio.sleep(LOOK_SECONDS)

    async def _is_ready(self, client: httpx.AsyncClient, url: str) -> bool:
        try:
            return (await client.get(f"{url}/readyz")).status_code == 200
        except httpx.TransportError:
            return False

    def __call__(self) -> str:
        self._turn += 1
        return self._ready[self._turn % len(self._ready)]


@contextlib.contextmanager
def haproxy(program: str, port: int, ports: list[int], folder: Path) -> Iterator[None]:
    configuration = HAPROXY.format(port=port, inter_ms=int(LOOK_SECONDS * 1000))
    configuration += "".join(f"    server s{n} 127.0.0.1:{each}\n" for n, each in enumerate(ports))
    (folder / "haproxy.cfg").write_text(configuration)
    with (folder / "haproxy.log").open("wb") as log:
        process = subprocess.Popen([program, "-db", "-f", folder / "haproxy.cfg"], stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(10)


async def migrate_ahead(database: str, folder: Path) -> None:
    """The release step of a version that is not out yet: it adds a nullable column to the tables of the log."""
    scripts = folder / "alembic"
    shutil.copytree(ROOT / "alembic", scripts)
    revision = f"{int(MIGRATION_HEAD) + 1:04}"
    migration = MIGRATION.format(revision=revision, head=MIGRATION_HEAD, tables=TABLES)
    (scripts / "versions" / f"{revision}_of_the_campaign.py").write_text(migration)
    (folder / "alembic.ini").write_text(
        f"[alembic]\nscript_location = {scripts}\nprepend_sys_path = {ROOT}\npath_separator = os\n"
    )
    step = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "alembic", "-c", str(folder / "alembic.ini"), "upgrade", "head",
        cwd=ROOT, env=os.environ | {"DATABASE_URL": database},
    )  # fmt: skip
    if await step.wait() != 0:
        raise RuntimeError("the release step failed")


async def run(arguments: argparse.Namespace, database: str, folder: Path) -> list[str]:
    program = None if arguments.no_proxy else shutil.which("haproxy") or shutil.which("/usr/sbin/haproxy")
    port, *ports = free_ports(1 + SLOTS)
    fleet = Fleet(database, folder, arguments.drain, arguments.unsafe, ports)
    balancer = Balancer(ports)
    with contextlib.ExitStack() as stack:
        stack.callback(fleet.kill)
        if program:
            stack.enter_context(haproxy(program, port, ports, folder))
        where = (lambda: f"http://127.0.0.1:{port}") if program else balancer
        looking = asyncio.create_task(balancer.keep_looking())
        for _ in range(2):
            await fleet.start()
        await asyncio.sleep(4 * LOOK_SECONDS)
        async with httpx.AsyncClient(
            base_url=fleet.serving[0].url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60
        ) as client:
            await open_books(client)
        traffic = Traffic(where, KEY)
        print(f"two processes{' behind HAProxy' if program else ', chosen by the callers'}", flush=True)
        if not arguments.rate:
            await traffic.post_from(CALLERS, seconds=arguments.measure)  # until plans and caches are warm
        began, number, done, posting = time.perf_counter(), 0, asyncio.Event(), None
        try:
            for number in range(1, arguments.times + 1):
                if number % EACH == 1:
                    if posting:
                        done.set()
                        await posting
                        done.clear()
                    # The machine may be shared, so what can be done is measured anew.
                    found = arguments.rate / 0.7 or await traffic.post_from(CALLERS, seconds=arguments.measure)
                    measured = len(traffic.answers)
                    posting = asyncio.create_task(traffic.post_at(0.7 * found, until=done.is_set))
                await fleet.start()
                await asyncio.sleep(3 * LOOK_SECONDS)  # the proxy has to know the new one before the old one goes
                await fleet.stop(fleet.serving[0])
                if number == (arguments.times + 1) // 2:
                    before = len(traffic.answers)
                    stepped = time.perf_counter()
                    await migrate_ahead(database, folder)
                    print(
                        f"a nullable column in {len(TABLES)} tables: {time.perf_counter() - stepped:.1f} s, "
                        f"{len(traffic.answers) - before} posts meanwhile"
                    )
                if number % EACH == 0 or number == arguments.times:
                    lately = traffic.answers[measured:]
                    print(
                        f"{number} replaced after {time.perf_counter() - began:.0f} s, at {0.7 * found:.0f} of "
                        f"{found:.0f}/s: posted {describe(lately)}; failed: {dict(count_failures(lately)) or 'none'}",
                        flush=True,
                    )
        finally:
            done.set()
            if posting:
                await posting
            looking.cancel()
        print(f"{sum(answer.status == 201 for answer in traffic.answers)} posts in all")
        stops = sorted(fleet.stops)
        print(f"stops took {stops[0]:.1f} to {stops[-1]:.1f} s, {arguments.drain} s of each by DRAIN_S")
        faults = fleet.faults + [f"{count} x {what}" for what, count in count_failures(traffic.answers).items()]
        async with httpx.AsyncClient(
            base_url=fleet.serving[0].url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60
        ) as client:
            faults += await find_faults(client, traffic.answers)
        traffic.close()
        faults += [line for line in (folder / "service.log").read_text().splitlines() if '"level": "error"' in line][:5]
    verified = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scripts.verify", cwd=ROOT, env=os.environ | {"DATABASE_URL": database},
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    return faults + ([] if await verified.wait() == 0 else ["scripts/verify found offenders"])


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [probe.getsockname()[1] for probe in probes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=100, help="replacements (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=0, help="posts a second (default: 70 %% of what is measured)")
    parser.add_argument(
        "--measure", type=float, default=5, help="seconds to measure for, each time (default: %(default)s)"
    )
    parser.add_argument("--drain", type=float, default=5.0, help="DRAIN_S of the processes (default: %(default)s)")
    parser.add_argument("--no-proxy", action="store_true", help="have the callers look at /readyz themselves")
    parser.add_argument("--unsafe", action="store_true", help="with fsync off, in memory where that can be")
    arguments = parser.parse_args()
    for signum in (signal.SIGINT, signal.SIGTERM):  # so that nothing is left running, however it is ended
        signal.signal(signum, signal.default_int_handler)
    memory = Path("/dev/shm") if arguments.unsafe and os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        with Postgres(Path(folder) / "postgres", durable=not arguments.unsafe) as server:
            server.create_database("replace")
            config = Config(ROOT / "alembic.ini")
            config.attributes["database_url"] = server.url("replace")
            command.upgrade(config, "head")
            faults = uvloop.run(run(arguments, server.url("replace"), Path(folder)))
    print(
        "Found:\n" + "\n".join(f"- {fault}" for fault in faults) if faults else "Nothing failed, was lost or doubled."
    )
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()

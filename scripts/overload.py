"""What one process does when more is asked of it than it can do: `scripts/overload`.

A Postgres of its own with fsync on, one process of the service. First what it can do is measured, then callers post at
twice that rate, whatever they are answered; then at half of it, to see how soon it is well again. After that thousands
of hostile connections are held against it while others post: heads that drip, headers without an end, bodies that never
end, connections that say nothing, clients that do not read. Exits with 1 if an accepted post is missing from the log or
doubled, if anything but 201 and 503 with Retry-After was answered, or if the others noticed the hostile ones.
"""

import argparse
import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import uvloop
from alembic import command
from alembic.config import Config

from scripts.postgres import Postgres
from scripts.replace import free_ports
from scripts.traffic import Answer, Traffic, count_failures, describe, find_faults, open_books, until_ready

ROOT = Path(__file__).parents[1]
KEY = "a-secret-of-the-overload"
CALLERS = 64
# What the proxy in front, or the pools of all callers, let through at once: twice what the service works on.
AT_ONCE = 1000
AUTHORIZED = f"Host: ledger\r\nAuthorization: Bearer {KEY}\r\n"


class Hostile:
    """Connections of one kind, opened at once and kept up for as long as the service lets them."""

    def __init__(self, name: str, first: bytes, drip: bytes = b"", *, reads: bool = True, share: int = 1) -> None:
        self.name = name
        self.share = share
        self._first = first
        self._drip = drip
        self._reads = reads
        self.opened = self.held = 0
        self.answers: dict[str, int] = {}

    async def hold(self, port: int, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 16)
        except OSError:
            self._count("not opened")
            return
        self.opened += 1
        self.held += 1
        try:
            if not self._reads:
                writer.transport.pause_reading()  # type: ignore[attr-defined]
            writer.write(self._first)
            reading = asyncio.create_task(self._read(reader))
            while time.monotonic() < deadline and not reading.done():
                if self._drip:
                    writer.write(self._drip)
                await asyncio.wait((reading,), timeout=1)
            if not reading.done():
                reading.cancel()
                self._count("still open at the end")
        except OSError:
            self._count("closed")
        finally:
            self.held -= 1
            writer.transport.abort()  # type: ignore[attr-defined]

    async def _read(self, reader: asyncio.StreamReader) -> None:
        said = b""
        with contextlib.suppress(OSError):
            while data := await reader.read(4096):
                said = said or data[:12]
        self._count(f"{said[9:12].decode()}, then closed" if said else "closed without a word")

    def _count(self, what: str) -> None:
        self.answers[what] = self.answers.get(what, 0) + 1


def hostile_kinds() -> list[Hostile]:
    post = f"POST /v1/ledgers/books-0/transactions HTTP/1.1\r\n{AUTHORIZED}Idempotency-Key: never\r\n"
    events = f"GET /v1/ledgers/books-0/events?limit=1000 HTTP/1.1\r\n{AUTHORIZED}\r\n"
    return [
        Hostile("heads that drip", b"GET /healthz HTTP/1.1\r\n", b"X"),
        Hostile("headers without an end", b"GET /healthz HTTP/1.1\r\n", b"X-A: b\r\n" * 2000),
        Hostile(
            "bodies that never end",
            f"{post}Content-Type: application/json\r\nContent-Length: 1000000\r\n\r\n".encode(),
            b" " * 1000,
        ),
        Hostile(
            "bodies of strangers", b"POST /v1/ledgers HTTP/1.1\r\nContent-Length: 1000000000\r\n\r\n", b" " * 60_000
        ),
        Hostile("connections that say nothing", b""),
        Hostile("line feeds after an answer", b"GET /healthz HTTP/1.1\r\nHost: ledger\r\n\r\n", b"\r\n"),
        # They have a key, so each is given real work: what so many of them may ask is for their keys' limits to say.
        Hostile("clients that do not read", events.encode() * 20, reads=False, share=20),
    ]


class Memory:
    """The resident memory of a process, looked at four times a second."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self.peak_mib = 0.0

    @property
    def now_mib(self) -> float:
        line = next(line for line in self._status.read_text().splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    async def keep_looking(self) -> None:
        while True:  # until it is cancelled
            self.peak_mib = max(self.peak_mib, self.now_mib)
            await asyncio.sleep(0.25)


async def for_seconds(traffic: Traffic, rate: float, seconds: float) -> list[Answer]:
    before, deadline = len(traffic.answers), time.monotonic() + seconds
    await traffic.post_at(rate, until=lambda: time.monotonic() >= deadline, at_once_max=AT_ONCE)
    return traffic.answers[before:]


async def seconds_to_recover(traffic: Traffic, rate: float, bound_s: float) -> float:
    """How long after the overload it takes until everything that is sent is accepted within the bound."""
    began = time.perf_counter()
    answers = await for_seconds(traffic, rate, 10)
    late = [answer.sent for answer in answers if answer.status != 201 or answer.seconds > bound_s]
    return max(late, default=began) - began


async def run(arguments: argparse.Namespace, database: str, log: Path) -> list[str]:
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    environment = {"DATABASE_URL": database, "API_KEY": KEY, "PORT": str(port), "LOG_LEVEL": "WARNING", "DRAIN_S": "0"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "app"], cwd=ROOT, env=os.environ | environment, stdout=output, stderr=output
        )
    faults: list[str] = []
    traffic = Traffic(lambda: url, KEY)
    try:
        await until_ready(url)
        async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as client:
            await open_books(client)
            memory = Memory(process.pid)
            looking = asyncio.create_task(memory.keep_looking())
            await traffic.post_from(CALLERS, seconds=3)  # until plans and caches are warm
            able = await traffic.post_from(CALLERS, seconds=5)
            calm = await for_seconds(traffic, able / 2, 5)
            print(f"it can do {able:.0f} posts/s; at half of that: {describe(calm)}; memory {memory.now_mib:.0f} MiB")
            faults += await overload(traffic, memory, able, arguments.seconds)
            faults += await besiege(traffic, memory, able, port, arguments)
            looking.cancel()
            faults += await find_faults(client, traffic.answers)
            faults += [line for line in log.read_text().splitlines() if '"level": "error"' in line][:5]
    finally:
        traffic.close()
        process.terminate()
        if process.wait(30) != 0:
            faults.append(f"the service ended with {process.returncode}")
    return faults


async def overload(traffic: Traffic, memory: Memory, able: float, seconds: float) -> list[str]:
    before = memory.now_mib
    answers = await for_seconds(traffic, 2 * able, seconds)
    refused = [answer for answer in answers if answer.status == 503 and answer.retry_after]
    print(
        f"at twice that, for {seconds:.0f} s ({2 * able:.0f}/s):\n"
        f"  accepted {describe(answers)}\n"
        f"  refused with 503 and Retry-After {describe(refused, 503)}\n"
        f"  accepted a second: {sum(answer.status == 201 for answer in answers) / seconds:.0f}; "
        f"not sent, because {AT_ONCE} were under way: {traffic.held_back}\n"
        f"  memory {before:.0f} MiB before, {memory.peak_mib:.0f} at most, {memory.now_mib:.0f} after"
    )
    recovered = await seconds_to_recover(traffic, able / 2, 1.0)
    print(f"at half of it again: everything is accepted within a second after {recovered:.1f} s")
    others = {what: n for what, n in count_failures(answers).items() if what != "503 overloaded"}
    return [f"answered {others}"] if others or len(refused) != sum(a.status == 503 for a in answers) else []


async def besiege(traffic: Traffic, memory: Memory, able: float, port: int, arguments: argparse.Namespace) -> list[str]:
    kinds, memory.peak_mib = hostile_kinds(), memory.now_mib
    before = memory.now_mib
    siege = [
        asyncio.create_task(kind.hold(port, arguments.siege))
        for kind in kinds
        for _ in range(arguments.connections // kind.share)
    ]
    answers = await for_seconds(traffic, able / 4, arguments.siege)
    await asyncio.gather(*siege)
    print(f"{arguments.connections} each of {len(kinds)} kinds of hostile connections, for {arguments.siege:.0f} s:")
    for kind in kinds:
        print(f"  {kind.name}: {', '.join(f'{count} {what}' for what, count in sorted(kind.answers.items()))}")
    print(
        f"  the others meanwhile, at a quarter of what it can do: {describe(answers)}; "
        f"failed: {dict(count_failures(answers)) or 'none'}\n"
        f"  memory {before:.0f} MiB before, {memory.peak_mib:.0f} at most, {memory.now_mib:.0f} after"
    )
    return [f"the others noticed: {dict(found)}"] if (found := count_failures(answers)) else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20, help="of overload (default: %(default)s)")
    parser.add_argument("--siege", type=float, default=30, help="seconds of hostility (default: %(default)s)")
    parser.add_argument("--connections", type=int, default=1000, help="of each hostile kind (default: %(default)s)")
    arguments = parser.parse_args()
    for signum in (signal.SIGINT, signal.SIGTERM):  # so that nothing is left running, however it is ended
        signal.signal(signum, signal.default_int_handler)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as folder:
        with Postgres(Path(folder) / "postgres") as server:
            server.create_database("overload")
            config = Config(ROOT / "alembic.ini")
            config.attributes["database_url"] = server.url("overload")
            command.upgrade(config, "head")
            faults = uvloop.run(run(arguments, server.url("overload"), Path(folder) / "service.log"))
    print(
        "Found:\n" + "\n".join(f"- {fault}" for fault in faults) if faults else "Nothing was lost, doubled or noticed."
    )
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()

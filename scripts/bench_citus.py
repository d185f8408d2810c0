"""Posts a second over many ledgers: plain Postgres, Citus on one node, Citus on all of them: `python -m
scripts.bench_citus URL`, a database on the coordinator of at least two workers.

The same writer in this process, the same servers, in rounds one after the other; no HTTP. Each layout has a database of
its own, which is dropped at the end. After each round every ledger's head has to say what was acknowledged. CPU is of
the Postgres processes, if they run on this machine, and of this one. Where all nodes share a machine it shows what the
way over several costs, and nothing of what they gain.
"""

import argparse
import asyncio
import logging
import os
import statistics
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import structlog
import uvloop

from app.db import Database
from app.ledger.commands import CreateLedger, Move, OpenAccount, PostTransaction
from app.ledger.submissions import CREATION_KEY, Submission
from app.ledger.writer import LedgerWriter
from app.settings import Settings
from scripts.citus import PREFIX, Cluster, NoCluster

PAIRS = 50
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Layout:
    name: str
    url: str
    plan_cache_mode: str


@dataclass(frozen=True, slots=True)
class Round:
    posts: int
    seconds: float
    batches: int
    # Of Postgres on all nodes, and of this process, in microseconds a post.
    postgres_us: float
    python_us: float
    p50_ms: float
    p99_ms: float


class Books:
    """Some ledgers of one layout, kept open between rounds."""

    def __init__(self, layout: Layout, cluster: Cluster, ledgers: int) -> None:
        self.layout = layout
        settings = Settings(
            _env_file=None, database_url=layout.url, development=True, plan_cache_mode=layout.plan_cache_mode
        )
        self._store = Database(settings)
        self._writer = LedgerWriter(self._store, lambda: datetime.now(UTC), deadline_s=60)
        self._cluster = cluster
        self._names = [f"books-{number}" for number in range(ledgers)]
        self._posted = 0

    async def _submit(self, ledger: str, key: str, command: object) -> None:
        digest = key.encode().ljust(16) if key else CREATION_KEY
        await self._writer.submit(ledger, Submission(command, digest, b"f" * 16, "operator", "-"))  # type: ignore[arg-type]

    async def open(self) -> None:
        for name in self._names:
            await self._submit(name, "", CreateLedger(name, None, {}))
            paths = (f"{side}{pair}" for pair in range(PAIRS) for side in "dc")
            opened = (
                self._submit(name, path, OpenAccount(path, "USD/2", "debit", None, None, None, {})) for path in paths
            )
            await asyncio.gather(*opened)

    async def post(self, callers: int, seconds: float) -> Round:
        """Post from so many callers to each ledger for so many seconds."""
        pids = await self._find_backends()
        before = _cpu_seconds(pids), time.process_time(), await self._count_batches()
        deadline = time.perf_counter() + seconds
        latencies: list[float] = []

        async def call(name: str, number: int) -> None:
            while time.perf_counter() < deadline:
                self._posted += 1
                pair = self._posted * 7919 % PAIRS
                move = Move(f"d{pair}", f"c{pair}", 1)
                began = time.perf_counter()
                await self._submit(name, f"{self._posted}", PostTransaction((move,), None, None, None, None, {}))
                latencies.append((time.perf_counter() - began) * 1000)

        began = time.perf_counter()
        await asyncio.gather(*(call(name, number) for name in self._names for number in range(callers)))
        taken = time.perf_counter() - began
        python = time.process_time() - before[1]
        postgres = _cpu_seconds(pids) - before[0]
        batches = await self._count_batches() - before[2]
        if await self._count_events() != len(self._names) * (1 + 2 * PAIRS) + self._posted:
            sys.exit(f"{self.layout.name}: the logs do not hold what was acknowledged")
        latencies.sort()
        p50, p99 = (latencies[int(len(latencies) * share)] for share in (0.5, 0.99))
        count = len(latencies)
        return Round(count, taken, batches, postgres / count * 1e6, python / count * 1e6, p50, p99)

    async def _count_batches(self) -> int:
        return await self._sum("revision")

    async def _count_events(self) -> int:
        return await self._sum("sequence")

    async def _sum(self, column: str) -> int:
        async with self._store.writes.acquire() as connection:
            return int(await connection.fetchval(f"select sum({column}) from heads"))

    async def _find_backends(self) -> list[int]:
        """The processes of all nodes that work on this layout's database. They live from round to round."""
        query = "select pid from pg_stat_activity where datname = current_database()"
        return [pid for found in await self._cluster.fetch_everywhere(self.layout.url, query) for (pid,) in found]

    async def close(self) -> None:
        await self._store.close()


def _cpu_seconds(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        try:
            said = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        total += int(said[11]) + int(said[12])
    return total / TICKS


async def run(cluster: Cluster, layouts: list[Layout], arguments: argparse.Namespace) -> None:
    all_books = [Books(layout, cluster, arguments.ledgers) for layout in layouts]
    for books in all_books:
        await books.open()
        await books.post(arguments.callers, 2)  # connections, plans and caches
    rounds: dict[str, list[Round]] = {layout.name: [] for layout in layouts}
    for _ in range(arguments.rounds):
        for books in all_books:
            measured = await books.post(arguments.callers, arguments.seconds)
            rounds[books.layout.name].append(measured)
            _print(books.layout.name, [measured])
    load = " ".join(f"{each:.1f}" for each in os.getloadavg())
    print(f"\nmedians of {arguments.rounds} rounds of {arguments.seconds:g} s, {arguments.ledgers} ledgers with "
          f"{arguments.callers} callers each, {os.cpu_count()} cores, load average {load}")  # fmt: skip
    for name, measured in rounds.items():
        _print(name, measured)
    for books in all_books:
        await books.close()


def _print(name: str, rounds: list[Round]) -> None:
    def median(value: str) -> float:
        return statistics.median(getattr(each, value) for each in rounds)

    rate = statistics.median(each.posts / each.seconds for each in rounds)
    size = statistics.median(each.posts / each.batches for each in rounds)
    print(
        f"{name:22}{rate:8.0f} posts/s {size:6.1f} a batch   "
        f"p50 {median('p50_ms'):6.1f} ms   p99 {median('p99_ms'):6.1f} ms   "
        f"CPU a post: Postgres {median('postgres_us'):5.0f} µs, Python {median('python_us'):4.0f} µs",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="a database on the coordinator, as a role that may create databases on every node")
    parser.add_argument("--ledgers", type=int, default=8)
    parser.add_argument("--callers", type=int, default=16, help="for each ledger")
    parser.add_argument("--seconds", type=float, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    try:
        cluster = Cluster(arguments.url)
    except (NoCluster, asyncpg.PostgresError) as error:
        sys.exit(str(error))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    try:
        layouts = [
            Layout("plain Postgres", cluster.create(f"{PREFIX}_plain", shards=None), "force_generic_plan"),
            Layout("Citus on one node", cluster.create(f"{PREFIX}_one", shards=32, workers=False), "auto"),
            Layout(f"Citus on {len(cluster.nodes)} nodes", cluster.create(f"{PREFIX}_all", shards=32), "auto"),
        ]
        uvloop.run(run(cluster, layouts, arguments))
    finally:
        cluster.drop_all()


if __name__ == "__main__":
    main()

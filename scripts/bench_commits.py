"""What a single post costs at several commits, in one run: CPU of the service and of Postgres, and posts a second.

    uv run python -m scripts.bench_commits 89b581e HEAD

Each commit is checked out and installed beside the others, migrates a database of its own on one server with fsync
on, and is posted to in turns with the others, so that what disturbs one disturbs all. CPU time tells more than the
rate does on a shared machine. The working tree stands for itself under the name `now`.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import httpx

from scripts.bench import ACCOUNTS, KEY, ROOT, check_books, open_books, post_all, until_up
from scripts.postgres import Postgres

TICKS = os.sysconf("SC_CLK_TCK")
MIGRATE = """
import os
from alembic import command
from alembic.config import Config
config = Config("alembic.ini")
config.attributes["database_url"] = os.environ["DATABASE_URL"]
command.upgrade(config, "head")
"""


@dataclass(frozen=True)
class Cost:
    rate: float
    service_us: float
    postgres_us: float


def cpu_seconds(pid: int) -> float:
    """Of a process and of its children, those included that have ended."""
    found = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(folder.name) == pid:
                found += sum(map(int, fields[11:15]))
            elif int(fields[1]) == pid:
                found += sum(map(int, fields[11:13]))
    return found / TICKS


@contextmanager
def checked_out(commit: str, folder: Path) -> Iterator[Path]:
    if commit == "now":
        yield ROOT
        return
    tree = folder / commit
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", tree, commit], cwd=ROOT, check=True)
    try:
        subprocess.run(["uv", "sync", "--locked", "--quiet"], cwd=tree, check=True)
        yield tree
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", tree], cwd=ROOT, check=True)


def python_of(tree: Path) -> str:
    return sys.executable if tree == ROOT else str(tree / ".venv/bin/python")


async def measure(tree: Path, database: str, postmaster: int, arguments: argparse.Namespace) -> Cost:
    process = subprocess.Popen(
        [python_of(tree), "-m", "scripts.bench", "--serve", "group commit", "--port", str(arguments.port)],
        cwd=tree,
        env=os.environ | {"DATABASE_URL": database, "API_KEY": KEY},
        stdout=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{arguments.port}"
    try:
        async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as client:
            await until_up(lambda: client.get("/readyz"))
            for seconds in (1, arguments.seconds):  # the first only until plans and caches are warm
                ledger = f"bench-{uuid.uuid4().hex[:8]}"
                await open_books(client, ledger, hot=False)
                before = cpu_seconds(process.pid), cpu_seconds(postmaster)
                measured = await post_all(url, ledger, False, arguments.connections, seconds)
                after = cpu_seconds(process.pid), cpu_seconds(postmaster)
                await check_books(client, ledger, ACCOUNTS, measured)
            service, postgres = (1e6 * (b - a) / measured.acknowledged for a, b in zip(before, after, strict=True))
            return Cost(measured.rate, service, postgres)
    finally:
        process.terminate()
        process.wait(timeout=30)


async def compare(trees: dict[str, Path], databases: dict[str, str], pid: int, arguments: argparse.Namespace) -> None:
    costs: dict[str, list[Cost]] = defaultdict(list)
    for _ in range(arguments.rounds):
        for name, tree in trees.items():
            costs[name].append(await measure(tree, databases[name], pid, arguments))
    print(f"{'commit':10} {'posts/s':>9} {'service us':>11} {'Postgres us':>12} {'both':>7}  against the first")
    first = None
    for name, found in costs.items():
        rate, service, postgres = (median(getattr(c, what) for c in found) for what in Cost.__annotations__)
        first = first or service + postgres
        both = service + postgres
        print(f"{name:10} {rate:9.0f} {service:11.0f} {postgres:12.0f} {both:7.0f}  {both / first:5.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commits", nargs="+", help="commits of this repository, or `now`")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--port", type=int, default=8764)
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(Postgres(folder / "postgres"))
        postmaster = int((folder / "postgres/data/postmaster.pid").read_text().split("\n", 1)[0])
        trees: dict[str, Path] = {}
        databases: dict[str, str] = {}
        for number, commit in enumerate(arguments.commits):
            trees[commit] = stack.enter_context(checked_out(commit, folder))
            server.create_database(f"bench{number}")
            databases[commit] = server.url(f"bench{number}")
            environment = os.environ | {"DATABASE_URL": databases[commit]}
            subprocess.run([python_of(trees[commit]), "-c", MIGRATE], cwd=trees[commit], env=environment, check=True)
        asyncio.run(compare(trees, databases, postmaster, arguments))


if __name__ == "__main__":
    main()

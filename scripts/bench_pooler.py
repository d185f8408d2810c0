"""What pgbouncer in transaction mode costs: posts a second through it and straight to Postgres, in one run.

Two processes of the service on one database with fsync on, one on each way, take turns. Only the ratio of one run means
anything. At the end every acknowledged post has to be in the log once, where its answer said.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import httpx
import uvloop
from alembic import command
from alembic.config import Config

from scripts.pgbouncer import start_pgbouncer
from scripts.postgres import Postgres
from scripts.replace import free_ports
from scripts.traffic import Traffic, count_failures, find_faults, open_books, until_ready

ROOT = Path(__file__).parents[1]
KEY = "a-secret-of-the-benchmark"


async def run(ways: dict[str, str], arguments: argparse.Namespace) -> list[str]:
    for url in ways.values():
        await until_ready(url, seconds_max=120)
    first = next(iter(ways.values()))
    turn = [first]
    traffic = Traffic(lambda: turn[0], KEY)
    async with httpx.AsyncClient(base_url=first, headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as client:
        await open_books(client)
        for callers in arguments.callers:
            rates: dict[str, list[float]] = {name: [] for name in ways}
            for _ in range(arguments.rounds):
                for name, turn[0] in ways.items():
                    await traffic.post_from(callers, seconds=0.5)
                    rates[name].append(await traffic.post_from(callers, seconds=arguments.seconds))
            direct, pooled = rates.values()
            ratio = statistics.median(there / here for here, there in zip(direct, pooled, strict=True))
            shown = "; ".join(f"{name} {statistics.median(each):.0f}/s" for name, each in rates.items())
            print(f"{callers} callers: {shown}; through the pooler {ratio:.2f} of it", flush=True)
        failed = [f"{count} x {what}" for what, count in count_failures(traffic.answers).items()]
        return failed + await find_faults(client, traffic.answers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--callers", type=int, nargs="+", default=[1, 64])
    parser.add_argument("--seconds", type=float, default=4, help="how long each round posts")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--servers", type=int, default=8, help="of the pooler")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        server = stack.enter_context(Postgres(folder / "postgres"))
        server.create_database("bench")
        config = Config(ROOT / "alembic.ini")
        config.attributes["database_url"] = direct = server.url("bench")
        command.upgrade(config, "head")
        pooled = stack.enter_context(start_pgbouncer(direct, folder, servers=arguments.servers))
        ports = free_ports(2)
        for port, url, pooler in zip(ports, (direct, pooled), ("false", "true"), strict=True):
            variables = {"DATABASE_URL": url, "TRANSACTION_POOLER": pooler, "API_KEY": KEY, "PORT": str(port)}
            process = subprocess.Popen(
                [sys.executable, "-m", "app"], cwd=ROOT, env=os.environ | variables | {"LOG_LEVEL": "WARNING"}
            )
            stack.callback(process.wait)
            stack.callback(process.terminate)
        ways = {name: f"http://127.0.0.1:{port}" for name, port in zip(("direct", "pgbouncer"), ports, strict=True)}
        faults = uvloop.run(run(ways, arguments))
    print("\n".join(faults) or "Nothing failed, was lost or doubled.")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()

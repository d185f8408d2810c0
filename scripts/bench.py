"""Posted transactions per second over HTTP, with group commit and with one database transaction per request.

Both run in the same process shape, on the same database server with fsync on, one after the other in rounds, over
one hot account pair or over many. After each round the books are checked: every acknowledged transaction is in the
log once, and the balances say so. Only the ratio of one run means anything: the machine is shared.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import uvloop
from alembic import command
from alembic.config import Config

from app.ledger.submissions import Receipt, Recorded, Submission
from app.ledger.writer import LedgerWriter
from app.main import create_app
from app.server import Server, configure_server
from app.settings import Settings
from scripts.postgres import Postgres

ROOT = Path(__file__).parents[1]
KEY = "a-secret-of-the-benchmark"
ACCOUNTS = 1_000


class OnePerRequest(LedgerWriter):
    """The peer: each request locks the ledger, reads, decides, writes and commits in a transaction of its own."""

    async def _submit(self, ledger: str, submission: Submission) -> Receipt | Recorded:
        entered = await self._directory.enter(ledger)
        async with self._connections.acquire() as connection:
            (outcome,) = await self._cycle_behind_lock(connection, entered, [submission])
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


WRITERS: dict[str, type[LedgerWriter]] = {"group commit": LedgerWriter, "one per request": OnePerRequest}


@dataclass
class Round:
    name: str
    hot: bool
    acknowledged: int
    seconds: float
    batches: int
    latencies_ms: list[float]

    @property
    def rate(self) -> float:
        return self.acknowledged / self.seconds


def serve(writer: str, port: int) -> None:
    """Run the service with one of the writers; counts the batches that change a head, at /batches in its log."""
    import app.main as main

    main.LedgerWriter = WRITERS[writer]  # type: ignore[misc]
    settings = Settings()
    Server(configure_server(create_app(settings), settings, port=port)).run()


async def post_all(url: str, ledger: str, hot: bool, connections: int, seconds: float) -> Round:
    """Post from so many connections for so many seconds; every answer must be a 201."""
    host, port = urlsplit(url).hostname, urlsplit(url).port
    deadline = time.perf_counter() + seconds
    latencies: list[float] = []

    async def post(number: int) -> None:
        reader, writer = await asyncio.open_connection(host, port)
        count = 0
        while time.perf_counter() < deadline:
            place = 0 if hot else (number * 7919 + count * 104729) % (ACCOUNTS // 2)
            body = json.dumps(
                {"postings": [{"debit_account": f"d{place}", "credit_account": f"c{place}", "amount": "1"}]}
            )
            request = (
                f"POST /v1/ledgers/{ledger}/transactions HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {KEY}\r\n"
                f"Idempotency-Key: {number}-{count}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}"
            )
            started = time.perf_counter()
            writer.write(request.encode())
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            answer = await reader.readexactly(length)
            if not head.startswith(b"HTTP/1.1 201"):
                raise RuntimeError(f"not a 201: {head.decode()} {answer.decode()}")
            latencies.append((time.perf_counter() - started) * 1000)
            count += 1
        writer.close()

    started = time.perf_counter()
    await asyncio.gather(*(post(number) for number in range(connections)))
    return Round("", hot, len(latencies), time.perf_counter() - started, 0, latencies)


async def open_books(client: httpx.AsyncClient, ledger: str, hot: bool) -> None:
    (await client.post("/v1/ledgers", json={"name": ledger})).raise_for_status()
    pairs = 1 if hot else ACCOUNTS // 2

    async def open_account(path: str, side: str) -> None:
        body = {"path": path, "asset": "USD/2", "normal_side": side}
        answer = await client.post(f"/v1/ledgers/{ledger}/accounts", json=body, headers={"Idempotency-Key": path})
        answer.raise_for_status()

    await asyncio.gather(*(open_account(f"d{n}", "debit") for n in range(pairs)))
    await asyncio.gather(*(open_account(f"c{n}", "credit") for n in range(pairs)))


async def check_books(client: httpx.AsyncClient, ledger: str, accounts: int, round_: Round) -> None:
    """Every acknowledged transaction is in the log once, and the balances add up to them."""
    head = (await client.get(f"/v1/ledgers/{ledger}")).json()["sequence"]
    total = {"debit": 0, "credit": 0}
    cursor: dict[str, str] = {}
    while True:
        page = (await client.get(f"/v1/ledgers/{ledger}/accounts", params={"limit": "1000"} | cursor)).json()
        for account in page["items"]:
            total[account["normal_side"]] += int(account["posted"])
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    recorded = head - 1 - accounts
    if not recorded == total["debit"] == total["credit"] == round_.acknowledged:
        raise RuntimeError(f"the books disagree: {recorded=} {total=} acknowledged={round_.acknowledged}")


async def measure(name: str, database: str, arguments: argparse.Namespace, hot: bool) -> Round:
    port = arguments.port
    process = subprocess.Popen(
        [sys.executable, "-m", "scripts.bench", "--serve", name, "--port", str(port)],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database, "API_KEY": KEY, "LOG_LEVEL": arguments.log_level},
        stdout=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        async with httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as client:
            await until_up(lambda: client.get("/readyz"))
            ledger = f"bench-{uuid.uuid4().hex[:8]}"
            await open_books(client, ledger, hot)
            before = await batches(database, ledger)
            measured = await post_all(url, ledger, hot, arguments.connections, arguments.seconds)
            await check_books(client, ledger, 2 if hot else ACCOUNTS, measured)
            measured.name, measured.batches = name, await batches(database, ledger) - before
            return measured
    finally:
        process.terminate()
        process.wait(timeout=30)


async def batches(database: str, ledger: str) -> int:
    """How many batches the ledger has seen: each replaces its head's revision once."""
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(database)
    async with engine.connect() as connection:
        query = text("select revision from heads join ledgers using (ledger_id) where name = :name")
        found = await connection.scalar(query, {"name": ledger})
    await engine.dispose()
    return found or 0


async def until_up(ask: Callable[[], Awaitable[httpx.Response]]) -> None:
    for _ in range(200):
        try:
            if (await ask()).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.1)
    raise RuntimeError("the service did not come up")


async def run(database: str, arguments: argparse.Namespace) -> None:
    rounds: list[Round] = []
    for _ in range(arguments.rounds):
        for hot in (True, False):
            for name in WRITERS:
                measured = await measure(name, database, arguments, hot)
                rounds.append(measured)
                print_round(measured)
    for hot in (True, False):
        rates = {name: sorted(r.rate for r in rounds if r.name == name and r.hot == hot) for name in WRITERS}
        grouped, single = (found[len(found) // 2] for found in rates.values())
        where = "one hot pair" if hot else f"{ACCOUNTS} accounts"
        print(f"{where}: group commit is {grouped / single:.1f} times the other")


def print_round(measured: Round) -> None:
    ordered = sorted(measured.latencies_ms)
    p50, p99 = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
    print(
        f"{measured.name:16} {'one hot pair' if measured.hot else f'{ACCOUNTS} accounts':14}"
        f"{measured.rate:8.0f}/s  {measured.acknowledged / measured.batches:6.1f} a batch"
        f"  p50 {p50:6.1f} ms  p99 {p99:6.1f} ms  books checked",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=5, help="how long each round posts")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--log-level", default="INFO", help="of the service: a line per request is its default")
    parser.add_argument("--serve", choices=WRITERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve, arguments.port)
        return
    with tempfile.TemporaryDirectory(dir=ROOT / ".data" if (ROOT / ".data").is_dir() else None) as folder:
        with Postgres(Path(folder) / "postgres") as server:
            server.create_database("bench")
            config = Config(ROOT / "alembic.ini")
            config.attributes["database_url"] = server.url("bench")
            command.upgrade(config, "head")
            uvloop.run(run(server.url("bench"), arguments))


if __name__ == "__main__":
    main()

"""What each look-up index costs a post: CPU of the writer's backend in Postgres, interleaved over databases that
differ in nothing else.

Each variant has a database of its own with a thousand accounts; the same batches of transactions go to all of them,
in a random order within each round. A figure is the median of the ratios to the database without any, within a round.

    python -m scripts.bench_indexes [--rounds 60] [--batch 64]
"""

import argparse
import asyncio
import random
import statistics
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import make_url

from app.db import WRITE_SETTINGS
from app.ledger.book import KeyRow, read_book
from app.ledger.commands import Command, CreateLedger, Move, OpenAccount, PostTransaction
from app.ledger.journal import write_book
from app.ledger.known_ledgers import LedgerRef
from app.ledger.rules import decide
from scripts.postgres import Postgres

ROOT = Path(__file__).parents[1]
INDEXES = ("events_group_idx", "events_effective_idx", "accounts_asset_idx", "accounts_status_idx")
VARIANTS = {"none": (), **{name: (name,) for name in INDEXES}, "all": INDEXES, "none again": ()}
LEDGER = LedgerRef(1, "00000000-0000-4000-8000-000000000001")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ACCOUNTS = 1_000


def cpu_ns(pid: int) -> int:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


async def write(connection: asyncpg.Connection, commands: list[Command], now: datetime) -> None:
    keys = [random.randbytes(16) for _ in commands]
    paths = {path for each in commands for path in each.paths}
    book = await read_book(
        connection, LEDGER, keys=keys, paths=paths, references=[], subjects=[], now=now, timeout_s=60
    )
    for key, each in zip(keys, commands, strict=True):
        decision = decide(each, book, now=now, actor="operator")
        book.apply(decision)
        book.keep(KeyRow(key, key, decision.event.sequence))
    assert await write_book(connection, LEDGER, book, now=now, timeout_s=60)


def batch(number: int, size: int, described: bool) -> list[Command]:
    """One posting each; described ones have a group and an effective time, as an import has."""
    posts: list[Command] = []
    for n in range(number * size, (number + 1) * size):
        debit, credit = random.sample(range(ACCOUNTS), 2)
        said = (NOW + timedelta(microseconds=n), f"g{n // 4}") if described else (None, None)
        move = Move(f"a{debit}", f"a{credit}", 1)
        posts.append(PostTransaction((move,), said[0], None, said[1], None, {}))
    return posts


async def run(postgres: Postgres, rounds: int, size: int) -> None:
    connections = {}
    for number, (variant, kept) in enumerate(VARIANTS.items()):
        postgres.create_database(f"variant_{number}", template="template")
        url = make_url(postgres.url(f"variant_{number}"))
        connections[variant] = connection = await asyncpg.connect(
            host=url.query["host"],
            user=url.username,
            database=url.database,
            server_settings=WRITE_SETTINGS | {"plan_cache_mode": "force_generic_plan"},
        )
        for name in set(INDEXES) - set(kept):
            await connection.execute(f"drop index {name}")
        await connection.execute("insert into ledgers (name) values ('main')")
        await connection.execute(
            "insert into heads (ledger_id, sequence, revision, recorded_at, identity) "
            "values (1, 0, 0, '1970-01-01', $1)",
            LEDGER.identity,
        )
        await write(connection, [CreateLedger("main", None, {})], NOW)
        opened = [OpenAccount(f"a{n}", "USD/2", "debit", None, None, None, {}) for n in range(ACCOUNTS)]
        await write(connection, list(opened), NOW)
    pids = {variant: each.get_server_pid() for variant, each in connections.items()}
    for described in (False, True):
        spent: dict[str, list[int]] = {variant: [] for variant in VARIANTS}
        for number in range(rounds + 5):
            posts = batch(number, size, described)
            for variant in random.sample(list(VARIANTS), len(VARIANTS)):
                before = cpu_ns(pids[variant])
                await write(connections[variant], posts, NOW + timedelta(days=1 + described, seconds=number))
                if number >= 5:
                    spent[variant].append(cpu_ns(pids[variant]) - before)
        what = "with group and effective time" if described else "plain"
        print(f"\n{what}, batches of {size}\n\n| indexes | us a transaction | against none |\n|---|---|---|")
        for variant in VARIANTS:
            ratio = statistics.median(a / b for a, b in zip(spent[variant], spent["none"], strict=True)) - 1
            print(f"| {variant} | {statistics.median(spent[variant]) / size / 1000:.1f} | {ratio:+.1%} |", flush=True)
    for connection in connections.values():
        await connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Postgres(Path(folder) / "postgres", durable=True) as postgres:
        postgres.create_database("template")
        config = Config(ROOT / "alembic.ini")
        config.attributes["database_url"] = postgres.url("template")
        command.upgrade(config, "head")
        asyncio.run(run(postgres, arguments.rounds, arguments.batch))


if __name__ == "__main__":
    main()

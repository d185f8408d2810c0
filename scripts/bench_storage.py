"""What fillfactor and vacuum settings buy: rows replaced within their page, growth, and what freezing costs when.

Two parts, each over databases that differ in nothing but the setting, with the service's own statements:

- rows that are rewritten: after so many posts on two hot accounts, posts over a thousand, and holds that are captured,
  the share of updates that stayed within their page (HOT), the sizes, and the CPU of the writer's backend;
- rows that are only added: vacuum after every tenth of the rows, as autovacuum would, and at the end the vacuum that
  freezes everything, as one against wraparound does. Whether the vacuums meanwhile freeze what they meet is what is
  compared: the WAL that each wrote, and its time.

    python -m scripts.bench_storage [--posts 20000] [--rows 200000]
"""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import make_url

from app.db import WRITE_SETTINGS
from app.ledger.book import KeyRow, read_book
from app.ledger.commands import CaptureTransaction, Command, CreateLedger, Move, OpenAccount, PostTransaction
from app.ledger.journal import write_book
from app.ledger.known_ledgers import LedgerRef
from app.ledger.rules import decide
from scripts.bench_indexes import cpu_ns
from scripts.postgres import Postgres

ROOT = Path(__file__).parents[1]
LEDGER = LedgerRef(1, "00000000-0000-4000-8000-000000000001")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
ACCOUNTS = 1_000
BATCH = 16
REWRITTEN = ("heads", "accounts", "holds", "hold_lines")
ADDED = ("events", "entries", "idempotency_keys")
# The fillfactors, where they are not those of the migrations.
VARIANTS: dict[str, dict[str, int]] = {
    "as migrated": {},
    "heads 100": {"heads": 100},
    "accounts 100": {"accounts": 100},
    "accounts 85": {"accounts": 85},
    "accounts 50": {"accounts": 50},
    "holds and lines 70": {"holds": 70, "hold_lines": 70},
    "as migrated, again": {},
}
UPDATES = """
select n_tup_upd as updated, n_tup_hot_upd as hot, n_dead_tup as dead,
       pg_table_size(relid) as heap, pg_indexes_size(relid) as indexes
  from pg_stat_user_tables where relname = $1
"""


async def write(connection: asyncpg.Connection, commands: list[Command], now: datetime) -> int:
    """The first sequence of the batch."""
    keys = [random.randbytes(16) for _ in commands]
    paths = {path for each in commands for path in each.paths}
    subjects = {subject for each in commands for subject in each.subjects}
    book = await read_book(
        connection, LEDGER, keys=keys, paths=paths, references=[], subjects=subjects, now=now, timeout_s=60
    )
    first = book.next_sequence
    for key, each in zip(keys, commands, strict=True):
        decision = decide(each, book, now=now, actor="operator")
        book.apply(decision)
        book.keep(KeyRow(key, key, decision.event.sequence))
    assert await write_book(connection, LEDGER, book, now=now, timeout_s=60)
    return first


async def open_books(postgres: Postgres, name: str) -> asyncpg.Connection:
    postgres.create_database(name, template="template")
    url = make_url(postgres.url(name))
    connection = await asyncpg.connect(
        host=url.query["host"],
        user=url.username,
        database=url.database,
        server_settings=WRITE_SETTINGS | {"plan_cache_mode": "force_generic_plan", "statement_timeout": "0"},
    )
    await connection.execute("insert into ledgers (name) values ('main')")
    await connection.execute(
        "insert into heads (ledger_id, sequence, revision, recorded_at, identity) values (1, 0, 0, '1970-01-01', $1)",
        LEDGER.identity,
    )
    await write(connection, [CreateLedger("main", None, {})], NOW)
    opened = [OpenAccount(f"a{n}", "USD/2", "debit", None, None, None, {}) for n in range(ACCOUNTS)]
    await write(connection, list(opened), NOW)
    return connection


def post(debit: int, credit: int, *, pending: bool = False) -> PostTransaction:
    return PostTransaction((Move(f"a{debit}", f"a{credit}", 1),), None, None, None, None, {}, pending=pending)


def posts(kind: str, size: int = BATCH) -> list[Command]:
    pairs = [(0, 1) if kind == "hot" else tuple(random.sample(range(ACCOUNTS), 2)) for _ in range(size)]
    return [post(*pair, pending=kind == "holds") for pair in pairs]


async def rewrite(postgres: Postgres, count: int) -> None:
    connections = {}
    for number, (variant, factors) in enumerate(VARIANTS.items()):
        connections[variant] = connection = await open_books(postgres, f"variant_{number}")
        for table, factor in factors.items():
            await connection.execute(f"alter table {table} set (fillfactor = {factor})")
            await connection.execute(f"vacuum full {table}")
    for kind in ("hot", "cold", "holds"):
        spent: dict[str, list[int]] = {variant: [] for variant in VARIANTS}
        before = {variant: await look(connection) for variant, connection in connections.items()}
        for number in range(count // BATCH):
            batch = posts(kind)
            now = NOW + timedelta(days=1 + ("hot", "cold", "holds").index(kind), milliseconds=number)
            for variant in random.sample(list(VARIANTS), len(VARIANTS)):
                connection = connections[variant]
                began = cpu_ns(connection.get_server_pid())
                first = await write(connection, batch, now)
                if kind == "holds":
                    captures = [CaptureTransaction(first + n, None, None, {}, None, False, None) for n in range(BATCH)]
                    await write(connection, list(captures), now)
                spent[variant].append(cpu_ns(connection.get_server_pid()) - began)
        print(f"\n{count} {kind}, batches of {BATCH}: HOT share, KiB of the table\n")
        print(f"| fillfactor | {' | '.join(REWRITTEN)} | CPU |\n|---|{'---|' * len(REWRITTEN)}---|")
        for variant, connection in connections.items():
            after = await look(connection)
            cells = []
            for table in REWRITTEN:
                updated = after[table]["updated"] - before[variant][table]["updated"]
                hot = after[table]["hot"] - before[variant][table]["hot"]
                share = f"{hot / updated:.1%}" if updated else "–"
                cells.append(f"{share}, {after[table]['heap'] // 1024}")
            ratios = [a / b for a, b in zip(spent[variant], spent["as migrated"], strict=True)]
            print(f"| {variant} | {' | '.join(cells)} | {statistics.median(ratios) - 1:+.1%} |", flush=True)
    for connection in connections.values():
        await connection.close()


async def look(connection: asyncpg.Connection) -> dict[str, asyncpg.Record]:
    await connection.execute("select pg_stat_force_next_flush()")
    return {table: await connection.fetchrow(UPDATES, table) for table in REWRITTEN}


async def add(postgres: Postgres, count: int) -> None:
    print(f"\n{count} posts, vacuumed ten times on the way, then frozen: MiB of WAL, seconds\n")
    print("| vacuum meanwhile | ten vacuums | the last, which freezes | pages it had to write |\n|---|---|---|---|")
    for name, age in (("as by default", 50_000_000), ("freezes what it meets", 0)):
        connection = await open_books(postgres, f"added_{age}")
        await connection.execute(f"set vacuum_freeze_min_age = {age}")
        wal = seconds = 0.0
        size = count // 10
        for tenth in range(10):
            for number in range(size // 1000):
                now = NOW + timedelta(days=1 + tenth, seconds=number)
                await write(connection, posts("cold", 1000), now)
            some = await vacuum(connection, "vacuum")
            wal, seconds = wal + some[0], seconds + some[1]
        await connection.execute(
            "checkpoint"
        )  # or the last would find all pages in memory, and their images in the WAL
        last = await vacuum(connection, "vacuum (freeze)")
        print(
            f"| {name} | {wal:.1f} MiB, {seconds:.1f} s | {last[0]:.1f} MiB, {last[1]:.1f} s | {last[2]:.0f} |",
            flush=True,
        )
        await connection.close()


async def vacuum(connection: asyncpg.Connection, how: str) -> tuple[float, float, float]:
    """The WAL that it wrote, in MiB; its seconds; and how many images of pages the WAL has."""
    begin = await connection.fetchrow("select wal_bytes, wal_fpi from pg_stat_wal")
    began = time.perf_counter()
    for table in ADDED:
        await connection.execute(f"{how} {table}")
    taken = time.perf_counter() - began
    await connection.execute("select pg_stat_force_next_flush()")
    await asyncio.sleep(0.2)
    end = await connection.fetchrow("select wal_bytes, wal_fpi from pg_stat_wal")
    return float(end["wal_bytes"] - begin["wal_bytes"]) / 2**20, taken, end["wal_fpi"] - begin["wal_fpi"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, default=20_000, help="of each kind (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=200_000, help="posts that are only added (default: %(default)s)")
    arguments = parser.parse_args()
    settings = {"autovacuum_naptime": "5s", "shared_buffers": "512MB", "max_wal_size": "4GB"}
    with tempfile.TemporaryDirectory() as folder, Postgres(Path(folder) / "postgres", settings=settings) as postgres:
        postgres.create_database("template")
        config = Config(ROOT / "alembic.ini")
        config.attributes["database_url"] = postgres.url("template")
        command.upgrade(config, "head")
        asyncio.run(add(postgres, arguments.rows))
        asyncio.run(rewrite(postgres, arguments.posts))


if __name__ == "__main__":
    main()

"""Times of the reads of the past, of sums and of filtered lists: on a handful of rows against a million.

Loads three ledgers by SQL into a throwaway Postgres: `small`, ten transactions; `large`, a million transactions
between two accounts, of which a thousand are backdated; and `wide`, a million accounts. Runs every read as the
service does, on a pool of its own, and looks at the plan of each statement: a sequential scan is named.

    python -m scripts.bench_history [--rows 1000000] [--repeat 100]
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import READ_SETTINGS, Database
from app.ledger import finding, history, queries, statements, totals
from app.ledger.history import AsOf
from app.settings import Settings
from scripts.postgres import Postgres

ROOT = Path(__file__).parents[1]
BASE = datetime(2026, 1, 1, tzinfo=UTC)
# Every thousandth transaction is backdated by a day; every hundredth has one group, the others one of ten thousand.
LOAD = """
insert into ledgers (name) values ({name});
insert into heads select {id}, {rows} + 3, 1, {base} + {rows} * interval '1 second';
insert into events (ledger_id, sequence, kind, recorded_at, actor, configuration)
 values ({id}, 1, 'ledger_created', {base}, 'x', '{{"name": {json}, "revision": 1}}');
insert into events (ledger_id, sequence, kind, recorded_at, actor, account_id, configuration)
 select {id}, n, 'account_opened', {base}, 'x', n, '{{}}' from generate_series(2, 3) n;
insert into accounts select {id}, n, case n when 2 then 'a' else 'b' end, 'USD/2',
       case n when 2 then 'debit' else 'credit' end, 'open', null, null,
       case n when 2 then {rows} else 0 end, case n when 2 then 0 else {rows} end, 0, 0, {rows}, 1, n,
       {base} + {rows} * interval '1 second' from generate_series(2, 3) n;
insert into events (ledger_id, sequence, kind, recorded_at, actor, effective_at, postings, reference, "group")
 select {id}, n + 3, 'transaction_posted', {base} + n * interval '1 second', 'x',
        case when n % {late} = 0 then {base} + n * interval '1 second' - interval '1 day' end,
        format('2 %s 3 %s 1', n, n), 'r' || n, case when n % 100 = 0 then 'busy' else 'g' || n % 10000 end
   from generate_series(1, {rows}) n;
insert into entries
 select {id}, a, n, n + 3, a = 2, 'USD/2', 1, 0, n,
        {base} + (case when n % {late} = 0 then n - 1 else n end) * interval '1 second'
   from generate_series(1, {rows}) n, generate_series(2, 3) a;
insert into late_entries
 select {id}, a, {base} + n * interval '1 second' - interval '1 day', n, 1
   from generate_series({late}, {rows}, {late}) n, generate_series(2, 3) a;
"""
WIDE = """
insert into ledgers (name) values ('wide');
insert into heads select 3, {rows} + 1 + {rows} / 2, 1, {base} + interval '1 day';
insert into events (ledger_id, sequence, kind, recorded_at, actor, configuration)
 values (3, 1, 'ledger_created', {base}, 'x', '{{"name": "wide", "revision": 1}}');
insert into events (ledger_id, sequence, kind, recorded_at, actor, account_id, configuration)
 select 3, n + 1, 'account_opened', {base}, 'x', n + 1, '{{}}' from generate_series(1, {rows}) n;
insert into accounts
 select 3, n + 1, format('users:%s:%s', n / 100, n % 100), case n / 2 % 100 when 0 then 'EUR/2' else 'USD/2' end,
        case n % 2 when 0 then 'debit' else 'credit' end, case n % 100 when 0 then 'frozen' else 'open' end, null, null,
        case n % 2 when 0 then 7 else 0 end, case n % 2 when 0 then 0 else 7 end, 0, 0, 1, 1, n + 1,
        {base} + interval '1 hour' from generate_series(1, {rows}) n;
insert into events (ledger_id, sequence, kind, recorded_at, actor, postings)
 select 3, {rows} + 1 + n, 'transaction_posted', {base} + interval '1 hour', 'x',
        format('%s 1 %s 1 7', 2 * n + 1, 2 * n)
   from generate_series(1, {rows} / 2) n;
insert into entries
 select 3, n + 1, 1, {rows} + 1 + (n + 1) / 2, n % 2 = 0, 'X', 7, 0, 7, {base} + interval '1 hour'
   from generate_series(1, {rows}) n;
"""
Read = Callable[[AsyncSession], Awaitable[Any]]


def reads(ledger: str, rows: int) -> dict[str, Read]:
    """Each read that the service offers on one of the first two ledgers, somewhere in its middle."""
    middle = BASE + timedelta(seconds=rows // 2)
    page: dict[str, Any] = {"after": None, "limit": 100}
    deep = page | {"after": rows // 2}
    pinned: dict[str, Any] = {"pinned": None, "limit": 100}
    at = history.Moment(middle, rows // 2)
    one_day = {"start": middle - timedelta(days=1), "end": middle}
    return {
        "balance now": lambda s: queries.get_account(s, ledger, "a", now=datetime.now(UTC)),
        "balance as of effective": lambda s: history.get_account_balance(s, ledger, "a", AsOf(effective=middle)),
        "balance as of sequence": lambda s: history.get_account_balance(s, ledger, "a", AsOf(sequence=rows // 2)),
        "balance as of all three": lambda s: history.get_account_balance(
            s, ledger, "a", AsOf(effective=middle, sequence=rows, recorded=middle + timedelta(hours=1))
        ),
        "totals of two accounts as of": lambda s: totals.get_totals(
            s, ledger, prefix=None, as_of=AsOf(effective=middle), **page
        ),
        "statement, recorded, from the middle": lambda s: queries.list_account_entries(
            s, ledger, "a", order="newest", **deep
        ),
        "statement, effective, newest": lambda s: statements.list_entries_in_effective_order(
            s, ledger, "a", order="newest", after=None, **pinned
        ),
        "statement, effective, from the middle": lambda s: statements.list_entries_in_effective_order(
            s, ledger, "a", order="oldest", after=at, **pinned
        ),
        "transactions by account, from the middle": lambda s: finding.list_transactions_of_account(
            s, ledger, "a", order="newest", **deep
        ),
        "transactions by reference": lambda s: finding.find_transactions(
            s, ledger, reference=f"r{rows // 2}", order="newest", **page
        ),
        "transactions by a group of a hundredth": lambda s: finding.find_transactions(
            s, ledger, group="busy", order="newest", **deep
        ),
        "transactions by a rare group": lambda s: finding.find_transactions(
            s, ledger, group="g77", order="newest", **page
        ),
        "transactions effective in a day": lambda s: finding.list_transactions_effective(
            s, ledger, order="newest", after=None, **one_day, **pinned
        ),
    }


def reads_of_wide(rows: int) -> dict[str, Read]:
    page: dict[str, Any] = {"after": None, "limit": 100}
    ninth, then = f"users:{rows // 200}", AsOf(effective=BASE + timedelta(hours=2))
    return {
        "accounts below a prefix (100)": lambda s: finding.list_accounts_below(s, "wide", ninth, **page),
        "accounts by asset (a hundredth)": lambda s: finding.find_accounts(s, "wide", asset="EUR/2", **page),
        "accounts by asset (nearly all)": lambda s: finding.find_accounts(s, "wide", asset="USD/2", **page),
        "accounts by status (a hundredth)": lambda s: finding.find_accounts(s, "wide", status="frozen", **page),
        "accounts by status (none)": lambda s: finding.find_accounts(s, "wide", status="closed", **page),
        "totals below a prefix (100)": lambda s: totals.get_totals(s, "wide", prefix=ninth, as_of=AsOf(), **page),
        "totals below a prefix as of (100)": lambda s: totals.get_totals(s, "wide", prefix=ninth, as_of=then, **page),
        "trial balance of all accounts": lambda s: totals.get_trial_balance(s, "wide", as_of=AsOf(), **page),
        "trial balance of all accounts as of": lambda s: totals.get_trial_balance(s, "wide", as_of=then, **page),
    }


async def measure(database: Database, read: Read, repeat: int) -> tuple[float, list[tuple[str, Any]]]:
    """The median time of a read in milliseconds, and the statements it ran."""
    said: list[tuple[str, Any]] = []
    engine = database._reads.sync_engine

    def note(_1: Any, _2: Any, statement: str, parameters: Any, *_: Any) -> None:
        said.append((statement, parameters))

    async with database.sessions() as session:
        event.listen(engine, "before_cursor_execute", note)
        started = time.perf_counter()
        await read(session)
        first = time.perf_counter() - started
        event.remove(engine, "before_cursor_execute", note)
    times = []
    for _ in range(repeat if first < 0.2 else 3):
        async with database.sessions() as session:
            started = time.perf_counter()
            await read(session)
            times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000, said


async def scans(connection: asyncpg.Connection, said: list[tuple[str, Any]]) -> str:
    """What the plans of the statements scan sequentially, the directory and the heads aside; and what they sort."""
    found = set()
    for statement, parameters in said:
        rows = await connection.fetch(f"explain (costs off) {statement}", *parameters)
        found |= {row[0].strip(" ->") for row in rows if "Seq Scan" in row[0]}
    named = {line for line in found if "ledgers" not in line and "heads" not in line}
    return "; ".join(sorted(named))


async def run(url: str, rows: int, repeat: int) -> None:
    parts = make_url(url)
    connection = await asyncpg.connect(
        host=parts.query["host"], user=parts.username, database=parts.database, server_settings=READ_SETTINGS
    )
    base = "timestamptz '2026-01-01Z'"
    await connection.execute("set statement_timeout = 0")
    for number, (name, count, late) in enumerate((("small", 10, 10), ("large", rows, 1000)), start=1):
        said = {"name": f"'{name}'", "json": f'"{name}"', "id": number, "rows": count, "late": late, "base": base}
        await connection.execute(LOAD.format(**said))
    await connection.execute(WIDE.format(rows=rows, base=base))
    database = Database(Settings(_env_file=None, database_url=url, api_key="a-secret-of-the-benchmark"))
    for analysed in (False, True):
        if analysed:
            await connection.execute("vacuum analyze")
        print(f"\n{'analysed' if analysed else 'never analysed'}\n\n| read | 10 rows, ms | {rows:,} rows, ms | scans |")
        print("|---|---|---|---|")
        for (name, small), large in zip(reads("small", 10).items(), reads("large", rows).values(), strict=True):
            little, _ = await measure(database, small, repeat)
            much, statements_run = await measure(database, large, repeat)
            print(f"| {name} | {little:.2f} | {much:.2f} | {await scans(connection, statements_run)} |", flush=True)
        for name, wide in reads_of_wide(rows).items():
            try:
                much, statements_run = await measure(database, wide, repeat)
            except Exception as error:
                print(f"| {name} | | {type(error).__name__} | |", flush=True)
                continue
            print(f"| {name} | | {much:.2f} | {await scans(connection, statements_run)} |", flush=True)
    await database.close()
    await connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Postgres(Path(folder) / "postgres", durable=False) as postgres:
        postgres.create_database("history")
        config = Config(ROOT / "alembic.ini")
        config.attributes["database_url"] = postgres.url("history")
        command.upgrade(config, "head")
        asyncio.run(run(postgres.url("history"), arguments.rows, arguments.repeat))


if __name__ == "__main__":
    main()

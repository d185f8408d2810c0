"""Times of the reads of the past, of sums and of filtered lists: on a handful of rows against a million.

Loads five ledgers by SQL into a throwaway Postgres: `small`, ten transactions between two accounts, and `large`, a
million, of which a thousand are backdated; `few`, ten accounts, and `wide`, a million; and `held`, an account with a
million entries of which a hundred posted anything. Runs every read as the service does, on a pool of its own, before
the tables were ever analysed and after, and looks at the plans of each statement, with its values and without: a
sequential scan is named. Prints one table.

    python -m scripts.bench_history [--rows 1000000] [--repeat 50]
"""

import argparse
import asyncio
import itertools
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError
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
# Pairs of accounts that moved three times, half a day ahead of each other.
WIDE = """
insert into ledgers (name) values ({name});
insert into heads select {id}, {rows} + 1 + {rows} / 2 * 3, 1, {base} + interval '2 days';
insert into events (ledger_id, sequence, kind, recorded_at, actor, configuration)
 values ({id}, 1, 'ledger_created', {base}, 'x', '{{"name": {json}, "revision": 1}}');
insert into events (ledger_id, sequence, kind, recorded_at, actor, account_id, configuration)
 select {id}, n + 1, 'account_opened', {base}, 'x', n + 1, '{{}}' from generate_series(1, {rows}) n;
insert into accounts
 select {id}, n + 1, format('users:%s:%s', n / 100, n % 100), case n / 2 % 100 when 0 then 'EUR/2' else 'USD/2' end,
        case n % 2 when 0 then 'debit' else 'credit' end, case n % 100 when 0 then 'frozen' else 'open' end, null, null,
        case n % 2 when 0 then 21 else 0 end, case n % 2 when 0 then 0 else 21 end, 0, 0, 3, 1, n + 1,
        {base} + interval '36 hours' from generate_series(1, {rows}) n;
insert into events (ledger_id, sequence, kind, recorded_at, actor, postings)
 select {id}, {rows} + 1 + {rows} / 2 * (v - 1) + n, 'transaction_posted', {base} + v * interval '12 hours', 'x',
        format('%s %s %s %s 7', 2 * n + 1, v, 2 * n, v)
   from generate_series(1, 3) v, generate_series(1, {rows} / 2) n;
insert into entries
 select {id}, n + 1, v, {rows} + 1 + {rows} / 2 * (v - 1) + (n + 1) / 2, n % 2 = 0, 'X', 7, 0, 7 * v,
        {base} + v * interval '12 hours'
   from generate_series(1, 3) v, generate_series(1, {rows}) n;
"""
# Every entry but a hundred of them holds, and posts nothing.
HELD = """
insert into ledgers (name) values ({name});
insert into heads select {id}, {rows} + 3, 1, {base} + {rows} * interval '1 second';
insert into events (ledger_id, sequence, kind, recorded_at, actor, configuration)
 values ({id}, 1, 'ledger_created', {base}, 'x', '{{"name": {json}, "revision": 1}}');
insert into accounts select {id}, n, case n when 2 then 'a' else 'b' end, 'USD/2',
       case n when 2 then 'debit' else 'credit' end, 'open', null, null,
       case n when 2 then 100 else 0 end, case n when 2 then 0 else 100 end, 0, 0, {rows}, 1, n,
       {base} + {rows} * interval '1 second' from generate_series(2, 3) n;
insert into events (ledger_id, sequence, kind, recorded_at, actor, postings)
 select {id}, n + 3, case when n % ({rows} / 100) = 0 then 'transaction_posted' else 'transaction_held' end,
        {base} + n * interval '1 second', 'x', format('2 %s 3 %s 1', n, n)
   from generate_series(1, {rows}) n;
insert into entries
 select {id}, a, n, n + 3, a = 2, 'USD/2', case when n % ({rows} / 100) = 0 then 1 else 0 end, 0, n / ({rows} / 100),
        {base} + n / ({rows} / 100) * ({rows} / 100) * interval '1 second'
   from generate_series(1, {rows}) n, generate_series(2, 3) a;
"""
Read = Callable[[AsyncSession], Awaitable[Any]]


def reads(ledger: str, rows: int) -> dict[str, Read]:
    """Each read that the service offers on a ledger of two accounts, somewhere in its middle."""
    middle = BASE + timedelta(seconds=rows // 2)
    page: dict[str, Any] = {"after": None, "limit": 100}
    deep = page | {"after": rows // 2}
    at = history.Moment(middle, rows // 2)
    one_day = {"start": middle - timedelta(days=1), "end": middle, "pinned": None}
    effective, known = AsOf(effective=middle), AsOf(sequence=rows // 2)
    both = AsOf(effective=middle, sequence=rows)

    def balance(as_of: AsOf) -> Read:
        return lambda s: history.get_account_balance(s, ledger, "a", as_of)

    def statement(order: Any, after: Any) -> Read:
        return lambda s: statements.list_entries_in_effective_order(
            s, ledger, "a", order=order, after=after, pinned=None, limit=100
        )

    return {
        "balance now": lambda s: queries.get_account(s, ledger, "a", now=BASE),
        "balance as of an effective time": balance(effective),
        "balance as of a sequence": balance(known),
        "balance as of both": balance(both),
        "balance as of both and a recorded time": balance(replace(both, recorded=middle + timedelta(hours=1))),
        "statement, recorded, newest": lambda s: queries.list_account_entries(s, ledger, "a", order="newest", **page),
        "statement, recorded, from the middle": lambda s: queries.list_account_entries(
            s, ledger, "a", order="oldest", **deep
        ),
        "statement, effective, newest": statement("newest", None),
        "statement, effective, from the middle": statement("oldest", at),
        "transactions by account, newest": lambda s: finding.list_transactions_of_account(
            s, ledger, "a", order="newest", **page
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
            s, ledger, order="newest", **one_day, **page
        ),
        "totals of two accounts": lambda s: totals.get_totals(s, ledger, prefix=None, as_of=AsOf(), **page, now=BASE),
        "totals of two accounts as of both": lambda s: totals.get_totals(
            s, ledger, prefix=None, as_of=both, **page, now=BASE
        ),
    }


def reads_of_accounts(ledger: str, rows: int) -> dict[str, Read]:
    """Each read over the accounts of a ledger that has many."""
    page: dict[str, Any] = {"after": None, "limit": 100}
    middle = f"users:{rows // 200}"
    never_since, since = AsOf(effective=BASE + timedelta(days=3)), AsOf(effective=BASE + timedelta(days=1))
    known = AsOf(sequence=rows + 1 + rows // 2 * 2)

    def accounts(**by: str) -> Read:
        return lambda s: finding.find_accounts(s, ledger, **by, **page, now=BASE)

    def sums(prefix: str | None, as_of: AsOf = AsOf()) -> Read:  # noqa: B008 - a frozen value
        return lambda s: totals.get_totals(s, ledger, prefix=prefix, as_of=as_of, **page, now=BASE)

    def trial(as_of: AsOf) -> Read:
        return lambda s: totals.get_trial_balance(s, ledger, as_of=as_of, **page)

    return {
        "accounts below a prefix (100)": lambda s: finding.list_accounts_below(s, ledger, middle, **page, now=BASE),
        "accounts by asset (a hundredth)": accounts(asset="EUR/2"),
        "accounts by asset (nearly all)": accounts(asset="USD/2"),
        "accounts by status (a hundredth)": accounts(status="frozen"),
        "accounts by status (none)": accounts(status="closed"),
        "totals below a prefix (100)": sums(middle),
        "totals below a prefix (100) as of an effective time": sums(middle, since),
        "trial balance": trial(AsOf()),
        "trial balance as of an effective time, nothing later": trial(never_since),
        "trial balance as of an effective time, all later": trial(since),
        "trial balance as of a sequence, all later": trial(known),
        "trial balance as of both, all later": trial(replace(since, sequence=known.sequence)),
    }


def reads_of_held(ledger: str, rows: int) -> dict[str, Read]:
    """A statement of few lines among many holds."""
    page: dict[str, Any] = {"after": None, "limit": 10}
    return {
        "statement of 10 lines among holds, recorded": lambda s: queries.list_account_entries(
            s, ledger, "a", order="newest", **page
        ),
        "statement of 10 lines among holds, effective": lambda s: statements.list_entries_in_effective_order(
            s, ledger, "a", order="newest", pinned=None, **page
        ),
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
        try:
            await read(session)
        finally:
            event.remove(engine, "before_cursor_execute", note)
        first = time.perf_counter() - started
    times = []
    for _ in range(repeat if first < 0.2 else 3):
        async with database.sessions() as session:
            started = time.perf_counter()
            await read(session)
            times.append(time.perf_counter() - started)
    return statistics.median(times) * 1000, said


async def scans(connection: asyncpg.Connection, said: list[tuple[str, Any]]) -> set[str]:
    """What the plans of the statements scan sequentially, the directory and the heads aside: planned for their values,
    as the first executions of a prepared statement are, and for any values."""
    found = set()
    for statement, parameters in said:
        rows = await connection.fetch(f"explain (costs off) {statement}", *parameters)
        await connection.execute(f"set plan_cache_mode = force_generic_plan; prepare said as {statement}")
        anything = f"({', '.join(['null'] * len(parameters))})" if parameters else ""
        rows += await connection.fetch(f"explain (costs off) execute said{anything}")
        await connection.execute("reset plan_cache_mode; deallocate said")
        found |= {row[0].strip(" ->") for row in rows if "Seq Scan" in row[0]}
    return {line for line in found if "ledgers" not in line and "heads" not in line}


async def load(connection: asyncpg.Connection, rows: int, *kinds: str) -> list[tuple[str, Read, Read]]:
    """Fill the tables with some of `KINDS`; each read by its name, on a handful of rows and on so many."""
    base = "timestamptz '2026-01-01Z'"
    found = []
    number = itertools.count(1)
    for kind in kinds:
        statement, make, *sizes = KINDS[kind]
        for name, count in ((name, count or rows) for name, count in sizes):
            said = {"name": f"'{name}'", "json": f'"{name}"', "id": next(number), "rows": count, "base": base}
            await connection.execute(statement.format(late=1000 if count > 1000 else 10, **said))
        small, large = (make(name, count or rows) for name, count in sizes)
        found += [(name, small[name], large[name]) for name in large]
    return found


# What fills a ledger, the reads of it, and the names and sizes of a small one and a large one.
KINDS: dict[str, tuple[Any, ...]] = {
    "transactions": (LOAD, reads, ("small", 10), ("large", None)),
    "accounts": (WIDE, reads_of_accounts, ("few", 10), ("wide", None)),
    "holds": (HELD, reads_of_held, ("held-little", 100), ("held", None)),
}


async def run(url: str, rows: int, repeat: int) -> None:
    parts = make_url(url)
    connection = await asyncpg.connect(
        host=parts.query["host"], user=parts.username, database=parts.database, server_settings=READ_SETTINGS
    )
    await connection.execute("set statement_timeout = 0")
    found = await load(connection, rows, *KINDS)
    database = Database(Settings(_env_file=None, database_url=url, api_key="a-secret-of-the-benchmark"))
    cells: dict[str, list[str]] = {name: [] for name, *_ in found}
    for analysed in (False, True):
        if analysed:
            await connection.execute("vacuum analyze")
        for name, small, large in found:
            little, _ = await measure(database, small, repeat)
            try:
                much, said = await measure(database, large, repeat)
            except (DBAPIError, TimeoutError) as error:
                cells[name] += [f"{little:.2f}", type(error).__name__, "", ""]
                continue
            scanned = "; ".join(sorted(await scans(connection, said)))
            cells[name] += [f"{little:.2f}", f"{much:.2f}", f"{much / little:.1f}", scanned]
            print(f"{name}: {little:.2f} {much:.2f} {scanned}", file=sys.stderr, flush=True)
    titles = ("10", f"{rows:,}", "ratio", "scans")
    print(f"| read, ms | never analysed: {' | '.join(titles)} | analysed: {' | '.join(titles)} |")
    print("|---|" + "---:|---:|---:|---|" * 2)
    for name, row in cells.items():
        print(f"| {name} | {' | '.join(row)} |")
    await database.close()
    await connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeat", type=int, default=50)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Postgres(Path(folder) / "postgres", durable=False) as postgres:
        postgres.create_database("history")
        config = Config(ROOT / "alembic.ini")
        config.attributes["database_url"] = postgres.url("history")
        command.upgrade(config, "head")
        asyncio.run(run(postgres.url("history"), arguments.rows, arguments.repeat))


if __name__ == "__main__":
    main()

"""How the reads are planned as their tables fill, and what they say of accounts that also hold."""

import asyncio
import itertools
import random
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.db import READ_SETTINGS, Database
from app.ledger import history, queries, statements, totals
from app.ledger.history import AsOf
from app.ledger.queries import StatementLine
from scripts.bench_history import KINDS, load, measure, scans
from tests.books import connect
from tests.conftest import settings_for

ROWS = 40_000
BASE = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize("kind", KINDS)
def test_no_read_scans_what_grows(database: str, kind: str) -> None:
    """Neither planned for its values nor for any, neither before the tables were analysed nor after, is an event or
    an entry looked for in any way but by its key."""
    assert {} == asyncio.run(_scan(database, kind))


async def _scan(database: str, kind: str) -> dict[tuple[str, bool], set[str]]:
    """The plans of events and entries that are scans, by the read and whether the tables were analysed."""
    store = Database(settings_for(database))
    connection = await connect(database)
    for table in ("events", "entries", "late_entries", "accounts"):
        await connection.execute(f"alter table {table} set (autovacuum_enabled = off)")
    for name, setting in READ_SETTINGS.items():
        await connection.execute(f"set {name} = '{setting}'")
    found = {}
    reads = await load(connection, ROWS, kind)
    for analysed in (False, True):
        if analysed:
            await connection.execute("analyze")
        for name, *sizes in reads:
            ran = [await measure(store, read, 1) for read in sizes]
            scanned = await scans(connection, [statement for _, said in ran for statement in said])
            # A sum over all accounts reads all accounts, and of a page or two of late entries all are read.
            found[name, analysed] = {line for line in scanned if re.search(" on (events|entries)", line)}
    await connection.close()
    await store.close()
    return {where: lines for where, lines in found.items() if lines}


# Entries of holds, voids and expiries post nothing, are never late, and stand between the others.


@pytest.mark.parametrize("seed", range(6))
def test_what_posts_nothing_is_no_line_and_moves_no_balance(database: str, seed: int) -> None:
    asyncio.run(_fill_and_compare(database, random.Random(seed)))


async def _fill_and_compare(database: str, chance: random.Random) -> None:
    lines = await _fill(database, chance, holds=chance.choice((1, 5, 60)))
    store = Database(settings_for(database))
    try:
        async with store.sessions() as session:
            await _compare(session, lines, chance)
    finally:
        await store.close()


async def _compare(session: AsyncSession, lines: list[StatementLine], chance: random.Random) -> None:
    in_effective_order = sorted(lines, key=lambda line: (line.effective_at, line.version))
    for limit, order in itertools.product((1, 2, 7, 1000), ("oldest", "newest")):
        expected = lines if order == "oldest" else lines[::-1]
        assert expected == await _read(session, False, order, limit)
        found = await _read(session, True, order, limit)
        expected = in_effective_order if order == "oldest" else in_effective_order[::-1]
        assert [line.version for line in expected] == [line.version for line in found]
        balance = 0
        for line in found if order == "oldest" else found[::-1]:
            balance += line.amount
            assert balance == line.balance
    last = max(line.sequence for line in lines)
    for _ in range(60):
        effective = BASE + timedelta(hours=chance.randrange(-5, 80))
        sequence = chance.randrange(last + 1)
        balance = await history.get_account_balance(session, "main", "a", AsOf(effective, sequence))
        in_time = [line for line in lines if line.effective_at <= effective]
        then = sum(line.amount for line in in_time if line.sequence <= sequence)
        assert then == balance.posted
        # Short accounts and long ones are summed in different ways.
        as_of = AsOf(effective, max(sequence, 3))
        assert [(then, then)] == await _sum(session, as_of)
        now = sum(line.amount for line in in_time)
        assert [(now, now)] == await _sum(session, AsOf(effective))


async def _sum(session: AsyncSession, as_of: AsOf) -> list[tuple[int, int]]:
    page = await totals.get_trial_balance(session, "main", as_of=as_of, after=None, limit=9)
    return [(each.debit_balances, each.credit_balances) for each in page.items]


async def _read(session: AsyncSession, effective: bool, order: Any, limit: int) -> list[StatementLine]:
    lines: list[StatementLine] = []
    after: Any = None
    while True:
        said: dict[str, Any] = {"order": order, "after": after, "limit": limit}
        if effective:
            page: Any = await statements.list_entries_in_effective_order(session, "main", "a", pinned=None, **said)
        else:
            page = await queries.list_account_entries(session, "main", "a", **said)
        assert 0 < len(page.items) <= limit
        lines += page.items
        after = page.next
        if after is None:
            return lines
        assert len(page.items) == limit


async def _fill(database: str, chance: random.Random, *, holds: int) -> list[StatementLine]:
    """A ledger by hand, of an account among whose entries so many in a row post nothing; the lines it should have."""
    lines, events, entries, late = [], [], [], []
    balance, seen, version = 0, datetime(1900, 1, 1, tzinfo=UTC), 0
    for _ in range(25):
        for _ in range(chance.randrange(holds + 1)):
            version += 1
            recorded = BASE + timedelta(hours=len(lines) * 3, seconds=version)
            events.append((version + 3, "transaction_held", recorded, None))
            entries.append((version, 0, 1, balance, seen))
        version += 1
        recorded = BASE + timedelta(hours=len(lines) * 3, seconds=version)
        effective = recorded if chance.random() < 0.5 else BASE + timedelta(hours=chance.randrange(len(lines) * 3 + 1))
        amount = chance.randrange(1, 10)
        balance, former, seen = balance + amount, seen, max(seen, effective)
        events.append((version + 3, "transaction_posted", recorded, effective if effective != recorded else None))
        entries.append((version, amount, 0, balance, seen))
        if effective < former:
            late.append((effective, version, amount))
        lines.append(
            StatementLine(
                version=version,
                sequence=version + 3,
                side="debit",
                amount=amount,
                balance=balance,
                effective_at=effective,
                recorded_at=recorded,
                late=effective < former,
                reference=None,
                group=None,
                description=None,
            )
        )
    await _insert(database, events, entries, late, seen)
    return lines


async def _insert(database: str, events: Any, entries: Any, late: Any, seen: datetime) -> None:
    connection = await connect(database)
    last = events[-1][0]
    opened = [(number, "account_opened", BASE, None) for number in (1, 2, 3)]
    await connection.execute("insert into ledgers (name) values ('main')")
    await connection.execute(
        "insert into heads select ledger_id, $1, 1, $2 from ledgers", last, max(event[2] for event in events)
    )
    await connection.execute(
        "insert into events (ledger_id, sequence, kind, recorded_at, actor, effective_at, postings) "
        "select l.ledger_id, e.*, '' from ledgers l, unnest($1::bigint[], $2::text[], $3::timestamptz[], "
        "$4::text[], $5::timestamptz[]) e",
        *map(list, zip(*((n, kind, at, "x", effective) for n, kind, at, effective in opened + events), strict=True)),
    )
    await connection.execute(
        "insert into accounts select ledger_id, n, case n when 2 then 'a' else 'b' end, 'X/0', case n when 2 then "
        "'debit' else 'credit' end, 'open', null, null, "
        "(3 - n) * $1::numeric, (n - 2) * $1::numeric, 0, 0, $2, 1, n, $3 "
        "from ledgers, generate_series(2, 3) n",
        entries[-1][3],
        len(entries),
        seen,
    )
    await connection.execute(
        "insert into entries select ledger_id, a, version, version + 3, a = 2, 'X/0', posted, pending, balance, seen "
        "from ledgers, generate_series(2, 3) a, unnest($1::bigint[], $2::numeric[], $3::numeric[], $4::numeric[], "
        "$5::timestamptz[]) e (version, posted, pending, balance, seen)",
        *map(list, zip(*entries, strict=True)),
    )
    await connection.execute(
        "insert into late_entries select ledger_id, a, effective_at, version, amount from ledgers, "
        "generate_series(2, 3) a, unnest($1::timestamptz[], $2::bigint[], $3::numeric[]) e "
        "(effective_at, version, amount)",
        *(map(list, zip(*late, strict=True)) if late else ([], [], [])),
    )
    await connection.close()

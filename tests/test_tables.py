"""What Postgres itself enforces, whatever a program tries, and how the writer's statements are planned."""

import asyncio
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import make_url

from app.db import WRITE_SETTINGS
from app.ledger.book import READ, READ_WITH_HOLDS
from app.ledger.commands import CreateLedger, Move, OpenAccount, PostTransaction
from app.ledger.journal import WRITE, WRITE_WITH_HOLDS
from app.ledger.submissions import CREATION_KEY, Submission
from app.ledger.writer import LOCK, Database, LedgerWriter
from app.models import metadata
from tests.books import check_invariants, connect, fetch
from tests.conftest import ROOT, Clock, settings_for

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def books(database: str) -> AsyncIterator[asyncpg.Connection]:
    """A connection to a database with a ledger, two accounts, a limit each, and one late entry."""
    store = Database(settings_for(database))
    writer = LedgerWriter(store, Clock(), deadline_s=20)
    commands = [
        CreateLedger("main", None, {}),
        OpenAccount("a", "USD/2", "debit", None, 1_000, None, {}),
        OpenAccount("b", "USD/2", "credit", -5, None, None, {}),
        PostTransaction((Move("a", "b", 700),), None, "first", None, None, {}),
        PostTransaction((Move("a", "b", 1),), NOW, None, None, None, {}),
    ]
    for number, each in enumerate(commands):
        key = b"%016d" % number if number else CREATION_KEY
        await writer.submit("main", Submission(each, key, b"f" * 16, "operator", "-"))
    await writer.drain()
    await store.close()
    connection = await connect(database)
    yield connection
    await connection.close()
    await check_invariants(database)


def test_models_and_migrations_agree(database):
    config = Config(ROOT / "alembic.ini")
    config.attributes["database_url"] = database
    command.check(config)


async def test_settings_of_storage_are_as_the_models_say(database):
    """What no comparison of the two looks at."""
    rows = await fetch(
        database, "select relname, reloptions from pg_class where relkind = 'r' and reloptions is not null"
    )
    wanted = {
        table.name: {f"{name}={value}" for name, value in table.dialect_options["postgresql"]["with"].items()}
        for table in metadata.tables.values()
        if table.dialect_options["postgresql"]["with"]
    }
    assert wanted == {row["relname"]: set(row["reloptions"]) for row in rows}


def check_rule(name: str, refused: asyncpg.PostgresError) -> None:
    """It was this rule that refused. From another machine of a cluster its name comes in the message alone, with the
    number of a shard behind that of a key."""
    if refused.constraint_name is None:
        assert re.search(rf"\b{name}(_\d+)?\b", str(refused))
    else:
        assert name == refused.constraint_name


APPEND_ONLY = ("events", "entries", "late_entries", "idempotency_keys", "ledgers")


@pytest.mark.parametrize("replica", [False, True], ids=["as any role", "as a replica plays"])
@pytest.mark.parametrize("table", APPEND_ONLY)
@pytest.mark.parametrize("statement", ["update {} set ledger_id = ledger_id", "delete from {}", "truncate {} cascade"])
async def test_what_is_recorded_cannot_be_changed(books, table, statement, replica):
    await books.execute(f"set session_replication_role = {'replica' if replica else 'origin'}")
    with pytest.raises(asyncpg.RestrictViolationError) as refused:
        await books.execute(statement.format(table))
    check_rule("append_only", refused.value)


@pytest.mark.parametrize("table", ["accounts", "heads"])
@pytest.mark.parametrize("statement", ["delete from {}", "truncate {}"])
async def test_accounts_and_heads_cannot_be_removed(books, table, statement):
    with pytest.raises(asyncpg.RestrictViolationError):
        await books.execute(statement.format(table))


async def test_a_shut_account_is_posted_to_only_after_a_change_of_its_configuration(books):
    transaction = books.transaction()
    await transaction.start()
    await books.execute("update accounts set status = 'frozen', revision = revision + 1 where path = 'b'")
    async with books.transaction():
        await books.execute("update accounts set status = 'open', credits_pending = 5, revision = revision + 1")
        await books.execute("update accounts set status = 'frozen', revision = revision + 1")
        # What is pending may go: holds on it are voided and expire.
        await books.execute("update accounts set version = version + 1, credits_pending = 1 where path = 'b'")
    for column in ("credits_posted", "credits_pending"):
        with pytest.raises(asyncpg.CheckViolationError) as refused:
            async with books.transaction():
                await books.execute(f"update accounts set {column} = {column} + 1 where path = 'b'")
        check_rule("accounts_shut", refused.value)
    await books.execute("update accounts set credits_posted = 800, revision = revision + 2 where path = 'b'")
    await transaction.rollback()


ENTRY = "insert into entries values (1, {account}, {version}, 9, {debit}, '{asset}', {posted}, {pending}, 0, now())"


@pytest.mark.parametrize(
    ("debit", "credit"),
    [
        ({"posted": 5, "pending": 0}, {"posted": 4, "pending": 0}),
        ({"posted": 5, "pending": 1}, {"posted": 5, "pending": 0}),
        ({"posted": 5, "pending": 0, "asset": "EUR/2"}, {"posted": 5, "pending": 0}),
    ],
    ids=["posted", "pending", "across assets"],
)
async def test_entries_that_do_not_sum_to_zero_are_refused(books, debit, credit):
    def row(said, **where):
        said = {"asset": "USD/2", **said, **where}
        return ENTRY.format(**said).split("values ")[1]

    rows = f"{row(debit, account=2, version=90, debit=True)}, {row(credit, account=3, version=90, debit=False)}"
    with pytest.raises(asyncpg.CheckViolationError) as refused:
        await books.execute(f"insert into entries values {rows}")
    check_rule("entries_zero_sum", refused.value)


HELD = (
    "insert into holds values (1, 4, 'pending', null, 1); "
    "insert into hold_lines values (1, 4, 0, 2, 3, 10, 0, 0, false)"
)


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("insert into events values (1, 10, 'x', now(), 'x'), (1, 12, 'x', now(), 'x')", "events_gapless"),
        ("insert into events values (1, 4, 'x', now(), 'x')", "events_pkey"),
        (
            "insert into events (ledger_id, sequence, kind, recorded_at, actor, reference) "
            "values (1, 6, 'x', now(), 'x', 'first')",
            "events_reference_key",
        ),
        ("update heads set sequence = 3, revision = revision + 1", "heads_forward"),
        ("update heads set revision = revision", "heads_forward"),
        ("update heads set revision = revision + 2", "heads_forward"),
        ("update heads set revision = revision + 1, recorded_at = '2000-01-01'", "heads_forward"),
        ("update heads set ledger_id = 7, revision = revision + 1", "heads_forward"),
        (
            "update heads set identity = '00000000-0000-4000-8000-000000000000', revision = revision + 1",
            "heads_forward",
        ),
        ("update accounts set debits_posted = 0 where path = 'a'", "accounts_forward"),
        ("update accounts set version = 0", "accounts_forward"),
        ("update accounts set path = 'c' where path = 'a'", "accounts_forward"),
        ("update accounts set asset = 'EUR/2'", "accounts_forward"),
        ("update accounts set normal_side = 'credit' where path = 'a'", "accounts_forward"),
        ("update accounts set debits_posted = 1001 where path = 'a'", "accounts_maximum_check"),
        ("update accounts set debits_posted = 707 where path = 'b'", "accounts_minimum_check"),
        ("update accounts set debits_pending = 707 where path = 'b'", "accounts_minimum_check"),
        ("update accounts set debits_pending = 400 where path = 'a'", "accounts_maximum_check"),
        ("update accounts set debits_pending = -1", "accounts_counters_check"),
        (
            "update accounts set debits_posted = 10::numeric ^ 38 - 1, credits_posted = 10::numeric ^ 38 - 1, "
            "debits_pending = 1, maximum_balance = null",
            "accounts_overflow_check",
        ),
        ("update accounts set status = 'lost', revision = revision + 1", "accounts_status_check"),
        ("update accounts set status = 'closed', revision = revision + 1", "accounts_closed_check"),
        ("update accounts set status = 'frozen'", "accounts_shut"),
        ("update heads set revision = revision + 1, configured_by = 0", "heads_configured"),
        ("update heads set revision = revision + 1, configured_by = 2", "heads_configured"),
        ("update heads set revision = revision + 1, configuration_revision = 2", "heads_configured"),
        (
            "insert into accounts select ledger_id, 99, path, asset, normal_side, status, null, null, 0, 0, 0, 0, "
            "0, 1, 2, now() from accounts where path = 'a'",
            "accounts_path_key",
        ),
        (
            "insert into events (ledger_id, sequence, kind, recorded_at, actor, subject) values "
            "(1, 6, 'transaction_reversed', now(), 'x', 4), (1, 7, 'transaction_reversed', now(), 'x', 4)",
            "events_reversal_key",
        ),
        ("insert into holds values (1, 4, 'lost', null, 1)", "holds_status_check"),
        (f"{HELD}; update holds set expires_at = now()", "holds_forward"),
        (f"{HELD}; update holds set status = 'voided'; update holds set status = 'pending'", "holds_forward"),
        (f"{HELD}; update hold_lines set captured = 6, released = 5", "hold_lines_held_check"),
        (f"{HELD}; update hold_lines set captured = 9, ended = true", "hold_lines_ended_check"),
        (f"{HELD}; update hold_lines set captured = 6; update hold_lines set captured = 5", "hold_lines_forward"),
        (f"{HELD}; update hold_lines set released = 6; update hold_lines set released = 5", "hold_lines_forward"),
        (f"{HELD}; update hold_lines set held = 11", "hold_lines_forward"),
        (f"{HELD}; update hold_lines set debit_id = 3", "hold_lines_forward"),
        ("insert into idempotency_keys select * from idempotency_keys", "idempotency_keys_pkey"),
        ("insert into entries select * from entries", "entries_pkey"),
        ("insert into late_entries select * from late_entries", "late_entries_key"),
        ("insert into ledgers (name) values ('main')", "ledgers_name_key"),
    ],
)
async def test_a_rule_broken_by_hand_is_refused_by_name(books, statement, constraint):
    """Each rule about money stands a second time in Postgres, under its own name."""
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refused:
        await books.execute(statement)
    check_rule(constraint, refused.value)


async def test_an_amount_of_39_digits_does_not_fit(books):
    with pytest.raises(asyncpg.NumericValueOutOfRangeError):
        await books.execute("update accounts set credits_posted = 10::numeric ^ 38, minimum_balance = null")


async def plans_of(connection: asyncpg.Connection, statement: str) -> list[str]:
    """The generic plan of a statement, as the writer's connections make it."""
    await connection.execute(f"prepare statement as {statement}")
    count = max(int(number) for number in re.findall(r"\$(\d+)", statement))
    rows = await connection.fetch(f"explain (costs off) execute statement({', '.join(['null'] * count)})")
    return [row[0] for row in rows]


WRITERS_STATEMENTS = {
    "read": READ,
    "read with holds": READ_WITH_HOLDS,
    "write": WRITE,
    "write with holds": WRITE_WITH_HOLDS,
    "lock": LOCK,
}


@pytest.mark.parametrize("statement", WRITERS_STATEMENTS.values(), ids=WRITERS_STATEMENTS.keys())
async def test_the_writers_statements_are_planned_well_on_a_fresh_database(database, statement):
    """On tables that were never filled or analysed every look-up goes through an index by at least two columns,
    the head's aside; nothing is scanned."""
    connection = await writer_connection(database)
    plan = await plans_of(connection, statement)
    await connection.close()
    assert not [line for line in plan if "Seq Scan" in line]
    conditions = [line for line in plan if "Index Cond" in line]
    assert conditions
    for place, line in enumerate(plan):
        if "Index Cond" in line and "heads" not in plan[place - 1]:
            assert line.count("ledger_id") == 1, line
            assert " AND " in line, line


async def test_a_fresh_database_is_not_scanned_while_it_fills(database):
    """20,000 posts into a database that nobody analysed: no sequential scan of a table that grows."""
    await fetch(database, "alter table accounts set (autovacuum_enabled = off)")
    store = Database(settings_for(database))
    writer = LedgerWriter(store, Clock(), deadline_s=60)

    async def submit(key: str, each) -> None:
        digest = CREATION_KEY if key == "" else key.encode().ljust(16)
        await writer.submit("main", Submission(each, digest, b"f" * 16, "operator", "-"))

    await submit("", CreateLedger("main", None, {}))
    for n in range(100):
        await submit(f"a{n}", OpenAccount(f"a{n}", "USD/2", "debit", None, None, None, {}))
    for start in range(0, 20_000, 500):
        moves = ((Move(f"a{n % 100}", f"a{(n * 7 + 1) % 100}", 1),) for n in range(start, start + 500))
        posts = [
            PostTransaction(move, None, f"r{start + n}" if n % 10 == 0 else None, None, None, {})
            for n, move in enumerate(moves)
            if move[0].debit_account != move[0].credit_account
        ]
        await asyncio.gather(*(submit(f"p{start + n}", each) for n, each in enumerate(posts)))
    await store.close()
    await asyncio.sleep(1.2)  # the server's statistics arrive up to a second later
    rows = await fetch(database, "select relname, seq_scan from pg_stat_user_tables where schemaname = 'public'")
    scans = {row["relname"]: row["seq_scan"] for row in rows}
    assert {
        "events": 0,
        "entries": 0,
        "accounts": 0,
        "idempotency_keys": 0,
        "late_entries": 0,
        "holds": 0,
        "hold_lines": 0,
        "api_keys": 0,
    } == {name: count for name, count in scans.items() if name not in ("ledgers", "heads", "alembic_version")}
    await check_invariants(database)


async def writer_connection(database: str) -> asyncpg.Connection:
    url = make_url(database)
    settings = WRITE_SETTINGS | {"plan_cache_mode": "force_generic_plan"}
    return await asyncpg.connect(
        host=url.query["host"], user=url.username, database=url.database, server_settings=settings
    )

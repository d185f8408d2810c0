"""Two processes behind pgbouncer in transaction mode, which has fewer servers than they have connections."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from app.db import CHECK_SETTINGS, KEY_SETTINGS, READ_SETTINGS, WRITE_SETTINGS, Database
from scripts.pgbouncer import BINARY, start_pgbouncer
from tests.books import fetch
from tests.conftest import Processes, as_service, settings_for, start_processes
from tests.test_concurrency import play_and_check
from tests.test_feed import client_of, prepare, seconds_until_woken

pytestmark = pytest.mark.skipif(BINARY is None, reason="needs pgbouncer")
SERVERS = 3
TRANSACTIONS = 400


@pytest.fixture
def pooler(database: str, tmp_path: Path) -> Iterator[str]:
    with start_pgbouncer(as_service(database), tmp_path, servers=SERVERS) as url:
        yield url


@pytest.fixture
def pooled(database: str, pooler: str, tmp_path: Path) -> Iterator[Processes]:
    with start_processes(database, 2, tmp_path, DATABASE_URL=pooler, TRANSACTION_POOLER="true") as running:
        yield running


def test_posts_holds_and_races_come_to_one_order(pooled: Processes) -> None:
    """What two processes are asked by 64 callers, every answer held against the model, as without a pooler."""
    report = play_and_check(pooled, TRANSACTIONS)
    assert report["transaction_held"]
    assert report["expired"]


def test_an_event_of_another_process_is_found_by_the_net(pooled: Processes) -> None:
    """Nobody can listen there, so it takes a look, which there is once a second."""
    with client_of(pooled.urls[0]) as waiting, client_of(pooled.urls[1]) as posting:
        after = prepare(posting)
        for more in range(3):
            seconds_until_woken(waiting, posting, after + more)


def test_a_key_is_known_and_revoked_in_the_other_process(pooled: Processes) -> None:
    key = {"name": "shop", "label": "shop", "operations": ["read"]}
    with client_of(pooled.urls[0]) as making, client_of(pooled.urls[1]) as other:
        made = making.post("/v1/api-keys", json=key)
        assert 201 == made.status_code, made.text
        headers = {"Authorization": f"Bearer {made.json()['secret']}"}
        assert 200 == other.get("/v1/ledgers", headers=headers).status_code
        assert 200 == making.post("/v1/api-keys/shop/revoke").status_code
        time.sleep(1)
        assert 401 == other.get("/v1/ledgers", headers=headers).status_code


@pytest.mark.anyio
async def test_every_transaction_has_the_settings_of_its_kind(database: str, pooler: str) -> None:
    """What a session is elsewhere told once, and what pgbouncer would refuse or forget."""
    store = Database(settings_for(pooler, database_url=pooler, transaction_pooler=True))
    writes = WRITE_SETTINGS | {"plan_cache_mode": "force_generic_plan", "transaction_isolation": "read committed"}
    writes |= {"statement_timeout": "5400ms"}
    reads = READ_SETTINGS | {"transaction_isolation": "repeatable read", "transaction_read_only": "on"}
    reads |= {"statement_timeout": "7200ms"}
    try:
        for _ in range(SERVERS * 2):
            async with store.sessions() as session, store.writes.acquire() as connection:
                async with connection.atomic():  # while both have a server, they have different ones
                    assert await effects(session, reads) == reads
                    for name, value in writes.items():
                        assert value == await connection.fetchval("select current_setting($1)", name)
            async with store.keys.acquire() as connection, connection.atomic():
                for name, value in KEY_SETTINGS.items():
                    assert value == await connection.fetchval("select current_setting($1)", name)
            async with store.checks.connect() as checks:
                assert await effects(checks, CHECK_SETTINGS) == CHECK_SETTINGS
        assert "on" == await through(store, "select current_setting('enable_seqscan')", set_nothing=True)
    finally:
        await store.close()
    servers = await fetch(database, "select count(*) from pg_stat_activity where datname = current_database()")
    assert servers[0][0] <= SERVERS + 1


async def effects(session, settings: dict[str, str]) -> dict[str, str]:  # type: ignore[no-untyped-def]
    found = {}
    for name in settings:
        found[name] = (await session.execute(text("select current_setting(:name)"), {"name": name})).scalar()
    return found


async def through(store: Database, query: str, *, set_nothing: bool) -> str:
    """Ask past what is set in each transaction: nothing of it may have stayed with the server."""
    async with store.writes.acquire() as connection:
        await connection._connection.execute("begin")
        try:
            return await connection._connection.fetchval(query)
        finally:
            await connection._connection.execute("rollback")


@pytest.mark.anyio
async def test_no_statement_stays_prepared(database: str, pooler: str) -> None:
    store = Database(settings_for(pooler, database_url=pooler, transaction_pooler=True))
    try:
        for number in range(20):
            async with store.writes.acquire() as connection:
                assert number == await connection.fetchval("select $1::integer", number)
            async with store.sessions() as session:
                assert number == await session.scalar(text("select cast(:n as integer)"), {"n": number})
                assert 0 == await session.scalar(text("select count(*) from pg_prepared_statements where name <> ''"))
    finally:
        await store.close()


@pytest.mark.anyio
async def test_without_the_setting_the_pooler_refuses_the_connection(pooler: str) -> None:
    """So that nobody works behind one by mistake with half of the settings."""
    store = Database(settings_for(pooler, database_url=pooler))
    try:
        with pytest.raises(Exception, match="unsupported startup parameter"):
            async with store.sessions() as session:
                await session.execute(text("select 1"))
    finally:
        await store.close()

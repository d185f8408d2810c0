"""Verification: clean books verify clean while others write, and each planted fault is named."""

import asyncio
import itertools
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy.engine import make_url

from app.db import Database
from app.ledger import verify
from app.ledger.refusals import LedgerNotFound
from app.ledger.verify import RANGE_CHECKS, TRIGGERS, WHOLE_CHECKS, verify_ledger, verify_range
from scripts.postgres import Postgres
from tests.books import check_invariants, connect, fetch_now, new_key, open_account, post, transaction
from tests.conftest import KEY, ROOT, Processes, serve, settings_for

PAST = "2020-01-01T00:00:00Z"
TABLES = ("events", "entries", "late_entries", "idempotency_keys", "ledgers", "accounts", "heads")
# What a fault that is planted by hand must not set off.
ASLEEP = "; ".join(f"alter table {table} disable trigger user" for table in TABLES)
AWAKE = "; ".join(
    f"alter table {table} enable {'always ' if mode == 'A' else ''}trigger {name}"
    for (table, name), mode in TRIGGERS.items()
)
LAST = "(select sequence from heads where ledger_id = 1)"
# One ledger: event 1; accounts a, b, c opened by 2, 3, 4; then transactions 5 to 11, of which 8 is late;
# 12 opens another account, 13 closes the books, 14 is a transaction.
FAULTS: dict[str, tuple[str, set[str]]] = {
    "an event is missing in the log": (
        """insert into events (ledger_id, sequence, kind, recorded_at, actor, configuration)
            select 1, sequence + 2, 'ledger_changed', recorded_at, 'x', '{}' from heads where ledger_id = 1;
            insert into idempotency_keys select 1, 'k', 'f', sequence + 2 from heads where ledger_id = 1;
            update heads set sequence = sequence + 2 where ledger_id = 1""",
        {"sequence_gapless"},
    ),
    "a recorded time falls": (
        "update events set recorded_at = recorded_at - interval '1 year' where sequence = 3",
        {"recorded_at_never_falls"},
    ),
    "the head is ahead of the log": ("update heads set sequence = sequence + 1", {"head_is_last_event"}),
    "the head is behind the time of the log": (
        "update heads set recorded_at = recorded_at - interval '1 second'",
        {"head_is_last_event"},
    ),
    "one side of a transaction is of another asset": (
        "update entries set asset = 'EUR/2' where sequence = 6 and debit",
        {"entries_sum_to_zero"},
    ),
    "both sides of a transaction are of another asset": (
        "update entries set asset = 'EUR/2' where sequence = 6",
        {"entries_sum_to_zero"},
    ),
    "a posting has become more than its entries": (
        "update events set postings = regexp_replace(postings, '[0-9]+$', '777') where sequence = 6",
        {"postings_have_entries", "entries_have_postings", "log_rebuilds_accounts"},
    ),
    "a posting is not to be read": (
        "update events set postings = 'x' where sequence = 6",
        {"postings_have_entries", "entries_have_postings", "log_rebuilds_accounts"},
    ),
    "a posting is gone from its event": (
        "update events set postings = split_part(postings, ';', 1) where sequence = 7",
        {"entries_have_postings", "log_rebuilds_accounts"},
    ),
    "an entry has no event": (
        """insert into entries values (1, 99, 1, 999, true, 'USD/2', 1, 0, 1, now()),
                                      (1, 99, 2, 999, false, 'USD/2', 1, 0, 0, now())""",
        {"entries_have_events"},
    ),
    "an event of a transaction has gone": (
        "update events set postings = null where sequence = 6",
        {"entries_have_events", "log_rebuilds_accounts"},
    ),
    "a balance does not follow": (
        "update entries set balance = balance + 1 where account_id = 2 and version = 3",
        {"balances_run"},
    ),
    "the latest effective time is not the latest": (
        """update entries set latest_effective = latest_effective + interval '1 hour'
            where account_id = 4 and version = (select max(version) from entries where account_id = 4);
           update accounts set latest_effective = latest_effective + interval '1 hour' where account_id = 4""",
        {"latest_effective_runs"},
    ),
    "a late entry has no row beside it": ("delete from late_entries where account_id = 2", {"late_entries_match"}),
    "a late entry has another amount": (
        "update late_entries set amount = amount + 1 where account_id = 2",
        {"late_entries_match"},
    ),
    "an entry in time has a row for late ones": (
        f"insert into late_entries values (1, 2, '{PAST}', 1, 5)",
        {"late_entries_match"},
    ),
    "a counter has too much": (
        "update accounts set debits_posted = debits_posted + 1, credits_posted = credits_posted + 1 where path = 'a'",
        {"counters_are_fold_of_entries", "log_rebuilds_accounts"},
    ),
    "a pending counter moved by itself": (
        "update accounts set debits_pending = 1 where path = 'a'",
        {"counters_are_fold_of_entries", "log_rebuilds_accounts"},
    ),
    "a version counts too much": (
        "update accounts set version = version + 1 where path = 'a'",
        {"counters_are_fold_of_entries", "log_rebuilds_accounts"},
    ),
    "an account's status was changed by hand": (
        "update accounts set status = 'frozen' where path = 'a'",
        {"configuration_is_last_event", "log_rebuilds_accounts"},
    ),
    "an account names the event of another": (
        "update accounts set configured_by = 3 where path = 'a'",
        {"configuration_is_last_event"},
    ),
    "an account is past its limits": (
        """alter table accounts drop constraint accounts_minimum_check;
           update accounts set minimum_balance = 100000 where path = 'a';
           update events set configuration = configuration || '{"minimum_balance": "100000"}' where sequence = 2""",
        {"limits_hold"},
    ),
    "an account is not in the log": (
        """insert into accounts select 1, 1, 'z', asset, normal_side, status, null, null, 0, 0, 0, 0, 0, 1, 1,
                                       '1900-01-01 00:00:00+00' from accounts where path = 'b'""",
        {"configuration_is_last_event", "log_rebuilds_accounts"},
    ),
    "an account has gone": (
        "delete from accounts where path = 'unused'",
        {"log_rebuilds_accounts"},
    ),
    "a transaction lies in closed books": (
        """update events set configuration = '{"closed_before": "2999-01-01T00:00:00+00:00"}'
            where kind = 'period_closed';
           update heads set closed_before = '2999-01-01'""",
        {"closed_periods_hold"},
    ),
    "the head has other books closed than the log": (
        "update heads set closed_before = null",
        {"closed_periods_hold"},
    ),
    "two keys have one effect": (
        f"insert into idempotency_keys select 1, 'second', 'f', {LAST}",
        {"one_effect_per_key"},
    ),
    "a key has an effect that is not there": (
        "insert into idempotency_keys select 1, 'second', 'f', 0",
        {"one_effect_per_key"},
    ),
    "an effect has lost its key": ("delete from idempotency_keys where sequence = 6", {"effects_have_keys"}),
    "a trigger sleeps": (f"{AWAKE}; alter table entries disable trigger entries_append_only", {"triggers_stand"}),
    "a trigger sleeps in a replica": (
        f"{AWAKE}; alter table entries enable trigger entries_append_only",
        {"triggers_stand"},
    ),
    "a trigger is gone": (f"{AWAKE}; drop trigger entries_zero_sum on entries", {"triggers_stand"}),
}


@pytest.fixture(scope="module")
def books(new_database: Callable[[], str]) -> str:
    """The name of a database with one ledger, which nobody is connected to."""
    database = new_database()
    with serve(database) as service, service.client() as client:
        assert 201 == client.post("/v1/ledgers", json={"name": "main"}).status_code
        open_account(client, "main", "a")
        open_account(client, "main", "b", normal_side="credit", minimum_balance="-5")
        open_account(client, "main", "c", maximum_balance="100000")
        two = transaction("a", "b", 3)
        two["postings"] += transaction("c", "a", 2)["postings"]
        bodies = [transaction("a", "b", 100), transaction("a", "b", 50), two, transaction("a", "b", 9)]
        bodies[3]["effective_at"] = PAST
        bodies += [transaction("c", "b", n + 1) for n in range(3)]
        assert [201] * 7 == [post(client, "main", body).status_code for body in bodies]
        assert 422 == post(client, "main", transaction("b", "a", 10**6)).status_code
        open_account(client, "main", "unused")
        closing = {"before": "2021-01-01T00:00:00Z", "reason": "audited"}
        headers = {"Idempotency-Key": new_key()}
        assert 201 == client.post("/v1/ledgers/main/closings", json=closing, headers=headers).status_code
        assert 201 == post(client, "main", transaction("c", "b")).status_code
    return make_url(database).database or ""


@pytest.fixture
def copied(books: str, postgres: Postgres) -> str:
    name = f"{books}_copy_{next(NUMBERS)}"
    postgres.create_database(name, template=books)
    return postgres.url(name)


NUMBERS = itertools.count(1)


async def verify_all(database: str) -> dict[str, verify.Check]:
    store = Database(settings_for(database))
    try:
        report = await verify_ledger(store.sessions, "main")
    finally:
        await store.close()
    return {check.name: check for check in report.checks}


async def ranges(database: str, limit: int) -> set[str]:
    """The invariants that a walk in ranges finds broken."""
    store = Database(settings_for(database))
    broken, after, sequence = set(), 0, 1
    try:
        while after < sequence:
            report = await verify_range(store.sessions, "main", after=after, limit=limit)
            assert after < report.next_after_sequence <= after + limit
            after, sequence = report.next_after_sequence, report.sequence
            broken |= {check.name for check in report.checks if check.offenders}
    finally:
        await store.close()
    return broken


def broken_of(checks: dict[str, verify.Check]) -> set[str]:
    return {name for name, check in checks.items() if check.offenders}


def test_sound_books_verify_and_every_check_has_looked_at_something(copied: str) -> None:
    checks = asyncio.run(verify_all(copied))
    assert set() == broken_of(checks)
    assert list(WHOLE_CHECKS) == list(checks)
    assert [] == [name for name, check in checks.items() if not check.checked]
    assert 14 == checks["sequence_gapless"].checked == checks["effects_have_keys"].checked
    assert 18 == checks["postings_have_entries"].checked == checks["entries_have_postings"].checked


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named_and_nothing_else(copied: str, fault: str) -> None:
    statements, expected = FAULTS[fault]

    async def plant() -> None:
        connection = await connect(copied)
        await connection.execute(f"begin; {ASLEEP}; {statements}; commit")
        if AWAKE not in statements:
            await connection.execute(AWAKE)
        await connection.close()

    asyncio.run(plant())
    checks = asyncio.run(verify_all(copied))
    assert expected == broken_of(checks)
    assert [] == [name for name in expected if not checks[name].first_offender]
    for limit in (1, 5, 10_000):
        assert asyncio.run(ranges(copied, limit)) <= expected
    if len(expected) == 1 and expected <= set(RANGE_CHECKS) and fault != "an entry in time has a row for late ones":
        assert expected == asyncio.run(ranges(copied, 10_000))


@pytest.mark.parametrize("page", [1, 2, 3])
def test_pages_of_any_size_say_the_same(copied: str, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    usual = asyncio.run(verify_all(copied))
    for name in ("EVENTS_PAGE", "ACCOUNTS_PAGE", "ENTRIES_PAGE", "LATE_PAGE", "KEYS_PAGE", "POSTINGS_BYTES_PAGE"):
        monkeypatch.setattr(verify, name, page)
    assert usual == asyncio.run(verify_all(copied))


def test_the_triggers_that_are_looked_for_are_those_there_are(copied: str) -> None:
    found = fetch_now(
        copied,
        "select tgrelid::regclass::text as owner, tgname::text as name, tgenabled::text as mode "
        "from pg_trigger where not tgisinternal",
    )
    assert TRIGGERS == {(row["owner"], row["name"]): row["mode"] for row in found}


def test_a_ledger_that_is_not_there_is_not_verified(copied: str) -> None:
    async def ask() -> None:
        store = Database(settings_for(copied))
        try:
            await verify_ledger(store.sessions, "nowhere")
        finally:
            await store.close()

    with pytest.raises(LedgerNotFound):
        asyncio.run(ask())


def test_a_busy_ledger_verifies_while_two_processes_write(two_processes: Processes) -> None:
    asyncio.run(_verify_while_writing(two_processes))
    asyncio.run(check_invariants(two_processes.database))


async def _verify_while_writing(running: Processes) -> None:
    paths = [f"a{n}" for n in range(6)]
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as client:
        url = f"{running.urls[0]}/v1/ledgers"
        assert 201 == (await client.post(url, json={"name": "main"})).status_code
        for path in paths:
            body = {"path": path, "asset": "USD/2", "normal_side": "debit", "minimum_balance": "-100"}
            answer = await client.post(f"{url}/main/accounts", json=body, headers={"Idempotency-Key": new_key()})
            assert 201 == answer.status_code
        stopped = asyncio.Event()
        posted = 0

        async def write(number: int) -> None:
            nonlocal posted
            for count in itertools.count():
                if stopped.is_set():
                    return
                body: dict[str, Any] = transaction(paths[(number + count) % 6], paths[(number + count + 1) % 6], 3)
                if count % 5 == 0:
                    body["effective_at"] = PAST
                target = f"{running.urls[number % 2]}/v1/ledgers/main/transactions"
                answer = await client.post(target, json=body, headers={"Idempotency-Key": new_key()})
                assert answer.status_code in (201, 422)
                posted += answer.status_code == 201
                if count % 10 == 0:
                    opening = {"path": new_key(), "asset": "USD/2", "normal_side": "debit"}
                    target = f"{running.urls[0]}/v1/ledgers/main/accounts"
                    await client.post(target, json=opening, headers={"Idempotency-Key": new_key()})

        writers = [asyncio.create_task(write(number)) for number in range(8)]
        try:
            for _ in range(4):
                await asyncio.sleep(0.5)
                assert set() == broken_of(await verify_all(running.database))
                assert set() == await ranges(running.database, 200)
        finally:
            stopped.set()
            await asyncio.gather(*writers)
        assert posted > 50


# Over HTTP.


def test_a_ledger_is_verified_in_ranges_over_http(client: httpx.Client, ledger: str) -> None:
    open_account(client, ledger, "a")
    open_account(client, ledger, "b")
    for _ in range(5):
        post(client, ledger, transaction("a", "b"))
    path = f"/v1/ledgers/{ledger}/verification"
    seen, after = 0, 0
    while after < 8:
        report = client.get(path, params={"after_sequence": after, "limit": 3}).json()
        assert (after + 1, min(after + 3, 8), 8) == tuple(
            report[name] for name in ("from_sequence", "to_sequence", "sequence")
        )
        assert list(RANGE_CHECKS) == [check["name"] for check in report["checks"]]
        assert [] == [check for check in report["checks"] if check["offenders"] or check["first_offender"]]
        seen += report["checks"][0]["checked"]
        after = report["next_after_sequence"]
    assert 8 == seen
    report = client.get(path, params={"after_sequence": 8}).json()
    assert (9, 8, 8) == tuple(report[name] for name in ("from_sequence", "to_sequence", "next_after_sequence"))
    assert 422 == client.get(path, params={"after_sequence": 9}).status_code
    assert 422 == client.get(path, params={"limit": 10_001}).status_code


def test_a_range_ends_early_where_it_has_seen_enough(copied: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "ENTRIES_RANGE_MAX", 2)
    monkeypatch.setattr(verify, "EVENTS_PAGE", 1)
    with serve(copied) as service, service.client() as client:
        report = client.get("/v1/ledgers/main/verification").json()
    assert (5, 5, 14) == (report["to_sequence"], report["next_after_sequence"], report["sequence"])


# The command.


def run(database: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.verify", *arguments]
    environment = os.environ | {"DATABASE_URL": database}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_prints_each_invariant_and_tells_by_its_status(copied: str) -> None:
    done = run(copied)
    assert (0, "") == (done.returncode, done.stderr)
    assert "main, events 1 to 14" in done.stdout
    assert [] == [name for name in WHOLE_CHECKS if f"  {name} " not in done.stdout]
    assert 0 == run(copied, "main").returncode
    missing = run(copied, "nowhere")
    assert (1, "There is no ledger of the name nowhere.\n") == (missing.returncode, missing.stderr)
    fetch_now(copied, "alter table heads disable trigger heads_forward")
    found = run(copied, "main")
    assert 1 == found.returncode
    assert "trigger heads_forward on heads" in found.stdout

"""Verification: clean books verify clean while others write, and each planted fault is named."""

import asyncio
import itertools
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy.engine import make_url

from app.db import Database
from app.ledger import verify
from app.ledger.refusals import LedgerNotFound
from app.ledger.verification import accounts, hold_rows, keys, late_entries, log, subjects
from app.ledger.verification.checks import RANGE_CHECKS, WHOLE_CHECKS, Check
from app.ledger.verification.guards import TRIGGERS
from app.ledger.verify import verify_ledger, verify_range
from scripts.postgres import Postgres
from tests.books import check_invariants, connect, fetch, fetch_now, new_key, open_account, post, transaction
from tests.conftest import KEY, ROOT, Processes, serve, settings_for
from tests.faults import ASLEEP, AWAKE, EVENTS, FAULTS, PAST, SEEN_BY_THE_WHOLE_ALONE, keep_books


@pytest.fixture(scope="module")
def books(new_database: Callable[[], str]) -> str:
    """The name of a database with one ledger, which nobody is connected to."""
    database = new_database()
    with serve(database) as service, service.client() as client:
        keep_books(client, service.clock)
    return make_url(database).database or ""


@pytest.fixture
def copied(books: str, postgres: Postgres) -> str:
    name = f"{books}_copy_{next(NUMBERS)}"
    postgres.create_database(name, template=books)
    return postgres.url(name)


NUMBERS = itertools.count(1)


async def verify_all(database: str) -> dict[str, Check]:
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


def broken_of(checks: dict[str, Check]) -> set[str]:
    return set(broken_in(checks))


def broken_in(checks: dict[str, Check]) -> dict[str, str | None]:
    return {name: check.first_offender for name, check in checks.items() if check.offenders}


def test_sound_books_verify_and_every_check_has_looked_at_something(copied: str) -> None:
    checks = asyncio.run(verify_all(copied))
    assert set() == broken_of(checks)
    for limit in (1, 2, 7, 10_000):
        assert set() == asyncio.run(ranges(copied, limit))
    assert list(WHOLE_CHECKS) == list(checks)
    assert [] == [name for name, check in checks.items() if not check.checked]
    assert EVENTS == checks["sequence_gapless"].checked == checks["effects_have_keys"].checked + 1
    assert 72 == checks["postings_have_entries"].checked == checks["entries_have_postings"].checked


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_named_and_nothing_else(copied: str, fault: str) -> None:
    statements, expected = FAULTS[fault]

    async def plant() -> None:
        connection = await connect(copied)
        try:
            await connection.execute(f"begin; {ASLEEP}; {statements}; commit")
            if AWAKE not in statements:
                await connection.execute(AWAKE)
        finally:
            await connection.close()

    asyncio.run(plant())
    checks = asyncio.run(verify_all(copied))
    assert expected == broken_of(checks)
    assert [] == [name for name in expected if not checks[name].first_offender]
    for limit in (3, 10_000):
        assert asyncio.run(ranges(copied, limit)) <= expected
    if len(expected) == 1 and expected <= set(RANGE_CHECKS) and fault not in SEEN_BY_THE_WHOLE_ALONE:
        assert expected == asyncio.run(ranges(copied, 10_000))


PAGES = {
    log: ("EVENTS_PAGE", "POSTINGS_BYTES_PAGE", "ENDED_PAGE"),
    subjects: ("SUBJECTS_PAGE",),
    hold_rows: ("LINES_PAGE", "LATER_PAGE", "STRAYS_PAGE"),
    accounts: ("ACCOUNTS_PAGE", "ENTRIES_PAGE"),
    late_entries: ("LATE_PAGE",),
    keys: ("KEYS_PAGE",),
}


@pytest.mark.parametrize("page", [1, 2, 3])
def test_pages_of_any_size_say_the_same(copied: str, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    usual = asyncio.run(verify_all(copied))
    for module, names in PAGES.items():
        for name in names:
            monkeypatch.setattr(module, name, page)
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


def test_a_configuration_is_held_against_what_came_before_it(database: str) -> None:
    """And not against what comes after it: the limits of a moment are those of the log at that moment."""
    with serve(database) as service, service.client() as client:
        open_main(client)
        for debit, credit, amount in (("a", "b", 100), ("b", "a", 60)):
            assert 201 == post(client, "main", transaction(debit, credit, amount)).status_code
        answer = client.put(
            "/v1/ledgers/main/accounts/a",
            json={"revision": 1, "status": "open", "maximum_balance": "50"},
            headers={"Idempotency-Key": new_key()},
        )
        assert 200 == answer.status_code, answer.text
        assert 422 == post(client, "main", transaction("a", "b", 11)).status_code
    assert {} == broken_in(asyncio.run(verify_all(database)))


def test_a_capture_by_a_clock_that_is_behind_the_log_is_sound(database: str) -> None:
    """It is recorded after the hold's time, at the time of the log; its clock had not come to it."""
    with serve(database) as service, service.client() as client:
        open_main(client)
        service.clock.advance(-60)
        expires_at = (service.clock.now + timedelta(seconds=30)).isoformat()
        for _ in range(2):
            body = transaction("a", "b", pending=True, expires_at=expires_at)
            hold = post(client, "main", body).json()["sequence"]
        path = f"/v1/ledgers/main/transactions/{hold}/capture"
        captured = client.post(path, json={}, headers={"Idempotency-Key": new_key()}).json()
        assert captured["recorded_at"] > expires_at
        # The other one is live still, and expires as soon as the clock, still behind, has come to its time.
        assert {} == broken_in(asyncio.run(verify_all(database)))
        service.clock.advance(30)
        assert 201 == post(client, "main", transaction("a", "b")).status_code
    checks = asyncio.run(verify_all(database))
    assert {} == broken_in(checks)
    assert 1 == checks["sequence_gapless"].checked - checks["effects_have_keys"].checked
    assert set() == asyncio.run(ranges(database, 2))


def test_what_is_due_may_take_several_batches(database: str) -> None:
    """Of a thousand holds each, and nothing is said of the commands after them but what is true."""
    with serve(database) as service, service.client() as client:
        open_main(client)
        expires_at = (service.clock.now + timedelta(minutes=1)).isoformat()
        body = transaction("a", "b", pending=True, expires_at=expires_at)
        for count in (1000, 300):
            headers = {"Idempotency-Key": new_key()}
            batch = client.post(
                "/v1/ledgers/main/transaction-batches", json={"transactions": [body] * count}, headers=headers
            )
            assert 200 == batch.status_code, batch.text
        service.clock.advance(3600)
        assert 201 == post(client, "main", transaction("a", "b")).status_code
    checks = asyncio.run(verify_all(database))
    assert {} == broken_in(checks)
    assert 1300 == checks["sequence_gapless"].checked - checks["effects_have_keys"].checked
    assert set() == asyncio.run(ranges(database, 400))


def open_main(client: httpx.Client) -> None:
    assert 201 == client.post("/v1/ledgers", json={"name": "main"}).status_code
    open_account(client, "main", "a")
    open_account(client, "main", "b")


def test_a_busy_ledger_verifies_while_two_processes_write(two_processes: Processes) -> None:
    asyncio.run(_verify_while_writing(two_processes))
    asyncio.run(check_invariants(two_processes.database))


async def _verify_while_writing(running: Processes) -> None:
    paths = [f"a{n}" for n in range(6)]
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {KEY}"}, timeout=60) as client:
        assert 201 == (await client.post(f"{running.urls[0]}/v1/ledgers", json={"name": "main"})).status_code

        async def write(number: int, path: str, body: dict[str, Any]) -> httpx.Response:
            url = f"{running.urls[number % 2]}/v1/ledgers/main{path}"
            answer = await client.post(url, json=body, headers={"Idempotency-Key": new_key()})
            assert answer.status_code in (201, 409, 422), answer.text
            return answer

        for path in paths:
            body = {"path": path, "asset": "USD/2", "normal_side": "debit", "minimum_balance": "-100"}
            assert 201 == (await write(0, "/accounts", body)).status_code
        stopped = asyncio.Event()
        done: Counter[str] = Counter()

        async def keep_writing(number: int) -> None:
            for count in itertools.count():
                if stopped.is_set():
                    return
                body: dict[str, Any] = transaction(paths[(number + count) % 6], paths[(number + count + 1) % 6], 3)
                if count % 5 == 0:
                    body["effective_at"] = PAST
                if number % 2:
                    body["pending"] = True
                if count % 3 == 0 and number % 2:
                    body["expires_at"] = (datetime.now(UTC) + timedelta(seconds=0.3)).isoformat()
                posted = await write(number, "/transactions", body)
                done["posted"] += posted.status_code == 201
                if posted.status_code == 201 and count % 4 < 3:
                    about = f"/transactions/{posted.json()['sequence']}"
                    part = {"amounts": [{"posting": 0, "amount": "1"}], "remainder": "keep"}
                    end = ("capture", {}) if count % 2 else ("void", {})
                    for operation, said in [("capture", part), end] if number % 2 else [("reverse", {})]:
                        answer = await write(number + count, f"{about}/{operation}", said)
                        done[operation] += answer.status_code == 201
                await asyncio.sleep(0.02)
                if count % 10 == 0:
                    await write(0, "/accounts", {"path": new_key(), "asset": "USD/2", "normal_side": "debit"})

        writers = [asyncio.create_task(keep_writing(number)) for number in range(8)]
        try:
            for _ in range(3):
                await asyncio.sleep(0.5)
                assert {} == broken_in(await verify_all(running.database))
                assert set() == await ranges(running.database, 500)
        finally:
            stopped.set()
            await asyncio.gather(*writers)
        assert min(done[name] for name in ("posted", "capture", "void", "reverse")) > 5, done
    found = await fetch(running.database, "select count(*) from holds where status = 'expired'")
    assert 0 < found[0][0]
    assert {} == broken_in(await verify_all(running.database))


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
    monkeypatch.setattr(verify, "ROWS_RANGE_MAX", 2)
    monkeypatch.setattr(log, "EVENTS_PAGE", 1)
    with serve(copied) as service, service.client() as client:
        report = client.get("/v1/ledgers/main/verification").json()
    assert (5, 5, EVENTS) == (report["to_sequence"], report["next_after_sequence"], report["sequence"])


# The command.


def run(database: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "scripts.verify", *arguments]
    environment = os.environ | {"DATABASE_URL": database}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_the_command_prints_each_invariant_and_tells_by_its_status(copied: str) -> None:
    done = run(copied)
    assert (0, "") == (done.returncode, done.stderr)
    assert f"main, events 1 to {EVENTS}" in done.stdout
    assert [] == [name for name in WHOLE_CHECKS if f"  {name} " not in done.stdout]
    assert 0 == run(copied, "main").returncode
    missing = run(copied, "nowhere")
    assert (1, "There is no ledger of the name nowhere.\n") == (missing.returncode, missing.stderr)
    fetch_now(copied, "alter table heads disable trigger heads_forward")
    found = run(copied, "main")
    assert 1 == found.returncode
    assert "trigger heads_forward on heads" in found.stdout

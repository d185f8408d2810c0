"""Clocks that are wrong: of a process, of the database, or of whoever wrote the last event of a ledger."""

import asyncio
import re
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy.engine import make_url

from app import clock as clocks
from app.clock import ClockWatch
from app.db import Database
from app.ledger import expiry, writer
from app.ledger.commands import CreateLedger, Move, OpenAccount, PostTransaction
from app.ledger.refusals import ClockSkewed
from app.ledger.submissions import CREATION_KEY, Receipt, Submission
from app.ledger.writer import LedgerWriter
from scripts.postgres import Postgres
from tests.books import check_invariants, connect, fetch, fetch_now, open_account, post, transaction
from tests.conftest import MovedClock, serve, settings_for, wait_until
from tests.test_writer import cutting_proxy

HOUR = 3600.0
YEAR = 365 * 86400.0
EVENTS = "select sequence, recorded_at from events order by sequence"
# Nobody but a superuser may read the database's clock then, as if it did not answer.
HIDE_CLOCK = "revoke execute on function pg_catalog.clock_timestamp() from public"
SHOW_CLOCK = "grant execute on function pg_catalog.clock_timestamp() to public"


@pytest.fixture
def rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is compared when the service starts, and then only when somebody has it compared."""
    monkeypatch.setattr(clocks, "CHECK_SECONDS", HOUR)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clocks, "CHECK_SECONDS", 0.02)
    monkeypatch.setattr(clocks, "RETRY_SECONDS", 0.02)


def start(stack: ExitStack, database: str, clock: MovedClock, **changes: Any) -> httpx.Client:
    """A client of a service with this clock, which is held against the database's as it is in production."""
    service = stack.enter_context(serve(database, clock=clock, **({"clock_skew_max_s": 5.0} | changes)))
    return stack.enter_context(service.client())


def open_books(client: httpx.Client) -> None:
    assert client.post("/v1/ledgers", json={"name": "main"}).status_code == 201
    for path in ("a", "b"):
        open_account(client, "main", path)


def code(answer: httpx.Response) -> str:
    """The code of a rejection, or nothing of a success."""
    return answer.json()["code"] if answer.status_code >= 400 else ""


def write(client: httpx.Client, key: str | None = None, **changes: Any) -> str:
    return code(post(client, "main", transaction("a", "b", **changes), key))


def count_events(database: str) -> int:
    return len(fetch_now(database, EVENTS))


def metric(client: httpx.Client, name: str) -> float | None:
    found = re.search(rf"^{name} (\S+)$", client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else None


# Processes whose clocks differ.


@pytest.mark.parametrize("ahead_s", [YEAR, HOUR, 60.0, -60.0, -HOUR, -YEAR])
def test_a_process_with_a_wrong_clock_writes_nothing_beside_one_with_a_right_clock(
    database: str, ahead_s: float
) -> None:
    began = datetime.now(UTC)
    with ExitStack() as stack:
        right = start(stack, database, MovedClock())
        wrong = start(stack, database, MovedClock(ahead_s))
        open_books(right)
        for number in range(5):
            assert (write(wrong, f"k{number}"), write(right, f"k{number}")) == ("clock_skewed", "")
        assert code(wrong.post("/v1/ledgers", json={"name": "other"})) == "clock_skewed"
        assert code(right.get("/v1/ledgers/other")) == "ledger_not_found"
        rejected = post(wrong, "main", transaction("a", "b"))
        assert (rejected.status_code, rejected.headers["Retry-After"]) == (503, "1")
        # It reads, and answers a key that was used before.
        assert wrong.get("/v1/ledgers/main/accounts/a").json()["version"] == 5
        again = post(wrong, "main", transaction("a", "b"), "k0")
        assert (again.status_code, again.headers["Idempotency-Replayed"]) == (201, "true")
        assert write(wrong, "k0", amount=2) == "idempotency_key_reused"
    recorded = [row["recorded_at"] for row in fetch_now(database, EVENTS)]
    assert len(recorded) == 3 + 5
    assert all(began <= each <= datetime.now(UTC) for each in recorded)
    asyncio.run(check_invariants(database))


def test_one_process_ahead_and_one_behind_leave_a_ledger_as_it_was(database: str) -> None:
    with ExitStack() as stack:
        right, ahead, behind = (start(stack, database, MovedClock(ahead_s)) for ahead_s in (0.0, YEAR, -YEAR))
        open_books(right)
        expires_at = (datetime.now(UTC) + timedelta(days=30)).isoformat()
        hold = post(right, "main", transaction("a", "b", pending=True, expires_at=expires_at)).json()["sequence"]
        for client in (ahead, behind):
            assert write(client) == "clock_skewed"
        # The hold is due by the clock that is ahead, and is not expired by it.
        assert code(ahead.get("/v1/ledgers/main/accounts/a")) == "clock_skewed"
        assert right.get(f"/v1/ledgers/main/transactions/{hold}").json()["hold_status"] == "pending"
        assert write(right) == ""
    assert count_events(database) == 5


def test_a_sweep_by_a_wrong_clock_submits_nothing(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "LOOK_SECONDS", 0.02)
    with ExitStack() as stack:
        right = start(stack, database, MovedClock())
        open_books(right)
        expires_at = (datetime.now(UTC) + timedelta(days=30)).isoformat()
        assert write(right, pending=True, expires_at=expires_at) == ""
        ahead = start(stack, database, MovedClock(YEAR))
        assert code(ahead.get("/readyz")) == "not_ready"  # its clock has been compared
        time.sleep(0.5)
        assert re.search(r'^tallystick_batches_total{outcome="refused"} 0.0$', ahead.get("/metrics").text, re.M)
    assert count_events(database) == 4


# A clock that jumps.


@pytest.mark.parametrize("jump_s", [YEAR, 30.0, -30.0, -YEAR])
def test_a_jump_is_noticed_by_the_next_write_and_so_is_the_way_back(database: str, rarely: None, jump_s: float) -> None:
    clock = MovedClock()
    with ExitStack() as stack:
        client = start(stack, database, clock)
        open_books(client)
        for number in range(3):
            clock.ahead_s = jump_s
            assert write(client, f"k{number}") == "clock_skewed"
            assert code(client.get("/readyz")) == "not_ready"
            clock.ahead_s = 0.0
            assert write(client, f"k{number}") == ""
            assert client.get("/readyz").status_code == 200
    assert count_events(database) == 3 + 3


def test_a_small_difference_is_no_wrong_clock(database: str) -> None:
    with ExitStack() as stack:
        ahead, behind = (start(stack, database, MovedClock(ahead_s)) for ahead_s in (20.0, -20.0))
        assert code(ahead.get("/readyz")) == code(behind.get("/readyz")) == "not_ready"
        ahead, behind = (
            start(stack, database, MovedClock(ahead_s), clock_skew_max_s=40.0) for ahead_s in (20.0, -20.0)
        )
        open_books(ahead)
        assert [write(client) for client in (behind, ahead, behind, ahead)] == [""] * 4
        assert ahead.get("/readyz").status_code == behind.get("/readyz").status_code == 200
    recorded = [row["recorded_at"] for row in fetch_now(database, EVENTS)]
    assert recorded == sorted(recorded)


def test_a_machine_that_was_suspended_goes_on_at_once(
    database: str, rarely: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the time that elapses does not count the suspension, the clock seems to have jumped."""
    clock = MovedClock()
    with ExitStack() as stack:
        client = start(stack, database, clock)
        open_books(client)
        clock.ahead_s = HOUR
        monkeypatch.setattr(clocks, "READ_CLOCK", "select clock_timestamp() + interval '1 hour'")
        assert write(client) == ""
        assert client.get("/readyz").status_code == 200


def test_a_database_whose_clock_is_set_is_noticed_without_a_write(
    database: str, often: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        client = start(stack, database, MovedClock())
        open_books(client)
        monkeypatch.setattr(clocks, "READ_CLOCK", "select clock_timestamp() + interval '1 hour'")
        wait_until(lambda: (metric(client, "tallystick_clock_skew_seconds") or 0) < -HOUR / 2, seconds_max=60)
        assert write(client) == "clock_skewed"
        assert code(client.get("/readyz")) == "not_ready"
        monkeypatch.setattr(clocks, "READ_CLOCK", "select clock_timestamp()")
        assert write(client) == ""


# The first comparison, and one that cannot be made.


def test_nothing_is_written_before_the_clock_was_compared(database: str, rarely: None) -> None:
    with ExitStack() as stack:
        open_books(start(stack, database, MovedClock()))
    fetch_now(database, HIDE_CLOCK)
    with ExitStack() as stack:
        client = start(stack, database, MovedClock(YEAR))
        assert write(client, "k") == "storage_unavailable"
        assert code(client.get("/readyz")) == "storage_unavailable"
        assert metric(client, "tallystick_clock_skew_seconds") is None
        fetch_now(database, SHOW_CLOCK)
        assert write(client, "k") == "clock_skewed"
        assert client.get("/v1/ledgers/main/accounts/a").status_code == 200
    assert count_events(database) == 3


def test_a_write_waits_for_the_first_comparison_and_needs_no_other(database: str, rarely: None) -> None:
    fetch_now(database, HIDE_CLOCK)
    with ExitStack() as stack:
        client = start(stack, database, MovedClock())
        assert code(client.post("/v1/ledgers", json={"name": "main"})) == "storage_unavailable"
        fetch_now(database, SHOW_CLOCK)
        open_books(client)
        assert write(client) == ""


def test_a_service_starts_without_its_database_and_writes_when_it_is_there(database: str, postgres: Postgres) -> None:
    """No comparison can be made at its start, and nothing waits for one."""
    name = make_url(database).database
    rename = "alter database {} rename to {}".format
    fetch_now(postgres.url("postgres"), rename(name, f"{name}_away"))
    with ExitStack() as stack:
        client = start(stack, database, MovedClock())
        assert code(client.get("/readyz")) == "storage_unavailable"
        assert code(client.post("/v1/ledgers", json={"name": "main"})) == "storage_unavailable"
        fetch_now(postgres.url("postgres"), rename(f"{name}_away", name))
        open_books(client)
        assert write(client) == ""


def test_the_last_comparison_stays_in_force_while_the_databases_clock_cannot_be_read(
    database: str, often: None
) -> None:
    clock = MovedClock()
    with ExitStack() as stack:
        client = start(stack, database, clock)
        open_books(client)
        fetch_now(database, HIDE_CLOCK)
        time.sleep(0.3)  # several comparisons fail
        assert write(client) == ""
        assert client.get("/readyz").status_code == 200
        clock.ahead_s = HOUR
        assert write(client) == "clock_skewed"
        clock.ahead_s = 0.0
        assert write(client) == ""


async def test_a_slow_answer_of_the_database_is_no_wrong_clock(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """When it was given is not known: at any time between the question and the answer."""
    monkeypatch.setattr(clocks, "READINGS_MAX", 1)
    store, clock = Database(settings_for(database)), MovedClock()
    watch = ClockWatch(store, clock, skew_max_s=0.1)
    await watch.confirm()
    for slow in ("select clock_timestamp() from pg_sleep(1)", "select t from clock_timestamp() t, pg_sleep(1)"):
        monkeypatch.setattr(clocks, "READ_CLOCK", slow)
        clock.ahead_s = HOUR
        await watch.confirm()
        assert not watch.is_right(clock())
        clock.ahead_s = 0.0
        assert watch.is_right(clock())
    await store.close()


# A ledger whose last event lies ahead.


def spoil(database: str, ahead_s: float) -> None:
    """Have a ledger written to by a process whose clock is ahead, and that nothing stops."""
    with ExitStack() as stack:
        open_books(start(stack, database, MovedClock(ahead_s), clock_skew_max_s=1e9))


@pytest.mark.parametrize("ahead_s", [150.0, YEAR])
def test_a_ledger_whose_last_event_lies_ahead_is_not_written_to(database: str, ahead_s: float) -> None:
    spoil(database, ahead_s)
    with ExitStack() as stack:
        client = start(stack, database, MovedClock())
        for number in range(3):
            assert write(client, f"k{number}") == "clock_skewed"
        assert client.get("/v1/ledgers/main/accounts/a").status_code == 200
        # It is about this ledger alone.
        assert client.get("/readyz").status_code == 200
        assert client.post("/v1/ledgers", json={"name": "other"}).status_code == 201
        open_account(client, "other", "a")
        assert client.post("/v1/ledgers", json={"name": "main"}).headers["Idempotency-Replayed"] == "true"
    (head,) = fetch_now(database, "select recorded_at from heads join ledgers using (ledger_id) where name = 'main'")
    assert head["recorded_at"] > datetime.now(UTC) + timedelta(seconds=ahead_s - 100)


def test_a_ledger_whose_last_event_is_a_little_ahead_is_followed(database: str) -> None:
    """By less than a minute. Its time never falls, so what follows is recorded at the same time."""
    spoil(database, 59.0)
    with ExitStack() as stack:
        client = start(stack, database, MovedClock())
        assert write(client) == ""
    *_, before, last = fetch_now(database, EVENTS)
    assert last["recorded_at"] == max(before["recorded_at"], last["recorded_at"])
    assert last["sequence"] == 4


def test_what_is_due_in_a_ledger_that_lies_ahead_is_not_read_or_swept(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Left by a version that followed any time: a hold that is due, and whose expiry nobody may write."""
    spoil(database, YEAR)
    with monkeypatch.context() as followed, ExitStack() as stack:
        followed.setattr(writer, "RECORDED_AHEAD_MAX", timedelta(days=1000))
        client = start(stack, database, MovedClock(-60.0), clock_skew_max_s=1e9)
        assert write(client, pending=True, expires_at=datetime.now(UTC).isoformat()) == ""
    monkeypatch.setattr(expiry, "LOOK_SECONDS", 0.02)
    with ExitStack() as stack:
        client = start(stack, database, MovedClock())
        assert code(client.get("/v1/ledgers/main/accounts/a")) == "clock_skewed"
        time.sleep(0.5)
        assert re.search(r'^tallystick_batches_total{outcome="refused"} 1.0$', client.get("/metrics").text, re.M)
        assert client.get("/v1/ledgers/main/events").status_code == 200
    assert count_events(database) == 4


# What is told, and what goes on all the same.


@pytest.mark.parametrize("ahead_s", [HOUR, -HOUR])
def test_readiness_and_a_metric_tell_of_a_wrong_clock(database: str, ahead_s: float) -> None:
    with ExitStack() as stack:
        client = start(stack, database, MovedClock(ahead_s))
        answer = client.get("/readyz")
        assert (answer.status_code, answer.json()["code"], answer.json()["reason"]) == (
            503, "not_ready", "clock_skewed",
        )  # fmt: skip
        assert metric(client, "tallystick_clock_skew_seconds") == pytest.approx(ahead_s, abs=60)
        assert metric(client, "tallystick_clock_skew_limit_seconds") == 5.0
        assert client.get("/healthz").status_code == 200


def test_a_key_is_not_made_by_a_wrong_clock_but_revoked_by_any(database: str) -> None:
    body = {"name": "shop", "operations": ["read"]}
    clock = MovedClock()
    with ExitStack() as stack:
        client = start(stack, database, clock)
        assert client.post("/v1/api-keys", json=body).status_code == 201
        clock.ahead_s = HOUR
        assert code(client.post("/v1/api-keys", json=body | {"name": "other"})) == "clock_skewed"
        assert client.post("/v1/api-keys/shop/revoke").status_code == 200


# Between the check and the write. The writer alone, so that the clock jumps exactly there.


class JumpingClock(MovedClock):
    """Jumps a year ahead once it has been read so many times more."""

    jumps_after: int | None = None

    def __call__(self) -> datetime:
        if self.jumps_after is not None:
            self.ahead_s = YEAR if self.jumps_after <= 0 else 0.0
            self.jumps_after -= 1
        return super().__call__()


class Writing:
    """A writer with a watch over a clock that jumps."""

    def __init__(self, database: str) -> None:
        self.database = Database(settings_for(database))
        self.clock = JumpingClock()
        watch = ClockWatch(self.database, self.clock, skew_max_s=5.0)
        self.writer = LedgerWriter(self.database, self.clock, deadline_s=60, watch=watch)

    async def open(self) -> None:
        await self.submit(CreateLedger("main", None, {}), CREATION_KEY)
        for path in ("a", "b"):
            await self.submit(OpenAccount(path, "USD/2", "debit", None, None, None, {}), path.encode())

    async def submit(self, command: Any, key: bytes) -> Receipt:
        return await self.writer.submit("main", Submission(command, key, b"f" * 16, "operator", "-"))

    async def post(self, key: bytes = b"k") -> Receipt:
        return await self.submit(PostTransaction((Move("a", "b", 1),), None, None, None, "a write", {}), key)


# How often the clock is read for a batch: before it, and when it is decided.
READS = 2


async def test_a_clock_that_jumps_between_the_check_and_the_batch_records_nothing(database: str) -> None:
    writing = Writing(database)
    await writing.open()
    writing.clock.jumps_after = READS - 1
    with pytest.raises(ClockSkewed):
        await writing.post()
    assert len(await fetch(database, EVENTS)) == 3
    writing.clock.jumps_after = 100
    assert (await writing.post()).event.sequence == 4
    await writing.database.close()


async def test_a_clock_that_jumps_while_another_process_is_faster_records_nothing(database: str) -> None:
    """The batch is decided again behind the head's row lock, by a clock that has become wrong."""
    writing = Writing(database)
    await writing.open()
    rival = await connect(database)
    transaction = rival.transaction()
    await transaction.start()
    await rival.execute("update heads set revision = revision + 1")
    writing.clock.jumps_after = READS
    asked = asyncio.create_task(writing.post())
    waits = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    async with asyncio.timeout(60):
        while not (await fetch(database, waits))[0]["count"]:
            await asyncio.sleep(0.02)
    await transaction.commit()
    with pytest.raises(ClockSkewed):
        await asked
    assert writing.writer.counts.races_lost == 1
    assert len(await fetch(database, EVENTS)) == 3
    await rival.close()
    await writing.database.close()


@pytest.mark.parametrize("arrived", [True, False])
async def test_a_write_in_doubt_is_never_called_surely_without_effect(database: str, arrived: bool) -> None:
    """Its clock jumps while it is lost on the way. Its key tells what became of it, whatever the clock says."""
    async with cutting_proxy(database) as (through, cut_next_reply):
        writing = Writing(through)
        try:
            await writing.open()
            writing.clock.jumps_after = READS
            cut_next_reply(b"a write", before=not arrived)  # which no other statement carries
            if arrived:
                receipt = await writing.post()
                assert (receipt.results[0].sequence, receipt.replayed) == (4, True)
            else:
                with pytest.raises(ClockSkewed):
                    await writing.post()
            assert len(await fetch(database, EVENTS)) == (4 if arrived else 3)
        finally:
            await writing.database.close()
    await check_invariants(database)

"""The feed: who waits for an event is woken by any process, misses nothing, and never holds up a stop."""

import asyncio
import itertools
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from structlog.testing import capture_logs

from app.ledger import feed
from app.ledger.commands import CreateLedger, OpenAccount
from app.ledger.recorded import LogPage
from app.ledger.refusals import Overloaded
from app.ledger.submissions import CREATION_KEY, Submission
from app.ledger.writer import Database, LedgerWriter
from tests.books import check_invariants, connect, fetch, fetch_now, open_account, post, transaction
from tests.conformance import check_answer
from tests.conftest import KEY, Clock, Processes, serve, settings_for, start_processes, wait_until

BOOKS = "/v1/ledgers/main"
WAITS = 25
LISTENERS = (
    "select pid from pg_stat_activity where application_name = 'tallystick-feed' and datname = current_database()"
)


def client_of(url: str) -> httpx.Client:
    headers = {"Authorization": f"Bearer {KEY}"}
    return httpx.Client(base_url=url, headers=headers, timeout=40, event_hooks={"response": [check_answer]})


def prepare(client: httpx.Client) -> int:
    """A ledger with two accounts; the end of its log."""
    assert client.post("/v1/ledgers", json={"name": "main"}).status_code == 201
    open_account(client, "main", "a")
    open_account(client, "main", "b")
    return 3


def wait_for_event(client: httpx.Client, after: int, seconds: int = WAITS) -> httpx.Response:
    return client.get(f"{BOOKS}/events", params={"after_sequence": after, "wait_seconds": seconds})


def seconds_until_woken(waiting: httpx.Client, posting: httpx.Client, after: int) -> float:
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(wait_for_event, waiting, after)
        time.sleep(0.3)
        assert not asked.done()
        assert post(posting, "main", transaction("a", "b")).status_code == 201
        posted = time.monotonic()
        page = asked.result().json()
        assert [after + 1] == [event["sequence"] for event in page["items"]]
        return time.monotonic() - posted


def test_a_page_that_holds_anything_is_answered_at_once(client: httpx.Client, ledger: str) -> None:
    started = time.monotonic()
    page = client.get(f"/v1/ledgers/{ledger}/events", params={"wait_seconds": 25}).json()
    assert 1 == len(page["items"])
    assert time.monotonic() - started < 5


def test_waits_as_long_as_it_is_told_and_answers_an_empty_page(client: httpx.Client, ledger: str) -> None:
    started = time.monotonic()
    page = client.get(f"/v1/ledgers/{ledger}/events", params={"wait_seconds": 1, "after_sequence": 1}).json()
    assert {"items": [], "next_after_sequence": 1, "sequence": 1} == page
    assert 0.9 < time.monotonic() - started < 5


@pytest.mark.parametrize("seconds", ["26", "-1", "1.5", "x", ""])
def test_refuses_to_wait_for_longer_than_the_contract_says(client: httpx.Client, ledger: str, seconds: str) -> None:
    answer = client.get(f"/v1/ledgers/{ledger}/events", params={"wait_seconds": seconds})
    assert (422, "validation_failed") == (answer.status_code, answer.json()["code"])


def test_an_event_of_another_ledger_wakes_nobody(client: httpx.Client, ledger: str) -> None:
    with ThreadPoolExecutor(1) as threads:
        path, params = f"/v1/ledgers/{ledger}/events", {"wait_seconds": 2, "after_sequence": 1}
        asked = threads.submit(client.get, path, params=params)
        time.sleep(0.3)
        assert 201 == client.post("/v1/ledgers", json={"name": f"{ledger}-other"}).status_code
        assert [] == asked.result().json()["items"]


def test_a_post_on_one_process_wakes_a_waiter_on_the_other(two_processes: Processes) -> None:
    with client_of(two_processes.urls[0]) as one, client_of(two_processes.urls[1]) as other:
        after = prepare(one)
        took = [seconds_until_woken(other, one, after + n) for n in range(5)]
        same = [seconds_until_woken(one, one, after + 5 + n) for n in range(3)]
    assert min(took) < 0.3, "well before the look that comes once a second"
    assert min(same) < 0.3


def test_a_consumer_under_load_from_two_processes_sees_every_event_once_in_order(two_processes: Processes) -> None:
    with client_of(two_processes.urls[0]) as one, client_of(two_processes.urls[1]) as other:
        after = prepare(one)
        posts, seen = 200, list[int]()

        def tail(client: httpx.Client) -> None:
            position = after
            while len(seen) < 2 * posts:
                page = wait_for_event(client, position, 5).json()
                assert page["items"], "it was woken for nothing, or not at all"
                seen.extend(event["sequence"] for event in page["items"])
                position = page["next_after_sequence"]

        def load(client: httpx.Client) -> None:
            for _ in range(posts):
                assert 201 == post(client, "main", transaction("a", "b")).status_code

        with ThreadPoolExecutor(3) as threads:
            tailing = threads.submit(tail, other)
            for loading in [threads.submit(load, client) for client in (one, other)]:
                loading.result()
            tailing.result()
    assert list(range(after + 1, after + 2 * posts + 1)) == seen
    asyncio.run(check_invariants(two_processes.database))


def test_without_its_connection_the_net_delivers_and_the_connection_comes_back(two_processes: Processes) -> None:
    database = two_processes.database
    with client_of(two_processes.urls[0]) as one, client_of(two_processes.urls[1]) as other:
        after = prepare(one)
        wait_until(lambda: len(fetch_now(database, LISTENERS)) == 2)
        first = {row["pid"] for row in fetch_now(database, LISTENERS)}
        with ThreadPoolExecutor(1) as threads:
            asked = threads.submit(wait_for_event, other, after)
            time.sleep(0.3)
            fetch_now(database, f"select pg_terminate_backend(pid) from ({LISTENERS}) as listeners")
            assert 201 == post(one, "main", transaction("a", "b")).status_code
            posted = time.monotonic()
            assert 1 == len(asked.result().json()["items"])
            assert time.monotonic() - posted < 5
        wait_until(lambda: len({row["pid"] for row in fetch_now(database, LISTENERS)} - first) == 2)
        assert min(seconds_until_woken(other, one, after + 1 + n) for n in range(5)) < 0.3


def test_the_net_alone_delivers_where_notifications_do_not(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind pgbouncer in transaction mode, where LISTEN is heard by nobody."""
    monkeypatch.setattr(feed, "CHANNEL", "nobody_sends_here")
    with serve(database) as hearing_nothing, serve(database) as other:
        with hearing_nothing.client() as waiting, other.client() as posting:
            after = prepare(posting)
            assert seconds_until_woken(waiting, posting, after) < 5


def test_waiters_hold_no_connection(database: str) -> None:
    with serve(database, read_pool_size=1, pool_timeout_s=1.0) as service, service.client() as client:
        after = prepare(client)
        with ThreadPoolExecutor(8) as threads:
            asked = [threads.submit(wait_for_event, client, after, 20) for _ in range(8)]
            time.sleep(0.5)
            assert 200 == client.get(BOOKS).status_code
            post(client, "main", transaction("a", "b"))
            assert [4] * 8 == [each.result().json()["sequence"] for each in asked]


def test_more_waiters_than_are_allowed_are_overload(database: str) -> None:
    with serve(database, feed_waiters_max=2) as service, service.client() as client:
        after = prepare(client)
        with ThreadPoolExecutor(2) as threads:
            asked = [threads.submit(wait_for_event, client, after, 3) for _ in range(2)]
            time.sleep(0.5)
            refused = wait_for_event(client, after)
            assert (503, "overloaded") == (refused.status_code, refused.json()["code"])
            assert 200 == wait_for_event(client, after, 0).status_code
            assert [200, 200] == [each.result().status_code for each in asked]
        assert 200 == wait_for_event(client, after, 1).status_code, "and those who have gone leave their places"


def test_clients_that_go_away_leave_nothing_behind(database: str) -> None:
    with serve(database, feed_waiters_max=1) as service, service.client() as client:
        after = prepare(client)
        for _ in range(3):
            request = f"GET {BOOKS}/events?after_sequence={after}&wait_seconds=25 HTTP/1.1\r\nHost: h\r\n"
            address = urlsplit(service.url)
            with socket.create_connection((address.hostname, address.port)) as raw:
                raw.sendall(f"{request}Authorization: Bearer {KEY}\r\n\r\n".encode())
                time.sleep(0.5)
                assert 503 == wait_for_event(client, after, 1).status_code
            wait_until(lambda: wait_for_event(client, after, 1).status_code == 200, seconds_max=5)


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_answers_who_waits_and_is_not_held_up(database: str, tmp_path: Path, signum: signal.Signals) -> None:
    with start_processes(database, 1, tmp_path) as running, client_of(running.urls[0]) as client:
        after = prepare(client)
        (process,) = running.processes
        with ThreadPoolExecutor(4) as threads:
            asked = [threads.submit(wait_for_event, client, after) for _ in range(4)]
            time.sleep(0.5)
            stopped = time.monotonic()
            process.send_signal(signum)
            answers = [each.result() for each in asked]
            assert time.monotonic() - stopped < 2
            assert 0 == process.wait(timeout=10)
        expected = {"items": [], "next_after_sequence": after, "sequence": after}
        assert [(200, expected)] * 4 == [(answer.status_code, answer.json()) for answer in answers]
        assert b"Traceback" not in running.logs[0].read_bytes()


# Inside one process.


@pytest.fixture
async def parts(database: str) -> Any:
    store = Database(settings_for(database))
    news = feed.Feed(store, waiters_max=3)
    writer = LedgerWriter(store, Clock(), deadline_s=20, tell=news.tell)
    created = Submission(CreateLedger("main", None, {}), CREATION_KEY, b"f" * 16, "operator", "-")
    await writer.submit("main", created)
    yield news, writer
    await news.close()
    await writer.drain()
    await store.close()


def wait(news: feed.Feed, seconds: float = 20) -> asyncio.Task[Any]:
    return asyncio.ensure_future(news.list_next_events("main", after=1, limit=10, wait_s=seconds))


@pytest.mark.anyio
async def test_a_commit_wakes_waiters_of_its_process_without_the_database(parts: Any) -> None:
    """Neither the connection nor the net was ever started here."""
    news, writer = parts
    asked = wait(news)
    await asyncio.sleep(0.2)
    opened = OpenAccount("a", "USD/2", "debit", None, None, None, {})
    await writer.submit("main", Submission(opened, b"k" * 16, b"f" * 16, "operator", "-"))
    async with asyncio.timeout(5):
        assert [2] == [event.sequence for event in (await asked).items]
    assert {} == news._waiters


@pytest.mark.anyio
async def test_a_cancelled_waiter_leaves_nothing_behind(parts: Any) -> None:
    news, _ = parts
    asked = [wait(news) for _ in range(3)]
    async with asyncio.timeout(5):
        while news._count < 3:
            await asyncio.sleep(0.02)
    with pytest.raises(Overloaded):
        await wait(news)
    for each in asked:
        each.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    assert (0, {}) == (news._count, news._waiters)


@pytest.mark.anyio
async def test_after_a_stop_nobody_waits_any_more(parts: Any) -> None:
    news, _ = parts
    news.stop()
    async with asyncio.timeout(5):
        assert [] == (await wait(news)).items


@pytest.mark.anyio
async def test_what_others_send_on_the_channel_harms_nobody(parts: Any, database: str) -> None:
    news, _ = parts
    news.start()
    asked = wait(news, 2)
    await asyncio.sleep(0.3)
    connection = await connect(database)
    for payload in ("", "x", "1", "1 2 3", "1 99999999999999999999", "\u00e4 1"):
        await connection.execute("select pg_notify($1, $2)", feed.CHANNEL, payload)
    await connection.close()
    assert [] == (await asked).items


# What is committed between the steps of a waiter, or where only the fallback can find it.


class SteppedFeed(feed.Feed):
    """Does something after each of its first reads of a log, before the reader goes on. Counts its reads."""

    def __init__(self, database: Database) -> None:
        super().__init__(database, waiters_max=3)
        self.after_reads: list[Callable[[], Awaitable[None]]] = []
        self.reads = 0

    async def _read(self, ledger: str, identity: str, after: int, limit: int) -> LogPage:
        page = await super()._read(ledger, identity, after, limit)
        self.reads += 1
        if self.after_reads:
            await self.after_reads.pop(0)()
        return page


class Stepped:
    """A feed whose fallback and connection are not started, and writers whose commits it is told of, or is not."""

    def __init__(self, database: str) -> None:
        self.store = Database(settings_for(database))
        self.feed = SteppedFeed(self.store)
        self.told = LedgerWriter(self.store, Clock(), deadline_s=60, tell=self.feed.tell)
        self.untold = LedgerWriter(self.store, Clock(), deadline_s=60)
        self.keys = itertools.count(1)

    async def create(self, ledger: str) -> None:
        await self.untold.submit(
            ledger, Submission(CreateLedger(ledger, None, {}), CREATION_KEY, b"f" * 16, "operator", "-")
        )

    async def open_account(self, ledger: str = "main", *, told: bool = True) -> None:
        number = next(self.keys)
        opened = OpenAccount(f"a{number}", "USD/2", "debit", None, None, None, {})
        writer = self.told if told else self.untold
        await writer.submit(ledger, Submission(opened, str(number).encode().ljust(16), b"f" * 16, "operator", "-"))

    async def wait(self, ledger: str = "main", *, after: int = 1, seconds: float = 60) -> list[int]:
        """The sequences of the next events of a log."""
        page = await self.feed.list_next_events(ledger, after=after, limit=10, wait_s=seconds)
        return [event.sequence for event in page.items]

    async def start_waiting(self, ledger: str = "main", **how: Any) -> asyncio.Task[list[int]]:
        """Begin to wait; give the task once it has read the log and found nothing."""
        reads = self.feed.reads
        waiting = asyncio.create_task(self.wait(ledger, **how))
        async with asyncio.timeout(60):
            while self.feed.reads == reads:
                await asyncio.sleep(0.01)
        return waiting


@pytest.fixture
async def stepped(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stepped]:
    monkeypatch.setattr(feed, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(feed, "CHANNEL", "nobody_sends_here")
    parts = Stepped(database)
    await parts.create("main")
    yield parts
    await parts.feed.close()
    await parts.store.close()


@pytest.mark.anyio
async def test_what_is_committed_just_after_a_waiter_has_read_wakes_it(stepped: Stepped) -> None:
    stepped.feed.after_reads = [stepped.open_account]
    assert await stepped.wait() == [2]


@pytest.mark.anyio
async def test_what_is_committed_while_a_woken_waiter_reads_again_wakes_it_again(
    stepped: Stepped, database: str
) -> None:
    (row,) = await fetch(database, "select ledger_id from ledgers where name = 'main'")

    async def tell_too_early() -> None:
        stepped.feed.tell(row["ledger_id"], 2)

    stepped.feed.after_reads = [tell_too_early, stepped.open_account]
    assert await stepped.wait() == [2]
    assert stepped.feed.reads == 3


@pytest.mark.anyio
async def test_a_waiter_is_not_woken_by_what_it_has_read(stepped: Stepped, database: str) -> None:
    waiting = await stepped.start_waiting(seconds=1)
    (row,) = await fetch(database, "select ledger_id from ledgers where name = 'main'")
    stepped.feed.tell(row["ledger_id"], 1)
    assert await waiting == []
    assert stepped.feed.reads == 1


@pytest.mark.anyio
@pytest.mark.parametrize("grown", ["main", "other", "third"])
async def test_the_fallback_looks_after_every_ledger_that_is_waited_for(stepped: Stepped, grown: str) -> None:
    """Nobody tells this process of the commit, and those who wait for the other ledgers go on waiting."""
    ledgers = ["main", "other", "third"]
    for ledger in ledgers[1:]:
        await stepped.create(ledger)
    stepped.feed.start()
    waiting = {ledger: await stepped.start_waiting(ledger) for ledger in ledgers}
    await stepped.open_account(grown, told=False)
    assert await waiting[grown] == [2]
    assert [ledger for ledger in ledgers if waiting[ledger].done()] == [grown]
    stepped.feed.release()
    assert await asyncio.gather(*waiting.values()) == [[2] if ledger == grown else [] for ledger in ledgers]


@pytest.mark.anyio
async def test_the_fallback_goes_on_after_a_look_that_failed(stepped: Stepped, database: str) -> None:
    waiting = await stepped.start_waiting()
    await fetch(database, "alter table heads rename to planted")
    with capture_logs() as lines:
        stepped.feed.start()
        async with asyncio.timeout(60):
            while not any(line["event"] == "feed_look_failed" for line in lines):
                await asyncio.sleep(0.01)
    await fetch(database, "alter table planted rename to heads")
    await stepped.open_account(told=False)
    assert await waiting == [2]


@pytest.mark.anyio
async def test_a_release_answers_everybody_who_waits_and_nobody_who_comes_after(stepped: Stepped) -> None:
    waiting = [await stepped.start_waiting(seconds=300) for _ in range(2)]
    stepped.feed.release()
    async with asyncio.timeout(60):
        assert await asyncio.gather(*waiting) == [[], []]
    assert stepped.feed.waiting == 0
    again = await stepped.start_waiting(seconds=300)
    await stepped.open_account()
    async with asyncio.timeout(60):
        assert await again == [2]

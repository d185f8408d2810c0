"""A backup is restored in place, under processes that go on running and knew ledgers that were made after it.

The database gives the id of such a ledger to the next one that is made. Its old name is to be found nowhere then, and
never to stand for the ledger of somebody else.
"""

import asyncio
import base64
import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import make_url

from app.access.known_keys import KnownKeys
from app.access.secrets import digest
from app.db import Database
from app.ledger import feed, writer
from app.ledger.book import Book, read_book
from app.ledger.commands import OpenAccount
from app.ledger.known_ledgers import LedgerRef, LedgerReplaced
from app.ledger.queries import get_head, get_ledger
from app.ledger.recorded import get_events
from app.ledger.refusals import LedgerNotFound, OutcomeUnknown, SequenceOutOfRange, StorageUnavailable
from app.ledger.verify import verify_ledger
from scripts.postgres import Postgres, as_ordinary_user, find_binaries
from tests.books import check_invariants, connect, fetch, fetch_now, open_account, post, transaction
from tests.conformance import check_answer
from tests.conftest import KEY, ROOT, Processes, free_port, migrate, serve, settings_for, start_processes, wait_until
from tests.test_writer import Books

SECONDS_MAX = 60
WAITS = 25
SECRET = "the salaries of another team"
PAGED = [
    "accounts",
    "accounts?asset=USD/2",
    "accounts?prefix=a",
    "accounts/a/entries",
    "accounts/a/entries?sort=effective",
    "accounts/a/holds",
    "transactions",
    "transactions?account=a",
    "transactions?group=g",
    "transactions?effective_from=2000-01-01T00:00:00Z",
    "totals",
    "trial-balance",
]
READ = ["", "/events", "/accounts/a", "/accounts/a/balance", "/transactions/5", "/verification"]


# Three ways to restore in place. Each gives what takes the backup, and what restores it.

Restore = Callable[[], None]


@contextlib.contextmanager
def database_made_again(postgres: Postgres, database: str, folder: Path) -> Iterator[Callable[[], Restore]]:
    """The database is dropped, and made again of a copy: another database of the same server, which never stopped."""
    name, server = make_url(database).database, postgres.url("postgres")

    def copy(source: str, target: str) -> None:
        fetch_now(server, f"alter database {source} with allow_connections false")
        fetch_now(server, "select pg_terminate_backend(pid, 20000) from pg_stat_activity where datname = $1", source)
        fetch_now(server, f"create database {target} template {source}")
        fetch_now(server, f"alter database {source} with allow_connections true")

    def restore() -> None:
        fetch_now(server, f"drop database {name} with (force)")
        copy(f"{name}_backup", name)

    def back_up() -> Restore:
        copy(name, f"{name}_backup")
        return restore

    yield back_up


@contextlib.contextmanager
def tables_made_again(postgres: Postgres, database: str, folder: Path) -> Iterator[Callable[[], Restore]]:
    """`pg_restore --clean` in one transaction: the same server and database, and no connection is lost."""
    if shutil.which("pg_dump", path=find_binaries()) is None:
        pytest.skip("needs pg_dump beside the server")
    url = make_url(database)
    where = ["-h", url.query["host"], "-U", "postgres", "-d", url.database]

    def run(program: str, *arguments: str) -> None:
        words = [*as_ordinary_user(), str(find_binaries() / program), *where, *arguments]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
        assert 0 == done.returncode, done.stderr

    def back_up() -> Restore:
        run("pg_dump", "--format=custom", f"--file={folder / 'dump'}")
        return lambda: run("pg_restore", "--clean", "--if-exists", "--single-transaction", str(folder / "dump"))

    yield back_up


@contextlib.contextmanager
def data_put_back(server: Postgres, folder: Path) -> Iterator[Callable[[], Restore]]:
    """The server is stopped, its data replaced by a copy, and started again: the same system and timeline."""

    def restore() -> None:
        server.stop()
        shutil.rmtree(folder / "postgres" / "data")
        shutil.copytree(folder / "copy", folder / "postgres" / "data", symlinks=True)
        (folder / "postgres" / "data").chmod(0o700)
        server.start()

    def back_up() -> Restore:
        server.stop()
        shutil.copytree(folder / "postgres" / "data", folder / "copy", symlinks=True)
        server.start()
        return restore

    yield back_up


@pytest.fixture(params=["database made again", "tables made again", "data put back"])
def deployment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Processes, Callable[[], Restore]]]:
    """Two processes on one database, and what backs it up."""
    if request.param == "data put back":
        port = free_port()
        settings = {"listen_addresses": "127.0.0.1", "port": str(port)}
        with Postgres(tmp_path / "postgres", durable=False, settings=settings) as server:
            server.create_database("books")
            database = f"postgresql+asyncpg://postgres@127.0.0.1:{port}/books"
            migrate(database)
            with (
                data_put_back(server, tmp_path) as back_up,
                start_processes(database, 2, tmp_path) as running,
            ):
                yield running, back_up
        return
    postgres, database = request.getfixturevalue("postgres"), request.getfixturevalue("database")
    way = database_made_again if request.param == "database made again" else tables_made_again
    with way(postgres, database, tmp_path) as back_up, start_processes(database, 2, tmp_path) as running:
        yield running, back_up


class Persistent(httpx.HTTPTransport):
    """Asks again, with the same key, for as long as the service says so: each connection that the process had is found
    lost one after the other."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        deadline = time.monotonic() + SECONDS_MAX
        while True:
            response = super().handle_request(request)
            if response.status_code != 503 or time.monotonic() > deadline:
                return response
            response.close()
            time.sleep(0.1)


def client_of(url: str, key: str = KEY) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"}
    hooks = {"response": [check_answer]}
    return httpx.Client(base_url=url, headers=headers, timeout=60, event_hooks=hooks, transport=Persistent())


def keep_books(client: httpx.Client, name: str, said: str = "nothing") -> None:
    """A ledger with three accounts, two posts and two holds: seven events and more."""
    assert 201 == client.post("/v1/ledgers", json={"name": name, "description": said}).status_code
    for path in ("a", "a:b", "c"):
        open_account(client, name, path)
    for number in range(2):
        about = {"group": "g", "description": said, "effective_at": f"2020-01-0{number + 1}T00:00:00Z"}
        assert 201 == post(client, name, transaction("a", "c", 5, **about), f"post-{number}").status_code
        assert 201 == post(client, name, transaction("c", "a", 1, pending=True), f"hold-{number}").status_code


def ask(client: httpx.Client, ledger: str, where: str, **parameters: Any) -> httpx.Response:
    return client.get(httpx.URL(f"/v1/ledgers/{ledger}{where}").copy_merge_params(parameters))


def take_cursors(client: httpx.Client, ledger: str) -> dict[str, str]:
    """Of each list of a ledger that gives one for a page of one item. The ledger's other asset makes two of totals."""
    cursors = {}
    for where in PAGED:
        page = ask(client, ledger, f"/{where}", limit=1).json()
        cursors[where] = page["next_cursor"]
    return cursors


def test_a_name_never_comes_to_stand_for_the_ledger_of_another(
    deployment: tuple[Processes, Callable[[], Restore]],
) -> None:
    running, back_up = deployment
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(client_of(url)) for url in running.urls]
        first, second = clients
        keep_books(first, "kept")
        open_account(first, "kept", "z", asset="EUR/2")
        restore = back_up()
        for client in clients:
            assert 200 == client.get("/readyz").status_code

        # Made after the backup, and known to both processes.
        keep_books(first, "lost")
        open_account(first, "lost", "z", asset="EUR/2")
        assert 201 == post(second, "lost", transaction("a", "c"), "second").status_code
        after = ask(second, "lost", "").json()["sequence"]
        cursors = take_cursors(second, "lost")
        assert [] == [where for where, cursor in cursors.items() if cursor is None]
        kept_cursors = take_cursors(first, "kept")
        lost_key = first.post("/v1/api-keys", json={"name": "lost", "operations": ["read"]}).json()["secret"]
        for url in running.urls:
            with client_of(url, lost_key) as caller:
                assert 200 == caller.get("/v1/ledgers/lost").status_code
        (lost_id,) = fetch_now(running.database, "select ledger_id from ledgers where name = 'lost'")[0]

        with ThreadPoolExecutor(2) as threads:
            wait = {"after_sequence": after, "wait_seconds": WAITS}
            waiting = [threads.submit(ask, client, "lost", "/events", **wait) for client in clients]
            time.sleep(0.5)
            restore()
            for client in clients:
                assert 200 == client.get("/readyz").status_code

            # Another team's ledger takes the id, and its log goes further than that of the lost one did.
            keep_books(second, "other", SECRET)
            open_account(second, "other", "z", asset="EUR/2")
            assert 201 == post(second, "other", transaction("a", "c"), "second").status_code
            assert 201 == post(second, "other", transaction("a", "c", description=SECRET), "third").status_code
            assert [(lost_id,)] == fetch_now(running.database, "select ledger_id from ledgers where name = 'other'")
            others = ask(second, "other", "/events").json()
            answers = [each.result() for each in waiting]
        for answer in answers:
            assert SECRET not in answer.text
            assert answer.status_code == 404 or [] == answer.json().get("items"), answer.text

        for client in clients:
            for where in (*READ, *(f"/{each}" for each in PAGED)):
                answer = ask(client, "lost", where)
                assert (404, "ledger_not_found") == (answer.status_code, answer.json().get("code")), where
            for where, cursor in cursors.items():
                assert 404 == ask(client, "lost", f"/{where}", cursor=cursor).status_code
            for key in ("post-0", "new"):
                body = transaction("a", "c", 5, group="g", effective_at="2020-01-01T00:00:00Z")
                answer = post(client, "lost", body, key)
                assert (404, "ledger_not_found") == (answer.status_code, answer.json().get("code"))
        assert others == ask(second, "other", "/events").json()

        # Made anew, it is another ledger: with another id, without the keys of the old one, and without its cursors.
        keep_books(first, "lost")
        open_account(first, "lost", "z", asset="EUR/2")
        for client in clients:
            assert after - 1 == ask(client, "lost", "").json()["sequence"]
            for where, cursor in cursors.items():
                answer = ask(client, "lost", f"/{where}", cursor=cursor)
                assert (400, "invalid_cursor") == (answer.status_code, answer.json().get("code")), where
            for where, cursor in kept_cursors.items():
                assert 200 == ask(client, "kept", f"/{where}", cursor=cursor).status_code
            for where, cursor in take_cursors(client, "lost").items():
                assert 200 == ask(client, "lost", f"/{where}", cursor=cursor).status_code
            assert 201 == post(client, "other", transaction("a", "c"), f"new-{client.base_url}").status_code
        again = post(second, "lost", transaction("a", "c"), "second")
        assert (201, None) == (again.status_code, again.headers.get("Idempotency-Replayed"))
        assert others["items"] == ask(second, "other", "/events").json()["items"][:-2]

        # The keys of the API: the one that was made after the backup is gone, its revision is another's.
        made = second.post("/v1/api-keys", json={"name": "new", "operations": ["read"]}).json()["secret"]
        for url in running.urls:
            with client_of(url, lost_key) as lost, client_of(url, made) as new:
                wait_until(lambda lost=lost: lost.get("/v1/ledgers").status_code == 401, seconds_max=SECONDS_MAX)
                wait_until(lambda new=new: new.get("/v1/ledgers").status_code == 200, seconds_max=SECONDS_MAX)
        for client in clients:
            for name in ("kept", "lost", "other"):
                report = ask(client, name, "/verification").json()
                assert [] == [check for check in report["checks"] if check["offenders"]]
    asyncio.run(check_invariants(running.database))
    for log in running.logs:
        assert "database_changed" in log.read_text()
        assert '"level": "error"' not in log.read_text()


# Inside one process.


@pytest.fixture
async def books(database: str) -> AsyncIterator[Books]:
    books = await Books(database).open()
    yield books
    await books.writer.drain()
    await books.database.close()
    await check_invariants(database)


async def replace_identity(database: str) -> None:
    """Make it another ledger, as a restore would, behind the triggers' back."""
    connection = await connect(database)
    await connection.execute("set session_replication_role = replica")
    await connection.execute("update heads set identity = gen_random_uuid()")
    await connection.close()


@pytest.mark.anyio
async def test_a_ledger_that_was_replaced_is_looked_up_again(books: Books) -> None:
    await replace_identity(books.url)
    receipts = await asyncio.gather(*(books.post(f"p{n}") for n in range(10)))
    assert list(range(4, 14)) == sorted(receipt.event.sequence for receipt in receipts)
    assert {} == books.writer._queues


@pytest.mark.anyio
async def test_a_look_up_that_never_fits_ends(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """As behind a pooler that leads to two servers by turns."""

    async def look_up(name: str) -> LedgerRef:
        return LedgerRef(1, str(uuid4()))

    monkeypatch.setattr(books.writer._directory, "get", look_up)
    with pytest.raises(StorageUnavailable):
        await books.post("p")
    assert 3 == (await fetch(books.url, "select sequence from heads"))[0]["sequence"]


@pytest.mark.anyio
async def test_a_ledger_that_is_replaced_between_read_and_write_is_not_written(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As behind a pooler, where the two may meet different servers: the revision alone does not tell."""
    replaced = []

    async def read_and_replace(*arguments: Any, **named: Any) -> Book:
        book = await read_book(*arguments, **named)
        if not replaced:
            replaced.append(True)
            await replace_identity(books.url)
        return book

    monkeypatch.setattr(writer, "read_book", read_and_replace)
    receipt = await books.post("p")
    assert (4, 1) == (receipt.event.sequence, books.writer.counts.races_lost)


@pytest.mark.anyio
async def test_a_write_in_doubt_whose_ledger_is_replaced_stays_in_doubt(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been committed, and lost with the ledger: its caller decides whether to repeat it."""

    async def lose_the_connection(*arguments: Any, **named: Any) -> bool:
        await replace_identity(books.url)
        raise ConnectionResetError

    monkeypatch.setattr(writer, "write_book", lose_the_connection)
    with pytest.raises(OutcomeUnknown):
        await books.post("p")


@pytest.mark.anyio
async def test_a_read_finds_no_ledger_by_an_id_that_is_anothers(books: Books) -> None:
    known, ledger = books.database.ledgers, books.database.ledgers.find("main")
    assert ledger is not None
    for name, found in (("main", ledger), ("second", None)):
        for read in (get_head, get_ledger):
            known.keep(name, LedgerRef(ledger.ledger_id, str(uuid4())))
            async with books.database.sessions() as session:
                with contextlib.nullcontext() if found else pytest.raises(LedgerNotFound):
                    await read(session, name)
            assert found == known.find(name)


@pytest.mark.anyio
async def test_expiries_and_replays_of_a_replaced_ledger_are_not_those_of_another(books: Books) -> None:
    (row,) = await fetch(books.url, "select ledger_id, revision from heads")
    await books.writer.expire_holds(LedgerRef(row["ledger_id"], str(uuid4())))
    assert row["revision"] == await books.revision()
    for ledger in (LedgerRef(1, str(uuid4())), books.database.ledgers.find("main")):
        async with books.database.sessions() as session:
            with pytest.raises(LedgerReplaced):
                await get_events(session, ledger, first=3, count=2)


@pytest.mark.anyio
async def test_a_verification_across_a_restore_is_none(books: Books) -> None:
    def replace(part: str, done: int) -> None:
        with ThreadPoolExecutor(1) as thread:  # a loop of its own: this one waits
            thread.submit(asyncio.run, replace_identity(books.url)).result()

    with pytest.raises(StorageUnavailable):
        await verify_ledger(books.database.sessions, "main", progress=replace)


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["main", "gone"])
async def test_a_waiter_whose_ledger_is_replaced_is_answered_by_the_net(books: Books, name: str) -> None:
    """With the same name another log begins, in which its position means nothing; without it there is none."""
    news = feed.Feed(books.database, waiters_max=3)
    news.start()
    try:
        asked = asyncio.ensure_future(news.list_next_events("main", after=3, limit=10, wait_s=SECONDS_MAX * 2))
        while not news.waiting:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        connection = await connect(books.url)
        await connection.execute("alter table ledgers disable trigger all")
        await connection.execute("update ledgers set name = $1", name)
        await connection.close()
        await replace_identity(books.url)
        async with asyncio.timeout(SECONDS_MAX):
            with pytest.raises(SequenceOutOfRange if name == "main" else LedgerNotFound):
                await asked
    finally:
        await news.close()
        await fetch(books.url, "alter table ledgers enable always trigger ledgers_append_only")
        await fetch(books.url, "alter table ledgers enable always trigger ledgers_kept")


@pytest.mark.anyio
async def test_a_waiter_whose_log_is_shortened_is_answered_by_the_net(books: Books) -> None:
    """The ledger was there at the backup, and keeps its identity; but the waiter has read further than it goes now."""
    await books.post("p")
    news = feed.Feed(books.database, waiters_max=3)
    news.start()
    try:
        asked = asyncio.ensure_future(news.list_next_events("main", after=4, limit=10, wait_s=SECONDS_MAX * 2))
        while not news.waiting:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.2)
        await shorten(books.url, 3)
        async with asyncio.timeout(SECONDS_MAX):
            with pytest.raises(SequenceOutOfRange):
                await asked
    finally:
        await news.close()
        await shorten(books.url, 4)


async def shorten(database: str, sequence: int) -> None:
    connection = await connect(database)
    await connection.execute("set session_replication_role = replica")
    await connection.execute("update heads set sequence = $1", sequence)
    await connection.close()


@pytest.mark.anyio
async def test_a_ledger_that_was_replaced_is_not_written_under_another_name(books: Books) -> None:
    books.database.ledgers.keep("second", LedgerRef(1, str(uuid4())))
    with pytest.raises(LedgerNotFound):
        await books.submit(OpenAccount("x", "USD/2", "debit", None, None, None, {}), "x", ledger="second")
    assert 3 == (await fetch(books.url, "select sequence from heads"))[0]["sequence"]


def test_a_cursor_is_of_one_ledger_and_one_without_an_identity_of_any(database: str) -> None:
    """Those without were made by a version before this: a client reads on with them across an upgrade."""
    with serve(database) as service, service.client() as client:
        keep_books(client, "main")
        open_account(client, "main", "z", asset="EUR/2")
        cursors = take_cursors(client, "main")
        old = {where: without_identity(cursor) for where, cursor in cursors.items()}
        asyncio.run(replace_identity(database))
        for where in PAGED:
            answer = ask(client, "main", f"/{where}", cursor=cursors[where])
            assert (400, "invalid_cursor") == (answer.status_code, answer.json().get("code")), where
            assert 200 == ask(client, "main", f"/{where}", cursor=old[where]).status_code, where


def without_identity(cursor: str) -> str:
    said = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    *scope, carried, order, position = said
    assert 8 == len(carried.pop("identity"))
    said = [*scope, *([carried] if carried else []), order, position]
    return base64.urlsafe_b64encode(json.dumps(said, separators=(",", ":")).encode()).decode().rstrip("=")


# As if each had been restored: the table that the epoch looks at is another, and one key is there in place of another.
RESTORED = """
create table another (like heads including all);
alter table heads rename to former; alter table another rename to heads;
grant select, insert, update on heads to tallystick_service;
alter table api_keys disable trigger all;
delete from api_keys where name = 'lost';
update api_keys set name = 'new', secret_digest = sha256('new') where name = 'first';
"""
KEY_ROW = """
insert into api_keys (name, label, secret_digest, operations, created_at, created_by, revision)
select name, name, sha256(name::bytea), '{read}', '2026-01-01', 'operator', number
  from unnest(array['first', 'lost']) with ordinality as u (name, number)
"""


@pytest.mark.anyio
async def test_what_a_process_knows_is_dropped_when_the_epoch_changes(database: str) -> None:
    await fetch(database, KEY_ROW)
    store = Database(settings_for(database))
    store.ledgers.keep("main", LedgerRef(1, str(uuid4())))
    known = KnownKeys(store.keys, drop=store.ledgers.clear)
    known.start()
    try:
        for name, is_known in (("first", True), ("lost", True), ("new", False)):
            assert is_known == (await known.find_anew(digest(name.encode())) is not None)
        assert store.ledgers.find("main") is not None
        connection = await connect(database)
        await connection.execute(RESTORED)
        await connection.close()
        for name, is_known in (("new", True), ("first", False), ("lost", False)):
            assert is_known == (await known.find_anew(digest(name.encode())) is not None)
        assert store.ledgers.find("main") is None
    finally:
        await known.close()
        await store.close()


def test_a_host_that_hides_the_control_data_of_its_server_serves_all_the_same(database: str) -> None:
    for function in ("pg_control_system", "pg_control_checkpoint"):
        fetch_now(database, f"revoke execute on function {function}() from public")
    with serve(database) as service, service.client() as client:
        made = client.post("/v1/api-keys", json={"name": "k", "operations": ["read"]}).json()["secret"]
        with service.client(made) as caller:
            assert 200 == caller.get("/v1/ledgers").status_code


@pytest.mark.anyio
async def test_ledgers_of_before_the_migration_get_an_identity_each(postgres: Postgres) -> None:
    """And so do those that a process of the version before adds while both serve. A read that began before, and comes
    to the heads after, finds them."""
    postgres.create_database("of_before")
    database = postgres.url("of_before")
    config = Config(ROOT / "alembic.ini")
    config.attributes["database_url"] = database
    add = "insert into heads (ledger_id, sequence, revision, recorded_at) values ({}, 0, 0, now())"
    await asyncio.to_thread(command.upgrade, config, "0007")
    for number in range(3):
        await fetch(database, add.format(number))
    connection = await connect(database)
    async with connection.transaction(isolation="repeatable_read"):
        await connection.fetchval("select count(*) from ledgers")
        await asyncio.to_thread(command.upgrade, config, "head")
        assert 3 == await connection.fetchval("select count(*) from heads")
    await connection.close()
    await fetch(database, add.format(3))
    assert 4 == (await fetch(database, "select count(distinct identity) from heads"))[0][0]

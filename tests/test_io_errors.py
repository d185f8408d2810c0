"""Postgres cannot read or write a file: errors of class 58 are temporary, so a write is tried again, and what still
fails is answered with 503."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from app.ledger.refusals import InternalError, OutcomeUnknown
from tests.books import check_invariants, connect, fetch, fetch_now
from tests.conftest import serve, wait_until
from tests.test_refusals import check_refusal, example, fresh, prepare
from tests.test_writer import Books

IO_ERRORS = ["58000", "58030", "58P01", "58P02"]
TRANSACTION_TIMEOUT = "25P04"
DATA_CORRUPTED = "XX001"
# The count is one of a sequence, which keeps it when the transaction is rolled back.
PLANT = """
create sequence planted_count;
create function planted() returns trigger language plpgsql security definer as $$ begin
  if nextval('planted_count') <= {times} then
    raise exception 'could not extend a file' using errcode = '{code}';
  end if;
  return null;
end $$;
create trigger planted after insert on events for each statement execute function planted();
"""
REMOVE = "drop trigger planted on events"
TRIED = "select last_value from planted_count"
POSTED = "select sequence from events where kind = 'transaction_posted'"
KEYS = "select count(*) from idempotency_keys"
FILE = "select current_setting('data_directory') || '/' || pg_relation_filepath($1::regclass) as path"
END_SESSIONS = """
select pg_terminate_backend(pid, 10000) from pg_stat_activity
 where datname = current_database() and pid <> pg_backend_pid()
"""


@pytest.fixture
async def books(database: str) -> AsyncIterator[Books]:
    books = await Books(database).open()
    yield books
    await books.writer.drain()
    await books.database.close()
    await check_invariants(database)


async def plant(database: str, code: str, *, times: int) -> None:
    """Have the server end so many inserts into the log with this error."""
    connection = await connect(database)
    await connection.execute(PLANT.format(code=code, times=times))
    await connection.close()


@contextlib.contextmanager
def missing(database: str, table: str) -> Iterator[None]:
    """Move the file of a table away until the block ends. Sessions that have it open are ended."""
    file = Path(fetch_now(database, FILE, table)[0]["path"])
    away = file.with_name(f"{file.name}.away")
    file.rename(away)
    try:
        fetch_now(database, END_SESSIONS)
        yield
    finally:
        away.rename(file)


@pytest.mark.anyio
@pytest.mark.parametrize("code", [*IO_ERRORS, TRANSACTION_TIMEOUT])
async def test_a_write_that_meets_an_error_once_is_carried_out_once(books: Books, code: str) -> None:
    await plant(books.url, code, times=1)
    receipt = await books.post("once")
    assert (4, False) == (receipt.event.sequence, receipt.replayed)
    assert 1 == len(await fetch(books.url, POSTED))
    assert 2 == (await fetch(books.url, TRIED))[0]["last_value"]


@pytest.mark.anyio
@pytest.mark.parametrize("code", IO_ERRORS)
async def test_a_write_that_meets_an_error_each_time_leaves_its_key_free(books: Books, code: str) -> None:
    """The caller is told to ask again with the same key; nothing is recorded, and nothing of its key."""
    before = await fetch(books.url, KEYS)
    await plant(books.url, code, times=1_000)
    with pytest.raises(OutcomeUnknown):
        await books.post("again")
    assert ([], before) == (await fetch(books.url, POSTED), await fetch(books.url, KEYS))
    await fetch(books.url, REMOVE)
    receipt = await books.post("again")
    assert (4, False) == (receipt.event.sequence, receipt.replayed)


@pytest.mark.anyio
async def test_damaged_data_is_not_tried_again(books: Books) -> None:
    """It does not pass, and a person has to look: it is an error of the service, logged and reported."""
    await plant(books.url, DATA_CORRUPTED, times=1)
    with pytest.raises(InternalError):
        await books.post("damaged")
    assert 1 == (await fetch(books.url, TRIED))[0]["last_value"]


def test_requests_that_need_a_file_that_is_missing_are_answered_with_503(database: str) -> None:
    """And as soon as it can be opened again, they are carried out. Nothing was recorded meanwhile."""
    with serve(database) as service:
        prepare(service)
        posting, events = fresh("postTransaction"), fetch_now(database, "select count(*) from events")
        with missing(database, "heads"):
            for name in ("getLedger", "getAccount", "listEvents"):
                check_refusal(example(name).send(service), "storage_unavailable")
            # After its first try a write is tried behind the row lock, whose failure counts as one of a commit.
            check_refusal(posting.send(service), "outcome_unknown")
        assert events == fetch_now(database, "select count(*) from events")
        assert 200 == example("getAccount").send(service).status_code
        assert 201 == posting.send(service).status_code


def test_a_process_whose_checks_cannot_open_a_file_is_not_ready(database: str) -> None:
    with serve(database) as service:
        with missing(database, "alembic_version"):
            wait_until(lambda: example("getReadiness").send(service).status_code == 503)
            check_refusal(example("getReadiness").send(service), "storage_unavailable")
        wait_until(lambda: example("getReadiness").send(service).status_code == 200)

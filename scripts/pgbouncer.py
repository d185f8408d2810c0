"""A pgbouncer in transaction mode before a Postgres of one's own: for the tests, and to measure what it costs."""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.engine import make_url

from scripts.postgres import as_ordinary_user

BINARY = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
START_SECONDS_MAX = 20

CONFIGURATION = """
[databases]
* = host={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = {servers}
max_client_conn = 500
"""


@contextlib.contextmanager
def start_pgbouncer(database: str, folder: Path, *, servers: int) -> Iterator[str]:
    """Give the address of the same database through pgbouncer, which has so many connections to it for everybody."""
    assert BINARY is not None, "apt-get install pgbouncer"
    url = make_url(database)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    (folder / "users").write_text(f'"{url.username}" ""\n')
    configuration = folder / "pgbouncer.ini"
    said = {"server": url.query["host"], "port": port, "folder": folder, "servers": servers}
    configuration.write_text(CONFIGURATION.format(**said))
    with (folder / "pgbouncer.log").open("wb") as log:
        # It refuses to run as root, as Postgres does.
        process = subprocess.Popen([*as_ordinary_user(), BINARY, configuration], stdout=log, stderr=log)
    try:
        _wait_until_open(port, process, folder / "pgbouncer.log")
        yield url.set(host="127.0.0.1", port=port, query={}).render_as_string(hide_password=False)
    finally:
        process.terminate()
        process.wait(timeout=START_SECONDS_MAX)


def _wait_until_open(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"pgbouncer did not start: {log.read_text()}")

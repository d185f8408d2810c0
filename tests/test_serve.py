"""`scripts/serve` as a new user meets it: it starts by itself, says how to post, stops, and starts again."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT, wait_until


class Run:
    """One run of the command, with what it printed."""

    def __init__(self, data: Path, log: Path, **environment: str) -> None:
        self.log = log
        clean = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "API_KEY", "PORT")}
        command = [sys.executable, "-m", "scripts.serve", "--port", "0", "--data", str(data)]
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=clean | environment, stdout=output, stderr=subprocess.STDOUT
            )
        wait_until(lambda: "Ctrl-C stops it" in self.printed or self.process.poll() is not None, seconds_max=60)

    @property
    def printed(self) -> str:
        return self.log.read_text()

    def post_as_printed(self) -> list[int]:
        """Send what the printed curl lines send; the statuses of the answers."""
        text = self.printed.replace("\\\n", " ")
        ((url, key),) = re.findall(r"export TALLYSTICK_URL=(\S+) TALLYSTICK_KEY=(\S+)", text)
        statuses = []
        for line in re.findall(r"^  api (['/].*)$", text, re.MULTILINE):
            path, *words = shlex.split(line)
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            headers |= dict(word.split(": ", 1) for word in words if word.startswith("Idempotency-Key"))
            body = words[words.index("-d") + 1]
            statuses.append(httpx.post(f"{url}/v1/ledgers{path}", headers=headers, content=body).status_code)
        return statuses

    def stop(self, signum: signal.Signals) -> int:
        self.process.send_signal(signum)
        return self.process.wait(timeout=30)


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[list[Run]]:
    started: list[Run] = []
    yield started
    for run in started:
        with contextlib.suppress(ProcessLookupError):
            run.process.kill()
        run.process.wait()


def test_it_serves_stops_and_serves_again(tmp_path, runs):
    """Ctrl-C and SIGTERM end it with 0; `kill -9` leaves nothing that prevents the next start, and no book is lost."""
    for number, ending in enumerate((signal.SIGINT, signal.SIGKILL, signal.SIGTERM)):
        run = Run(tmp_path / "data", tmp_path / f"log-{number}")
        runs.append(run)
        # The first time they take effect, and every time after they are answered the same.
        assert [201, 201, 201, 201] == run.post_as_printed()
        assert (-9 if ending == signal.SIGKILL else 0) == run.stop(ending)


def test_it_uses_the_server_that_database_url_names(tmp_path, runs, database):
    run = Run(tmp_path / "data", tmp_path / "log", DATABASE_URL=database)
    runs.append(run)
    assert [201, 201, 201, 201] == run.post_as_printed()
    assert 0 == run.stop(signal.SIGTERM)
    assert not (tmp_path / "data" / "base").exists()


def test_uvicorn_serves_the_application_by_its_name(tmp_path, database):
    """`uvicorn app.main:app`, as anyone would try it first."""
    log = tmp_path / "log"
    environment = os.environ | {"DATABASE_URL": database, "API_KEY": "a-secret-of-the-tests", "LOG_FORMAT": "json"}
    environment["ALLOW_UNSAFE_DATABASE"] = "true"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "app.main:app", "--port", "0"],
            cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        wait_until(lambda: b"running on" in log.read_bytes())
        (url,) = re.findall(r"running on (http://127.0.0.1:\d+)", log.read_text())
        assert 200 == httpx.get(f"{url}/readyz").status_code
    finally:
        process.terminate()
        process.wait(timeout=20)

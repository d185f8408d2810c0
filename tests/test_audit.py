"""The audit of dependencies: it believes its look-up only if that finds what is known to be bad."""

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.collectors import Silent, serving
from tests.conftest import ROOT, free_port

CONTROL = ("urllib3", "1.24.1")


@contextmanager
def advisories(*, known: set[tuple[str, str]], named: set[str] = frozenset()) -> Iterator[str]:  # type: ignore[assignment]
    """Stands in for the service of advisories, which knows of some versions, or of all those of some names."""

    class Handler(Silent):
        def do_POST(self) -> None:  # noqa: N802 (the library names it)
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
            bad = [
                (each["package"]["name"], each["version"]) in known or each["package"]["name"] in named
                for each in asked
            ]
            found = {"vulns": [{"id": "PLANTED-1", "modified": "2026-01-01T00:00:00Z"}]}
            self.say({"results": [found if each else {} for each in bad]})

        def do_GET(self) -> None:  # noqa: N802 (the library names it)
            self.say({"id": "PLANTED-1", "modified": "2026-01-01T00:00:00Z", "summary": "planted", "affected": []})

        def say(self, what: object) -> None:
            body = json.dumps(what).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with serving(Handler) as address:
        yield f"http://{address}"


def audit(service: str) -> subprocess.CompletedProcess[str]:
    command = [str(ROOT / "scripts/audit"), "--service-url", service]
    environment = os.environ | {"UV_HTTP_RETRIES": "0", "NO_PROXY": "127.0.0.1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_a_lock_of_which_nothing_is_known_passes_beside_the_control() -> None:
    with advisories(known={CONTROL}) as service:
        done = audit(service)
    assert (0, "The control was found" in done.stdout) == (done.returncode, True), done.stderr


@pytest.mark.parametrize("name", ["fastapi", "asyncpg", "pytest", "opentelemetry-sdk"])
def test_a_vulnerability_of_any_dependency_is_found(name: str) -> None:
    """Those of development and of the groups included."""
    with advisories(known={CONTROL}, named={name}) as service:
        done = audit(service)
    assert done.returncode == 1
    assert name in done.stdout


def test_a_look_up_that_does_not_find_the_control_is_no_audit() -> None:
    """As where a registry answers that it knows of nothing, whatever it is asked."""
    with advisories(known=set()) as service:
        done = audit(service)
    assert done.returncode == 3
    assert "void" in done.stderr


def test_without_an_answer_there_is_no_audit() -> None:
    done = audit(f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 2
    assert "did not take place" in done.stderr

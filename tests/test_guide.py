"""docs/guide.md is executed: its commands in a shell, then its programs, on an empty service whose clock it sets.

    TALLYSTICK_WRITE_DOCS=1 scripts/test tests/test_guide.py

writes the answers into the page; tests/test_marketplace.py says how.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, Service, serve
from tests.test_marketplace import WRITE, run_page

PAGE = ROOT / "docs" / "guide.md"
PROGRAMS = dict(re.findall(r"^```(python|typescript)\n(.*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE))
(PRINTED,) = re.findall(r"^```text\n(rejected: .*?)^```$", PAGE.read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="the page is for bash and curl")
def test_the_guide_shows_what_the_service_answers(database: str, tmp_path: Path) -> None:
    page = PAGE.read_text()
    with serve(database) as service:
        real = run_page(page, service)
        printed = [run_program(language, service, tmp_path) for language in PROGRAMS]
    if WRITE:
        PAGE.write_text(real)
        return
    assert page.splitlines() == real.splitlines(), "TALLYSTICK_WRITE_DOCS=1 writes the page's answers"
    assert ["python", "typescript"] == list(PROGRAMS)
    assert {PRINTED} == {each for each in printed if each is not None}


def run_program(language: str, service: Service, folder: Path) -> str | None:
    """What a program of the page prints; None if there is nothing here that runs it. The TypeScript has nothing in it
    that is not JavaScript too."""
    if language == "typescript" and not shutil.which("node"):
        assert os.environ.get("TALLYSTICK_EVERY_LANGUAGE") != "1", "the page needs node"
        return None
    program = folder / {"python": "wallet.py", "typescript": "wallet.mjs"}[language]
    program.write_text(PROGRAMS[language])
    variables = {"TALLYSTICK_URL": service.url, "TALLYSTICK_KEY": service.key, "PATH": os.environ["PATH"]}
    command = [sys.executable if language == "python" else "node", program]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    return done.stdout

"""Clients of the contract: Python's is made, compiled and run here, and docs/sdks.md says what scripts/sdks does.

The other languages need toolchains of their own: `.ci/run` and `scripts/sdks` run them.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.sdks import EXAMPLES, LANGUAGES, STEPS, Language
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "sdks.md").read_text()
SECONDS_MAX = 300
EVERY = [pytest.param(language, id=language.name) for language in LANGUAGES.values()]


def test_the_python_client_compiles_and_runs() -> None:
    command = [sys.executable, "-m", "scripts.sdks", "python"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=SECONDS_MAX)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "1 passed, 0 failed" in done.stdout


@pytest.mark.parametrize("language", EVERY)
def test_the_page_names_each_language_with_its_pinned_generator(language: Language) -> None:
    assert f"| {language.name} | {language.generator} {language.version()} |" in PAGE


@pytest.mark.parametrize("language", EVERY)
def test_each_scenario_has_the_same_steps(language: Language) -> None:
    """Each is marked where it begins, in the order of what it prints, so that a page can show it in any language."""
    (source,) = (file for file in _sources(language.example) if "step: post" in file.read_text())
    assert ["refusals and retries", *STEPS] == re.findall(r"(?m)^\s*(?:#|//) step: (.+)$", source.read_text())


def test_the_expected_lines_have_the_same_steps() -> None:
    lines = (EXAMPLES / "expected.txt").read_text().splitlines()
    assert list(STEPS) == list(dict.fromkeys(line.split(":")[0] for line in lines))


def test_a_missing_toolchain_is_a_failure_that_names_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "scripts.sdks", "--only", "go"]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, env={"PATH": str(tmp_path)})
    assert 1 == done.returncode
    assert "go: not on this machine: go" in done.stdout


def _sources(example: Path) -> list[Path]:
    folders = ("tallystick", "node_modules", "target", "build")
    files = [file for file in example.rglob("*") if file.suffix in (".py", ".ts", ".go", ".java", ".rs")]
    return [file for file in files if not set(folders) & set(file.relative_to(example).parts)]

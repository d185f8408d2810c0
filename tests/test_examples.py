"""The samples of the reference, run as they are shown: in curl, in Python and in TypeScript, each language on an empty
service of its own, and each answer held against the one that is shown.

    TALLYSTICK_WRITE_DOCS=1 scripts/test tests/test_examples.py

writes the answers down. `scripts/examples` runs all languages and refuses to go on without one of them; the suite
passes over a language that the machine does not have. The TypeScript has nothing in it that is not JavaScript too, so
Node runs it as it stands; that it satisfies a compiler's types is not shown here.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from app.site.samples import ANSWERS, Request, curl, in_every_language, python, read_answers, read_story, typescript
from tests.conformance import DOCUMENT
from tests.conftest import ROOT, Service, serve

WRITE = os.environ.get("TALLYSTICK_WRITE_DOCS") == "1"
EVERY_LANGUAGE = os.environ.get("TALLYSTICK_EVERY_LANGUAGE") == "1"
STORY = read_story(DOCUMENT)
OPERATIONS = [operation["operationId"] for methods in DOCUMENT["paths"].values() for operation in methods.values()]
CLOCK = datetime(2026, 11, 23, 6, 30, tzinfo=UTC)
# What is another one each time.
VARYING = {"secret"}
BETWEEN = "\x1e"


def run_curl(folder: Path) -> list[str]:
    (folder / "all.sh").write_text("".join(f"{curl(request)}printf '{BETWEEN}'\n" for request in STORY))
    return ["bash", "-e", str(folder / "all.sh")]


def run_python(folder: Path) -> list[str]:
    """Each sample as a program of its own, in one process."""
    (folder / "samples.json").write_text(json.dumps([python(request) for request in STORY]))
    driver = (
        "import json, pathlib\n"
        f"for sample in json.loads(pathlib.Path({str(folder / 'samples.json')!r}).read_text()):\n"
        f"    exec(compile(sample, 'sample', 'exec'), {{}})\n"
        f"    print({BETWEEN!r}, end='')\n"
    )
    return [sys.executable, "-W", "error", "-c", driver]


def run_typescript(folder: Path) -> list[str]:
    """Each sample as a module of its own, in one process."""
    modules = [folder / f"sample{number}.mjs" for number in range(len(STORY))]
    for module, request in zip(modules, STORY, strict=True):
        # An object would be printed as a program writes it, with its depths cut off.
        module.write_text(typescript(request).replace("console.log(", "globalThis.show("))
    driver = folder / "all.mjs"
    driver.write_text(
        "globalThis.show = (said) => process.stdout.write(typeof said === 'string' ? said : JSON.stringify(said));\n"
        + "".join(f"await import({json.dumps(str(each))}); process.stdout.write('\\x1e');\n" for each in modules)
    )
    return ["node", str(driver)]


LANGUAGES: dict[str, tuple[tuple[str, ...], Callable[[Path], list[str]]]] = {
    "curl": (("bash", "curl"), run_curl),
    "Python": ((), run_python),
    "TypeScript": (("node",), run_typescript),
}


@pytest.fixture
def empty(database: str) -> Any:
    with serve(database) as service:
        service.clock.now = CLOCK
        yield service


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_sample_runs_and_is_answered_as_shown(language: str, empty: Service, tmp_path: Path) -> None:
    programs, prepare = LANGUAGES[language]
    if missing := [program for program in programs if not shutil.which(program)]:
        assert not EVERY_LANGUAGE, f"{language} needs {', '.join(missing)}"
        pytest.skip(f"{language} needs {', '.join(missing)}")
    variables = {"TALLYSTICK_URL": empty.url, "TALLYSTICK_KEY": empty.key}
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)} | variables
    done = subprocess.run(
        prepare(tmp_path), env=environment, capture_output=True, text=True, timeout=120, check=False, cwd=tmp_path
    )
    assert (0, "") == (done.returncode, done.stderr)
    said = done.stdout.split(BETWEEN)[:-1]
    assert len(STORY) == len(said)
    assert [] == [text for text in said if '"/problems/' in text or "'/problems/" in text]
    given = {request.name: read(language, text) for request, text in zip(STORY, said, strict=True) if request.recorded}
    if WRITE and language == "curl":
        (ROOT / ANSWERS).write_text(json.dumps(given, ensure_ascii=False, indent=1) + "\n")
    assert read_answers() == given, "TALLYSTICK_WRITE_DOCS=1 writes the answers that are shown"


def read(language: str, text: str) -> Any:
    """An answer, without what is another one each time. Python prints what it has made of the JSON."""
    answer = eval(text, {"__builtins__": {}}) if language == "Python" else json.loads(text)
    return steady(answer)


def steady(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: "…" if varies(name, each) else steady(each) for name, each in value.items()}
    return [steady(each) for each in value] if isinstance(value, list) else value


def varies(name: str, value: Any) -> bool:
    """Whether a property differs from run to run. A cursor carries the random identity of its ledger."""
    return name in VARYING or (name == "next_cursor" and value is not None)


def test_every_operation_and_every_example_of_the_contract_has_a_request() -> None:
    assert set(OPERATIONS) == {request.operation for request in STORY}
    assert len(STORY) == len({request.name for request in STORY})
    examples = {
        f"{operation['operationId']} {name}"
        for methods in DOCUMENT["paths"].values()
        for operation in methods.values()
        for name in operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("examples", {})
    }
    assert examples <= {request.name for request in STORY}
    assert {request.name for request in STORY if request.recorded} == set(read_answers())


def test_what_a_sample_says_is_quoted_for_its_language() -> None:
    body = {"description": 'O\'Neill says "no": true, $5 `now`', "atomic": False, "when": None}
    request = Request("name", "postTransaction", "", "POST", "/nowhere", {"Idempotency-Key": "a"}, body)
    assert "O'\\''Neill" in curl(request)
    assert '"atomic": False' in python(request)
    assert '"when": None' in python(request)
    assert 'O\'Neill says \\"no\\": true' in typescript(request)
    assert {"curl", "Python", "TypeScript"} == set(in_every_language(request))

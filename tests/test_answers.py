"""What tells whether every answer that the contract names was given: at the end of each whole run, and as a table."""

import json
import os
import subprocess
import sys
from pathlib import Path

from scripts.answers import NO_OPERATION, Answer, Record, by_tests_alone, documented, find_faults, read, table
from tests.conformance import DOCUMENT, UNROUTED
from tests.conftest import ROOT

GIVEN = documented()
GONE = Answer("postTransaction", 422, "insufficient_funds")


def test_the_answers_are_those_of_the_contract() -> None:
    operations = [operation for methods in DOCUMENT["paths"].values() for operation in methods.values()]
    named = {(operation["operationId"], int(status)) for operation in operations for status in operation["responses"]}
    assert {answer[:2] for answer in GIVEN} == named | {(NO_OPERATION, status) for status in UNROUTED.values()}
    assert len(GIVEN) == len(set(GIVEN))
    assert all(bool(answer.code) == (answer.status >= 400) for answer in GIVEN)


def test_finds_what_nobody_was_answered_and_what_nobody_documented() -> None:
    invented = Answer("postTransaction", 418, "teapot")
    assert find_faults(GIVEN) == []
    assert find_faults([each for each in GIVEN if each != GONE]) == [
        "nobody was answered postTransaction 422 insufficient_funds"
    ]
    assert find_faults([*GIVEN, invented]) == ["the contract does not name postTransaction 418 teapot"]


def test_a_whole_run_fails_for_an_answer_that_no_test_was_given_and_a_part_of_it_says_so(tmp_path: Path) -> None:
    """In one process and in several, with a folder of tests that is given all but one."""
    for name in ("app", "scripts", "generated", "alembic", "alembic.ini", "openapi.yaml", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "tests").mkdir()
    for name in ("__init__.py", "conftest.py", "conformance.py", "books.py"):
        (tmp_path / "tests" / name).write_bytes((ROOT / "tests" / name).read_bytes())
    (tmp_path / "tests" / "test_half.py").write_text(HALF.format("[::2]"))
    (tmp_path / "tests" / "test_rest.py").write_text(HALF.format("[1::2]"))
    assert "Each of the" in run(tmp_path, 0, "-n", "2")
    assert "not a whole run" in run(tmp_path, 0, "-k", "test_half or test_gives")
    # All but the last one, which may stand in either half.
    (tmp_path / "tests" / "test_half.py").write_text(HALF.format("[:-1:2]"))
    (tmp_path / "tests" / "test_rest.py").write_text(HALF.format("[1:-1:2]"))
    assert f"nobody was answered {NO_OPERATION} 405 method_not_allowed" in run(tmp_path, 1)


HALF = """
from scripts.answers import documented
from tests.conformance import ANSWERED


def test_gives():
    for answer in documented(){}:
        ANSWERED.add(answer)
"""


def run(folder: Path, status: int, *options: str) -> str:
    command = [sys.executable, "-m", "pytest", *options]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "TALLYSTICK"))}
    done = subprocess.run(command, cwd=folder, env=clean, check=False, capture_output=True, text=True)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    fuzzing, tests = Record(), Record()
    for each in (GIVEN[0], GIVEN[0], GIVEN[1]):
        fuzzing.add(each)
    tests.add(GIVEN[1], to="tests/test_x.py::test_y[z w]")
    fuzzing.write(tmp_path / "fuzzing", by="fuzzing")
    tests.write(tmp_path / "tests", by="tests")
    found = read([tmp_path / "fuzzing", tmp_path / "tests"])
    assert (found["fuzzing"].counts, found["tests"].counts) == (fuzzing.counts, tests.counts)
    assert found["tests"].first == tests.first


def test_the_table_says_how_often_fuzzing_reached_a_status_or_that_tests_alone_did() -> None:
    fuzzing, tests = Record(), Record()
    for answer in GIVEN:
        tests.add(answer, to="tests/test_x.py::test_y")
    fuzzing.add(GONE)
    fuzzing.add(GONE)
    (row,) = (each for each in table(fuzzing, tests) if "| postTransaction |" in each)
    codes = sum(answer[:2] == GONE[:2] for answer in GIVEN)
    assert f" 2 (1/{codes}) " in row
    assert row.count(" test ") == len({each.status for each in GIVEN if each.operation == "postTransaction"}) - 1
    rows = by_tests_alone(fuzzing, tests)[2:]
    assert len(rows) == len(GIVEN) - 1
    assert not [each for each in rows if "postTransaction 422 insufficient_funds" in each]
    assert all(each.endswith("| tests/test_x.py::test_y |") for each in rows)


def test_the_command_fails_for_an_answer_that_nobody_was_given(tmp_path: Path) -> None:
    for left_out, status in ((None, 0), (GONE, 1)):
        record = Record()
        for answer in GIVEN:
            if answer != left_out:
                record.add(answer, to="tests/test_x.py::test_y")
        record.write(tmp_path / "record.json", by="tests")
        assert json.loads((tmp_path / "record.json").read_text())["by"] == "tests"
        command = [sys.executable, "-m", "scripts.answers", str(tmp_path / "record.json")]
        done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
        assert done.returncode == status, done.stdout + done.stderr
        assert ("nobody was answered postTransaction 422 insufficient_funds" in done.stdout) == bool(left_out)

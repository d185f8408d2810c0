"""Which of the contract's answers were given by something real: a table of records of what fuzzing and tests were told.

    scripts/fuzz --answers fuzz.json
    TALLYSTICK_ANSWERS=tests.json scripts/test
    scripts/answers fuzz.json tests.json

An answer is an operation, a status and, for a refusal, its code. Exits with 1 if one that the contract names was given
by nobody, or one was given that it does not name.
"""

import argparse
import json
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

CONTRACT = yaml.safe_load((Path(__file__).resolve().parents[1] / "openapi.yaml").read_bytes())
# What is answered where there is no operation.
NO_OPERATION = "(no operation)"
UNROUTED = {"route_not_found": 404, "method_not_allowed": 405}
OPERATIONS = [operation for methods in CONTRACT["paths"].values() for operation in methods.values()]


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    """What a `$ref` of the contract points at."""
    while "$ref" in node:
        target: Any = CONTRACT
        for step in node["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        node = target
    return node


class Answer(NamedTuple):
    operation: str
    status: int
    code: str  # empty for a success


def documented() -> list[Answer]:
    """Every answer that the contract names, in its order."""
    found = []
    for operation in OPERATIONS:
        for status, response in sorted(operation["responses"].items()):
            codes = resolve(response).get("x-codes", [""])
            found += [Answer(operation["operationId"], int(status), code) for code in codes]
    return found + [Answer(NO_OPERATION, status, code) for code, status in UNROUTED.items()]


class Record:
    """How often each answer was given, and to whom first. Several threads add to it."""

    def __init__(self) -> None:
        self.counts = Counter[Answer]()
        self.first: dict[Answer, str] = {}
        self._lock = threading.Lock()

    def add(self, answer: Answer, to: str = "") -> None:
        with self._lock:
            self.counts[answer] += 1
            self.first.setdefault(answer, to)

    def statuses(self, operation: str) -> dict[int, int]:
        found = Counter[int]()
        for answer, count in self.counts.items():
            found[answer.status] += count if answer.operation == operation else 0
        return {status: count for status, count in sorted(found.items()) if count}

    def rows(self) -> list[list[Any]]:
        """All of it in plain values, for another process."""
        return [[*answer, count, self.first[answer]] for answer, count in sorted(self.counts.items())]

    def merge(self, rows: Iterable[list[Any]]) -> None:
        for operation, status, code, count, first in rows:
            answer = Answer(operation, status, code)
            self.counts[answer] += count
            self.first.setdefault(answer, first)

    def write(self, file: Path, by: str) -> None:
        """Said by `fuzzing` or by `tests`."""
        file.write_text(json.dumps({"by": by, "answers": self.rows()}, indent=0))


def find_faults(given: Iterable[Answer]) -> list[str]:
    """What is documented and was given by nobody, and what was given and is not documented."""
    given, named = set(given), documented()
    missing = [f"nobody was answered {_name(each)}" for each in named if each not in given]
    return missing + [f"the contract does not name {_name(each)}" for each in sorted(given - set(named))]


def table(fuzzing: Record, tests: Record, *, otherwise: str = "NOBODY") -> list[str]:
    """A row for every operation, with its statuses: how often fuzzing reached them, or that only tests did."""
    named = documented()
    statuses = sorted({answer.status for answer in named})
    rows = [f"| operation | {' | '.join(map(str, statuses))} |", "|---" * (len(statuses) + 1) + "|"]
    for operation in dict.fromkeys(answer.operation for answer in named):
        cells = []
        for status in statuses:
            answers = [each for each in named if each[:2] == (operation, status)]
            cells.append(_cell(answers, fuzzing, tests) or otherwise if answers else "")
        rows.append(f"| {operation} | {' | '.join(cells)} |")
    return rows


def _cell(answers: list[Answer], fuzzing: Record, tests: Record) -> str:
    """`12` by fuzzing, in all codes; `12 (2/3)` if in two codes of three; `test` if only tests reached it."""
    reached = [answer for answer in answers if fuzzing.counts[answer]]
    if not reached:
        return "test" if all(tests.counts[answer] for answer in answers) else ""
    total = sum(fuzzing.counts[answer] for answer in reached)
    return f"{total}" if len(reached) == len(answers) else f"{total} ({len(reached)}/{len(answers)})"


def by_tests_alone(fuzzing: Record, tests: Record) -> list[str]:
    """A row for every answer that fuzzing did not reach, with the test that was given it first."""
    rows = ["| not reached by fuzzing | given to |", "|---|---|"]
    for answer in documented():
        if not fuzzing.counts[answer]:
            rows.append(f"| {_name(answer)} | {tests.first.get(answer, 'NOBODY')} |")
    return rows


def read(files: Iterable[Path]) -> dict[str, Record]:
    """The records of these files, put together by who was told."""
    records = {"fuzzing": Record(), "tests": Record()}
    for file in files:
        said = json.loads(file.read_text())
        records[said["by"]].merge(said["answers"])
    return records


def _name(answer: Answer) -> str:
    return f"{answer.operation} {answer.status} {answer.code}".strip()


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/answers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, help="records, of fuzzing and of tests")
    records = read(parser.parse_args().files)
    fuzzing, tests = records["fuzzing"], records["tests"]
    print("\n".join([*table(fuzzing, tests), "", *by_tests_alone(fuzzing, tests), ""]))
    named = documented()
    reached = sum(bool(fuzzing.counts[answer]) for answer in named)
    print(f"{len(named)} answers: {reached} reached by fuzzing, {sum(bool(tests.counts[a]) for a in named)} by tests.")
    faults = find_faults([*fuzzing.counts, *tests.counts])
    print("\n".join(f"- {fault}" for fault in faults) or "Each was given by something real.")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())

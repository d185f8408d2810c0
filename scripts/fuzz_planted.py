"""Plant breaches of the contract in the service, one at a time, and see which check of a short fuzzing finds each.

    uv run python -m scripts.fuzz_planted              all of them, fuzzing only the operations that each is in
    uv run python -m scripts.fuzz_planted --whole      fuzzing every operation each time, as scripts/fuzz does

Each is planted in a copy of the working tree. One that nothing finds, or that can no longer be planted because the code
has changed, fails the run.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from scripts.mutations import Bug, plant

ROOT = Path(__file__).parents[1]
EXAMPLES = 25
SEED = 1
SECONDS_MAX = 1800
ROUTE, ACCOUNTS, EDGE, PROBLEMS = "app/api/contract.py", "app/api/accounts.py", "app/api/edge.py", "app/api/problems.py"
OPENING = '    meaning = fingerprint("createAccount", {"ledger": ledger}, body)\n'

# Each with the operations that are fuzzed for it.
PLANTED = (
    (
        Bug(
            "contract: a status that is not documented",
            ROUTE,
            "Response(status_code=status, media_type",
            'Response(status_code=202 if operation.operation_id == "closePeriod" else status, media_type',
        ),
        ("closePeriod",),
    ),
    (
        Bug(
            "contract: a code that the operation does not have",
            ACCOUNTS,
            OPENING,
            OPENING + '    if body.normal_side == "debit" and body.asset != "USD/2":\n        raise InvalidCursor()\n',
        ),
        ("createAccount",),
    ),
    (
        Bug(
            "contract: a property that is missing",
            ROUTE,
            "else answer.serialize_json(said)",
            'else answer.serialize_json(said, exclude={"available"})',
        ),
        ("getAccount",),
    ),
    (
        Bug(
            "contract: an operation that asks for no key",
            ROUTE,
            "if operation.secured and operation",
            'if operation.secured and operation.operation_id != "getLedger" and operation',
        ),
        ("getLedger",),
    ),
    (
        Bug(
            "contract: a 500 on one value",
            ACCOUNTS,
            OPENING,
            "    if len(given(body.description) or '') == 1000:\n        raise ZeroDivisionError\n" + OPENING,
        ),
        ("createAccount",),
    ),
    (
        Bug(
            "contract: problems in another media type",
            PROBLEMS,
            'media_type="application/problem+json")',
            'media_type="application/json")',
        ),
        ("getLedger",),
    ),
    (
        Bug(
            "contract: a header that is missing",
            PROBLEMS,
            '        headers["WWW-Authenticate"] = "Bearer"\n',
            "        pass\n",
        ),
        ("getLedger",),
    ),
    (
        Bug(
            "contract: a write without an idempotency key",
            EDGE,
            'if operation.keyed and not headers.get(b"idempotency-key"):',
            "if False:",
        ),
        ("createAccount",),
    ),
)


def find(bug: Bug, operations: tuple[str, ...], tree: Path) -> dict[str, Any] | str:
    """What the fuzzing of the planted tree says, or in capitals what is wrong."""
    file = tree / bug.file
    original = file.read_text()
    planted = plant(bug, original)
    if planted is None:
        return "NOT PLANTED: the code has changed"
    file.write_text(planted)
    summary = tree / "summary.json"
    summary.unlink(missing_ok=True)
    command = [sys.executable, "-m", "scripts.fuzz", "--examples", str(EXAMPLES), "--seed", str(SEED)]
    command += ["--summary", str(summary), *(["--only", *operations] if operations else [])]
    try:
        subprocess.run(
            command, cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)}, capture_output=True, timeout=SECONDS_MAX,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"NO ANSWER in {SECONDS_MAX} s"
    finally:
        file.write_text(original)
    return json.loads(summary.read_text()) if summary.exists() else "NO SUMMARY"


def tell(found: dict[str, Any] | str) -> str:
    """Each check that failed, with the operation it failed of first; the faults in the logs where there is no more."""
    if isinstance(found, str):
        return found
    first: dict[str, str] = {}
    for finding in found["findings"]:
        first.setdefault(finding["check"], finding["operation"])
    return ", ".join(f"{check} ({operation})" for check, operation in first.items()) or "SURVIVED"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="those whose names have this in them")
    parser.add_argument("--whole", action="store_true", help="fuzz every operation each time")
    arguments = parser.parse_args()
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv", ".data", "__pycache__", ".*_cache"))
        print("| bug | found by (first of) |\n|---|---|", flush=True)
        for bug, operations in PLANTED:
            if arguments.only in bug.name:
                said = tell(find(bug, () if arguments.whole else operations, tree))
                survived += said[0].isupper()
                print(f"| {bug.name} | {said} |", flush=True)
    print(f"{survived} survived" if survived else "all found")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())

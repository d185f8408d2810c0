"""Plant bugs in the ledger, one at a time, and see which test catches each.

    uv run python -m scripts.mutations              all of them: about half an hour on two cores
    uv run python -m scripts.mutations --only expiry

Each bug is planted in a copy of the working tree, whose tests then run until the first one fails. A bug that no test
catches, or that can no longer be planted because the code has changed, fails the run.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = (
    "tests/test_rules.py",
    "tests/test_model.py",
    "tests/test_idempotency.py",
    "tests/test_refusals.py",
    "tests/test_batches.py",
    "tests/test_history.py",
    "tests/test_finding.py",
    "tests/test_tables.py",
    "tests/test_writer.py",
    "tests/test_feed.py",
    "tests/test_concurrency.py",
)
SECONDS_MAX = 900


@dataclass(frozen=True)
class Bug:
    """What stands in a file, and what a careless hand makes of it."""

    name: str
    file: str
    right: str
    wrong: str
    # A second place in the same file.
    and_also: tuple[str, str] | None = None


BUGS = (
    Bug(
        "the wrong sign on credit-normal accounts",
        "app/ledger/values.py",
        "        return self.credits_posted - self.debits_posted",
        "        return self.debits_posted - self.credits_posted",
    ),
    Bug(
        "a minimum checked against posted instead of available",
        "app/ledger/movements.py",
        "after.available < minimum",
        "after.posted < minimum",
    ),
    Bug(
        "a maximum that ignores incoming holds",
        "app/ledger/movements.py",
        "after.expected > maximum",
        "after.posted > maximum",
    ),
    Bug(
        "an overflow that counts what is posted alone",
        "app/ledger/movements.py",
        "max(after.debits_posted + after.debits_pending, after.credits_posted + after.credits_pending)",
        "max(after.debits_posted, after.credits_posted)",
    ),
    Bug(
        "limits checked after each posting instead of the whole transaction",
        "app/ledger/movements.py",
        "        self.entries.append(entry)\n",
        "        self.entries.append(entry)\n        check_limits(self.accounts, self.book)\n",
    ),
    Bug(
        "a late entry without its row",
        "app/ledger/movements.py",
        "late_effective=effective_at if late else None",
        "late_effective=None",
    ),
    Bug(
        "a hold that makes later entries late",
        "app/ledger/movements.py",
        "self.effective_at if posted else before.latest_effective",
        "self.effective_at",
    ),
    Bug(
        "an expired hold still counted",
        "app/ledger/writer.py",
        "for hold in book.due:",
        "for hold in book.due[:0]:",
    ),
    Bug(
        "an expiry one instant late",
        "app/ledger/book.py",
        "status = 'pending' and expires_at <= $6",
        "status = 'pending' and expires_at < $6",
    ),
    Bug(
        "a next expiry that is late",
        "app/ledger/book.py",
        "self.next_expiry = min(hold.expires_at,",
        "self.next_expiry = max(hold.expires_at,",
    ),
    Bug(
        "a present-tense read that does not look for due holds",
        "app/ledger/queries.py",
        "row.next_expiry <= now",
        "False",
    ),
    Bug(
        "commands decided while more holds are due",
        "app/ledger/writer.py",
        "if book.next_expiry is None or book.next_expiry > now:",
        "if True:",
    ),
    Bug(
        "a capture that forgets its release",
        "app/ledger/holds.py",
        "pending=-posted - released,",
        "pending=-posted,",
    ),
    Bug(
        "a capture that takes more than is held",
        "app/ledger/holds.py",
        "        if amount > remaining:",
        "        if amount > hold.lines[number].held:",
    ),
    Bug(
        "a capture that ends the hold although the remainder is kept",
        "app/ledger/holds.py",
        '"pending" if any(kept.values()) else "captured"',
        '"captured"',
    ),
    Bug(
        "a capture into closed books",
        "app/ledger/holds.py",
        "    hold = _get_pending(command.subject, book)\n    check_effective(command.effective_at, now=now)\n"
        "    check_period(command.effective_at, book)\n",
        "    hold = _get_pending(command.subject, book)\n    check_effective(command.effective_at, now=now)\n",
    ),
    Bug(
        "a void that a frozen account refuses",
        "app/ledger/holds.py",
        "    hold = _get_pending(command.subject, book)\n    check_reference(command.reference, book)\n    nothing",
        "    hold = _get_pending(command.subject, book)\n"
        "    check_open((path for line in hold.lines for path in (line.debit_account, line.credit_account)), book)\n"
        "    check_reference(command.reference, book)\n    nothing",
    ),
    Bug(
        "a reversal that does not swap the sides",
        "app/ledger/holds.py",
        "movement.move(debit=each.credit_account, credit=each.debit_account, posted=each.amount)",
        "movement.move(debit=each.debit_account, credit=each.credit_account, posted=each.amount)",
    ),
    Bug(
        "a second reversal",
        "app/ledger/holds.py",
        "    if command.subject in book.reversed:\n        raise AlreadyReversed()\n",
        "",
    ),
    Bug(
        "an account closed with a live hold on it",
        "app/ledger/configurations.py",
        "(before.posted or before.debits_pending or before.credits_pending)",
        "before.posted",
    ),
    Bug(
        "a version that is held against the account in the middle of the transaction",
        "app/ledger/rules.py",
        "move.expected_debit_version not in (None, book.accounts[move.debit_account].version)",
        "move.expected_debit_version not in (None, book.accounts[move.debit_account].version + n)",
    ),
    Bug(
        "a recorded time that may fall",
        "app/ledger/book.py",
        "return max(now, self.head.recorded_at)",
        "return now",
    ),
    Bug(
        "an atomic batch that is not taken back",
        "app/ledger/writer.py",
        "    except BooksRefuse as refusal:\n        if before is not None:\n            book.restore(before)\n",
        "    except BooksRefuse as refusal:\n",
    ),
    Bug(
        "a refusal that is not frozen with its key",
        "app/ledger/writer.py",
        "        book.keep(KeyRow(submission.key, submission.fingerprint, book.sequence, freeze(refusal)))\n",
        "",
    ),
    Bug(
        "a key that forgets what it was used for",
        "app/ledger/writer.py",
        "if known.fingerprint != submission.fingerprint:",
        "if False:",
    ),
    Bug(
        "a key stored after the commit",
        "app/ledger/journal.py",
        "        *_columns(6, map(_key_row, book.new_keys)),\n",
        "        *_columns(6, ()),\n",
        and_also=(
            "        return await connection.fetchval(WRITE_WITH_HOLDS, *arguments, timeout=timeout_s) is not None\n"
            "    return await connection.fetchval(WRITE, *arguments, timeout=timeout_s) is not None\n",
            "        written = await connection.fetchval(WRITE_WITH_HOLDS, *arguments, timeout=timeout_s) is not None\n"
            "    else:\n"
            "        written = await connection.fetchval(WRITE, *arguments, timeout=timeout_s) is not None\n"
            "    if written:\n"
            "        await connection.executemany(\n"
            '            f"insert into idempotency_keys values ({ledger_id}, $1, $2, $3, $4, $5, $6)",\n'
            "            [_key_row(row) for row in book.new_keys],\n"
            "        )\n"
            "    return written\n",
        ),
    ),
    Bug(
        "a write without the revision check",
        "app/ledger/journal.py",
        "where ledger_id = $1 and revision = $2 returning",
        "where ledger_id = $1 and $2 = $2 returning",
    ),
    Bug(
        "an answer before the commit",
        "app/ledger/writer.py",
        "        if not book.changes_nothing:\n",
        "        for submission, outcome in zip(batch, outcomes, strict=False):\n"
        "            _answer(submission, outcome)\n"
        "        if not book.changes_nothing:\n",
    ),
    Bug(
        "a lost commit that is guessed to have failed",
        "app/ledger/writer.py",
        "                in_doubt = in_doubt or isinstance(error, WriteInDoubt)\n",
        "                raise StorageUnavailable() from error\n",
    ),
    Bug(
        "a cursor on time",
        "app/ledger/queries.py",
        "    rows, _ = await _read_page(session, _events(ledger_id), events.c.sequence,",
        "    since = select(events.c.recorded_at).where(events.c.ledger_id == ledger_id, events.c.sequence == after)\n"
        "    newer = _events(ledger_id).where((events.c.recorded_at > since.scalar_subquery()) | (after == 0))\n"
        "    rows, _ = await _read_page(session, newer, events.c.sequence,",
    ),
    Bug(
        "a past that counts what was recorded later",
        "app/ledger/history.py",
        "and version > effective.version and version <= known.version",
        "and version > effective.version",
    ),
    Bug(
        "a statement that shows holds",
        "app/ledger/queries.py",
        ", entries.c.posted > 0)",
        ")",
    ),
)


def plant(bug: Bug, text: str) -> str | None:
    for right, wrong in filter(None, ((bug.right, bug.wrong), bug.and_also)):
        if text.count(right) != 1:
            return None
        text = text.replace(right, wrong)
    return text


def catch(bug: Bug, tree: Path, tests: list[str]) -> str:
    """The test that caught it, or in capitals what is wrong."""
    file = tree / bug.file
    original = file.read_text()
    planted = plant(bug, original)
    if planted is None:
        return "NOT PLANTED: the code has changed"
    file.write_text(planted)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    try:
        ran = subprocess.run(
            command, cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)}, capture_output=True, text=True,
            timeout=SECONDS_MAX, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"NO ANSWER in {SECONDS_MAX} s"
    finally:
        file.write_text(original)
    failed = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", ran.stdout, re.MULTILINE)
    return failed[1] if ran.returncode and failed else "SURVIVED"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="those bugs whose names have this in them")
    parser.add_argument("tests", nargs="*", default=list(TESTS))
    arguments = parser.parse_args()
    survived = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv", ".data", "__pycache__", ".*_cache"))
        print("| bug | caught by |\n|---|---|", flush=True)
        for bug in BUGS:
            if arguments.only not in bug.name:
                continue
            caught = catch(bug, tree, arguments.tests)
            survived += caught[0].isupper()
            print(f"| {bug.name} | {caught} |", flush=True)
    print(f"{survived} survived" if survived else "all caught")
    return 1 if survived else 0


if __name__ == "__main__":
    sys.exit(main())

"""The bugs that `scripts/mutations` and `scripts/fuzz_planted` plant fit the code. The long runs are commands of their
own."""

import ast

import pytest

from scripts.fuzz_planted import PLANTED
from scripts.mutations import BUGS, ROOT, plant


@pytest.mark.parametrize("bug", [*BUGS, *(bug for bug, _ in PLANTED)], ids=lambda bug: bug.name)
def test_every_bug_can_be_planted_and_is_a_program(bug) -> None:
    """Code that has moved or changed takes its bug with it, in the same commit."""
    before = (ROOT / bug.file).read_text()

    planted = plant(bug, before)

    assert planted is not None, f"{bug.file} does not have, exactly once: {bug.right}"
    assert planted != before
    if bug.file.endswith(".py"):
        ast.parse(planted)

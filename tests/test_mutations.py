"""The bugs that `scripts/mutations` plants fit the code. The long run that plants them is a command of its own."""

import ast

import pytest

from scripts.mutations import BUGS, ROOT, plant


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_every_bug_can_be_planted_and_is_a_program(bug) -> None:
    """Code that has moved or changed takes its bug with it, in the same commit."""
    before = (ROOT / bug.file).read_text()

    planted = plant(bug, before)

    assert planted is not None, f"{bug.file} does not have, exactly once: {bug.right}"
    assert planted != before
    if bug.file.endswith(".py"):
        ast.parse(planted)

"""Callers that go away, and faults of connections, processes and Postgres: whatever was answered is explained.

One round, with each large fault once. Longer runs are a command of their own, `scripts/campaign`.
"""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.campaign import run_round

SEED = int(os.environ.get("TALLYSTICK_FAULTS_SEED", "1"))


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory where that is possible: what a lost power supply would do is not asked here."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def test_whatever_callers_saw_between_faults_is_explained(folder):
    done = asyncio.run(run_round(folder, SEED, times=1, apart=40, fsync=False))
    assert [] == done.found
    for name in (
        "cancelled",
        "never retried",
        "retries",
        "rejections",
        "reads",
        "effects",
        "effects nobody was told of",
    ):
        assert done.counts[name], f"the mix was meant to have everything, {name} too: {done.counts}"
    assert len(done.faults) == 10, done.faults

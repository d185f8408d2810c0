"""A short run of scripts/fuzz: the contract and the service, with nobody's idea of what to try in between."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
SECONDS_MAX = 600
ANSWERS_MIN = 500


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], dict]:
    summary = tmp_path_factory.mktemp("fuzz") / "summary.json"
    # The seed is fixed, so that a change is judged by itself; scripts/fuzz alone takes a new one each time.
    command = [sys.executable, "-m", "scripts.fuzz", "--examples", "25", "--seed", "1", "--summary", str(summary)]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=SECONDS_MAX)
    assert summary.exists(), done.stdout + done.stderr
    return done, json.loads(summary.read_text())


def test_fuzzing_the_contract_finds_nothing(run: tuple[subprocess.CompletedProcess[str], dict]) -> None:
    done, summary = run
    assert (0, []) == (done.returncode, summary["faults"]), done.stdout


def test_fuzzing_carries_out_every_operation(run: tuple[subprocess.CompletedProcess[str], dict]) -> None:
    """Each is answered with success, and with refusals if it takes anything: a run that only bounces off the edge
    proves little."""
    _, summary = run
    paths = yaml.safe_load((ROOT / "openapi.yaml").read_text())["paths"]
    operations = {said["operationId"]: said for methods in paths.values() for said in methods.values()}
    assert set(operations) == set(summary["operations"])
    for operation, statuses in summary["operations"].items():
        kinds = {int(status) // 100 for status in statuses}
        takes = operations[operation].keys() & {"parameters", "requestBody"}
        assert ({2, 4} if takes else {2}) <= kinds <= {2, 4}, f"{operation}: {statuses}"
    assert ANSWERS_MIN < sum(sum(statuses.values()) for statuses in summary["operations"].values())

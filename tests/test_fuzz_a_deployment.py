"""The workflow that a client team copies: its commands run as they stand, against a live service."""

import argparse
import os
import subprocess
from pathlib import Path

import httpx
import pytest
import schemathesis
import yaml
from schemathesis.config import SchemathesisConfig

from app.settings import Settings
from scripts.answers import CONTRACT
from scripts.fuzz import get_configuration
from tests.conftest import KEY, ROOT, Service

WORKFLOW = yaml.safe_load((ROOT / "docs/examples/github/fuzz-tallystick.yml").read_text())
STEPS = WORKFLOW["jobs"]["fuzz"]["steps"]
(COMMAND,) = (step["run"] for step in STEPS if "run" in step)
SECONDS_MAX = 300
LEDGER = "fuzz"


def fuzz(
    service: Service,
    folder: Path,
    key: str,
    ledger: str = LEDGER,
    *,
    minutes: str = "0.2",
    only: str = "getAccount postTransaction",
) -> subprocess.CompletedProcess[str]:
    """The workflow's command, with what the workflow puts into the environment; few examples in place of minutes."""
    (command,) = COMMAND.strip().replace("\\\n", " ").splitlines()
    command = command.replace("fuzz-report", str(folder / "fuzz-report"))
    command = command.replace("fuzz-summary.json", str(folder / "fuzz-summary.json"))
    command += f" --examples 1 --only {only}"
    said = {"FUZZ_URL": service.url, "FUZZ_LEDGER": ledger, "FUZZ_MINUTES": minutes, "FUZZ_SEED": "7"}
    environment = os.environ | said | {"FUZZ_API_KEY": key}
    return subprocess.run(
        ["bash", "-ec", command], cwd=ROOT, env=environment, check=False, capture_output=True, text=True,
        timeout=SECONDS_MAX,
    )  # fmt: skip


@pytest.fixture(scope="module")
def key(service: Service) -> str:
    """As docs/fuzzing.md says: a ledger, and a key for it alone."""
    with service.client() as client:
        assert client.post("/v1/ledgers", json={"name": LEDGER}).status_code == 201
        operations = ["read", "post", "hold", "admin"]
        asked = {"name": "fuzz", "operations": operations, "ledgers": [LEDGER]}
        return client.post("/v1/api-keys", json=asked).json()["secret"]


def test_its_commands_fuzz_a_service_of_others_and_write_to_one_ledger(
    service: Service, key: str, tmp_path: Path
) -> None:
    with service.client() as client:
        before = {each["name"] for each in client.get("/v1/ledgers?limit=1000").json()["items"]}
        done = fuzz(service, tmp_path, key)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Seed 7" in done.stdout
        assert (tmp_path / "fuzz-summary.json").exists()
        reports = {file.name.split("-")[0] for file in (tmp_path / "fuzz-report").iterdir()}
        assert reports == {"junit", "har", "html"}
        assert {each["name"] for each in client.get("/v1/ledgers?limit=1000").json()["items"]} == before
        assert client.get(f"/v1/ledgers/{LEDGER}/accounts").json()["items"]


def test_refuses_a_key_that_reaches_further(service: Service, key: str, tmp_path: Path) -> None:
    """Before it has written anything."""
    log = httpx.get(f"{service.url}/v1/ledgers/{LEDGER}", headers={"Authorization": f"Bearer {KEY}"}).json()["sequence"]
    done = fuzz(service, tmp_path, KEY)
    assert done.returncode != 0
    assert "Take a key that may do nothing but with the ledger fuzz" in done.stderr
    after = httpx.get(f"{service.url}/v1/ledgers/{LEDGER}", headers={"Authorization": f"Bearer {KEY}"}).json()
    assert after["sequence"] == log


def test_every_name_that_its_command_takes_is_given_to_it() -> None:
    (step,) = (step for step in STEPS if "run" in step)
    for name in ("FUZZ_URL", "FUZZ_LEDGER", "FUZZ_MINUTES", "FUZZ_SEED"):
        assert f"${name}" in COMMAND or f"${{{name}" in COMMAND
        assert name in WORKFLOW["env"]
    assert step["env"] == {"FUZZ_API_KEY": "${{ secrets.TALLYSTICK_FUZZ_KEY }}"}
    assert WORKFLOW["permissions"] == {"contents": "read"}
    # YAML 1.1 reads `on` as true.
    assert set(WORKFLOW[True]["workflow_dispatch"]["inputs"]) == {"url", "ledger", "minutes", "seed"}


def test_an_operation_that_a_short_run_does_not_come_to_is_fuzzed_afterwards(
    service: Service, key: str, tmp_path: Path
) -> None:
    """One second is not enough for all of these."""
    only = "getAccount getAccountBalance getTotals getTrialBalance listAccounts listTransactions verifyLedger getLedger"
    done = fuzz(service, tmp_path, key, minutes="0.001", only=f"{only} postTransaction")
    assert done.returncode == 0, done.stdout + done.stderr


def load(folder: Path, url: str | None) -> schemathesis.schemas.BaseSchema:
    """The contract as schemathesis reads it with the configuration of such a run."""
    arguments = argparse.Namespace(url=url, ledger=LEDGER)
    configuration, contract = get_configuration(arguments, folder)
    return schemathesis.openapi.from_path(contract, config=SchemathesisConfig.from_path(configuration))


@pytest.mark.parametrize("url", [None, "http://deployment.test"], ids=["its own service", "a deployment"])
def test_an_answer_may_take_as_long_as_the_contract_lets_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str | None
) -> None:
    monkeypatch.setenv("FUZZ_API_KEY", "key")
    schema = load(tmp_path, url)
    waits = CONTRACT["components"]["parameters"]["WaitSeconds"]["schema"]["maximum"]
    deadline = Settings.model_fields["write_deadline_s"].default
    for result in schema.get_all_operations():
        timeout = schema.config.request_timeout_for(operation=result.ok())
        assert timeout is not None
        assert timeout > 2 * max(waits, deadline)


def test_the_longest_wait_for_an_event_is_no_finding(
    service: Service, key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """At the end of the log `wait_seconds` at its maximum takes that long, and is answered with an empty page."""
    monkeypatch.setenv("FUZZ_API_KEY", key)
    headers = {"Authorization": f"Bearer {key}"}
    end = httpx.get(f"{service.url}/v1/ledgers/{LEDGER}", headers=headers).json()["sequence"]
    operation = load(tmp_path, service.url)["/v1/ledgers/{ledger}/events"]["GET"]
    wait = CONTRACT["components"]["parameters"]["WaitSeconds"]["schema"]["maximum"]
    query = {"after_sequence": end, "wait_seconds": wait}
    case = operation.Case(path_parameters={"ledger": LEDGER}, query=query, headers=headers)
    answer = case.call(base_url=service.url)
    assert (200, []) == (answer.status_code, answer.json()["items"])
    assert answer.elapsed > 10

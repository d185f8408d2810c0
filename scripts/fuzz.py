"""Fuzz the contract with schemathesis, against the service in two processes on a throwaway Postgres.

Exits with 0 only if nothing was found: no answer that the contract does not have, no error in the service's logs, no
operation that was never carried out, and books that still balance.
"""

import argparse
import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import httpx
import yaml
from schemathesis.cli import schemathesis as command_line

from scripts.answers import CONTRACT, Record, table
from scripts.fuzz_checks import ALLOWED, KEY, OPERATION_IDS, RECORD, findings
from scripts.postgres import Postgres

ROOT = Path(__file__).resolve().parents[1]
CONTRACT_FILE = ROOT / "openapi.yaml"
CONFIGURATION_FILE = ROOT / "schemathesis.toml"
DATABASE = "fuzz"
PROCESSES = 2
START_SECONDS_MAX = 180
STOP_SECONDS_MAX = 30
SEED_MAX = 2**32 - 1

OPERATIONS = list(OPERATION_IDS.values())
# Not for a deployment that others use: ledgers and keys beside the ones made for this.
FOR_OPERATORS = {"createLedger", "createApiKey", "listApiKeys", "revokeApiKey", "getMetrics"}

# What the dictionaries of schemathesis.toml name. The contract's own examples stay free to be carried out.
LEDGER = {"name": "main", "description": "Wallets of the shop", "metadata": {"team": "payments"}}
ACCOUNTS = [
    {"path": "bank:cash", "asset": "USD/2", "normal_side": "debit"},
    {"path": "users:42:wallet", "asset": "USD/2", "normal_side": "credit", "minimum_balance": "0"},
    {"path": "users:7:wallet", "asset": "USD/2", "normal_side": "credit", "maximum_balance": "1000000"},
    {"path": "fees", "asset": "USD/2", "normal_side": "credit"},
]
DEPOSIT = {"postings": [{"debit_account": "bank:cash", "credit_account": "users:42:wallet", "amount": "100000"}]}
FEE = {"postings": [{"debit_account": "users:42:wallet", "credit_account": "fees", "amount": "25"}]}
HOLD = {"postings": FEE["postings"] * 2, "pending": True, "group": "order-78"}
# Their sequences are among the dictionaries too: first the posts, then the holds.
TRANSACTIONS = [DEPOSIT, *[FEE] * 12, *[HOLD] * 24]


def main() -> None:
    arguments = _parse_arguments()
    arguments.alone = bool(arguments.only)
    print(f"Seed {arguments.seed}: repeat this run with --seed {arguments.seed}", flush=True)
    faults: list[str] = []
    with _deployment(arguments, faults) if arguments.url else _throwaway(faults) as client:
        status = _fuzz(client, arguments)
        if arguments.minutes and not status:
            status = _fuzz_operations_not_reached(client, arguments)
        if status:
            faults.append(f"schemathesis ended with {status}; what it found stands above")
        faults += _find_faults_in_books(client, arguments.ledger if arguments.url else "main")
    faults += _find_operations_not_reached(arguments)
    _print_summary(arguments, faults)
    if arguments.summary:
        _write_summary(arguments, faults)
    if arguments.answers:
        RECORD.write(arguments.answers, by="fuzzing")
    sys.exit(1 if faults else 0)


@contextlib.contextmanager
def _throwaway(faults: list[str]) -> Iterator[httpx.Client]:
    memory = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder,
        Postgres(Path(folder) / "postgres", durable=False) as postgres,
        _service(postgres, Path(folder) / "service.log", faults) as client,
    ):
        client.post("/v1/ledgers", json=LEDGER).raise_for_status()
        _prepare(client, "main")
        for name in ("first", "second"):
            client.post("/v1/api-keys", json={"name": name, "operations": ["read"]}).raise_for_status()
        yield client


@contextlib.contextmanager
def _deployment(arguments: argparse.Namespace, faults: list[str]) -> Iterator[httpx.Client]:
    """A service that others run, and our key for one ledger of it. What is for its operators is left alone."""
    served = httpx.get(f"{arguments.url}/openapi.yaml", timeout=30).raise_for_status().content
    if yaml.safe_load(served) != CONTRACT:
        sys.exit("The service has another contract than this checkout: take the one of its version.")
    key = os.environ["FUZZ_API_KEY"]
    ALLOWED.update({"forbidden", "rate_limited"})
    arguments.only = [name for name in arguments.only or OPERATIONS if name not in FOR_OPERATORS]
    with httpx.Client(base_url=arguments.url, headers={"Authorization": f"Bearer {key}"}, timeout=30) as client:
        if client.get("/v1/api-keys").status_code != 403 or _ledgers(client) != [arguments.ledger]:
            sys.exit(f"Take a key that may do nothing but with the ledger {arguments.ledger}, which was made for this.")
        _prepare(client, arguments.ledger)
        yield client


def _ledgers(client: httpx.Client) -> list[str]:
    return [each["name"] for each in client.get("/v1/ledgers").raise_for_status().json()["items"]]


def get_configuration(arguments: argparse.Namespace, folder: Path) -> tuple[Path, Path]:
    """The configuration and the contract; for a deployment, with its ledger, and with what its key may be refused."""
    if not arguments.url:
        return CONFIGURATION_FILE, CONTRACT_FILE
    said = CONFIGURATION_FILE.read_text().replace('values = ["main"]', f'values = ["{arguments.ledger}"]')
    said = said.replace('expected-statuses = ["2XX", 400, 404', 'expected-statuses = ["2XX", 400, 403, 404, 429')
    said = said.replace("expected-statuses = [400, 401", "expected-statuses = [400, 401, 403, 429")
    (folder / "schemathesis.toml").write_text(said)
    contract = deepcopy(CONTRACT)
    for parameter in contract["components"]["parameters"].values():
        if (parameter["in"], parameter["name"]) == ("path", "ledger"):
            parameter["example"] = arguments.ledger
    (folder / "openapi.yaml").write_text(json.dumps(contract))
    return folder / "schemathesis.toml", folder / "openapi.yaml"


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--examples", type=int, default=100, help="cases per operation (default: %(default)s)")
    parser.add_argument(
        "--minutes",
        type=float,
        help="go on, round after round, for this long; two are enough to be of use, and any number of hours is fine",
    )
    parser.add_argument("--only", nargs="+", choices=OPERATIONS, metavar="NAME", help="these operations, each alone")
    parser.add_argument("--answers", type=Path, help="a file for the record that scripts/answers reads")
    parser.add_argument(
        "--url",
        help="a running service in place of one of our own, with its key in FUZZ_API_KEY: it writes to the ledger that "
        "--ledger names, and nothing removes what was written",
    )
    parser.add_argument("--ledger", default="fuzz", help="the ledger there, made for this (default: %(default)s)")
    parser.add_argument("--report", type=Path, help="a folder for the reports of schemathesis: JUnit, HAR and HTML")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(SEED_MAX), help="repeat the run of this seed")
    parser.add_argument("--summary", type=Path, help="a file for the summary as JSON")
    return parser.parse_args()


@contextlib.contextmanager
def _service(postgres: Postgres, log: Path, faults: list[str]) -> Iterator[httpx.Client]:
    """The service in processes of its own; at the end its exit and its logs are looked at too."""
    postgres.create_database(DATABASE)
    key = secrets.token_hex(16)
    environment = os.environ | {
        "DATABASE_URL": postgres.url(DATABASE),
        "API_KEY": key,
        "LOG_LEVEL": "WARNING",
        "LOG_FORMAT": "json",
        "ALLOW_UNSAFE_DATABASE": "true",
        # Much of what is sent has no valid key, and all of it comes from one address.
        "ADDRESS_FAILURES_PER_S": "0",
    }
    subprocess.run([sys.executable, "-m", "alembic", "upgrade", "head"], cwd=ROOT, env=environment, check=True)
    # By its number: on an inherited socket uvicorn leaves Nagle's algorithm on, which makes it ten times slower.
    port = _free_port()
    options = ["--port", str(port), "--workers", str(PROCESSES), "--no-access-log", "--no-server-header"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "app.main:app", *options],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {key}"}, timeout=30)
    try:
        with client:
            _await(client, process, log)
            yield client
    finally:
        process.terminate()
        status = process.wait(STOP_SECONDS_MAX)
    faults += [f"the service exited with {status}"] if status not in (0, -15) else []
    faults += [f"logged: {line[:2000]}" for line in log.read_text().splitlines() if _tells_of_a_fault(line)]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _await(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if client.get("/readyz").status_code == 200:
                return
        time.sleep(0.1)
    sys.exit(f"The service did not start:\n{log.read_text()}")


def _tells_of_a_fault(line: str) -> bool:
    """Whether the line was logged as an error, or is no log line at all, such as a traceback's."""
    try:
        return json.loads(line)["level"] in ("error", "critical")
    except (ValueError, KeyError, TypeError):
        return not line.startswith(("INFO:", "WARNING:"))


def _prepare(client: httpx.Client, ledger: str) -> None:
    """The accounts and transactions that the dictionaries name; done before, it is done."""
    requests: list[tuple[str, Any]] = [("accounts", account) for account in ACCOUNTS]
    requests += [("transactions", each) for each in TRANSACTIONS]
    for number, (path, body) in enumerate(requests):
        headers = {KEY: f"prepare-{number}"}
        client.post(f"/v1/ledgers/{ledger}/{path}", json=body, headers=headers).raise_for_status()


def _fuzz(client: httpx.Client, arguments: argparse.Namespace) -> int:
    """Schemathesis, within this process, so that our check counts here."""
    os.environ["FUZZ_API_KEY"] = client.headers["Authorization"].removeprefix("Bearer ")
    options = ["--url", str(client.base_url).rstrip("/"), "--seed", str(arguments.seed), "--no-color"]
    options += ["--max-examples", str(arguments.examples), "--workers", str(PROCESSES)]
    # How long the making of a case takes tells of the machine, not of the service.
    options += ["--suppress-health-check", "too_slow"]
    options += [option for name in arguments.only or () for option in ("--include-operation-id", name)]
    if arguments.alone:  # no link leads from one to another
        options += ["--phases", "examples,coverage,fuzzing"]
    if arguments.minutes:
        options += ["--max-time", str(max(round(arguments.minutes * 60), 1))]
    if arguments.report:
        options += ["--report", "junit,har,html", "--report-dir", str(arguments.report)]
    with tempfile.TemporaryDirectory() as folder:
        configuration, contract = get_configuration(arguments, Path(folder))
        command = ["--config-file", str(configuration), "run", str(contract), *options]
        try:
            return command_line.main(command, standalone_mode=False) or 0
        except SystemExit as exit:
            return int(exit.code or 0)


def _find_faults_in_books(client: httpx.Client, ledger: str) -> list[str]:
    """After everything that was thrown at it: the log has no gap, and what was debited was credited."""
    faults = []
    after, expected = 0, 1
    while (page := client.get(f"/v1/ledgers/{ledger}/events?limit=1000&after_sequence={after}").json())["items"]:
        for event in page["items"]:
            if event["sequence"] != expected:
                faults.append(f"the log of {ledger} has {event['sequence']} where {expected} belongs")
            expected = event["sequence"] + 1
        after = page["next_after_sequence"]
    totals: Counter[str] = Counter()
    cursor = ""
    while cursor is not None:
        page = client.get(
            f"/v1/ledgers/{ledger}/accounts", params={"limit": 1000} | ({"cursor": cursor} if cursor else {})
        ).json()
        for account in page["items"]:
            for column in ("posted", "pending"):
                moved = int(account[f"debits_{column}"]) - int(account[f"credits_{column}"])
                totals[f"what is {column} of {account['asset']}"] += moved
        cursor = page["next_cursor"]
    return faults + [f"{what} is off by {total}" for what, total in totals.items() if total]


def _fuzz_operations_not_reached(client: httpx.Client, arguments: argparse.Namespace) -> int:
    """Give the operations that a slow machine did not come to in its time as many examples as a run without a time."""
    missed = _list_operations_not_reached(arguments)
    if not missed:
        return 0
    print(f"\nThe time was too short for {', '.join(missed)}: here they are by themselves.", flush=True)
    return _fuzz(client, argparse.Namespace(**vars(arguments) | {"only": missed, "alone": True, "minutes": None}))


def _list_operations_not_reached(arguments: argparse.Namespace) -> list[str]:
    return [
        operation
        for operation in arguments.only or OPERATIONS
        if not any(status < 300 for status in RECORD.statuses(operation))
    ]


def _find_operations_not_reached(arguments: argparse.Namespace) -> list[str]:
    return [f"{operation} was never carried out" for operation in _list_operations_not_reached(arguments)]


def _print_summary(arguments: argparse.Namespace, faults: list[str]) -> None:
    print(
        f"\nSeed {arguments.seed}, {RECORD.counts.total()} answers; how often each status was, and in how many codes:\n"
    )
    rows = table(RECORD, Record(), otherwise="-")
    print("\n".join(rows[:2] + [row for row in rows[2:] if row.split()[1] in (arguments.only or row)]))
    codes = Counter[str]()
    for (_, status, code), count in RECORD.counts.items():
        codes[f"{status} {code}".strip()] += count
    print("\n" + "\n".join(f"  {count:>7}  {code}" for code, count in sorted(codes.items(), key=lambda item: item[0])))
    print("\nNothing was found." if not faults else "\nFound:\n" + "\n".join(f"- {fault}" for fault in faults))
    for found in findings():
        print(f"- {found['check']} of {found['operation']}, in the phase {found['phase']}: {_repeat(arguments, found)}")


def _repeat(arguments: argparse.Namespace, found: dict[str, Any]) -> str:
    """The command that finds it again: that operation alone, or all of them if they led there together."""
    alone = "" if found["phase"] == "Stateful" else f" --only {found['operation']}"
    target = f" --url {arguments.url}" if arguments.url else ""
    seed = arguments.seed if found["phase"] == "Stateful" else found["seed"]
    return f"scripts/fuzz --seed {seed} --examples {arguments.examples}{alone}{target}"


def _write_summary(arguments: argparse.Namespace, faults: list[str]) -> None:
    summary = {
        "seed": arguments.seed,
        "faults": faults,
        "findings": findings(),
        "operations": {operation: RECORD.statuses(operation) for operation in OPERATIONS},
    }
    arguments.summary.write_text(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()

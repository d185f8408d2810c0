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
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import schemathesis
import yaml
from schemathesis.cli import schemathesis as command_line

from scripts.postgres import Postgres

ROOT = Path(__file__).resolve().parents[1]
CONTRACT_FILE = ROOT / "openapi.yaml"
CONTRACT = yaml.safe_load(CONTRACT_FILE.read_text())
DATABASE = "fuzz"
KEY = "Idempotency-Key"
PROCESSES = 2
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30
SEED_MAX = 2**32 - 1

# How far a request came that is well formed: it was refused, if at all, from the state of the service.
OF_THE_STATE = {
    "ledger_not_found", "account_not_found", "transaction_not_found", "sequence_out_of_range", "ledger_exists",
    "idempotency_key_reused", "account_exists", "limit_not_met", "reference_exists", "time_out_of_range",
    "unknown_account", "asset_mismatch", "amount_overflow", "insufficient_funds", "maximum_exceeded",
    "batch_refused", "revision_conflict", "version_conflict", "period_closed", "account_frozen", "account_closed",
    "account_not_empty", "not_pending", "already_captured", "already_voided", "hold_expired", "capture_exceeds_hold",
    "not_reversible", "already_reversed", "api_key_exists", "api_key_not_found",
}  # fmt: skip
# What a request may be refused for although no schema can say it.
BEYOND_SCHEMAS = {"invalid_cursor"}

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


@dataclass
class Tally:
    """How often each operation was answered with each status and code. Several threads add to it."""

    counts: Counter[tuple[str, int, str]] = field(default_factory=Counter)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, operation: str, status: int, code: str) -> None:
        with self.lock:
            self.counts[operation, status, code] += 1

    def statuses(self, operation: str) -> dict[int, int]:
        found: Counter[int] = Counter()
        for (name, status, _), count in self.counts.items():
            found[status] += count if name == operation else 0
        return {status: count for status, count in sorted(found.items()) if count}


TALLY = Tally()


@schemathesis.check
def refusal_is_the_contracts(ctx: Any, response: Any, case: Any) -> None:
    """A refusal's code is one that the contract names there, and says how far such a request should have come."""
    said = CONTRACT["paths"][case.operation.path][case.operation.method.lower()]
    operation = said["operationId"]
    if response.status_code < 400:
        TALLY.add(operation, response.status_code, "")
        return
    problem = json.loads(response.content)
    code = problem["code"]
    TALLY.add(operation, response.status_code, code)
    assert problem["request_id"] == response.headers["x-request-id"][0]
    if code not in {"route_not_found", "method_not_allowed"}:
        assert code in _codes(said["responses"][str(response.status_code)]), (
            f"{operation} does not name {code} under {response.status_code}"
        )
    if case.meta is None:
        return
    if case.meta.generation.mode.is_negative:
        # A header is another one on the wire, without the blanks around it: it may have become well formed there.
        wrong = {place.value for place, part in case.meta.components.items() if part.mode.is_negative} - {"header"}
        assert not wrong or code not in OF_THE_STATE, f"What is not well formed got as far as {code}"
    elif code not in OF_THE_STATE | BEYOND_SCHEMAS:
        beyond = _is_impossible(case.body) or _has_two_filters(case.query or {})
        assert beyond, f"What is well formed was refused as {code}"


@schemathesis.hook
def before_call(ctx: Any, case: Any, kwargs: Any) -> None:
    """Give most writes a key that stands for what they say, as a good client's does.

    Left alone, all but the first would end as `idempotency_key_reused`, since generated keys are few and short.
    """
    if KEY not in case.headers or case.meta is None or case.meta.generation.mode.is_negative:
        return
    meaning = sha256(repr((case.operation.label, case.path_parameters, case.body)).encode())
    if meaning.digest()[0] % 8:
        case.headers[KEY] = meaning.hexdigest()


def _codes(response: dict[str, Any]) -> list[str]:
    if reference := response.get("$ref"):
        response = CONTRACT["components"]["responses"][reference.rsplit("/", 1)[1]]
    return response["x-codes"]


def _is_impossible(body: Any) -> bool:
    """A posting within one account, an expiry of what is no hold, or a posting that is captured twice at once, none of
    which a schema can rule out."""
    if not isinstance(body, dict):
        return False
    transactions = body.get("transactions", [body])
    postings = [posting for each in transactions for posting in each.get("postings", [])]
    captured = [each["posting"] for each in body.get("amounts", [])]
    return (
        any(each["debit_account"] == each["credit_account"] for each in postings)
        or any("expires_at" in each and not each.get("pending", False) for each in transactions)
        or len(set(captured)) < len(captured)
    )


# What stands beside an order counts as one filter, the two ends of a range together.
FILTERS = (
    {"prefix"}, {"asset"}, {"status"}, {"account"}, {"reference"}, {"group"}, {"effective_from", "effective_to"},
)  # fmt: skip


def _has_two_filters(query: Any) -> bool:
    """Two filters of a list, which no schema can rule out."""
    return sum(not names.isdisjoint(query) for names in FILTERS) > 1


def main() -> None:
    arguments = _parse_arguments()
    print(f"Seed {arguments.seed}: repeat this run with --seed {arguments.seed}", flush=True)
    faults: list[str] = []
    memory = Path("/dev/shm")
    with (
        tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder,
        Postgres(Path(folder) / "postgres", durable=False) as postgres,
        _service(postgres, Path(folder) / "service.log", faults) as client,
    ):
        _prepare(client)
        status = _fuzz(client, arguments)
        if status:
            faults.append(f"schemathesis ended with {status}; what it found stands above")
        faults += _find_faults_in_books(client)
    faults += _find_operations_not_reached()
    _print_summary(arguments, faults)
    if arguments.summary:
        _write_summary(arguments, faults)
    sys.exit(1 if faults else 0)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--examples", type=int, default=100, help="cases per operation (default: %(default)s)")
    parser.add_argument(
        "--seconds", type=int, help="go on, round after round, for this long; any number of hours is fine"
    )
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


def _prepare(client: httpx.Client) -> None:
    requests = [("/v1/ledgers", LEDGER)]
    requests += [("/v1/ledgers/main/accounts", account) for account in ACCOUNTS]
    requests += [("/v1/ledgers/main/transactions", each) for each in TRANSACTIONS]
    requests += [("/v1/api-keys", {"name": name, "operations": ["read"]}) for name in ("first", "second")]
    for number, (path, body) in enumerate(requests):
        client.post(path, json=body, headers={KEY: f"prepare-{number}"}).raise_for_status()


def _fuzz(client: httpx.Client, arguments: argparse.Namespace) -> int:
    """Schemathesis, within this process, so that our check counts here."""
    os.environ["FUZZ_API_KEY"] = client.headers["Authorization"].removeprefix("Bearer ")
    options = ["--url", str(client.base_url).rstrip("/"), "--seed", str(arguments.seed), "--no-color"]
    options += ["--max-examples", str(arguments.examples), "--workers", str(PROCESSES)]
    # How long the making of a case takes tells of the machine, not of the service.
    options += ["--suppress-health-check", "too_slow"]
    if arguments.seconds:
        options += ["--max-time", str(arguments.seconds)]
    configuration = ["--config-file", str(ROOT / "schemathesis.toml")]
    try:
        return command_line.main([*configuration, "run", str(CONTRACT_FILE), *options], standalone_mode=False) or 0
    except SystemExit as exit:
        return int(exit.code or 0)


def _find_faults_in_books(client: httpx.Client) -> list[str]:
    """After everything that was thrown at it: the log has no gap, and what was debited was credited."""
    faults = []
    after, expected = 0, 1
    while (page := client.get(f"/v1/ledgers/main/events?limit=1000&after_sequence={after}").json())["items"]:
        for event in page["items"]:
            if event["sequence"] != expected:
                faults.append(f"the log of main has {event['sequence']} where {expected} belongs")
            expected = event["sequence"] + 1
        after = page["next_after_sequence"]
    totals: Counter[str] = Counter()
    cursor = ""
    while cursor is not None:
        page = client.get(
            "/v1/ledgers/main/accounts", params={"limit": 1000} | ({"cursor": cursor} if cursor else {})
        ).json()
        for account in page["items"]:
            for column in ("posted", "pending"):
                moved = int(account[f"debits_{column}"]) - int(account[f"credits_{column}"])
                totals[f"what is {column} of {account['asset']}"] += moved
        cursor = page["next_cursor"]
    return faults + [f"{what} is off by {total}" for what, total in totals.items() if total]


def _operations() -> list[str]:
    return [operation["operationId"] for methods in CONTRACT["paths"].values() for operation in methods.values()]


def _find_operations_not_reached() -> list[str]:
    return [
        f"{operation} was never carried out"
        for operation in _operations()
        if not any(status < 300 for status in TALLY.statuses(operation))
    ]


def _print_summary(arguments: argparse.Namespace, faults: list[str]) -> None:
    print(f"\nSeed {arguments.seed}, {TALLY.counts.total()} answers:")
    for operation in _operations():
        statuses = TALLY.statuses(operation)
        print(f"  {operation:<20}" + "".join(f"  {status}: {count:<5}" for status, count in statuses.items()))
    codes = Counter[str]()
    for (_, status, code), count in TALLY.counts.items():
        codes[f"{status} {code}".strip()] += count
    print("\n" + "\n".join(f"  {count:>7}  {code}" for code, count in sorted(codes.items(), key=lambda item: item[0])))
    print("\nNothing was found." if not faults else "\nFound:\n" + "\n".join(f"- {fault}" for fault in faults))


def _write_summary(arguments: argparse.Namespace, faults: list[str]) -> None:
    summary = {
        "seed": arguments.seed,
        "faults": faults,
        "operations": {operation: TALLY.statuses(operation) for operation in _operations()},
    }
    arguments.summary.write_text(json.dumps(summary, indent=2))


if __name__ == "__main__":
    main()

"""The README's first transaction works as shown, and the page of limits has those of the code."""

import json
import re
import shlex
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from app import server
from app.access import authentication, known_keys
from app.api import caching, compression, cors, edge
from app.db import Database
from app.ledger import movements, pages, rules, submissions, verify, writer
from app.ledger.verification import clocks
from app.settings import Settings
from tests.conformance import DOCUMENT
from tests.conftest import ROOT, settings_for

README = (ROOT / "README.md").read_text()
PAGE = (ROOT / "docs" / "limits.md").read_text()


def test_the_first_transaction_works_as_shown(service):
    (commands,) = re.findall(r"```sh\n(export .*?)```", README, re.DOTALL)
    (shown,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    with service.client() as client:
        answers = [call(client, line) for line in commands.replace("\\\n", " ").splitlines() if line.startswith("api ")]
    assert [201, 201, 201, 201, 200, 422] == [answer.status_code for answer in answers]
    expected = [steady(json.loads(line)) for line in shown.splitlines()]
    assert expected == [steady(answer.json()) for answer in answers[3:]]


def call(client: httpx.Client, line: str) -> httpx.Response:
    """What the shell function `api` sends: a path, headers behind -H, a body behind -d."""
    _, path, *options = shlex.split(line)
    pairs = list(zip(options[::2], options[1::2], strict=True))
    headers = dict(value.split(": ", 1) for option, value in pairs if option == "-H")
    body = next((value for option, value in pairs if option == "-d"), None)
    headers["Content-Type"] = "application/json"
    return client.request("POST" if body else "GET", f"/v1/ledgers{path}", headers=headers, content=body)


def steady(answer: dict[str, object]) -> dict[str, object]:
    """An answer without what differs from run to run."""
    return {name: value for name, value in answer.items() if name not in ("recorded_at", "effective_at", "request_id")}


# The table of limits.

SCHEMAS, PARAMETERS = DOCUMENT["components"]["schemas"], DOCUMENT["components"]["parameters"]
SINGLE_POST_WEIGHT = 4  # of a post of one posting


def most(schema: str, *names: str) -> int:
    """What the contract allows at most of a schema, or of a property of one."""
    said = SCHEMAS[schema]
    for name in names:
        said = said["properties"][name]
    (found,) = (said[word] for word in ("maxLength", "maxItems", "maxProperties") if word in said)
    return found


def digits(schema: str) -> int:
    return int(re.findall(r"\{0,(\d+)\}", SCHEMAS[schema]["pattern"])[0]) + 1


def of_metadata() -> list[int]:
    said = SCHEMAS["Metadata"]
    (name,) = re.findall(r"\{1,(\d+)\}", said["propertyNames"]["pattern"])
    return [said["maxProperties"], int(name), said["additionalProperties"]["maxLength"]]


def beside_the_pools() -> int:
    database = Database(settings_for("postgresql://nobody@localhost/none"))
    return sum(each.pool.size() for each in (database._signals, database._keys, database.checks))


# Each row of the table, with the numbers in it as the code or the contract has them.
LIMITS: dict[str, Callable[[], list[Any]]] = {
    "Amount; a counter of an account, posted and pending together": lambda: [digits("Amount")],
    "Scale of an asset": lambda: [0, 38],
    "Postings of a transaction": lambda: [most("PostTransactionRequest", "postings")],
    "Captures of a hold": list,
    "Expiry of a hold": list,
    "Holds that expire in one batch": lambda: [clocks.EXPIRIES_MAX, clocks.EXPIRED_LINES_MAX],
    "Transactions of a batch; its postings in all": lambda: [
        most("PostTransactionBatchRequest", "transactions"),
        rules.BATCH_POSTINGS_MAX,
    ],
    "Body of a request": lambda: [edge.BODY_BYTES_MAX >> 20, batch_bytes_max() >> 20, 200],
    "Bodies of all requests being handled": lambda: [503],
    "Head of a request": lambda: [server.HEAD_BYTES_MAX >> 10, server.HEAD_SECONDS_MAX],
    "Rest of a request that was answered early": lambda: [
        server.REST_BYTES_MAX >> 20,
        server.HEAD_SECONDS_MAX,
    ],
    "Bytes read and discarded on a connection that is being closed": lambda: [
        server.PASSED_OVER_BYTES_MAX >> 20,
        server.GRACE_SECONDS * 1000,
    ],
    "Idle connection when the listener closes": lambda: [
        server.FIRST_REQUEST_SECONDS,
        server.GRACE_SECONDS * 1000,
    ],
    "Account path, reference, group, idempotency key": lambda: list(
        {most(each) for each in ("AccountPath", "Reference", "Group", "IdempotencyKey")}
    ),
    "Ledger name": lambda: [most("LedgerName")],
    "Description, reason": lambda: list({most("Description"), most("Reason")}),
    "Metadata": of_metadata,
    "Page": lambda: [PARAMETERS["Limit"]["schema"]["maximum"], pages.PAGE_BYTES_MAX // 1_000_000],
    "Client cache of a historical response that no later event changes": lambda: [caching.PAST_SECONDS // 3600],
    "Browser cache of a CORS preflight response": lambda: [cors.PREFLIGHT_SECONDS // 3600],
    "Compressed response, to a read that accepts gzip": lambda: [
        compression.BYTES_MIN >> 10,
        compression.THREADS_MAX,
        compression.BYTES_AT_ONCE_MAX >> 10,
    ],
    "Clock of a process": lambda: [503],
    "Effective time": lambda: [1900] if movements.AHEAD_MAX.total_seconds() == 60 else [],
    "Instant that a period closes before": lambda: [1900],
    "Filters of a list": lambda: [1],
    "Historical totals and trial balance": lambda: [default("database_timeout_s"), 503],
    "Writes waiting for one ledger": lambda: [
        submissions.QUEUE_WEIGHT_MAX // SINGLE_POST_WEIGHT,
        submissions.QUEUE_WEIGHT_MAX // 20,
        503,
    ],
    "Batch of the writer (group commit)": lambda: [
        submissions.BATCH_SUBMISSIONS_MAX,
        submissions.BATCH_WEIGHT_MAX // 4,
        submissions.BATCH_WEIGHT_MAX // 20,
    ],
    "Wait of a write for its commit": lambda: [503],
    "Events verified in one request": lambda: [
        PARAMETERS["VerificationLimit"]["schema"]["maximum"],
        verify.ROWS_RANGE_MAX,
    ],
    "Tries of a batch after lost races or connections": lambda: [len(writer.BACKOFF_S)],
    "Requests of an API key to one process": lambda: [429],
    "Requests without a valid API key from an address, to one process": lambda: [429],
    "Name and label of an API key; ledgers in its access scope": lambda: [
        *{most(each) for each in ("ApiKeyName", "ActorLabel")},
        most("CreateApiKeyRequest", "ledgers"),
    ],
    "Bearer token": lambda: [authentication.SECRET_BYTES_MAX >> 10],
    "From revoking an API key until every process rejects it": lambda: [known_keys.STALE_SECONDS],
    "Concurrent requests of a process": lambda: [503],
    "Connections of a process": lambda: [503],
    "Idle connection; a client that does not read its response": list,
    "Connections of a process to Postgres": lambda: [beside_the_pools()],
    "Wait for one of these connections; one exchange with Postgres": lambda: [503, 503],
    "Graceful shutdown": lambda: [server.QUICK_SECONDS],
    "Long poll for events (`wait_seconds`)": lambda: [PARAMETERS["WaitSeconds"]["schema"]["maximum"]],
}
# Settings that bound nothing.
UNBOUND = {"port", "traces_ratio"}


def limits() -> dict[str, str]:
    table = PAGE.split("| What | Limit |\n|---|---|\n")[1].split("\n\n")[0]
    return dict(line.strip("| ").split(" | ", 1) for line in table.splitlines())


def default(setting: str) -> Any:
    return Settings.model_fields[setting].default


def batch_bytes_max() -> int:
    return DOCUMENT["paths"]["/v1/ledgers/{ledger}/transaction-batches"]["post"]["requestBody"]["x-bytes-max"]


def test_the_table_has_every_limit_once() -> None:
    assert list(LIMITS) == list(limits())


@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_is_the_one_of_the_code(name: str) -> None:
    shown = [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", limits()[name])]
    assert LIMITS[name]() == shown


def test_every_setting_that_bounds_something_is_in_the_table() -> None:
    table = " ".join(limits().values())
    numbers = {name for name, each in Settings.model_fields.items() if each.annotation in (int, float)} - UNBOUND
    assert [name for name in sorted(numbers) if f"`{name.upper()}`" not in table] == []

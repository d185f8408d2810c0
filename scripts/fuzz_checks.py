"""What scripts/fuzz adds to schemathesis: a check that every refusal is one of the contract's and goes as far as such a
request should; keys as a good client's; and a record of what was answered and of what failed."""

import json
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any

import schemathesis
from schemathesis.cli import handler
from schemathesis.engine import events
from schemathesis.engine.run import PhaseName

from scripts.answers import CONTRACT, NO_OPERATION, UNROUTED, Answer, Record, resolve

KEY = "Idempotency-Key"
RECORD = Record()
# Codes that this run's key is refused with, however well formed the request.
ALLOWED: set[str] = set()
OPERATION_IDS = {
    f"{method.upper()} {path}": operation["operationId"]
    for path, methods in CONTRACT["paths"].items()
    for method, operation in methods.items()
}

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


@dataclass(frozen=True)
class Finding:
    """Which check failed of which operation, and with which seed it does so again."""

    check: str
    operation: str
    phase: str
    seed: int


FINDINGS: dict[Finding, None] = {}


@handler()
class Findings:
    """Notes what failed. A run that goes on repeats its phases, each time with the next seed."""

    def __init__(self, *args: Any, **params: Any) -> None:
        self.cycle = -1

    def start(self, ctx: Any) -> None: ...

    def shutdown(self, ctx: Any) -> None: ...

    def handle_event(self, ctx: Any, event: events.EngineEvent) -> None:
        if isinstance(event, events.PhaseStarted) and event.phase.name == PhaseName.FUZZING:
            self.cycle += 1
        if not isinstance(event, events.ScenarioFinished):
            return
        for number, checks in event.recorder.checks.items():
            operation = OPERATION_IDS[event.recorder.cases[number].value.operation.label]
            for check in checks:
                if check.failure_info is not None:
                    seed = ctx.config.seed + max(self.cycle, 0)
                    FINDINGS[Finding(check.name, operation, event.phase.value, seed)] = None


def findings() -> list[dict[str, Any]]:
    return [asdict(finding) for finding in FINDINGS]


@schemathesis.check
def refusal_is_the_contracts(ctx: Any, response: Any, case: Any) -> None:
    """A refusal's code is one that the contract names there, and says how far such a request should have come."""
    said = CONTRACT["paths"][case.operation.path][case.operation.method.lower()]
    operation = said["operationId"]
    if response.status_code < 400:
        RECORD.add(Answer(operation, response.status_code, ""))
        return
    problem = json.loads(response.content)
    code = problem["code"]
    routed = code not in UNROUTED
    RECORD.add(Answer(operation if routed else NO_OPERATION, response.status_code, code))
    assert problem["request_id"] == response.headers["x-request-id"][0]
    if routed:
        named = resolve(said["responses"].get(str(response.status_code), {})).get("x-codes", [])
        assert code in named, f"{operation} does not name {code} under {response.status_code}"
    if case.meta is None:
        return
    if case.meta.generation.mode.is_negative:
        # A header is another one on the wire, without the blanks around it: it may have become well formed there.
        wrong = {place.value for place, part in case.meta.components.items() if part.mode.is_negative} - {"header"}
        assert not wrong or code not in OF_THE_STATE, f"What is not well formed got as far as {code}"
    elif code not in OF_THE_STATE | BEYOND_SCHEMAS | ALLOWED:
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

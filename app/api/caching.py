"""Which answers a client may keep: those about a past that no later event can change. All others nobody keeps.

A refusal is never kept: what was not there may come, and who may not ask may be allowed to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from app.api.cursors import read_filters

# After a database was restored from a backup the log may go on otherwise: so long at most a client holds to the old.
PAST_SECONDS = 3_600
PAST = f"private, max-age={PAST_SECONDS}, immutable".encode()

type Query = Mapping[str, str]


def never(query: Query, answer: Any) -> bool:
    """The present, what may yet happen to something, and whatever a write or the process itself says."""
    return False


def below_the_head(query: Query, answer: Any) -> bool:
    """A page of the log that ends before the log does. It is full, so that nothing will ever stand on it that does not
    now; its `sequence`, the end of the log, is that of when it was read."""
    return bool(answer.items) and answer.items[-1].sequence < answer.sequence


def at_a_fixed_sequence(query: Query, answer: Any) -> bool:
    """A balance or sum as known at a point of the log that the request names, itself or in its cursor. One that is
    only named by a time is not fixed: events may still be recorded at that time."""
    return "as_of_sequence" in query or read_filters(query.get("cursor")).get("as_of_sequence") is not None


# Of every operation, when its answer is past. The contract says the same of each response: a test compares.
IS_PAST: dict[str, Callable[[Query, Any], bool]] = {
    "getHealth": never,
    "getReadiness": never,
    "getMetrics": never,
    "createLedger": never,
    "listLedgers": never,
    "getLedger": never,
    "updateLedger": never,
    "createAccount": never,
    "listAccounts": never,
    "getAccount": never,
    "updateAccount": never,
    "listAccountEntries": never,
    "listAccountHolds": never,
    "getAccountBalance": at_a_fixed_sequence,
    "getTotals": at_a_fixed_sequence,
    "getTrialBalance": at_a_fixed_sequence,
    "postTransaction": never,
    "listTransactions": never,
    "postTransactionBatch": never,
    # What has become of it changes, though what was recorded does not.
    "getTransaction": never,
    "captureTransaction": never,
    "voidTransaction": never,
    "reverseTransaction": never,
    "closePeriod": never,
    "reopenPeriod": never,
    "listEvents": below_the_head,
    "verifyLedger": never,
    "createApiKey": never,
    "listApiKeys": never,
    "revokeApiKey": never,
}

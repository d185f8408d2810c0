"""The tables."""

from app.models.tables import (
    accounts,
    api_keys,
    entries,
    events,
    heads,
    hold_lines,
    holds,
    idempotency_keys,
    late_entries,
    ledgers,
    metadata,
)

__all__ = [
    "accounts",
    "api_keys",
    "entries",
    "events",
    "heads",
    "hold_lines",
    "holds",
    "idempotency_keys",
    "late_entries",
    "ledgers",
    "metadata",
]

"""Requests and answers in the model's terms: when two requests are the same, and what an answer says."""

import json
from datetime import datetime, timedelta
from typing import Any

from tests.model.book import Body, instant

DEFAULTS = (("metadata", {}), ("status", "open"), ("pending", False), ("remainder", "release"))
INSTANTS = ("recorded_at", "effective_at", "expires_at", "as_of_effective", "closed_before")


def meaning(operation: str, body: Body) -> str:
    """The same text for two requests if and only if they ask for the same."""
    said = {name: value for name, value in body.items() if (name, value) not in DEFAULTS}
    for name in said.keys() & {"effective_at", "expires_at", "before"}:
        said[name] = instant(said[name]).isoformat()
    if "transactions" in said:
        said["transactions"] = [meaning("", transaction) for transaction in said["transactions"]]
    if said.get("atomic") is True:
        del said["atomic"]
    return operation + json.dumps(said, sort_keys=True)


def in_plain(said: Any) -> Any:
    """What the service says in JSON, in the model's terms: instants read, and a refusal without its prose."""
    if isinstance(said, list):
        return [in_plain(item) for item in said]
    if not isinstance(said, dict):
        return said
    prose = ("type", "title", "detail", "request_id", "errors") if "code" in said else ()
    return {
        name: in_utc(value) if name in INSTANTS and value is not None else in_plain(value)
        for name, value in said.items()
        if name not in prose
    }


def in_utc(text: str) -> datetime:
    read = datetime.fromisoformat(text)
    assert read.utcoffset() == timedelta(0), f"not in UTC: {text}"
    return read

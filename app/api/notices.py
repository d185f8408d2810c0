"""What an operation that is to go says on its answers: since when it is deprecated, and when it will be gone."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from email.utils import format_datetime
from typing import Any


def read_notices(operation: dict[str, Any]) -> tuple[tuple[bytes, bytes], ...]:
    """The headers `Deprecation` (RFC 9745) and `Sunset` (RFC 8594) of an operation that the contract calls deprecated,
    from its `x-deprecated` and `x-sunset`: quoted days, which begin in UTC. None of any other."""
    if not operation.get("deprecated"):
        return ()
    since, gone = (_instant(operation[name]) for name in ("x-deprecated", "x-sunset"))
    return (
        (b"deprecation", b"@%d" % since.timestamp()),
        (b"sunset", format_datetime(gone, usegmt=True).encode()),
    )


def _instant(day: str) -> datetime:
    return datetime.combine(date.fromisoformat(day), time(), UTC)

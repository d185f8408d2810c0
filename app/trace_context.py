"""The place in a trace that a request brings with it (W3C Trace Context), whether or not this deployment traces."""

from __future__ import annotations

import re
from typing import NamedTuple

from starlette.types import Scope

SAMPLED = 1
# A later version may say more behind these, and is read as far as we know it.
_TRACEPARENT = re.compile(
    rb"(?P<version>[0-9a-f]{2})-(?P<trace>[0-9a-f]{32})-(?P<span>[0-9a-f]{16})-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)


class CallersSpan(NamedTuple):
    """The span that the caller's `traceparent` names, in its hexadecimal digits."""

    trace: str
    span: str
    sampled: bool

    @property
    def traceparent(self) -> bytes:
        return f"00-{self.trace}-{self.span}-{self.sampled:02x}".encode()


def find_callers_span(scope: Scope) -> CallersSpan | None:
    """None if there is no `traceparent`, or two, or one that is not what it should be."""
    said = [value.strip() for name, value in scope["headers"] if name == b"traceparent"]
    if len(said) != 1:
        return None
    found = _TRACEPARENT.fullmatch(said[0])
    if found is None or found["version"] == b"ff" or (found["version"] == b"00" and found["more"]):
        return None
    if not int(found["trace"], 16) or not int(found["span"], 16):
        return None
    return CallersSpan(found["trace"].decode(), found["span"].decode(), bool(int(found["flags"], 16) & SAMPLED))

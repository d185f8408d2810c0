"""Checks the head of a request before anything is done for it (RFC 9112): version, Host, target, transfer coding."""

import re
from functools import lru_cache
from ipaddress import IPv6Address

import httptools

from app.ledger.refusals import MalformedRequest

# uri-host and port of RFC 3986, with the literals in brackets looked at by themselves.
_HOST = re.compile(rb"(?:\[([^\]]*)\]|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?")
_FUTURE_LITERAL = re.compile(r"v[0-9A-Fa-f]+\.[A-Za-z0-9._~!$&'()*+,;=:-]+")
# A whole request line of HTTP/0.9: it names no version, and no head follows.
_SIMPLE_REQUEST = re.compile(rb"[\r\n]*[A-Z-]+ [^ \r\n]*\r?\n")


def check_head(version: str, target: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Raises `MalformedRequest`. The names of the headers are in lower case.

    A Host may be empty: that is its value where a target has no authority (RFC 9112, 3.2), and the service answers
    under any name. In HTTP/1.0 it may be missing.
    """
    if version not in ("1.1", "1.0"):
        raise MalformedRequest(pointer="")
    hosts = 0
    for name, value in headers:
        if name == b"host":
            hosts += 1
            if not is_host(value):
                raise MalformedRequest(pointer="Host")
        elif name == b"transfer-encoding" and (version == "1.0" or value.strip().lower() != b"chunked"):
            # Any other coding is unknown here, and in HTTP/1.0 the framing is faulty (RFC 9112, 6.1).
            raise MalformedRequest(pointer="Transfer-Encoding")
    if hosts > 1 or (not hosts and version == "1.1"):
        raise MalformedRequest(pointer="Host")
    if target[:1] != b"/" and target != b"*":
        _check_absolute(target)


@lru_cache(maxsize=128)
def is_host(value: bytes) -> bool:
    """Whether this is a value that a Host header may have."""
    found = _HOST.fullmatch(value.rstrip(b" \t"))
    if found is None:
        return False
    literal = found[1]
    return literal is None or _is_literal(literal.decode("latin-1"))


def is_simple_request(head: bytes | bytearray) -> bool:
    """Whether a head begins with a request of HTTP/0.9, whose client sends no more before it is answered."""
    return _SIMPLE_REQUEST.match(head) is not None


def _is_literal(literal: str) -> bool:
    try:
        return bool(_FUTURE_LITERAL.fullmatch(literal)) or IPv6Address(literal).scope_id is None
    except ValueError:
        return False


def _check_absolute(target: bytes) -> None:
    """Its authority counts in place of Host (RFC 9112, 3.2.2); one with a user in it is an error (RFC 9110, 4.2.4)."""
    parsed = httptools.parse_url(target)
    if parsed.schema is None or parsed.schema.lower() not in (b"http", b"https") or parsed.userinfo is not None:
        raise MalformedRequest(pointer="")

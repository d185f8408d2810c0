"""gzip, for answers of some length to reads, and to those who accept it.

Nobody learns a secret from how well it compresses beside words of his own: no answer to a read holds a credential (the
one to `createApiKey` does, and no answer to a write is compressed), and nobody can have another's program ask, since
no browser sends a key by itself. What is refused is not compressed either.
"""

from __future__ import annotations

import asyncio
import re
import zlib

BYTES_MIN = 2_048
# Up to so long an answer is compressed at once, in a fraction of a millisecond; a longer one in a thread, beside which
# the loop goes on. Of these so many at a time: who comes then gets his answer as it is.
BYTES_AT_ONCE_MAX = 64 * 1024
THREADS_MAX = 2
# Level 1 takes 2 ms for a page of 700 kB and leaves a ninth of it; level 6 twice as long, and leaves an eleventh.
LEVEL = 1

_CODING = re.compile(r"\s*([!#$%&'*+.^_`|~0-9a-z-]+)\s*(?:;\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*)?", re.ASCII)


def accepts_gzip(accept_encoding: bytes) -> bool:
    """Whether an `Accept-Encoding` prefers gzip to what is not encoded (RFC 9110, 12.5.3). What cannot be read of it
    counts for nothing."""
    weights: dict[str, float] = {}
    for choice in accept_encoding.decode("latin-1").lower().split(","):
        if found := _CODING.fullmatch(choice):
            weights[found[1]] = float(found[2] or 1)
    gzip = weights.get("gzip", weights.get("x-gzip", weights.get("*", 0)))
    return gzip > 0 and gzip >= weights.get("identity", 0)


class Compressor:
    """Compresses the answers of a process."""

    def __init__(self) -> None:
        self._under_way = 0

    async def compress(self, body: bytes) -> bytes | None:
        """The body in gzip; None if it had better be sent as it is."""
        if len(body) < BYTES_MIN:
            return None
        if len(body) <= BYTES_AT_ONCE_MAX:
            return gzip(body)
        if self._under_way >= THREADS_MAX:
            return None
        self._under_way += 1
        try:
            return await asyncio.to_thread(gzip, body)
        finally:
            self._under_way -= 1


def gzip(body: bytes, level: int = LEVEL) -> bytes:
    """The same bytes for the same body: nothing in them tells the time."""
    packer = zlib.compressobj(level, zlib.DEFLATED, zlib.MAX_WBITS | 16)
    return packer.compress(body) + packer.flush()

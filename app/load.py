"""What a process has in hand at once, and where it says that it has enough."""

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.types import Scope

from app.ledger.refusals import Overloaded

# Asked by whoever decides whether this process is to live: one that is only busy must not be taken for a dead one.
ALWAYS_ANSWERED = frozenset({"/healthz", "/readyz", "/metrics"})


class Load:
    """Counts the requests that are being worked on, and the bytes of their bodies. One per process.

    A bound here bounds the time that an accepted request takes: what is refused at once cannot stand in a line.
    """

    def __init__(self, *, requests_max: int, body_bytes_max: int) -> None:
        self._requests_max = requests_max
        self._body_bytes_max = body_bytes_max
        self.requests = 0
        self.body_bytes = 0

    @contextmanager
    def carrying(self, scope: Scope) -> Iterator[None]:
        """Count a request until it is answered. Raises `Overloaded`."""
        if self.requests >= self._requests_max and scope["path"] not in ALWAYS_ANSWERED:
            raise Overloaded()
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1
            self.body_bytes -= scope.get("body_bytes", 0)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave out a request that only waits: for the rest of its body, or for an event."""
        self.requests -= 1
        try:
            yield
        finally:
            self.requests += 1

    def keep(self, scope: Scope, size: int) -> None:
        """Count so many more bytes of the request's body until it is answered. Raises `Overloaded`."""
        if self.body_bytes + size > self._body_bytes_max:
            raise Overloaded()
        self.body_bytes += size
        scope["body_bytes"] = scope.get("body_bytes", 0) + size

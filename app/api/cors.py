"""Pages of other sites that may call the API from a browser (CORS), as far as `CORS_ORIGINS` names their origins.

Nothing here is about credentials: a page brings its key in `Authorization`, as every client does, and there are no
cookies that a browser would send by itself. Where no origin is named, none of this is there.
"""

from __future__ import annotations

from starlette.responses import Response
from starlette.types import Scope

from app.api.contract import Contract

# For how long a browser need not ask whether it may ask; Chromium keeps it no longer.
PREFLIGHT_SECONDS = 7_200
# What every request may have, beside the header parameters of the contract.
_OF_ANY_REQUEST = ("Authorization", "Content-Type", "X-Request-Id", "traceparent", "tracestate")
# What a page may read of any answer without being told so (Fetch, 2.2.2).
_ALWAYS_READ = {"cache-control", "content-length", "content-type"}


class Cors:
    def __init__(self, origins: frozenset[str], contract: Contract) -> None:
        self._origins = {origin.encode() for origin in origins}
        self._contract = contract
        named = (contract.resolve(each) for each in contract.document["components"]["parameters"].values())
        takes = sorted({each["name"] for each in named if each["in"] == "header"})
        self._takes = ", ".join((*_OF_ANY_REQUEST, *takes))
        self._shown = ", ".join(_answer_headers(contract)).encode()

    def headers(self, scope: Scope) -> list[tuple[bytes, bytes]]:
        """What every answer says, refusals included, or a page could not read why it was refused."""
        origin = self._allowed(scope)
        if origin is None:
            return [(b"vary", b"Origin")]
        return [
            (b"vary", b"Origin"),
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", self._shown),
        ]

    def preflight(self, scope: Scope) -> Response | None:
        """The answer to a browser that asks, without a key, whether a page may ask. None for whatever else has the
        method OPTIONS: that is answered as if there were no CORS, and so is a page whose origin is not named."""
        methods = self._contract.methods(scope["path"])
        asks = any(name == b"access-control-request-method" for name, _ in scope["headers"])
        if not methods or not asks or self._allowed(scope) is None:
            return None
        said = {
            "Access-Control-Allow-Methods": ", ".join(methods),
            "Access-Control-Allow-Headers": self._takes,
            "Access-Control-Max-Age": str(PREFLIGHT_SECONDS),
        }
        return Response(status_code=204, headers=said)

    def _allowed(self, scope: Scope) -> bytes | None:
        """The origin of the page that asks, if it is one of those named. Of two, neither counts."""
        found = [value for name, value in scope["headers"] if name == b"origin"]
        return found[0] if len(found) == 1 and found[0] in self._origins else None


def _answer_headers(contract: Contract) -> list[str]:
    """Every header that the contract names on any answer."""
    found = {
        name
        for path in contract.document["paths"].values()
        for operation in path.values()
        for response in operation["responses"].values()
        for name in contract.resolve(response).get("headers", ())
    }
    return sorted(name for name in found if name.lower() not in _ALWAYS_READ)

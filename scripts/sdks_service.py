"""The service that the clients of scripts/sdks talk to: the real one, but that it loses one answer.

    python -m scripts.sdks_service PORT

The answer to the first post with the key `sale-1002` of each ledger never arrives: after the service has committed it,
the client gets 503 `outcome_unknown` in its place. Who repeats the request with its key moves the money once.
"""

import json
import sys
from typing import Any

from app.main import create_app
from app.server import Server, configure_server
from app.settings import Settings

KEY_LOST = b"sale-1002"
PROBLEM = {
    "type": "/problems/outcome_unknown",
    "title": "The outcome is not known",
    "status": 503,
    "code": "outcome_unknown",
    "detail": "The outcome is not known.",
    "request_id": "of-the-scenario",
}


class LosesAnAnswer:
    def __init__(self, app: Any) -> None:
        self._app = app
        self._seen: set[str] = set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or dict(scope["headers"]).get(b"idempotency-key") != KEY_LOST:
            await self._app(scope, receive, send)
        elif scope["path"] in self._seen:
            print(f"repeated {scope['path']}", flush=True)
            await self._app(scope, receive, send)
        else:
            self._seen.add(scope["path"])
            await self._lose(scope, receive, send)

    async def _lose(self, scope: Any, receive: Any, send: Any) -> None:
        answered: list[int] = []

        async def keep(message: Any) -> None:
            if message["type"] == "http.response.start":
                answered.append(message["status"])

        await self._app(scope, receive, keep)
        print(f"lost {answered[0]} {scope['path']}", flush=True)
        headers = [(b"content-type", b"application/problem+json"), (b"retry-after", b"1"), (b"x-request-id", b"lost")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(PROBLEM).encode()})


if __name__ == "__main__":
    settings = Settings()
    # The server that processes of the service have, whose edge is part of what clients meet.
    Server(configure_server(LosesAnAnswer(create_app(settings)), settings, port=int(sys.argv[1]))).run()

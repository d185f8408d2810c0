"""Around every request: its id, its one line in the log, and an answer whatever happens."""

import re
import secrets
import time

import sentry_sdk
import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.problems import problem_response
from app.ledger.refusals import InternalError

log = structlog.get_logger()

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class RequestMiddleware:
    """Gives each request its id, on the answer and on every log line, and turns what nobody foresaw into a 500."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = scope["request_id"] = _request_id(scope)
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, send_named)
            except ClientDisconnect:
                pass
            except Exception as error:
                log.exception("internal_error")
                sentry_sdk.capture_exception(error)
                if not status:
                    scope["refusal"] = InternalError.code
                    await problem_response(InternalError(), request_id)(scope, receive, send_named)
            finally:
                # A client that went away before its answer has status 0.
                log.info(
                    "request",
                    method=scope["method"] if scope["method"].isalpha() else "-",
                    route=getattr(scope.get("route"), "path", "-"),
                    operation=scope.get("operation_id", "-"),
                    status=status,
                    code=scope.get("refusal", "-"),
                    duration_ms=round((time.perf_counter() - started) * 1000, 2),
                    ledger=scope.get("ledger", "-"),
                    actor=getattr(scope.get("caller"), "label", "-"),
                )


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            return value.decode()
    return secrets.token_hex(16)

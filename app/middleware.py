"""Around every request: its id, its one line in the log, and an answer whatever happens."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from typing import TYPE_CHECKING

import sentry_sdk
import structlog
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.api.caching import PAST
from app.api.problems import problem_response
from app.counts import RequestCounts
from app.ledger.refusals import InternalError, OutcomeUnknown, Overloaded, Refusal
from app.load import Load
from app.trace_context import find_callers_span

if TYPE_CHECKING:
    from app.api.cors import Cors
    from app.traces import Traces

log = structlog.get_logger()

# On every answer but those of the pages for people, which have guards of their own (app/api/docs.py) and may be kept.
GUARDS = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cache-control", b"no-store"),
]
# The same on an answer about a past that stays as it is (app/api/caching.py).
GUARDS_OF_THE_PAST = [*GUARDS[:-1], (b"cache-control", PAST)]
REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class RequestMiddleware:
    """Gives each request its id, on the answer and on every log line, and turns what nobody foresaw into a 500."""

    def __init__(
        self, app: ASGIApp, *, load: Load, counts: RequestCounts, traces: Traces | None, cors: Cors | None = None
    ) -> None:
        self._app = app
        self._load = load
        self._counts = counts
        self._traces = traces
        self._cors = cors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        request_id = scope["request_id"] = _request_id(scope)
        status = 0
        about = {"request_id": request_id}
        named = [(b"x-request-id", request_id.encode())]
        app: ASGIApp = self._app
        if self._cors is not None:
            named += self._cors.headers(scope)
            if scope["method"] == "OPTIONS":
                app = self._cors.preflight(scope) or app
        traces, span = self._traces, self._traces.begin(scope) if self._traces else None
        if traces is not None and span is not None:
            context = span.get_span_context()
            about["trace_id"] = f"{context.trace_id:032x}"
            # So that the caller finds what became of its request, also where it was not the one to begin the trace.
            named.append((b"traceparent", traces.name(span)))
        elif (caller := find_callers_span(scope)) is not None:
            # Nothing is traced here, but whoever follows a trace finds its requests in the log.
            about["trace_id"] = caller.trace
            named.append((b"traceparent", caller.traceparent))

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                guards = () if "guarded" in scope else GUARDS_OF_THE_PAST if "past" in scope else GUARDS
                message["headers"] = [*message["headers"], *named, *guards, *scope.get("notices", ())]
            await send(message)

        async def refuse(refusal: Refusal) -> None:
            if not status:
                scope["refusal"] = refusal.code
                await problem_response(refusal, request_id)(scope, receive, send_named)

        with structlog.contextvars.bound_contextvars(**about):
            try:
                with self._load.carrying(scope):
                    await app(scope, receive, send_named)
            except ClientDisconnect:
                pass
            except Overloaded as refusal:  # whatever was refused further in has been answered there
                await refuse(refusal)
            except asyncio.CancelledError:
                # The process stops, and its time is over. A read changed nothing; of a write its key will tell.
                await refuse(Overloaded() if scope["method"] == "GET" else OutcomeUnknown())
            except Exception as error:
                log.exception("internal_error")
                sentry_sdk.capture_exception(error)
                await refuse(InternalError())
            finally:
                # A client that went away before its answer has status 0.
                operation, code = scope.get("operation_id", "-"), scope.get("refusal", "-")
                seconds = time.perf_counter() - started
                self._counts.add(operation, status, code, seconds)
                if traces is not None and span is not None:
                    traces.end(span, scope, status=status)
                log.info(
                    "request",
                    method=scope["method"] if scope["method"].isalpha() else "-",
                    route=getattr(scope.get("route"), "path", "-"),
                    operation=operation,
                    status=status,
                    code=code,
                    duration_ms=round(seconds * 1000, 2),
                    ledger=scope.get("ledger", "-"),
                    actor=getattr(scope.get("caller"), "label", "-"),
                )


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            return bytes(value).decode()
    return secrets.token_hex(16)

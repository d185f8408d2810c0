"""Refusals and framework errors as problem documents (RFC 9457): one code, one status, one shape."""

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.api.contract import CONTRACT
from app.db import is_transient
from app.ledger import refusals
from app.ledger.refusals import Refusal
from generated.models import ProblemDetails

STATUS: dict[type[Refusal], int] = {
    refusals.MalformedRequest: 400,
    refusals.IdempotencyKeyRequired: 400,
    refusals.InvalidCursor: 400,
    refusals.Unauthenticated: 401,
    refusals.Forbidden: 403,
    refusals.RouteNotFound: 404,
    refusals.LedgerNotFound: 404,
    refusals.AccountNotFound: 404,
    refusals.TransactionNotFound: 404,
    refusals.ApiKeyNotFound: 404,
    refusals.MethodNotAllowed: 405,
    refusals.NotAcceptable: 406,
    refusals.RequestTimeout: 408,
    refusals.LedgerExists: 409,
    refusals.ApiKeyExists: 409,
    refusals.AccountExists: 409,
    refusals.ReferenceExists: 409,
    refusals.RevisionConflict: 409,
    refusals.VersionConflict: 409,
    refusals.AlreadyCaptured: 409,
    refusals.AlreadyVoided: 409,
    refusals.HoldExpired: 409,
    refusals.AlreadyReversed: 409,
    refusals.ContentTooLarge: 413,
    refusals.UnsupportedMediaType: 415,
    refusals.ValidationFailed: 422,
    refusals.IdempotencyKeyReused: 422,
    refusals.LimitNotMet: 422,
    refusals.TimeOutOfRange: 422,
    refusals.PeriodClosed: 422,
    refusals.NotPending: 422,
    refusals.NotReversible: 422,
    refusals.CaptureExceedsHold: 422,
    refusals.SequenceOutOfRange: 422,
    refusals.UnknownAccount: 422,
    refusals.AssetMismatch: 422,
    refusals.AccountClosed: 422,
    refusals.AccountFrozen: 422,
    refusals.AccountNotEmpty: 422,
    refusals.AmountOverflow: 422,
    refusals.InsufficientFunds: 422,
    refusals.MaximumExceeded: 422,
    refusals.BatchRefused: 422,
    refusals.RateLimited: 429,
    refusals.InternalError: 500,
    refusals.Overloaded: 503,
    refusals.StorageUnavailable: 503,
    refusals.ClockSkewed: 503,
    refusals.NotReady: 503,
    refusals.OutcomeUnknown: 503,
}
RETRY_AFTER_S = 1


def say(refusal: Refusal) -> dict[str, Any]:
    """The members of a problem document, but for the request's."""
    said = {name: _SHOWN.get(name, lambda value: value)(value) for name, value in refusal.fields().items()}
    title = refusal.title
    return {
        "type": f"/problems/{refusal.code}",
        "title": title,
        "status": STATUS[type(refusal)],
        "code": refusal.code,
        "detail": f"{title}.",
        **said,
    }


# Amounts are strings on the wire, and what refused a transaction of a batch is a problem of its own.
_SHOWN: dict[str, Callable[[Any], Any]] = {"available": str, "required": str, "problem": say}


def problem_response(refusal: Refusal, request_id: str, *, headers: dict[str, str] | None = None) -> Response:
    """The refusal as a problem document, with the headers that belong to its status."""
    problem = ProblemDetails(request_id=request_id, **say(refusal))
    status = problem.status
    headers = dict(headers or {})
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if status == 408:
        headers["Connection"] = "close"  # or what still trickles in would keep it open
    if status in (429, 503):
        headers["Retry-After"] = str(refusal.retry_after_s or RETRY_AFTER_S)
    if refusal.replayed:
        headers["Idempotency-Replayed"] = "true"
    return Response(problem.model_dump_json(), status, headers, media_type="application/problem+json")


def refusal_of(error: Exception) -> Refusal:
    """What an error that came up anywhere in a request is to its client. The unforeseen is an internal error."""
    match error:
        case Refusal():
            return error
        case HTTPException(status_code=404):
            return refusals.RouteNotFound()
        case HTTPException(status_code=405):
            return refusals.MethodNotAllowed()
        case PoolTimeoutError():
            return refusals.Overloaded()
        case DBAPIError() | OSError() | TimeoutError() if is_transient(error):
            return refusals.StorageUnavailable()
    return refusals.InternalError()


def add_problem_handlers(app: FastAPI) -> None:
    """Answer every refusal and every error of the framework as a problem. What is left goes to the middleware."""

    async def answer(request: Request, error: Exception) -> Response:
        headers = dict(getattr(error, "headers", None) or {})
        if isinstance(error, HTTPException) and error.status_code == 405:
            methods = CONTRACT.methods(request.scope["path"])
            headers["Allow"] = ", ".join(methods) if methods else headers.get("Allow", "GET")
        refusal = refusal_of(error)
        request.scope["refusal"] = refusal.code
        if isinstance(refusal, refusals.InternalError) and refusal is not error:
            raise error  # unforeseen: the middleware logs and reports it
        return problem_response(refusal, request.scope["request_id"], headers=headers)

    for kind in (Refusal, HTTPException, DBAPIError, PoolTimeoutError, OSError):
        app.add_exception_handler(kind, answer)

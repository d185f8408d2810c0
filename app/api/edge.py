"""The strict edge: what a request must be before anything else looks at it.

Stock FastAPI reads leniently. Here what may stand once stands once, what the contract does not name is refused, and
JSON is strict. `ContractRoute` calls these in the published order.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import re
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.requests import Request

from app.access.callers import Caller
from app.access.rates import Buckets, network_of
from app.ledger.refusals import (
    ContentTooLarge,
    IdempotencyKeyRequired,
    MalformedRequest,
    NotAcceptable,
    RateLimited,
    RequestTimeout,
    Unauthenticated,
    UnsupportedMediaType,
    ValidationFailed,
)
from app.ledger.scopes import check_request
from app.load import Load

if TYPE_CHECKING:
    from app.api.contract import Operation

BODY_BYTES_MAX = 1 << 20
RETRY_AFTER_S_MAX = 3_600

_LEDGER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}", re.ASCII)
_JSON_TYPE = re.compile(r'application/json\s*(;\s*charset\s*=\s*"?utf-8"?\s*)?', re.ASCII | re.IGNORECASE)
# Stands among the headers for one that is there twice; no header can have this name.
_REPEATED = b":repeated"
# Headers that decide what a request means, so that two of one would mean two things.
_SINGLE_HEADERS = {
    b"authorization",
    b"content-type",
    b"content-encoding",
    b"content-length",
    b"idempotency-key",
}


def name_for_log(request: Request, operation: Operation) -> None:
    ledger = request.path_params.get("ledger", "-")
    request.scope["operation_id"] = operation.operation_id
    if operation.notices:
        request.scope["notices"] = operation.notices
    request.scope["ledger"] = ledger if _LEDGER.fullmatch(ledger) else "-"


def read_headers(request: Request) -> dict[bytes, bytes]:
    """The headers, those joined that may repeat."""
    headers: dict[bytes, bytes] = {}
    for name, value in request.scope["headers"]:
        if name not in headers:
            headers[name] = value
        elif name == b"authorization":
            headers[name] = b""  # of two, neither counts
        elif name in _SINGLE_HEADERS:
            headers[_REPEATED] = name
        else:
            headers[name] += b"," + value
    return headers


async def authenticate(request: Request, headers: dict[bytes, bytes]) -> Caller:
    """Whose key the request carries. Raises `Unauthenticated`, and `RateLimited` for one that asks too often."""
    caller = await identify(request, headers)
    request.scope["caller"] = caller
    _refuse_while_waiting(request.app.state.key_rates.take(caller.identity, time.monotonic()))
    return caller


async def identify(request: Request, headers: dict[bytes, bytes]) -> Caller:
    """Whose key the request carries. Raises `Unauthenticated`."""
    scheme, _, secret = headers.get(b"authorization", b"").partition(b" ")
    secret = secret if scheme.lower() == b"bearer" else b""
    caller: Caller | None = request.app.state.authentication.find(secret)
    return caller if caller is not None else await _identify_anew(request, secret)


async def _identify_anew(request: Request, secret: bytes) -> Caller:
    """Look for a key that is not known at once, unless too many that were none came from the same address. Who has a
    key that is known is let in from there all the same: he may share the address of a proxy."""
    client = request.scope.get("client")
    address = network_of(client[0]) if client else "-"
    rates: Buckets = request.app.state.address_rates
    _refuse_while_waiting(rates.wait(address, time.monotonic()))
    try:
        caller: Caller = await request.app.state.authentication.find_anew(secret)
    except Unauthenticated:
        rates.take(address, time.monotonic())
        raise
    return caller


def _refuse_while_waiting(seconds: float) -> None:
    if seconds:
        refusal = RateLimited()
        refusal.retry_after_s = min(RETRY_AFTER_S_MAX, math.ceil(seconds))
        raise refusal


def authorize(request: Request, caller: Caller, operation: Operation) -> None:
    """Hold the operation and what its path names against the caller's scope. Raises `Forbidden`."""
    named = request.path_params
    check_request(
        caller.scope,
        takes=operation.scope,
        whole_ledger=operation.whole_ledger,
        ledger=named.get("ledger"),
        account=named.get("account"),
    )


def check_accept(headers: dict[bytes, bytes], operation: Operation) -> None:
    accept = headers.get(b"accept")
    if accept is None or accept == b"*/*":
        return
    wanted: dict[str, bool] = {}
    for choice in accept.decode("latin-1").lower().split(","):
        media_type, *parameters = (part.strip() for part in choice.split(";"))
        wanted[media_type] = not any(re.fullmatch(r"q\s*=\s*0(\.0*)?", parameter) for parameter in parameters)
    # The most specific range decides, wherever it stands (RFC 9110, 12.5.1).
    if not next((wanted[each] for each in operation.acceptable if each in wanted), False):
        raise NotAcceptable()


def check_parameters(request: Request, headers: dict[bytes, bytes], operation: Operation) -> dict[str, str]:
    """The query parameters, each known and given once."""
    if _REPEATED in headers:
        raise MalformedRequest(pointer=headers[_REPEATED].decode().title())
    query: dict[str, str] = {}
    if request.scope["query_string"]:
        names = [name for name, _ in request.query_params.multi_items()]
        for name in operation.query:
            if names.count(name) > 1:
                raise MalformedRequest(pointer=name)
        if not operation.query.issuperset(names):
            raise ValidationFailed([{"pointer": "", "message": "A query parameter is not known"}])
        query = dict(request.query_params)
    for name, value in (*query.items(), *request.path_params.items()):
        if name in operation.integers and not _INTEGER.fullmatch(value):
            raise ValidationFailed([{"pointer": name, "message": "Input should be a whole number"}])
    return query


def check_key(headers: dict[bytes, bytes], operation: Operation) -> None:
    if operation.keyed and not headers.get(b"idempotency-key"):
        raise IdempotencyKeyRequired()


async def read_body(request: Request, headers: dict[bytes, bytes], operation: Operation) -> bytes:
    content_type = headers.get(b"content-type", b"").decode("latin-1").strip()
    if not _JSON_TYPE.fullmatch(content_type) or headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType()
    length = headers.get(b"content-length", b"0")
    if len(length) > 12 or int(length) > operation.body_bytes_max:
        raise ContentTooLarge()
    chunks: list[bytes] = []
    size = 0
    load: Load = request.app.state.load
    try:
        with load.aside():
            async with asyncio.timeout(request.app.state.settings.body_timeout_s):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > operation.body_bytes_max:
                        raise ContentTooLarge()
                    load.keep(request.scope, len(chunk))
                    chunks.append(chunk)
    except TimeoutError:
        raise RequestTimeout() from None
    return b"".join(chunks)


def parse_body[Body: BaseModel](raw: bytes, body_type: type[Body]) -> Body:
    """The body as its generated model. Raises `MalformedRequest` if it is not strict JSON."""
    try:
        # One parser refuses what is no JSON, bad UTF-8, lone surrogates and great depth; the other sees
        # duplicate names, which no parser refuses by itself, and reads numbers as text, so that none is too long.
        from_json(raw, allow_inf_nan=False)
        json.loads(raw, object_pairs_hook=_refuse_duplicates, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        raise MalformedRequest(pointer="") from None
    try:
        return body_type.model_validate_json(raw)
    except ValidationError as error:
        raise ValidationFailed(list(field_errors(error.errors(include_url=False, include_input=False)))) from None


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> None:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError


def field_errors(errors: Iterable[Any]) -> Iterable[dict[str, str]]:
    """Pydantic's errors as pointers and messages, at most 20. A name that the client invented is left out."""
    for error in list(errors)[:20]:
        steps = [str(step) for step in error["loc"]]
        if error["type"] == "extra_forbidden":
            steps.pop()
        if "metadata" in steps:
            steps = steps[: steps.index("metadata") + 1]
        yield {"pointer": "".join(f"/{step}" for step in steps), "message": error["msg"]}


def fingerprint(operation_id: str, path: dict[str, str], body: BaseModel) -> bytes:
    """What a request means, as the first 16 bytes of a SHA-256: its operation, its path parameters, and its
    validated body without the fields at their default (an empty object is the default of one), so that a new
    optional field never turns a retry into a refusal. The JSON is canonical (RFC 8785): our names are ASCII and
    our only numbers are whole ones below 2^53."""
    said = _without_empty(body.model_dump(mode="json", exclude_defaults=True))
    meaning = {"operation": operation_id, "path": path, "body": said}
    return hashlib.sha256(canonical_json(meaning)).digest()[:16]


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_empty(each) for name, each in value.items() if each != {}}
    return [_without_empty(each) for each in value] if isinstance(value, list) else value


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def canonical_json(value: Any) -> bytes:
    """The canonical form (RFC 8785) of a value of objects with ASCII names, arrays, strings, whole numbers below
    2^53, booleans and null."""
    return _CANONICAL.encode(value).encode()

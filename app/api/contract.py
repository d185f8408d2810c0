"""The edge: ties every route to its operation in openapi.yaml, and holds each request against it.

Stock FastAPI reads leniently. Here, in one place and for every route: who asks is settled before the body is read;
what may stand once stands once; what the contract does not name is refused; JSON is strict.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response

from app.ledger.refusals import (
    ContentTooLarge,
    IdempotencyKeyRequired,
    MalformedRequest,
    NotAcceptable,
    RequestTimeout,
    Unauthenticated,
    UnsupportedMediaType,
    ValidationFailed,
)

BODY_BYTES_MAX = 1 << 20
CONTRACT_FILE = Path(__file__).parents[2] / "openapi.yaml"

_LEDGER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}", re.ASCII)
_JSON_TYPE = re.compile(r'application/json\s*(;\s*charset\s*=\s*"?utf-8"?\s*)?', re.ASCII | re.IGNORECASE)
_ACCEPTABLE = {"*/*", "application/*", "application/json"}
# Headers that decide what a request means, so that two of one would mean two things.
_SINGLE_HEADERS = {
    b"authorization",
    b"content-type",
    b"content-encoding",
    b"content-length",
    b"idempotency-key",
}


@dataclass(frozen=True)
class Operation:
    """What the contract says of one operation, as far as the edge needs it."""

    operation_id: str
    method: str
    path: str
    secured: bool
    query: frozenset[str]
    integers: frozenset[str]
    keyed: bool
    has_body: bool


@dataclass(frozen=True)
class Contract:
    """The hand-written document, and its operations by their operationId."""

    source: bytes
    document: dict[str, Any]
    operations: dict[str, Operation] = field(default_factory=dict)

    @classmethod
    def load(cls, file: Path = CONTRACT_FILE) -> Contract:
        source = file.read_bytes()
        contract = cls(source, yaml.safe_load(source))
        for path, methods in contract.document["paths"].items():
            for method, said in methods.items():
                operation = contract._operation(method.upper(), path, said)
                contract.operations[operation.operation_id] = operation
        return contract

    def _operation(self, method: str, path: str, said: dict[str, Any]) -> Operation:
        parameters = [self.resolve(parameter) for parameter in said.get("parameters", [])]
        return Operation(
            operation_id=said["operationId"],
            method=method,
            path=path,
            secured=bool(said.get("security", self.document["security"])),
            query=frozenset(p["name"] for p in parameters if p["in"] == "query"),
            integers=frozenset(p["name"] for p in parameters if self.resolve(p["schema"]).get("type") == "integer"),
            keyed=any(p["name"] == "Idempotency-Key" for p in parameters),
            has_body="requestBody" in said,
        )

    def resolve(self, node: dict[str, Any]) -> dict[str, Any]:
        """The node itself, or what its `$ref` points at within the document."""
        while "$ref" in node:
            target: Any = self.document
            for step in node["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            node = target
        return node

    def methods(self, path: str) -> list[str]:
        """Every method that the contract has for a concrete path, for `Allow`."""
        return sorted(op.method for op in self.operations.values() if _template(op.path).fullmatch(path))


def _template(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path)))


CONTRACT = Contract.load()


class ContractRoute(APIRoute):
    """A route of the contract. Its operationId names the operation that each request is held against."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        operation = CONTRACT.operations[self.operation_id or ""]
        body_type: type[BaseModel] | None = self.body_field.field_info.annotation if self.body_field else None

        async def handle_strictly(request: Request) -> Response:
            _name_for_log(request, operation)
            headers = _read_headers(request)
            if operation.secured:
                _authenticate(request, headers)
            _check_accept(headers)
            _check_parameters(request, headers, operation)
            if body_type is not None:
                raw = await _read_body(request, headers)
                # FastAPI finds the body read and validated, and passes it on as it is.
                request._body, request._json = raw, _parse_body(raw, body_type)
            return await handle(request)

        return handle_strictly


def _name_for_log(request: Request, operation: Operation) -> None:
    ledger = request.path_params.get("ledger", "-")
    request.scope["operation_id"] = operation.operation_id
    request.scope["ledger"] = ledger if _LEDGER.fullmatch(ledger) else "-"


def _read_headers(request: Request) -> dict[bytes, bytes]:
    """The headers, those joined that may repeat."""
    headers: dict[bytes, bytes] = {}
    for name, value in request.scope["headers"]:
        if name not in headers:
            headers[name] = value
        elif name == b"authorization":
            raise Unauthenticated()
        elif name in _SINGLE_HEADERS:
            headers[b"repeated"] = name
        else:
            headers[name] += b"," + value
    return headers


def _authenticate(request: Request, headers: dict[bytes, bytes]) -> None:
    scheme, _, secret = headers.get(b"authorization", b"").partition(b" ")
    request.scope["caller"] = request.app.state.keys.get_actor(secret if scheme.lower() == b"bearer" else b"")


def _check_accept(headers: dict[bytes, bytes]) -> None:
    accept = headers.get(b"accept")
    if accept is None or accept == b"*/*":
        return
    for choice in accept.decode("latin-1").lower().split(","):
        media_type, *parameters = (part.strip() for part in choice.split(";"))
        refused = any(re.fullmatch(r"q\s*=\s*0(\.0*)?", parameter) for parameter in parameters)
        if media_type in _ACCEPTABLE and not refused:
            return
    raise NotAcceptable()


def _check_parameters(request: Request, headers: dict[bytes, bytes], operation: Operation) -> None:
    if b"repeated" in headers:
        raise MalformedRequest(pointer=headers[b"repeated"].decode().title())
    given = request.query_params.multi_items()
    names = [name for name, _ in given]
    for name in operation.query:
        if names.count(name) > 1:
            raise MalformedRequest(pointer=name)
    if not operation.query.issuperset(names):
        raise ValidationFailed([{"pointer": "", "message": "A query parameter is not known"}])
    for name, value in (*given, *request.path_params.items()):
        if name in operation.integers and not _INTEGER.fullmatch(value):
            raise ValidationFailed([{"pointer": name, "message": "Input should be a whole number"}])
    if operation.keyed and not headers.get(b"idempotency-key"):
        raise IdempotencyKeyRequired()


async def _read_body(request: Request, headers: dict[bytes, bytes]) -> bytes:
    content_type = headers.get(b"content-type", b"").decode("latin-1").strip()
    if not _JSON_TYPE.fullmatch(content_type) or headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise UnsupportedMediaType()
    length = headers.get(b"content-length", b"0")
    if len(length) > 12 or int(length) > BODY_BYTES_MAX:
        raise ContentTooLarge()
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(request.app.state.settings.body_timeout_s):
            async for chunk in request.stream():
                size += len(chunk)
                if size > BODY_BYTES_MAX:
                    raise ContentTooLarge()
                chunks.append(chunk)
    except TimeoutError:
        raise RequestTimeout() from None
    return b"".join(chunks)


def _parse_body[Body: BaseModel](raw: bytes, body_type: type[Body]) -> Body:
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
    validated body without the fields at their default, so that a new optional field never turns a retry into
    a refusal. The JSON is canonical (RFC 8785): our names are ASCII and our values hold no number."""
    meaning = {
        "operation": operation_id,
        "path": path,
        "body": body.model_dump(mode="json", exclude_defaults=True),
    }
    return hashlib.sha256(canonical_json(meaning)).digest()[:16]


def canonical_json(value: Any) -> bytes:
    """The canonical form (RFC 8785) of a value of objects with ASCII names, arrays, strings, booleans and null."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()

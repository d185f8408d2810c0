"""Ties every route to its operation in openapi.yaml, and holds each request against it."""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from inspect import isasyncgenfunction, iscoroutine
from pathlib import Path
from typing import Any

import yaml
from fastapi._compat import ModelField
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import ResponseValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from app.api.caching import IS_PAST
from app.api.compression import accepts_gzip
from app.api.edge import (
    BODY_BYTES_MAX,
    authenticate,
    authorize,
    check_accept,
    check_key,
    check_parameters,
    name_for_log,
    parse_body,
    read_body,
    read_headers,
)
from app.api.locations import Location
from app.api.notices import read_notices
from app.ledger.refusals import RouteNotFound, ValidationFailed

CONTRACT_FILE = Path(__file__).parents[2] / "openapi.yaml"
# Every process reads the contract as it starts; the loader in C takes a tenth of the time.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True)
class Operation:
    """What the contract says of one operation, as far as the edge needs it."""

    operation_id: str
    method: str
    path: str
    secured: bool
    # What a key's scope has to hold one of, and whether a key with an account prefix is refused.
    scope: frozenset[str]
    whole_ledger: bool
    query: frozenset[str]
    integers: frozenset[str]
    keyed: bool
    body_bytes_max: int
    media_type: str
    location: Location | None
    compressed: bool
    notices: tuple[tuple[bytes, bytes], ...]

    @cached_property
    def acceptable(self) -> tuple[str, ...]:
        """What a client may accept to get this operation's answer, the most specific first."""
        return self.media_type, self.media_type.split("/")[0] + "/*", "*/*"


@dataclass(frozen=True)
class Contract:
    """The hand-written document, and its operations by their operationId."""

    source: bytes
    document: dict[str, Any]
    operations: dict[str, Operation] = field(default_factory=dict)

    @classmethod
    def load(cls, file: Path = CONTRACT_FILE) -> Contract:
        source = file.read_bytes()
        contract = cls(source, yaml.load(source, Loader=LOADER))  # noqa: S506
        for path, methods in contract.document["paths"].items():
            for method, said in methods.items():
                operation = contract._operation(method.upper(), path, said)
                contract.operations[operation.operation_id] = operation
        return contract

    def _operation(self, method: str, path: str, said: dict[str, Any]) -> Operation:
        parameters = [self.resolve(parameter) for parameter in said.get("parameters", [])]
        success = next(self.resolve(each) for status, each in said["responses"].items() if status.startswith("2"))
        return Operation(
            operation_id=said["operationId"],
            method=method,
            path=path,
            secured=bool(said.get("security", self.document["security"])),
            scope=frozenset(said.get("x-scope", ())),
            whole_ledger=said.get("x-whole-ledger", False),
            query=frozenset(p["name"] for p in parameters if p["in"] == "query"),
            integers=frozenset(p["name"] for p in parameters if self.resolve(p["schema"]).get("type") == "integer"),
            keyed=any(p["name"] == "Idempotency-Key" for p in parameters),
            media_type=next(iter(success["content"])),
            location=Location.of(self.document, success),
            notices=read_notices(said),
            compressed="Content-Encoding" in success.get("headers", ()),
            body_bytes_max=said.get("requestBody", {}).get("x-bytes-max", BODY_BYTES_MAX),
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
    """A route of the contract. Its operationId names the operation that each request is held against.

    The arguments of the endpoint are declared and depended on as in any FastAPI route, and solved here: the body
    is already the generated model, and FastAPI's general way costs a post more than its decision does.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        operation = CONTRACT.operations[self.operation_id or ""]
        endpoint = _Call.of(self.dependant)
        path = _template(operation.path)
        body_type: Any = self.body_field.field_info.annotation if self.body_field else None
        is_past = IS_PAST[operation.operation_id]
        answer, status = self.response_field, self.status_code or 200
        if answer is None:
            raise TypeError(f"{operation.operation_id} has no response_model")

        async def handle(request: Request) -> Response:
            # As it was sent: an encoded slash or line feed is no part of our paths.
            if path.fullmatch(request.scope["raw_path"].decode("latin-1")) is None:
                raise RouteNotFound()
            name_for_log(request, operation)
            headers = read_headers(request)
            if operation.secured and operation.operation_id not in request.app.state.open_operations:
                authorize(request, await authenticate(request, headers), operation)
            check_accept(headers, operation)
            query = check_parameters(request, headers, operation)
            given = Given(request, Response(status_code=status, media_type=operation.media_type), query, headers)
            endpoint.read_parameters(given)
            check_key(headers, operation)
            if body_type is not None:
                given.body = parse_body(await read_body(request, headers, operation), body_type)
            said, errors = answer.validate(await endpoint(given), {}, loc=("response",))
            if errors:
                raise ResponseValidationError(errors)
            given.response.body = said.encode() if isinstance(said, str) else answer.serialize_json(said)
            if operation.location is not None:
                given.response.raw_headers.append((b"location", operation.location.fill(request.path_params, said)))
            past = is_past(query, said)
            if past:
                request.scope["past"] = True
            if operation.compressed:
                await _compress(given, past=past)
            given.response.headers["Content-Length"] = str(len(given.response.body))
            return given.response

        return handle


async def _compress(given: Given, *, past: bool) -> None:
    # Who keeps the answer keeps it for whose key asked, too.
    said = given.response.raw_headers
    said.append((b"vary", b"Authorization, Accept-Encoding" if past else b"Accept-Encoding"))
    if accepts_gzip(given.headers.get(b"accept-encoding", b"")):
        packed = await given.request.app.state.compressor.compress(bytes(given.response.body))
        if packed is not None:
            given.response.body = packed
            said.append((b"content-encoding", b"gzip"))


@dataclass(slots=True)
class Given:
    """What a request gives to its endpoint, and the response that it may add headers to."""

    request: Request
    response: Response
    query: dict[str, str]
    headers: dict[bytes, bytes]
    parameters: dict[tuple[str, str], Any] = field(default_factory=dict)
    body: BaseModel | None = None

    def text(self, place: str, name: str) -> str | None:
        """A parameter as it was sent, or None."""
        match place:
            case "path":
                return self.request.path_params.get(name)
            case "query":
                return self.query.get(name)
            case _:
                value = self.headers.get(name.lower().encode())
                # A header without a value is one that is missing.
                return value.decode("latin-1") if value else None


@dataclass(frozen=True, slots=True)
class _Call:
    """An endpoint or a dependency, with what it takes: parameters, the body, the request, other dependencies."""

    call: Callable[..., Any]
    name: str | None
    parameters: tuple[tuple[str, str, ModelField], ...]
    body: str | None
    request: str | None
    response: str | None
    dependencies: tuple[_Call, ...]

    @classmethod
    def of(cls, dependant: Dependant) -> _Call:
        call: Callable[..., Any] = dependant.call  # type: ignore[assignment]
        if isasyncgenfunction(call):
            call = asynccontextmanager(call)
        fields = {
            "path": dependant.path_params,
            "query": dependant.query_params,
            "header": dependant.header_params,
        }
        return cls(
            call,
            dependant.name,
            tuple((place, each.alias, each) for place, found in fields.items() for each in found),
            dependant.body_params[0].name if dependant.body_params else None,
            dependant.request_param_name,
            dependant.response_param_name,
            tuple(cls.of(each) for each in dependant.dependencies),
        )

    def read_parameters(self, given: Given) -> None:
        """Validate every parameter, here and in the dependencies. Raises `ValidationFailed` for the first wrong one."""
        for dependency in self.dependencies:
            dependency.read_parameters(given)
        for place, name, parameter in self.parameters:
            text = given.text(place, name)
            if text is None:
                given.parameters[place, name] = parameter.get_default()
                continue
            given.parameters[place, name], errors = parameter.validate(text, {}, loc=(name,))
            if errors:
                raise ValidationFailed([{"pointer": name, "message": error["msg"]} for error in errors])

    async def __call__(self, given: Given) -> Any:
        """Call it with what the request gives. A dependency that yields ends before the answer is sent."""
        arguments = {parameter.name: given.parameters[place, name] for place, name, parameter in self.parameters}
        for dependency in self.dependencies:
            solved = await dependency(given)
            if isinstance(solved, AbstractAsyncContextManager):
                stack: AsyncExitStack = given.request.scope["fastapi_function_astack"]
                solved = await stack.enter_async_context(solved)
            arguments[dependency.name or ""] = solved
        for name, value in ((self.body, given.body), (self.request, given.request), (self.response, given.response)):
            if name is not None:
                arguments[name] = value
        called = self.call(**arguments)
        return await called if iscoroutine(called) else called

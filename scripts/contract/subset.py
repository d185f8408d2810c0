"""The portable subset of OpenAPI 3.1 that our contracts are written in, and the refusal of everything else.

What is not listed here is not compared, so it is refused: a construct that a check passes over is one that breaks
somebody unnoticed. Who needs a new one adds it here and in what compares it, with tests of both directions.
"""

import re
from typing import Any

from scripts.contract.documents import Node, Unjudgeable

ANY = "any"  # whatever stands there, compared as a whole or not at all
METHODS = ("get", "put", "post", "delete", "patch", "head", "options")

# Of each kind of object its names, and the kind of what stands there: `[kind]` is a list, `{kind}` a map.
GRAMMAR: dict[str, dict[str, Any]] = {
    "document": {
        "openapi": ANY, "info": "info", "servers": ["server"], "tags": ["tag"], "security": ANY,
        "paths": {"path"}, "components": "components",
    },
    "info": dict.fromkeys(("title", "version", "summary", "description", "license", "contact", "termsOfService"), ANY),
    "server": {"url": ANY, "description": ANY},
    "tag": {"name": ANY, "description": ANY},
    "path": dict.fromkeys(METHODS, "operation"),
    "operation": {
        "operationId": ANY, "tags": ANY, "summary": ANY, "description": ANY, "deprecated": ANY, "security": ANY,
        "x-scope": ANY, "x-whole-ledger": ANY,
        "parameters": ["parameter"], "requestBody": "body", "responses": {"response"},
    },
    "parameter": {
        "name": ANY, "in": ANY, "required": ANY, "description": ANY, "deprecated": ANY, "style": ANY, "explode": ANY,
        "example": ANY, "examples": ANY, "schema": "schema",
    },
    "body": {"required": ANY, "description": ANY, "x-bytes-max": ANY, "content": {"media"}},
    "media": {"schema": "schema", "example": ANY, "examples": ANY},
    "response": {
        "description": ANY, "x-codes": ANY, "x-location": ANY,
        "headers": {"header"}, "content": {"media"}, "links": {"link"},
    },
    "header": {
        "description": ANY, "required": ANY, "deprecated": ANY, "example": ANY, "examples": ANY, "schema": "schema",
    },
    "link": {"operationId": ANY, "parameters": ANY, "requestBody": ANY, "description": ANY},
    "components": {
        "schemas": {"schema"}, "responses": {"response"}, "parameters": {"parameter"}, "headers": {"header"},
        "securitySchemes": {"scheme"},
    },
    "scheme": {"type": ANY, "scheme": ANY, "in": ANY, "name": ANY, "bearerFormat": ANY, "description": ANY},
    "schema": {
        "type": ANY, "format": ANY, "enum": ANY, "const": ANY, "pattern": ANY, "default": ANY, "required": ANY,
        "minLength": ANY, "maxLength": ANY, "minItems": ANY, "maxItems": ANY, "uniqueItems": ANY,
        "minProperties": ANY, "maxProperties": ANY,
        "minimum": ANY, "maximum": ANY, "exclusiveMinimum": ANY, "exclusiveMaximum": ANY,
        "description": ANY, "examples": ANY, "deprecated": ANY,
        "properties": {"schema"}, "propertyNames": "schema", "items": "schema",
        "additionalProperties": "flag or schema",
    },
}  # fmt: skip
REFERABLE = {"schema", "parameter", "response", "header"}
BESIDE_REFERENCE = {
    "schema": {"description", "examples", "deprecated"},
    "response": set(),
    "parameter": set(),
    "header": set(),
}
TYPES = {"string", "integer", "number", "boolean", "object", "array", "null"}
STYLES = {"path": "simple", "query": "form", "header": "simple"}


def check(document: Node) -> None:
    """Return if the whole of it is in the subset, else raise Unjudgeable with the first place that is not."""
    if not re.fullmatch(r"3\.1\.\d+", str(document.get("openapi"))):
        raise Unjudgeable("#/openapi", f"is {document.get('openapi')!r}: only OpenAPI 3.1 is understood")
    _check(document, "document")


def _check(node: Node, kind: str) -> None:
    if kind == "flag or schema":
        if isinstance(node.value, bool):
            return
        kind = "schema"
    if not isinstance(node.value, dict):
        raise Unjudgeable(node.pointer, f"{kind} expected, not {node.value!r}")
    if "$ref" in node.value:
        _check_reference(node, kind)
        return
    for name in node.value:
        if name not in GRAMMAR[kind]:
            raise Unjudgeable(node.pointer, f"{name!r} of a {kind} is not understood")
        _check_part(node[name], GRAMMAR[kind][name])
    if kind in CHECKS:
        CHECKS[kind](node)


def _check_part(node: Node, kind: Any) -> None:
    if kind == ANY:
        return
    if isinstance(kind, str):
        _check(node, kind)
    elif isinstance(kind, list):
        if not isinstance(node.value, list):
            raise Unjudgeable(node.pointer, "list expected")
        for part in node.parts():
            _check(part, kind[0])
    else:
        if not isinstance(node.value, dict):
            raise Unjudgeable(node.pointer, "object expected")
        (of,) = kind
        for name in node.value:
            _check(node[name], of)


def _check_reference(node: Node, kind: str) -> None:
    if kind not in REFERABLE:
        raise Unjudgeable(node.pointer, f"$ref in place of a {kind} is not understood")
    for name in node.value:
        if name != "$ref" and name not in BESIDE_REFERENCE[kind]:
            raise Unjudgeable(node.pointer, f"{name!r} beside $ref is not understood")
    home = {"schema": "schemas", "parameter": "parameters", "response": "responses", "header": "headers"}[kind]
    if not re.fullmatch(rf"#/components/{home}/[^/]+", node.value["$ref"]):
        raise Unjudgeable(node.pointer, f"$ref to a place other than components/{home}: {node.value['$ref']}")
    node.resolved()


def _check_document(node: Node) -> None:
    for name in ("info", "paths"):
        if name not in node:
            raise Unjudgeable(node.pointer, f"a contract without {name} is not understood")


def _check_operation(node: Node) -> None:
    for name in ("operationId", "responses"):
        if name not in node:
            raise Unjudgeable(node.pointer, f"an operation without {name} is not understood")
    for status in node["responses"].value:
        if not re.fullmatch(r"[1-5]\d\d", status):
            raise Unjudgeable(node["responses"].pointer, f"the status {status!r} is not understood")


def _check_parameter(node: Node) -> None:
    place = node.get("in")
    if place not in STYLES:
        raise Unjudgeable(node.pointer, f"a parameter in {place!r} is not understood")
    if "schema" not in node:
        raise Unjudgeable(node.pointer, "a parameter without a schema is not understood")


def _check_schema(node: Node) -> None:
    types = node.get("type", [])
    for name in types if isinstance(types, list) else [types]:
        if name not in TYPES:
            raise Unjudgeable(node.pointer, f"the type {name!r} is not understood")
    if "required" in node and not set(node.get("required")) <= set(node.get("properties", {})):
        raise Unjudgeable(node.pointer, "requires what is not among its properties")
    for name in ("enum", "required"):
        if not isinstance(node.get(name, []), list):
            raise Unjudgeable(node.pointer, f"{name!r} is no list")
    for name in GRAMMAR["schema"]:
        number = node.get(name, 0) if name.startswith(("min", "max", "exclusive")) else 0
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise Unjudgeable(node.pointer, f"{name!r} is no number")


def _check_scheme(node: Node) -> None:
    if node.get("type") not in ("http", "apiKey"):
        raise Unjudgeable(node.pointer, f"a security scheme of type {node.get('type')!r} is not understood")


CHECKS = {
    "document": _check_document,
    "operation": _check_operation, "parameter": _check_parameter, "schema": _check_schema, "scheme": _check_scheme,
}  # fmt: skip

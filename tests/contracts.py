"""Small contracts for the comparison of contracts, and changes of them."""

import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from scripts.contract.documents import document
from scripts.contract.findings import Finding, Meets
from scripts.contract.operations import compare

Contract = dict[str, Any]
Change = Callable[[Contract], object]

SMALL: Contract = {
    "openapi": "3.1.1",
    "info": {"title": "Small", "version": "1.0.0", "license": {"name": "MIT"}},
    "servers": [{"url": "/"}, {"url": "/other"}],
    "tags": [{"name": "Things"}],
    "security": [{"bearer": []}],
    "paths": {
        "/things/{shelf}/{thing}": {
            "put": {
                "operationId": "putThing",
                "tags": ["Things"],
                "x-scope": ["post", "hold"],
                "parameters": [
                    {"name": "shelf", "in": "path", "required": True, "schema": {"type": "string"}},
                    {"name": "thing", "in": "path", "required": True, "schema": {"type": "string"}},
                    {"$ref": "#/components/parameters/Limit"},
                    {"name": "Key", "in": "header", "schema": {"type": "string", "maxLength": 9}},
                ],
                "requestBody": {
                    "content": {
                        "application/json": {"schema": {"$ref": "#/components/schemas/Asked"}},
                        "text/plain": {"schema": {"type": "string"}},
                    }
                },
                "responses": {
                    "200": {
                        "description": "Done.",
                        "headers": {"Id": {"$ref": "#/components/headers/Id"}},
                        "content": {
                            "application/json": {"schema": {"$ref": "#/components/schemas/Told"}},
                            "text/plain": {"schema": {"type": "string"}},
                        },
                        "links": {"again": {"operationId": "putThing"}},
                    },
                    "409": {"$ref": "#/components/responses/Refused"},
                },
            },
            "get": {
                "operationId": "getThing",
                "tags": ["Things"],
                "security": [{"bearer": []}, {}],
                "parameters": [
                    {"name": "shelf", "in": "path", "required": True, "schema": {"type": "string"}},
                    {"name": "thing", "in": "path", "required": True, "schema": {"type": "string"}},
                ],
                "responses": {
                    "200": {
                        "description": "Here.",
                        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Tree"}}},
                    }
                },
            },
        }
    },
    "components": {
        "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        "parameters": {
            "Limit": {
                "name": "limit",
                "in": "query",
                "schema": {"type": "integer", "format": "int64", "minimum": 1, "maximum": 100, "default": 10},
            }
        },
        "headers": {"Id": {"required": True, "schema": {"type": "string", "pattern": "^[a-z]{1,8}$"}}},
        "responses": {
            "Refused": {
                "description": "No.",
                "x-codes": ["taken", "gone"],
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            }
        },
        "schemas": {
            "Side": {"type": "string", "enum": ["left", "right"]},
            "Name": {"type": "string", "minLength": 2, "maxLength": 20, "pattern": "^[a-z]+$"},
            "Labels": {"type": "object", "maxProperties": 5, "propertyNames": {"type": "string", "maxLength": 8},
                       "additionalProperties": {"type": "string", "maxLength": 50}},
            "Asked": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name"],
                "properties": {
                    "name": {"$ref": "#/components/schemas/Name"},
                    "side": {"$ref": "#/components/schemas/Side"},
                    "labels": {"$ref": "#/components/schemas/Labels"},
                    "count": {"type": "integer", "format": "int64", "minimum": 0, "exclusiveMaximum": 10},
                    "ratio": {"type": "number", "exclusiveMinimum": 0},
                    "flags": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"type": "boolean"}},
                    "maybe": {"type": ["string", "null"], "default": None},
                },
            },
            "Told": {
                "type": "object",
                "required": ["name", "when"],
                "properties": {
                    "name": {"$ref": "#/components/schemas/Name"},
                    "side": {"$ref": "#/components/schemas/Side"},
                    "labels": {"$ref": "#/components/schemas/Labels"},
                    "when": {"type": "string", "format": "date-time"},
                    "count": {"type": "integer", "format": "int64", "minimum": 0, "exclusiveMaximum": 10},
                    "flags": {"type": "array", "minItems": 1, "maxItems": 3, "items": {"type": "boolean"}},
                    "kind": {"type": "string"},
                    "maybe": {"type": ["string", "null"]},
                },
            },
            "Problem": {"type": "object", "required": ["code"], "properties": {"code": {"type": "string"}}},
            "Tree": {
                "type": "object",
                "required": ["leaf"],
                "properties": {
                    "leaf": {"type": "string", "maxLength": 5},
                    "below": {"type": "array", "items": {"$ref": "#/components/schemas/Tree"}},
                },
            },
        },
    },
}  # fmt: skip


def at(contract: Contract, pointer: str) -> Any:
    """What stands at a place such as `schemas/Asked/properties/name`, that of `put`, or of `get`."""
    first, *names = pointer.split("/")
    starts = {
        "put": lambda: contract["paths"]["/things/{shelf}/{thing}"]["put"],
        "get": lambda: contract["paths"]["/things/{shelf}/{thing}"]["get"],
        "path": lambda: contract["paths"]["/things/{shelf}/{thing}"],
        "contract": lambda: contract,
    }
    value = starts[first]() if first in starts else contract["components"][first]
    for name in names:
        value = value[int(name) if isinstance(value, list) else name.replace("~", "/")]
    return value


def say(pointer: str, name: str | int, value: Any) -> Change:
    """The change that sets a name at a place."""

    def change(contract: Contract) -> None:
        at(contract, pointer)[name] = deepcopy(value)

    return change


def drop(pointer: str, name: str | int) -> Change:
    """The change that removes a name or an item at a place."""

    def change(contract: Contract) -> None:
        del at(contract, pointer)[name]

    return change


def compared(before: Contract, after: Contract) -> list[Finding]:
    return list(compare(document(before), document(after)))


def changed(contract: Contract, *changes: Change) -> Contract:
    other = deepcopy(contract)
    for change in changes:
        change(other)
    assert json.dumps(other) != json.dumps(contract), "the change changes nothing"
    return other


def broken(findings: list[Finding]) -> set[Meets]:
    """Whom they break."""
    return {finding.meets for finding in findings if finding.meets.breaks}

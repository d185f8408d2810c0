"""The contract, as the site reads it."""

from typing import Any

type Document = dict[str, Any]


def resolve(document: Document, node: dict[str, Any]) -> dict[str, Any]:
    """What a reference points at, under what stands beside it."""
    while "$ref" in node:
        found: Any = document
        for step in node["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        node = found | {name: value for name, value in node.items() if name != "$ref"}
    return node


def operations_of(document: Document) -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Each operation by its operationId: method, path, and what is said of it."""
    return {
        operation["operationId"]: (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }

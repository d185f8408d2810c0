"""Any answer against openapi.yaml, independently of the code that is generated from it."""

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import httpx
import yaml
from jsonschema import Draft202012Validator, FormatChecker

DOCUMENT = yaml.safe_load((Path(__file__).parents[1] / "openapi.yaml").read_bytes())
# What the edge answers before any operation is found.
UNROUTED = {"route_not_found": 404, "method_not_allowed": 405}
# Headers of HTTP itself, and the guards that every answer has; any other is the contract's to name.
UNNAMED = {
    "date", "content-length", "content-type", "connection", "transfer-encoding",
    "x-content-type-options", "x-frame-options", "content-security-policy",
}  # fmt: skip


def check_answer(response: httpx.Response) -> None:
    """Assert that the contract names this answer: its status, code, headers, media type and every property."""
    response.read()
    request = response.request
    assert "x-request-id" in response.headers
    operation = find_operation(request.method, request.url.path)
    if operation is None:
        if response.headers["content-type"].startswith("application/problem+json"):
            assert UNROUTED[response.json()["code"]] == response.status_code
        return
    said = resolve(operation["responses"][str(response.status_code)])
    for name, header in said.get("headers", {}).items():
        assert name in response.headers or not resolve(header).get("required"), name
        pattern = resolve(header)["schema"].get("pattern", "")
        assert name not in response.headers or re.search(pattern, response.headers[name]), (name, response.headers)
    named = {name.lower() for name in said["headers"]}
    assert set(response.headers) - named <= UNNAMED, "a header that the contract does not name"
    ((media_type, content),) = said["content"].items()
    if media_type == "text/plain":
        assert response.headers["content-type"].startswith("text/plain; ")
        return
    assert response.headers["content-type"] == media_type
    body = json.loads(response.content)
    errors = [error.message for error in validator(json.dumps(content["schema"])).iter_errors(body)]
    assert not errors, errors
    schema = resolve(content["schema"])
    assert set(body) <= set(schema["properties"]), "a property that the contract does not name"
    if response.status_code >= 400:
        assert body["code"] in said["x-codes"], f"{body['code']} is not a code of {operation['operationId']}"
        assert body["status"] == response.status_code
        assert body["request_id"] == response.headers["x-request-id"]


def find_operation(method: str, path: str) -> dict[str, Any] | None:
    for template, methods in DOCUMENT["paths"].items():
        if re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template)), path):
            return methods.get(method.lower())
    return None


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        target: Any = DOCUMENT
        for step in node["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        node = target
    return node


@cache
def validator(schema: str) -> Draft202012Validator:
    """A validator of one schema of the document; its references point into the whole."""
    rooted = {**json.loads(schema), "components": DOCUMENT["components"]}
    return Draft202012Validator(rooted, format_checker=FormatChecker())

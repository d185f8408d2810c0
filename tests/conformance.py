"""Any answer against openapi.yaml, independently of the code that is generated from it."""

import json
import os
import re
from functools import cache
from typing import Any

import httpx
from jsonschema import Draft202012Validator, FormatChecker

from scripts.answers import CONTRACT as DOCUMENT
from scripts.answers import NO_OPERATION, UNROUTED, Answer, Record, resolve

# Every answer of this session that was held against the contract, and the test that it was first given to.
ANSWERED = Record()
# Headers of HTTP itself, and the guards that every answer has; any other is the contract's to name.
UNNAMED = {
    "date", "content-length", "content-type", "connection", "transfer-encoding",
    "x-content-type-options", "x-frame-options", "content-security-policy",
    "vary", "access-control-allow-origin", "access-control-expose-headers",
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
            _note(NO_OPERATION, response)
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
        _note(operation["operationId"], response)
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
    _note(operation["operationId"], response)


def _note(operation: str, response: httpx.Response) -> None:
    code = response.json()["code"] if response.status_code >= 400 else ""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rsplit(" ", 1)[0]
    ANSWERED.add(Answer(operation, response.status_code, code), to=test)


def find_operation(method: str, path: str) -> dict[str, Any] | None:
    for template, methods in DOCUMENT["paths"].items():
        if re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template)), path):
            return methods.get(method.lower())
    return None


@cache
def validator(schema: str) -> Draft202012Validator:
    """A validator of one schema of the document; its references point into the whole."""
    rooted = {**json.loads(schema), "components": DOCUMENT["components"]}
    return Draft202012Validator(rooted, format_checker=FormatChecker())

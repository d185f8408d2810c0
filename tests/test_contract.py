"""The running routes against the hand-written contract, and the contract against itself."""

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute, iter_route_contexts

from app.main import create_app
from tests.conformance import DOCUMENT, resolve
from tests.conftest import ROOT, serve, settings_for

METHODS = ("get", "post", "put", "patch", "delete")
OPERATIONS = {
    operation["operationId"]: (method, path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}
# Properties of a schema that say something about its values; descriptions and examples do not.
SAYING = {
    "type", "format", "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems",
    "maxProperties", "enum", "required", "default",
}  # fmt: skip


@pytest.fixture(scope="module")
def routes() -> list[APIRoute]:
    app = create_app(settings_for("postgresql+asyncpg://nobody@localhost/none"))
    return [context.route for context in iter_route_contexts(app.routes) if isinstance(context.route, APIRoute)]


@pytest.fixture(scope="module")
def implemented(routes: list[APIRoute]) -> dict[str, Any]:
    """What FastAPI itself would say of the routes."""
    return get_openapi(title="-", version="-", routes=routes)


def test_every_operation_is_implemented_once_and_nothing_else(routes):
    found = [(route.operation_id, sorted(route.methods), route.path) for route in routes if route.include_in_schema]
    expected = [(name, [method.upper()], path) for name, (method, path, _) in OPERATIONS.items()]
    assert sorted(expected) == sorted(found)
    assert not [route.path for route in routes if not route.include_in_schema and route.path.startswith("/v1")]


@pytest.mark.parametrize("name", OPERATIONS)
def test_parameters_body_and_answer_are_those_of_the_contract(name, implemented):
    method, path, said = OPERATIONS[name]
    done = implemented["paths"][path][method]
    assert said["operationId"] == done["operationId"]
    assert said["tags"] == done["tags"]
    assert _parameters(DOCUMENT, said) == _parameters(implemented, done)
    assert _content(DOCUMENT, said.get("requestBody")) == _content(implemented, done.get("requestBody"))
    (success,) = (status for status in said["responses"] if status.startswith("2"))
    assert success in done["responses"]
    assert _content(DOCUMENT, said["responses"][success]) == _content(implemented, done["responses"][success])


def test_every_route_has_a_response_model(routes):
    assert not [route.path for route in routes if route.include_in_schema and route.response_model is None]


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_is_described_in_full(name):
    _, _, said = OPERATIONS[name]
    assert said["summary"]
    assert said["description"]
    assert len(said["tags"]) == 1
    assert said["tags"][0] in {tag["name"] for tag in DOCUMENT["tags"]}
    for status, response in said["responses"].items():
        response = resolve(response)
        assert "X-Request-Id" in response["headers"], status
        assert ("x-codes" in response) == (int(status) >= 400), status
        assert "application/problem+json" in response["content"] or int(status) < 400
    if "requestBody" in said:
        (media,) = said["requestBody"]["content"].values()
        assert media["examples"]
        (success,) = (response for status, response in said["responses"].items() if status.startswith("2"))
        assert success["links"], "a create links to its reads"
        for link in success["links"].values():
            parameters = {resolve(p)["name"] for p in OPERATIONS[link["operationId"]][2]["parameters"]}
            assert set(link["parameters"]) <= parameters


def test_the_examples_work_when_run_in_order(database):
    """A reader who runs every example from top to bottom, and then changes configurations, gets what the contract
    promises."""
    order = sorted(OPERATIONS, key=lambda name: OPERATIONS[name][0] == "put")
    with serve(database) as service, service.client() as client:
        done = {name: list(_run_examples(client, name)) for name in order}
    failed = {name: answers for name, answers in done.items() if any(a.status_code >= 400 for a in answers)}
    assert {} == {name: [a.text for a in answers] for name, answers in failed.items()}
    assert [201, 201, 201] == [answer.status_code for answer in done["createAccount"]]


def test_the_served_documents_are_the_hand_written_one(service):
    source = (ROOT / "openapi.yaml").read_bytes()
    assert source == httpx.get(f"{service.url}/openapi.yaml").content
    assert yaml.safe_load(source) == httpx.get(f"{service.url}/openapi.json").json()


def test_generated_code_is_what_the_contract_generates():
    """Fails after any edit to the contract without scripts/generate, and after any edit to generated/."""
    command = [str(Path(".venv/bin/datamodel-codegen")), "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_contract_stays_in_the_portable_subset():
    """Constructs that generators of clients stumble over do not occur."""
    for place, node in _walk(DOCUMENT, "#"):
        assert "oneOf" not in node, place
        assert not node.get("nullable"), place
        if "$ref" in node and "/schemas/" in node["$ref"]:
            assert set(node) == {"$ref"}, place
        if node.get("type") == "integer":
            assert node.get("format") == "int64", place
            assert node["maximum"] <= 2**53 - 1, place
        # RFC 9457 names the member `type`.
        if "properties" in node and place not in (
            "#/components/schemas/ProblemDetails",
            "#/components/schemas/ItemProblem",
        ):
            assert not set(node["properties"]) & {"in", "entries", "type"}, place
    for method, path, said in OPERATIONS.values():
        assert "default" not in said["responses"], (method, path)
    schemas = DOCUMENT["components"]["schemas"]
    assert not [name for name in schemas if name.startswith("New")]
    # Go makes a type of every component, whatever its kind: one name stands for one thing.
    kinds = ("schemas", "parameters", "responses", "requestBodies")
    names = Counter(name for kind in kinds for name in DOCUMENT["components"].get(kind, {}))
    assert [] == [name for name, count in names.items() if count > 1]
    # Python's client reads an object into a variable of its schema's name, and its properties into variables of theirs.
    own = {name: re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower() for name in schemas}
    assert [] == [name for name, said in schemas.items() if own[name] in said.get("properties", {})]


def _run_examples(client: httpx.Client, name: str) -> Iterator[httpx.Response]:
    method, path, said = OPERATIONS[name]
    headers = {}
    parameters = [resolve(parameter) for parameter in said.get("parameters", [])]
    names = [] if method == "get" else [parameter["name"] for parameter in parameters]
    for parameter in parameters:
        if parameter["in"] == "path" and (parameter["name"] != "sequence" or method == "get"):
            path = path.replace(f"{{{parameter['name']}}}", str(parameter["example"]))
        elif parameter["in"] == "header":
            headers[parameter["name"]] = parameter["example"]
    query = {p["name"]: p["example"] for p in parameters if p["in"] == "query" and "example" in p}
    if "requestBody" not in said:
        yield client.request(method, path, params=query)
        return
    (media,) = said["requestBody"]["content"].values()
    for label, example in media["examples"].items():
        keyed = {header: f"{value}-{name}-{label}" for header, value in headers.items()}
        about = _post_subject(client, f"{name}-{label}") if "sequence" in names else None
        yield client.request(method, path.replace("{sequence}", str(about)), json=example["value"], headers=keyed)


def _post_subject(client: httpx.Client, label: str) -> int:
    """A transaction of its own for an example that is about one: a hold, or what was posted to be reversed."""
    said = _examples("postTransaction")
    deposit = {"postings": said["deposit"]["value"]["postings"]}
    posts = [deposit] if label.startswith("reverse") else [deposit, said["hold"]["value"]]
    for number, body in enumerate(posts):
        headers = {"Idempotency-Key": f"{label}-{number}"}
        answer = client.post("/v1/ledgers/main/transactions", json=body, headers=headers)
    return answer.json()["sequence"]


def _examples(name: str) -> dict[str, Any]:
    _, _, said = OPERATIONS[name]
    (media,) = said["requestBody"]["content"].values()
    return media["examples"]


def _parameters(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    found = [_resolve(document, parameter) for parameter in operation.get("parameters", [])]
    shapes = {
        f"{said['in']} {said['name'].lower()}": (said.get("required", False), _shape(document, said["schema"]))
        for said in found
    }
    # A parameter that is left out is None in Python; on the wire there is no null.
    return {name: (required, shape | {"type": _but_null(shape["type"])}) for name, (required, shape) in shapes.items()}


def _but_null(kind: str | list[str]) -> str:
    return kind if isinstance(kind, str) else next(each for each in kind if each != "null")


def _content(document: dict[str, Any], part: dict[str, Any] | None) -> Any:
    if part is None:
        return None
    content = _resolve(document, part)["content"]
    return {media: _shape(document, said["schema"]) for media, said in content.items()}


def _shape(document: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """A schema with its references followed, in one form, without what says nothing about values."""
    schema = _resolve(document, schema)
    if "anyOf" in schema:
        # Pydantic's form of what may be null.
        (said,) = (_resolve(document, each) for each in schema["anyOf"] if each.get("type") != "null")
        schema = said | schema | {"type": [said["type"], "null"]}
    kept = {key: value for key, value in schema.items() if key in SAYING}
    if kept.get("format") == "int64":  # a Python int has no width
        del kept["format"]
    if "required" in kept:
        kept["required"] = sorted(kept["required"])
    if "items" in schema:
        kept["items"] = _shape(document, schema["items"])
    if "properties" in schema:
        kept["properties"] = {name: _shape(document, each) for name, each in schema["properties"].items()}
    for pattern, said in schema.get("patternProperties", {}).items():
        # Pydantic's form of names of one pattern and values of one schema.
        kept |= {"names": pattern, "values": _shape(document, said)}
    if isinstance(schema.get("additionalProperties"), dict):
        names = schema.get("propertyNames", {}).get("pattern")
        kept |= {"names": names, "values": _shape(document, schema["additionalProperties"])}
    elif schema.get("additionalProperties") is False:
        kept["closed"] = True
    return kept


def _resolve(document: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """What the `$ref` points at, with what stands beside it."""
    while "$ref" in node:
        target: Any = document
        for step in node["$ref"].removeprefix("#/").split("/"):
            target = target[step]
        node = target | {key: value for key, value in node.items() if key != "$ref"}
    return node


def _walk(node: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(node, dict):
        yield place, node
        for name, child in node.items():
            yield from _walk(child, f"{place}/{name}")
    elif isinstance(node, list):
        for number, child in enumerate(node):
            yield from _walk(child, f"{place}/{number}")

"""Changes planted in our own contract: of each kind of construct, at each place or a sample of them, all are found."""

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from scripts.contract.findings import Meets
from tests.conformance import DOCUMENT
from tests.contracts import Change, broken, changed, compared

C, R, T = Meets.CALLERS, Meets.READERS, Meets.TYPES
PLACES_MAX = 3  # of each kind of change
SEED = 6
KINDS_MIN = 40
Place = tuple[str | int, ...]
Planted = tuple[str, Place, Change, set[Meets]]
BOUNDS = {
    "minimum": -1, "minLength": -1, "minItems": -1,
    "maximum": 1, "maxLength": 1, "maxItems": 1, "maxProperties": 1,
}  # fmt: skip
NUL = r"^\u0000$"  # no pattern of ours takes it


def test_a_change_of_each_kind_of_construct_is_found_and_breaks_whom_it_has_to():
    kinds: dict[str, list[Planted]] = {}
    for planted in every_change():
        kinds.setdefault(planted[0], []).append(planted)
    assert KINDS_MIN <= len(kinds)
    missed, tried = [], Counter()
    for kind, changes in kinds.items():
        for _, place, change, expected in random.Random(SEED).sample(changes, min(PLACES_MAX, len(changes))):
            tried[kind] += 1
            found = broken(compared(DOCUMENT, changed(DOCUMENT, change)))
            if not expected <= found or (not expected and found):
                missed.append((kind, place, expected, found))
    assert [] == missed
    assert sum(tried.values()) > 100, tried


def test_the_contract_against_itself():
    assert [] == compared(DOCUMENT, DOCUMENT)


@pytest.mark.parametrize("kind", ["operation", "query parameter", "property asked", "property told", "header", "fault"])
def test_additions_break_nobody(kind):
    string = {"type": "string"}
    problem = {"$ref": "#/components/responses/InternalError"}
    path = "/v1/ledgers/{ledger}/transactions"
    operation = {"operationId": "getNew", "tags": ["Ledgers"], "responses": {"500": problem}}
    additions = {
        "operation": lambda c: c["paths"].update({"/v1/new": {"get": operation}}),
        "query parameter": lambda c: c["paths"][path]["get"]["parameters"].append(
            {"name": "new", "in": "query", "schema": string}
        ),
        "property asked": lambda c: c["components"]["schemas"]["PostTransactionRequest"]["properties"].update(
            new=string
        ),
        "property told": lambda c: c["components"]["schemas"]["Transaction"]["properties"].update(new=string),
        "header": lambda c: c["components"]["responses"]["Forbidden"]["headers"].update(New={"schema": string}),
        "fault": lambda c: c["paths"][path]["get"]["responses"].update({"502": problem}),
    }
    findings = compared(DOCUMENT, changed(DOCUMENT, additions[kind]))
    assert {Meets.ADDITION} == {finding.meets for finding in findings}


# Every change, with its kind, its place, and whom it has to break at the least; nobody if that is empty.


def every_change() -> Iterator[Planted]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            place = ("paths", path, method)
            yield "operation gone", place, gone(place), {C}
            yield "operationId", place, put((*place, "operationId"), "other"), {T}
            yield "tag", place, put((*place, "tags"), ["Others"]), {T}
            yield "security asked", place, put((*place, "security"), [{"other": []}]), {C}
            yield from changes_of_operation(place, operation)
    components = DOCUMENT["components"]
    for name, parameter in components["parameters"].items():
        place = ("components", "parameters", name)
        if "required" not in parameter:
            yield "parameter required", place, put((*place, "required"), True), {C}
        yield from changes_of_schema((*place, "schema"), parameter["schema"], {C})
    for name, header in components["headers"].items():
        place = ("components", "headers", name)
        if header.get("required"):
            yield "header optional", place, put((*place, "required"), False), {R}
        yield from changes_of_schema((*place, "schema"), header["schema"], {R})
    for name, response in components["responses"].items():
        place = ("components", "responses", name)
        yield from changes_of_answer(place, response)
    asked, told = reached(requests()), reached(answers())
    for name, schema in components["schemas"].items():
        yield from changes_of_schema(("components", "schemas", name), schema, ({C} if name in asked else set())
                                     | ({R} if name in told else set()))  # fmt: skip
        yield "schema renamed", (name,), put(("components", "schemas", f"{name}Other"), schema, gone_too=name), {T}


def changes_of_operation(place: Place, operation: dict[str, Any]) -> Iterator[Planted]:
    for scope in operation.get("x-scope", []):
        rest = [other for other in operation["x-scope"] if other != scope]
        yield "scope gone", place, put((*place, "x-scope"), rest), {C}
    if "x-whole-ledger" not in operation:
        yield "whole ledger", place, put((*place, "x-whole-ledger"), True), {C}
    for number, _ in enumerate(operation.get("parameters", [])):
        yield "parameter gone", place, gone((*place, "parameters", number)), {C}
    if "requestBody" in operation:
        body = (*place, "requestBody")
        yield "body gone", body, gone(body), {C}
        yield "body smaller", body, put((*body, "x-bytes-max"), 1000), {C}
        yield "body media gone", body, gone((*body, "content", "application/json")), {C}
    for status, answer in operation["responses"].items():
        yield "status gone", (*place, status), gone((*place, "responses", status)), {R}
        if "$ref" not in answer:
            yield from changes_of_answer((*place, "responses", status), answer)
    yield "success new", place, put((*place, "responses", "299"), {"description": "New."}), {R}


def changes_of_answer(place: Place, answer: dict[str, Any]) -> Iterator[Planted]:
    for code in answer.get("x-codes", []):
        rest = [other for other in answer["x-codes"] if other != code]
        yield "code gone", place, put((*place, "x-codes"), rest), {R}
    for name in answer.get("headers", {}):
        yield "header gone", place, gone((*place, "headers", name)), {R}
    for media in answer.get("content", {}):
        yield "answer media gone", place, gone((*place, "content", media)), {R}


def changes_of_schema(place: Place, schema: dict[str, Any], ways: set[Meets]) -> Iterator[Planted]:
    """What is narrower has to break callers if it is sent, what is wider readers if it is answered."""
    sent, told = ways & {C}, ways & {R}
    if "$ref" in schema:
        return
    for name, sign in BOUNDS.items():
        if name in schema:
            narrower = max(schema[name] - sign, 0) if schema[name] else 1
            if narrower != schema[name] and (narrower < schema[name]) == (sign > 0):
                yield f"{name} narrower", place, put((*place, name), narrower), sent
            if schema[name] or sign > 0:
                # A bound that is no bound: not only by one, which a pattern beside it may hold anyway.
                yield f"{name} gone", place, bare(place, name), told
        elif name in ("maxLength", "minLength") and schema.get("type") == "string":
            yield f"{name} new", place, put((*place, name), 1 if name == "maxLength" else 600), sent
    if "pattern" in schema:
        yield "pattern other", place, put((*place, "pattern"), NUL), sent | told
        yield "pattern gone", place, gone((*place, "pattern")), told
    if "enum" in schema:
        yield "enum value new", place, put((*place, "enum"), [*schema["enum"], "other"]), told
        yield "enum value gone", place, put((*place, "enum"), schema["enum"][1:]), sent or {T}
        yield "enum gone", place, gone((*place, "enum")), told | {T}
    if "format" in schema:
        yield "format gone", place, gone((*place, "format")), told | {T}
    if "default" in schema and sent:
        yield "default gone", place, gone((*place, "default")), sent
    yield from changes_of_types(place, schema, ways)
    yield from changes_of_object(place, schema, ways)
    if "items" in schema:
        yield from changes_of_schema((*place, "items"), schema["items"], ways)


def changes_of_types(place: Place, schema: dict[str, Any], ways: set[Meets]) -> Iterator[Planted]:
    if isinstance(schema["type"], list):
        yield "null gone", place, put((*place, "type"), schema["type"][0]), ways & {C}
    else:
        yield "null new", place, put((*place, "type"), [schema["type"], "null"]), ways & {R}
        other = "boolean" if schema["type"] != "boolean" else "string"
        yield "type other", place, put((*place, "type"), other), ways | {T}


def changes_of_object(place: Place, schema: dict[str, Any], ways: set[Meets]) -> Iterator[Planted]:
    for name, part in schema.get("properties", {}).items():
        yield "property gone", (*place, name), property_gone(place, name), ways
        if name in schema.get("required", []):
            rest = [other for other in schema["required"] if other != name]
            yield "property optional", (*place, name), put((*place, "required"), rest), ways & {R}
        else:
            more = [*schema.get("required", []), name]
            yield "property required", (*place, name), put((*place, "required"), more), ways & {C}
        yield from changes_of_schema((*place, "properties", name), part, ways)
    if schema.get("additionalProperties") is False:
        yield "others allowed", place, gone((*place, "additionalProperties")), ways & {R}
    elif "properties" in schema:
        yield "others forbidden", place, put((*place, "additionalProperties"), False), ways & {C}
    elif "additionalProperties" in schema:
        yield "others any", place, gone((*place, "additionalProperties")), ways & {R}
        yield from changes_of_schema((*place, "additionalProperties"), schema["additionalProperties"], ways)
        yield from changes_of_schema((*place, "propertyNames"), schema["propertyNames"], ways)


def at(contract: Any, place: Place) -> Any:
    for name in place:
        contract = contract[name]
    return contract


def put(place: Place, value: Any, gone_too: str | None = None) -> Change:
    def change(contract: Any) -> None:
        at(contract, place[:-1])[place[-1]] = value
        if gone_too:
            redirect(contract, f"#/components/schemas/{gone_too}", "#/" + "/".join(map(str, place)))
            del at(contract, place[:-1])[gone_too]

    return change


def redirect(value: Any, old: str, new: str) -> None:
    if isinstance(value, dict):
        if value.get("$ref") == old:
            value["$ref"] = new
        for part in value.values():
            redirect(part, old, new)
    elif isinstance(value, list):
        for part in value:
            redirect(part, old, new)


def gone(place: Place) -> Change:
    def change(contract: Any) -> None:
        del at(contract, place[:-1])[place[-1]]

    return change


def bare(place: Place, name: str) -> Change:
    """Take a bound away together with the pattern that may hold it too."""

    def change(contract: Any) -> None:
        del at(contract, place)[name]
        at(contract, place).pop("pattern", None)

    return change


def property_gone(place: Place, name: str) -> Change:
    def change(contract: Any) -> None:
        schema = at(contract, place)
        del schema["properties"][name]
        schema["required"] = [other for other in schema.get("required", []) if other != name]

    return change


def requests() -> Iterator[Any]:
    yield DOCUMENT["components"]["parameters"]
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            yield operation.get("parameters", [])
            yield operation.get("requestBody", {})


def answers() -> Iterator[Any]:
    yield DOCUMENT["components"]["responses"]
    yield DOCUMENT["components"]["headers"]
    for methods in DOCUMENT["paths"].values():
        for operation in methods.values():
            yield operation["responses"]


def reached(starts: Iterator[Any]) -> set[str]:
    """The names of the schemas that something refers to, at whatever remove."""
    names: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            reference = value.get("$ref", "")
            name = str(reference).removeprefix("#/components/schemas/")
            if name != reference and name not in names:
                names.add(name)
                walk(DOCUMENT["components"]["schemas"][name])
            for part in value.values():
                walk(part)
        elif isinstance(value, list):
            for part in value:
                walk(part)

    for start in starts:
        walk(start)
    return names

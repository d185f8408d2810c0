"""The comparison of contracts: one change at a time, both ways, in requests and answers, directly and through $ref.

Each row of the table is a change of a small contract, and whom it breaks; the same row read backwards is the opposite
change, and whom that breaks.
"""

import pytest

from scripts.contract.documents import Unjudgeable
from scripts.contract.findings import Meets
from tests.contracts import SMALL, broken, changed, compared, drop, say

C, R, T = Meets.CALLERS, Meets.READERS, Meets.TYPES
ASKED, TOLD, PROPERTIES = "schemas/Asked", "schemas/Told", "/properties"
SENT, READ = ASKED + PROPERTIES, TOLD + PROPERTIES
OK = "put/responses/200"
STRING = {"type": "string"}
SCHEMAS = "#/components/schemas"

# The change · whom it breaks · whom the opposite breaks.
TABLE = {
    # The whole.
    "title": (say("contract/info", "title", "Other"), {T}, {T}),
    "words": (say("contract/info", "description", "Words."), set(), set()),
    "license": (say("contract/info", "license", {"name": "Apache-2.0"}), set(), set()),
    "server gone": (drop("contract/servers", 1), {C}, set()),
    "server first": (say("contract", "servers", [{"url": "/other"}, {"url": "/"}]), {T}, {T}),
    "tag described": (say("contract/tags/0", "description", "Words."), set(), set()),
    # Operations.
    "operation gone": (drop("path", "get"), {C}, set()),
    "operationId": (say("get", "operationId", "readThing"), {T}, {T}),
    "tags": (say("get", "tags", ["Others"]), {T}, {T}),
    "operation described": (say("get", "summary", "Words."), set(), set()),
    "operation deprecated": (say("get", "deprecated", True), set(), set()),
    "path renamed": (lambda c: c["paths"].update({"/things/{shelf}/it/{thing}": c["paths"].popitem()[1]}), {C}, {C}),
    # Who may call.
    "security asked": (say("get", "security", [{"bearer": []}]), {C}, set()),
    "security by default": (drop("get", "security"), {C}, set()),
    "security open": (say("put", "security", []), set(), {C}),
    "security scopes": (say("put", "security", [{"bearer": ["write"]}]), {C}, set()),
    "security also": (say("put", "security", [{"bearer": [], "other": []}]), {C}, set()),
    "scheme": (say("securitySchemes/bearer", "scheme", "basic"), {C}, {C}),
    "scheme described": (say("securitySchemes/bearer", "description", "Words."), set(), set()),
    "scope gone": (say("put", "x-scope", ["post"]), {C}, set()),
    "scope other": (say("put", "x-scope", ["post", "admin"]), {C}, {C}),
    "scope asked": (say("get", "x-scope", ["read"]), {C}, set()),
    "whole ledger": (say("put", "x-whole-ledger", True), {C}, set()),
    # Parameters.
    "parameter gone": (drop("put/parameters", 3), {C}, set()),
    "parameter new and required": (
        lambda c: say("put/parameters/3", "required", True)(c) or say("put/parameters/3", "name", "New")(c), {C}, {C}),
    "parameter required": (say("put/parameters/3", "required", True), {C}, set()),
    "parameter required, through $ref": (say("parameters/Limit", "required", True), {C}, set()),
    "parameter in another place": (say("put/parameters/3", "in", "query"), {C}, {C}),
    "parameter in another case": (say("put/parameters/3", "name", "key"), {T}, {T}),
    "parameter order": (lambda c: c["paths"]["/things/{shelf}/{thing}"]["put"]["parameters"].reverse(), {T}, {T}),
    "parameter style": (say("parameters/Limit", "style", "spaceDelimited"), {C}, {C}),
    "parameter explode": (say("parameters/Limit", "explode", False), {C}, {C}),
    "parameter style said": (say("parameters/Limit", "style", "form"), set(), set()),
    "parameter deprecated": (say("parameters/Limit", "deprecated", True), set(), set()),
    "parameter example": (say("parameters/Limit", "example", 3), set(), set()),
    "parameter range": (say("parameters/Limit/schema", "maximum", 99), {C}, set()),
    "parameter default": (say("parameters/Limit/schema", "default", 11), {C}, {C}),
    "parameter default gone": (drop("parameters/Limit/schema", "default"), {C}, {C}),
    "parameter inlined": (lambda c: say("put/parameters", 2, c["components"]["parameters"]["Limit"])(c), set(), set()),
    # Bodies.
    "body gone": (drop("put", "requestBody"), {C}, set()),
    "body new and required": (say("get", "requestBody", {"required": True, "content": {}}), {C}, {C}),
    "body required": (say("put/requestBody", "required", True), {C}, set()),
    "body media gone": (drop("put/requestBody/content", "text/plain"), {C}, set()),
    "body smaller": (say("put/requestBody", "x-bytes-max", 2**20 - 1), {C}, set()),
    "body larger": (say("put/requestBody", "x-bytes-max", 2**21), set(), {C}),
    "body size said": (say("put/requestBody", "x-bytes-max", 2**20), set(), set()),
    # Answers.
    "status gone": (drop("put/responses", "409"), {R}, set()),
    "success gone": (drop("put/responses", "200"), {R}, {R}),
    "success new": (say("put/responses", "201", {"description": "Made."}), {R}, {R}),
    "redirect new": (say("put/responses", "307", {"description": "There."}), {R}, {R}),
    "not modified new": (say("put/responses", "304", {"description": "Same."}), set(), {R}),
    "fault new": (say("put/responses", "500", {"description": "Sorry."}), set(), {R}),
    "code gone": (say("responses/Refused", "x-codes", ["taken"]), {R}, set()),
    "code other": (say("responses/Refused", "x-codes", ["taken", "lost"]), {R}, {R}),
    "code order": (say("responses/Refused", "x-codes", ["gone", "taken"]), set(), set()),
    "answer media gone": (drop(f"{OK}/content", "text/plain"), {R}, set()),
    "answer media first": (lambda c: say(f"{OK}/content", "application/json", c["paths"]["/things/{shelf}/{thing}"]
        ["put"]["responses"]["200"]["content"].pop("application/json"))(c), {R}, {R}),
    "answer content gone": (drop(OK, "content"), {R}, {T}),
    "header gone": (drop(f"{OK}/headers", "Id"), {R}, set()),
    "header optional": (say("headers/Id", "required", False), {R}, set()),
    "header wider": (say("headers/Id/schema", "pattern", "^[a-z]{1,9}$"), {R}, set()),
    "header in another case": (
        lambda c: say(OK, "headers", {"ID": {"$ref": "#/components/headers/Id"}})(c), set(), set()),
    "location": (say(OK, "x-location", "/things/{shelf}"), set(), {R}),
    "link gone": (drop(OK, "links"), set(), set()),
    # Schemas that are sent.
    "sent property gone": (drop(SENT, "side"), {C}, set()),
    "sent property new": (say(SENT, "new", STRING), set(), {C}),
    "sent property required": (say(ASKED, "required", ["name", "side"]), {C}, set()),
    "sent property optional": (say(ASKED, "required", []), set(), {C}),
    "sent property new and required": (
        lambda c: say(SENT, "new", STRING)(c) or say(ASKED, "required", ["name", "new"])(c), {C}, {C}),
    "sent may hold others": (say(ASKED, "additionalProperties", True), set(), {C}),
    "sent may hold strings": (say(ASKED, "additionalProperties", STRING), set(), {C}),
    "sent type": (say(f"{SENT}/flags/items", "type", "string"), {C, T}, {C, T}),
    "sent integer for number": (say(f"{SENT}/ratio", "type", "integer"), {C, T}, {T}),
    "sent null gone": (say(f"{SENT}/maybe", "type", "string"), {C}, set()),
    "sent any type": (drop(f"{SENT}/flags/items", "type"), {T}, {C, T}),
    "sent default": (say(f"{SENT}/maybe", "default", "x"), {C}, {C}),
    "sent default gone": (drop(f"{SENT}/maybe", "default"), {C}, {C}),
    "sent minimum": (say(f"{SENT}/count", "minimum", 1), {C}, set()),
    "sent minimum gone": (drop(f"{SENT}/count", "minimum"), set(), {C}),
    "sent minimum said otherwise": (
        lambda c: say(f"{SENT}/count", "exclusiveMinimum", -1)(c) or drop(f"{SENT}/count", "minimum")(c), set(), set()),
    "sent exclusive maximum": (say(f"{SENT}/count", "exclusiveMaximum", 9), {C}, set()),
    "sent exclusive minimum": (say(f"{SENT}/ratio", "exclusiveMinimum", -1), set(), {C}),
    "sent bound itself": (
        lambda c: say(f"{SENT}/ratio", "minimum", 0)(c) or drop(f"{SENT}/ratio", "exclusiveMinimum")(c), set(), {C}),
    "sent items": (say(f"{SENT}/flags", "maxItems", 2), {C}, set()),
    "sent items at least": (say(f"{SENT}/flags", "minItems", 0), set(), {C}),
    "sent items unique": (say(f"{SENT}/flags", "uniqueItems", True), {C}, set()),
    "sent items any": (drop(f"{SENT}/flags", "items"), {T}, {C, T}),
    "sent format": (say(f"{SENT}/count", "format", "int32"), {C, T}, {T}),
    "sent format gone": (drop(f"{SENT}/count", "format"), {T}, {C, T}),
    "sent format new": (say(f"{SENT}/maybe", "format", "uri"), {C, T}, {T}),
    "sent enum": (say(f"{SENT}/maybe", "enum", ["a", None]), {C, T}, {T}),
    "sent const": (say(f"{SENT}/maybe", "const", "a"), {C, T}, {T}),
    "sent pattern new": (say(f"{SENT}/maybe", "pattern", "^a$"), {C}, set()),
    "sent length new": (say("put/parameters/3/schema", "minLength", 1), {C}, set()),
    "sent described": (say(f"{SENT}/maybe", "description", "Words."), set(), set()),
    "sent deprecated": (say(f"{SENT}/maybe", "deprecated", True), set(), set()),
    "sent inlined": (lambda c: say(SENT, "name", c["components"]["schemas"]["Name"])(c), set(), set()),
    "sent object inlined": (lambda c: say(SENT, "labels", c["components"]["schemas"]["Labels"])(c), {T}, {T}),
    # Schemas that are answered.
    "read property gone": (drop(READ, "kind"), {R}, set()),
    "read property optional": (say(TOLD, "required", ["name"]), {R}, set()),
    "read others forbidden": (say(TOLD, "additionalProperties", False), set(), {R}),
    "read type": (say(f"{READ}/kind", "type", "integer"), {R, T}, {R, T}),
    "read null": (say(f"{READ}/kind", "type", ["string", "null"]), {R}, set()),
    "read minimum": (say(f"{READ}/count", "minimum", -1), {R}, set()),
    "read exclusive maximum": (say(f"{READ}/count", "exclusiveMaximum", 11), {R}, set()),
    "read items": (say(f"{READ}/flags", "maxItems", 4), {R}, set()),
    "read items unbounded": (drop(f"{READ}/flags", "maxItems"), {R}, set()),
    "read items at least": (say(f"{READ}/flags", "minItems", 0), {R}, set()),
    "read items unique": (say(f"{READ}/flags", "uniqueItems", True), set(), {R}),
    "read format": (drop(f"{READ}/when", "format"), {R, T}, {T}),
    "read enum": (say(f"{READ}/kind", "enum", ["a", "b"]), {T}, {R, T}),
    "read const": (say(f"{READ}/kind", "const", "a"), {T}, {R, T}),
    "read pattern": (say(f"{READ}/kind", "pattern", "^a$"), set(), {R}),
    "read length": (say(f"{READ}/kind", "maxLength", 3), set(), {R}),
    "read default": (say(f"{READ}/kind", "default", "a"), set(), set()),
    "read in a cycle": (say("schemas/Tree/properties/leaf", "maxLength", 6), {R}, set()),
    "read in a problem": (say("schemas/Problem", "required", []), {R}, set()),
    # Schemas that go both ways, through $ref: what is narrower breaks callers, what is wider readers.
    "shared enum value new": (say("schemas/Side", "enum", ["left", "right", "top"]), {R}, {C, T}),
    "shared enum value other": (say("schemas/Side", "enum", ["left", "top"]), {C, R, T}, {C, R, T}),
    "shared enum order": (say("schemas/Side", "enum", ["right", "left"]), set(), set()),
    "shared pattern": (say("schemas/Name", "pattern", "^[a-z0-9]+$"), {R}, {C}),
    "shared pattern other": (say("schemas/Name", "pattern", "^[A-Z]+$"), {C, R}, {C, R}),
    "shared pattern said otherwise": (say("schemas/Name", "pattern", "^[a-mn-z][a-z]*$"), set(), set()),
    "shared length": (say("schemas/Name", "maxLength", 21), {R}, {C}),
    "shared length at least": (say("schemas/Name", "minLength", 1), {R}, {C}),
    "shared length gone": (drop("schemas/Name", "maxLength"), {R}, {C}),
    "shared properties": (say("schemas/Labels", "maxProperties", 6), {R}, {C}),
    "shared properties at least": (say("schemas/Labels", "minProperties", 1), {C}, {R}),
    "shared names": (say("schemas/Labels/propertyNames", "maxLength", 9), {R}, {C}),
    "shared names any": (drop("schemas/Labels", "propertyNames"), {R, T}, {C, T}),
    "shared values": (say("schemas/Labels/additionalProperties", "maxLength", 51), {R}, {C}),
    "shared values any": (drop("schemas/Labels", "additionalProperties"), {R}, {C}),
    "shared values none": (say("schemas/Labels", "additionalProperties", False), {C}, {R}),
    "schema renamed": (lambda c: rename(c, "Told", "Said"), {T}, {T}),
    "scalar schema renamed": (lambda c: rename(c, "Name", "Title"), {T}, {T}),
    "refers to another": (say(SENT, "side", {"$ref": f"{SCHEMAS}/Name"}), {C, T}, {C, T}),
}  # fmt: skip


def rename(contract, old, new):
    """Give a schema another name wherever it is."""
    schemas = contract["components"]["schemas"]
    schemas[new] = schemas.pop(old)

    def walk(value):
        if isinstance(value, dict):
            if value.get("$ref") == f"{SCHEMAS}/{old}":
                value["$ref"] = f"{SCHEMAS}/{new}"
            for part in value.values():
                walk(part)
        elif isinstance(value, list):
            for part in value:
                walk(part)

    walk(contract)


@pytest.mark.parametrize("name", TABLE)
def test_a_change_breaks_whom_it_breaks_and_its_opposite_others(name):
    change, there, back = TABLE[name]
    other = changed(SMALL, change)
    assert (there, back) == (broken(compared(SMALL, other)), broken(compared(other, SMALL)))


def test_the_same_contract_changed_in_nothing():
    assert [] == compared(SMALL, SMALL)


def test_a_finding_names_its_place_both_sides_and_all_that_it_meets():
    (finding,) = compared(SMALL, changed(SMALL, say("schemas/Problem", "required", [])))
    assert ("#/components/schemas/Problem/properties/code", ("PUT /things/{shelf}/{thing}, answer 409",)) == (
        finding.pointer, finding.where)  # fmt: skip
    sent, read = compared(SMALL, changed(SMALL, say("schemas/Name", "maxLength", 19)))
    assert (C, 20, 19) == (sent.meets, sent.before, sent.after)
    assert Meets.ADDITION == read.meets
    assert "maxLength of what is sent is narrower: 20 → 19" == str(sent)


def test_what_breaks_nobody_is_told_as_a_notice_or_an_addition():
    for change, meets in (
        (say("get", "deprecated", True), Meets.NOTICE),
        (say("parameters/Limit", "deprecated", True), Meets.NOTICE),
        (say(f"{SENT}/maybe", "deprecated", True), Meets.NOTICE),
        (drop(OK, "links"), Meets.NOTICE),
        (say(ASKED, "required", []), Meets.NOTICE),
        (say(TOLD, "required", ["name", "when", "kind"]), Meets.NOTICE),
        (say(SENT, "new", STRING), Meets.ADDITION),
        (say("put/responses", "500", {"description": "Sorry."}), Meets.ADDITION),
        (say("responses/Refused", "x-codes", ["taken", "gone", "new"]), Meets.ADDITION),
    ):
        (finding,) = compared(SMALL, changed(SMALL, change))
        assert meets is finding.meets


REFUSED = {
    "keyword": (say(f"{SENT}/maybe", "contentEncoding", "base64"), "'contentEncoding' of a schema"),
    "oneOf": (say(f"{SENT}/maybe", "oneOf", [STRING]), "'oneOf' of a schema"),
    "allOf": (say("schemas/Told", "allOf", [{"$ref": f"{SCHEMAS}/Name"}]), "'allOf' of a schema"),
    "not": (say("schemas/Told", "not", {}), "'not' of a schema"),
    "boolean schema": (say(f"{SENT}/flags", "items", True), "schema expected, not True"),
    "beside $ref": (say(f"{SENT}/name", "maxLength", 3), "'maxLength' beside $ref"),
    "$ref elsewhere": (say(SENT, "name", {"$ref": "other.yaml#/Name"}), "$ref to a place other than"),
    "$ref into another": (say(SENT, "name", {"$ref": f"{SCHEMAS}/Told/properties/when"}), "$ref to a place other"),
    "$ref to nothing": (say(SENT, "name", {"$ref": f"{SCHEMAS}/Nothing"}), "$ref to what is not there"),
    "$ref to itself": (say("schemas", "Name", {"$ref": f"{SCHEMAS}/Name"}), "refers to nothing but itself"),
    "type": (say(f"{SENT}/maybe", "type", "decimal"), "the type 'decimal'"),
    "required but unknown": (say(TOLD, "required", ["name", "wen"]), "requires what is not among its properties"),
    "bound no number": (say(f"{SENT}/count", "minimum", "0"), "'minimum' is no number"),
    "OpenAPI 3.0": (say("contract", "openapi", "3.0.3"), "only OpenAPI 3.1"),
    "webhooks": (say("contract", "webhooks", {}), "'webhooks' of a document"),
    "callbacks": (say("put", "callbacks", {}), "'callbacks' of a operation"),
    "parameters of a path": (say("path", "parameters", []), "'parameters' of a path"),
    "servers of an operation": (say("put", "servers", []), "'servers' of a operation"),
    "server variables": (say("contract/servers/0", "variables", {}), "'variables' of a server"),
    "extension": (say("put", "x-unknown", 1), "'x-unknown' of a operation"),
    "default answer": (say("put/responses", "default", {"description": "Any."}), "the status 'default'"),
    "class of answers": (say("put/responses", "4XX", {"description": "Any."}), "the status '4XX'"),
    "cookie": (say("put/parameters/3", "in", "cookie"), "a parameter in 'cookie'"),
    "parameter content": (say("put/parameters/3", "content", {}), "'content' of a parameter"),
    "multipart encoding": (say("put/requestBody/content/text~plain", "encoding", {}), "'encoding' of a media"),
    "$ref of a body": (say("put", "requestBody", {"$ref": "#/components/requestBodies/A"}), "$ref in place of a body"),
    "oauth": (say("securitySchemes/bearer", "type", "oauth2"), "a security scheme of type 'oauth2'"),
    "component": (say("contract/components", "pathItems", {}), "'pathItems' of a components"),
    "no operationId": (drop("put", "operationId"), "an operation without operationId"),
    "unreachable": (say("schemas", "Lone", {"anyOf": []}), "'anyOf' of a schema"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_it_does_not_know_is_refused_on_either_side(name):
    change, why = REFUSED[name]
    other = changed(SMALL, change)
    for sides in ((SMALL, other), (other, SMALL), (other, other)):
        with pytest.raises(Unjudgeable) as refusal:
            compared(*sides)
        assert why in str(refusal.value)

"""The reference: a page of every operation, made from the contract, with its requests and what was answered."""

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from markupsafe import Markup

from app.site.document import Document, operations_of, resolve
from app.site.layout import Entry, Group, fill
from app.site.markdown import Rendered, Surroundings, code, render, tabs
from app.site.samples import LANGUAGES, Request, in_every_language, shown_requests, written

SCOPES = {
    "read": "`read`",
    "post": "`post`",
    "hold": "`hold`",
    "admin": "`admin`",
    "operator": "the operator's key",
}
NUMBERS = {"minLength": "at least {} characters", "maxLength": "at most {} characters", "minItems": "at least {} items",
           "maxItems": "at most {} items", "maxProperties": "at most {} pairs", "minimum": "from {:,}",
           "maximum": "to {:,}"}  # fmt: skip
EVERYWHERE = {"X-Request-Id", "Cache-Control", "traceparent"}  # headers of every answer
UNBOUNDED = 2**53 - 1  # the maximum of every counter: no bound that a reader has to know


@dataclass(frozen=True)
class Field:
    """A property or a parameter, as a reader wants to know it."""

    name: str
    type: str
    required: bool
    constraints: list[str]
    description: Markup
    fields: list["Field"]
    place: str = ""


@dataclass(frozen=True)
class Answer:
    status: str
    description: Markup
    codes: list[str]
    headers: list[str]
    fields: list[Field]


@dataclass(frozen=True)
class Example:
    """A request in every language, and what was answered to it."""

    title: str
    request: Markup
    answer: Markup


@dataclass
class Reference:
    document: Document
    surroundings: Surroundings
    story: list[Request]
    answers: dict[str, Any]

    @cached_property
    def operations(self) -> dict[str, tuple[str, str, dict[str, Any]]]:
        return operations_of(self.document)

    def groups(self) -> list[Group]:
        """Every operation under its tag, for the navigation."""
        found: dict[str, list[Entry]] = {tag["name"]: [] for tag in self.document["tags"]}
        for name, (_, _, operation) in self.operations.items():
            found[operation["tags"][0]].append(Entry(name, f"/docs/reference/{name}"))
        return [Group(tag, entries) for tag, entries in found.items()]

    def title(self, name: str) -> str:
        return str(self.operations[name][2]["summary"])

    def index(self) -> str:
        tags = [
            (
                tag["name"],
                tag["description"],
                [
                    (name, method, path, operation["summary"])
                    for name, (method, path, operation) in self.operations.items()
                    if operation["tags"] == [tag["name"]]
                ],
            )
            for tag in self.document["tags"]
        ]
        return fill("reference.html", tags=tags)

    def conventions(self) -> Rendered:
        return render(self.document["info"]["description"], self.surroundings)

    def page(self, name: str) -> str:
        method, path, operation = self.operations[name]
        body = operation.get("requestBody", {})
        schema = next((each["schema"] for each in body.get("content", {}).values()), None)
        return fill(
            "operation.html",
            name=name,
            method=method,
            path=path,
            description=self._prose(operation.get("description", "")),
            deprecated=operation.get("x-sunset") if operation.get("deprecated") else None,
            who=self._prose(self._who(operation)),
            parameters=[self._parameter(self._resolve(each)) for each in operation.get("parameters", [])],
            body=self._fields(schema) if schema else [],
            body_bytes_max=body.get("x-bytes-max", 1 << 20) >> 20,
            answers=[self._answer(status, self._resolve(each)) for status, each in operation["responses"].items()],
            next=self._next(operation),
            examples=[self._example(operation, each) for each in shown_requests(self.story, name)],
        )

    def _who(self, operation: dict[str, Any]) -> str:
        if operation.get("security") == []:
            return "Needs no key."
        said = " or ".join(SCOPES[each] for each in operation["x-scope"])
        whole = " Not with a key that has an account prefix." if operation.get("x-whole-ledger") else ""
        return f"Needs a key with {said}." + whole if "operator" not in operation["x-scope"] else f"Needs {said}."

    def _parameter(self, said: dict[str, Any]) -> Field:
        found = self._field(said["name"], said["schema"], required=said.get("required", False))
        description = self._prose(said.get("description", ""))
        return Field(found.name, found.type, found.required, found.constraints, description, [], said["in"])

    def _fields(self, schema: dict[str, Any]) -> list[Field]:
        said = self._resolve(schema)
        required = said.get("required", [])
        return [self._field(name, each, required=name in required) for name, each in said.get("properties", {}).items()]

    def _field(self, name: str, schema: dict[str, Any], *, required: bool) -> Field:
        said = self._resolve(schema)
        inner = self._resolve(said["items"]) if "items" in said else said
        return Field(
            name,
            _type(said, self._resolve),
            required,
            _constraints(said),
            self._prose(said.get("description", "")),
            self._fields(inner) if inner.get("type") == "object" else [],
        )

    def _answer(self, status: str, said: dict[str, Any]) -> Answer:
        schema = next(each["schema"] for each in said["content"].values())
        headers = [name for name in said.get("headers", {}) if name not in EVERYWHERE]
        fields = self._fields(schema) if status.startswith("2") else []
        return Answer(status, self._prose(said["description"]), said.get("x-codes", []), headers, fields)

    def _next(self, operation: dict[str, Any]) -> list[str]:
        """The operations that something in the answer leads to."""
        responses = [self._resolve(each) for each in operation["responses"].values()]
        links = [link["operationId"] for each in responses for link in each.get("links", {}).values()]
        return list(dict.fromkeys(links))

    def _example(self, operation: dict[str, Any], request: Request) -> Example:
        written_in = in_every_language(request)
        blocks = [(language, code(written_in[language], LANGUAGES[language])) for language in LANGUAGES]
        shown = tabs("sample-" + request.name.replace(" ", "-"), blocks)
        return Example(request.title, Markup(shown), Markup(self._shown_answer(operation, request)))  # noqa: S704

    def _shown_answer(self, operation: dict[str, Any], request: Request) -> str:
        if request.recorded:
            return code(written(self.answers[request.name]) + "\n", "json")
        said = next(self._resolve(each) for status, each in operation["responses"].items() if status.startswith("2"))
        example = next(each["example"] for each in said["content"].values())
        return code(example if isinstance(example, str) else json.dumps(example) + "\n", "json")

    def _prose(self, text: str) -> Markup:
        return Markup(render(text, self.surroundings).body)  # noqa: S704  # the contract's Markdown, rendered here

    def _resolve(self, node: dict[str, Any]) -> dict[str, Any]:
        return resolve(self.document, node)


def _type(said: dict[str, Any], resolve: Any) -> str:
    kinds = said.get("type", "object")
    names = [kinds] if isinstance(kinds, str) else list(kinds)
    if "enum" in said:
        return " or ".join(f'"{each}"' for each in said["enum"])
    if "array" in names:
        return f"array of {_type(resolve(said['items']), resolve)}s"
    if said.get("format") == "date-time":
        names = ["instant" if name == "string" else name for name in names]
    if "additionalProperties" in said and isinstance(said["additionalProperties"], dict):
        names = ["object of strings"]
    return " or ".join(names)


def _constraints(said: dict[str, Any]) -> list[str]:
    found = ["deprecated"] if said.get("deprecated") else []
    for word, sentence in NUMBERS.items():
        value = said.get(word)
        if value not in (None, UNBOUNDED) and not (word == "minLength" and value == 1 and "pattern" in said):
            found.append(sentence.format(value))
    if "default" in said:
        found.append(f"{json.dumps(said['default'])} if left out")
    if "pattern" in said:
        found.append(said["pattern"])
    return found

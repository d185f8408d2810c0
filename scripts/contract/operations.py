"""Two contracts compared: operations, and what is sent to them and answered by them."""

import re
from typing import Any

from scripts.contract.documents import Node
from scripts.contract.findings import ABSENT, Findings, Meets
from scripts.contract.schemas import Direction, Position, compare_schemas, unchanged
from scripts.contract.subset import STYLES, check

BODY_BYTES_MAX = 2**20  # of a body whose operation names no `x-bytes-max`


def compare(old: Node, new: Node) -> Findings:
    """Everything that changed from the old contract to the new one, except words; Unjudgeable if not understood."""
    check(old)
    check(new)
    findings = Findings()
    compare_documents(old, new, findings)
    before, after, same = operations(old), operations(new), unchanged(old, new)
    for key, operation in before.items():
        if key in after:
            Operation(operation, after[key], findings, same).compare()
        else:
            findings.add(Meets.CALLERS, shown(operation), operation.pointer, "the operation is gone")
    for key, operation in after.items():
        if key not in before:
            findings.add(Meets.ADDITION, shown(operation), operation.pointer, "the operation is new")
    compare_unreached(old, new, findings)
    return findings


def operations(document: Node) -> dict[tuple[str, str], Node]:
    """Each operation by its method and its path, in which the names of parameters say nothing to a server."""
    paths = document["paths"]
    return {
        (method, re.sub(r"\{[^}]*\}", "{}", path)): paths[path][method]
        for path in paths.value
        for method in paths[path].value
    }


def path_and_method(operation: Node) -> tuple[str, str]:
    *_, path, method = operation.pointer.split("/")
    return path.replace("~1", "/").replace("~0", "~"), method


def shown(operation: Node) -> str:
    path, method = path_and_method(operation)
    return f"{method.upper()} {path}"


def compare_documents(old: Node, new: Node, findings: Findings) -> None:
    if old.get("info")["title"] != new.get("info")["title"]:
        meets = Meets.TYPES  # packages are named after it
        findings.add(meets, "the contract", "#/info/title", "the title is another", old["info"]["title"].value,
                     new["info"]["title"].value)  # fmt: skip
    compare_servers(old, new, findings)
    schemes = (
        old.part("components", {}).part("securitySchemes", {}),
        new.part("components", {}).part("securitySchemes", {}),
    )
    for name, scheme in schemes[0].value.items():
        after = schemes[1].get(name)
        if after is not None and said(scheme) != said(after):
            pointer = schemes[1][name].pointer
            findings.add(Meets.CALLERS, "security", pointer, "the scheme is another", said(scheme), said(after))
    for kind, meets in (("schemas", Meets.TYPES), ("parameters", Meets.NOTICE), ("responses", Meets.NOTICE)):
        compare_component_names(kind, meets, old, new, findings)


def said(scheme: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in scheme.items() if name not in ("description", "bearerFormat")}


def compare_servers(old: Node, new: Node, findings: Findings) -> None:
    before, after = ([server["url"] for server in side.get("servers", [{"url": "/"}])] for side in (old, new))
    for url in before:
        if url not in after:
            findings.add(Meets.CALLERS, "servers", "#/servers", "the server is gone", url)
    for url in after:
        if url not in before:
            findings.add(Meets.ADDITION, "servers", "#/servers", "the server is new", ABSENT, url)
    if before[0] != after[0] and before[0] in after:
        findings.add(Meets.TYPES, "servers", "#/servers/0", "another server is the first, which clients take",
                     before[0], after[0])  # fmt: skip


def compare_component_names(kind: str, meets: Meets, old: Node, new: Node, findings: Findings) -> None:
    """A schema's name is that of a type in every generated client; other components have types in Go alone."""
    before, after = (side.get("components", {}).get(kind, {}) for side in (old, new))
    for name in before:
        if name not in after:
            findings.add(meets, f"components/{kind}", f"#/components/{kind}/{name}", "the name is gone", name)


def compare_unreached(old: Node, new: Node, findings: Findings) -> None:
    """Named schemas that no operation reaches travel nowhere, but are types of clients: compared as if both ways."""
    reached = reached_schemas(old) | reached_schemas(new)
    before, after = (side.part("components", {}).part("schemas", {}) for side in (old, new))
    for name in before.value:
        if name in after and name not in reached:
            for direction in Direction:
                position = Position(direction, f"components/schemas/{name}", findings)
                compare_schemas(before[name], after[name], position)


def reached_schemas(document: Node) -> set[str]:
    """The names of the schemas that operations lead to."""
    names: set[str] = set()
    seen: set[str] = set()
    waiting: list[Node] = [document["paths"]]
    while waiting:
        node = waiting.pop()
        if isinstance(node.value, list):
            waiting += node.parts()
        elif isinstance(node.value, dict) and isinstance(node.get("$ref"), str):
            target = node.resolved()
            if target.pointer not in seen:
                seen.add(target.pointer)
                waiting.append(target)
                if node.get("$ref").startswith("#/components/schemas/"):
                    names.add(node.reference or "")
        elif isinstance(node.value, dict):
            waiting += [node[name] for name in node.value if name not in ("example", "examples", "default", "enum")]
    return names


class Operation:
    """One operation in both contracts."""

    def __init__(self, old: Node, new: Node, findings: Findings, same: frozenset[str]) -> None:
        self.old, self.new, self.findings, self.same = old, new, findings, same
        self.where = shown(new)

    def add(self, meets: Meets, node: Node | str, what: str, before: Any = ABSENT, after: Any = ABSENT) -> None:
        pointer = node if isinstance(node, str) else node.pointer
        self.findings.add(meets, self.where, pointer, what, before, after)

    def position(self, direction: Direction, part: str) -> Position:
        return Position(direction, f"{self.where}, {part}", self.findings, self.same)

    def compare(self) -> None:
        self.compare_names()
        self.compare_access()
        self.compare_parameters()
        self.compare_bodies()
        self.compare_answers()

    def compare_names(self) -> None:
        for name, what in (("operationId", "the operation has another name"), ("tags", "it has other tags")):
            if self.old.get(name) != self.new.get(name):
                before, after = self.old.get(name, ABSENT), self.new.get(name, ABSENT)
                self.add(Meets.TYPES, f"{self.new.pointer}/{name}", what, before, after)
        if self.new.get("deprecated") and not self.old.get("deprecated"):
            self.add(Meets.NOTICE, self.new, "is deprecated")

    # Who may call it.

    def compare_access(self) -> None:
        before, after = alternatives(self.old), alternatives(self.new)
        for one in before:
            if not any(suffices(one, other) for other in after):
                self.add(Meets.CALLERS, f"{self.new.pointer}/security", "no longer enough to call it", one, after)
        for one in after:
            if not any(suffices(other, one) for other in before):
                self.add(Meets.ADDITION, f"{self.new.pointer}/security", "is enough to call it", before, one)
        self.compare_scopes()
        whole = [bool(side.get("x-whole-ledger")) for side in (self.old, self.new)]
        if whole[0] != whole[1]:
            meets = Meets.CALLERS if whole[1] else Meets.ADDITION
            what = "keys with a prefix are refused now" if whole[1] else "keys with a prefix may call it"
            self.add(meets, f"{self.new.pointer}/x-whole-ledger", what)

    def compare_scopes(self) -> None:
        """Any of the scopes is enough; without the extension every key is."""
        pointer = f"{self.new.pointer}/x-scope"
        before, after = self.old.get("x-scope"), self.new.get("x-scope")
        if before is None or after is None:
            if before != after:
                meets = Meets.CALLERS if before is None else Meets.ADDITION
                self.add(meets, pointer, "scopes are asked for" if before is None else "no scope is asked for", before,
                         after)  # fmt: skip
            return
        for scope in sorted({*before} - {*after}):
            self.add(Meets.CALLERS, pointer, "the scope is no longer enough", scope)
        for scope in sorted({*after} - {*before}):
            self.add(Meets.ADDITION, pointer, "the scope is enough", ABSENT, scope)

    # What is sent.

    def compare_parameters(self) -> None:
        before, after = parameters(self.old), parameters(self.new)
        for key, parameter in before.items():
            if key in after:
                self.compare_parameter(parameter, after[key])
            else:
                self.add(Meets.CALLERS, parameter, "the parameter is gone", parameter.get("name"))
        for key, parameter in after.items():
            if key not in before:
                required = parameter.get("required", False)
                what = "the new parameter is required" if required else "the parameter is new"
                self.add(Meets.CALLERS if required else Meets.ADDITION, parameter, what, ABSENT, parameter.get("name"))
        kept = [[key for key in one if key in other] for one, other in ((before, after), (after, before))]
        if kept[0] != kept[1]:
            names = [[side[key].get("name") for key in keys] for side, keys in zip((before, after), kept, strict=True)]
            what = "the parameters are in another order, by which some clients pass them"
            self.add(Meets.TYPES, f"{self.new.pointer}/parameters", what, *names)

    def compare_parameter(self, old: Node, new: Node) -> None:
        if old.get("name") != new.get("name"):
            self.add(Meets.TYPES, f"{new.pointer}/name", "the parameter has another name in clients", old.get("name"),
                     new.get("name"))  # fmt: skip
        if old.get("required", False) != new.get("required", False):
            meets = Meets.CALLERS if new.get("required") else Meets.NOTICE
            what = "is required now" if new.get("required") else "may be left out now"
            self.add(meets, new, f"the parameter {new.get('name')} {what}")
        if written(old) != written(new):
            self.add(Meets.CALLERS, new, "the parameter is written in another style", written(old), written(new))
        if new.get("deprecated") and not old.get("deprecated"):
            self.add(Meets.NOTICE, new, "is deprecated")
        position = self.position(Direction.REQUEST, f"{new.get('in')} parameter {new.get('name')}")
        compare_schemas(old["schema"], new["schema"], position)

    def compare_bodies(self) -> None:
        pointer = f"{self.new.pointer}/requestBody"
        before, after = ("requestBody" in side for side in (self.old, self.new))
        if before and not after:
            self.add(Meets.CALLERS, pointer, "the body is gone")
        elif after and not before:
            required = self.new["requestBody"].get("required", False)
            what = "the new body is required" if required else "the body is new"
            self.add(Meets.CALLERS if required else Meets.ADDITION, pointer, what)
        elif before and after:
            self.compare_body(self.old["requestBody"], self.new["requestBody"])

    def compare_body(self, old: Node, new: Node) -> None:
        if old.get("required", False) != new.get("required", False):
            meets = Meets.CALLERS if new.get("required") else Meets.NOTICE
            self.add(meets, new, "the body is required now" if new.get("required") else "the body may be left out now")
        before, after = (side.get("x-bytes-max", BODY_BYTES_MAX) for side in (old, new))
        if before != after:
            meets = Meets.CALLERS if after < before else Meets.ADDITION
            self.add(meets, f"{new.pointer}/x-bytes-max", "the body may have other sizes", before, after)
        position = self.position(Direction.REQUEST, "request body")
        self.compare_contents(old, new, position)

    # What is answered.

    def compare_answers(self) -> None:
        before, after = self.old["responses"], self.new["responses"]
        for status in before.value:
            if status in after:
                self.compare_answer(status, before[status].resolved(), after[status].resolved())
            else:
                self.add(Meets.READERS, before[status], "the status is gone", status)
        for status in after.value:
            if status not in before:
                # An unknown 4xx is read as 400 and an unknown 5xx as 500; 304 goes to who asked for it.
                meets = Meets.ADDITION if status[0] in "45" or status == "304" else Meets.READERS
                self.add(meets, after[status], "the status is new", ABSENT, status)

    def compare_answer(self, status: str, old: Node, new: Node) -> None:
        position = self.position(Direction.RESPONSE, f"answer {status}")
        before, after = old.get("x-codes", []), new.get("x-codes", [])
        for code in before:
            if code not in after:
                position.add(Meets.READERS, f"{new.pointer}/x-codes", "the code is gone", code)
        for code in after:
            if code not in before:
                position.add(Meets.ADDITION, f"{new.pointer}/x-codes", "the code is new", ABSENT, code)
        if old.get("x-location") != new.get("x-location"):
            before, after = old.get("x-location", ABSENT), new.get("x-location", ABSENT)
            meets = Meets.ADDITION if before is ABSENT else Meets.READERS
            position.add(meets, f"{new.pointer}/x-location", "what was made is elsewhere", before, after)
        self.compare_headers(old.part("headers", {}), new.part("headers", {}), position)
        self.compare_contents(old, new, position)
        for name in old.get("links", {}):
            if name not in new.get("links", {}):
                position.add(Meets.NOTICE, old["links"][name], "the link is gone", name)
            elif old.get("links")[name] != new.get("links")[name]:
                position.add(Meets.NOTICE, new["links"][name], "the link leads elsewhere", name)

    def compare_headers(self, old: Node, new: Node, at: Position) -> None:
        before, after = ({name.lower(): side[name].resolved() for name in side.value} for side in (old, new))
        for name, header in before.items():
            if name not in after:
                at.add(Meets.READERS, header, "the header is gone", name)
                continue
            if header.get("required", False) != after[name].get("required", False):
                gone = header.get("required", False)
                what = f"the header {name} {'may be missing' if gone else 'is always there'} now"
                at.add(Meets.READERS if gone else Meets.NOTICE, after[name], what)
            if after[name].get("deprecated") and not header.get("deprecated"):
                at.add(Meets.NOTICE, after[name], "is deprecated")
            compare_schemas(header.part("schema", {}), after[name].part("schema", {}), at)
        for name, header in after.items():
            if name not in before:
                at.add(Meets.ADDITION, header, "the header is new", ABSENT, name)

    def compare_contents(self, old: Node, new: Node, at: Position) -> None:
        before, after = old.part("content", {}), new.part("content", {})
        for media in before.value:
            if media in after:
                compare_schemas(before[media].part("schema", {}), after[media].part("schema", {}), at)
            else:
                at.add(Meets.CALLERS if at.sends else Meets.READERS, before[media], "the media type is gone", media)
        for media in after.value:
            if media not in before:
                meets = Meets.ADDITION if at.sends or before.value else Meets.TYPES
                at.add(meets, after[media], "the media type is new", ABSENT, media)
        first = [next(iter(side.value), None) for side in (before, after)]
        if not at.sends and first[0] != first[1] and first[0] in after:
            at.add(Meets.READERS, after, "who asks for no media type gets another", *first)


def alternatives(operation: Node) -> list[dict[str, Any]]:
    """The sets of credentials of which one is enough; none at all where nothing is asked for."""
    return operation.get("security", operation.root.get("security", [])) or [{}]


def suffices(offered: dict[str, Any], asked: dict[str, Any]) -> bool:
    """Whether who has what one alternative names has what another one asks for."""
    return all(name in offered and {*scopes} <= {*offered[name]} for name, scopes in asked.items())


def parameters(operation: Node) -> dict[tuple[str, Any], Node]:
    """Each parameter by its place and name; that of the path by its number in it, as its name is not sent."""
    places = re.findall(r"\{([^}]*)\}", path_and_method(operation)[0])
    found = {}
    for node in operation.part("parameters", []).parts():
        parameter = node.resolved()
        name = parameter.get("name")
        if parameter.get("in") == "path" and name in places:
            name = places.index(name)
        elif parameter.get("in") == "header":
            name = name.lower()
        found[parameter.get("in"), name] = parameter
    return found


def written(parameter: Node) -> tuple[str, bool]:
    style = parameter.get("style", STYLES[parameter.get("in")])
    return style, parameter.get("explode", style == "form")

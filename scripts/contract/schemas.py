"""Two schemas of one position, compared keyword by keyword, in the direction that values travel there.

What a client sends must not be taken more narrowly than before; what it reads must not be wider. Each keyword says how
its set of values changed, and the direction says whom that breaks.
"""

import json
import re
from dataclasses import dataclass, replace
from enum import Enum, Flag, auto
from math import ceil, floor, inf
from typing import Any

from scripts.contract.documents import Node
from scripts.contract.findings import ABSENT, Findings, Meets
from scripts.contract.patterns import includes, lengths

EVERY_TYPE = frozenset({"string", "number", "boolean", "object", "array", "null"})
WIDER_FORMATS = {("int32", "int64"), ("float", "double")}


class Change(Flag):
    """How the set of values changed: some that were in it are out, or some that were not are in."""

    NONE = 0
    NARROWER = auto()
    WIDER = auto()


BOTH = Change.NARROWER | Change.WIDER
WORDS = {Change.NARROWER: "narrower", Change.WIDER: "wider", BOTH: "other"}


class Direction(Enum):
    """Which way values travel: from the client, or to it."""

    REQUEST = auto()
    RESPONSE = auto()


@dataclass(frozen=True)
class Position:
    """Where in the operations a schema stands, which named schemas need no look, and the pairs that were
    entered on the way to it, against cycles."""

    direction: Direction
    where: str
    findings: Findings
    unchanged: frozenset[str] = frozenset()
    entered: frozenset[tuple[str, str]] = frozenset()

    @property
    def sends(self) -> bool:
        return self.direction is Direction.REQUEST

    def add(self, meets: Meets, node: Node | str, what: str, before: Any = ABSENT, after: Any = ABSENT) -> None:
        pointer = node if isinstance(node, str) else node.pointer
        self.findings.add(meets, self.where, pointer, what, before, after)

    def changed(self, change: Change, keyword: str, old: Node, new: Node) -> None:
        """Report a keyword whose set of values changed."""
        if not change:
            return
        if self.sends:
            meets = Meets.CALLERS if Change.NARROWER in change else Meets.ADDITION
        else:
            meets = Meets.READERS if Change.WIDER in change else Meets.ADDITION
        what = f"{keyword} of what is {'sent' if self.sends else 'answered'} is {WORDS[change]}"
        self.add(meets, f"{new.pointer}/{keyword}", what, old.get(keyword, ABSENT), new.get(keyword, ABSENT))


def compare_schemas(old: Node, new: Node, at: Position) -> None:
    """Report what a value at this position may no longer be, or may now be."""
    named = (old.reference, new.reference)
    if named[0] == named[1] and named[0] in at.unchanged:
        return
    origin = new.pointer
    old, new = old.resolved(), new.resolved()
    if (old.pointer, new.pointer) in at.entered:
        return
    at = replace(at, entered=at.entered | {(old.pointer, new.pointer)})
    if named[0] != named[1]:
        compare_names(named, origin, old, new, at)
    if old.value != new.value:  # where they are equal, only what they refer to may differ
        compare_values(old, new, at)
    compare_objects(old, new, at)
    for name in ("items", "propertyNames"):
        if name in old or name in new:
            compare_schemas(old.part(name, {}), new.part(name, {}), at)
    compare_open(old, new, at)
    if new.get("deprecated") and not old.get("deprecated"):
        at.add(Meets.NOTICE, new, "is deprecated")


def unchanged(old: Node, new: Node) -> frozenset[str]:
    """The named schemas that say the same in both contracts, and so does all that they refer to."""
    before, after = (side.get("components", {}).get("schemas", {}) for side in (old, new))
    same = {name for name in before if before[name] == after.get(name)}
    leads = {name: set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(before[name]))) for name in same}
    while other := {name for name in same if not leads[name] <= same}:
        same -= other
    return frozenset(same)


def compare_names(named: tuple[str | None, str | None], origin: str, old: Node, new: Node, at: Position) -> None:
    """A named object or enum is a type of its own in every generated client, a named scalar in some of them."""
    own = any("enum" in side or ("type" in side and "object" in types(side)) for side in (old, new))
    before, after = named[0] or ABSENT, named[1] or ABSENT
    at.add(Meets.TYPES if own else Meets.NOTICE, origin, "is of another named schema", before, after)


# Values.


def compare_values(old: Node, new: Node, at: Position) -> None:
    compare_types(old, new, at)
    compare_enums(old, new, at)
    compare_formats(old, new, at)
    compare_patterns(old, new, at)
    compare_defaults(old, new, at)
    for low, high, exclusive in (
        ("minimum", "maximum", True), ("minLength", "maxLength", False),
        ("minItems", "maxItems", False), ("minProperties", "maxProperties", False),
    ):  # fmt: skip
        compare_bounds(low, lower(old, low, exclusive), lower(new, low, exclusive), old, new, at)
        before, after = upper(old, high, exclusive), upper(new, high, exclusive)
        compare_bounds(high, tuple(-part for part in before), tuple(-part for part in after), old, new, at)
    unique = bool(new.get("uniqueItems")) - bool(old.get("uniqueItems"))
    at.changed(difference(unique > 0, unique < 0), "uniqueItems", old, new)


def difference(narrower: bool, wider: bool) -> Change:
    return (Change.NARROWER if narrower else Change.NONE) | (Change.WIDER if wider else Change.NONE)


def types(node: Node) -> frozenset[str]:
    """The types that a value may have; every integer is a number."""
    said = node.get("type", sorted(EVERY_TYPE))
    return frozenset([said] if isinstance(said, str) else said)


def spread(said: frozenset[str]) -> frozenset[str]:
    return said | {"integer"} if "number" in said else said


def compare_types(old: Node, new: Node, at: Position) -> None:
    before, after = types(old), types(new)
    change = difference(not spread(before) <= spread(after), not spread(after) <= spread(before))
    at.changed(change, "type", old, new)
    if before - {"null"} != after - {"null"}:
        at.add(Meets.TYPES, f"{new.pointer}/type", "is of another type", old.get("type"), new.get("type"))
    elif before != after:
        at.add(Meets.NOTICE, f"{new.pointer}/type", "may be null or not", old.get("type"), new.get("type"))


def listed(node: Node) -> dict[str, Any] | None:
    """The values of an enum or a const, or None where any may stand."""
    if "enum" not in node and "const" not in node:
        return None
    values = node.get("enum", [node.get("const")])
    return {json.dumps(value, sort_keys=True): value for value in values if node.get("const", value) == value}


def compare_enums(old: Node, new: Node, at: Position) -> None:
    before, after = listed(old), listed(new)
    pointer = f"{new.pointer}/enum"
    if before is None or after is None:
        if before is not after:
            change = Change.NARROWER if before is None else Change.WIDER
            at.changed(change, "enum" if "const" not in {*old.value, *new.value} else "const", old, new)
            at.add(Meets.TYPES, pointer, "is an enum now" if before is None else "is no enum any more")
        return
    for text, value in before.items():
        if text not in after:
            meets = Meets.CALLERS if at.sends else Meets.TYPES
            at.add(meets, pointer, "the value is gone from the enum", value)
    for text, value in after.items():
        if text not in before:
            meets = Meets.ADDITION if at.sends else Meets.READERS
            at.add(meets, pointer, "the value is new in the enum", ABSENT, value)


def compare_formats(old: Node, new: Node, at: Position) -> None:
    before, after = old.get("format"), new.get("format")
    if before == after:
        return
    if before is None or (after, before) in WIDER_FORMATS:
        change = Change.NARROWER
    elif after is None or (before, after) in WIDER_FORMATS:
        change = Change.WIDER
    else:
        change = BOTH
    at.changed(change, "format", old, new)
    at.add(Meets.TYPES, f"{new.pointer}/format", "is of another format", before or ABSENT, after or ABSENT)


def compare_patterns(old: Node, new: Node, at: Position) -> None:
    before, after = old.get("pattern"), new.get("pattern")
    if before == after:
        return
    if before is None or after is None:
        at.changed(Change.NARROWER if before is None else Change.WIDER, "pattern", old, new)
        return
    # What is not decided counts as both.
    at.changed(difference(not includes(after, before), not includes(before, after)), "pattern", old, new)


def compare_defaults(old: Node, new: Node, at: Position) -> None:
    before, after = old.get("default", ABSENT), new.get("default", ABSENT)
    if (before is ABSENT) == (after is ABSENT) and json.dumps(old.get("default")) == json.dumps(new.get("default")):
        return
    meets = Meets.CALLERS if at.sends else Meets.NOTICE
    at.add(meets, f"{new.pointer}/default", "leaving it out means something else", before, after)


def compare_bounds(keyword: str, before: tuple, after: tuple, old: Node, new: Node, at: Position) -> None:
    """Lower bounds: a higher one is narrower. Upper bounds come here negated."""
    exclusive = f"exclusive{keyword.capitalize()}"
    for said in (keyword, exclusive):
        if old.get(said) != new.get(said):
            at.changed(difference(after > before, after < before), said, old, new)


def lower(node: Node, keyword: str, exclusive: bool) -> tuple[float, int]:
    """A lower bound, and 1 if it is itself excluded."""
    if exclusive:
        least, excluded = max((node.get(keyword, -inf), 0), (node.get("exclusiveMinimum", -inf), 1))
        return (floor(least) + 1, 0) if excluded and whole(node) and least > -inf else (least, excluded)
    # Where the pattern takes no shorter ones, a length that says so narrows nothing.
    shortest = lengths(node.get("pattern", ""))[0] if keyword == "minLength" else 0
    return max(node.get(keyword, 0), shortest), 0


def upper(node: Node, keyword: str, exclusive: bool) -> tuple[float, int]:
    """An upper bound, and -1 if it is itself excluded."""
    if exclusive:
        most, excluded = min((node.get(keyword, inf), 0), (node.get("exclusiveMaximum", inf), -1))
        return (ceil(most) - 1, 0) if excluded and whole(node) and most < inf else (most, excluded)
    longest = lengths(node.get("pattern", ""))[1] if keyword == "maxLength" else inf
    return min(node.get(keyword, inf), longest), 0


def whole(node: Node) -> bool:
    return types(node) <= {"integer", "null"}


# Objects.


def compare_objects(old: Node, new: Node, at: Position) -> None:
    before, after = old.part("properties", {}), new.part("properties", {})
    for name in before.value:
        if name in after:
            compare_schemas(before[name], after[name], at)
        else:
            meets = Meets.CALLERS if at.sends else Meets.READERS
            at.add(meets, before[name], "the property is gone", name)
    for name in after.value:
        if name not in before:
            add_property(name, old, new, at)
    compare_required(old, new, at)


def add_property(name: str, old: Node, new: Node, at: Position) -> None:
    required, node = name in new.get("required", []), new["properties"][name]
    if at.sends and required:
        at.add(Meets.CALLERS, node, "the new property is required", ABSENT, name)
    elif not at.sends and old.get("additionalProperties", True) is not True:
        at.add(Meets.READERS, node, "the property is new where no other might be", ABSENT, name)
    else:
        at.add(Meets.ADDITION, node, "the property is new", ABSENT, name)


def compare_required(old: Node, new: Node, at: Position) -> None:
    both = [name for name in old.get("properties", {}) if name in new.get("properties", {})]
    for name in both:
        before, after = name in old.get("required", []), name in new.get("required", [])
        if before == after:
            continue
        broken = (Meets.CALLERS if after else None) if at.sends else (Meets.READERS if before else None)
        what = "the property is required now" if after else "the property may be left out now"
        at.add(broken or Meets.NOTICE, new["properties"][name], what)


def compare_open(old: Node, new: Node, at: Position) -> None:
    """Compare what is said of properties that are not named."""
    before, after = old.part("additionalProperties", True), new.part("additionalProperties", True)
    if isinstance(before.value, dict) and isinstance(after.value, dict):
        compare_schemas(before, after, at)
    elif before.value is not after.value:
        wide = {True: 2, False: 0}
        order = [wide[side.value] if isinstance(side.value, bool) else 1 for side in (before, after)]
        at.changed(difference(order[1] < order[0], order[1] > order[0]), "additionalProperties", old, new)

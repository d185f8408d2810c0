"""Contracts as they are read: each value with the place that it stands at, and `$ref` followed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml


class Unjudgeable(Exception):
    """The contract says something that is not understood here; nothing is concluded from the rest of it."""

    def __init__(self, pointer: str, why: str) -> None:
        super().__init__(f"{pointer or '#'}: {why}")


class StrictLoader(yaml.SafeLoader):
    """YAML in which a name may stand once: of two equal ones PyYAML would take the last."""


def _mapping(loader: StrictLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    for at, key in enumerate(keys):
        if not isinstance(key, str):
            raise Unjudgeable(f"line {node.value[at][0].start_mark.line + 1}", f"the name {key!r} is not a string")
        if key in keys[:at]:
            raise Unjudgeable(f"line {node.value[at][0].start_mark.line + 1}", f"the name {key!r} stands twice")
    return {key: loader.construct_object(value, deep=True) for key, (_, value) in zip(keys, node.value, strict=True)}


def _instant(loader: StrictLoader, node: yaml.ScalarNode) -> str:
    return loader.construct_scalar(node)


StrictLoader.add_constructor("tag:yaml.org,2002:map", _mapping)
StrictLoader.add_constructor("tag:yaml.org,2002:timestamp", _instant)


@dataclass(frozen=True, eq=False)
class Node:
    """A value of a contract, and where it stands, as a JSON Pointer."""

    root: dict[str, Any]
    value: Any
    pointer: str = "#"

    def __getitem__(self, name: str | int) -> "Node":
        return Node(self.root, self.value[name], f"{self.pointer}/{escaped(str(name))}")

    def __contains__(self, name: str) -> bool:
        return name in self.value

    def get(self, name: str, default: Any = None) -> Any:
        return self.value.get(name, default)

    def part(self, name: str, default: Any) -> "Node":
        """What stands under the name, or the default, as if it stood there."""
        return self[name] if name in self.value else Node(self.root, default, f"{self.pointer}/{escaped(name)}")

    def parts(self) -> list["Node"]:
        return [self[at] for at in range(len(self.value))]

    @property
    def reference(self) -> str | None:
        """The name of what it refers to, if it is a reference."""
        return self.value.get("$ref", "").rsplit("/", 1)[-1] or None

    def resolved(self) -> "Node":
        """What it refers to, through any number of references."""
        at, seen = self, set()
        while isinstance(at.value, dict) and "$ref" in at.value:
            target = at.value["$ref"]
            if target in seen:
                raise Unjudgeable(at.pointer, f"{target} refers to nothing but itself")
            seen.add(target)
            at = self.target(at, target)
        return at

    def target(self, origin: "Node", reference: str) -> "Node":
        if not reference.startswith("#/"):
            raise Unjudgeable(origin.pointer, f"$ref to another document: {reference}")
        value: Any = self.root
        for name in reference[2:].split("/"):
            name = name.replace("~1", "/").replace("~0", "~")
            if not isinstance(value, dict) or name not in value:
                raise Unjudgeable(origin.pointer, f"$ref to what is not there: {reference}")
            value = value[name]
        return Node(self.root, value, reference)


def escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")


def read(path: Path) -> Node:
    """The contract in a file."""
    try:
        value = yaml.load(path.read_text(), StrictLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as trouble:
        raise Unjudgeable(str(path), f"cannot be read: {trouble}") from trouble
    return document(value)


def document(value: Any) -> Node:
    if not isinstance(value, dict):
        raise Unjudgeable("", "is not a contract")
    return Node(value, value)

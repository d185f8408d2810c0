"""What OWASP's rules ask of a contract and spectral cannot decide for ours, and the lint itself where it cannot run."""

import os
import re
import subprocess
from collections.abc import Iterator
from math import inf
from pathlib import Path
from shutil import which
from typing import Any

from scripts.contract.patterns import lengths
from tests.conformance import DOCUMENT
from tests.conftest import ROOT

TIMESTAMP = "date-time"  # read by a strict type of our own, at most 32 characters long
LINTERS = ROOT / "scripts" / "linters"
Schema = dict[str, Any]


def test_every_string_of_a_request_has_a_form_and_a_bound():
    strings = [(place, schema) for place, schema in sent() if "string" in schema.get("type", ())]
    assert 100 < len(strings)
    unbounded = [place for place, schema in strings if longest(schema) == inf]
    formless = [place for place, schema in strings if not {"pattern", "enum", "format"} & schema.keys()]
    assert ([], []) == (unbounded, formless)


def test_every_object_of_a_request_is_closed_or_bounded():
    objects = [(place, schema) for place, schema in sent() if schema.get("type") == "object"]
    assert 10 < len(objects)
    bounded = {"maxProperties", "propertyNames", "additionalProperties"}
    assert [] == [
        place
        for place, schema in objects
        if schema.get("additionalProperties") is not False and not bounded <= schema.keys()
    ]


def test_every_array_of_a_request_is_bounded():
    arrays = [(place, schema) for place, schema in sent() if schema.get("type") == "array"]
    assert 5 < len(arrays)
    assert [] == [place for place, schema in arrays if "maxItems" not in schema]


def longest(schema: Schema) -> float:
    if "enum" in schema or schema.get("format") == TIMESTAMP:
        return 32
    return min(schema.get("maxLength", inf), lengths(schema.get("pattern", ""))[1])


def sent() -> Iterator[tuple[str, Schema]]:
    """Every schema of what is sent, with its place; through references."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            for parameter in map(resolved, operation.get("parameters", [])):
                yield from parts(f"{method} {path} {parameter['name']}", parameter["schema"])
            for media in operation.get("requestBody", {}).get("content", {}).values():
                yield from parts(f"{method} {path} body", media["schema"])


def parts(place: str, schema: Schema) -> Iterator[tuple[str, Schema]]:
    schema = resolved(schema)
    yield place, schema
    for name, part in schema.get("properties", {}).items():
        yield from parts(f"{place}/{name}", part)
    for name in ("items", "additionalProperties", "propertyNames"):
        if isinstance(schema.get(name), dict):
            yield from parts(f"{place}/{name}", schema[name])


def resolved(value: Schema) -> Schema:
    for name in value.get("$ref", "#").split("/")[1:]:
        value = DOCUMENT[name] if name == "components" else value[name]
    return value


def test_each_rule_that_is_off_says_why():
    """A comment beside it, or above it and others of its kind."""
    lines = (LINTERS / "spectral.yaml").read_text().splitlines()
    off = [number for number, line in enumerate(lines) if re.match(r" +owasp:\S+: 'off'", line)]
    assert 8 < len(off)
    for number in off:
        if "#" in lines[number].split("'off'")[1]:
            continue
        above = number - 1
        while re.match(r" +(owasp:\S+: 'off'$|rules:|- files:)", lines[above]):
            above -= 1
        assert lines[above].lstrip().startswith("#"), lines[number]


def test_the_linters_are_pinned_and_the_lock_names_no_host():
    lock = (LINTERS / "package-lock.json").read_text()
    assert "resolved" not in lock
    assert lock.count('"integrity": "sha512-') > 200
    versions = re.findall(r'"@(?:redocly|stoplight)/[\w-]+": "(.*)"', (LINTERS / "package.json").read_text())
    assert 3 == len(versions)
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in versions)


def test_without_node_it_says_that_it_did_not_take_place(tmp_path: Path):
    (tmp_path / "dirname").symlink_to(which("dirname"))
    environment = {**os.environ, "PATH": str(tmp_path)}
    ended = subprocess.run(["/bin/sh", ROOT / "scripts/lint"], env=environment, capture_output=True, text=True)
    assert (2, "") == (ended.returncode, ended.stdout)
    assert "The lint did not take place: it needs node" in ended.stderr

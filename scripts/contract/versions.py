"""What `info.version` allows, and which contract was released last."""

import re
from pathlib import Path
from typing import NamedTuple

from scripts.contract.documents import Node, Unjudgeable, read

RELEASES = "docs/releases"


class Version(NamedTuple):
    """A version of semantic versioning; a contract has no pre-releases."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        return ".".join(map(str, self))

    @classmethod
    def of(cls, text: object) -> "Version":
        found = re.fullmatch(r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)", str(text))
        if not found:
            raise Unjudgeable("#/info/version", f"{text!r} is no version such as 1.2.3")
        return cls(*map(int, found.groups()))

    @property
    def next_breaking(self) -> "Version":
        """The least version after this one that may break: while it is 0.x a minor one may."""
        return Version(self.major + 1, 0, 0) if self.major else Version(0, self.minor + 1, 0)

    @property
    def next_adding(self) -> "Version":
        """The least version after this one that may add."""
        return Version(self.major, self.minor + 1, 0) if self.major else Version(0, self.minor, self.patch + 1)


def version_of(contract: Node) -> Version:
    return Version.of(contract["info"].get("version"))


def released(root: Path) -> list[Path]:
    """The released contracts, from the first to the last, each under the name of its version."""
    files = {}
    for file in (root / RELEASES).glob("openapi-*.yaml"):
        version = Version.of(file.stem.removeprefix("openapi-"))
        if version_of(read(file)) != version:
            raise Unjudgeable(str(file), "is not of the version in its name")
        files[version] = file
    return [files[version] for version in sorted(files)]


def last_released(root: Path) -> Path:
    files = released(root)
    if not files:
        raise Unjudgeable(RELEASES, "no contract was released: scripts/release VERSION makes the first one")
    return files[-1]

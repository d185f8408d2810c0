"""What a comparison found: each change once, with everybody whom it meets."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


class Meets(Enum):
    """Whom a change breaks; the last two break nobody."""

    CALLERS = "callers, who send"
    READERS = "clients that read"
    TYPES = "generated clients, whose names or types change"
    NOTICE = "notice"
    ADDITION = "addition"

    @property
    def breaks(self) -> bool:
        return self not in (Meets.NOTICE, Meets.ADDITION)


ABSENT = object()


@dataclass(frozen=True)
class Finding:
    """One change: at which place of the contract, what it is, and both sides of it."""

    meets: Meets
    pointer: str
    what: str
    before: Any = ABSENT
    after: Any = ABSENT
    where: tuple[str, ...] = ()

    def __str__(self) -> str:
        sides = ""
        if self.before is not ABSENT or self.after is not ABSENT:
            sides = f": {shown(self.before)} → {shown(self.after)}"
        return f"{self.what}{sides}"


@dataclass
class Findings:
    """Findings as they are gathered: the same change of a shared schema is one, however many operations share it."""

    met: dict[tuple, tuple[Finding, dict[str, None]]] = field(default_factory=dict)

    def add(self, meets: Meets, where: str, pointer: str, what: str, before: Any = ABSENT, after: Any = ABSENT) -> None:
        key = (meets, pointer, what, shown(before), shown(after))
        _, places = self.met.setdefault(key, (Finding(meets, pointer, what, before, after), {}))
        places[where] = None

    def __iter__(self) -> Iterator[Finding]:
        for (meets, pointer, what, *_), (finding, places) in self.met.items():
            yield Finding(meets, pointer, what, finding.before, finding.after, tuple(places))

    @property
    def breaking(self) -> list[Finding]:
        return [finding for finding in self if finding.meets.breaks]


def shown(side: Any, longest: int = 120) -> str:
    """One side of a change, in JSON on one line."""
    if side is ABSENT:
        return "(none)"
    text = json.dumps(side, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= longest else f"{text[:longest]}…"

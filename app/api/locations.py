"""Where to get what a request has created: the `Location` of its answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_FROM_PATH, _FROM_ANSWER = "$request.path.", "$response.body#/"


@dataclass(frozen=True, slots=True)
class Location:
    """The address that a link of the answer leads to, made anew for each answer, so that a replay has the same."""

    template: str
    # Parameters of the address: those that the request's path has too, and those that the answer names.
    from_path: tuple[tuple[str, str], ...]
    from_answer: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, document: dict[str, Any], response: dict[str, Any]) -> Location | None:
        """That of the link which the response's `x-location` names; None if it names none."""
        if "x-location" not in response:
            return None
        link = response["links"][response["x-location"]]
        found: dict[str, list[tuple[str, str]]] = {_FROM_PATH: [], _FROM_ANSWER: []}
        for parameter, expression in link["parameters"].items():
            (source,) = (each for each in found if expression.startswith(each))
            found[source].append((parameter, expression.removeprefix(source)))
        template = _path(document, link["operationId"])
        return cls(template, tuple(found[_FROM_PATH]), tuple(found[_FROM_ANSWER]))

    def fill(self, path: Mapping[str, str], answer: Any) -> bytes:
        """A path of this server. What our names and paths are made of needs no percent-encoding: a test compares."""
        named = {parameter: path[name] for parameter, name in self.from_path}
        for parameter, name in self.from_answer:
            named[parameter] = getattr(answer, name)
        return self.template.format_map(named).encode("ascii")


def _path(document: dict[str, Any], operation_id: str) -> str:
    paths: dict[str, dict[str, Any]] = document["paths"]
    return next(
        path
        for path, methods in paths.items()
        for operation in methods.values()
        if operation["operationId"] == operation_id
    )

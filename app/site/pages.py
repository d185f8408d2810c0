"""The site: each page at its address, made when it is first asked for, and kept."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus

from app.ledger.refusals import REFUSALS, Refusal
from app.site.document import Document, operations_of
from app.site.files import SOURCES, Sources, read
from app.site.layout import Group, lay_out, navigate
from app.site.markdown import Heading, Rendered, Surroundings, code, render, target
from app.site.reference import Reference
from app.site.refusals import refusal_index, refusal_page
from app.site.samples import read_answers, read_story


@dataclass
class Site:
    """What is shown of the contract, of the refusals and of docs/."""

    document: Document
    statuses: dict[type[Refusal], int]

    def page(self, path: str) -> str | None:
        """The page at an address, or None if there is none."""
        if path.startswith("/docs/reference"):
            return self._reference_page(path.removeprefix("/docs/reference").removeprefix("/"), path)
        if path == "/problems":
            return self._lay_out(path, "Refusals", refusal_index(self.statuses), headings=_found(self.statuses))
        if path.startswith("/problems/"):
            return self._refusal(path.removeprefix("/problems/"), path)
        name = self.sources.at(path)
        if name is None:
            return None
        return self._source(name, path) if not name.endswith(".md") else self._written(name, path)

    def addresses(self) -> list[str]:
        """Every page there is."""
        reference = ["/docs/reference", "/docs/reference/conventions"]
        reference += [f"/docs/reference/{name}" for name in self.reference.operations]
        written = [href for href in self.sources.addresses.values() if href.startswith("/docs")]
        return [*written, *reference, "/problems", *(f"/problems/{each}" for each in REFUSALS)]

    @cached_property
    def sources(self) -> Sources:
        return Sources.find()

    @cached_property
    def reference(self) -> Reference:
        surroundings = self._around("openapi.yaml")
        return Reference(self.document, surroundings, read_story(self.document), read_answers())

    @cached_property
    def navigation(self) -> list[Group]:
        return navigate(self.sources, self.reference.groups())

    @cached_property
    def names(self) -> dict[str, str]:
        """Words that are linked wherever they stand as code: operations and codes."""
        return {name: f"/docs/reference/{name}" for name in operations_of(self.document)} | {
            name: f"/problems/{name}" for name in REFUSALS
        }

    def _written(self, name: str, path: str) -> str:
        found = render(read(name), self._around(name, path))
        return self._lay_out(path, found.title, found.body, headings=found.headings)

    def _source(self, name: str, path: str) -> str:
        suffix = name[name.rindex(".") :]
        return self._lay_out(path, name.rpartition("/")[2], code(read(name), SOURCES[suffix]), lead=name)

    def _reference_page(self, name: str, path: str) -> str | None:
        if not name:
            found = [Heading(2, tag["name"], tag["name"].lower()) for tag in self.document["tags"]]
            return self._lay_out(path, "Operations", self.reference.index(), headings=found)
        if name == "conventions":
            said: Rendered = self.reference.conventions()
            return self._lay_out(path, "What holds for every operation", said.body, headings=said.headings)
        if name not in self.reference.operations:
            return None
        body = self.reference.page(name)
        found = [Heading(2, text, anchor) for anchor, text in re.findall(r'<h2 id="(.+?)">(.+?)</h2>', body)]
        return self._lay_out(path, self.reference.title(name), body, lead=name, headings=found)

    def _refusal(self, code: str, path: str) -> str | None:
        if code not in REFUSALS:
            return None
        refusal = REFUSALS[code]
        around = self._around("docs/problems.md", path)
        body = refusal_page(code, status=self.statuses[refusal], document=self.document, surroundings=around)
        return self._lay_out(path, refusal.title, body, lead=code)

    def _around(self, name: str, path: str = "") -> Surroundings:
        names = {word: href for word, href in self.names.items() if href != path}
        return Surroundings(self._link_from(name), self._picture_from(name), names)

    def _link_from(self, page: str) -> Callable[[str], str | None]:
        def link(href: str) -> str | None:
            if href.startswith(("http://", "https://", "/")):
                return href
            name, anchor = target(page, href)
            if name == page:
                return f"#{anchor}"
            if name == "docs/problems.md" and anchor:
                return f"/problems/{anchor}"
            address = self.sources.addresses.get(name)
            return address and address + (f"#{anchor}" if anchor else "")

        return link

    def _picture_from(self, page: str) -> Callable[[str], str]:
        return lambda href: read(target(page, href)[0])

    def _lay_out(self, path: str, title: str, body: str, *, lead: str = "", headings: Sequence[Heading] = ()) -> str:
        return lay_out(
            path=path,
            title=title,
            body=body,
            lead=lead,
            headings=headings,
            navigation=self.navigation,
            version=self.document["info"]["version"],
        )


def _found(statuses: dict[type[Refusal], int]) -> list[Heading]:
    return [
        Heading(2, f"{status} {HTTPStatus(status).phrase}", f"s{status}") for status in sorted(set(statuses.values()))
    ]

"""What every page has around it: its head, the way to every other page, and a list of its own headings."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from app.site.files import SOURCES_FOLDER, Sources, first_heading
from app.site.markdown import Heading

TEMPLATES = Environment(
    loader=PackageLoader("app.site"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True)
class Entry:
    label: str
    href: str
    # What is listed below it on pages whose addresses begin so.
    below: "list[Group]" = field(default_factory=list)
    opens: str = ""


@dataclass(frozen=True)
class Group:
    title: str
    entries: list[Entry]


# In the order of reading, under short names. A file that is not named here comes last, under its own heading.
START = {
    "docs/README.md": "Overview",
    "docs/guide.md": "A wallet in ten minutes",
    "docs/marketplace.md": "A marketplace order",
}
CONCEPTS = {
    "docs/accounts.md": "Accounts and sides",
    "docs/holds.md": "Holds",
    "docs/time.md": "Effective and recorded time",
    "docs/idempotency.md": "Idempotency",
    "docs/keys.md": "API keys and access scopes",
}
CLIENTS = {
    "docs/sdks.md": "Clients in five languages",
    "docs/versioning.md": "Versions",
    "docs/fuzzing.md": "Fuzzing",
}
OPERATE = {
    "docs/settings.md": "Settings",
    "docs/limits.md": "Limits",
    "docs/fly.md": "Fly",
    "docs/railway.md": "Railway",
    "docs/postgres.md": "Postgres",
    "docs/citus.md": "Citus",
    "docs/backup.md": "Backup",
    "docs/seeing.md": "Observability",
    "docs/runbook.md": "Runbook",
    "docs/threats.md": "Threats",
    "docs/beancount.md": "Import from beancount",
}
INSIDE = {
    "docs/architecture.md": "How it works",
    "docs/campaigns.md": "Campaigns",
    "README.md": "README",
    "CHANGELOG.md": "Changes",
}


def navigate(sources: Sources, operations: list[Group]) -> list[Group]:
    """Every page, in groups."""
    reference = [
        Entry("Operations", "/docs/reference", operations, "/docs/reference"),
        Entry("Refusals", "/problems"),
        Entry("Try it out", "/docs/try"),
        Entry("openapi.yaml", "/openapi.yaml"),
    ]
    named = START | CONCEPTS | CLIENTS | OPERATE | INSIDE
    rest = [
        name
        for name in sources.addresses
        if name not in named and name.endswith(".md") and name != "docs/problems.md" and "/decisions/" not in name
        and not name.startswith(SOURCES_FOLDER)
    ]  # fmt: skip
    groups = [
        Group("Start", _entries(sources, START)),
        Group("Concepts", _entries(sources, CONCEPTS)),
        Group("Reference", reference),
        Group("Clients", _entries(sources, CLIENTS | _scenarios(sources))),
        Group("Operate", _entries(sources, OPERATE)),
        Group("More", _entries(sources, {name: first_heading(name) for name in rest})),
        Group("Inside", [*_entries(sources, INSIDE), *_decisions(sources)]),
    ]
    return [group for group in groups if group.entries]


def _decisions(sources: Sources) -> list[Entry]:
    names = [name for name in sources.addresses if "/decisions/" in name]
    found = _entries(sources, {name: first_heading(name) for name in names})
    return [Entry("Decisions", found[0].href, [Group("", found)], "/docs/decisions/")] if found else []


LANGUAGES = {"python": "Python", "typescript": "TypeScript", "go": "Go", "java": "Java", "rust": "Rust"}


def _scenarios(sources: Sources) -> dict[str, str]:
    """The same story in each language: the file that tells it."""
    found: dict[str, str] = {}
    for folder, language in LANGUAGES.items():
        files = [name for name in sources.addresses if name.startswith(f"{SOURCES_FOLDER}/{folder}/")]
        found |= {name: f"In {language}" for name in files if PurePath(name).stem.lower() in ("scenario", "main")}
    return found


def _entries(sources: Sources, names: dict[str, str]) -> list[Entry]:
    return [Entry(label, sources.addresses[name]) for name, label in names.items() if name in sources.addresses]


def lay_out(
    *,
    path: str,
    title: str,
    body: str,
    navigation: list[Group],
    version: str,
    lead: str = "",
    headings: Sequence[Heading] = (),
) -> str:
    """A whole page. `body` is HTML, everything else is text."""
    return TEMPLATES.get_template("page.html").render(
        path=path, title=title, body=Markup(body), navigation=navigation,  # noqa: S704  # made by this package
        version=version, lead=lead, headings=headings,
    )  # fmt: skip


def fill(template: str, **values: Any) -> str:
    """A part of a page, of one of the templates."""
    return TEMPLATES.get_template(template).render(**values)

"""Which files of the repository are pages, and at which addresses."""

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Beside docs/ itself.
OTHERS = {"README.md": "/docs/readme", "CHANGELOG.md": "/docs/changelog"}
# What is shown otherwise: the first page, and the pages of the refusals, which this file has the texts of.
SPECIAL = {"docs/README.md": "/docs", "docs/problems.md": "/problems", "openapi.yaml": "/openapi.yaml"}
# Examples in other languages are shown as they are.
SOURCES = {".py": "python", ".ts": "typescript", ".go": "go", ".java": "java", ".rs": "rust"}
SOURCES_FOLDER = "docs/examples"


@dataclass(frozen=True)
class Sources:
    """The files that are shown, each with its address; read once, when the first page is asked for."""

    addresses: dict[str, str]

    @classmethod
    def find(cls, root: Path = ROOT) -> "Sources":
        found = {name: href for name, href in (SPECIAL | OTHERS).items() if (root / name).is_file()}
        for file in sorted((root / "docs").rglob("*")):
            name = file.relative_to(root).as_posix()
            if name in found or not file.is_file() or "node_modules" in name or "/." in name:
                continue
            if file.suffix == ".md":
                found[name] = "/" + name.removesuffix(".md")
            elif name.startswith(SOURCES_FOLDER) and file.suffix in SOURCES:
                found[name] = "/" + name
        return cls(found)

    def at(self, href: str) -> str | None:
        """The file that is shown at an address."""
        return next((name for name, address in self.addresses.items() if address == href), None)


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def first_heading(name: str) -> str:
    found = re.search(r"^# (.+)$", read(name), re.MULTILINE) if name.endswith(".md") else None
    return found[1].replace("`", "") if found else name.rpartition("/")[2]

"""Release the contract as it is: give it its version everywhere, and keep a copy that later ones are compared with.

Refused, with nothing written, if the version does not allow what changed since the last release, or the changelog does
not say what did.
"""

import argparse
import re
import sys
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

from scripts.contract.breaking import ROOT, must_be_valid
from scripts.contract.documents import Unjudgeable, document, read
from scripts.contract.operations import compare
from scripts.contract.versions import RELEASES, Version, released, version_of

SUMS = f"{RELEASES}/SHA256SUMS"


class NotReleasable(Exception):
    """Why there is no release."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/release", description=__doc__)
    parser.add_argument("version", help="such as 0.2.0")
    try:
        version = Version.of(parser.parse_args(arguments).version)
        files = cut(ROOT, version, today=datetime.now(UTC).date().isoformat())
    except (NotReleasable, Unjudgeable) as trouble:
        print(f"Not released. {trouble}", file=sys.stderr)
        return 1
    print("\n".join(f"wrote {file}" for file in files))
    print(f"Commit this as the release, and tag it: git tag v{version}")
    return 0


def cut(root: Path, version: Version, *, today: str) -> list[str]:
    """Write the release, all of its files or none."""
    allow(root, version)
    texts = {
        "openapi.yaml": once(root, "openapi.yaml", r"(?m)^(  version: ).*$", rf"\g<1>{version}"),
        "pyproject.toml": once(root, "pyproject.toml", r'(?m)^(version = ").*"$', rf'\g<1>{version}"'),
        "uv.lock": once(root, "uv.lock", r'(name = "tallystick"\nversion = ").*"', rf'\g<1>{version}"'),
        "CHANGELOG.md": changelog(root, version, today),
    }
    copy = f"{RELEASES}/openapi-{version}.yaml"
    texts[copy] = texts["openapi.yaml"]
    sums = (root / SUMS).read_text() if (root / SUMS).exists() else ""
    texts[SUMS] = f"{sums}{sha256(texts[copy].encode()).hexdigest()}  {Path(copy).name}\n"
    (root / RELEASES).mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (root / name).write_text(text)
    return list(texts)


def allow(root: Path, version: Version) -> None:
    """Return if this version may follow the last release, with what the contract says now."""
    contract = read(root / "openapi.yaml")
    must_be_valid(contract)
    if version < version_of(contract):
        raise NotReleasable(f"info.version is {version_of(contract)} already.")
    earlier = released(root)
    findings = compare(read(earlier[-1]) if earlier else document(contract.value), contract)
    if not earlier:
        return
    last = Version.of(earlier[-1].stem.removeprefix("openapi-"))
    least = last._replace(patch=last.patch + 1)
    if findings.breaking:
        least = last.next_breaking
    elif list(findings):
        least = last.next_adding
    if version < least:
        raise NotReleasable(f"After {last} and what changed since, {least} is the least; see scripts/breaking --all.")


def once(root: Path, name: str, pattern: str, replacement: str) -> str:
    text, count = re.subn(pattern, replacement, (root / name).read_text(), count=2)
    if count != 1:
        raise NotReleasable(f"The version stands {count} times in {name}, not once.")
    return text


def changelog(root: Path, version: Version, today: str) -> str:
    text = (root / "CHANGELOG.md").read_text()
    found = re.search(r"(?ms)^## Unreleased\n(.*?)(?=^## |\Z)", text)
    if not found or not found[1].strip():
        raise NotReleasable("CHANGELOG.md says nothing under Unreleased.")
    if re.search(rf"(?m)^## {re.escape(str(version))}\b", text):
        raise NotReleasable(f"CHANGELOG.md has {version} already.")
    return f"{text[: found.start()]}## Unreleased\n\n## {version} ({today})\n{text[found.start(1) :]}"


if __name__ == "__main__":
    sys.exit(main())

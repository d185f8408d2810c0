"""A release: what it writes, what it refuses, and that the released contracts are kept as they were."""

from hashlib import sha256
from pathlib import Path

import pytest
import yaml

from scripts.contract import breaking
from scripts.contract.documents import Unjudgeable, read
from scripts.contract.release import NotReleasable, cut
from scripts.contract.versions import RELEASES, Version, last_released, released, version_of
from tests.conftest import ROOT
from tests.contracts import SMALL, Change, changed, drop, say

TODAY = "2026-11-23"
FIRST = Version(0, 2, 0)
CHANGES = "# Changelog\n\n## Unreleased\n\n- Something.\n\n## 0.1.0\n\nFirst light.\n"
BREAKING, ADDITION, WORDS = (
    drop("put/requestBody/content", "text/plain"),
    say("schemas/Told/properties", "new", {"type": "string"}),
    say("contract/info", "description", "Words."),
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project that has released 0.2.0, and nothing since."""
    write(tmp_path, "0.1.0")
    cut(tmp_path, FIRST, today=TODAY)
    (tmp_path / "CHANGELOG.md").write_text(CHANGES)
    return tmp_path


def write(root: Path, version: str, *changes: Change) -> None:
    contract = changed(SMALL, say("contract/info", "version", version), *changes)
    (root / "openapi.yaml").write_text(yaml.safe_dump(contract, sort_keys=False))
    (root / "pyproject.toml").write_text(f'[project]\nname = "tallystick"\nversion = "{version}"\n')
    (root / "uv.lock").write_text(f'[[package]]\nname = "tallystick"\nversion = "{version}"\n')
    (root / "CHANGELOG.md").write_text(CHANGES)


def test_a_release_has_its_version_everywhere_and_a_copy_with_its_sum(project):
    copy = project / RELEASES / "openapi-0.2.0.yaml"
    assert copy.read_bytes() == (project / "openapi.yaml").read_bytes()
    assert f"{sha256(copy.read_bytes()).hexdigest()}  openapi-0.2.0.yaml\n" == (
        project / RELEASES / "SHA256SUMS").read_text()  # fmt: skip
    assert FIRST == version_of(read(copy))
    for name in ("pyproject.toml", "uv.lock"):
        assert 'version = "0.2.0"' in (project / name).read_text()


def test_a_release_takes_what_the_changelog_says_and_leaves_it_empty(project):
    write(project, "0.2.0", WORDS)
    cut(project, Version(0, 2, 1), today=TODAY)
    expected = "## Unreleased\n\n## 0.2.1 (2026-11-23)\n\n- Something.\n\n## 0.1.0\n"
    assert expected in (project / "CHANGELOG.md").read_text()
    with pytest.raises(NotReleasable, match="nothing under Unreleased"):
        cut(project, Version(0, 2, 2), today=TODAY)


@pytest.mark.parametrize(
    ("last", "change", "least"),
    [
        ("0.2.0", BREAKING, "0.3.0"),
        ("0.2.0", ADDITION, "0.2.1"),
        ("0.2.0", WORDS, "0.2.1"),
        ("1.4.2", BREAKING, "2.0.0"),
        ("1.4.2", ADDITION, "1.5.0"),
        ("1.4.2", WORDS, "1.4.3"),
    ],
)
def test_a_change_takes_its_version_and_not_the_one_below(tmp_path, last, change, least):
    write(tmp_path, "0.1.0")
    cut(tmp_path, Version.of(last), today=TODAY)
    write(tmp_path, last, change)
    major, minor, patch = Version.of(least)
    below = {(0, 3, 0): "0.2.9", (2, 0, 0): "1.9.9", (1, 5, 0): "1.4.9"}.get((major, minor, patch), last)
    before = sorted((file.name, file.read_text()) for file in tmp_path.rglob("*") if file.is_file())
    with pytest.raises(NotReleasable, match=f"{least} is the least"):
        cut(tmp_path, Version.of(below), today=TODAY)
    assert before == sorted((file.name, file.read_text()) for file in tmp_path.rglob("*") if file.is_file())
    cut(tmp_path, Version.of(least), today=TODAY)
    assert Version.of(least) == version_of(read(last_released(tmp_path)))


def test_a_version_never_goes_back(project):
    write(project, "0.4.0", ADDITION)
    with pytest.raises(NotReleasable, match=r"0\.4\.0 already"):
        cut(project, Version(0, 3, 0), today=TODAY)


@pytest.mark.parametrize(
    ("version", "change", "code"),
    [
        ("0.2.0", BREAKING, 1),
        ("0.2.9", BREAKING, 1),
        ("0.3.0", BREAKING, 0),
        ("1.0.0", BREAKING, 0),
        ("0.2.0", ADDITION, 0),
        ("0.2.0", WORDS, 0),
        ("0.1.9", WORDS, 1),
        ("0.3.0-rc.1", WORDS, 2),
        ("9.0.0", say("schemas/Told", "anyOf", []), 2),
        ("9.0.0", drop("put", "responses"), 2),
        ("9.0.0", drop("contract", "paths"), 2),
    ],
)
def test_the_check_ends_with_0_1_or_2_as_the_version_allows(project, capsys, version, change, code):
    write(project, version, change)
    last = str(last_released(project))
    assert code == breaking.main([str(project / "openapi.yaml"), "--released", last, "--all"])
    said = capsys.readouterr()
    told = {0: "allows that", 1: "info.version", 2: "Not judged, so nothing is known"}[code]
    assert told in (said.err if code == 2 else said.out)


def test_the_check_says_what_broke_where_for_whom_and_which_version_it_takes(project, capsys):
    write(project, "0.2.0", say("schemas/Name", "maxLength", 9), ADDITION)
    assert 1 == breaking.main([str(project / "openapi.yaml"), "--released", str(last_released(project))])
    said = capsys.readouterr().out
    for part in (
        "Breaking for callers, who send",
        "  maxLength of what is sent is narrower: 20 → 9",
        "    at #/components/schemas/Name/maxLength",
        "    in PUT /things/{shelf}/{thing}, request body",
        "1 breaking (1 for callers, who send), 0 notices, 2 additions.",
        "info.version 0.2.0 does not allow that: after 0.2.0 it takes 0.3.0.",
    ):
        assert part in said
    assert "the property is new" not in said


@pytest.mark.parametrize("text", ["", "- a\n", "openapi: 3.1.1\nopenapi: 3.1.1\n", "a: [", "200: x\n"])
def test_what_cannot_be_read_is_not_judged(project, text, capsys):
    (project / "openapi.yaml").write_text(text)
    assert 2 == breaking.main([str(project / "openapi.yaml"), "--released", str(last_released(project))])


def test_without_a_release_nothing_is_judged(tmp_path):
    with pytest.raises(Unjudgeable, match="no contract was released"):
        last_released(tmp_path)


def test_releases_are_ordered_by_their_numbers_and_named_by_what_is_in_them(project):
    write(project, "0.2.0", WORDS)
    for version in ("0.9.0", "0.10.0"):
        (project / "CHANGELOG.md").write_text(CHANGES)
        cut(project, Version.of(version), today=TODAY)
    assert ["0.2.0", "0.9.0", "0.10.0"] == [file.stem.removeprefix("openapi-") for file in released(project)]
    (project / RELEASES / "openapi-0.10.0.yaml").rename(project / RELEASES / "openapi-0.11.0.yaml")
    with pytest.raises(Unjudgeable, match="not of the version in its name"):
        last_released(project)


# Ours.


def test_our_releases_are_as_they_were_released():
    sums = dict(reversed(line.split("  ")) for line in (ROOT / RELEASES / "SHA256SUMS").read_text().splitlines())
    assert sums == {file.name: sha256(file.read_bytes()).hexdigest() for file in released(ROOT)}
    changelog = (ROOT / "CHANGELOG.md").read_text()
    for file in released(ROOT):
        assert f"\n## {version_of(read(file))} (" in changelog


def test_our_contract_breaks_nobody_whom_its_version_does_not_allow_it_to(capsys):
    assert 0 == breaking.main([]), capsys.readouterr().out

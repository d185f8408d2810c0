"""Compare the contract with the last one that was released, and say what breaks, where, and for whom.

Exits with 0 if nothing does, or info.version allows it; with 1 if it does not; with 2 if it cannot be told, because
one of the two says something that is not understood.
"""

import argparse
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

from openapi_spec_validator import validate

from scripts.contract.documents import Node, Unjudgeable, read
from scripts.contract.findings import Finding, Findings, Meets
from scripts.contract.operations import compare
from scripts.contract.versions import Version, last_released, version_of

ROOT = Path(__file__).resolve().parents[2]
PLACES_SHOWN_MAX = 3


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        earlier = options.released or last_released(ROOT)
        old, new = read(earlier), read(options.contract)
        must_be_valid(new)
        findings = compare(old, new)
        print(f"{options.contract.name} {version_of(new)} against {earlier.name}\n")
        lines, allowed = judge(findings, version_of(old), version_of(new))
    except Unjudgeable as trouble:
        print(f"Not judged, so nothing is known. {trouble}", file=sys.stderr)
        return 2
    except Exception:  # a fault of this program: 1 would say that the contract breaks somebody
        traceback.print_exc()
        return 2
    print("\n".join([*report(findings, every=options.all), *lines]))
    return 0 if allowed else 1


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/breaking", description=__doc__)
    parser.add_argument(
        "contract", nargs="?", type=Path, default=ROOT / "openapi.yaml", help="openapi.yaml if left out"
    )
    parser.add_argument("--released", type=Path, help="what it is compared with; the last of docs/releases if left out")
    parser.add_argument("--all", action="store_true", help="list additions too, not only their number")
    return parser.parse_args(arguments)


def must_be_valid(contract: Node) -> None:
    """Only of a valid contract can it be said what it means."""
    try:
        validate(contract.value)
    except Exception as trouble:  # the validator has no one class for what it finds
        raise Unjudgeable("#", f"is not valid: {str(trouble).splitlines()[0]}") from trouble


def report(findings: Findings, *, every: bool) -> Iterator[str]:
    for meets in Meets:
        found = [finding for finding in findings if finding.meets is meets]
        if not found or (meets is Meets.ADDITION and not every):
            continue
        yield f"Breaking for {meets.value}" if meets.breaks else f"{meets.value.capitalize()}s"
        for finding in found:
            yield from lines_of(finding)
        yield ""


def lines_of(finding: Finding) -> Iterator[str]:
    yield f"  {finding}"
    yield f"    at {finding.pointer}"
    for place in finding.where[:PLACES_SHOWN_MAX]:
        yield f"    in {place}"
    if len(finding.where) > PLACES_SHOWN_MAX:
        yield f"    and {len(finding.where) - PLACES_SHOWN_MAX} more"


def judge(findings: Findings, before: Version, after: Version) -> tuple[list[str], bool]:
    """What is said in the end, and whether the version allows what was found."""
    counts = [(meets, sum(finding.meets is meets for finding in findings)) for meets in Meets]
    broken = sum(count for meets, count in counts if meets.breaks)
    told = ", ".join(f"{count} for {meets.value}" for meets, count in counts if meets.breaks and count)
    rest = ", ".join(f"{count} {meets.value}s" for meets, count in counts if not meets.breaks)
    summary = f"{broken} breaking{f' ({told})' if told else ''}, {rest}."
    if after < before:
        return [summary, f"info.version goes back: {before} → {after}."], False
    if broken and after < before.next_breaking:
        return [
            summary,
            f"info.version {after} does not allow that: after {before} it takes {before.next_breaking}.",
        ], False
    return [summary, f"info.version {after} allows that."], True


if __name__ == "__main__":
    sys.exit(main())

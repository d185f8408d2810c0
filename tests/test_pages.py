"""The pages in docs/ and the README: no link leads nowhere, and what is said of refusals is what the contract lists."""

import re
from pathlib import Path

import pytest

from tests.conformance import DOCUMENT, resolve
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# What any write may be answered, whatever it is about.
OF_ANY_WRITE = {"validation_failed", "idempotency_key_reused", "ledger_not_found"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_link_leads_nowhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [] == [link for link in links if not (page.parent / link).exists()]


def test_the_page_on_holds_says_what_to_do_about_each_refusal() -> None:
    _, table = (ROOT / "docs" / "holds.md").read_text().split("## What to do about a refusal")
    told = {code for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for code in re.findall(r"`(\w+)`", row)}
    operations = [DOCUMENT["paths"][f"/v1/ledgers/{{ledger}}/transactions/{{sequence}}/{verb}"]["post"]
                  for verb in ("capture", "void", "reverse")]  # fmt: skip
    listed = {
        code
        for operation in operations
        for status in ("404", "409", "422")
        for code in resolve(operation["responses"][status])["x-codes"]
    }
    assert listed - OF_ANY_WRITE == told

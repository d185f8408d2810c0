"""`Deprecation` and `Sunset`: what the contract says of an operation that is to go is on its answers."""

import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT
from tests.test_contract import OPERATIONS

DAYS_MIN = 180
# Asks a copy of the service, with a contract of its own, over ASGI: no database is needed to be refused.
SCRIPT = """
import asyncio, httpx
from app.main import create_app
from app.settings import Settings
from app.access.authentication import Authentication
from app.access.rates import Buckets
settings = Settings(_env_file=None, database_url="postgresql://nobody@localhost/none", api_key="0123456789abcdef")
app = create_app(settings)
app.state.authentication = Authentication(settings.actors(), None, None, None)
app.state.key_rates = Buckets(per_s=0, burst=1)
async def main():
    key = {"Authorization": "Bearer 0123456789abcdef"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://x") as client:
        for path in ("/healthz", "/healthz?x=1", "/v1/ledgers?limit=0"):
            answer = await client.get(path, headers=key)
            print(answer.status_code, answer.headers.get("deprecation"), answer.headers.get("sunset"), sep="|")
asyncio.run(main())
"""


def test_a_deprecated_operation_says_since_when_and_until_when(tmp_path: Path) -> None:
    """On what it answers and on what it refuses; any other operation says nothing."""
    for folder in ("app", "generated", "docs", "alembic"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "alembic.ini", tmp_path)
    document = yaml.safe_load((ROOT / "openapi.yaml").read_bytes())
    document["paths"]["/healthz"]["get"] |= {
        "deprecated": True, "x-deprecated": "2027-01-01", "x-sunset": "2027-07-01"
    }  # fmt: skip
    (tmp_path / "openapi.yaml").write_text(yaml.safe_dump(document))
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True)
    said = [line for line in done.stdout.splitlines() if "|" in line]
    notice = "@1798761600|Thu, 01 Jul 2027 00:00:00 GMT"
    assert said == [f"200|{notice}", f"422|{notice}", "422|None|None"], done.stderr


@pytest.mark.parametrize("name", OPERATIONS)
def test_what_is_deprecated_names_its_days_and_declares_its_headers(name: str) -> None:
    """And what is not, does neither. So long as nothing is, this only holds the second."""
    said = OPERATIONS[name][2]
    deprecated = said.get("deprecated", False)
    assert deprecated == ("x-sunset" in said) == ("x-deprecated" in said)
    if deprecated:
        since, gone = (date.fromisoformat(str(said[day])) for day in ("x-deprecated", "x-sunset"))
        assert (gone - since).days >= DAYS_MIN
        for response in said["responses"].values():
            assert {"Deprecation", "Sunset"} <= set(response.get("headers", {}))

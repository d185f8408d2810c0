"""API keys that are made and revoked while the database is in trouble: never answered as not done if they may be."""

import asyncio
from collections.abc import Iterator

import httpx
import pytest

from tests.access import make_named_key
from tests.books import fetch_now
from tests.conftest import SERVICE_ROLE, Service, serve
from tests.test_refusals import holding
from tests.test_writer import cutting_proxy

LOCK, INSERT, COMMIT = b"pg_advisory_xact_lock", b"insert into api_keys", b"commit\x00"
UNKNOWN, UNAVAILABLE = (503, "outcome_unknown"), (503, "storage_unavailable")
EXISTS = (409, "api_key_exists")


def create(client: httpx.Client, name: str) -> tuple[int, str | None]:
    answer = client.post("/v1/api-keys", json={"name": name, "operations": ["read"]})
    return answer.status_code, answer.json().get("code")


def names(database: str) -> list[str]:
    return [row["name"] for row in fetch_now(database, "select name from api_keys order by name")]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("statement", "at", "before", "answer", "again"),
    [
        (INSERT, COMMIT, False, UNKNOWN, EXISTS),
        (INSERT, COMMIT, True, UNKNOWN, (201, None)),
        (INSERT, None, False, UNKNOWN, (201, None)),
        (LOCK, LOCK, True, UNAVAILABLE, (201, None)),
    ],
    ids=["commit_carried_out", "commit_never_arrived", "insert_without_reply", "no_lock_yet"],
)
async def test_a_key_whose_connection_is_cut_is_answered_as_far_as_is_known(
    database: str,
    statement: bytes,
    at: bytes | None,
    before: bool,
    answer: tuple[int, str],
    again: tuple[int, str | None],
) -> None:
    async with cutting_proxy(database) as (through, cut_next_reply):

        def ask() -> None:
            with serve(through) as service, service.client() as client:
                cut_next_reply(statement, at=at, before=before)
                assert create(client, "cut") == answer
                assert (names(database) == ["cut"]) == (again == EXISTS)
                assert create(client, "cut") == again
                assert names(database) == ["cut"]

        await asyncio.to_thread(ask)


@pytest.fixture
def hasty(database: str) -> Iterator[Service]:
    with serve(database, write_deadline_s=2.0) as service:
        yield service


def test_a_key_whose_statement_takes_too_long_is_in_doubt(hasty: Service) -> None:
    with hasty.client() as client:
        with holding(hasty.database, "lock table api_keys in share mode"):
            assert create(client, "slow") == UNKNOWN
        assert create(client, "slow") in ((201, None), EXISTS)
        assert names(hasty.database) == ["slow"]


def test_a_revocation_whose_statement_takes_too_long_is_in_doubt(hasty: Service) -> None:
    with hasty.client() as client:
        name = make_named_key(client)["api_key"]["name"]
        with holding(hasty.database, "lock table api_keys in share mode"):
            answer = client.post(f"/v1/api-keys/{name}/revoke")
        assert (answer.status_code, answer.json()["code"]) == UNKNOWN
        assert client.post(f"/v1/api-keys/{name}/revoke").json()["revoked_at"] is not None


def test_a_key_that_is_made_is_answered_even_if_no_refresh_of_the_keys_succeeds(database: str) -> None:
    """The service's role may then still insert a key, and read no more than that takes."""
    with serve(database) as service, service.client() as client:
        fetch_now(database, f"revoke select on api_keys from {SERVICE_ROLE}")
        fetch_now(database, f"grant select (name, revision) on api_keys to {SERVICE_ROLE}")
        assert create(client, "made") == (201, None)
    assert names(database) == ["made"]

"""Whether a process should be sent requests: what it asks the database for, and what it makes of the answers."""

import asyncio
import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from alembic.script import ScriptDirectory

from app import readiness
from app.readiness import MIGRATION_HEAD
from scripts.postgres import Postgres
from tests.books import connect
from tests.conftest import Service, serve
from tests.test_refusals import check_refusal, example, holding


def run(database: str, statement: str) -> object:
    async def once() -> object:
        connection = await connect(database)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(once())


def ready(service: Service) -> httpx.Response:
    return example("getReadiness").send(service)


def test_names_what_may_be_lost_where_that_was_admitted(database: str) -> None:
    with serve(database) as service:
        assert {"status": "ok", "warnings": ["fsync_off", "synchronous_commit_off"]} == ready(service).json()


def test_is_not_ready_where_postgres_forgets_what_it_confirmed(database: str) -> None:
    with serve(database, allow_unsafe_database=False) as service:
        answer = ready(service)
        check_refusal(answer, "not_ready")
        assert "fsync_off" == answer.json()["reason"]


def test_an_asynchronous_commit_is_seen_where_the_service_has_it(postgres: Postgres, database: str) -> None:
    """Of its own role in its own database, wherever it was set."""
    name = database.partition("?")[0].rpartition("/")[2]
    run(database, f"alter database {name} set synchronous_commit = on")
    with serve(database) as service:
        assert ["fsync_off"] == ready(service).json()["warnings"]


@pytest.mark.parametrize(("version", "status"), [("9999", 200), (MIGRATION_HEAD, 200), ("0001", 503)])
def test_a_later_schema_serves_and_an_earlier_one_does_not(database: str, version: str, status: int) -> None:
    """An old process stays ready while the release step has migrated ahead of it; a new one waits for that step."""
    run(database, f"update alembic_version set version_num = '{version}'")
    with serve(database) as service:
        answer = ready(service)
        assert status == answer.status_code
        assert answer.json().get("reason") == (None if status == 200 else "schema_behind")


def test_a_process_becomes_ready_when_the_release_step_has_run(database: str) -> None:
    run(database, "alter table alembic_version rename to not_yet")
    with serve(database) as service:
        assert "schema_behind" == ready(service).json()["reason"]
        run(database, "alter table not_yet rename to alembic_version")
        for _ in range(30):
            if (answer := ready(service)).status_code == 200:
                break
            asyncio.run(asyncio.sleep(0.1))
        assert 200 == answer.status_code


def test_many_who_ask_cost_the_database_one_look(database: str) -> None:
    with serve(database) as service, ThreadPoolExecutor(16) as threads:
        assert {200} == {each.status_code for each in threads.map(lambda _: ready(service), range(64))}
        checks = "select count(*) from pg_stat_activity where application_name = 'tallystick-checks'"
        assert 1 == run(database, f"{checks} and datname = current_database()")


def test_an_answer_is_good_for_a_while(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody who asks again meanwhile looks at the database, which here could not answer."""
    monkeypatch.setattr(readiness, "ANSWER_SECONDS", 60.0)
    with serve(database) as service:
        assert 200 == ready(service).status_code
        with holding(database, "lock table alembic_version"):
            assert 200 == ready(service).status_code


def test_revisions_are_numbered_in_their_order() -> None:
    """Readiness compares them, and a process has to place one that it has never heard of."""
    scripts = list(ScriptDirectory("alembic").walk_revisions())
    assert [MIGRATION_HEAD] == ScriptDirectory("alembic").get_heads()
    assert all(re.fullmatch(r"\d{4}", script.revision) for script in scripts)
    assert all(script.down_revision is None or script.down_revision < script.revision for script in scripts)

"""Two roles: an owner, as whom migrations run, and the service's own, which can only read and add to what is recorded.

That the service does all of its work as the second one is held by all the other tests, which give it no other.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from app.ledger.verification.guards import TRIGGERS
from app.models import metadata
from app.models.grants import REWRITTEN, get_privileges, write_grants
from app.settings import MigrationSettings
from scripts.postgres import Postgres
from tests.books import connect, open_account, post, transaction
from tests.conftest import ROOT, SERVICE_ROLE, as_service, serve, settings_for
from tests.test_readiness import ready, run

OWNER = "tallystick_owner"
RECORDED = ("events", "entries", "late_entries", "idempotency_keys", "ledgers")
# All of a key but its revocation, named here once more: what may be changed is not for the code alone to say.
KEPT_OF_A_KEY = {each.name for each in metadata.tables["api_keys"].columns} - {"revoked_at", "revoked_by", "revision"}
TABLES = [*metadata.tables, "alembic_version"]


@pytest.fixture(scope="module")
def one_database(new_database: Callable[[], str]) -> str:
    database = new_database()
    for statement in write_grants(SERVICE_ROLE):  # a copy has the grants of its template, but for those on the whole
        run(database, statement)
    return database


@pytest.fixture
async def service_role(one_database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await connect(as_service(one_database))
    yield connection
    await connection.close()


FORBIDDEN = [
    *(f"{change} {table}" for table in TABLES for change in ("delete from", "truncate")),
    *(f"update {table} set ledger_id = ledger_id" for table in TABLES if table in RECORDED),
    "update events set description = 'another'",
    *(f"update api_keys set {column} = {column}" for column in sorted(KEPT_OF_A_KEY)),
    "update alembic_version set version_num = '9999'",
    *(f"drop trigger {name} on {table}" for table, name in TRIGGERS),
    *(f"alter table {table} disable trigger {name}" for table, name in TRIGGERS),
    *(f"alter table {table} disable trigger all" for table in TABLES),
    "create trigger mine before insert on entries for each statement execute function refuse_change()",
    "create or replace function check_zero_sum() returns trigger language plpgsql as $$ begin return null; end $$",
    "set session_replication_role = replica",
    "drop function refuse_change cascade",
    "drop table events",
    "alter table accounts drop constraint accounts_minimum_check",
    "alter table events owner to current_user",
    "create table mine (a int)",
    "create view mine as select * from events",
    "create function mine() returns int language sql as 'select 1'",
    "create temporary table events (a int)",
    "create schema mine",
    f"set role {OWNER}",
    "set session authorization postgres",
    "alter role current_user superuser",
    "copy events to program 'true'",
]


@pytest.mark.anyio
@pytest.mark.parametrize("statement", FORBIDDEN)
async def test_the_service_cannot_change_what_is_recorded_nor_what_guards_it(
    service_role: asyncpg.Connection, owner: str, statement: str
) -> None:
    with pytest.raises(asyncpg.PostgresError) as refused:
        await service_role.execute(statement)
    assert "42501" == refused.value.sqlstate, refused.value


def test_every_table_is_granted_no_more_than_it_needs() -> None:
    assert set(metadata.tables) - REWRITTEN - {"api_keys"} == set(RECORDED)
    assert {"select", "insert"} == set(get_privileges("a table that nobody has named yet"))


# The owner as most hosts have it: no superuser, and the database is its own.


@pytest.fixture(scope="module")
def owner(postgres: Postgres, template: str) -> str:
    run(postgres.url("template"), f"create role {OWNER} login")
    return OWNER


@pytest.fixture
def owned(postgres: Postgres, owner: str, database: str) -> str:
    """The address of an empty database that belongs to the owner, as the owner."""
    name = "owned_" + make_url(database).database
    postgres.create_database(name)
    run(postgres.url(name), f"alter database {name} owner to {owner}")
    return make_url(postgres.url(name)).set(username=owner).render_as_string()


def alembic(**environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: each for name, each in os.environ.items() if name.lower() not in MigrationSettings.model_fields}
    return subprocess.run(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=ROOT, env=clean | environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("named", [True, False], ids=["named by a setting", "the one of DATABASE_URL"])
def test_migrations_run_as_the_owner_and_grant_the_service_what_it_needs(owned: str, named: bool) -> None:
    role = {"SERVICE_ROLE": SERVICE_ROLE} if named else {"DATABASE_URL": as_service(owned)}
    for _ in range(2):  # and again where there is nothing to migrate
        done = alembic(MIGRATION_DATABASE_URL=owned, **role)
        assert 0 == done.returncode, done.stderr
    with serve(owned) as service, service.client() as client:
        assert "role_unrestricted" not in ready(service).json()["warnings"]
        assert 201 == client.post("/v1/ledgers", json={"name": "main"}).status_code
        for path in ("a", "b"):
            open_account(client, "main", path)
        assert 201 == post(client, "main", transaction("a", "b")).status_code
        key = {"name": "shop", "label": "shop", "operations": ["read"]}
        assert 201 == client.post("/v1/api-keys", json=key).status_code
        assert 200 == client.post("/v1/api-keys/shop/revoke").status_code
        assert [True] == [each["revoked_at"] is not None for each in client.get("/v1/api-keys").json()["items"]]
        checks = client.get("/v1/ledgers/main/verification").json()["checks"]
        assert [] == [check for check in checks if check["offenders"]]


def test_two_roles_may_come_later(owned: str) -> None:
    """Who has run as one role makes a second, and migrates once more."""
    assert 0 == alembic(DATABASE_URL=owned).returncode
    with serve(owned) as service:
        assert "grants_missing" == ready(service).json()["reason"]
        # What somebody once granted so that it works at all is taken away again.
        run(owned, f"grant all on all tables in schema public to {SERVICE_ROLE}, public")
        done = alembic(MIGRATION_DATABASE_URL=owned, DATABASE_URL=as_service(owned))
        assert 0 == done.returncode, done.stderr
    with serve(owned) as service:
        assert 200 == ready(service).status_code
        assert "role_unrestricted" not in ready(service).json()["warnings"]


def test_a_role_that_is_not_there_stops_the_migration(owned: str) -> None:
    done = alembic(MIGRATION_DATABASE_URL=owned, SERVICE_ROLE="nobody_of_this_name")
    assert 0 != done.returncode
    assert 'role "nobody_of_this_name" does not exist' in done.stderr


# Readiness.


def test_one_role_for_both_is_said(database: str) -> None:
    with serve(database, database_url=database) as service:
        assert "role_unrestricted" in ready(service).json()["warnings"]


@pytest.mark.parametrize(
    "given",
    [
        "grant update (description) on events to {role}",
        "grant update (account_prefix) on api_keys to {role}",
        "grant delete on heads to {role}",
        "grant truncate on accounts to {role}",
        "grant trigger on entries to {role}",
        "grant create on schema public to {role}",
        "alter table late_entries owner to {role}",
    ],
)
def test_whatever_would_take_the_protection_away_is_said(database: str, given: str) -> None:
    run(database, given.format(role=SERVICE_ROLE))
    with serve(database) as service:
        assert "role_unrestricted" in ready(service).json()["warnings"]


@pytest.mark.parametrize(
    "taken",
    [
        "revoke select on alembic_version from {role}",
        "revoke insert on entries from {role}",
        "revoke update on heads from {role}",
        "revoke update (revoked_at) on api_keys from {role}",
    ],
)
def test_a_process_whose_role_lacks_something_is_not_ready(database: str, taken: str) -> None:
    run(database, taken.format(role=SERVICE_ROLE))
    with serve(database) as service:
        assert "grants_missing" == ready(service).json()["reason"]
        for statement in write_grants(SERVICE_ROLE):
            run(database, statement)
        asyncio.run(asyncio.sleep(1.1))  # readiness keeps an answer for a second
        assert 200 == ready(service).status_code


# Settings.


def migration_settings(**values: str) -> MigrationSettings:
    return MigrationSettings(_env_file=None, **values)


def test_who_is_granted_what() -> None:
    service, owner = "postgres://service@h/books", "postgres://owner@h/books"
    assert None is migration_settings(database_url=owner).grantee
    assert None is migration_settings(database_url=owner, migration_database_url=owner).grantee
    assert "service" == migration_settings(database_url=service, migration_database_url=owner).grantee
    assert "other" == migration_settings(migration_database_url=owner, service_role="other").grantee
    assert owner in migration_settings(database_url=service, migration_database_url=owner).owner_url.replace(
        "postgresql+asyncpg", "postgres"
    )


@pytest.mark.parametrize("role", ["a b", "a'b", 'a"b', "a;b", "", "1a", "a%b", "a:b"])
def test_a_role_with_an_odd_name_is_refused(role: str) -> None:
    with pytest.raises(ValueError, match="service_role"):
        migration_settings(migration_database_url="postgres://owner@h/books", service_role=role)


def test_the_service_never_reads_the_address_of_the_owner(database: str) -> None:
    assert not hasattr(settings_for(database), "migration_database_url")

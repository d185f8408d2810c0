"""Runs migrations on the database of the settings, one at a time, or prints them as SQL.

While others post: a change of a table waits until nobody reads or writes it, and everybody else waits behind it. So
it waits only for a moment, far less than Postgres needs to find a deadlock, and then lets everybody go and tries again.

A statement of a migration may take long: an index on a large table. What is bounded closely is how long a silent
connection holds locks: the server ends a transaction in which it hears nothing for some seconds, and notices a client
that is gone by its own keepalive; so everybody else goes on. The migration itself notices by the keepalive of its
connection, and after an hour in any case.
"""

import asyncio
import random
from typing import Any

import asyncpg
from alembic import context
from sqlalchemy import URL, Connection, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.connections import OWNER_ARGUMENTS, OWNER_LIMITS
from app.models import metadata
from app.models.grants import write_grants
from app.settings import MigrationSettings

LOCK_TIMEOUT = "200ms"
TRIES = 200
IN_THE_WAY = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError)


def migrate(connection: Connection, role: str | None) -> None:
    context.configure(connection=connection, target_metadata=metadata, compare_type=True)
    with context.begin_transaction():
        connection.exec_driver_sql(OWNER_LIMITS)
        # Two processes that start at once migrate one after the other; the second finds nothing to do.
        connection.exec_driver_sql("select pg_advisory_xact_lock(7424217001)")
        connection.exec_driver_sql(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
        # Where the tables are distributed by Citus, a trigger that reads its transition tables is made only under the
        # first, and a function beside changes of tables only under the second. Elsewhere nobody asks for these names.
        connection.exec_driver_sql("set local citus.enable_unsafe_triggers = on")
        connection.exec_driver_sql("set local citus.multi_shard_modify_mode = 'sequential'")
        if context.get_context().get_current_revision() not in (None, context.get_head_revision()):
            # What every batch reads first: those that come wait here, with nothing in hand that we will need.
            connection.exec_driver_sql("lock table heads in access exclusive mode")
        context.run_migrations()
        if role is not None and role != connection.exec_driver_sql("select current_user").scalar():
            grant(role)


def grant(role: str) -> None:
    # Again with every migration, whether it made a table or not: who comes to have two roles later runs it once more.
    for statement in write_grants(role):
        context.execute(statement)


async def migrate_online(address: URL, secured: dict[str, Any], role: str | None) -> None:
    engine = create_async_engine(address, poolclass=NullPool, connect_args=OWNER_ARGUMENTS | secured)
    for tried in range(1, TRIES + 1):
        try:
            async with engine.connect() as connection:
                await connection.run_sync(migrate, role)
            break
        except DBAPIError as error:
            cause = error.orig and error.orig.__cause__
            if not isinstance(cause, IN_THE_WAY) or tried == TRIES:
                raise
        await asyncio.sleep(random.uniform(0.2, 0.6))  # noqa: S311
    await engine.dispose()


# Who calls it from a program says which database, and may say which role; the settings say it for everybody else.
given = context.config.attributes
settings = None if "database_url" in given else MigrationSettings()
role = given.get("service_role") if settings is None else settings.grantee
if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
        if role is not None:
            grant(role)
else:
    where = (make_url(given["database_url"]), {}) if settings is None else settings.get_address(settings.owner_url)
    asyncio.run(migrate_online(*where, role))

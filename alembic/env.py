"""Runs migrations on the database of the settings, one at a time, or prints them as SQL."""

import asyncio

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from app.models import metadata
from app.settings import DatabaseSettings


def migrate(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=metadata, compare_type=True)
    with context.begin_transaction():
        # Two processes that start at once migrate one after the other; the second finds nothing to do.
        connection.exec_driver_sql("select pg_advisory_xact_lock(7424217001)")
        context.run_migrations()


async def migrate_online() -> None:
    url = context.config.attributes.get("database_url") or DatabaseSettings().database_url
    engine = create_async_engine(url, poolclass=NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(migrate)
    await engine.dispose()


if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    asyncio.run(migrate_online())

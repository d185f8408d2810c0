"""Distribute a migrated database on Citus by ledger: `scripts/distribute`, on the coordinator, as the tables' owner.

Every table whose rows belong to a ledger is distributed by `ledger_id`, all of them colocated, so that a ledger lies
whole on one machine. The directory of ledgers becomes a reference table, since every list of ledgers joins it. The keys
of the API and the revision of the schema stay on the coordinator: nothing is joined to them, and what is there needs no
commit in two phases. What the tables already hold is distributed with them, in one transaction: all of it or nothing.

It refuses while the service is connected: stop it first, and start it again with PLAN_CACHE_MODE=auto. A second run
finds nothing to do, or what a later migration added; every run sees that the triggers stand on every shard, and a run
that distributed anything counts the rows of each table before and after, and verifies every ledger.
"""

import argparse
import asyncio
import json
import sys
from dataclasses import dataclass

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from app.connections import OWNER_ARGUMENTS, OWNER_LIMITS
from app.db import Database, is_transient
from app.ledger.verification.guards import TRIGGERS
from app.ledger.verify import verify_ledger
from app.models import metadata
from app.readiness import MIGRATION_HEAD
from app.settings import DatabaseSettings, MigrationSettings, Settings

# Joined to by what lists ledgers, and unique by a name that has no ledger_id.
REFERENCE = ("ledgers",)
LOCAL = ("api_keys",)
# The first is the one that the others are colocated with.
DISTRIBUTED = ("heads", *sorted(set(metadata.tables) - {"heads", *REFERENCE, *LOCAL}))

# More than that at once is no reason to wait: nobody else should be there.
LOCK_TIMEOUT = "5s"
SHARDS = 32

SERVED = """
select distinct application_name from pg_stat_activity
 where datname = current_database() and application_name like 'tallystick-%' order by 1
"""
# What stands on each shard, by the name of the shard, as each node says.
SHARD_TRIGGERS = """
select r.nodeid, r.success, r.result from run_command_on_all_nodes($command$
  select json_object_agg(relname, triggers)
    from (select c.relname, json_agg(t.tgenabled::text || ' ' || t.tgname) as triggers
            from pg_trigger t join pg_class c on c.oid = t.tgrelid
           where not t.tgisinternal and c.relnamespace = to_regnamespace('{schema}') group by c.relname) as x
$command$) as r
"""
SHARDS_OF_TABLES = """
select s.logicalrelid::text, s.shardid, n.nodeid
  from pg_dist_shard s join pg_dist_placement p using (shardid) join pg_dist_node n using (groupid)
"""
KINDS = {"distributed": "distributed by ledger_id", "reference": "a reference table, on every node"}


class Refused(Exception):
    """Why nothing is distributed."""


@dataclass(frozen=True, slots=True)
class Cluster:
    version: str
    # How many take shards.
    nodes: int
    # What Citus knows of the tables: "distributed" or "reference"; those that it does not know are missing.
    kinds: dict[str, str]

    @property
    def missing(self) -> list[str]:
        """What is still to be distributed, in the order to do it in."""
        return [table for table in (*DISTRIBUTED, *REFERENCE) if table not in self.kinds]


def main() -> None:
    arguments = _parse_arguments()
    try:
        owner = MigrationSettings().owner_url
        settings = Settings(database_url=owner, api_key="", development=True)  # it lets nobody in, so it needs no key
    except ValueError as error:  # nothing names a database, or what does is no address
        sys.exit(str(error))
    try:
        done = asyncio.run(distribute(settings.database_url, shards=arguments.shards))
        sound = asyncio.run(_verify(settings)) if done else True
    except Refused as refusal:
        sys.exit(str(refusal))
    except Exception as error:
        if not is_transient(error):
            raise
        sys.exit(f"Cannot work on the database: {type(error).__name__}: {error.__cause__ or error}")
    if not sound:
        sys.exit("What was distributed does not verify: scripts/verify shows what of it.")


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/distribute", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--shards",
        type=int,
        default=SHARDS,
        help="into how many parts the ledgers are dealt, each of which lies on one machine: several for each machine "
        "that there may ever be (default: %(default)s)",
    )
    return parser.parse_args()


async def distribute(url: str, *, shards: int = SHARDS) -> bool:
    """Distribute what is not distributed yet; whether there was anything. Raises `Refused`."""
    settings = DatabaseSettings(database_url=url)
    address, secured = settings.get_address(settings.database_url)
    engine = create_async_engine(address, poolclass=NullPool, connect_args=OWNER_ARGUMENTS | secured)
    try:
        async with engine.connect() as connection:
            cluster = await _look(connection)
            print(f"Citus {cluster.version} on {cluster.nodes} nodes with shards, schema {MIGRATION_HEAD}")
            if cluster.missing:
                await _distribute(connection, cluster, shards)
                print("The service needs PLAN_CACHE_MODE=auto from now on.")
            else:
                print("Every table is distributed: there is nothing to do.")
            await connection.rollback()
            await _show_all_tables(connection)
            await _check_triggers(connection)
        return bool(cluster.missing)
    except DBAPIError as error:
        if error.orig is None or not isinstance(error.orig.__cause__, asyncpg.LockNotAvailableError):
            raise
        raise Refused("Somebody else uses the tables: nothing was distributed.") from error
    finally:
        await engine.dispose()


async def _look(connection: AsyncConnection) -> Cluster:
    """What is there. Raises `Refused` where it is not what can be distributed."""
    version = await connection.scalar(text("select extversion from pg_extension where extname = 'citus'"))
    if version is None:
        raise Refused("This database has no Citus: `create extension citus` in it, on every node.")
    if not await connection.scalar(text("select citus_is_coordinator()")):
        raise Refused("This is a worker: tables are distributed from the coordinator.")
    # The coordinator alone will do where it was told to take shards: then there is one machine to begin with.
    nodes = await connection.scalar(text("select count(*) from pg_dist_node where isactive and shouldhaveshards"))
    if not nodes:
        raise Refused("The coordinator knows no worker: `select citus_add_node(host, port)` for each.")
    if not await connection.scalar(text("select to_regclass('alembic_version') is not null")):
        raise Refused("Nothing was migrated here: `alembic upgrade head` first.")
    revision = await connection.scalar(text("select version_num from alembic_version"))
    if revision != MIGRATION_HEAD:
        raise Refused(f"The schema is at {revision}, and this is {MIGRATION_HEAD}: `alembic upgrade head` first.")
    found = await connection.execute(text("select table_name::text, citus_table_type from citus_tables"))
    return Cluster(version, nodes, {row[0]: row[1] for row in found})


async def _distribute(connection: AsyncConnection, cluster: Cluster, shards: int) -> None:
    served = list(await connection.scalars(text(SERVED)))
    if served:
        raise Refused(f"The service is connected ({', '.join(served)}): stop it first.")
    await connection.rollback()  # a transaction of its own, which takes its locks before it looks at anything
    await connection.exec_driver_sql(OWNER_LIMITS)
    await connection.exec_driver_sql(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
    await connection.exec_driver_sql("set local citus.enable_unsafe_triggers = on")
    await connection.exec_driver_sql("set local citus.multi_shard_modify_mode = 'sequential'")
    await connection.exec_driver_sql(f"lock table {', '.join(cluster.missing)} in access exclusive mode")
    for table in cluster.missing:
        before = await _count(connection, table)
        if table in REFERENCE:
            await connection.execute(text("select create_reference_table(:table)"), {"table": table})
        elif table == DISTRIBUTED[0]:
            statement = text("select create_distributed_table(:table, 'ledger_id', shard_count => :shards)")
            await connection.execute(statement, {"table": table, "shards": shards})
        else:
            statement = text("select create_distributed_table(:table, 'ledger_id', colocate_with => :with)")
            await connection.execute(statement, {"table": table, "with": DISTRIBUTED[0]})
        after = await _count(connection, table)
        if before != after:
            raise Refused(f"{table} had {before} rows and would have {after}: nothing was distributed.")
        if before:
            await _drop_leftover(connection, table)
        print(f"  {table:<17} {KINDS['reference' if table in REFERENCE else 'distributed']}, {after} rows", flush=True)
    await connection.commit()
    for table in (*LOCAL, "alembic_version"):
        print(f"  {table:<17} stays on the coordinator")


async def _count(connection: AsyncConnection, table: str) -> int:
    return await connection.scalar(text(f"select count(*) from {table}")) or 0


async def _drop_leftover(connection: AsyncConnection, table: str) -> None:
    """Citus leaves what it copied to the shards behind in the coordinator's own table, where no statement sees it. To
    empty that, its trigger against truncation sleeps: on the coordinator alone, and nobody else is at the table."""
    alone = "set local citus.enable_ddl_propagation = off"
    await connection.exec_driver_sql(alone)
    await connection.exec_driver_sql(f"alter table {table} disable trigger {table}_kept")
    await connection.execute(text("select truncate_local_data_after_distributing_table(:table)"), {"table": table})
    await connection.exec_driver_sql(alone)
    await connection.exec_driver_sql(f"alter table {table} enable always trigger {table}_kept")
    await connection.exec_driver_sql("set local citus.enable_ddl_propagation = on")


async def _show_all_tables(connection: AsyncConnection) -> None:
    """Citus hides its shards from whoever reads the catalog, row by row, at the cost of seconds: the driver reads it on
    each new connection. Nothing of ours minds seeing them."""
    database = await connection.scalar(text("select quote_ident(current_database())"))
    statement = f"alter database {database} set citus.override_table_visibility = off"
    try:
        await connection.exec_driver_sql(statement)
        await connection.commit()
    except DBAPIError as error:
        await connection.rollback()
        if error.orig is None or not isinstance(error.orig.__cause__, asyncpg.InsufficientPrivilegeError):
            raise
        print(f"Whoever owns the database should say, or each connection begins seconds late: {statement}")


async def _check_triggers(connection: AsyncConnection) -> None:
    """See that what guards a table guards each of its shards. Raises `Refused`."""
    schema = await connection.scalar(text("select current_schema()"))
    found: dict[int, dict[str, list[str]]] = {}
    for node, success, result in await connection.exec_driver_sql(SHARD_TRIGGERS.replace("{schema}", schema)):
        if not success:
            raise Refused(f"A node cannot be asked for its triggers: {result}")
        found[node] = json.loads(result or "{}")
    lacking: list[str] = []
    shards = list(await connection.execute(text(SHARDS_OF_TABLES)))
    for table, shard, node in shards:
        # On a shard a trigger has the shard's number behind its name.
        standing = found[node].get(f"{table}_{shard}", [])
        wanted = [(name, f"{mode} {name}_{shard}") for (on, name), mode in TRIGGERS.items() if on == table]
        lacking += [f"{name} on shard {shard}" for name, said in wanted if said not in standing]
    if lacking:
        raise Refused(f"{len(lacking)} triggers are missing or switched otherwise: {'; '.join(lacking[:10])}")
    print(f"The triggers stand on each of {len(shards)} shards.")


async def _verify(settings: Settings) -> bool:
    """Verify every ledger, from its rows where they lie now."""
    database = Database(settings)
    sound = True
    try:
        async with database.sessions() as session:
            query = "select name from ledgers join heads using (ledger_id) where sequence > 0 order by name"
            names = list(await session.scalars(text(query)))
        for name in names:
            report = await verify_ledger(database.sessions, name)
            broken = [check.name for check in report.checks if check.offenders]
            sound = sound and not broken
            said = f"broken: {', '.join(broken)}" if broken else f"{len(report.checks)} invariants hold"
            print(f"  ledger {name}: {report.to_sequence} events, {said}", flush=True)
    finally:
        await database.close()
    return sound


if __name__ == "__main__":
    main()

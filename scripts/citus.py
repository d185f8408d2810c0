"""Databases on a real Citus, for tests and measurements: made on every node, migrated, distributed, dropped again."""

import asyncio
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import URL, make_url

from scripts.distribute import distribute

ROOT = Path(__file__).parents[1]
WORKERS_MIN = 2
TRIES = 40
# Of this run alone: another may be under way on the same machines.
PREFIX = f"tallystick_{os.getpid()}"


@dataclass(frozen=True, slots=True)
class Node:
    host: str
    port: int


class NoCluster(Exception):
    """Why there is nothing to test on."""


class Cluster:
    """The machines that a coordinator knows, and the distributed databases that are made on them."""

    def __init__(self, url: str, *, service_role: str | None = None) -> None:
        self._service_role = service_role
        self._url = make_url(url).set(drivername="postgresql+asyncpg")
        self._numbers = itertools.count(1)
        self._made: list[str] = []
        self.nodes = asyncio.run(self._find_nodes())

    async def _find_nodes(self) -> list[Node]:
        try:
            connection = await _connect(self._url, self._url.host or "", self._url.port or 5432)
        except (OSError, asyncpg.PostgresError) as error:
            raise NoCluster(f"No coordinator answers at the address given: {error}") from None
        try:
            if not await connection.fetchval("select citus_is_coordinator()"):
                raise NoCluster("That is a worker: give the coordinator's address.")
            found = await connection.fetch("select nodeid, groupid, nodename, nodeport from pg_dist_node order by 2, 1")
        except asyncpg.UndefinedFunctionError:
            raise NoCluster("That database has no Citus: `create extension citus` in it.") from None
        finally:
            await connection.close()
        workers = [row for row in found if row["groupid"] != 0]
        if len(workers) < WORKERS_MIN:
            raise NoCluster(f"It takes {WORKERS_MIN} workers, and this coordinator knows {len(workers)}.")
        if len(found) == len(workers):
            raise NoCluster("The coordinator is none of its nodes: `select citus_set_coordinator_host(host, port)`.")
        return [Node(row["nodename"], row["nodeport"]) for row in found]

    def create_template(self, *, shards: int) -> None:
        """What `copy_template` copies."""
        self.create(PREFIX, shards=shards)
        asyncio.run(self._everywhere(f"alter database {PREFIX} allow_connections false"))

    def create(self, name: str, *, shards: int | None, workers: bool = True) -> str:
        """A migrated database: its address. Distributed over the workers, or in so many shards on the coordinator
        alone; without a number of shards, one that knows nothing of Citus."""
        asyncio.run(self._make(name, distributed=shards is not None, workers=workers))
        config = Config(ROOT / "alembic.ini")
        config.attributes |= {"database_url": self.url(name), "service_role": self._service_role}
        command.upgrade(config, "head")
        if shards is not None:
            asyncio.run(distribute(self.url(name), shards=shards))
        return self.url(name)

    def copy_template(self) -> str:
        """A fresh distributed database: its address."""
        name = f"{PREFIX}_{next(self._numbers)}"
        asyncio.run(self._copy(name))
        return self.url(name)

    def drop(self, url: str) -> None:
        name = make_url(url).database or ""
        asyncio.run(self._everywhere(f"drop database {name} with (force)"))
        self._made.remove(name)

    def drop_all(self) -> None:
        for name in list(self._made):
            asyncio.run(self._everywhere(f"drop database {name} with (force)"))

    def url(self, name: str) -> str:
        return self._url.set(database=name).render_as_string(hide_password=False)

    async def _make(self, name: str, *, distributed: bool, workers: bool) -> None:
        await self._everywhere(f"drop database if exists {name} with (force)")
        self._made.append(name)
        await self._everywhere(f"create database {name}")
        if distributed:
            await self._everywhere("create extension citus", database=name)
            await self._introduce(name, self.nodes[1:] if workers else [])

    async def _copy(self, name: str) -> None:
        self._made.append(name)
        # The daemon of Citus comes back now and then, and nobody may be connected to what is copied.
        await self._everywhere(f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{PREFIX}'")
        await self._everywhere(f"create database {name} template {PREFIX}")
        # What scripts/distribute sets for a database, its copy does not have.
        await self._everywhere(f"alter database {name} set citus.override_table_visibility = off")

    async def _introduce(self, name: str, workers: Sequence[Node]) -> None:
        coordinator = self.nodes[0]
        connection = await _connect(self._url.set(database=name), coordinator.host, coordinator.port)
        await connection.execute("select citus_set_coordinator_host($1, $2)", coordinator.host, coordinator.port)
        for node in workers:
            await connection.execute("select citus_add_node($1, $2)", node.host, node.port)
        if not workers:
            where = "select citus_set_node_property($1, $2, 'shouldhaveshards', true)"
            await connection.execute(where, coordinator.host, coordinator.port)
        await connection.close()

    async def _everywhere(self, statement: str, *, database: str | None = None) -> None:
        url = self._url if database is None else self._url.set(database=database)

        async def execute(node: Node) -> None:
            connection = await _connect(url, node.host, node.port)
            try:
                # What Citus would do on the other nodes by itself, we do on each.
                await connection.execute("set citus.enable_create_database_propagation = off")
                await _execute(connection, statement)
            finally:
                await connection.close()

        await asyncio.gather(*(execute(node) for node in self.nodes))

    async def fetch_everywhere(self, url: str, query: str) -> list[list[asyncpg.Record]]:
        """What each node says in the database of this address, if it has one."""
        found = []
        for node in self.nodes:
            connection = await _connect(make_url(url), node.host, node.port)
            found.append(await connection.fetch(query))
            await connection.close()
        return found


async def _execute(connection: asyncpg.Connection, statement: str) -> None:
    """Execute it as soon as nobody is in its way any more."""
    for tried in range(1, TRIES + 1):
        try:
            await connection.execute(statement)
            return
        except asyncpg.ObjectInUseError:
            if tried == TRIES:
                raise
        await asyncio.sleep(0.25)


async def _connect(url: URL, host: str, port: int) -> asyncpg.Connection:
    return await asyncpg.connect(
        host=host, port=port, user=url.username, password=url.password, database=url.database, timeout=10
    )

"""scripts/distribute where it must not do anything. What it does on a cluster, scripts/test-citus sees."""

import pytest
from sqlalchemy import Index, UniqueConstraint

from app.models import metadata
from scripts.distribute import DISTRIBUTED, LOCAL, REFERENCE, Refused, distribute
from tests.books import fetch


async def test_a_plain_database_is_refused_and_left_as_it_is(database: str) -> None:
    with pytest.raises(Refused, match="no Citus"):
        await distribute(database)
    assert [] == await fetch(database, "select 1 from pg_locks where mode = 'AccessExclusiveLock'")


def test_every_table_has_its_place() -> None:
    assert {*DISTRIBUTED, *REFERENCE, *LOCAL} == set(metadata.tables)


@pytest.mark.parametrize("name", DISTRIBUTED)
def test_every_unique_key_of_a_distributed_table_begins_with_the_ledger(name: str) -> None:
    """Citus can hold a key unique only within a shard; and what leads no key, no statement finds by it."""
    table = metadata.tables[name]
    keys = [list(table.primary_key.columns)] if table.primary_key.columns else []
    keys += [list(each.columns) for each in table.constraints if isinstance(each, UniqueConstraint)]
    keys += [list(each.columns) for each in table.indexes if isinstance(each, Index) and each.unique]
    assert keys
    assert ["ledger_id"] * len(keys) == [key[0].name for key in keys]

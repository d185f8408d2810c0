"""The tests on a real Citus: `scripts/test-citus` loads this plugin, and every fresh database is a distributed one.

Nothing of a test is repeated here. Those that cannot hold on a cluster stand in `CANNOT`, each with its reason; they
are counted and printed at the end, and a name there that no test has is an error.
"""

import asyncio
import os
from collections.abc import Iterator

import pytest

from scripts.citus import Cluster, NoCluster

# Fewer than a team would take: the databases of the tests are many and short-lived.
SHARDS = 4

PLANS = "plans and scans: the coordinator knows to which machine a statement goes, not how it finds its rows there"
SETTINGS = "about settings of the throwaway server that the tests start themselves"
COPIES = (
    "takes a copy of a database for each fault, which Postgres makes on one machine alone; that sound books verify on "
    "a cluster is shown by all that end with the invariants, and over HTTP"
)
CANNOT = {
    "test_readiness.py::test_names_what_may_be_lost_where_that_was_admitted": SETTINGS,
    "test_readiness.py::test_is_not_ready_where_postgres_forgets_what_it_confirmed": SETTINGS,
    "test_readiness.py::test_an_asynchronous_commit_is_seen_where_the_service_has_it": SETTINGS,
    "test_reads.py::test_no_read_scans_what_grows": PLANS,
    "test_tables.py::test_the_writers_statements_are_planned_well_on_a_fresh_database": PLANS,
    "test_tables.py::test_a_fresh_database_is_not_scanned_while_it_fills": PLANS,
    "test_verify.py::test_sound_books_verify_and_every_check_has_looked_at_something": COPIES,
    "test_verify.py::test_a_planted_fault_is_named_and_nothing_else": COPIES,
    "test_verify.py::test_pages_of_any_size_say_the_same": COPIES,
    "test_verify.py::test_the_triggers_that_are_looked_for_are_those_there_are": COPIES,
    "test_verify.py::test_a_ledger_that_is_not_there_is_not_verified": COPIES,
    "test_verify.py::test_a_range_ends_early_where_it_has_seen_enough": COPIES,
    "test_verify.py::test_the_command_prints_each_invariant_and_tells_by_its_status": COPIES,
    "test_tables.py::test_a_rule_broken_by_hand_is_refused_by_name"
    "[update heads set ledger_id = 7, revision = revision + 1-heads_forward]": "Citus refuses it before our rule does",
    "test_tables.py::test_models_and_migrations_agree": "the coordinator's copy of the directory stands in the catalog "
    "beside the tables, and the comparison takes it for one that no model has",
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--citus", metavar="URL", help="a database on the coordinator of a Citus with two workers")


def pytest_configure(config: pytest.Config) -> None:
    url = config.getoption("citus")
    if not url:
        raise pytest.UsageError("--citus URL: where is the coordinator?")
    os.environ["PLAN_CACHE_MODE"] = "auto"
    from tests.conftest import SERVICE_ROLE

    try:
        config.stash[CLUSTER] = Cluster(url, service_role=SERVICE_ROLE)
    except NoCluster as error:
        raise pytest.UsageError(str(error)) from None


CLUSTER = pytest.StashKey[Cluster]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    known = {item.nodeid.removeprefix("tests/").split("[")[0] for item in items}
    files = {name.split("::")[0] for name in known}
    strange = [name for name in CANNOT if name.split("::")[0] in files and name.split("[")[0] not in known]
    if strange and not config.getoption("keyword") and all("::" not in argument for argument in config.args):
        raise pytest.UsageError(f"no test has the name {', '.join(strange)}")
    left_out = [item for item in items if _why_not(item)]
    config.stash[LEFT_OUT] = left_out
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


LEFT_OUT = pytest.StashKey[list[pytest.Item]]()


def _why_not(item: pytest.Item) -> str | None:
    name = item.nodeid.removeprefix("tests/")
    return CANNOT.get(name) or CANNOT.get(name.split("[")[0])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left_out = config.stash.get(LEFT_OUT, [])
    terminalreporter.section(f"{len(left_out)} tests cannot hold on a cluster")
    reasons: dict[str, list[str]] = {}
    for item in left_out:
        reasons.setdefault(_why_not(item) or "", []).append(item.nodeid.removeprefix("tests/"))
    for reason, names in reasons.items():
        terminalreporter.line(f"{reason}:")
        for name in names:
            terminalreporter.line(f"  {name}")


@pytest.fixture(scope="session")
def citus_cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    from tests.conftest import make_role

    cluster = pytestconfig.stash[CLUSTER]
    asyncio.run(make_role(pytestconfig.getoption("citus")))
    cluster.create_template(shards=SHARDS)
    yield cluster
    cluster.drop_all()

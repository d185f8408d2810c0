"""Verify the invariants of a ledger from its rows, while others write: `scripts/verify [LEDGER]`.

Reads the database that DATABASE_URL names, in short pages, and changes nothing. Prints each invariant with how much
was looked at, how many offenders there are, and the first of them. Exits with 1 if there is any.

With --metrics FILE the result of a run over all ledgers that came to its end is also written for the textfile collector
of node_exporter, in place of the one before.
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path

from prometheus_client import CollectorRegistry, write_to_textfile
from pydantic import ValidationError
from sqlalchemy import select
from tqdm import tqdm

from app.db import Database, is_transient
from app.ledger.refusals import LedgerNotFound, StorageUnavailable
from app.ledger.verify import PARTS, VerificationReport, verify_ledger
from app.metrics import RunCollector
from app.models import heads, ledgers
from app.settings import Settings


def main() -> None:
    arguments = _parse_arguments()
    try:
        settings = Settings(api_key="", development=True)  # it lets nobody in, so it needs no key
    except ValidationError as error:
        sys.exit(str(error))
    try:
        began = time.monotonic()
        reports = asyncio.run(_verify(Database(settings), arguments.ledger))
    except LedgerNotFound:
        sys.exit(f"There is no ledger of the name {arguments.ledger}.")
    except Exception as error:
        if not isinstance(error, StorageUnavailable) and not is_transient(error):
            raise
        sys.exit(f"Cannot read the database that DATABASE_URL names: {type(error).__name__}")
    if arguments.metrics:
        _write_metrics(arguments.metrics, RunCollector(reports, time.time(), time.monotonic() - began))
    sys.exit(0 if _is_sound(reports) else 1)


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/verify", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("ledger", nargs="?", help="the name of a ledger (default: all of them)")
    parser.add_argument("--metrics", type=Path, metavar="FILE", help="where to write the result for Prometheus")
    arguments = parser.parse_args()
    if arguments.metrics and arguments.ledger:
        # Its result would stand there for that of all of them.
        parser.error("--metrics is for a run over all ledgers")
    return arguments


def _write_metrics(file: Path, collector: RunCollector) -> None:
    registry = CollectorRegistry()
    registry.register(collector)
    try:
        write_to_textfile(str(file), registry)
    except OSError as error:
        sys.exit(f"Cannot write {file}: {error.strerror}")


async def _verify(database: Database, only: str | None) -> list[VerificationReport]:
    """Verify and print each ledger."""
    try:
        async with database.sessions() as session:
            query = select(ledgers.c.name, heads.c.sequence).join(heads, heads.c.ledger_id == ledgers.c.ledger_id)
            query = query.where(heads.c.sequence > 0).order_by(ledgers.c.name)
            found = [row for row in await session.execute(query) if only in (None, row.name)]
        if only is not None and not found:
            raise LedgerNotFound()
        reports = []
        for name, sequence in found:
            report = await _verify_one(database, name, sequence)
            _print_report(report)
            reports.append(report)
        return reports
    finally:
        await database.close()


async def _verify_one(database: Database, name: str, sequence: int) -> VerificationReport:
    with tqdm(total=len(PARTS) * sequence, desc=name, unit=" events", disable=None) as bar:

        def advance(part: str, done: int) -> None:
            # The parts are walked one after the other; an account and a hold has the number of its event.
            bar.update(max(0, done + PARTS.index(part) * sequence - bar.n))

        report = await verify_ledger(database.sessions, name, progress=advance)
        bar.update(max(0, bar.total - bar.n))
        return report


def _is_sound(reports: list[VerificationReport]) -> bool:
    return not any(check.offenders for report in reports for check in report.checks)


def _print_report(report: VerificationReport) -> None:
    print(f"\n{report.ledger}, events {report.from_sequence} to {report.to_sequence}")
    width = max(len(check.name) for check in report.checks)
    print(f"  {'invariant':<{width}}  {'checked':>12}  {'offenders':>9}  first offender")
    for check in report.checks:
        first = check.first_offender or ""
        print(f"  {check.name:<{width}}  {check.checked:>12}  {check.offenders:>9}  {first}".rstrip())


if __name__ == "__main__":
    main()

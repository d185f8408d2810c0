"""Lose a server under load, and get its books back from a backup at random points of time: `scripts/restore-drill`.

A Postgres of its own archives its WAL; two processes of the service post, hold, capture and reverse; a base backup is
taken meanwhile. Points of recovery are noted at random moments, by time and by position in the WAL in turns. Then the
server is lost, and for each point a new one is made of the backup and the archive. Each is held against what the
callers were told:

- whatever was answered before the point is there, once, where the answer said; whatever was sent after it is not;
- every ledger passes the full verification: gapless, nothing half there, every balance the sum of its entries;
- a consumer of the feed that had read further is refused (`sequence_out_of_range`), and reads on from where it is told;
- a write that is repeated with its key is replayed where it survived, and takes effect where it did not.

Exits with 1 if any of this fails.
"""

import argparse
import asyncio
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import uvloop
from alembic import command
from alembic.config import Config
from sqlalchemy import text
from sqlalchemy.engine import make_url

from app.db import Database
from app.ledger.verify import verify_ledger
from app.main import create_app
from app.settings import Settings
from scripts.postgres import Postgres, as_ordinary_user, find_binaries
from scripts.replace import free_ports
from scripts.traffic import LEDGERS, PAIRS, Answer, Traffic, count_failures, open_books, until_ready

ROOT = Path(__file__).parents[1]
KEY = "a-secret-of-the-drill"
DATABASE = "books"
# How far the clocks of callers and server may be apart on one machine: what happened so near a point is not judged.
NEAR_SECONDS = 0.005
HOLDERS = 4
REPEATED = 10
ARCHIVE_SECONDS_MAX = 120
HEADERS = {"Authorization": f"Bearer {KEY}"}
IN_THE_LOG = text("""
select l.name, e.sequence, e.reference from events e join ledgers l using (ledger_id)
 where e.reference is not null order by l.name, e.sequence
""")


@dataclass(frozen=True)
class Point:
    """A moment to recover: by its time, or by the position that the WAL had come to."""

    moment: float
    setting: str
    value: str

    @property
    def settings(self) -> dict[str, str]:
        inclusive = {"recovery_target_inclusive": "off"} if self.setting == "recovery_target_lsn" else {}
        return {self.setting: self.value, **inclusive}


@dataclass
class Drill:
    """What is known of the server that will be lost."""

    answers: list[Answer]
    points: list[Point] = field(default_factory=list)
    # The end of each log when everything was over: how far a consumer of its feed may have read.
    ends: dict[str, int] = field(default_factory=dict)
    # What turns the times of the answers into those of the clock on the wall.
    epoch: float = field(default_factory=lambda: time.time() - time.perf_counter())

    def sent(self, answer: Answer) -> float:
        return self.epoch + answer.sent

    def answered(self, answer: Answer) -> float:
        return self.sent(answer) + answer.seconds


async def hold(client: httpx.AsyncClient, number: int, drill: Drill, until: Callable[[], bool]) -> None:
    """Hold, and then capture, leave to expire, or void; reverse some of what was captured."""
    chance = random.Random(number)
    count = 0
    while not until():
        count += 1
        ledger, pair = f"books-{chance.randrange(LEDGERS)}", chance.randrange(PAIRS)
        posting = {"debit_account": f"d{pair}", "credit_account": f"c{pair}", "amount": str(chance.randint(2, 50))}
        body = {"postings": [posting], "pending": True, "reference": f"hold-{number}-{count}"}
        if chance.random() < 0.4:
            body["expires_at"] = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(time.time() + 2))}Z"
        held = await _write(client, drill, f"/v1/ledgers/{ledger}/transactions", body, body["reference"])
        if held is None:
            continue
        what = chance.choice(("capture", "capture", "void", "nothing"))
        if what == "nothing":
            continue
        path = f"/v1/ledgers/{ledger}/transactions/{held}"
        done = await _write(client, drill, f"{path}/{what}", {}, f"{what}-{number}-{count}")
        if what == "capture" and done is not None and chance.random() < 0.3:
            path = f"/v1/ledgers/{ledger}/transactions/{done}"
            await _write(client, drill, f"{path}/reverse", {}, f"reverse-{number}-{count}")


async def _write(client: httpx.AsyncClient, drill: Drill, path: str, body: dict[str, Any], key: str) -> int | None:
    """The sequence of the event, if it was recorded. What has a reference is held against the log afterwards."""
    sent = time.perf_counter()
    answer = await client.post(path, json=body, headers={"Idempotency-Key": key})
    said = answer.json()
    if answer.status_code != 201 and said["code"] != "hold_expired":
        raise RuntimeError(f"{path}: {said}")
    if "reference" in body and answer.status_code == 201:
        taken = time.perf_counter() - sent
        drill.answers.append(Answer(key, path.split("/")[3], 201, "", said["sequence"], sent, taken))
    return said["sequence"] if answer.status_code == 201 else None


async def work(urls: list[str], server: Postgres, folder: Path, arguments: argparse.Namespace) -> Drill:
    """Post for as long as it was said, take the backup meanwhile, and note the points."""
    await asyncio.gather(*(until_ready(url, seconds_max=120) for url in urls))
    turns = iter(range(sys.maxsize))
    traffic = Traffic(lambda: urls[next(turns) % len(urls)], KEY)
    drill = Drill(traffic.answers)
    done = asyncio.Event()
    async with httpx.AsyncClient(base_url=urls[0], headers=HEADERS, timeout=60) as client:
        await open_books(client)
        crowd = [asyncio.create_task(traffic.post_at(arguments.rate, until=done.is_set))]
        crowd += [asyncio.create_task(hold(client, n, drill, done.is_set)) for n in range(HOLDERS)]
        try:
            await asyncio.sleep(1)
            began = time.perf_counter()
            await back_up(server, folder / "base")
            print(f"base backup under {arguments.rate:.0f} posts/s: {time.perf_counter() - began:.1f} s", flush=True)
            await note_points(drill, server, arguments)
            await asyncio.sleep(0.5)
        finally:
            done.set()
            await asyncio.gather(*crowd)
        for number in range(LEDGERS):
            page = (await client.get(f"/v1/ledgers/books-{number}/events", params={"limit": 1})).json()
            drill.ends[f"books-{number}"] = page["sequence"]
    traffic.close()
    if failed := count_failures(drill.answers):
        raise RuntimeError(f"posts failed: {dict(failed)}")
    return drill


async def back_up(server: Postgres, base: Path) -> None:
    url = make_url(server.url(DATABASE))
    program = [*as_ordinary_user(), str(find_binaries() / "pg_basebackup")]
    process = await asyncio.create_subprocess_exec(
        *program, "-h", url.query["host"], "-U", "postgres", "-D", str(base), "-X", "none", "-c", "fast",
        "--no-password", stderr=subprocess.PIPE,
    )  # fmt: skip
    _, said = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"pg_basebackup failed: {said.decode()}")


async def note_points(drill: Drill, server: Postgres, arguments: argparse.Namespace) -> None:
    chance = random.Random(arguments.seed)
    pauses = sorted(chance.uniform(0, arguments.seconds) for _ in range(arguments.points))
    began = time.perf_counter()
    async with connection_to(server) as connection:
        for number, pause in enumerate(pauses):
            await asyncio.sleep(max(0.0, began + pause - time.perf_counter()))
            if number % 2:
                moment = time.time()
                position = await connection.fetchval("select pg_current_wal_insert_lsn()::text")
                drill.points.append(Point(moment, "recovery_target_lsn", position))
            else:
                moment = time.time()
                shown = f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(moment))}.{int(moment % 1 * 1e6):06}+00"
                drill.points.append(Point(moment, "recovery_target_time", shown))


async def archive_the_rest(server: Postgres) -> None:
    async with connection_to(server) as connection:
        last = await connection.fetchval("select pg_walfile_name(pg_switch_wal())")
        deadline = time.monotonic() + ARCHIVE_SECONDS_MAX
        while (await connection.fetchval("select last_archived_wal from pg_stat_archiver") or "") < last:
            if time.monotonic() > deadline:
                raise RuntimeError("the WAL was not archived in time")
            await asyncio.sleep(0.1)


@asynccontextmanager
async def connection_to(server: Postgres) -> AsyncIterator[asyncpg.Connection]:
    url = make_url(server.url(DATABASE))
    connection = await asyncpg.connect(host=url.query["host"], user="postgres", database=DATABASE)
    try:
        yield connection
    finally:
        await connection.close()


def restore(base: Path, archive: Path, folder: Path, point: Point) -> Postgres:
    """A server of its own, made of the backup, that replays the archive up to the point."""
    folder.mkdir(mode=0o700)
    shutil.copytree(base, folder / "data", symlinks=True)
    (folder / "data").chmod(0o700)
    (folder / "data" / "recovery.signal").touch()
    settings = {"restore_command": f"cp {archive}/%f %p", "recovery_target_action": "promote", "archive_mode": "off"}
    return Postgres(folder, durable=False, settings=settings | point.settings)


async def check(server: Postgres, drill: Drill, point: Point) -> list[str]:
    """What is wrong with a restored server."""
    settings = Settings(
        _env_file=None, database_url=server.url(DATABASE), api_key=KEY, log_level="ERROR", allow_unsafe_database=True
    )
    database = Database(settings)
    try:
        faults = await check_invariants(database)
        async with database.sessions() as session:
            rows = (await session.execute(IN_THE_LOG)).all()
        faults += check_answers({(row.name, row.reference): row.sequence for row in rows}, len(rows), drill, point)
    finally:
        await database.close()
    return faults + await check_service(settings, drill, {(row.name, row.reference) for row in rows})


async def check_invariants(database: Database) -> list[str]:
    faults = []
    for number in range(LEDGERS):
        report = await verify_ledger(database.sessions, f"books-{number}")
        faults += [f"{report.ledger}: {c.name}: {c.first_offender}" for c in report.checks if c.offenders]
    return faults


def check_answers(recorded: dict[tuple[str, str], int], count: int, drill: Drill, point: Point) -> list[str]:
    faults = [] if count == len(recorded) else [f"{count - len(recorded)} references are there twice"]
    for answer in drill.answers:
        sequence = recorded.get((answer.ledger, answer.key))
        if sequence not in (None, answer.sequence):
            faults.append(f"{answer.key} is at {sequence}, and was answered {answer.sequence}")
        elif sequence is None and drill.answered(answer) < point.moment - NEAR_SECONDS:
            faults.append(
                f"{answer.key} was answered {point.moment - drill.answered(answer):.3f} s before, and is lost"
            )
        elif sequence is not None and drill.sent(answer) > point.moment + NEAR_SECONDS + _asking(point):
            faults.append(f"{answer.key} was sent {drill.sent(answer) - point.moment:.3f} s after, and is there")
    return faults


def _asking(point: Point) -> float:
    # The position was asked for after the moment was noted, and the answer may have taken its time.
    return 1.0 if point.setting == "recovery_target_lsn" else 0.0


async def check_service(settings: Settings, drill: Drill, survived: set[tuple[str, str]]) -> list[str]:
    """What callers and consumers meet who do not know that a backup was restored."""
    faults = []
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://restored", headers=HEADERS) as client:
            for ledger, end in drill.ends.items():
                where = f"/v1/ledgers/{ledger}/events"
                head = (await client.get(where, params={"limit": 1})).json()["sequence"]
                ahead = await client.get(where, params={"after_sequence": end, "wait_seconds": 1})
                if head < end and ahead.json().get("code") != "sequence_out_of_range":
                    faults.append(f"{ledger}: who had read to {end} of {head} was answered {ahead.status_code}")
                if (await client.get(where, params={"after_sequence": head})).json().get("items") != []:
                    faults.append(f"{ledger}: the log goes on after its head")
            posts = [answer for answer in drill.answers if answer.key.startswith("post-")]
            kept = [answer for answer in posts if (answer.ledger, answer.key) in survived]
            lost = [answer for answer in posts if (answer.ledger, answer.key) not in survived]
            for answer in kept[-REPEATED:] + lost[:REPEATED]:
                again = await repeat(client, answer)
                replayed = "Idempotency-Replayed" in again.headers
                if again.status_code != 201 or replayed != (answer in kept):
                    faults.append(f"{answer.key}, repeated, was answered {again.status_code}, replayed: {replayed}")
                elif replayed and again.json()["sequence"] != answer.sequence:
                    faults.append(f"{answer.key}, repeated, was answered another sequence")
    return faults


async def repeat(client: httpx.AsyncClient, answer: Answer) -> httpx.Response:
    pair = int(answer.key.removeprefix("post-")) * 7919 % PAIRS  # as Traffic sends it
    postings = [{"debit_account": f"d{pair}", "credit_account": f"c{pair}", "amount": "1"}]
    body = {"postings": postings, "reference": answer.key}
    path = f"/v1/ledgers/{answer.ledger}/transactions"
    return await client.post(path, json=body, headers={"Idempotency-Key": answer.key})


def run(arguments: argparse.Namespace, folder: Path) -> list[str]:
    archive = folder / "archive"
    archive.mkdir()
    settings = {
        "wal_level": "replica",
        "archive_mode": "on",
        # Under another name first: a file that was copied by halves is never taken for a whole one.
        "archive_command": f"test ! -f {archive}/%f && cp %p {archive}/%f.part && mv {archive}/%f.part {archive}/%f",
        "archive_timeout": "5s",
    }
    with ExitStack() as stack:
        server = stack.enter_context(Postgres(folder / "lost", durable=not arguments.unsafe, settings=settings))
        server.create_database(DATABASE)
        config = Config(ROOT / "alembic.ini")
        config.attributes["database_url"] = server.url(DATABASE)
        command.upgrade(config, "head")
        processes = ExitStack()
        urls = [start_service(server, port, processes) for port in free_ports(2)]
        with processes:
            drill = uvloop.run(work(urls, server, folder, arguments))
        uvloop.run(archive_the_rest(server))
    shutil.rmtree(folder / "lost")
    print(f"{len(drill.answers)} answered, {sum(drill.ends.values())} events; the server is lost", flush=True)
    faults = []
    for number, point in enumerate(drill.points, 1):
        began = time.perf_counter()
        restored = restore(folder / "base", archive, folder / f"restored-{number}", point)
        with restored:
            ready = time.perf_counter() - began
            found = uvloop.run(check(restored, drill, point))
        shutil.rmtree(folder / f"restored-{number}")
        before = sum(drill.answered(answer) < point.moment for answer in drill.answers)
        print(
            f"{number}: {point.setting.removeprefix('recovery_target_')} {point.value}, {before} answered before it: "
            f"restored in {ready:.1f} s, {'all of it right' if not found else f'{len(found)} FAULTS'}",
            flush=True,
        )
        faults += [f"point {number}: {fault}" for fault in found]
    return faults


def start_service(server: Postgres, port: int, stack: ExitStack) -> str:
    variables = {"DATABASE_URL": server.url(DATABASE), "API_KEY": KEY, "PORT": str(port), "LOG_LEVEL": "ERROR"}
    variables |= {"ALLOW_UNSAFE_DATABASE": "true", "DRAIN_S": "0"}
    process = subprocess.Popen([sys.executable, "-m", "app"], cwd=ROOT, env=os.environ | variables)
    stack.callback(process.wait)
    stack.callback(process.terminate)
    return f"http://127.0.0.1:{port}"


def parse_arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/restore-drill", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--points", type=int, default=10, help="to recover to (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=30, help="of load to choose them from (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=100, help="posts a second (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None, help="of the points")
    parser.add_argument("--unsafe", action="store_true", help="with fsync off, in memory where that can be")
    return parser.parse_args(given)


def main() -> None:
    arguments = parse_arguments()
    memory = Path("/dev/shm") if arguments.unsafe and os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        faults = run(arguments, Path(folder))
    print(
        "Found:\n" + "\n".join(f"- {f}" for f in faults) if faults else "Every point was restored, and all of it right."
    )
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()

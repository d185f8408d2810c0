"""Have faults happen to two processes and their Postgres under callers that go away: `scripts/campaign --minutes 10`.

Each round starts a Postgres of its own on disk, with fsync on, and two processes of the service. Callers post, hold,
capture, void, reverse, configure and read; some of them cancel their requests, and come back for the answer or never
do. Meanwhile connections to the database are cut or fall silent, backends are killed or stopped, the ledger's head is
locked, a process is stopped, killed or replaced, and Postgres restarts or crashes.

Then everything that callers saw is checked in the order of the log and by real-time windows (`tests/windows.py`), the
invariants are checked from the rows, and `scripts/verify` runs over the whole. The seed of a round decides its requests
and its faults; in which order they meet differs from run to run. So what callers saw is kept where a round fails, and
`--check FILE` checks it again. Exits with 1 if anything was found.
"""

import argparse
import asyncio
import os
import pickle
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.books import check_invariants
from tests.callers import play
from tests.faults_at_random import Deployment, deploy
from tests.seen import History
from tests.windows import find_faults

ROOT = Path(__file__).parents[1]
KEPT = ROOT / ".data" / "campaign"
# What is printed of each round, and what it is called in the counts.
COLUMNS = {
    "operations": "operations",
    "cancelled": "cancelled",
    "never back": "never retried",
    "retries": "retries",
    "lost": "connections lost",
    "effects": "effects",
    "unheard": "effects nobody was told of",
    "rejections": "rejections",
    "reads": "reads",
    "expiries": "expiries",
}
WIDTH = 10


@dataclass
class Round:
    """What came of one round."""

    seed: int
    found: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    history: History | None = None
    seconds: float = 0.0


async def run_round(folder: Path, seed: int, *, times: int, apart: int, fsync: bool = True) -> Round:
    """Have every fault happen at least so many times, so many operations apart at most, and check everything."""
    done, began = Round(seed), time.perf_counter()
    async with deploy(folder, fsync=fsync) as deployment:
        done.history, done.counts, done.faults = await play(deployment, seed, times=times, apart=apart)
        done.found += [f"logged: {line}" for line in deployment.find_errors()[:5]]
        done.found += await verify(deployment)
    done.found += find_faults(done.history, done.counts)
    done.seconds = time.perf_counter() - began
    return done


async def verify(deployment: Deployment) -> list[str]:
    """The invariants from the rows, by the tests' own queries and by `scripts/verify`."""
    found = []
    try:
        await check_invariants(deployment.database)
    except AssertionError as error:
        found.append(f"invariant: {error}")
    environment = os.environ | {"DATABASE_URL": deployment.database}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "scripts.verify", cwd=ROOT, env=environment,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    if process.returncode != 0:
        found.append(f"scripts/verify:\n{said.decode()}")
    return found


def campaign(arguments: argparse.Namespace) -> list[Round]:
    """Round after round, each with the next seed, until the time is over or so many are done."""
    rounds: list[Round] = []
    until = time.monotonic() + 60 * arguments.minutes
    print(f"{'seed':>8} {'seconds':>8} " + " ".join(f"{title:>{WIDTH}}" for title in COLUMNS))
    while len(rounds) < arguments.rounds if arguments.rounds else time.monotonic() < until:
        folder = Path(tempfile.mkdtemp(prefix="tallystick-campaign-"))
        seed = arguments.seed + len(rounds)
        try:
            done = asyncio.run(run_round(folder, seed, times=arguments.times, apart=arguments.apart))
        except Exception as error:
            done = Round(seed, [f"{type(error).__name__}: {error!r} {getattr(error, 'exceptions', '')}"])
        try:
            if done.found:
                keep(done, folder, f" --times {arguments.times} --apart {arguments.apart}")
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        rounds.append(done)
        counts = " ".join(f"{done.counts[name]:>{WIDTH}}" for name in COLUMNS.values())
        print(f"{seed:>8} {done.seconds:>8.0f} {counts}", flush=True)
    return rounds


def keep(done: Round, folder: Path, options: str) -> None:
    """Keep what callers saw and what the processes logged, and say how the round is repeated."""
    kept = KEPT / f"seed-{done.seed}"
    kept.mkdir(parents=True, exist_ok=True)
    for log in [*folder.glob("process-*.log"), *folder.glob("postgres/server.log*")]:
        shutil.copy(log, kept)
    print(f"\nFound with seed {done.seed}:", *(f"- {each}" for each in done.found), sep="\n")
    print(f"  Logs of the processes and of Postgres: {kept}")
    print(f"  The same round again:                  scripts/campaign --seed {done.seed} --rounds 1{options}")
    if done.history is not None:
        (kept / "history.pickle").write_bytes(pickle.dumps(done.history))
        print(
            f"  The same history checked again:        scripts/campaign --check {kept / 'history.pickle'}\n", flush=True
        )


def print_total(rounds: list[Round]) -> None:
    counts, faults = Counter[str](), Counter[str]()
    for done in rounds:
        counts.update(done.counts)
        faults.update(done.faults)
    for title, total in (("Requests", counts), ("Faults", faults)):
        print(f"\n{title} of {len(rounds)} rounds")
        for name, count in sorted(total.items()):
            print(f"  {name:<32} {count:>8}")


def parse_arguments(given: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/campaign", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10, help="how long to begin rounds (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=0, help="so many rounds, however long they take")
    parser.add_argument(
        "--seed", type=int, default=1, help="the first round's; each has the next (default: %(default)s)"
    )
    parser.add_argument(
        "--times",
        type=int,
        default=2,
        help="how often a round has each large fault; it has the small ones twice as often (default: %(default)s)",
    )
    parser.add_argument(
        "--apart", type=int, default=200, help="how many operations there are at most between two faults"
        " (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--check", type=Path, metavar="FILE", help="check a history that was kept, and run nothing")
    return parser.parse_args(given)


def main() -> None:
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing is left running, however it is ended
    if arguments.check:
        # Written by this script; a pickle of anybody else's may run anything.
        found = find_faults(pickle.loads(arguments.check.read_bytes()))
        print(*found or ["Everything is explained."], sep="\n")
        sys.exit(1 if found else 0)
    rounds = campaign(arguments)
    print_total(rounds)
    failed = [done.seed for done in rounds if done.found]
    print(
        f"\nFound something with seeds {failed}."
        if failed
        else "\nNothing was lost, doubled, invented or out of order."
    )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

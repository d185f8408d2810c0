"""How far the clock of this process is from the database's.

A time that was recorded cannot be corrected. So a process whose clock is off writes nothing: its clock is compared with
the database's at the start and every few seconds. Between two comparisons the database's time is known from what has
elapsed since, so every batch can check the clock without asking the database.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

import structlog

from app.background import Background
from app.db import Database
from app.ledger.refusals import ClockSkewed, Overloaded, StorageUnavailable

log = structlog.get_logger()

CHECK_SECONDS = 3.0
RETRY_SECONDS = 0.5
CHECK_SECONDS_MAX = 3.0
# The database's clock is read again, up to so often, while the answer takes longer than this.
QUICK_SECONDS = 0.05
READINGS_MAX = 3
READ_CLOCK = "select clock_timestamp()"


def _make_stopwatch() -> Callable[[], float]:
    """Seconds that have elapsed since some moment, those that the machine was suspended included where it can tell."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    return time.monotonic


elapsed_s = _make_stopwatch()


@dataclass(frozen=True, slots=True)
class Reading:
    """The database's time, which it told at some moment between `sent_s` and `received_s`."""

    database_s: float
    sent_s: float
    received_s: float

    @property
    def round_trip_s(self) -> float:
        return self.received_s - self.sent_s


class ClockWatch(Background):
    """One per process, on its event loop. `skew_max_s` is how far `clock` may be from the database's."""

    def __init__(self, database: Database, clock: Callable[[], datetime], *, skew_max_s: float) -> None:
        self.skew_max_s = skew_max_s
        self._connections = database.clock
        self._clock = clock
        self._reading: Reading | None = None
        # The database's time less what had elapsed then, in the middle of the reading.
        self._offset_s = 0.0
        # How far the clock may seem to be off: the bound, and half the round trip, of which nothing is known.
        self._seeming_max_s = skew_max_s
        self._checking = asyncio.Lock()
        self._was_skewed = False
        self._checks_begun = 0
        # Which of them was the last that succeeded.
        self._last_success = 0

    def skew_s(self) -> float | None:
        """How far the process's clock is ahead of the database's, in seconds; None before the first check."""
        return self._skew_s(self._clock()) if self._reading is not None else None

    def is_right(self, now: datetime) -> bool:
        """Whether `now`, just read off the process's clock, may be written. False before the first check."""
        return self._reading is not None and -self._seeming_max_s <= self._skew_s(now) <= self._seeming_max_s

    def now(self) -> datetime:
        """The process's clock. Raises `ClockSkewed` where it may not be written."""
        now = self._clock()
        if not self.is_right(now):
            raise ClockSkewed()
        return now

    async def confirm(self) -> None:
        """Check at once, if the clock seems wrong or none was made yet: what seems a wrong clock may be a database
        whose clock was corrected, or a machine that was suspended.

        Raises `StorageUnavailable` and `Overloaded` if nothing is known yet.
        """
        if self.is_right(self._clock()):
            return
        begun = self._checks_begun
        try:
            async with asyncio.timeout(CHECK_SECONDS_MAX), self._checking:
                # Many may ask at once: a check that succeeded and began after the question will do for all.
                if self._last_success <= begun:
                    await self._check()
        except Exception as error:
            if self._reading is None:
                raise (error if isinstance(error, Overloaded) else StorageUnavailable()) from error

    def _skew_s(self, now: datetime) -> float:
        return now.timestamp() - self._offset_s - elapsed_s()

    async def _run(self) -> None:
        failing = False
        while True:  # until it is cancelled
            try:
                async with asyncio.timeout(CHECK_SECONDS_MAX), self._checking:
                    await self._check()
            except Exception as error:
                # The last reading stays in force: the database's time is still known from what has elapsed.
                if not failing:
                    log.warning("clock_not_compared", error=type(error).__name__)
                failing = True
            else:
                failing = False
            await asyncio.sleep(RETRY_SECONDS if failing else CHECK_SECONDS)

    async def _check(self) -> None:
        self._checks_begun += 1
        reading = await self._read_database()
        self._last_success = self._checks_begun
        self._reading = reading
        self._offset_s = reading.database_s - (reading.sent_s + reading.received_s) / 2
        self._seeming_max_s = self.skew_max_s + reading.round_trip_s / 2
        now = self._clock()
        is_skewed = not self.is_right(now)
        if is_skewed != self._was_skewed:
            self._was_skewed = is_skewed
            tell = log.error if is_skewed else log.warning
            tell("clock_skewed" if is_skewed else "clock_right_again", skew_s=round(self._skew_s(now), 3))

    async def _read_database(self) -> Reading:
        """The quickest of a few readings. Raises TimeoutError if even that one is too slow to say anything."""
        readings: list[Reading] = []
        async with self._connections.acquire() as connection:
            while len(readings) < READINGS_MAX and not any(each.round_trip_s <= QUICK_SECONDS for each in readings):
                sent_s = elapsed_s()
                moment: datetime = await connection.fetchval(READ_CLOCK, timeout=CHECK_SECONDS_MAX)
                readings.append(Reading(moment.timestamp(), sent_s, elapsed_s()))
        best = min(readings, key=lambda reading: reading.round_trip_s)
        if best.round_trip_s > CHECK_SECONDS_MAX:
            raise TimeoutError  # the machine was suspended meanwhile
        return best

"""The only file that asks the time, rolls dice, and sets alarms; APScheduler is its alarm bell, the loop its pulse.

APScheduler rings and does nothing else: its ``shutdown`` cancels running coroutines and a one-shot job that is late
is dropped by default, and either would lose a refresh token if a rotation were its job. Hence the memory job store,
``misfire_grace_time=None``, ``coalesce=True``, ``timezone=UTC``, and jobs that are plain calls.
"""

from __future__ import annotations

import asyncio
import math
import random
import secrets
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rotator.core.policy import Moment

if TYPE_CHECKING:
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
ALARM = "alarm"


class SystemClock:
    """The port `ports.Clock` on the machine's clocks. The bell is made when it is first set: it costs 60 ms of
    imports that a restart with a valid stored token can spend after its publication."""

    def __init__(self) -> None:
        self._boot_id = _boot_id()
        self._bell: AsyncIOScheduler | None = None
        self._beats: dict[str, _Beat] = {}
        # Where all beats count from: those that fall together wake the process once.
        self._first: float | None = None
        self._waits = 0

    def now(self) -> datetime:
        return datetime.now(UTC)

    def moment(self) -> Moment:
        # Written out: a rotation asks ten times.
        boottime, awake = time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        return Moment(
            datetime.now(UTC), self._boot_id, timedelta(0, 0, boottime // 1000), timedelta(0, 0, awake // 1000)
        )

    def alarm(self, at: datetime | None, ring: Callable[[], None]) -> None:
        bell = self._ring_with()
        if at is None:
            if bell.get_job(ALARM) is not None:
                bell.remove_job(ALARM)
            return
        bell.add_job(_ring, "date", run_date=at, args=(ring,), id=ALARM, replace_existing=True)

    def beat(self, name: str, every: timedelta, ring: Callable[[], None]) -> None:
        # On the loop's monotonic clock and not on APScheduler's, which rings by wall time: set back by a day it would
        # keep silent for one, and the beat is what notices that.
        if name in self._beats:
            self._beats[name].cancel()
        if self._first is None:
            self._first = asyncio.get_running_loop().time()
        self._beats[name] = _Beat(self._first, every, ring)

    async def wait_until(self, at: datetime) -> None:
        rung = asyncio.Event()
        self._waits += 1
        job = self._ring_with().add_job(_ring, "date", run_date=at, args=(rung.set,), id=f"wait {self._waits}")
        try:
            await rung.wait()
        finally:
            if self._bell is not None and self._bell.get_job(job.id) is not None:
                self._bell.remove_job(job.id)

    def deadline(self, limit: timedelta) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(limit.total_seconds())

    def stop(self) -> None:
        for beat in self._beats.values():
            beat.cancel()
        self._beats.clear()
        if self._bell is not None:
            self._bell.remove_all_jobs()
            self._bell.shutdown(wait=False)
            self._bell = None

    def _ring_with(self) -> AsyncIOScheduler:
        if self._bell is None:
            from apscheduler.schedulers.asyncio import AsyncIOScheduler

            defaults: dict[str, Any] = {"misfire_grace_time": None, "coalesce": True, "max_instances": 1}
            self._bell = AsyncIOScheduler(timezone=UTC, job_defaults=defaults)
            self._bell.start()
        return self._bell


class _Beat:
    """Rings at every multiple of ``every`` after ``first``; one that comes late does not bring the next one forward."""

    def __init__(self, first: float, every: timedelta, ring: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._first = first
        self._every = every.total_seconds()
        self._ring = ring
        self._number = 0
        self._plan()

    def cancel(self) -> None:
        self._handle.cancel()

    def _plan(self) -> None:
        # Counted and not added up, so that beats of two lengths meet to the last bit. A loop may ring a moment early.
        passed = math.floor((self._loop.time() - self._first) / self._every)
        self._number = max(self._number, passed) + 1
        self._handle = self._loop.call_at(self._first + self._number * self._every, self._sound)

    def _sound(self) -> None:
        self._plan()
        self._ring()


async def _ring(ring: Callable[[], None]) -> None:
    # A coroutine function runs on the event loop; a plain function would be sent to a thread by APScheduler.
    ring()


class SystemDice:
    """The port `ports.Dice` on the machine's randomness. Chance is for jitter alone, and is seeded once from it: two
    system calls of every rotation less."""

    def __init__(self) -> None:
        self._jitter = random.Random()  # noqa: S311 (nobody gains by guessing a jitter)

    def chance(self) -> float:
        return self._jitter.random()

    def name(self) -> str:
        return secrets.token_hex(12)


def boottime() -> timedelta:
    """CLOCK_BOOTTIME: time since boot including suspension (clock_gettime(2))."""
    return timedelta(microseconds=time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000)


def monotonic_usec() -> int:
    """CLOCK_MONOTONIC in microseconds, as sd_notify(3) wants it in ``MONOTONIC_USEC=``."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000


def pause(span: timedelta) -> None:
    """Block this process: for a command that polls, never for the daemon."""
    time.sleep(span.total_seconds())


def _boot_id() -> str:
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        # Unknown boots never compare equal: a grace that cannot be proven is outside the grace.
        return f"unknown-{secrets.token_hex(8)}"

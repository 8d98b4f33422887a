"""Counting the register: now and then, and again soon where somebody came, whatever befell the count before."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from rotator.core.errors import Unavailable
from rotator.core.health import Census
from rotator.core.policy import Moment
from rotator.engine.headcount import EVERY, LONGEST, Headcount
from rotator.lab.memory import MemoryRegister, Shelf

NOTHING = timedelta(0)


class Clock:
    """As much of `ports.Clock` as is asked for. The machine may sleep."""

    def __init__(self) -> None:
        self.boottime = timedelta(hours=5)
        self.asleep = NOTHING

    def now(self) -> datetime:
        return datetime(2030, 1, 1, tzinfo=UTC) + self.boottime

    def moment(self) -> Moment:
        return Moment(self.now(), "boot", self.boottime, self.boottime - self.asleep)

    def pass_time(self, span: timedelta) -> None:
        self.boottime += span

    def sleep(self, span: timedelta) -> None:
        self.boottime += span
        self.asleep += span


class Counted(MemoryRegister):
    """``takes``: how long the next count does, and how long the machine sleeps in it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(Shelf)
        self.clock = clock
        self.counts = 0
        self.takes = self.sleeps = NOTHING
        self.away = False

    async def census(self, now: datetime) -> Census:
        self.counts += 1
        self.clock.pass_time(self.takes)
        self.clock.sleep(self.sleeps)
        self.takes = self.sleeps = NOTHING
        if self.away:
            raise Unavailable("the state is away")
        return Census(self.counts, 0, 0, 0)


def kept() -> tuple[Headcount, Counted, Clock]:
    clock = Clock()
    return Headcount(clock), Counted(clock), clock


def test_a_machine_that_slept_during_a_count_counts_as_often_as_ever() -> None:
    headcount, register, clock = kept()
    register.sleeps = timedelta(hours=8)
    asyncio.run(headcount.keep(register))
    clock.pass_time(EVERY)
    asyncio.run(headcount.keep(register))
    assert register.counts == 2


def test_a_process_that_was_stopped_during_a_count_counts_again_within_minutes() -> None:
    headcount, register, clock = kept()
    register.takes = timedelta(hours=8)
    asyncio.run(headcount.keep(register))
    asyncio.run(headcount.keep(register))
    assert register.counts == 1
    clock.pass_time(LONGEST)
    asyncio.run(headcount.keep(register))
    assert register.counts == 2


def test_a_count_that_fails_leaves_the_last_one_and_is_tried_again() -> None:
    headcount, register, clock = kept()
    asyncio.run(headcount.keep(register))
    headcount.outdate()
    register.away = True
    asyncio.run(headcount.keep(register))
    assert headcount.census == Census(1, 0, 0, 0)
    register.away = False
    clock.pass_time(timedelta(seconds=1))
    asyncio.run(headcount.keep(register))
    assert headcount.census == Census(3, 0, 0, 0)

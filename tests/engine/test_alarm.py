"""The one alarm: what was asked of it rings, whatever is asked meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import cast

from rotator.core.ports import Clock
from rotator.engine.alarm import Alarm

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


class Bell:
    """A clock whose bell is rung by the test: on a busy loop the time has come before it rings."""

    def __init__(self) -> None:
        self.time = NOON
        self.set_to: datetime | None = None
        self.sounds: Callable[[], None] | None = None

    def now(self) -> datetime:
        return self.time

    def alarm(self, at: datetime | None, ring: Callable[[], None]) -> None:
        self.set_to, self.sounds = at, ring


def made() -> tuple[Bell, list[datetime], Alarm]:
    bell, rung = Bell(), list[datetime]()
    return bell, rung, Alarm(cast(Clock, bell), lambda: rung.append(bell.time))


def sound(bell: Bell) -> None:
    assert bell.sounds is not None
    bell.set_to, ring = None, bell.sounds
    ring()


def test_a_ring_that_is_due_and_has_not_sounded_yet_is_not_taken_away() -> None:
    bell, rung, alarm = made()
    alarm.set(NOON + SECOND)
    bell.time = NOON + 1.001 * SECOND
    alarm.mind(NOON + 2700 * SECOND)
    assert bell.set_to == NOON + SECOND
    sound(bell)
    assert rung == [bell.time]


def test_once_it_has_sounded_the_next_is_set() -> None:
    bell, _, alarm = made()
    alarm.set(NOON + SECOND)
    bell.time = NOON + SECOND
    sound(bell)
    alarm.mind(NOON + 2700 * SECOND)
    assert bell.set_to == NOON + 2700 * SECOND


def test_what_comes_before_replaces_what_comes_later_and_the_past_rings_at_once() -> None:
    bell, rung, alarm = made()
    alarm.set(NOON + 60 * SECOND)
    alarm.mind(NOON + 90 * SECOND)
    assert bell.set_to == NOON + 60 * SECOND
    alarm.mind(NOON + 30 * SECOND)
    assert bell.set_to == NOON + 30 * SECOND
    alarm.mind(NOON)
    assert rung == [NOON]
    assert bell.set_to == NOON + 30 * SECOND


def test_nothing_is_set_before_the_first_sweep_has() -> None:
    bell, rung, alarm = made()
    alarm.mind(NOON + SECOND)
    alarm.mind(None)
    assert (bell.set_to, rung) == (None, [])


def test_what_was_minded_while_the_sweep_asked_the_store_outlasts_it() -> None:
    bell, _, alarm = made()
    alarm.begin()
    alarm.mind(NOON + 5 * SECOND)
    alarm.set(NOON + 60 * SECOND)
    assert bell.set_to == NOON + 5 * SECOND
    alarm.begin()
    alarm.set(NOON + 60 * SECOND)
    assert bell.set_to == NOON + 60 * SECOND


def test_where_a_beat_comes_anyway_no_clock_is_set_and_the_beat_rings_once() -> None:
    bell, rung = Bell(), list[datetime]()
    alarm = Alarm(cast(Clock, bell), lambda: rung.append(bell.time), beaten=True)
    alarm.set(NOON + 2 * SECOND)
    alarm.mind(NOON + SECOND)
    alarm.beat()
    assert (bell.sounds, rung) == (None, [])
    bell.time = NOON + 1.4 * SECOND
    alarm.beat()
    alarm.beat()
    assert (bell.sounds, rung) == (None, [bell.time])

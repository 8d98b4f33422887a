"""Two readings of all clocks: was wall time set, did the machine sleep?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from rotator.core.policy import Moment

NOON = datetime(2027, 1, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ZERO = timedelta(0)


def moment(*, wall: timedelta = ZERO, boottime: timedelta = ZERO, awake: timedelta = ZERO) -> Moment:
    return Moment(NOON + wall, "boot", boottime, awake)


def test_time_that_merely_passes_is_no_jump() -> None:
    later = moment(wall=HOUR, boottime=HOUR, awake=HOUR)
    assert later.set_by(moment()) == later.slept_since(moment()) == ZERO


def test_a_clock_that_is_set_is_told_apart_from_a_machine_that_slept() -> None:
    back = moment(wall=-HOUR, boottime=HOUR, awake=HOUR)
    assert (back.set_by(moment()), back.slept_since(moment())) == (-2 * HOUR, ZERO)
    slept = moment(wall=HOUR, boottime=HOUR)
    assert (slept.set_by(moment()), slept.slept_since(moment())) == (ZERO, HOUR)
    both = moment(wall=3 * HOUR, boottime=HOUR)
    assert (both.set_by(moment()), both.slept_since(moment())) == (2 * HOUR, HOUR)


def test_slewing_and_rounding_are_nothing() -> None:
    slewed = moment(wall=HOUR + timedelta(seconds=1.9), boottime=HOUR, awake=HOUR - timedelta(seconds=1.9))
    assert slewed.set_by(moment()) == slewed.slept_since(moment()) == ZERO


def test_a_stored_moment_equals_the_one_that_was_read() -> None:
    assert moment(awake=HOUR) == moment()

"""What is due in a register is shared among daemons."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import cast

from rotator.core.ports import Register
from rotator.core.pressure import Line
from rotator.engine.alarm import Alarm
from rotator.engine.fleet import HERD, PATIENCE, REST, Fleet
from rotator.engine.shares import KEPT, Shares
from rotator.lab import world

NAMES = [f"g{number:04}" for number in range(4000)]
KEY, ROOM = ("p", Line.HELD), 512


class Late:
    """As much of a register as is asked: ``late`` are due since long, ``fresh`` since ``age``."""

    def __init__(self, now: datetime, late: Sequence[str], fresh: Sequence[str], age: timedelta) -> None:
        self._due = [(now - timedelta(minutes=1), name) for name in late] + [(now - age, name) for name in fresh]
        self.questions = 0

    async def due(
        self, now: datetime, rooms: Mapping[tuple[str, Line], int]
    ) -> Mapping[tuple[str, Line], Sequence[str]]:
        self.questions += 1
        return {KEY: [name for at, name in self._due if at <= now][: rooms[KEY]]}

    async def next_due(self, after: datetime, providers: Collection[str]) -> datetime | None:
        return min((at for at, _ in self._due if at > after), default=None)


def share(
    late: Sequence[str], fresh: Sequence[str], *others: str, me: str = "me", age: timedelta = timedelta(0)
) -> tuple[list[str], Fleet, list[timedelta], int]:
    """Who may begin here; the fleet; after how long it rings; and how many questions that took."""
    fleet, rings = Fleet(me), list[timedelta]()
    fleet.hear({me, *others})

    async def run() -> tuple[list[str], int]:
        clock = world.VirtualClock()
        now = clock.now()
        alarm, register = Alarm(clock, lambda: rings.append(clock.now() - now)), Late(now, late, fresh, age)
        alarm.set(None)
        found = await Shares(fleet, alarm).due(cast("Register", register), now, {KEY: ROOM})
        await clock.pass_time(2 * PATIENCE)
        return found, register.questions

    found, questions = world.run(run)
    return found, fleet, rings, questions


def test_who_is_alone_asks_once_and_takes_all() -> None:
    found, _, rings, questions = share(NAMES[:300], NAMES[300:400])
    assert found == NAMES[:400] and rings == [] and questions == 1


def test_what_is_just_due_is_left_to_whoever_goes_first_for_a_moment() -> None:
    found, fleet, rings, _ = share([], NAMES[:200], "you")
    assert found == [name for name in NAMES[:200] if fleet.goes_first(name)]
    assert rings == [PATIENCE]


def pair() -> tuple[str, str]:
    """Two daemons, the one on shift first."""
    fleet = Fleet("me")
    fleet.hear({"me", "you"})
    return ("me", "you") if fleet.is_on_shift(world.GENESIS) else ("you", "me")


def test_a_hundred_due_at_once_are_all_begun_by_the_one_on_shift() -> None:
    first, second = pair()
    assert share([], NAMES[:100], second, me=first)[0] == NAMES[:100]
    found, _, rings, _ = share([], NAMES[:100], first, me=second)
    assert (found, rings) == ([], [PATIENCE / 2])


def test_what_the_one_on_shift_leaves_of_a_herd_is_begun_as_soon_as_the_other_looks() -> None:
    first, second = pair()
    mine = share([], NAMES[: HERD + 2], second, me=first)[0]
    left = [name for name in NAMES[: HERD + 2] if name not in mine]
    assert len(mine) > REST and len(left) > REST
    found, _, rings, _ = share([], left, first, me=second, age=PATIENCE / 2)
    assert (found, rings) == (left, [])


def test_what_others_left_is_taken_as_well_where_there_is_room() -> None:
    found, fleet, _, _ = share(NAMES[:100], NAMES[100:200], "you", "they")
    ours = [name for name in NAMES[:200] if fleet.goes_first(name)]
    assert sorted(found) == sorted({*NAMES[:100], *ours})


def test_of_a_crowd_most_are_our_own_and_each_the_longest_overdue() -> None:
    found, fleet, _, _ = share(NAMES, [], "you")
    ours = [name for name in found if fleet.goes_first(name)]
    theirs = [name for name in found if not fleet.goes_first(name)]
    assert (len(ours), len(theirs)) == (ROOM - ROOM // KEPT, ROOM // KEPT)
    assert ours == [name for name in NAMES if fleet.goes_first(name)][: len(ours)]
    assert theirs == [name for name in NAMES if not fleet.goes_first(name)][: len(theirs)]


def test_a_few_are_for_whoever_is_on_shift_all_or_none() -> None:
    found, fleet, rings, _ = share([], NAMES[:10], *(f"other-{number}" for number in range(9)))
    assert not fleet.is_on_shift(world.GENESIS)
    assert found == [] and rings == [PATIENCE]
    found, fleet, rings, _ = share([], NAMES[:10], "you")
    assert (found, rings) == ((NAMES[:10], []) if fleet.is_on_shift(world.GENESIS) else ([], [PATIENCE]))

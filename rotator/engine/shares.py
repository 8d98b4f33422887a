"""Which grants of the register that are due are this daemon's to begin with, where several share it: the rule of
`Fleet`, for grants that nobody has at a desk before."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from rotator.core.ports import Register
from rotator.core.pressure import Line
from rotator.engine.alarm import Alarm
from rotator.engine.fleet import HERD, PATIENCE, REST, Fleet

KEPT = 8
"""One in so many places is for those that others were to begin with and have not: one of them may live and get nowhere,
and those that are left to him must not wait until we have nothing to do ourselves."""


class Shares:
    """Takes note of when what is left to others is due for everybody."""

    def __init__(self, fleet: Fleet, alarm: Alarm) -> None:
        self._fleet = fleet
        self._alarm = alarm

    async def due(self, register: Register, now: datetime, rooms: Mapping[tuple[str, Line], int]) -> list[str]:
        """As `Register.due`, without what is left to others for a moment. Raises what the store raises."""
        if self._fleet.is_alone:
            return [name for names in (await register.due(now, rooms)).values() for name in names]
        spread = {key: room * self._fleet.size for key, room in rooms.items()}
        wide, late = await asyncio.gather(register.due(now, spread), register.due(now - PATIENCE, rooms))
        before = await self._rest(register, now, {key: spread[key] for key, names in wide.items() if len(names) > REST})
        found = [
            self._share(now, wide.get(key, ()), late.get(key, ()), before.get(key, ()), room)
            for key, room in rooms.items()
        ]
        if waits := [wait for _, wait in found if wait is not None]:
            providers, wait = dict.fromkeys(provider for provider, _ in rooms), min(waits)
            first = await register.next_due(now - wait, providers)
            self._alarm.mind(None if first is None else first + wait)
        return [name for names, _ in found for name in names]

    async def _rest(
        self, register: Register, now: datetime, rooms: Mapping[tuple[str, Line], int]
    ) -> Mapping[tuple[str, Line], Sequence[str]]:
        """Who is due for so long that the one on shift has taken his part, where that is another."""
        if not rooms or self._fleet.is_on_shift(now):
            return {}
        return await register.due(now - PATIENCE / 2, rooms)

    def _share(
        self, now: datetime, wide: Sequence[str], late: Sequence[str], before: Sequence[str], room: int
    ) -> tuple[list[str], timedelta | None]:
        """Who of one provider and line may begin here; and where anybody is left to others, how long after he is due we
        look again."""
        wait = PATIENCE
        # By the shift of now, which is nearly always that in which they became due; else what is late is everybody's.
        if len(wide) > HERD:
            ours = [name for name in wide if self._fleet.goes_first(name)]
        elif self._fleet.is_on_shift(now):
            ours = list(wide)
        else:
            ours = [name for name in before if self._fleet.goes_first(name)]
            wait = PATIENCE / 2 if len(wide) > max(REST, len(before)) else PATIENCE
        mine = set(ours)
        theirs = [name for name in late if name not in mine]
        taken = ours[: room - min(len(theirs), room // KEPT)]
        taken += theirs[: room - len(taken)]
        return taken, wait if len(wide) > len(ours) + len(theirs) else None

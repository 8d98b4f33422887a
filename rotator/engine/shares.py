"""Which grants of the register that are due are this daemon's to begin with, where several share it: the rule of
`Fleet`, for grants that nobody has at a desk before."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime

from rotator.core.ports import Register
from rotator.core.pressure import Line
from rotator.engine.alarm import Alarm
from rotator.engine.fleet import HERD, PATIENCE, Fleet

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
            return list(await register.due(now, rooms))
        # A question for each: only so it is known where those belong that come back. The store answers all in one go.
        found = await asyncio.gather(*(self._share(register, now, key, room) for key, room in rooms.items()))
        if any(left for _, left in found):
            providers = dict.fromkeys(provider for provider, _ in rooms)
            first = await register.next_due(now - PATIENCE, providers)
            self._alarm.mind(None if first is None else first + PATIENCE)
        return [name for names, _ in found for name in names]

    async def _share(
        self, register: Register, now: datetime, key: tuple[str, Line], room: int
    ) -> tuple[list[str], bool]:
        """Who may begin here, and whether anybody is left to others."""
        wide, late = await asyncio.gather(
            register.due(now, {key: room * self._fleet.size}), register.due(now - PATIENCE, {key: room})
        )
        # By the shift of now, which is nearly always that in which they became due; else what is late is everybody's.
        is_herd, on_shift = len(wide) > HERD, self._fleet.is_on_shift(now)
        ours = [name for name in wide if (self._fleet.goes_first(name) if is_herd else on_shift)]
        mine = set(ours)
        theirs = [name for name in late if name not in mine]
        taken = ours[: room - min(len(theirs), room // KEPT)]
        taken += theirs[: room - len(taken)]
        return taken, len(wide) > len(ours) + len(theirs)

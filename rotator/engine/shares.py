"""Which grants of the register that are due are this daemon's to begin with, where several share it: the rule of
`Fleet`, for grants that nobody has at a desk before."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
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
            return [name for names in (await register.due(now, rooms)).values() for name in names]
        wide, late = await asyncio.gather(
            register.due(now, {key: room * self._fleet.size for key, room in rooms.items()}),
            register.due(now - PATIENCE, rooms),
        )
        found = [self._share(now, wide.get(key, ()), late.get(key, ()), room) for key, room in rooms.items()]
        if any(left for _, left in found):
            providers = dict.fromkeys(provider for provider, _ in rooms)
            first = await register.next_due(now - PATIENCE, providers)
            self._alarm.mind(None if first is None else first + PATIENCE)
        return [name for names, _ in found for name in names]

    def _share(self, now: datetime, wide: Sequence[str], late: Sequence[str], room: int) -> tuple[list[str], bool]:
        """Who of one provider and line may begin here, and whether anybody is left to others."""
        # By the shift of now, which is nearly always that in which they became due; else what is late is everybody's.
        is_herd, on_shift = len(wide) > HERD, self._fleet.is_on_shift(now)
        ours = [name for name in wide if (self._fleet.goes_first(name) if is_herd else on_shift)]
        mine = set(ours)
        theirs = [name for name in late if name not in mine]
        taken = ours[: room - min(len(theirs), room // KEPT)]
        taken += theirs[: room - len(taken)]
        return taken, len(wide) > len(ours) + len(theirs)

"""What a sweep asks the store, all at once: one that works on a thread answers it in one go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

from rotator.core.ports import Store
from rotator.engine.board import Desk
from rotator.engine.desks import Desks
from rotator.engine.visits import Visits

Line = Callable[[Sequence[str]], None]


async def ask(
    desks: Desks, visits: Visits, store: Store, now: datetime, line: Line
) -> tuple[Sequence[Desk], datetime | None]:
    """The guests that are due (at their desks then), and when the next of all becomes due. ``line`` hears of the
    residents that are due as soon as that is known: whatever is wrong with the register holds up none of them. Raises
    what the store raises."""
    visiting = asyncio.ensure_future(asyncio.gather(visits.due(now), visits.next_due(now)))
    # Where the residents' own question fails, nobody waits for it.
    visiting.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        names, upcoming = await asyncio.gather(desks.due(now), store.next_due(now))
        line(names)
        guests, later = await visiting
    finally:
        visiting.cancel()
    return guests, min((at for at in (upcoming, later) if at is not None), default=None)

"""What a sweep asks the store, all at once: one that works on a thread answers it in one go."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

from rotator.core.ports import Store
from rotator.engine.board import Desk
from rotator.engine.desks import Desks
from rotator.engine.visits import Visits


async def ask(
    desks: Desks, visits: Visits, store: Store, now: datetime
) -> tuple[Sequence[str], Sequence[Desk], datetime | None]:
    """Names of residents that are due, guests that are (they are at their desks then), and when the next becomes due.
    Raises what the store raises."""
    try:
        async with asyncio.TaskGroup() as asked:
            residents, guests = asked.create_task(desks.due(now)), asked.create_task(visits.due(now))
            nexts = asked.create_task(store.next_due(now)), asked.create_task(visits.next_due(now))
    except ExceptionGroup as several:
        raise several.exceptions[0] from None
    times = [one.result() for one in nexts]
    return residents.result(), guests.result(), min((at for at in times if at is not None), default=None)

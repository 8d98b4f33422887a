"""Many targets looked at together: one way to a thread for all that share it, and not one for each file."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime

from rotator.core.errors import Unavailable
from rotator.core.ports import Publisher
from rotator.core.publication import Publication
from rotator.drivers.files.bundle import BundlePublisher
from rotator.drivers.files.lanes import Lane
from rotator.drivers.files.publisher import FilePublisher

_Local = FilePublisher | BundlePublisher


async def standing(wanted: Sequence[tuple[Publisher, Publication]], now: datetime) -> list[bool]:
    """See `ports.Roster.standing`; True only for files."""
    found = [False] * len(wanted)
    on: dict[Lane, list[tuple[int, _Local, Publication]]] = {}
    for index, (publisher, publication) in enumerate(wanted):
        if isinstance(publisher, _Local):
            on.setdefault(publisher.lane, []).append((index, publisher, publication))

    async def look(lane: Lane, those: Sequence[tuple[int, _Local, Publication]]) -> None:
        try:
            stand = await lane.run(lambda: [one.stands(publication, now) for _, one, publication in those])
        except Unavailable:
            # No thread may be started: whoever settles each tells it.
            return
        for (index, _, _), stands in zip(those, stand, strict=True):
            found[index] = stands

    await asyncio.gather(*(look(lane, those) for lane, those in on.items()))
    return found

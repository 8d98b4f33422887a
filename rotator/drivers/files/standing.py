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
# For a page of files, in seconds. A mount that hangs keeps back the answer about itself alone.
PATIENCE = 5.0


async def standing(
    wanted: Sequence[tuple[Publisher, Publication]], now: datetime, patience: float = PATIENCE
) -> list[bool]:
    """See `ports.Roster.standing`; True only for files, and for those that tell in time."""
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

    looks = [asyncio.ensure_future(look(lane, those)) for lane, those in on.items()]
    if looks:
        _, hung = await asyncio.wait(looks, timeout=patience)
        for one in hung:
            one.cancel()
    return found

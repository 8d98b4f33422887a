"""What was saved of the guests lately, here or by another daemon. A server that took over and never got the last
commits of the one before is put right from that, as it is from the desks of the residents.

Bounded: of a register of a million the last few thousand that were rotated, for what a failover loses is what was
written last."""

from __future__ import annotations

from datetime import datetime

from rotator.core import events
from rotator.core.grants import Grant

MOST = 2048


class Remembered:
    """The last record of each of those that were saved last."""

    def __init__(self) -> None:
        # In the order in which they were noted.
        self._records: dict[str, Grant] = {}

    def note(self, grant: Grant) -> None:
        """It is stored so."""
        if is_newer(self._records.get(grant.name), grant):
            # What went back is no news.
            return
        self._records.pop(grant.name, None)
        self._records[grant.name] = grant
        if len(self._records) > MOST:
            del self._records[next(iter(self._records))]

    def get(self, name: str) -> Grant | None:
        return self._records.get(name)

    def forget(self, name: str) -> None:
        """It was struck: nothing of it is put right."""
        self._records.pop(name, None)


def is_newer(known: Grant | None, stored: Grant) -> bool:
    """Whether what is stored was overwritten once already by what is known: generations only go up in a lineage."""
    return known is not None and known.lineage == stored.lineage and known.generation > stored.generation


def put_right(known: Grant, stored: Grant | None, now: datetime) -> events.Warned:
    """What is told of it."""
    gone = "was deleted from the store" if stored is None else f"went back to generation {stored.generation}"
    text = f"{known.name}: {gone} by somebody else; put right from memory to generation {known.generation}"
    return events.Warned(at=now, text=text)

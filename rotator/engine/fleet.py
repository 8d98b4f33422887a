"""Who of several daemons at one store goes first for a grant, so that they do not run for the same one.

Each grant has a first among those at work, by rendezvous hashing: nothing is agreed upon, and where one comes or goes
only its share moves. The others give him a moment and then try as well. Leases alone decide who may.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from datetime import datetime, timedelta

PATIENCE = timedelta(seconds=2)
"""How long after a grant is due the others wait for the one who goes first."""


class Fleet:
    """The daemons at work, as they were last heard of."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._others: tuple[str, ...] = ()

    def hear(self, present: Collection[str]) -> None:
        self._others = tuple(sorted(one for one in present if one != self._owner))

    @property
    def is_alone(self) -> bool:
        return not self._others

    def goes_first(self, name: str) -> bool:
        """Whether this daemon does, for the grant of that name."""
        ours = _weight(self._owner, name)
        return all(_weight(one, name) < ours for one in self._others)

    def left_until(self, name: str, due_at: datetime | None, now: datetime) -> datetime:
        """Until when a grant that is due is left to the daemon that goes first for it; now, where that is ourselves."""
        if self.is_alone or due_at is None or due_at > now or self.goes_first(name):
            return now
        return due_at + PATIENCE


def _weight(owner: str, name: str) -> bytes:
    return hashlib.blake2b(f"{owner} {name}".encode(), digest_size=8).digest()

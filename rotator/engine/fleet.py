"""Who of several daemons at one store goes first for a grant, so that they do not run for the same one.

What becomes due in the same few seconds has one first among those at work, so that it shares round trips and commits as
it does where one daemon is alone; of a herd each grant has a first of its own. Both by rendezvous hashing: nothing is
agreed upon, and where one comes or goes only its share moves. The others give him a moment and then try as well. Leases
alone decide who may.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

PATIENCE = timedelta(seconds=2)
"""How long after a grant is due the others wait for the one who goes first."""
SHIFT = timedelta(seconds=4)
"""How long one of them goes first for all that becomes due."""
HERD = 128
"""From more than so many that are due at once, each grant has a first of its own: they are work for all. One daemon has
fewer done before the others have looked."""
REST = HERD // 4
"""So many of a herd, or more, are left where the one on shift has taken his part: what others find when they look."""
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Fleet:
    """The daemons at work, as they were last heard of."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._others: tuple[str, ...] = ()
        # The shift that was asked about last, and whether it is ours: it is asked about again and again.
        self._shift: tuple[int, bool] | None = None

    def hear(self, present: Collection[str]) -> None:
        self._others = tuple(sorted(one for one in present if one != self._owner))
        self._shift = None

    @property
    def is_alone(self) -> bool:
        return not self._others

    @property
    def size(self) -> int:
        """How many are at work, this one included."""
        return 1 + len(self._others)

    def goes_first(self, name: str) -> bool:
        """Whether this daemon does, for the grant of that name in a herd."""
        ours = _weight(self._owner, name)
        return all(_weight(one, name) < ours for one in self._others)

    def is_on_shift(self, due_at: datetime) -> bool:
        """Whether this daemon goes first for what becomes due then."""
        number = (due_at - _EPOCH) // SHIFT
        if self._shift is None or self._shift[0] != number:
            # No name has a blank.
            self._shift = number, self.goes_first(f"shift {number}")
        return self._shift[1]

    def left_until(self, name: str, due_at: datetime | None, now: datetime, *, among: int) -> datetime:
        """Until when a grant that is due is left to the daemon that goes first for it; now, where that is ourselves.
        ``among`` so many it is due."""
        if self.is_alone or due_at is None or due_at > now:
            return now
        if self.goes_first(name) if among > HERD else self.is_on_shift(due_at):
            return now
        return due_at + (PATIENCE / 2 if among > REST and self.goes_first(name) else PATIENCE)

    def looks_at(self, due_at: datetime | None) -> datetime | None:
        """When to look for what becomes due then. On the shift of another a little later, all at once; soon enough to
        take a share of a herd."""
        if due_at is None or self.is_alone or self.is_on_shift(due_at):
            return due_at
        return due_at + PATIENCE / 2


def _weight(owner: str, name: str) -> bytes:
    return hashlib.blake2b(f"{owner} {name}".encode(), digest_size=8).digest()

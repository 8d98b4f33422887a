"""When the store is asked next what is due: to be in line a moment sooner helps nobody, and those that are found
together share a look, commits and ways to threads."""

from __future__ import annotations

from datetime import datetime, timedelta

from rotator.core import policy
from rotator.core.policy import Moment

TOGETHER = timedelta(seconds=1)
CROWD = timedelta(milliseconds=0.5)
"""How much longer the store is not asked what is due, for each grant that stands in line already."""
PACE = timedelta(seconds=0.4)
"""How often at most a store that is shared is asked what is due, whoever rings: a little less than a beat is apart."""
BREATH = timedelta(seconds=0.15)
"""How often at most any other is. Who is due alone is found at once; of forty a second each costs half as much."""


def ahead(every: timedelta) -> timedelta:
    """How much earlier than ``every`` a look is planned that comes with a beat: planned to the moment it would miss
    its beat by a little and wait for the next; and never so early that one sweep would find it again and again."""
    return min(TOGETHER, every / 2)


class Pacing:
    """``shared``: other daemons work at the store too. ``longest``: no pause is longer."""

    def __init__(self, *, shared: bool, longest: timedelta) -> None:
        self._pace = PACE if shared else BREATH
        self._longest = longest
        self._looked: Moment | None = None

    def looked(self, moment: Moment) -> None:
        """The store is asked now."""
        self._looked = moment

    def next_look(self, moment: Moment, waiting: int) -> datetime:
        """The less often the more wait in line: to find thousands there already costs more than to let them in."""
        if self._looked is None:
            return moment.now
        pause = min(max(TOGETHER, waiting * CROWD), self._longest) if waiting else self._pace
        passed = moment.boottime - self._looked.boottime
        return moment.now + max(pause - passed, policy.ZERO) if passed >= policy.ZERO else moment.now

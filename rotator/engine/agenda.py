"""What is known of each target, and when to look at it next: the cost of asking follows what is due, not how many
there are."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from datetime import datetime

from rotator.core import lean
from rotator.core.errors import RotatorError
from rotator.core.grants import Grant
from rotator.core.ports import Delivery, Publisher, Store
from rotator.core.publication import Settled


@lean.dataclass(frozen=True, slots=True)
class Post:
    """What we know of one target: ``generation`` is what stands there (None: not known to be ours), ``look_at``
    when to settle it next, ``trouble`` why it is not right. ``ahead`` is set where it holds a newer generation than
    our store. ``repairs`` counts how often in a row it was found changed by somebody else. ``valid_until`` is about the
    token that was last seen there; None where nobody can say."""

    look_at: datetime
    generation: int | None = None
    lineage: str = ""
    trouble: str = ""
    failures: int = 0
    repairs: int = 0
    ahead: Settled | None = None
    recorded: bool = False
    valid_until: datetime | None = None

    @property
    def rests(self) -> bool:
        """Whether it has a retry of its own, so that a touch is no reason to hurry: its folder may be what is being
        mended, and with somebody who changes it whenever we do it would be an endless race."""
        return self.failures > 0 or self.repairs > 0

    def differs(self, other: Post) -> bool:
        """Whether it is to be shown differently."""
        return (self.generation, self.lineage, self.trouble, self.valid_until) != (
            other.generation, other.lineage, other.trouble, other.valid_until,
        )  # fmt: skip

    def holds(self, grant: Grant) -> bool:
        access = grant.access
        return access is not None and self.lineage == grant.lineage and self.generation == access.generation


class Agenda:
    """The next look at each key, one plan a key. Planning anew replaces the plan before."""

    def __init__(self) -> None:
        self._plans: dict[tuple[str, str], datetime] = {}
        self._resting: set[tuple[str, str]] = set()
        self._queue: list[tuple[datetime, tuple[str, str]]] = []

    def clear(self) -> None:
        self._plans.clear()
        self._resting.clear()
        self._queue.clear()

    def plan(self, key: tuple[str, str], at: datetime, *, rests: bool = False) -> None:
        """Look at ``at``; ``rests`` asks for an alarm of its own at that time."""
        self._plans[key] = at
        heapq.heappush(self._queue, (at, key))
        if rests:
            self._resting.add(key)
        else:
            self._resting.discard(key)

    def drop(self, key: tuple[str, str]) -> None:
        """Look there no more."""
        self._plans.pop(key, None)
        self._resting.discard(key)

    def due(self, now: datetime) -> Iterator[tuple[str, str]]:
        """Every key whose time has come, each once; whoever takes one plans it anew before asking for the next."""
        while self._queue and self._queue[0][0] <= now:
            at, key = heapq.heappop(self._queue)
            # An entry that was replaced is passed over.
            if self._plans.get(key) == at:
                del self._plans[key]
                yield key

    def alarms(self, now: datetime) -> list[datetime]:
        """The times after ``now`` at which those that rest want to be looked at."""
        times = (self._plans.get(key) for key in self._resting)
        return [at for at in times if at is not None and at > now]


async def record(grant: Grant, target: str, publisher: Publisher, mark: str, store: Store) -> bool:
    """Remember where the token stands, so that it can be taken away once nobody configures it any more; of a hook, that
    it was told.

    Readers already have it: a store that is away only means that it is written at the next look."""
    assert grant.access is not None  # noqa: S101 (only what was published is recorded)
    delivery = Delivery(
        grant=grant.name,
        target=target,
        location=publisher.location,
        lineage=grant.lineage,
        generation=grant.access.generation,
        expires_at=grant.access.expires_at,
        mark=mark,
    )
    try:
        await store.delivered(delivery)
    except RotatorError:
        return False
    return True

"""What happened to each grant in the last day, as a listener heard it: in memory, with a hard bound."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from rotator.core import events, lean

DAY = timedelta(days=1)
# A mark is some 200 bytes: 8 MB at most, however many grants there are and however ill they fare.
BOUND = 40_000
BOUND_OF_ONE = 400


class What(StrEnum):
    """The classes of the drawing."""

    ROTATED = "rotated"
    FAILED = "failed"
    STUCK = "stuck"
    UNDELIVERED = "undelivered"
    DELIVERED = "delivered"


@lean.dataclass(frozen=True, slots=True)
class Mark:
    """``until`` of a rotation is when its token expires."""

    at: datetime
    what: What
    until: datetime | None = None


class History:
    """A listener of the bus. Of 100 000 grants it remembers some hours rather than more memory: `since` says."""

    def __init__(self, since: datetime, *, bound: int = BOUND, bound_of_one: int = BOUND_OF_ONE) -> None:
        self._since = since
        self._bound = bound
        self._bound_of_one = bound_of_one
        self._marks: dict[str, deque[Mark]] = {}
        self._order: deque[tuple[str, Mark]] = deque()
        self._serials: dict[str, int] = {}
        self._rings: set[Callable[[], None]] = set()

    def __call__(self, event: events.Event) -> None:
        """A listener: remembers, and rings for whoever watches."""
        if isinstance(event, events.GrantEvent):
            mark = _mark(event)
            if mark is not None:
                self._remember(event.grant, mark)
            self._serials[event.grant] = self._serials.get(event.grant, 0) + 1
            if isinstance(event, events.Retired):
                self._marks.pop(event.grant, None)
                self._serials.pop(event.grant, None)
        for ring in tuple(self._rings):
            ring()

    def marks(self, grant: str, now: datetime) -> Sequence[Mark]:
        """Those of the last day, in their order."""
        return [mark for mark in self._marks.get(grant, ()) if now - mark.at <= DAY]

    def serial(self, grant: str) -> int:
        """Goes up with every event of the grant."""
        return self._serials.get(grant, 0)

    def since(self, now: datetime) -> datetime:
        """From when on it remembers everything that it shows; a day at most."""
        return max(self._since, now - DAY)

    def join(self, ring: Callable[[], None]) -> None:
        """Call ``ring`` after every event, until `leave`."""
        self._rings.add(ring)

    def leave(self, ring: Callable[[], None]) -> None:
        self._rings.discard(ring)

    def _remember(self, grant: str, mark: Mark) -> None:
        kept = self._marks.setdefault(grant, deque())
        if len(kept) >= self._bound_of_one:
            # Only this one is cut; it fails so often that its earlier marks would not be told apart in the drawing.
            kept.popleft()
        kept.append(mark)
        self._order.append((grant, mark))
        while len(self._order) > self._bound or mark.at - self._order[0][1].at > DAY:
            name, oldest = self._order.popleft()
            self._forget(name, oldest)

    def _forget(self, name: str, oldest: Mark) -> None:
        kept = self._marks.get(name)
        if kept and kept[0] is oldest:
            kept.popleft()
            self._since = max(self._since, oldest.at)
            if not kept:
                del self._marks[name]


def _mark(event: events.GrantEvent) -> Mark | None:
    match event:
        case events.Rotated() | events.Followed():
            return Mark(event.at, What.ROTATED, getattr(event, "expires_at", None))
        case events.Latched() | events.PersonNeeded() | events.BudgetSpent():
            return Mark(event.at, What.STUCK)
        case events.ExchangeFailed() | events.DoubtRaised() | events.ChainLost():
            return Mark(event.at, What.FAILED)
        case events.DeliveryFailed():
            return Mark(event.at, What.UNDELIVERED)
        case events.Delivered() | events.Repaired():
            return Mark(event.at, What.DELIVERED)
    return None

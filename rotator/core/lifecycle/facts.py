"""What can happen to a grant, and what it can be told to do.

Facts        what came back or rang: `Due`, `Concluded`, `Behind`, `ClockFellBack`, `Adopted`
Orders       what to do next: `Exchange` (its intent is already in the grant), `Rest`
"""

from __future__ import annotations

from datetime import datetime

from rotator.core import events, lean
from rotator.core.grants import Grant, Kind, Outcome
from rotator.core.tokens import Secret


@lean.dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """The alarm rang, the sweep looked, or somebody asked.

    ``credentials`` is the keyed hash of the request's credentials as they are now, None where unknown.
    ``asked`` goes before the due time, ``forced`` also through a latch and an empty budget. ``wanted`` PASSWORD is a
    person's own `authorize`: it passes latch and budget, and only its success changes anything.
    """

    credentials: str | None = None
    asked: bool = False
    forced: bool = False
    wanted: Kind | None = None


@lean.dataclass(frozen=True, slots=True, kw_only=True)
class Concluded:
    """An exchange ended. ``sent_at`` is the time before its request was sent."""

    outcome: Outcome
    sent_at: datetime
    credentials: str | None = None


@lean.dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """A target holds a higher generation of our lineage: our store is an old copy."""

    target: str
    generation: int
    expires_at: datetime | None


@lean.dataclass(frozen=True, slots=True, kw_only=True)
class ClockFellBack:
    """Wall time is below a time already seen: what the store says of validity cannot be judged."""


@lean.dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """A person hands over a refresh token that was obtained elsewhere."""

    refresh: Secret


Fact = Due | Concluded | Behind | ClockFellBack | Adopted


@lean.dataclass(frozen=True, slots=True)
class Exchange:
    """Send this token request now; ``refresh`` is the token it spends."""

    kind: Kind
    attempt: int
    refresh: Secret | None


@lean.dataclass(frozen=True, slots=True)
class Rest:
    """Nothing to do before ``until``; None means until a person or a changed secret acts. ``why`` is for who asked."""

    until: datetime | None
    why: str = ""


Order = Exchange | Rest


@lean.dataclass(frozen=True, slots=True)
class Step:
    """The new record, the order to follow once it is saved, and what to tell after that."""

    grant: Grant
    order: Order
    events: tuple[events.Event, ...] = ()

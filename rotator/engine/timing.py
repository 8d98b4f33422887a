"""How often the engine looks."""

from __future__ import annotations

from datetime import timedelta

from rotator.core import lean


@lean.dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How often the store is swept and every target is looked at; ``sweep_every`` is also the sweep's deadline.
    ``follow_every``: how often other daemons are listened to, where the store is shared."""

    sweep_every: timedelta = timedelta(seconds=10)
    verify_every: timedelta = timedelta(seconds=30)
    follow_every: timedelta = timedelta(seconds=0.5)

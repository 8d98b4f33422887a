"""The one alarm of the engine: when to look at the store next."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from rotator.core.ports import Clock


class Alarm:
    """Rings at the earliest time that it was asked for. Silent until it is set for the first time: the first pass of
    a start must not wait for what a clock needs to ring."""

    def __init__(self, clock: Clock, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._ring = ring
        self._at: datetime | None = None
        self._works = False

    def set(self, at: datetime | None) -> None:
        """Ring at ``at`` and at no other time; None: not at all."""
        self._works = True
        self._at = at
        self._clock.alarm(at, self._ring)

    def mind(self, at: datetime | None) -> None:
        """Ring at ``at`` too: at once where that has come, and nothing new where it rings before that anyway."""
        now = self._clock.now()
        if at is None:
            return
        if at <= now:
            self._ring()
        elif self._works and not (self._at is not None and now < self._at <= at):
            self.set(at)

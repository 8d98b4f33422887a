"""The one alarm of the engine: when to look at the store next."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from rotator.core.ports import Clock


class Alarm:
    """Rings at the earliest time that it was asked for. Silent until it is set for the first time: the first pass of
    a start must not wait for what a clock needs to ring.

    ``beaten``: somebody calls `beat` every moment anyway, which then rings, and no clock is set: one awakening less."""

    def __init__(self, clock: Clock, ring: Callable[[], None], *, beaten: bool = False) -> None:
        self._clock = clock
        self._ring = ring
        self._beaten = beaten
        self._at: datetime | None = None
        self._minded: datetime | None = None
        self._works = False

    def begin(self) -> None:
        """A sweep begins: what is minded from here on counts beside what it sets in the end, for it may have asked the
        store before that was saved."""
        self._minded = None

    def set(self, at: datetime | None) -> None:
        """Ring at ``at``, at what was minded since `begin`, and at no other time; None: not at all."""
        self._works = True
        if self._minded is not None:
            at = self._minded if at is None else min(at, self._minded)
        self._at = at
        if not self._beaten:
            self._clock.alarm(at, self._sound)

    def beat(self) -> None:
        """Ring where the time has come and no clock was set for it."""
        if self._beaten and self._at is not None and self._at <= self._clock.now():
            self._sound()

    def mind(self, at: datetime | None) -> None:
        """Ring at ``at`` too: at once where that has come, and nothing new where it rings before that anyway."""
        if at is None:
            return
        if at <= self._clock.now():
            self._ring()
            return
        self._minded = at if self._minded is None else min(at, self._minded)
        if self._works and (self._at is None or self._at > at):
            self.set(at)

    def _sound(self) -> None:
        # Only what has rung is over: on a busy loop the time has often come a moment before the bell, and who set it
        # anew then would take the ring away.
        self._at = None
        self._ring()

"""How many stand in the register, and how they are: counted now and then, for a count reads every row of it."""

from __future__ import annotations

from datetime import timedelta

from rotator.core import policy
from rotator.core.errors import RotatorError
from rotator.core.health import Census
from rotator.core.ports import Clock, Register

EVERY = timedelta(seconds=30)
REST, SHORT_REST = 100, 10
"""So many times as long as it took nobody counts again, or as briefly where somebody came or went: a hundredth of one
core, or a tenth, however many there are."""
LONGEST = timedelta(minutes=20)
"""No rest is longer: a process may have been stopped while it counted."""


class Headcount:
    """The last count."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ended: timedelta | None = None
        self._took = policy.ZERO
        self._is_old = False
        self.census: Census | None = None

    def outdate(self) -> None:
        """Somebody came or went: count again soon."""
        self._is_old = True

    async def keep(self, register: Register) -> None:
        """Count anew where it is time. Where that fails the last count stays: nobody is held up by it."""
        began = self._clock.moment()
        if self._ended is not None:
            since = began.boottime - self._ended
            rest = SHORT_REST * self._took if self._is_old else max(EVERY, REST * self._took)
            # Another boot's time says nothing.
            if policy.ZERO <= since < min(rest, LONGEST):
                return
        was_old, self._is_old = self._is_old, False
        try:
            self.census = await register.census(began.now)
        except RotatorError:
            self._is_old = was_old
        ended = self._clock.moment()
        # The machine may have slept meanwhile.
        self._ended, self._took = ended.boottime, ended.awake - began.awake

"""Gates: what all grants of one provider share, and the order in which they are let in.

Nothing here waits. Whoever wants to rotate stands in line; whenever something may have changed (one left, time went by)
the scheduler lets in who may start.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from functools import partial

from rotator.core import events, pressure
from rotator.core.grants import OutcomeClass
from rotator.core.policy import ZERO, Moment
from rotator.core.pressure import Limits, Line, Place


class Gate:
    """The gate of one provider. ``limits`` may be replaced at any time; who is inside stays inside.

    A grant is inside from the start of its rotation until that has ended, whatever it turns out to do.
    """

    def __init__(self, provider: str, limits: Limits) -> None:
        self.provider = provider
        self.limits = limits
        self.breaker = pressure.CLOSED
        self._lines: dict[Line, list[tuple[datetime, str]]] = {line: [] for line in Line}
        self._places: dict[str, Place] = {}
        self._inside: dict[str, tuple[Place | None, timedelta]] = {}
        self._failing = 0
        self._turn = 0
        self._probe: str | None = None
        # When the last ones were let in, on the boot-time clock: as many as may start in one window.
        self._starts: deque[tuple[timedelta, str]] = deque()

    @property
    def waiting(self) -> int:
        return len(self._places)

    def holds(self, name: str) -> bool:
        """Whether it stands in line."""
        return name in self._places

    @property
    def inside(self) -> int:
        return len(self._inside)

    def wait(self, name: str, place: Place) -> None:
        """Stand in line, or move to where one belongs by now. Nothing happens to who is inside already."""
        if name in self._inside or self._places.get(name) == place:
            return
        self._places[name] = place
        heapq.heappush(self._lines[place.line], (place.until, name))

    def next(self, moment: Moment) -> str | None:
        """Let the next one in, and return who; None where nobody waits or may start now."""
        if not self._places or len(self._inside) >= self.limits.in_flight or not self._is_in_time(moment):
            return None
        line = self._choose()
        if line is None:
            return None
        _, name = heapq.heappop(self._lines[line])
        place = self._places.pop(name)
        if self.breaker.is_open:
            self._probe = name
        self._come_in(name, place, moment)
        return name

    def pass_by(self, name: str, moment: Moment) -> None:
        """A person asked for this one: it waits for nobody, and counts like all others."""
        self._places.pop(name, None)
        self._come_in(name, None, moment)

    def leave(
        self, name: str, moment: Moment, cls: OutcomeClass | None, *, message: str = "",
        retry_after: timedelta | None = None, asked: bool = True,
    ) -> events.Event | None:  # fmt: skip
        """``name`` is outside again; returns what to tell of the breaker, if anything.

        ``cls`` None: nothing was learnt about the provider. ``asked`` False: it was not even asked, so that the start
        does not count on the rate. ``message`` says for a person how the exchange ended.
        """
        if name not in self._inside:
            return None
        place, began = self._inside.pop(name)
        self._failing -= place is not None and place.line is Line.FAILING
        probe, self._probe = self._probe == name, None if self._probe == name else self._probe
        if not asked:
            with suppress(ValueError):
                self._starts.remove((began, name))
        if cls is None:
            return None
        before = self.breaker
        self.breaker = pressure.judged(before, name, cls, retry_after, moment.boottime, probe=probe)
        if self.breaker.is_open and not before.is_open:
            until = self._at(moment, self.breaker.probes_at(self._most_urgent(moment)))
            return events.BreakerOpened(
                at=moment.now, provider=self.provider, grants=len(self.breaker.failed), reason=message, until=until
            )
        if before.is_open and not self.breaker.is_open:
            return events.BreakerClosed(at=moment.now, provider=self.provider, waiting=self.waiting)
        return None

    def starts_at(self, moment: Moment) -> datetime | None:
        """When the next of those that wait may start, by the wall clock of ``moment``; None where nobody waits, or
        where one that is inside must leave first."""
        if not self._places or len(self._inside) >= self.limits.in_flight or self._choose(peek=True) is None:
            return None
        starts_at = self._paced(moment)
        if self.breaker.is_open:
            if self._probe is not None:
                return None
            starts_at = max(starts_at, self.breaker.probes_at(self._most_urgent(moment)))
        return self._at(moment, starts_at)

    def keep(self, fits: Callable[[str], bool]) -> None:
        """Send away from the lines whoever does not belong here any more."""
        self._places = {name: place for name, place in self._places.items() if fits(name)}
        for line, heap in self._lines.items():
            heap[:] = [(place.until, name) for name, place in self._places.items() if place.line is line]
            heapq.heapify(heap)

    # --- who may start ------------------------------------------------------------------------------------------

    def _come_in(self, name: str, place: Place | None, moment: Moment) -> None:
        self._inside[name] = place, moment.boottime
        self._failing += place is not None and place.line is Line.FAILING
        self._starts.append((moment.boottime, name))

    def _is_in_time(self, moment: Moment) -> bool:
        if self.breaker.is_open and (
            self._probe is not None or self.breaker.probes_at(self._most_urgent(moment)) > moment.boottime
        ):
            return False
        return self._paced(moment) <= moment.boottime

    def _paced(self, moment: Moment) -> timedelta:
        """When the rate allows the next start."""
        now, window, starts = moment.boottime, self.limits.window, self._starts
        # What lies ahead was read on the clock of another boot.
        while starts and not now - window < starts[0][0] <= now:
            starts.popleft()
        return now if len(starts) < self.limits.burst else starts[-self.limits.burst][0] + window

    def _choose(self, *, peek: bool = False) -> Line | None:
        """The line whose turn it is. For a probe those in order come first: if it is only the others that fail,
        the first of them closes the breaker."""
        if self.breaker.is_open:
            return next((line for line in Line if self._may_go(line)), None)
        for step in range(len(pressure.TURNS)):
            line = pressure.TURNS[(self._turn + step) % len(pressure.TURNS)]
            if self._may_go(line):
                if not peek:
                    self._turn += step + 1
                return line
        return None

    def _may_go(self, line: Line) -> bool:
        if line is Line.FAILING and self._failing >= self.limits.for_failing:
            return False
        return self._first(line) is not None

    def _first(self, line: Line) -> tuple[datetime, str] | None:
        heap = self._lines[line]
        # Who moved, passed by or was sent away has left an entry behind.
        while heap:
            until, name = heap[0]
            place = self._places.get(name)
            if place is not None and place.line is line and place.until == until:
                return heap[0]
            heapq.heappop(heap)
        return None

    def _most_urgent(self, moment: Moment) -> timedelta | None:
        """When the first token of those in order runs out, on the boot-time clock; None where none is valid."""
        first = self._first(Line.HELD)
        left = ZERO if first is None else first[0] - moment.now
        return moment.boottime + left if left > ZERO else None

    def _at(self, moment: Moment, boottime: timedelta) -> datetime:
        return moment.now + (boottime - moment.boottime)


class Gates:
    """The gates by the names of their providers, each made when it is first needed."""

    def __init__(self) -> None:
        self._gates: dict[str, Gate] = {}

    def __iter__(self) -> Iterator[Gate]:
        return iter(self._gates.values())

    def of(self, provider: str, limits: Limits) -> Gate:
        """The gate of a provider, with these limits from now on."""
        gate = self._gates.get(provider)
        if gate is None:
            gate = self._gates[provider] = Gate(provider, limits)
        gate.limits = limits
        return gate

    def hold(self, name: str) -> bool:
        """Whether it stands in line at any of them."""
        return any(gate.holds(name) for gate in self._gates.values())

    @property
    def waiting(self) -> int:
        return sum(gate.waiting for gate in self._gates.values())

    def starts_at(self, moment: Moment) -> datetime | None:
        """When the first of those that wait at any gate may start; None where only one that leaves makes room."""
        times = [at for gate in self._gates.values() if (at := gate.starts_at(moment)) is not None]
        return min(times, default=None)

    def keep(self, belongs: Callable[[str, str], bool]) -> None:
        """Others are enrolled now: send away from the lines whoever does not belong (provider, name)."""
        for gate in list(self._gates.values()):
            gate.keep(partial(belongs, gate.provider))
            if not (gate.waiting or gate.inside):
                del self._gates[gate.provider]

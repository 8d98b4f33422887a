"""Tells, never decides. Typed events, in order for each listener, bounded; a slow or broken listener harms nobody.

Remove every listener and tokens still rotate: correctness runs through the store.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from rotator.core import events
from rotator.core.ports import Listener

CAPACITY = 1024
AT_ONCE = 16
"""Events that a listener hears in one turn of the loop: a burst does not hold up a rotation, and does not cost a turn
for each of them either."""


@dataclass(slots=True)
class _Line:
    name: str
    listener: Listener
    at_once: int
    waiting: deque[events.Event] = field(default_factory=deque)
    dropped: int = 0
    lost: int = 0


class Bus:
    """`tell` only queues; listeners are called between other work, each in the order of telling.

    Until `open` is called nothing is passed on: the first publication after a start does not wait for the imports
    of a log renderer.
    """

    def __init__(self, now: Callable[[], datetime], capacity: int = CAPACITY) -> None:
        self._now = now
        self._capacity = capacity
        self._lines: list[_Line] = []
        self._opened = False
        self._pending: asyncio.Handle | None = None

    def join(self, name: str, listener: Listener, *, at_once: int = AT_ONCE) -> None:
        """``at_once``: how many events it is passed in one turn; more than one is for who merely counts, and would
        otherwise be told too late of what thousands of grants do on a busy loop."""
        self._lines.append(_Line(name, listener, at_once))

    @property
    def lost(self) -> dict[str, int]:
        """How many events each listener was not told since it joined, because it was too slow."""
        return {line.name: line.lost for line in self._lines}

    def tell(self, *told: events.Event) -> None:
        """Queue events for every listener. Never blocks, never raises; the oldest are dropped and counted."""
        for line in self._lines:
            for event in told:
                if len(line.waiting) >= self._capacity:
                    line.waiting.popleft()
                    line.dropped += 1
                    line.lost += 1
                line.waiting.append(event)
        if self._opened and told:
            self._wake()

    def open(self) -> None:
        """Begin to pass on what was told; needs a running event loop."""
        self._opened = True
        self._wake()

    def flush(self) -> None:
        """Pass on everything that waits, now."""
        for line in self._lines:
            while line.waiting or line.dropped:
                self._pass_one(line)

    def _wake(self) -> None:
        if self._pending is None:
            self._pending = asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._pending = None
        for line in self._lines:
            for _ in range(line.at_once):
                if not (line.waiting or line.dropped):
                    break
                self._pass_one(line)
        if any(line.waiting or line.dropped for line in self._lines):
            self._wake()

    def _pass_one(self, line: _Line) -> None:
        if line.dropped:
            event: events.Event = events.EventsDropped(at=self._now(), listener=line.name, count=line.dropped)
            line.dropped = 0
        else:
            event = line.waiting.popleft()
        try:
            line.listener(event)
        except Exception:  # noqa: BLE001, S110 (a listener's defect is its own; there is nobody left to tell it to)
            pass

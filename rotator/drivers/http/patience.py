"""The deadline of one request, which does not throw away what came while this process stood still."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from types import TracebackType

# Later than any loop that merely has much to do.
STOOD_STILL = timedelta(milliseconds=200)
# To read what waits in the socket. Well inside the margin by which a lease outlives the deadline.
REPRIEVE = timedelta(seconds=1)


class Within:
    """Raises TimeoutError in its owner once ``limit`` has passed.

    A process that was stopped (SIGSTOP, a paused virtual machine) finds both on waking: the deadline behind it and
    the answer in the socket. `asyncio.timeout` would cancel before a byte is read, and a granted answer would be
    lost; hence, where the deadline itself comes late, a moment to read is left.
    """

    __slots__ = ("_alarm", "_due", "_limit", "_loop", "_timeout")

    def __init__(self, limit: timedelta) -> None:
        self._limit = limit

    async def __aenter__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time() + self._limit.total_seconds()
        if self._limit <= timedelta(0):
            raise TimeoutError  # Nothing may begin where there is no time at all.
        self._timeout = asyncio.timeout(None)  # noqa: TID251 (real sockets; the clock port is the engine's)
        await self._timeout.__aenter__()
        self._alarm = self._loop.call_at(self._due, self._strike)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._alarm.cancel()
        await self._timeout.__aexit__(kind, error, trace)

    def _strike(self) -> None:
        if self._timeout.expired():
            return
        now = self._loop.time()
        stood_still = now - self._due > STOOD_STILL.total_seconds()
        self._timeout.reschedule(now + REPRIEVE.total_seconds() if stood_still else now)

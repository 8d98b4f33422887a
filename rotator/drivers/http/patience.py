"""The deadline of one request, which does not throw away what came while this process stood still."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

# Later than any loop that merely has much to do.
STOOD_STILL = timedelta(milliseconds=200)
# To read what waits in the socket. Well inside the margin by which a lease outlives the deadline.
REPRIEVE = timedelta(seconds=1)


@asynccontextmanager
async def within(limit: timedelta) -> AsyncIterator[None]:
    """Raises TimeoutError once ``limit`` has passed.

    A process that was stopped (SIGSTOP, a paused virtual machine) finds both on waking: the deadline behind it and
    the answer in the socket. `asyncio.timeout` would cancel before a byte is read, and a granted answer would be
    lost; hence, where the deadline itself comes late, a moment to read is left.
    """
    loop = asyncio.get_running_loop()
    due = loop.time() + limit.total_seconds()
    # Nothing may begin where there is no time at all.
    at_once = 0 if limit <= timedelta(0) else None
    async with asyncio.timeout(at_once) as timeout:  # noqa: TID251 (real sockets; the clock port is the engine's)

        def strike() -> None:
            if timeout.expired():
                return
            now = loop.time()
            stood_still = now - due > STOOD_STILL.total_seconds()
            timeout.reschedule(now + REPRIEVE.total_seconds() if stood_still else now)

        alarm = loop.call_at(due, strike)
        try:
            yield
        finally:
            alarm.cancel()

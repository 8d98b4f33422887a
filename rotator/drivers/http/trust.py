"""The TLS context of one profile, kept and made anew; its CA file is looked at on a thread, for it may lie on a mount
that hangs."""

from __future__ import annotations

import asyncio
import ssl
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

from rotator.core import lean
from rotator.drivers.http import tls

# A look takes microseconds. Longer means a mount that hangs: what was trusted last then goes on to be trusted, for an
# exchange that is put off costs readers their token, and a CA is hardly changed on a mount that hangs.
PATIENCE = timedelta(seconds=1)
# Not those of the loop: whatever hangs here must not keep a name from being looked up.
_THREADS = ThreadPoolExecutor(16, thread_name_prefix="trust")


@lean.dataclass(frozen=True, slots=True)
class _Made:
    context: ssl.SSLContext
    stamp: tuple[int, ...]


class Trust:
    """All who ask while the thread is away are answered by the next look, never by one that had begun before they
    asked. A thread that hangs cannot be ended: until it comes back no second one is spent on this file. Both hold as
    long as this object: one made anew for the same file knows of neither."""

    def __init__(self, ca_file: Path | None, *, patience: timedelta = PATIENCE) -> None:
        self._ca_file = ca_file
        self._patience = patience.total_seconds()
        self._made: _Made | None = None
        self._away: asyncio.Future[_Made] | None = None
        self._next: asyncio.Task[_Made] | None = None
        self._hangs = False

    async def context(self) -> ssl.SSLContext:
        """Made once (20 ms) and again only where the CA file was replaced. Raises Misconfigured for one that cannot be
        used. One that was never read is waited for as long as the caller does."""
        made = self._made
        if made is not None and (self._ca_file is None or self.is_hung):
            return made.context
        try:
            limit = None if made is None else self._patience
            async with asyncio.timeout(limit):  # noqa: TID251 (a driver's own deadline for a hung mount)
                made = self._made = await asyncio.shield(self._look())
        except TimeoutError:
            self._hangs = True
        else:
            self._hangs = False
        assert made is not None  # noqa: S101 (without one there was no limit)
        return made.context

    @property
    def is_hung(self) -> bool:
        """Whether a look did not end in time, and has not yet."""
        return self._hangs and self._is_away

    @property
    def _is_away(self) -> bool:
        away = self._away
        return away is not None and not away.done() and away.get_loop() is asyncio.get_running_loop()

    def _look(self) -> asyncio.Task[_Made]:
        """One for all who ask before it begins, in the next turn of the loop at the earliest."""
        loop = asyncio.get_running_loop()
        if self._next is None or self._next.done() or self._next.get_loop() is not loop:
            self._next = loop.create_task(self._go())
            # Where nobody waits for it any more.
            self._next.add_done_callback(lambda task: task.cancelled() or task.exception())
        return self._next

    async def _go(self) -> _Made:
        if self._away is not None and self._is_away:
            await asyncio.wait([self._away])
        self._next = None
        self._away = asyncio.get_running_loop().run_in_executor(_THREADS, _look, self._ca_file, self._made)
        return await self._away


def _look(ca_file: Path | None, made: _Made | None) -> _Made:
    stamp = tls.stamp(ca_file)
    return made if made is not None and made.stamp == stamp else _Made(tls.context(ca_file), stamp)

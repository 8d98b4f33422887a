"""The threads that write files."""

from __future__ import annotations

import asyncio
import os
import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from rotator.core.errors import Unavailable

T = TypeVar("T")

# Answers given in one turn of the loop: each sets somebody going, and a herd must not stop the loop for long.
AT_ONCE = 32

_Job = tuple[Callable[[], Any], "asyncio.Future[Any]", asyncio.AbstractEventLoop]
_Told = tuple["asyncio.Future[Any]", Any, Exception | None]


class _Side:
    """What one loop has handed in during this turn, and what it was not told of yet."""

    def __init__(self) -> None:
        self.gathered: list[_Job] = []
        self.done: deque[_Told] = deque()


class Lane:
    """One thread: what is handed in is done in that order. Whatever is done when the loop looks is told together, so
    that a herd wakes neither thread nor loop for each file, and what hangs holds back nothing that is done."""

    def __init__(self, number: int) -> None:
        # Python joins its thread at exit, so a write that was begun ends, unless it hangs.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"files-{number}")
        self._waiting: deque[_Job] = deque()
        self._sides: WeakKeyDictionary[asyncio.AbstractEventLoop, _Side] = WeakKeyDictionary()

    def run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Do ``work`` on the thread. Cancelled, it has not begun or ends in the background."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[T] = loop.create_future()
        side = self._sides.get(loop)
        if side is None:
            side = self._sides[loop] = _Side()
        gathered = side.gathered
        if not gathered:
            # With this turn of the loop whatever else is handed in during it: a thread that is woken for the first of
            # them takes the interpreter away from those who hand in the others.
            loop.call_soon(self._hand_over, gathered)
        gathered.append((work, waiter, loop))
        return waiter

    def _hand_over(self, gathered: list[_Job]) -> None:
        jobs = list(gathered)
        gathered.clear()
        self._waiting.extend(jobs)
        # A thread on its way takes them along; where it was just leaving, one too many finds nothing.
        if len(self._waiting) != len(jobs):
            return
        try:
            self._thread.submit(self._drain)
        except RuntimeError as error:  # no thread may be started (TasksMax=), or Python ends
            self._waiting.clear()
            for _, waiter, _ in jobs:
                if not waiter.done():
                    waiter.set_exception(Unavailable(f"no file can be written: {error}"))

    def _drain(self) -> None:
        while self._waiting:
            work, waiter, loop = self._waiting[0]
            result, error = None, None
            if not waiter.cancelled():
                try:
                    result = work()
                except Exception as raised:  # noqa: BLE001 (carried to whoever waits)
                    error = raised
            self._waiting.popleft()
            done = self._sides[loop].done
            done.append((waiter, result, error))
            if len(done) == 1:
                # A loop that is closed has nobody who waits.
                with suppress(RuntimeError):
                    loop.call_soon_threadsafe(_tell, done)


def _tell(done: deque[_Told]) -> None:
    for _ in range(min(len(done), AT_ONCE)):
        waiter, result, error = done.popleft()
        if waiter.done():
            continue
        if error is not None:
            waiter.set_exception(error)
        else:
            waiter.set_result(result)
    if done:
        asyncio.get_running_loop().call_soon(_tell, done)


# Every folder has its lane: work on one path keeps its order, also when a cancelled `settle` goes on writing behind
# the next one and when a reload makes a second publisher; what hangs is a file system, and so a folder.
_LANES = tuple(Lane(number) for number in range(4))


def of(folder: Path | str) -> Lane:
    """The lane of a folder, the same for ever."""
    return _LANES[zlib.crc32(os.fsencode(folder)) % len(_LANES)]

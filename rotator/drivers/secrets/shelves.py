"""Secrets that are kept in the same folders are read together, on a thread."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from rotator.core.tokens import Secret

if TYPE_CHECKING:
    Known = dict[tuple[str, str], Secret]
    Found = list[Secret | None]
    Work = Callable[[Known], Found]
    Waiter = asyncio.Future[Found]


# Answers given in one turn of the loop: each sets somebody going, and a herd must not stop the loop for long.
AT_ONCE = 32
# Made as they are needed. Not those of the loop: whatever hangs here must not keep a name from being looked up.
_THREADS = ThreadPoolExecutor(16, thread_name_prefix="secrets")


class Shelf:
    """All that is asked for while its thread is away is read by the next, each file once. A thread that hangs cannot be
    ended: until it comes back no second one is spent on these folders."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._asked: list[tuple[Work, Waiter]] = []
        self._reading = False

    def read(self, work: Work) -> Waiter:
        """Do ``work`` on the thread, given what others have read in the same go. Never what was read before it was
        asked for, however shortly: who was told of a change would read what was there before it, and not look again."""
        waiter: Waiter = self._loop.create_future()
        self._asked.append((work, waiter))
        if not self._reading:
            self._reading = True
            # With this turn of the loop whoever else asks in it.
            self._loop.call_soon(self._begin)
        return waiter

    def _begin(self) -> None:
        asked, self._asked = [one for one in self._asked if not one[1].done()], []
        if not asked:
            self._reading = False
            return
        reading = self._loop.run_in_executor(_THREADS, _do, [work for work, _ in asked])
        reading.add_done_callback(lambda done: self._end([waiter for _, waiter in asked], done))

    def _end(self, waiters: list[Waiter], done: asyncio.Future[list[Found | Exception]]) -> None:
        _tell(deque(zip(waiters, [] if done.cancelled() else done.result(), strict=False)))
        self._begin()


def _tell(told: deque[tuple[Waiter, Found | Exception]]) -> None:
    for _ in range(min(len(told), AT_ONCE)):
        waiter, found = told.popleft()
        if waiter.done():
            continue
        if isinstance(found, Exception):
            waiter.set_exception(found)
        else:
            waiter.set_result(found)
    if told:
        asyncio.get_running_loop().call_soon(_tell, told)


def _do(asked: list[Work]) -> list[Found | Exception]:
    known: Known = {}
    done: list[Found | Exception] = []
    for work in asked:
        try:
            done.append(work(known))
        except Exception as error:  # noqa: BLE001 (carried to whoever waits)
            done.append(error)
    return done


_SHELVES: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[object, Shelf]] = WeakKeyDictionary()


def of(folders: frozenset[str], environ: Mapping[str, str]) -> Shelf:
    """The shelf of these folders; a variable of the environment is kept in none, and is read with its like."""
    shelves = _SHELVES.setdefault(asyncio.get_running_loop(), {})
    key = (id(environ), folders)
    if key not in shelves:
        shelves[key] = Shelf()
    return shelves[key]

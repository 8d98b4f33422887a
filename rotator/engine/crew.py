"""Named tasks: one of a name at a time, a defect in one is told and harms no other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from rotator.core import events
from rotator.core.errors import RotatorError
from rotator.engine.bus import Bus

T = TypeVar("T")

Key = tuple[str, ...]


class Crew:
    """The tasks of the engine. ``changed`` is called after each of them ended."""

    def __init__(self, bus: Bus, now: Callable[[], datetime], changed: Callable[[], None]) -> None:
        self._bus = bus
        self._now = now
        self._changed = changed
        self._tasks: dict[Key, asyncio.Task[Any]] = {}
        self._closed = False

    def start(
        self, key: Key, work: Callable[[], Coroutine[Any, Any, T]], after: Callable[[], None] | None = None
    ) -> asyncio.Task[T] | None:
        """Start ``work`` under ``key`` and call ``after`` once it has ended; None where one of that key runs already or
        the crew went home."""
        # One that has ended but was not yet struck off the list is no longer at work: what it did not see any more
        # must not be lost.
        if self._closed or (key in self._tasks and not self._tasks[key].done()):
            return None
        task = asyncio.create_task(work(), name=" ".join(key))
        self._tasks[key] = task
        task.add_done_callback(partial(self._ended, key, after))
        return task

    def _ended(self, key: Key, after: Callable[[], None] | None, task: asyncio.Task[Any]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, RotatorError):
            self._bus.tell(events.TaskFailed(at=self._now(), doing=" ".join(key), error=type(error).__name__))
        self._changed()
        if after is not None:
            after()

    def runs(self, key: Key) -> bool:
        """Whether the task of that key is at work."""
        task = self._tasks.get(key)
        return task is not None and not task.done()

    def running(self, fits: Callable[[Key], bool] = lambda key: True) -> list[asyncio.Task[Any]]:
        return [task for key, task in self._tasks.items() if fits(key) and not task.done()]

    def names(self, fits: Callable[[Key], bool]) -> set[str]:
        """What the running tasks whose keys fit are about: the second word of each key."""
        return {key[1] for key, task in self._tasks.items() if fits(key) and not task.done()}

    async def quiet(self, fits: Callable[[Key], bool] = lambda key: True) -> None:
        """Return once no task whose key fits is running."""
        while running := self.running(fits):
            await asyncio.wait(running)

    async def close(self) -> None:
        """Cancel what is left, wait for it, and start nothing any more."""
        self._closed = True
        for task in self.running():
            task.cancel()
        await self.quiet()


async def shielded(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end whatever happens to us; a cancellation that arrived meanwhile follows afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        # Not `asyncio.shield`, which calls back once more for every rotation.
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task.add_done_callback(partial(_wake, ended))
        try:
            await ended
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()
        raise cancelled
    return task.result()


def _wake(waiter: asyncio.Future[None], _: asyncio.Task[Any]) -> None:
    if not waiter.done():
        waiter.set_result(None)

"""Which connections are ready: the loop listens to one descriptor for all of them (epoll(7)).

To be told of a socket once for `connect` and once for the answer costs a selector of asyncio four changes of its books
and a handle for each; here they are four system calls. What is ready beyond `AT_ONCE` waits for the next turn of the
loop: a thousand answers may be there in one instant, and each sets somebody going.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from weakref import WeakKeyDictionary

AT_ONCE = 32
READABLE, WRITABLE = select.EPOLLIN, select.EPOLLOUT


class Ear:
    """Hears of the sockets of one loop, each by its number. Whoever closes one takes it away before."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._listeners: dict[int, Callable[[], None]] = {}
        self._waiters: dict[int, asyncio.Future[None]] = {}

    def fileno(self) -> int:
        return self._epoll.fileno()

    def listen(self, descriptor: int, call: Callable[[], None]) -> None:
        """Call while there is something to read. Raises OSError where that cannot be."""
        self._epoll.register(descriptor, READABLE)
        self._listeners[descriptor] = call

    def ignore(self, descriptor: int) -> None:
        """Call no more. Idempotent."""
        if self._listeners.pop(descriptor, None) is not None:
            self._settle(descriptor)

    async def until(self, descriptor: int, event: int) -> None:
        """Wait until it is ready for ``event``, or broken. Of one that is listened to only `WRITABLE` can be waited
        for. Raises OSError."""
        if descriptor in self._listeners:
            self._epoll.modify(descriptor, READABLE | event)
        else:
            self._epoll.register(descriptor, event)
        waiter = self._waiters[descriptor] = asyncio.get_running_loop().create_future()
        try:
            await waiter
        finally:
            del self._waiters[descriptor]
            self._settle(descriptor)

    def _settle(self, descriptor: int) -> None:
        """One reason less to hear of it."""
        if descriptor in self._listeners:
            self._epoll.modify(descriptor, READABLE)
        elif descriptor in self._waiters:
            self._epoll.modify(descriptor, WRITABLE)
        else:
            self._epoll.unregister(descriptor)

    def look(self) -> None:
        """Tell those that are ready, some of them. What they do about it comes in a turn of its own."""
        for descriptor, events in self._epoll.poll(0, AT_ONCE):
            call = self._listeners.get(descriptor)
            waiter = self._waiters.get(descriptor)
            if waiter is not None and not waiter.done() and (call is None or events & ~READABLE):
                waiter.set_result(None)
            if call is not None and events & ~WRITABLE:
                call()


_EARS: WeakKeyDictionary[asyncio.AbstractEventLoop, Ear] = WeakKeyDictionary()


def ours() -> Ear:
    """That of the running loop. Raises OSError where there can be none (too many open files)."""
    loop = asyncio.get_running_loop()
    ear = _EARS.get(loop)
    if ear is None:
        ear = Ear()
        loop.add_reader(ear.fileno(), ear.look)
        _EARS[loop] = ear
    return ear

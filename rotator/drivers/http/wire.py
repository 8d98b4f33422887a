"""One connection: bytes out, bytes in, and the end. `secure` puts TLS around it.

The socket is read by the loop's own readiness: no transport and no stream around it, which is half of what
a small request costs, and a loop that cannot listen (epoll_ctl(2): ENOMEM, ENOSPC) says so *before* anything leaves;
asyncio's transports begin to listen in a callback, where that is only logged, and nobody would read the answer.
"""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import Protocol
from weakref import WeakKeyDictionary, WeakMethod

CHUNK = 1 << 16
AT_ONCE = 32


class Wire(Protocol):
    """``received`` grows until `more` says that nothing follows."""

    received: bytearray

    async def send(self, payload: bytes) -> None:
        """Raises OSError."""
        ...

    async def more(self) -> bool:
        """Wait for more bytes; False once the far end has ended. Raises the OSError that broke the connection."""
        ...

    def close(self) -> None:
        """At once, and without a farewell: nothing is left to be said. Idempotent."""
        ...


class _Turnstile:
    """Lets some of those pass in each turn of the loop for whom something came: a thousand answers may be there in one
    instant, and each sets somebody going."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        # Not held: it is kept by its loop, and would keep that alive.
        self._call_soon = WeakMethod(loop.call_soon)
        self._passed = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def let_through(self, waiter: asyncio.Future[None]) -> None:
        if self._passed >= AT_ONCE:
            self._waiting.append(waiter)
            return
        if not self._passed:
            self._next_turn()
        self._passed += 1
        waiter.set_result(None)

    def _turn(self) -> None:
        self._passed = 0
        while self._waiting and self._passed < AT_ONCE:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(None)
                self._passed += 1
        if self._passed:
            self._next_turn()

    def _next_turn(self) -> None:
        call_soon = self._call_soon()
        assert call_soon is not None  # noqa: S101 (it is running)
        call_soon(self._turn)


_TURNSTILES: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turnstile] = WeakKeyDictionary()


class _Inbox:
    """What came, and who waits for it."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        turnstile = _TURNSTILES.get(self._loop)
        if turnstile is None:
            turnstile = _TURNSTILES[self._loop] = _Turnstile(self._loop)
        self._turnstile = turnstile
        self.received = bytearray()
        self._ended = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def more(self) -> bool:
        before = len(self.received)
        # A wait that was woken by the end of something else looks again.
        while len(self.received) == before and not self._ended:
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if len(self.received) > before:
            return True
        if self._error is not None:
            raise self._error
        return False

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            self._turnstile.let_through(waiter)

    def _end(self, error: Exception | None) -> None:
        if not self._ended:
            self._ended, self._error = True, error
            self._wake()


class Plain(_Inbox):
    """Takes the socket over. ``reads``: from now on; else `_listen` says when. Raises OSError where the loop cannot
    listen to it."""

    def __init__(self, sock: socket.socket, *, reads: bool = True) -> None:
        super().__init__()
        self._sock = sock
        self._open = True
        # By its number: of a socket that is new to it the selector first writes a description, for nobody.
        self._fd = sock.fileno()
        if reads:
            try:
                self._listen()
            except BaseException:
                sock.close()
                raise

    def _listen(self) -> None:
        self._loop.add_reader(self._fd, self._read)

    async def send(self, payload: bytes) -> None:
        try:
            sent = self._sock.send(payload)
        except (BlockingIOError, InterruptedError):
            sent = 0
        if sent < len(payload):
            await self._loop.sock_sendall(self._sock, memoryview(payload)[sent:])

    def _read(self) -> None:
        failure: OSError | None = None
        try:
            data = self._receive()
        except OSError as error:
            data, failure = b"", error
        if data:
            self.received += data
            self._wake()
        elif data is not None:
            self._loop.remove_reader(self._fd)
            self._end(failure)

    def _receive(self) -> bytes | None:
        """What is there, empty at the end; None where nothing is. Raises OSError."""
        try:
            return self._sock.recv(CHUNK)
        except (BlockingIOError, InterruptedError):
            return None

    def close(self) -> None:
        if self._open:
            self._open = False
            self._loop.remove_reader(self._fd)
            self._sock.close()

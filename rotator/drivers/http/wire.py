"""One connection: bytes out, bytes in, and the end. `secure` puts TLS around it.

The socket is read where it is ready (`ear`): no transport and no stream around it, which is half of what a small
request costs, and where nobody can listen to it (epoll_ctl(2): ENOMEM, ENOSPC) that is said *before* anything leaves;
asyncio's transports begin to listen in a callback, where that is only logged, and nobody would read the answer.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Protocol

from rotator.drivers.http import ear

CHUNK = 1 << 16


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


class Plain:
    """Takes the socket over. ``reads``: from now on; else `_listen` says when. Raises OSError where the loop cannot
    listen to it."""

    _NOT_NOW: tuple[type[OSError], ...] = (BlockingIOError, InterruptedError)

    def __init__(self, sock: socket.socket, *, reads: bool = True) -> None:
        self.received = bytearray()
        self._sock = sock
        self._fd = sock.fileno()
        self._open = True
        self._ended = False
        self._error: OSError | None = None
        self._waiter: asyncio.Future[None] | None = None
        try:
            self._ear = ear.ours()
            if reads:
                self._listen()
        except BaseException:
            sock.close()
            raise

    def _listen(self) -> None:
        self._ear.listen(self._fd, self._read)

    async def send(self, payload: bytes) -> None:
        left = memoryview(payload)
        while left:
            try:
                left = left[self._sock.send(left) :]
            except self._NOT_NOW:
                # What TLS would have to read first the reader reads.
                await self._ear.until(self._fd, ear.WRITABLE)

    async def more(self) -> bool:
        before = len(self.received)
        # A wait that was woken by the end of something else looks again.
        while len(self.received) == before and not self._ended:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if len(self.received) > before:
            return True
        if self._error is not None:
            raise self._error
        return False

    def _read(self) -> None:
        try:
            data = self._sock.recv(CHUNK)
        except self._NOT_NOW:
            # Of TLS a record that is not whole, or none that holds data: a ticket, an alert.
            return
        except OSError as error:
            data, self._error = b"", error
        if data:
            self.received += data
        else:
            self._ended = True
            self._ear.ignore(self._fd)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        if self._open:
            self._open = False
            self._ear.ignore(self._fd)
            self._sock.close()

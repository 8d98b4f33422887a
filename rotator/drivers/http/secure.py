"""One connection under TLS.

OpenSSL reads and writes the socket itself and the loop only tells when it may: asyncio's own TLS, which decrypts from
one buffer into another, costs a fifth more for each request (docs/performance.md).
"""

from __future__ import annotations

import asyncio
import socket
import ssl

from rotator.drivers.http import dial, wire


async def secured(sock: socket.socket, tls: ssl.SSLContext, host: str) -> wire.Wire:
    """Takes the socket over and shakes hands. TLS from the first byte: what a stranger sent before the handshake is
    never taken for something that came through it. Raises OSError.

    Each handshake is a whole one. To take up the session of the last one was tried: it saved a tenth, for Python
    copies a session to read it and to set it, certificate and all, and what it proves is old."""
    try:
        secure = tls.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    except BaseException:
        sock.close()
        raise
    made = _Secured(secure)
    try:
        await made.shake()
    except BaseException:
        made.close()
        raise
    return made


class _Secured(wire.Plain):
    """The reader is there from the handshake on; before it each wait has one of its own."""

    _sock: ssl.SSLSocket

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock, reads=False)

    async def shake(self) -> None:
        while True:
            try:
                self._sock.do_handshake()
            except ssl.SSLWantReadError:
                await self._readable()
            except ssl.SSLWantWriteError:
                await dial.writable(self._fd)
            else:
                self._listen()
                return

    async def send(self, payload: bytes) -> None:
        left = memoryview(payload)
        while left:
            try:
                left = left[self._sock.send(left) :]
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                # What it would have to read first the reader reads.
                await dial.writable(self._fd)

    def _receive(self) -> bytes | None:
        try:
            return super()._receive()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            # A record that is not whole, or none that holds data: a ticket, an alert.
            return None

    async def _readable(self) -> None:
        # Through the turnstile: what follows is the dearest step of all.
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(self._fd, self._pass, waiter)
        try:
            await waiter
        finally:
            self._loop.remove_reader(self._fd)

    def _pass(self, waiter: asyncio.Future[None]) -> None:
        self._loop.remove_reader(self._fd)
        if not waiter.done():
            self._turnstile.let_through(waiter)

"""One connection under TLS.

OpenSSL reads and writes the socket itself and the loop only tells when it may: asyncio's own TLS, which decrypts from
one buffer into another, costs a fifth more for each request (docs/performance.md).
"""

from __future__ import annotations

import socket
import ssl

from rotator.drivers.http import ear, wire


async def secured(sock: socket.socket, tls: ssl.SSLContext, host: str) -> wire.Wire:
    """Takes the socket over and shakes hands. TLS from the first byte: what a stranger sent before the handshake is
    never taken for something that came through it. Raises OSError.

    Each handshake is a whole one. To take up the session of the last one was tried: it saved a tenth, for Python
    copies a session to read it and to set it, certificate and all, and what it proves is old."""
    try:
        # Not suppressed: an end without TLS's own farewell is an error, so that a body which only the end delimits
        # counts as cut there (RFC 9112 section 9.8). Who knows from the bytes that they are whole reads no further.
        secure = tls.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False, suppress_ragged_eofs=False)
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

    _NOT_NOW = (ssl.SSLWantReadError, ssl.SSLWantWriteError)
    _sock: ssl.SSLSocket

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock, reads=False)

    async def shake(self) -> None:
        while True:
            try:
                self._sock.do_handshake()
            except ssl.SSLWantReadError:
                await self._ear.until(self._fd, ear.READABLE)
            except ssl.SSLWantWriteError:
                await self._ear.until(self._fd, ear.WRITABLE)
            else:
                self._listen()
                return

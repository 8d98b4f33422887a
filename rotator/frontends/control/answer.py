"""Reading an answer of our own server from a blocking socket: a status line, and a Content-Length or chunks.

By hand and with the standard library alone, for the command line; the other end is `stream`.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

LARGEST_ANSWER = 64 << 20
LARGEST_CHUNK = 16 << 20


class Reader:
    """One answer. Reads as far as the head; raises OSError, ValueError for what is not one, and so do its methods."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._raw = bytearray()
        self.status, self._headers = self._head()

    def body(self) -> bytes:
        """The body of an answer with a length."""
        length = int(self._headers.get(b"content-length", b""))
        return self._take(length)

    def lines(self) -> Iterator[bytes]:
        """Each line of an answer in chunks, as it comes; ends where the answer does."""
        if self._headers.get(b"transfer-encoding", b"").strip() != b"chunked":
            raise ValueError("the answer has no chunks")
        begun = b""
        while size := int(self._until(b"\r\n"), 16):
            if size > LARGEST_CHUNK:
                raise ValueError("a chunk has no end")
            *whole, begun = (begun + self._take(size)).split(b"\n")
            self._until(b"\r\n")
            yield from whole
        if begun:
            raise ValueError("the last line is not whole")

    def _head(self) -> tuple[int, dict[bytes, bytes]]:
        first, *lines = self._until(b"\r\n\r\n").split(b"\r\n")
        version, _, rest = first.partition(b" ")
        if not version.startswith(b"HTTP/1."):
            raise ValueError("the answer is not HTTP")
        pairs = (line.lower().partition(b":") for line in lines)
        return int(rest[:3]), {name: value for name, _, value in pairs}

    def _until(self, mark: bytes) -> bytes:
        while (end := self._raw.find(mark)) < 0:
            self._receive()
        found = bytes(self._raw[:end])
        del self._raw[: end + len(mark)]
        return found

    def _take(self, length: int) -> bytes:
        while len(self._raw) < length:
            self._receive()
        found = bytes(self._raw[:length])
        del self._raw[:length]
        return found

    def _receive(self) -> None:
        chunk = self._link.recv(1 << 16)
        if not chunk or len(self._raw) > LARGEST_ANSWER:
            raise ValueError("the answer has no end")
        self._raw += chunk

"""Events as an answer that has no end of its own: a chunk for each lot of lines (RFC 9112 section 7.1).

Chunked, not closed at the end: who was cut off can tell that from the end that a daemon makes when it stops.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress

from rotator.frontends.control.chronicle import Follower

HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/jsonl\r\nTransfer-Encoding: chunked\r\n"
    b"Cache-Control: no-store\r\nConnection: close\r\n\r\n"
)
END = b"0\r\n\r\n"


async def pour(link: socket.socket, follower: Follower, patience: float) -> None:
    """Send what the follower hears until there is no more, or until the reader hangs up. ``patience``, in seconds, is
    how long the end may take to be taken; a reader who is slow before that holds up nobody. Raises OSError."""
    loop = asyncio.get_running_loop()
    hung_up = asyncio.ensure_future(_hung_up(link))
    pouring = asyncio.ensure_future(_pour(link, follower, patience))
    try:
        await loop.sock_sendall(link, HEAD)
        await asyncio.wait([hung_up, pouring], return_when=asyncio.FIRST_COMPLETED)
    finally:
        follower.close()
        for task in (hung_up, pouring):
            task.cancel()
        await asyncio.gather(hung_up, pouring, return_exceptions=True)


async def _pour(link: socket.socket, follower: Follower, patience: float) -> None:
    loop = asyncio.get_running_loop()
    while (lines := await follower.wait_lines()) is not None:
        data = b"".join(lines)
        await loop.sock_sendall(link, b"%x\r\n%b\r\n" % (len(data), data))
    async with asyncio.timeout(patience):  # noqa: TID251 (of a socket, not of the engine)
        await loop.sock_sendall(link, END)


async def _hung_up(link: socket.socket) -> None:
    """Until the reader is gone; what it still says is not listened to."""
    with suppress(OSError):
        while await asyncio.get_running_loop().sock_recv(link, 4096):
            pass

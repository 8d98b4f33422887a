"""From a host name to a connected socket: all addresses, the next one as soon as the last one hesitates."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Sequence

# RFC 8305 section 5: the recommended delay between attempts. A dead IPv6 route then costs a blink, not the deadline.
STAGGER = 0.25
NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENETDOWN})

Address = tuple[int, int, int, tuple[object, ...]]


async def addresses(host: str, port: int) -> list[Address]:
    """All addresses in the resolver's order. Raises OSError (socket.gaierror), UnicodeError for an impossible name."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, kind, protocol, place) for family, kind, protocol, _, place in found]


async def first_to_connect(candidates: Sequence[Address]) -> socket.socket:
    """A connected, non-blocking socket; every other attempt is ended. Raises the most telling OSError."""
    waiting = list(candidates)
    running: set[asyncio.Task[socket.socket]] = set()
    refusals: list[BaseException] = []
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.create_task(_connect(waiting.pop(0))))
            done, running = await asyncio.wait(
                running, timeout=STAGGER if waiting else None, return_when=asyncio.FIRST_COMPLETED
            )
            connected = [task.result() for task in done if task.exception() is None]
            for spare in connected[1:]:
                spare.close()
            if connected:
                return connected[0]
            refusals += [error for task in done if (error := task.exception()) is not None]
    finally:
        for task in running:
            task.cancel()
        for late in await asyncio.gather(*running, return_exceptions=True):
            if isinstance(late, socket.socket):
                late.close()
    raise _most_telling(refusals)


async def _connect(candidate: Address) -> socket.socket:
    family, kind, protocol, place = candidate
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, place)
    except BaseException:
        sock.close()
        raise
    return sock


def _most_telling(refusals: Sequence[BaseException]) -> BaseException:
    """“Refused” by one address says more than “no route” to another, which half of all machines have for IPv6."""
    if not refusals:
        return OSError(errno.EADDRNOTAVAIL, "the name has no address")
    return next((e for e in refusals if not (isinstance(e, OSError) and e.errno in NO_ROUTE)), refusals[0])

"""From a host name to a connected socket: all addresses, the next one as soon as the last one hesitates."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Sequence

from rotator.drivers.http import ear

# RFC 8305 section 5: the recommended delay between attempts. A dead IPv6 route then costs a blink, not the deadline.
STAGGER = 0.25
NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENETDOWN})

# How long the resolver's answer is used again. What moves meanwhile is noticed at once all the same where it refuses.
KEPT = 30.0

Address = tuple[int, int, int, tuple[object, ...]]


class Book:
    """Addresses that were looked up, each used again for `KEPT` seconds: a herd asks the resolver once.

    Where none of them can be connected to any more the resolver is asked anew at once: nothing was sent yet."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[list[Address], float]] = {}
        self._asked: dict[tuple[str, int], asyncio.Task[list[Address]]] = {}

    async def connect(self, host: str, port: int, found: Callable[[], None]) -> socket.socket:
        """A connected, non-blocking socket; ``found`` is called once its addresses are known. Raises OSError,
        UnicodeError."""
        known = self._known.get((host, port))
        now = asyncio.get_running_loop().time()
        if known is not None and 0 <= now - known[1] < KEPT:
            found()
            try:
                return await first_to_connect(known[0])
            except OSError:
                self._known.pop((host, port), None)
        candidates = _literal(host, port)
        if candidates is None:
            candidates = await self._look_up(host, port)
        self._known[host, port] = candidates, now
        found()
        return await first_to_connect(candidates)

    async def _look_up(self, host: str, port: int) -> list[Address]:
        """One question for all who ask at the same time."""
        asked = self._asked.get((host, port))
        if asked is None or asked.done() or asked.get_loop() is not asyncio.get_running_loop():
            asked = self._asked[host, port] = asyncio.create_task(addresses(host, port))
            asked.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(asked)

    def forget(self) -> None:
        self._known.clear()
        self._asked.clear()


def _literal(host: str, port: int) -> list[Address] | None:
    """An address that is written as one needs no resolver, and so no thread."""
    for family, place in ((socket.AF_INET, (host, port)), (socket.AF_INET6, (host, port, 0, 0))):
        try:
            socket.inet_pton(family, host)
        except (OSError, UnicodeError, ValueError):
            continue
        return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, place)]
    return None


async def addresses(host: str, port: int) -> list[Address]:
    """All addresses in the resolver's order. Raises OSError (socket.gaierror), UnicodeError for an impossible name.

    On the loop's own threads, as whatever httpx looks up for a proxy. Nothing else of ours runs there
    (tests/test_house.py): what hangs, as a mount does, must not keep us from the provider. The resolver does not hang,
    it gives up by itself (resolv.conf(5), timeout and attempts)."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, kind, protocol, place) for family, kind, protocol, _, place in found]


async def first_to_connect(candidates: Sequence[Address]) -> socket.socket:
    """A connected, non-blocking socket; every other attempt is ended. Raises the most telling OSError."""
    if len(candidates) == 1:
        return await _connect(candidates[0])
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
        try:
            sock.connect(place)
        except (BlockingIOError, InterruptedError):
            await _connected(sock)
    except BaseException:
        sock.close()
        raise
    return sock


async def _connected(sock: socket.socket) -> None:
    """Wait for connect(2). `loop.sock_connect` would take the address apart once more, which is one already."""
    await ear.ours().until(sock.fileno(), ear.WRITABLE)
    if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(code, os.strerror(code))


def _most_telling(refusals: Sequence[BaseException]) -> BaseException:
    """“Refused” by one address says more than “no route” to another, which half of all machines have for IPv6."""
    if not refusals:
        return OSError(errno.EADDRNOTAVAIL, "the name has no address")
    return next((e for e in refusals if not (isinstance(e, OSError) and e.errno in NO_ROUTE)), refusals[0])

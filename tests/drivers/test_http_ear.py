"""One descriptor of the loop for all connections: who is heard, when, and that nobody is forgotten."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from rotator.drivers.http import ear


@contextmanager
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


def fill(sock: socket.socket) -> None:
    with pytest.raises(BlockingIOError):
        while True:
            sock.send(b"x" * 65536)


def drain(sock: socket.socket) -> None:
    with pytest.raises(BlockingIOError):
        while sock.recv(65536):
            pass


def test_of_many_that_are_ready_some_are_heard_in_a_turn() -> None:
    async def heard() -> list[int]:
        listened, turns, calls = ear.ours(), list[int](), 0
        pairs = [socket.socketpair() for _ in range(2 * ear.AT_ONCE + 1)]

        def hear(ours: socket.socket) -> None:
            nonlocal calls
            ours.recv(1)
            calls += 1

        for ours, theirs in pairs:
            listened.listen(ours.fileno(), lambda ours=ours: hear(ours))  # type: ignore[misc]
            theirs.send(b"x")
        while sum(turns) < len(pairs):
            await asyncio.sleep(0)
            turns.append(calls)
            calls = 0
        for ours, theirs in pairs:
            listened.ignore(ours.fileno())
            ours.close()
            theirs.close()
        return [count for count in turns if count]

    assert asyncio.run(heard()) == [ear.AT_ONCE, ear.AT_ONCE, 1]


def test_who_is_listened_to_can_be_waited_for_too() -> None:
    async def waited() -> bytes:
        with pair() as (ours, theirs):
            listened, said = ear.ours(), bytearray()
            listened.listen(ours.fileno(), lambda: said.extend(ours.recv(16)))
            fill(ours)
            waiting = asyncio.create_task(listened.until(ours.fileno(), ear.WRITABLE))
            theirs.send(b"hello")
            while not said:
                await asyncio.sleep(0)
            assert not waiting.done(), "that there is something to read is not what it waits for"
            drain(theirs)
            await waiting
            theirs.send(b" again")
            while len(said) < 11:
                await asyncio.sleep(0)
            listened.ignore(ours.fileno())
            return bytes(said)

    assert asyncio.run(waited()) == b"hello again"


def test_who_stops_listening_is_still_waited_for() -> None:
    """A far end that has said its last word may go on to read ours."""

    async def waited() -> None:
        with pair() as (ours, theirs):
            listened = ear.ours()
            listened.listen(ours.fileno(), lambda: listened.ignore(ours.fileno()))
            fill(ours)
            waiting = asyncio.create_task(listened.until(ours.fileno(), ear.WRITABLE))
            theirs.shutdown(socket.SHUT_WR)
            for _ in range(5):
                await asyncio.sleep(0)
            assert not waiting.done()
            drain(theirs)
            await waiting

    asyncio.run(waited())


def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    async def cancelled() -> None:
        with pair() as (ours, _):
            fill(ours)
            for _ in range(2):
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(ear.ours().until(ours.fileno(), ear.WRITABLE), 0)
                waiting = asyncio.create_task(ear.ours().until(ours.fileno(), ear.WRITABLE))
                await asyncio.sleep(0)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting

    asyncio.run(cancelled())


def test_every_loop_has_its_own_and_leaves_no_descriptor() -> None:
    async def used() -> None:
        with pair() as (ours, _):
            await ear.ours().until(ours.fileno(), ear.WRITABLE)

    asyncio.run(used())
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        asyncio.run(used())
    assert len(os.listdir("/proc/self/fd")) <= before

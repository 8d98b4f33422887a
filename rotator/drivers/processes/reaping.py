"""Children that are nobody's: as process 1 of a container, take what commands leave behind.

Whoever loses his parent becomes a child of process 1. If that never waits for him he stays a zombie, until the
container may start no process any more. Everywhere else the machine's own process 1 sees to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

INIT = 1

# Commands whose end asyncio waits for, and how many are just being started and have no number yet.
_own: set[int] = set()
_starting: list[object] = []


@contextlib.contextmanager
def started() -> Iterator[Callable[[int], None]]:
    """Around a command of our own, which is called by its number as soon as it has one: its end is asyncio's."""
    if os.getpid() != INIT:
        yield _nothing
        return
    asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, reap)
    token, pids = object(), list[int]()
    _starting.append(token)

    def mine(pid: int) -> None:
        pids.append(pid)
        _own.add(pid)
        _starting.remove(token)

    try:
        yield mine
    finally:
        _own.difference_update(pids)
        if token in _starting:
            _starting.remove(token)
        # What ended meanwhile was left alone, and rings no more.
        reap()


def reap() -> None:
    """Wait for every ended child that is none of our own commands."""
    if _starting:
        return
    for pid in _zombies(os.getpid()):
        if pid not in _own:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)


def _zombies(parent: int) -> list[int]:
    """proc(5): state and parent stand behind the name, which may hold anything, in parentheses."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                state, ppid = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:2]
                if state == b"Z" and int(ppid) == parent:
                    found.append(int(entry.name))
    return found


def _nothing(pid: int) -> None:
    pass

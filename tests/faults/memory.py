"""A memory of its own for some processes: a control group with a limit, and a glutton in it.

Version 1 and version 2 of control groups differ in their file names only, as far as this goes.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.stage import wait_for

ROOT_1 = Path("/sys/fs/cgroup/memory")
ROOT_2 = Path("/sys/fs/cgroup")
MEBI = 1 << 20

# Grows to so many MiB as each line says, touching every page; a list of small pieces, for a large one is returned.
GLUTTON = """
import sys
eaten = []
for line in sys.stdin:
    del eaten[int(line):]
    while len(eaten) < int(line):
        eaten.append(bytearray(b"x") * (1 << 20))
    print("eaten", flush=True)
"""


@dataclass(frozen=True, slots=True)
class Group:
    """A control group; ``limit`` in MiB."""

    folder: Path
    limit: int

    @property
    def entrance(self) -> tuple[str, ...]:
        """What a command is run by that shall live here, as the first to be killed (proc_pid_oom_score_adj(5))."""
        enter = 'echo $$ > "$0/cgroup.procs" && echo 1000 > /proc/self/oom_score_adj && exec "$@"'
        return ("sh", "-c", enter, str(self.folder))

    @property
    def killed(self) -> int:
        """How many processes the kernel has killed here for want of memory."""
        for name in ("memory.oom_control", "memory.events"):
            if (path := self.folder / name).exists():
                words = dict(line.split() for line in path.read_text().splitlines())
                return int(words["oom_kill"])
        raise AssertionError("the kernel does not tell")

    def used(self, pid: int) -> int:
        """MiB of its own that a process holds, which no pressure can take from it (proc_pid_status(5))."""
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) >> 10


@contextmanager
def group(limit: int) -> Iterator[Group]:
    """A new group with so many MiB and no swap. Skips where the kernel lets us make none."""
    root = _root()
    folder = root / f"rotator-test-{os.getpid()}-{limit}"
    folder.mkdir()
    try:
        old = root == ROOT_1
        (folder / ("memory.limit_in_bytes" if old else "memory.max")).write_text(str(limit * MEBI))
        for swap, value in (("memory.memsw.limit_in_bytes", limit * MEBI), ("memory.swap.max", 0)):
            if (folder / swap).exists():
                (folder / swap).write_text(str(value))
        yield Group(folder, limit)
    finally:
        wait_for(lambda: _removed(folder), f"the group {folder} to be empty")


def _root() -> Path:
    if (ROOT_1 / "cgroup.procs").exists():
        return ROOT_1
    controllers = ROOT_2 / "cgroup.controllers"
    if controllers.exists() and "memory" in controllers.read_text().split():
        (ROOT_2 / "cgroup.subtree_control").write_text("+memory")
        return ROOT_2
    why = "this kernel has no control group for memory that we may use"
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


class Glutton:
    """A process in the group that eats its memory. The kernel kills others there first, but sometimes, before their
    memory has come free, it too: then a new one sits down to the next meal."""

    def __init__(self, group: Group) -> None:
        self._group = group
        self._sit_down()

    def _sit_down(self) -> None:
        command = [sys.executable, "-c", GLUTTON]
        self._popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        # It has begun, and what it took so far is nothing to the group: only what it takes from now on counts there.
        self._ask(0)
        (self._group.folder / "cgroup.procs").write_text(str(self._popen.pid))

    def eat(self, mebibytes: int) -> None:
        """Hold so many MiB; returns once every page is there, whoever had to die for it, or once it died itself."""
        if self._popen.poll() is None and self._ask(mebibytes):
            return
        self.close()
        self._sit_down()

    def _ask(self, mebibytes: int) -> bool:
        assert self._popen.stdin is not None and self._popen.stdout is not None
        self._popen.stdin.write(f"{mebibytes}\n")
        self._popen.stdin.flush()
        return self._popen.stdout.readline() == "eaten\n"

    def close(self) -> None:
        self._popen.communicate(timeout=10)


@contextmanager
def glutton(group: Group) -> Iterator[Glutton]:
    made = Glutton(group)
    try:
        yield made
    finally:
        made.close()

"""strace(1) on a process that runs already: what it calls, and one chosen call that kills or fails.

strace counts calls per thread and from the moment it came. A fault is therefore aimed at one thread and at one
number, and the log of the same run tells what it struck.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.acceptance.stage import wait_for

# Neither store, network nor target: waiting, memory, chance.
NOISE = (
    "futex,epoll_wait,getpid,gettid,mmap,munmap,mremap,mprotect,madvise,brk,getrandom,rt_sigprocmask,sched_yield,"
    "restart_syscall"
)
_LINE = re.compile(r"^(?:(\d+)\s+)?(\w+)\((.*)$")
_RESUMED = re.compile(r"^(\d+)\s+<\.\.\. (\w+) resumed>(.*)$")
# A call that never returned is where the process died.
_STRUCK = ("(INJECTED)", " = ?")
_SCOPE = Path("/proc/sys/kernel/yama/ptrace_scope")


@cache
def missing() -> str:
    """Why nothing can be traced here; empty where it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    if os.geteuid() != 0 and _SCOPE.exists() and _SCOPE.read_text().strip() != "0":
        return "only root may trace a running process here (kernel.yama.ptrace_scope)"
    tried = subprocess.run(["strace", "-qq", "-o", os.devnull, "true"], capture_output=True, text=True, check=False)
    return "" if tried.returncode == 0 else f"nothing may be traced here: {tried.stderr.strip()}"


class Call(NamedTuple):
    """One system call. ``number`` counts those of its name in its thread since the tracer came; ``text`` is its
    arguments as known on entry, with the paths and addresses behind descriptors."""

    thread: int
    name: str
    number: int
    text: str
    struck: bool = False


@dataclass(frozen=True, slots=True)
class Fault:
    """What befalls a call instead of being done: SIGKILL for the process, or an error number for the call and for as
    many after it as make ``times``."""

    name: str
    times: int = 1

    def __str__(self) -> str:
        return self.name if self.times == 1 else f"{self.name}, {self.times} times"

    @property
    def kills(self) -> bool:
        return self.name == "SIGKILL"

    @property
    def words(self) -> str:
        return "signal=SIGKILL" if self.kills else f"error={self.name}"


KILL = Fault("SIGKILL")


@contextmanager
def attached(log: Path, process: int, *options: str, thread: int | None = None) -> Iterator[None]:
    """Trace all threads of ``process``, or only ``thread``, into ``log`` until the context ends."""
    whom = ["-f", "-p", str(process)] if thread is None else ["-p", str(thread)]
    command = ["strace", "-qq", "-yy", "-s", "24", "-o", str(log), *options, *whom]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    ) as popen:
        try:
            wait_for(lambda: popen.poll() is not None or _is_traced(process, thread), "the tracer")
            if popen.poll() is not None and popen.stderr is not None:
                raise RuntimeError(f"strace: {popen.stderr.read().decode()}")
            yield
        finally:
            # SIGINT makes it let go of the process, which then runs on.
            if popen.poll() is None:
                popen.send_signal(signal.SIGINT)
            try:
                popen.wait(10)
            except subprocess.TimeoutExpired:
                popen.kill()
                raise


def all_calls() -> tuple[str, ...]:
    return ("-e", f"trace=!{NOISE}")


def one_fault(name: str, number: int, fault: Fault) -> tuple[str, ...]:
    last = f"..{number + fault.times - 1}" if fault.times > 1 else ""
    return (*all_calls(), "-e", f"inject={name}:{fault.words}:when={number}{last}")


def read(log: Path, thread: int = 0) -> list[Call]:
    """The calls in the order in which they were entered. ``thread`` is whose log it is where it names none: a log of
    one thread does not."""
    calls: list[Call] = []
    seen: Counter[tuple[int, str]] = Counter()
    for line in log.read_text(errors="replace").splitlines():
        if found := _LINE.match(line):
            who, name, text = int(found[1] or thread), found[2], found[3]
            seen[who, name] += 1
            calls.append(Call(who, name, seen[who, name], text, text.endswith(_STRUCK)))
        elif (found := _RESUMED.match(line)) and found[3].endswith(_STRUCK):
            who, name = int(found[1]), found[2]
            at = next((at for at, call in enumerate(calls) if call[:3] == (who, name, seen[who, name])), None)
            if at is not None:
                calls[at] = calls[at]._replace(struck=True)
    return calls


def _is_traced(process: int, thread: int | None) -> bool:
    """See proc_pid_status(5)."""
    tasks = Path(f"/proc/{process}/task")
    try:
        threads = [thread] if thread is not None else [int(one.name) for one in tasks.iterdir()]
        return all("\nTracerPid:\t0\n" not in (tasks / str(one) / "status").read_text() for one in threads)
    except (FileNotFoundError, ProcessLookupError):
        return False

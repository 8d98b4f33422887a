"""A signal to the process that a file names, if it is one of the same user."""

from __future__ import annotations

import asyncio
import os
import signal
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

from rotator.core import notices
from rotator.core.errors import Misconfigured, Unavailable
from rotator.core.publication import Found, Publication, Settled

# No pid file is longer: a number, and in some a name or two.
LARGEST = 4 << 10
# Reading takes microseconds. Longer means a network file system that hangs, and that may be for ever.
PATIENCE = timedelta(seconds=10)
# What hangs is a file system, and so a folder: its thread is always the same. Few, however many applications there are
# (TasksMax= of our units).
_THREADS = tuple(ThreadPoolExecutor(1, thread_name_prefix=f"signals-{number}") for number in range(4))


class SignalHook:
    """Sends a signal for each generation. See `ports.Publisher`."""

    local = False
    judged_by_mark = True

    def __init__(self, grant: str, target: str, pid_file: Path, name: str, *, patience: timedelta = PATIENCE) -> None:
        """``patience``: how long it may take until it counts as hanging."""
        self._pid_file = pid_file
        self._name = name
        self._patience = patience.total_seconds()
        self.location = notices.location(grant, target, f"signal {name} {pid_file}")

    def __repr__(self) -> str:
        return f"SignalHook({self.location})"

    async def settle(self, wanted: Publication, now: datetime) -> Settled:
        """Raises Unavailable where no process runs, Misconfigured where the file names none that may be signalled."""
        # On a thread: the file may lie on a mount that hangs.
        sending = asyncio.get_running_loop().run_in_executor(_thread(self._pid_file.parent), self._send)
        try:
            async with asyncio.timeout(self._patience):  # noqa: TID251 (a driver's own deadline for a hung mount)
                await sending
        except TimeoutError:
            raise Unavailable(
                f"{self._pid_file}: not read within {self._patience:g} s; the file system hangs", mend="mend the mount"
            ) from None
        return Settled(Found.UNTOLD)

    async def remove(self, mark: str) -> bool:
        """What was told cannot be taken back."""
        return False

    def _send(self) -> None:
        pid = self._read()
        absent = Unavailable(f"process {pid}, which {self._pid_file} names, does not run")
        try:
            # Pinned before it is looked at: a number that is given to another process meanwhile cannot be hit.
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            raise absent from None
        except OSError as error:
            raise Misconfigured(f"process {pid} cannot be signalled: {error.strerror}") from None
        try:
            if _owner(pid) != os.geteuid():
                raise Misconfigured(
                    f"process {pid}, which {self._pid_file} names, is none of this user's",
                    mend="is the file one that an ended application left? For another user's see docs/hooks.md",
                )
            signal.pidfd_send_signal(descriptor, signal.Signals[f"SIG{self._name}"])
        except ProcessLookupError:
            raise absent from None
        except OSError as error:
            raise Misconfigured(f"process {pid} cannot be signalled: {error.strerror}") from None
        finally:
            os.close(descriptor)

    def _read(self) -> int:
        try:
            # O_NONBLOCK: a pipe without a writer must not hang.
            descriptor = os.open(self._pid_file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as handle:
                words = (handle.read(LARGEST) or b"").split()
        except FileNotFoundError:
            raise Unavailable(f"{self._pid_file} is missing: the application does not run") from None
        except OSError as error:
            raise Misconfigured(
                f"{self._pid_file} cannot be read: {error.strerror}", mend="let the user that runs rotator read it"
            ) from None
        if not words:
            # As it is just being written.
            raise Unavailable(f"{self._pid_file} is empty")
        pid = int(words[0]) if words[0].isdigit() and len(words[0]) < 10 else 0
        # Neither process 1 (init) nor a whole group (kill(2): 0 and below), and not ourselves.
        if pid <= 1 or pid == os.getpid():
            raise Misconfigured(f"{self._pid_file} names no process that may be signalled", mend="mend `pid_file`")
        return pid


def _thread(folder: Path) -> ThreadPoolExecutor:
    return _THREADS[zlib.crc32(str(folder).encode("utf-8", "surrogateescape")) % len(_THREADS)]


def _owner(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}").stat().st_uid
    except OSError:
        # Gone, or another user's where those are hidden (ProtectProc=invisible, proc(5) hidepid=).
        return None

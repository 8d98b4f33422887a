"""A command for each generation.

It is argv and nothing else: no shell, a clean environment (`notices.environment`), nothing on its standard input, a
session of its own that is killed as a whole at the time limit. What it says is kept up to a bound, and told only where
it fails.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import signal
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from rotator.core import notices
from rotator.core.errors import Misconfigured, RotatorError, Unavailable
from rotator.core.publication import Found, Publication, Settled
from rotator.drivers.processes import reaping

# What is kept of a command's output: its end.
KEPT = 64 << 10
CHUNK = 16 << 10
# How long one that was killed may take to be gone: a process that waits for a dead disk is not waited for.
FAREWELL = 2.0


class CommandHook:
    """Runs a command for each generation; 0 means that it was told. See `ports.Publisher`."""

    local = False
    judged_by_mark = True

    def __init__(
        self, grant: str, target: str, argv: Sequence[str], *, timeout: timedelta, environ: Mapping[str, str]
    ) -> None:
        self._target = target
        self._argv = tuple(argv)
        self._timeout = timeout.total_seconds()
        self._environ = environ
        self.location = notices.location(grant, target, f"command {' '.join(self._argv)}")

    def __repr__(self) -> str:
        return f"CommandHook({self.location})"

    def check(self) -> None:
        """Raises Misconfigured where there is no such command."""
        program = self._argv[0]
        if shutil.which(program) is None:
            what = "is not executable" if os.path.lexists(program) else "does not exist"
            raise Misconfigured(f"the command {program} {what}", mend="mend `command`, or install it")

    async def settle(self, wanted: Publication, now: datetime) -> Settled:
        """Raises Unavailable where it fails or takes too long, Misconfigured where it cannot be started at all."""
        environ = notices.environment(wanted, self._target, self._environ)
        with _output() as (output, writable), reaping.started() as mine:
            try:
                process = await asyncio.create_subprocess_exec(
                    *self._argv, stdin=asyncio.subprocess.DEVNULL, stdout=writable, stderr=writable, env=environ,
                    cwd="/", start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise self._not_started(error) from None
            mine(process.pid)
            ended = await self._wait(process)
        said = notices.quoted(bytes(output), wanted.value)
        told = f": {said}" if said else ""
        if not ended:
            raise Unavailable(f"{self._argv[0]} was killed after {self._timeout:g} s{told}")
        if process.returncode:
            raise Unavailable(f"{self._argv[0]} {_ending(process.returncode)}{told}")
        return Settled(Found.UNTOLD)

    async def remove(self, mark: str) -> bool:
        """What was told cannot be taken back."""
        return False

    async def _wait(self, process: asyncio.subprocess.Process) -> bool:
        """Whether it ended by itself within its time; nothing of its session outlives one that did not."""
        try:
            async with asyncio.timeout(self._timeout):  # noqa: TID251 (a driver's own deadline for a far end)
                await process.wait()
        except TimeoutError:
            await _kill(process)
            return False
        except asyncio.CancelledError:
            await _kill(process)
            raise
        return True

    def _not_started(self, error: OSError) -> RotatorError:
        what = f"{self._argv[0]} cannot be started: {error.strerror}"
        if error.errno in (errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE):
            return Unavailable(what)
        return Misconfigured(what, mend="mend `command`, or what the service may run")


async def _kill(process: asyncio.subprocess.Process) -> None:
    """Its whole group, which has the number of its leader as long as that was not waited for. One that has become
    another user's cannot be killed by us."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(FAREWELL):  # noqa: TID251 (a driver's own deadline for a far end)
            await process.wait()


def _ending(code: int) -> str:
    if code > 0:
        return f"ended with {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"


@contextlib.contextmanager
def _output() -> Iterator[tuple[bytearray, int]]:
    """What is written to a pipe, read as it comes, so that nobody who writes much is held up; and its writable end.

    No pipe of asyncio's: that is waited for until everybody who inherited it has ended, and a command may leave a
    service behind."""
    loop, output = asyncio.get_running_loop(), bytearray()
    readable, writable = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(readable, False)

    def read() -> bool:
        try:
            chunk = os.read(readable, CHUNK)
        except BlockingIOError:
            return False
        output.extend(chunk)
        del output[:-KEPT]
        return bool(chunk)

    loop.add_reader(readable, read)
    try:
        yield output, writable
        # What was said last is still in the pipe; not without end, as somebody may write on.
        for _ in range(KEPT // CHUNK * 2):
            if not read():
                break
    finally:
        loop.remove_reader(readable)
        os.close(readable)
        os.close(writable)

"""The file publisher: a reader that opens the path finds the old value or the new one, whole, at every instant.

A value is written to a temporary file in the same directory, given its group and mode before its first byte,
fsynced, renamed over the target (rename(2)), and the directory is fsynced. Nothing is written where the right
bytes, mode and group stand already.
"""

from __future__ import annotations

import asyncio
import errno
import grp
import hashlib
import os
import re
import secrets
import stat
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rotator.core import publication
from rotator.core.errors import Misconfigured, RotatorError, Transient, Unavailable
from rotator.core.publication import Format, Found, Publication, Settled
from rotator.core.tokens import AccessToken, Secret

_SCHEME = "file:"

# Whatever is larger was not written by us: a token answer is read up to 1 MiB.
_LARGEST = 4 << 20

# One thread per lane and one lane per location: work on one path keeps its order, also across a cancelled
# `settle` whose write goes on behind the next one and across a reload that makes a second publisher. Python joins
# these threads at exit, so a write that was begun ends.
_LANES = tuple(ThreadPoolExecutor(1, thread_name_prefix=f"files-{number}") for number in range(4))

# Two targets of one new folder lie on different lanes.
_making = threading.Lock()


def parse_location(location: str) -> Path | None:
    """The path behind a `FilePublisher.location`, or None where it is the location of something else."""
    path = Path(location.removeprefix(_SCHEME))
    return path if location.startswith(_SCHEME) and path.is_absolute() else None


@dataclass(frozen=True, slots=True)
class _There:
    """What stands at the path; ``content`` is None where that is no regular file, or one that cannot be read."""

    content: bytes | None
    mode: int = 0
    gid: int = -1


class FilePublisher:
    """Publishes to one file; see `ports.Publisher`.

    ``mode`` is set exactly, whatever the umask. ``group`` is a name or a number; None leaves the group that the
    directory gives (its own where it is setgid, as with a Kubernetes ``fsGroup``). ``make_parents`` makes missing
    folders, 0711, or 0750 with the group. ``template`` is for `Format.TEMPLATE` alone.

    Raises, from every method: Misconfigured where a path, a right or a name must be changed, Unavailable where
    waiting may help (a full or read-only disk, a directory that is not mounted yet).
    """

    local = True

    def __init__(
        self,
        path: Path,
        *,
        form: Format = Format.RAW,
        template: str = "",
        mode: int = 0o600,
        group: str | None = None,
        make_parents: bool = False,
    ) -> None:
        # ".." is resolved by its letters once, so that the stored location and the file are the same place for ever.
        self._path = Path(os.path.normpath(path.absolute()))
        self._form = form
        self._template = template
        self._mode = mode
        self._group = group
        self._gid: int | None = None
        self._make_parents = make_parents
        self._swept = False
        self._lane = _LANES[zlib.crc32(os.fsencode(self._path)) % len(_LANES)]

    @property
    def location(self) -> str:
        return f"{_SCHEME}{self._path}"

    def __repr__(self) -> str:
        return f"FilePublisher({self._path})"

    def check(self) -> None:
        """Check before anything starts, and make the parents where they are ours to make.

        A file is made beside the target and taken away again, so that rights, group and mode are proved rather
        than guessed. What waiting may mend (a full disk) is left to `settle`. Leftovers of a killed process are
        left to it too: `check` may run beside a living daemon. Raises Misconfigured.
        """
        try:
            self._check_form()
            self._prepare_directory()
            self._check_directory()
            self._check_target()
            self._unlink(self._create()[0])
        except Transient:
            pass
        except OSError as error:
            failure = self._failure(error)
            if isinstance(failure, Misconfigured):
                raise failure from None

    async def settle(self, wanted: Publication, now: datetime) -> Settled:
        """See `ports.Publisher.settle`. Cancelled, it leaves the file whole: the write ends behind it or never begins."""
        return await asyncio.get_running_loop().run_in_executor(self._lane, self._settle, wanted, now)

    async def remove(self, mark: str) -> bool:
        """Delete the file while the SHA-256 of its bytes is ``mark``; False where it is absent or something else."""
        return await asyncio.get_running_loop().run_in_executor(self._lane, self._remove, mark)

    def _settle(self, wanted: Publication, now: datetime) -> Settled:
        try:
            self._sweep_once()
            there = self._look()
            found = self._judge(there, wanted, now)
            if found.found is Found.AHEAD:
                return found
            if found.found is Found.CURRENT and there is not None and there.content is not None:
                return Settled(Found.CURRENT, mark=_mark(there.content))
            content = publication.render(wanted, self._form, now, self._template)
            self._prepare_directory()
            self._replace(content)
        except OSError as error:
            # from None: the traceback of a write would carry the content in its frames to whoever prints it whole.
            raise self._failure(error) from None
        return Settled(found.found, mark=_mark(content))

    def _remove(self, mark: str) -> bool:
        try:
            self._sweep_once()
            there = self._look()
            if there is None or there.content is None or _mark(there.content) != mark:
                return False
            self._path.unlink()
            self._sync_directory()
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._failure(error) from None
        return True

    def _judge(self, there: _There | None, wanted: Publication, now: datetime) -> Settled:
        if there is None:
            return Settled(Found.ABSENT)
        if there.content is None:
            return Settled(Found.ALTERED)
        judged = publication.judge(there.content, wanted, self._form, now, self._template)
        gid = self._resolve_group()
        right = there.mode == self._mode and gid in (None, there.gid)
        return judged if right or judged.found is not Found.CURRENT else Settled(Found.ALTERED)

    def _look(self) -> _There | None:
        """Read what stands at the path without following a symlink or waiting for the other end of a fifo.

        Raises Misconfigured for a directory, OSError."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            descriptor = os.open(self._path, flags)
        except FileNotFoundError:
            return None
        except OSError as error:
            # A symlink, a socket, a file of somebody else: it may well be replaced, the rename will tell.
            if error.errno in (errno.ELOOP, errno.ENXIO, errno.EACCES, errno.EPERM):
                return _There(None)
            raise
        try:
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                raise self._is_directory()
            if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
                return _There(None)
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                content = file.read(_LARGEST)
            return _There(content, stat.S_IMODE(status.st_mode), status.st_gid)
        finally:
            os.close(descriptor)

    def _replace(self, content: bytes) -> None:
        temporary, descriptor = self._create()
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                rest = memoryview(content)
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            temporary.replace(self._path)
        except BaseException:
            self._unlink(temporary)
            raise
        self._sync_directory()

    def _create(self) -> tuple[Path, int]:
        """An empty file beside the target, with group and mode as they shall be. Raises Misconfigured, OSError."""
        gid = self._resolve_group()
        temporary = _sibling(self._path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600)
        try:
            if gid is not None:
                self._give(descriptor, gid)
            os.fchmod(descriptor, self._mode)
            kept = stat.S_IMODE(os.fstat(descriptor).st_mode)
            if kept != self._mode:
                raise Misconfigured(
                    f"the file system of {self._path} makes mode {self._mode:04o} into {kept:04o}",
                    mend=f"set mode = \"{kept:04o}\" if these readers are meant, or choose another directory",
                )
        except BaseException:
            os.close(descriptor)
            self._unlink(temporary)
            raise
        return temporary, descriptor

    def _give(self, descriptor: int, gid: int) -> None:
        try:
            os.fchown(descriptor, -1, gid)
        except PermissionError:
            raise Misconfigured(
                f"{self._path} cannot be given to group {self._group}: uid {os.geteuid()} is not a member",
                mend=f"make it one (SupplementaryGroups={self._group} in the unit, fsGroup in a Pod) or drop `group`",
            ) from None

    @staticmethod
    def _unlink(temporary: Path) -> None:
        with suppress(OSError):
            temporary.unlink()

    def _sync_directory(self) -> None:
        try:
            descriptor = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except PermissionError:
            return  # A directory that we may search and write but not list cannot be fsynced.
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system without fsync of directories
                raise
        finally:
            os.close(descriptor)

    def _sweep_once(self) -> None:
        """Delete temporary files of this target that a killed process left: they hold a token.

        Once per publisher: our own are always taken away, and the lane keeps other writers of this process off."""
        if not self._swept:
            _sweep(self._path)
            self._swept = True

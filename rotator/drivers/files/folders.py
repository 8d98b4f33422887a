"""The folder around a target: made, judged, swept, and made durable."""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
import threading
from contextlib import suppress
from pathlib import Path

from rotator.core.errors import Misconfigured
from rotator.drivers.files import groups

_FRESH = re.compile(r"\.(.+)\.[0-9a-f]{16}\.rotator")

CROWDED = 64
# What was left in crowded folders when they were listed, by device and inode: another may be mounted there.
_listed: dict[str, tuple[tuple[int, int], dict[str, list[str]]]] = {}

# Two targets of one new folder are settled on different threads.
_making = threading.Lock()


def sibling(path: Path) -> Path:
    """A fresh name beside ``path``; see `fresh`."""
    return path.with_name(fresh(path.name))


def fresh(name: str) -> str:
    """A name for what shall once be called ``name``: nobody can guess it, globs do not see it, `sweep` knows it."""
    return f".{name}.{secrets.token_hex(8)}.rotator"


def sweep(path: Path | str) -> None:
    """Delete what a killed process left half-made beside ``path``: files and empty folders named by `sibling`.

    What cannot be deleted or listed stays: the caller has something better to do than to fail over it. A crowded folder
    is listed once for all that are made in it: a hundred thousand targets may stand there, and each come again and
    again."""
    folder, name = os.path.split(path)
    for left in _left(folder, name):
        delete(Path(folder, left))


def forget(folder: str) -> None:
    """Something was left in it: let the next `sweep` list it anew."""
    _listed.pop(folder, None)


def _left(folder: str, name: str) -> list[str]:
    known = _listed.get(folder)
    try:
        status = os.stat(folder)  # noqa: PTH116 (a path object costs more than the call)
    except OSError:
        return []
    which = (status.st_dev, status.st_ino)
    if known is None or known[0] != which:
        count, found = _list(folder)
        if count < CROWDED:
            _listed.pop(folder, None)
            return found.get(name, [])
        known = _listed[folder] = (which, found)
    return known[1].pop(name, [])


def _list(folder: str) -> tuple[int, dict[str, list[str]]]:
    """How many entries it has and, by the name that each was to have, all that is half-made; where it cannot be listed
    whole 0 and what was seen."""
    count, found = 0, dict[str, list[str]]()
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                count += 1
                if (ours := _FRESH.fullmatch(entry.name)) is not None:
                    found.setdefault(ours[1], []).append(entry.name)
    except OSError:
        return 0, found
    return count, found


def delete(left: Path) -> None:
    """A leftover, if that can be done."""
    with suppress(OSError):
        left.rmdir() if left.is_dir() and not left.is_symlink() else left.unlink()


def sync(folder: Path | str) -> None:
    """Make the names in ``folder`` durable (fsync(2) on the directory). Raises OSError."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # A folder that we may search and write but not list cannot be opened for it.
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that cannot do it for folders
            raise
    finally:
        os.close(descriptor)


def make(folder: Path, gid: int | None) -> None:
    """Make ``folder`` and what is missing above it: 0711, or 0750 and given to ``gid``.

    Each appears under its name only when mode and group are right, for a folder that is there already is never
    changed again: one that a kill left at 0700 would lock its readers out for ever. Raises Misconfigured, OSError.
    """
    with _making:
        missing = [each for each in (folder, *folder.parents) if not each.exists()]
        for each in reversed(missing):
            sweep(each)
            _make_one(each, gid)


def _make_one(folder: Path, gid: int | None) -> None:
    temporary = sibling(folder)
    temporary.mkdir(0o700)
    try:
        # The bit comes from the folder above, where whoever set it (a Kubernetes fsGroup) wants its group in here too.
        inherited = stat.S_IMODE(temporary.stat().st_mode) & stat.S_ISGID
        if gid is not None:
            groups.give(temporary, gid, folder)
        mode = 0o711 if gid is None else 0o750
        try:
            temporary.chmod(mode | inherited)
        except PermissionError:
            temporary.chmod(mode)  # RestrictSUIDSGID= of systemd forbids to set the bit anew.
        temporary.rename(folder)
    except BaseException as error:
        with suppress(OSError):
            temporary.rmdir()
        # Another process was quicker and has already put something in.
        if not (isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST) and folder.is_dir()):
            raise
    sync(folder.parent)


def check(folder: Path, path: Path) -> None:
    """Refuse a folder that is missing, or in which everybody could put another file in the place of ``path``.

    A world-writable folder without the sticky bit was given to us whole, and is accepted, where it is a mount (an
    emptyDir is 0777 and private to its Pod) or where our own private folder stands in it.
    Raises Misconfigured, OSError.
    """
    try:
        status = folder.stat()
    except FileNotFoundError:
        raise Misconfigured(
            f"the folder {folder} for {path.name} does not exist", mend="create it, or mount the volume that holds it"
        ) from None
    open_to_all = status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX
    if open_to_all and not is_mounted(folder.resolve()) and not _has_private(folder):
        raise Misconfigured(
            f"everybody may write in {folder} (mode {stat.S_IMODE(status.st_mode):04o}) and put another token in the "
            f"place of {path.name}",
            mend=f"chmod o-w {folder}, or choose another folder",
        )


def is_mounted(path: Path) -> bool:
    """Whether something is mounted at exactly ``path``, a single file included (proc_pid_mountinfo(5)).

    Comparing device numbers, as os.path.ismount does, misses a bind mount within one file system."""
    name = os.fsencode(path)
    for character in b"\\ \t\n":
        name = name.replace(bytes([character]), b"\\%03o" % character)
    try:
        mounts = Path("/proc/self/mountinfo").read_bytes()
    except OSError:
        return path.is_mount()
    return any(line.split(b" ")[4] == name for line in mounts.splitlines())


def _has_private(folder: Path) -> bool:
    """Whether a folder of ours that nobody else may enter stands in ``folder``, such as the one for our state."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o700 and status.st_uid == os.geteuid():
                return True
    return False

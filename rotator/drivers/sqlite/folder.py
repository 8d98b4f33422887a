"""The private folder of a state: who may enter, and who holds it.

Our state stands in a 0700 folder that we make inside the directory given to us, so that an emptyDir (0777) and an
fsGroup volume (setgid, 2775) serve as well as a StateDirectory=. The kubelet opens files of an fsGroup volume to the
group at every mount; hence modes are set at every opening, never only at creation.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from rotator import __version__
from rotator.core.errors import BadUsage, Misconfigured, Overtaken, RotatorError, Unavailable
from rotator.core.publication import rfc3339

PRIVATE_FOLDER = 0o700
PRIVATE_FILE = 0o600

LOCK = "lock"
# A look at a lock holds it for microseconds; so many tries outlast any number of people who look.
LOOKS = 10_000


def folder_of(path: Path) -> Path:
    """The private folder of the state that the configuration calls ``path``: ``state.db`` stands in ``state/``."""
    return path.parent / path.stem


def database_of(path: Path) -> Path:
    return folder_of(path) / path.name


def make(path: Path) -> Path:
    """Make the private folder, or check it and force its mode; return it.

    Its parent is never made: where a volume is not mounted, a fresh state on the disk below it would forget the
    password budget. Raises Misconfigured where it is not ours, Unavailable where the file system takes nothing.
    """
    folder = folder_of(path)
    try:
        folder.mkdir(mode=PRIVATE_FOLDER)
        folder.chmod(PRIVATE_FOLDER)  # The umask may have taken our own bits; a setgid parent has added one.
        sync(folder.parent)
    except FileExistsError:
        pass
    except OSError as error:
        raise _unusable(folder, error) from None
    _check(folder)
    return folder


def _check(folder: Path) -> None:
    try:
        # O_NOFOLLOW: in a directory that others can write, a link of that name may point anywhere.
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _unusable(folder, error) from None
    try:
        owner = os.fstat(fd).st_uid
        if owner != os.geteuid():
            # Handed over to root, the service could not use it any more.
            how = f": setpriv --reuid={owner} --clear-groups rotator …" if os.geteuid() == 0 else ", or chown -R it"
            raise Misconfigured(
                f"the state folder {folder} belongs to user {owner}, this process is user {os.geteuid()}",
                mend=f"run rotator as user {owner}{how}",
            )
        os.fchmod(fd, PRIVATE_FOLDER)
    except OSError as error:
        raise _unusable(folder, error) from None
    finally:
        os.close(fd)


def tighten(folder: Path) -> None:
    """Force 0600 on every file in it."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False):
                # SQLite may delete a file of its own between the listing and this call.
                with suppress(FileNotFoundError):
                    if stat.S_IMODE(entry.stat(follow_symlinks=False).st_mode) != PRIVATE_FILE:
                        Path(entry.path).chmod(PRIVATE_FILE)


def open_private(path: Path, flags: int) -> int:
    """Open ``path``, made where it is missing, with mode 0600 under any umask; return its descriptor."""
    fd = os.open(path, flags | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
    try:
        os.fchmod(fd, PRIVATE_FILE)
    except OSError:
        os.close(fd)
        raise
    return fd


def sync(folder: Path) -> None:
    """Make names that were made or moved in ``folder`` durable (fsync(2) of a file does not cover its name)."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _unusable(folder: Path, error: OSError) -> RotatorError:
    why = error.strerror or type(error).__name__
    match error.errno:
        case errno.ENOENT:
            return Misconfigured(
                f"the directory {folder.parent} of state.url does not exist",
                mend="make it, mount it, or let systemd make it with StateDirectory=",
            )
        case errno.ENOTDIR | errno.ELOOP:
            return Misconfigured(f"{folder} is not a directory", mend="move it away, or change state.url")
        case errno.EACCES | errno.EPERM:
            return Misconfigured(
                f"the state folder {folder} cannot be used: {why}",
                mend=f"give user {os.geteuid()} the right to write in {folder.parent}, or change state.url",
            )
    return Unavailable(f"the state folder {folder} cannot be used: {why}", mend="mend the file system")


class Lock:
    """The right to be the only daemon of a state: flock(2) on ``<folder>/lock``, which dies with its process.

    What stands in the file only serves the message for who comes second.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd: int | None = None

    def take(self, now: datetime) -> None:
        """Raises Overtaken naming the holder, Unavailable where the lock file cannot be opened or locked."""
        try:
            fd = open_private(self._folder / LOCK, os.O_RDWR)
        except OSError as error:
            raise _unusable(self._folder, error) from None
        try:
            self._contend(fd)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        # A full disk is no reason to fail: only the message for the second comer would be poorer.
        with suppress(OSError):
            os.ftruncate(fd, 0)
            os.pwrite(fd, json.dumps(_self_description(now)).encode(), 0)

    def _contend(self, fd: int) -> None:
        for _ in range(LOOKS):
            if _locked(fd, fcntl.LOCK_EX, self._folder):
                return
            if not _locked(fd, fcntl.LOCK_SH, self._folder):
                raise Overtaken(
                    f"the state {self._folder} is held by {described(_read(fd))}",
                    mend="a state has one daemon: ask that one (`rotator status`), or stop it first",
                )
            # Only somebody who looks (see `holder`) was in the way.
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.sched_yield()
        raise Overtaken(f"the lock of the state {self._folder} is contended", mend="start again")

    def release(self) -> None:
        """Idempotent."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def holder(folder: Path) -> dict[str, Any] | None:
    """Who holds the lock of ``folder``: pid, started_at, version, command; empty where the file does not tell.

    None: nobody, or there is no such state. Raises BadUsage where we may not look, Unavailable where nobody can.
    """
    try:
        fd = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        raise private(folder) from None
    try:
        return None if _locked(fd, fcntl.LOCK_SH, folder) else _read(fd)
    finally:
        os.close(fd)


def private(folder: Path) -> BadUsage:
    return BadUsage(
        f"the state folder {folder} is private to the user of the daemon",
        mend="run this command as that user, or as root",
    )


def described(who: dict[str, Any]) -> str:
    """The holder in words."""
    if "pid" not in who:
        return "another process"
    return f"process {who['pid']} ({who.get('command', 'rotator')}) since {who.get('started_at', 'an unknown time')}"


def _self_description(now: datetime) -> dict[str, Any]:
    # Not the whole command line: who starts us may have put anything there.
    return {
        "pid": os.getpid(),
        "started_at": rfc3339(now),
        "version": __version__,
        "command": " ".join((Path(sys.argv[0]).name, *sys.argv[1:2])),
    }


def _locked(fd: int, kind: int, folder: Path) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise Unavailable(
            f"the lock of the state {folder} cannot be used: {error.strerror}",
            mend="if it stays so, put the state on a file system that has locks (flock(2))",
        ) from None
    return True


def _read(fd: int) -> dict[str, Any]:
    try:
        who = json.loads(os.pread(fd, 4096, 0))
    except ValueError:
        return {}
    return who if isinstance(who, dict) else {}

"""Publishes to one file.

A value is written to a temporary file in the same folder, given its group and mode before its first byte, fsynced,
renamed over the target (rename(2)), and the folder is fsynced. Nothing is written where the right bytes, mode and
group stand already.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

from rotator.core import lean, publication
from rotator.core.errors import Misconfigured
from rotator.core.publication import Format, Found, Publication, Settled
from rotator.core.tokens import AccessToken, Secret
from rotator.drivers.files import failures, folders, groups, lanes

_SCHEME = "file:"

# Whatever is larger was not written by us: the answer that a token came in is read up to 1 MiB.
_LARGEST = 4 << 20


def parse_location(location: str) -> Path | None:
    """The path behind a `FilePublisher.location`, or None where it is the location of something else."""
    path = Path(location.removeprefix(_SCHEME))
    return path if location.startswith(_SCHEME) and path.is_absolute() else None


@lean.dataclass(frozen=True, slots=True)
class _There:
    """What stands at the path; ``content`` is None where that is no regular file, or one that cannot be read."""

    content: bytes | None = None
    mode: int = 0
    gid: int = -1


class FilePublisher:
    """One file as a target; see `ports.Publisher`.

    ``mode`` is set exactly, whatever the umask. ``group`` is a name or a number; None leaves the group that the
    folder gives (its own where it is setgid, as with a Kubernetes ``fsGroup``). ``make_parents`` makes missing
    folders, 0711, or 0750 with the group. ``template`` is for `Format.TEMPLATE` alone.

    Every method raises Misconfigured where a path, a right or a name must be changed, and `settle` and `remove`
    raise Unavailable where waiting may help (a full or read-only disk, a folder that is not mounted yet).
    """

    local = True
    judged_by_mark = False

    def __init__(
        self,
        path: Path | str,
        *,
        form: Format = Format.RAW,
        template: str = "",
        mode: int = 0o600,
        group: str | None = None,
        make_parents: bool = False,
    ) -> None:
        # ".." is taken by its letters, once: the stored location and the file are then the same place for ever.
        # Text: a path object costs more than the call that it is for, and of a crowd each is made again and again.
        self._at = os.path.abspath(path)  # noqa: PTH100
        self._folder = os.path.dirname(self._at)  # noqa: PTH120
        self._form = form
        self._template = template
        self._mode = mode
        self._group = group
        self._gid: int | None = None
        self._make_parents = make_parents
        self._swept = False
        self.lane = lanes.of(self._folder)

    @property
    def location(self) -> str:
        return f"{_SCHEME}{self._at}"

    @property
    def _path(self) -> Path:
        return Path(self._at)

    def __repr__(self) -> str:
        return f"FilePublisher({self._at})"

    def check(self) -> None:
        """Check before anything starts, and make the folders where they are ours to make. Blocks; for start-up.

        An empty file is made beside the target and taken away again: group, mode and the right to write are proved,
        not guessed. What waiting may mend (a full disk) is left to `settle`, and so are the leftovers of a killed
        process, because `check` may run beside a living daemon. Raises Misconfigured.
        """
        try:
            self._check_form()
            self._make_folder()
            folders.check(self._path.parent, self._path)
            there = self._look()
            if there is not None and folders.is_mounted(self._path.parent.resolve() / self._path.name):
                raise failures.mounted(self._path)
            temporary, descriptor = self._create()
            os.close(descriptor)
            os.unlink(temporary)  # noqa: PTH108
        except OSError as error:
            failure = failures.of(self._path, error)
            if isinstance(failure, Misconfigured):
                raise failure from None

    async def settle(self, wanted: Publication, now: datetime) -> Settled:
        """See `ports.Publisher.settle`. When cancelled, the write has not begun or ends in the background."""
        return await self.lane.run(lambda: self._settle(wanted, now))

    def stands(self, wanted: Publication, now: datetime) -> bool:
        """Whether exactly this stands there; False too where that cannot be told. Blocks, on the thread of ``lane``."""
        try:
            self._sweep_once()
            return self._judge(self._look(), wanted, now).found is Found.CURRENT
        except Exception:  # noqa: BLE001 (whoever settles it tells, and no other target suffers for it)
            return False

    async def remove(self, mark: str) -> bool:
        """Delete the file while the SHA-256 of its bytes is ``mark``; False where it is absent or something else."""
        return await self.lane.run(lambda: self._remove(mark))

    def _settle(self, wanted: Publication, now: datetime) -> Settled:
        try:
            self._sweep_once()
            there = self._look()
            found = self._judge(there, wanted, now)
            if found.found in (Found.AHEAD, Found.CURRENT):
                return found
            content = publication.render(wanted, self._form, now, self._template)
            self._make_folder()
            self._replace(content)
        except OSError as error:
            raise failures.of(self._path, error) from None
        return Settled(found.found, mark=_mark(content))

    def _remove(self, mark: str) -> bool:
        try:
            self._sweep_once()
            there = self._look()
            if there is not None and there.content is None:
                self._path.lstat()  # raises where we may not even enter the folder: then nobody knows what is there
            if there is None or there.content is None or _mark(there.content) != mark:
                return False
            self._path.unlink()
            folders.sync(self._folder)
        except OSError as error:
            raise failures.of(self._path, error) from None
        return True

    def _sweep_once(self) -> None:
        """Delete what a killed process left beside the target: it holds a token. Once per publisher is enough, for our
        own is always taken away, and the lane keeps this process's other writers off."""
        if not self._swept:
            folders.sweep(self._at)
            self._swept = True

    def _look(self) -> _There | None:
        """Read what stands at the path, following no symlink and waiting for no fifo. Raises Misconfigured, OSError."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        try:
            descriptor = os.open(self._at, flags)
        except FileNotFoundError:
            return None
        except OSError as error:
            # A symlink, a socket, a file of somebody else: whether it may be replaced, the rename will tell.
            if error.errno in (errno.ELOOP, errno.ENXIO, errno.EACCES, errno.EPERM):
                return _There()
            raise
        try:
            status = os.fstat(descriptor)
            if stat.S_ISDIR(status.st_mode):
                raise IsADirectoryError(errno.EISDIR, "")
            if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
                return _There()
            content = os.read(descriptor, status.st_size + 1)
            while more := os.read(descriptor, _LARGEST) if len(content) > status.st_size else b"":
                content += more  # it grew meanwhile
            return _There(content, stat.S_IMODE(status.st_mode), status.st_gid)
        finally:
            os.close(descriptor)

    def _judge(self, there: _There | None, wanted: Publication, now: datetime) -> Settled:
        if there is None or there.content is None:
            return Settled(Found.ABSENT if there is None else Found.ALTERED)
        judged = publication.judge(there.content, wanted, self._form, now, self._template)
        if judged.found is not Found.CURRENT:
            return judged
        if there.mode != self._mode or self._find_group() not in (None, there.gid):
            return Settled(Found.ALTERED)
        return Settled(Found.CURRENT, mark=_mark(there.content))

    def _replace(self, content: bytes) -> None:
        temporary, descriptor = self._create()
        try:
            try:
                rest = memoryview(content)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, self._at)  # noqa: PTH105
        except BaseException:
            self._throw_away(temporary)
            raise
        folders.sync(self._folder)

    def _throw_away(self, temporary: str) -> None:
        try:
            os.unlink(temporary)  # noqa: PTH108
        except OSError:
            # It holds a token: with the next settling once more.
            folders.forget(self._folder)
            self._swept = False

    def _create(self) -> tuple[str, int]:
        """An empty file beside the target, its group and mode as they shall be. Raises Misconfigured, OSError."""
        gid = self._find_group()
        temporary = f"{self._folder}/{folders.fresh(os.path.basename(self._at))}"  # noqa: PTH119
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            if gid is not None:
                groups.give(descriptor, gid, self._path)
            # Only where it is not so already: each change of a file wakes whoever watches its folder, ourselves too.
            if stat.S_IMODE(os.fstat(descriptor).st_mode) != self._mode:
                os.fchmod(descriptor, self._mode)
            kept = stat.S_IMODE(os.fstat(descriptor).st_mode)
            if kept != self._mode:
                raise Misconfigured(
                    f"the file system of {self._path} makes mode {self._mode:04o} into {kept:04o}",
                    mend=f'choose another folder, or mode = "{kept:04o}" if those are the readers you mean',
                )
        except BaseException:
            os.close(descriptor)
            self._throw_away(temporary)
            raise
        return temporary, descriptor

    def _find_group(self) -> int | None:
        if self._gid is None and self._group is not None:
            self._gid = groups.find(self._group, self._path)
        return self._gid

    def _make_folder(self) -> None:
        if self._make_parents and not Path(self._folder).exists():
            folders.make(self._path.parent, self._find_group())

    def _check_form(self) -> None:
        if not self._mode & stat.S_IRUSR:
            raise Misconfigured(
                f"{self._path}: mode {self._mode:04o} lets rotator itself not read what stands there",
                mend=f'set mode = "{self._mode | stat.S_IRUSR:04o}"',
            )
        if self._form is not Format.TEMPLATE:
            return
        day = datetime(2000, 1, 1, tzinfo=UTC)
        sample = Publication("sample", "sample", AccessToken(Secret("sample"), "bearer", None, day, day, 1))
        try:
            filled = publication.render(sample, self._form, day, self._template)
        except Misconfigured as error:
            raise Misconfigured(f"{self._path}: {error.what}", mend=error.mend) from None
        if not filled:
            raise Misconfigured(f"{self._path}: the template is empty", mend="set the key `template`")


def _mark(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

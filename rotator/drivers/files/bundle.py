"""Publishes to a directory whose files are replaced as one: the layout of a kubelet's volumes (AtomicWriter).

``token`` is a link to ``..data/token``, and ``..data`` a link to a folder of one generation; replacing that one link
(rename(2)) swaps them all. The folder before the present one stays until the next swap: a reader that has resolved the
link but not yet opened the file finds it still.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from rotator.core import publication
from rotator.core.errors import Misconfigured
from rotator.core.publication import Format, Found, Publication, Settled
from rotator.drivers.files import failures, folders, groups, lanes

DATA = "..data"
_FRESH = "..data_tmp"
_PREFIX = "..rotator-"
_SCHEME = "file:"
_LARGEST = 4 << 20


class BundlePublisher:
    """A directory as a target; see `ports.Publisher`.

    ``contents`` gives each file its format (no template). ``mode``, ``group`` and ``make_parents`` are those of
    `FilePublisher`. What is in the directory beside our links stays as it is.
    """

    local = True
    judged_by_mark = False

    def __init__(
        self,
        path: Path,
        contents: Mapping[str, Format],
        *,
        mode: int = 0o600,
        group: str | None = None,
        make_parents: bool = False,
    ) -> None:
        self._path = Path(os.path.normpath(path.absolute()))
        self._contents = dict(contents)
        self._mode = mode
        self._group = group
        self._make_parents = make_parents
        self.lane = lanes.of(self._path)

    @property
    def location(self) -> str:
        """Of the link that is swapped: that is what a watcher sees."""
        return f"{_SCHEME}{self._path / DATA}"

    def __repr__(self) -> str:
        return f"BundlePublisher({self._path})"

    def check(self) -> None:
        """Check before anything starts: the right to write is proved, not guessed. Blocks. Raises Misconfigured."""
        try:
            self._make_folder()
            folders.check(self._path, self._path / DATA)
            fresh = self._fresh_folder()
            fresh.rmdir()
        except OSError as error:
            failure = failures.of(self._path / DATA, error)
            if isinstance(failure, Misconfigured):
                raise failure from None

    async def settle(self, wanted: Publication, now: datetime) -> Settled:
        """See `ports.Publisher.settle`. When cancelled, the write has not begun or ends in the background."""
        return await self.lane.run(lambda: self._settle(wanted, now))

    def stands(self, wanted: Publication, now: datetime) -> bool:
        """Whether exactly this stands there; False too where that cannot be told. Blocks, on the thread of ``lane``."""
        try:
            return self._judge(wanted, now).found is Found.CURRENT
        except Exception:  # noqa: BLE001 (whoever settles it tells, and no other target suffers for it)
            return False

    async def remove(self, mark: str) -> bool:
        """Delete the files while they are those of ``mark``; False where they are absent or something else."""
        return await self.lane.run(lambda: self._remove(mark))

    def _settle(self, wanted: Publication, now: datetime) -> Settled:
        try:
            found = self._judge(wanted, now)
            if found.found in (Found.AHEAD, Found.CURRENT):
                return found
            self._make_folder()
            rendered = {name: publication.render(wanted, form, now) for name, form in self._contents.items()}
            self._replace(rendered)
        except OSError as error:
            raise failures.of(self._path / DATA, error) from None
        return Settled(found.found, mark=_mark(rendered))

    def _remove(self, mark: str) -> bool:
        try:
            there = self._look()
            if there is None or _mark(there) != mark:
                return False
            # The link first: without it no name leads anywhere.
            (self._path / DATA).unlink()
            for name in there:
                if self._is_ours(name):
                    (self._path / name).unlink()
            self._sweep(())
            folders.sync(self._path)
        except OSError as error:
            raise failures.of(self._path / DATA, error) from None
        return True

    def _judge(self, wanted: Publication, now: datetime) -> Settled:
        """The worst of all files; as it should be only where links, modes and groups are too."""
        there = self._look()
        if there is None:
            return Settled(Found.ABSENT)
        judged = [
            publication.judge(there[name], wanted, form, now) if name in there else Settled(Found.ALTERED)
            for name, form in self._contents.items()
        ]
        for one in judged:
            if one.found is Found.AHEAD:
                return one
        for kind in (Found.OLDER, Found.FOREIGN):
            if any(one.found is kind for one in judged):
                return Settled(kind)
        good = all(one.found is Found.CURRENT for one in judged) and self._is_laid_out(set(there))
        return Settled(Found.CURRENT, mark=_mark(there)) if good else Settled(Found.ALTERED)

    def _look(self) -> dict[str, bytes] | None:
        """The files of the present folder; None where there is none. Raises OSError."""
        folder = self._path / DATA
        if not folder.is_symlink() or not folder.is_dir():
            return None
        found = {}
        for entry in sorted(folder.iterdir()):
            status = entry.lstat()
            if stat.S_ISREG(status.st_mode) and status.st_size <= _LARGEST:
                found[entry.name] = entry.read_bytes()
        return found

    def _is_laid_out(self, names: set[str]) -> bool:
        if names != set(self._contents) or not all(self._is_ours(name) for name in names):
            return False
        gid = self._gid()
        for name in names:
            status = (self._path / DATA / name).lstat()
            if stat.S_IMODE(status.st_mode) != self._mode or gid not in (None, status.st_gid):
                return False
        return True

    def _is_ours(self, name: str) -> bool:
        link = self._path / name
        return link.is_symlink() and os.readlink(link) == f"{DATA}/{name}"  # noqa: PTH115 (the text itself)

    def _replace(self, rendered: Mapping[str, bytes]) -> None:
        before = self._present()
        fresh = self._fresh_folder()
        try:
            for name, content in rendered.items():
                self._write(fresh / name, content)
            folders.sync(fresh)
            self._link(f"{fresh.name}", self._path / DATA)
            for name in rendered:
                if not self._is_ours(name):
                    self._link(f"{DATA}/{name}", self._path / name)
        except BaseException:
            if self._present() != fresh.name:
                shutil.rmtree(fresh, ignore_errors=True)
            raise
        for entry in list(self._path.iterdir()):
            if entry.name not in rendered and self._is_ours(entry.name):
                entry.unlink()
        folders.sync(self._path)
        self._sweep((fresh.name, before))

    def _link(self, to: str, place: Path) -> None:
        """Put a link where anything may stand, in one step."""
        fresh = self._path / _FRESH
        fresh.unlink(missing_ok=True)
        fresh.symlink_to(to)
        fresh.replace(place)

    def _write(self, place: Path, content: bytes) -> None:
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            gid = self._gid()
            if gid is not None:
                groups.give(descriptor, gid, place)
            os.fchmod(descriptor, self._mode)
            rest = memoryview(content)
            while rest:
                rest = rest[file.write(rest) :]
            os.fsync(descriptor)

    def _fresh_folder(self) -> Path:
        """Closed until group and mode are right."""
        fresh, gid = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._path)), self._gid()
        if gid is not None:
            groups.give(fresh, gid, self._path)
        fresh.chmod(0o711 if gid is None and self._mode & 0o077 == 0 else 0o755 if gid is None else 0o750)
        return fresh

    def _present(self) -> str | None:
        with suppress(OSError):
            return os.readlink(self._path / DATA)  # noqa: PTH115 (the text itself)
        return None

    def _sweep(self, kept: tuple[str | None, ...]) -> None:
        """Delete the folders of former generations: they hold tokens."""
        for entry in list(self._path.iterdir()):
            if entry.name.startswith(_PREFIX) and entry.name not in kept and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)

    def _gid(self) -> int | None:
        return None if self._group is None else groups.find(self._group, self._path)

    def _make_folder(self) -> None:
        if self._make_parents and not self._path.exists():
            folders.make(self._path, self._gid())


def _mark(contents: Mapping[str, bytes]) -> str:
    whole = hashlib.sha256()
    for name, content in sorted(contents.items()):
        whole.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return whole.hexdigest()

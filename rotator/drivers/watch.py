"""Notices changes of local targets by inotify(7).

Folders are watched, never files: a watch on a file stays with its inode, which every rename replaces.
"""

from __future__ import annotations

import asyncio
import os
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncinotify import Inotify, Watch

_SCHEME = "file:"
ANY = "*"
"""The name of no file: a location that ends in it is every file of its folder."""

# Bytes taken in one turn of the loop, some hundred events: a busy folder of others must not hold up everything else.
_BATCH = 16 << 10
# struct inotify_event: wd, mask, cookie, length of the name that follows. Read here and not by asyncinotify, which
# makes an object and a path of each: a publication alone is six events.
_EVENT = struct.Struct("iIII")
MOVED_FROM, MOVED_TO, MOVE_SELF = 0x40, 0x80, 0x800
OVERFLOW, IGNORED, DIRECTORY = 0x4000, 0x8000, 0x40000000
# How our publisher calls a file that is about to take the place of its target.
_OUR_END = b".rotator"
_OURS = re.compile(rb"\.(.+)\.[0-9a-f]{16}" + re.escape(_OUR_END), re.DOTALL)


@dataclass(slots=True)
class _Folder:
    """One watched folder: the locations behind its file names, and the names on the way to a missing folder.

    Two paths may lead to one folder, hence several locations per name."""

    watch: Watch
    files: dict[str, list[str]] = field(default_factory=dict)
    ways: set[str] = field(default_factory=set)

    @property
    def locations(self) -> list[str]:
        return [location for locations in self.files.values() for location in locations]


class InotifyWatcher:
    """See `ports.Watcher`. `watch`, `begin` and `close` are called on the event loop, which also calls back.

    A publication of our own calls nobody: a file that takes the place of its target from the name that only our
    publisher gives. The loss of a folder is a change of each target in it; while a folder is missing, the nearest one
    above it is watched instead, so that its return is noticed too. One call covers any number of changes read together.
    """

    def __init__(self) -> None:
        self._inotify: Inotify | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls: dict[str, Callable[[], None]] = {}
        self._folders: dict[int, _Folder] = {}
        self._begun = False

    def watch(self, locations: Mapping[str, Callable[[], None]]) -> None:
        """Watch exactly these; what is no file is passed over, and so is what cannot be watched: nothing is raised.

        Costs one system call per folder; a folder that stays is watched without a gap."""
        self._calls = {location: call for location, call in locations.items() if location.startswith(f"{_SCHEME}/")}
        if self._begun:
            self.begin()

    def begin(self) -> None:
        """Watch what was asked for. Loads what it takes to do so, which is 9 ms with a child process."""
        self._begun = True
        if self._inotify is None and self._calls:
            self._start()
        self._arm()

    def close(self) -> None:
        """Call nobody any more. Idempotent."""
        inotify, loop, self._inotify = self._inotify, self._loop, None
        self._calls, self._folders = {}, {}
        if inotify is None or loop is None:
            return
        if not loop.is_closed():
            loop.remove_reader(inotify.fd)
        inotify.close()

    def _start(self) -> None:
        loop = asyncio.get_running_loop()
        # Imported here for the start-up time: it loads ctypes, which looks for the C library with a child process.
        # Off Linux the import, the constructor or the loop raises one of these; EMFILE means max_user_instances.
        with suppress(ImportError, OSError, RuntimeError, AttributeError, NotImplementedError):
            from asyncinotify import Inotify

            inotify = Inotify(sync_timeout=0)
            # A reader instead of a task around Inotify.get(): nothing to cancel, and no event lost by cancelling.
            loop.add_reader(inotify.fd, self._read)
            self._inotify, self._loop = inotify, loop

    def _arm(self) -> None:
        """Watch the folders of all locations, as they are now, and let go of the others."""
        if self._inotify is None:
            return
        wanted: dict[Path, dict[str, str]] = {}
        for location in self._calls:
            path = Path(location.removeprefix(_SCHEME))
            wanted.setdefault(path.parent, {})[path.name] = location
        before, self._folders = self._folders, {}
        for folder, files in wanted.items():
            # EACCES, or ENOSPC for fs.inotify.max_user_watches: the regular look at the targets must do.
            with suppress(OSError):
                self._arm_folder(self._inotify, folder, files)
        for descriptor in before.keys() - self._folders.keys():
            with suppress(OSError):  # The kernel has dropped the watch of a deleted folder itself.
                self._inotify.rm_watch(before[descriptor].watch)

    def _arm_folder(self, inotify: Inotify, folder: Path, files: dict[str, str]) -> None:
        try:
            watched = self._add(inotify, folder)
        except (FileNotFoundError, NotADirectoryError):
            missing = next(each for each in (folder, *folder.parents) if each.parent.is_dir())
            self._add(inotify, missing.parent).ways.add(missing.name)
            # Made between the two looks, so that nothing would tell of it.
            if missing.is_dir():
                self._arm_folder(inotify, folder, files)
            return
        for name, location in files.items():
            watched.files.setdefault(name, []).append(location)

    def _add(self, inotify: Inotify, folder: Path) -> _Folder:
        from asyncinotify import Mask

        # MODIFY is for truncate(2), which closes nothing, CLOSE_WRITE for mmap(2), which modifies nothing, and CREATE
        # for a folder or a symlink that appears. IGNORED comes unasked when a folder is deleted or unmounted.
        mask = Mask.CREATE | Mask.DELETE | Mask.MOVE | Mask.MODIFY | Mask.CLOSE_WRITE | Mask.ATTRIB
        watch = inotify.add_watch(folder, mask | Mask.MOVE_SELF | Mask.ONLYDIR)
        return self._folders.setdefault(watch.wd, _Folder(watch))

    def _read(self) -> None:
        if self._inotify is None:
            return
        try:
            raw = os.read(self._inotify.fd, _BATCH)
        except OSError:  # nothing there after all
            return
        touched: list[str] = []
        again = False
        for descriptor, mask, name in _news(raw):
            more, lost = self._sort(descriptor, mask, name)
            touched += more
            again = again or lost
        if again:
            reached = set(self._reached())
            self._arm()
            touched += [location for location in self._reached() if location not in reached]
        for location in dict.fromkeys(touched):
            # The call before may have watched something else, or closed us.
            if (call := self._calls.get(location)) is not None:
                call()

    def _sort(self, descriptor: int, mask: int, name: str) -> tuple[list[str], bool]:
        """Which locations an event touches, and whether folders came or went."""
        if mask & OVERFLOW:
            return list(self._calls), True
        folder = self._folders.get(descriptor)
        if folder is None:
            return [], False
        if mask & (MOVE_SELF | IGNORED):
            return folder.locations, True
        return [*folder.files.get(name, ()), *folder.files.get(ANY, ())], name in folder.ways

    def _reached(self) -> list[str]:
        return [location for folder in self._folders.values() for location in folder.locations]


def _news(raw: bytes) -> Iterator[tuple[int, int, str]]:
    """Watch, mask and name of each event (inotify(7)) that is not of a publication of our own."""
    at, arriving = 0, (0, 0, b"")
    while at < len(raw):
        descriptor, mask, cookie, length = _EVENT.unpack_from(raw, at)
        at += _EVENT.size + length
        name = raw[at - length : at].rstrip(b"\0")
        if name.endswith(_OUR_END) and (ours := _OURS.fullmatch(name)) is not None:
            # What happens to it before it takes the place of a target is nobody's news.
            if mask & MOVED_FROM:
                arriving = descriptor, cookie, ours[1]
        # A folder that we made is news all the same.
        elif not mask & MOVED_TO or mask & DIRECTORY or (descriptor, cookie, name) != arriving:
            yield descriptor, mask, os.fsdecode(name)

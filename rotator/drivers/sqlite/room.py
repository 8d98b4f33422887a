"""Room on the disk for a save that must not fail.

Between the intent and the answer of a provider anybody can fill the disk. Two stores of room stand against that:

- *padding*: the row of a grant with an open intent is as large as the token set to come, so the pages that the
  answer needs belong to the database already (it never shrinks). Dropped at the save.
- the *reserve*, a file: a commit in WAL mode first appends its pages to the log, and the log may have to grow for
  it, which padding cannot help. Where a commit fails for room, the reserve is given up and the commit tried again.
  An intent never takes from it and needs it whole: where it cannot be made, nothing is spent.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from rotator.drivers.sqlite import folder as folders

RESERVE = "reserve"
# A save dirties about ten pages of 4 KiB: room for a handful of answers that arrive at once.
RESERVE_SIZE = 256 * 1024
LEAST_PADDING = 4096


def padding(record: str) -> int:
    """Bytes that an open intent keeps free: a token set to come is seldom twice the one that is there."""
    return max(LEAST_PADDING, 2 * len(record))


class Reserve:
    """The file that is given up when the disk is full. Used by the writer's thread alone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / RESERVE
        self._whole = False

    def keep(self, *, sparing: bool = True) -> bool:
        """Make it where it is missing; whether it is whole. ``sparing`` asks for room for it twice: made in passing,
        it must not itself fill the disk."""
        if self._whole:
            return True
        with suppress(OSError):
            fd = folders.open_private(self._path, os.O_RDWR)
            try:
                self._whole = os.fstat(fd).st_size >= RESERVE_SIZE
                file_system = os.fstatvfs(fd)
                room = file_system.f_bavail * file_system.f_frsize
                if not self._whole and room >= RESERVE_SIZE * (2 if sparing else 1):
                    # A hole would reserve nothing; posix_fallocate(3) really takes the blocks.
                    os.posix_fallocate(fd, 0, RESERVE_SIZE)
                    self._whole = True
            finally:
                if not self._whole:
                    os.ftruncate(fd, 0)
                os.close(fd)
        return self._whole

    def give_up(self) -> None:
        """Hand its room to the database. Cut, not deleted: a full directory need not take a new name later."""
        self._whole = False
        with suppress(OSError):
            os.truncate(self._path, 0)

"""The threads that write files."""

from __future__ import annotations

import os
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Every location has its lane of one thread: work on one path keeps its order, also when a cancelled `settle` goes on
# writing behind the next one and when a reload makes a second publisher. Python joins the threads at exit, so a write
# that was begun ends.
_LANES = tuple(ThreadPoolExecutor(1, thread_name_prefix=f"files-{number}") for number in range(4))


def of(path: Path) -> ThreadPoolExecutor:
    """The lane of a path, the same for ever."""
    return _LANES[zlib.crc32(os.fsencode(path)) % len(_LANES)]

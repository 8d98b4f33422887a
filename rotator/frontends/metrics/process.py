"""The process as /proc/self shows it (proc_pid_stat(5)).

Only /proc/self is read, so that a unit with ProcSubset=pid, which hides /proc/stat, loses nothing; what cannot be read
is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from rotator.core.policy import Moment
from rotator.frontends.metrics import catalogue
from rotator.frontends.metrics.catalogue import Family

SELF = Path("/proc/self")


def samples(moment: Moment, folder: Path = SELF) -> Iterator[tuple[Family, float]]:
    """Every figure that ``folder`` shows."""
    try:
        # The name in parentheses may hold anything; field 3 is the first behind it.
        fields = (folder / "stat").read_text().rpartition(")")[2].split()
        ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
        yield catalogue.CPU, (int(fields[11]) + int(fields[12])) / ticks
        # Told since boot, on the clock that counts suspension.
        age = moment.boottime.total_seconds() - int(fields[19]) / ticks
        yield catalogue.STARTED, round(moment.now.timestamp() - age, 2)
        yield catalogue.VIRTUAL, int(fields[20])
        yield catalogue.RESIDENT, int(fields[21]) * page
    except (OSError, ValueError, IndexError):
        pass
    try:
        yield catalogue.OPEN_FILES, sum(1 for _ in (folder / "fd").iterdir())
    except OSError:
        pass
    try:
        limits = (folder / "limits").read_text().partition("Max open files")[2].split()
        yield catalogue.MOST_FILES, float(limits[0].replace("unlimited", "inf"))
    except (OSError, ValueError, IndexError):
        pass

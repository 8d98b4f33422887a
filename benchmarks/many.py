"""Many grants at rest: what each costs in memory and at a start, and what all of them cost while nothing is due.

``python -m benchmarks.many COUNT`` is the process that is measured, and prints one line of JSON.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import growth

COUNTS = (500, 5000)
REST = 15.0


def measure() -> dict[int, dict[str, float]]:
    """By the number of grants: ``rss`` in MB after a start, ``start`` in seconds of processor time, ``rest`` as a part
    of one core."""
    found: dict[int, dict[str, float]] = {}
    for count in COUNTS:
        command = [sys.executable, "-m", "benchmarks.many", str(count)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=600)
        found[count] = json.loads(done.stdout)
    return found


def rows(found: dict[int, dict[str, float]]) -> list[tuple[str, str, str]]:
    few, many = min(found), max(found)
    each = (found[many]["rss"] - found[few]["rss"]) / (many - few) * 1000
    start = (found[many]["start"] - found[few]["start"]) / (many - few) * 1000
    return [
        (f"memory of {many} grants at rest, RSS", f"{found[many]['rss']:.0f} MB", "–"),
        ("… of each grant more", f"{each:.1f} kB", "–"),
        ("start of each grant more, its file written: processor time", f"{start:.2f} ms", "–"),
        (f"{many} grants while nothing is due: of one core", f"{found[many]['rest']:.1%}", "–"),
        growth.row("memory over grants in the configuration, RSS", {one: found[one]["rss"] for one in found}, "MB"),
        growth.row("start over grants in the configuration", {one: found[one]["start"] for one in found}, "s of CPU"),
    ]


async def _rest(count: int) -> dict[str, float]:
    from benchmarks import contender, herd

    place = contender.TMPFS if contender.TMPFS.is_dir() else Path(tempfile.gettempdir())
    with (
        tempfile.TemporaryDirectory(prefix="rotator-bench-") as state,
        tempfile.TemporaryDirectory(prefix="rotator-bench-", dir=place) as run,
        open(os.devnull, "w") as log,
    ):
        # Nobody is asked: every token is valid for an hour.
        url = "http://127.0.0.1:1/oauth/v2/token"
        shape = herd.Shape(url=url, count=count, in_flight=100, state=Path(state), run=Path(run))
        since = time.process_time()
        async with herd.Herd(shape, log):
            start = time.process_time() - since
            gc.collect()
            rss = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6
            since = time.process_time()
            await asyncio.sleep(REST)
            return {"rss": rss, "start": start, "rest": (time.process_time() - since) / REST}


if __name__ == "__main__":
    json.dump(asyncio.run(_rest(int(sys.argv[1]))), sys.stdout)
    print()

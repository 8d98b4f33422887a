"""A consumer that knows no OAuth: reads the token file without pause and presents what it reads.

Run as a process of its own: ``python -m rotator.lab.reader URL FILE``. Prints its counts as a JSON line whenever
a quarter of a second has passed, and ends when its standard input is closed.
"""

from __future__ import annotations

import http.client
import json
import os
import select
import sys
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from rotator.drivers import clock

REPORT_EVERY = timedelta(milliseconds=250)
PAUSE = timedelta(milliseconds=5)


def present(url: str, token: str) -> int:
    """POST with the token; the status the provider answers."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request("POST", parts.path, headers={"Authorization": f"Bearer {token}"})
        return connection.getresponse().status
    finally:
        connection.close()


def main(url: str, file: Path) -> None:
    counts = {"valid": 0, "invalid": 0, "missing": 0, "unanswered": 0}
    told_at = clock.boottime()
    while not select.select([sys.stdin], [], [], 0)[0]:
        try:
            token = file.read_text()
        except FileNotFoundError:
            counts["missing"] += 1
        else:
            try:
                status = present(url, token)
                counts["valid" if 200 <= status < 300 else "invalid"] += 1
            except (OSError, http.client.HTTPException):
                counts["unanswered"] += 1
        if clock.boottime() - told_at >= REPORT_EVERY:
            told_at = clock.boottime()
            print(json.dumps(counts), flush=True)  # noqa: T201 (its whole output)
        clock.pause(PAUSE)
    print(json.dumps(counts), flush=True)  # noqa: T201


if __name__ == "__main__":
    os.nice(1)
    main(sys.argv[1], Path(sys.argv[2]))

"""`rotator run` with two stamps on it: when the save of a granted answer was back, and what SQLite's commit took.

Run by its path, with the words of `rotator` behind it; a line for each granted answer is appended to the file STAMPS:
`time.monotonic_ns` as `save` returned to the engine, and the nanoseconds of its COMMIT. Nothing is traced.
"""

from __future__ import annotations

import os
import sqlite3
import time
from datetime import datetime
from functools import partial

from rotator.__main__ import main
from rotator.core.grants import Grant
from rotator.core.ports import Lease
from rotator.drivers import sqlite

commits: list[int] = []


class Connection(sqlite3.Connection):
    """Times every COMMIT: the pages into the log, and their fdatasync."""

    def execute(self, sql: str, *words: object) -> sqlite3.Cursor:
        since = time.monotonic_ns()
        cursor = super().execute(sql, *words)  # type: ignore[arg-type]
        if sql == "COMMIT":
            commits.append(time.monotonic_ns() - since)
        return cursor


class Store(sqlite.SqliteStore):
    """Stamps the saves that carry an answer."""

    async def save(self, grant: Grant, *, expected: int, lease: Lease | None, now: datetime) -> None:
        await super().save(grant, expected=expected, lease=lease, now=now)
        if grant.generation > expected:
            saved_at = time.monotonic_ns()
            os.write(stamps, f"{saved_at} {commits[-1]}\n".encode())


if __name__ == "__main__":
    stamps = os.open(os.environ.pop("STAMPS"), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    sqlite3.connect = partial(sqlite3.connect, factory=Connection)  # type: ignore[assignment]
    sqlite.SqliteStore = Store  # type: ignore[misc]
    main()

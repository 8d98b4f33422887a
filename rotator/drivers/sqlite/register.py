"""The register: grants that were enrolled at run time, beside their records, and its statements."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from rotator.core import records
from rotator.core.ports import Census, Entry, Listed
from rotator.drivers.sqlite.sealing import Seal

T = TypeVar("T")

OVERDUE = timedelta(minutes=1)
# SQLite takes 32 766 values in a statement (sqlite.org/limits.html, since 3.32); nobody asks for so many at once.
MOST = 500


class _Run(Protocol):
    def __call__(self, work: Callable[[sqlite3.Connection], T], /) -> Awaitable[T]: ...


class SqliteRegister:
    """The port `ports.Register`; ``read`` and ``write`` run work on the store's thread."""

    def __init__(self, read: _Run, write: _Run, seal: Seal) -> None:
        self._read = read
        self._write = write
        self._seal = seal

    async def enter(self, entries: Sequence[Entry]) -> None:
        await self._write(lambda connection: enter(connection, entries, self._seal))

    async def entries(self, names: Collection[str]) -> Sequence[Entry]:
        ordered = sorted(names)
        found: list[Entry] = []
        for first in range(0, len(ordered), MOST):
            some = ordered[first : first + MOST]
            found += await self._read(lambda connection, some=some: named(connection, some, self._seal))  # type: ignore[misc]
        return found

    async def page(self, after: str, limit: int) -> Sequence[Listed]:
        return await self._read(lambda connection: page(connection, after, limit))

    async def strike(self, name: str) -> bool:
        return await self._write(
            lambda connection: connection.execute("DELETE FROM register WHERE name = ?", (name,)).rowcount > 0
        )

    async def census(self, now: datetime) -> Census:
        return await self._read(lambda connection: census(connection, now))


def enter(connection: sqlite3.Connection, entries: Sequence[Entry], seal: Seal) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO register (name, text) VALUES (?, ?)",
        [(one.name, seal.close(one.text, _about(one.name))) for one in entries],
    )


def named(connection: sqlite3.Connection, names: Sequence[str], seal: Seal) -> list[Entry]:
    marks = ", ".join("?" * len(names))
    rows = connection.execute(f"SELECT name, text FROM register WHERE name IN ({marks}) ORDER BY name", names)  # noqa: S608
    return [Entry(name, seal.open(text, _about(name))) for name, text in rows]


LISTED = """SELECT register.name, coalesce(generation, 0), expires_at, due_at
    FROM register LEFT JOIN grants USING (name) WHERE register.name > ? ORDER BY register.name LIMIT ?"""
CENSUS = """SELECT count(*), count(CASE WHEN expires_at > ?1 THEN 1 END),
    count(CASE WHEN grants.name IS NOT NULL AND due_at IS NULL THEN 1 END), count(CASE WHEN due_at <= ?2 THEN 1 END)
    FROM register LEFT JOIN grants USING (name)"""


def page(connection: sqlite3.Connection, after: str, limit: int) -> list[Listed]:
    return [
        Listed(name, generation, _time(expires_at), _time(due_at))
        for name, generation, expires_at, due_at in connection.execute(LISTED, (after, limit))
    ]


def census(connection: sqlite3.Connection, now: datetime) -> Census:
    times = records.stamp(now), records.stamp(now - OVERDUE)
    return Census(*connection.execute(CENSUS, times).fetchone())


def seal_anew(connection: sqlite3.Connection, seal: Seal) -> int:
    """Write every entry under the seal as it is now; how many."""
    rows = connection.execute("SELECT name, text FROM register").fetchall()
    for name, text in rows:
        about = _about(name)
        sealed = seal.close(seal.open(text, about), about)
        connection.execute("UPDATE register SET text = ? WHERE name = ?", (sealed, name))
    return len(rows)


def _about(name: str) -> str:
    """What a sealed entry is bound to: it opens under no other name, and is no record."""
    return json.dumps(["register", name])


def _time(micros: int | None) -> datetime | None:
    return None if micros is None else records.time(micros)

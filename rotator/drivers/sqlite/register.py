"""The register: grants that were enrolled at run time, beside their records, and its statements."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from rotator.core import records
from rotator.core.errors import Unavailable
from rotator.core.health import Census, Listed
from rotator.core.ports import Entry, Heard
from rotator.core.pressure import Line
from rotator.core.sealing import Seal

T = TypeVar("T")

OVERDUE = timedelta(minutes=1)
# SQLite takes 32 766 values in a statement (sqlite.org/limits.html, since 3.32); nobody asks for so many at once.
MOST = 500
_ASIDE = ThreadPoolExecutor(1, thread_name_prefix="census")


class _Run(Protocol):
    def __call__(self, work: Callable[[sqlite3.Connection], T], /) -> Awaitable[T]: ...


class _Aside(Protocol):
    def __call__(self, work: Callable[[sqlite3.Connection], T], /) -> T: ...


class SqliteRegister:
    """The port `ports.Register`; ``read`` and ``write`` run work on the store's thread, ``aside`` on this one with a
    connection that may only read."""

    def __init__(self, read: _Run, write: _Run, aside: _Aside, seal: Seal) -> None:
        self._read = read
        self._write = write
        self._aside = aside
        self._seal = seal

    async def enter(self, entries: Sequence[Entry]) -> None:
        await self._write(lambda connection: enter(connection, entries, self._seal))

    async def entries(self, names: Collection[str]) -> Sequence[Entry]:
        return await self._read(lambda connection: named(connection, sorted(names), self._seal))

    async def page(self, after: str, limit: int) -> Sequence[Listed]:
        return await self._read(lambda connection: page(connection, after, limit))

    async def strike(self, name: str) -> bool:
        return await self._write(lambda connection: strike(connection, name))

    async def due(
        self, now: datetime, rooms: Mapping[tuple[str, Line], int]
    ) -> Mapping[tuple[str, Line], Sequence[str]]:
        return await self._read(lambda connection: due(connection, now, rooms))

    async def next_due(self, after: datetime, providers: Collection[str]) -> datetime | None:
        return await self._read(lambda connection: next_due(connection, after, providers))

    async def census(self, now: datetime) -> Census:
        """On a thread and a connection of its own: it reads every row of the register."""
        loop = asyncio.get_running_loop()
        try:
            counting = loop.run_in_executor(_ASIDE, lambda: self._aside(lambda connection: census(connection, now)))
        except RuntimeError as error:  # no thread may be started (TasksMax=), or Python ends
            raise Unavailable(f"the register cannot be counted: {error}") from None
        return await counting

    async def heard(self) -> Heard:
        """Nobody else writes here."""
        return Heard()


def enter(connection: sqlite3.Connection, entries: Sequence[Entry], seal: Seal) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO register (name, provider, text) VALUES (?, ?, ?)",
        [(one.name, one.provider, seal.close(one.text, _about(one.name))) for one in entries],
    )
    connection.executemany(
        # Of a record of the first schema no line is known before it is saved: any will do until then.
        "UPDATE grants SET provider = ?1, line = coalesce(line, ?3) WHERE name = ?2 AND provider IS NOT ?1",
        [(one.provider, one.name, Line.HELD.value) for one in entries],
    )


def strike(connection: sqlite3.Connection, name: str) -> bool:
    connection.execute("UPDATE grants SET provider = NULL WHERE name = ?", (name,))
    return connection.execute("DELETE FROM register WHERE name = ?", (name,)).rowcount > 0


IN_LINE = """SELECT name FROM grants WHERE provider = ? AND line = ? AND due_at <= ?
    ORDER BY due_at, name LIMIT ?"""
NEXT_IN_LINE = "SELECT min(due_at) FROM grants WHERE provider = ? AND line = ? AND due_at > ?"


def due(
    connection: sqlite3.Connection, now: datetime, rooms: Mapping[tuple[str, Line], int]
) -> dict[tuple[str, Line], list[str]]:
    found: dict[tuple[str, Line], list[str]] = {}
    for (provider, line), room in rooms.items():
        rows = connection.execute(IN_LINE, (provider, line.value, records.stamp(now), room))
        found[provider, line] = [name for (name,) in rows]
    return found


def next_due(connection: sqlite3.Connection, after: datetime, providers: Collection[str]) -> datetime | None:
    times = [
        connection.execute(NEXT_IN_LINE, (provider, line.value, records.stamp(after))).fetchone()[0]
        for provider in providers
        for line in Line
    ]
    return _time(min((at for at in times if at is not None), default=None))


ENTRIES = "SELECT name, provider, text FROM register"


def named(connection: sqlite3.Connection, names: Sequence[str], seal: Seal) -> list[Entry]:
    found: list[Entry] = []
    for first in range(0, len(names), MOST):
        some = names[first : first + MOST]
        marks = ", ".join("?" * len(some))
        rows = connection.execute(f"{ENTRIES} WHERE name IN ({marks}) ORDER BY name", some)
        found += [Entry(name, provider, seal.open(text, _about(name))) for name, provider, text in rows]
    return found


LISTED = """SELECT register.name, register.provider, coalesce(generation, 0), expires_at, due_at
    FROM register LEFT JOIN grants USING (name) WHERE register.name > ? ORDER BY register.name LIMIT ?"""
CENSUS = """SELECT count(*), count(CASE WHEN expires_at > ?1 THEN 1 END),
    count(CASE WHEN grants.name IS NOT NULL AND due_at IS NULL THEN 1 END), count(CASE WHEN due_at <= ?2 THEN 1 END)
    FROM register LEFT JOIN grants USING (name)"""


def page(connection: sqlite3.Connection, after: str, limit: int) -> list[Listed]:
    return [
        Listed(name, provider, generation, _time(expires_at), _time(due_at))
        for name, provider, generation, expires_at, due_at in connection.execute(LISTED, (after, limit))
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

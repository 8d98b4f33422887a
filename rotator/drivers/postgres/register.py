"""The register of a fleet: grants that were enrolled at run time, beside their records."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, LiteralString

from rotator.core import records
from rotator.core.health import Census, Listed
from rotator.core.ports import Entry, Heard
from rotator.core.pressure import Line
from rotator.drivers.postgres import entering
from rotator.drivers.postgres.forms import Forms
from rotator.drivers.postgres.parts import Parts
from rotator.drivers.postgres.wire import Rows, Statement

OVERDUE = timedelta(minutes=1)
COUNTED = 5000
"""So many rows are counted in one statement: what else is asked waits for a few hundredths of a second at most."""


class PostgresRegister:
    """The port `ports.Register`. ``parts`` gives those of the open store, ``writable`` those of one that may write."""

    def __init__(self, parts: Callable[[], Parts], writable: Callable[[], Parts], forms: Forms) -> None:
        self._parts = parts
        self._writable = writable
        self._forms = forms

    async def enter(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        parts = self._writable()
        _, rows, _ = await parts.write(*entering.enter(entries, self._forms))
        for name, at in rows:
            parts.changes.entered.note(name, at)

    async def strike(self, name: str) -> bool:
        parts = self._writable()
        (rows, *_), again = await parts.writing.submit(parts.do, name, entering.strike(name))
        for struck, at in rows:
            parts.changes.struck.note(struck, at)
        # Where its answer was lost, it is gone by our own doing.
        return bool(rows) or again

    ENTRIES: LiteralString = "SELECT name, provider, text FROM rotator_register WHERE name = ANY(%b::text[])"

    async def entries(self, names: Collection[str]) -> Sequence[Entry]:
        if not names:
            return []
        (rows,) = await self._read((self.ENTRIES, (list(names),)))
        return [self._forms.read_entry(*row) for row in sorted(rows)]

    LISTED: LiteralString = """
        SELECT r.name, r.provider, COALESCE(g.generation, 0), g.expires_at, COALESCE(g.due_at, g.visit_at),
            g.name IS NOT NULL AND (g.provider IS NULL OR g.provider <> r.provider OR g.due_at IS NOT NULL)
        FROM (SELECT name, provider FROM rotator_register WHERE name > %s ORDER BY name LIMIT %s) AS r
            LEFT JOIN rotator_grants AS g ON g.name = r.name
        ORDER BY r.name"""

    async def page(self, after: str, limit: int) -> Sequence[Listed]:
        """Records that do not know that they are of the register are put right in passing: entered while they were
        enrolled elsewhere, or saved by a daemon that knows none."""
        parts = self._parts()
        (rows,) = await parts.read((self.LISTED, (after, limit)))
        strayed = [row[0] for row in rows if row[5]]
        if strayed and parts.writes:
            await parts.write((entering.CLAIMED, (strayed,)))
        return [
            Listed(name, provider, generation, _time(expires_at), _time(due_at))
            for name, provider, generation, expires_at, due_at, _ in rows
        ]

    # Each provider and line by itself, from the index: a crowd of one hides nobody of another. A record whose entry is
    # gone (an older daemon may leave one) would be due for ever, before all others.
    IN_LINE: LiteralString = """
        SELECT w.provider, w.line, d.name FROM unnest(%b::text[], %b::bigint[]) AS w (provider, line)
            CROSS JOIN LATERAL (SELECT g.name, g.visit_at FROM rotator_grants AS g
                WHERE g.provider = w.provider AND g.line = w.line AND g.visit_at <= %s
                    AND EXISTS (SELECT 1 FROM rotator_register AS r WHERE r.name = g.name)
                ORDER BY g.visit_at, g.name LIMIT %s) AS d
        ORDER BY d.visit_at, d.name"""
    NEXT_IN_LINE: LiteralString = """
        SELECT min(d.visit_at) FROM unnest(%b::text[], %b::bigint[]) AS w (provider, line)
            CROSS JOIN LATERAL (SELECT g.visit_at FROM rotator_grants AS g
                WHERE g.provider = w.provider AND g.line = w.line AND g.visit_at > %s
                ORDER BY g.visit_at LIMIT 1) AS d"""

    async def due(
        self, now: datetime, rooms: Mapping[tuple[str, Line], int]
    ) -> Mapping[tuple[str, Line], Sequence[str]]:
        if not rooms:
            return {}
        keys = [provider for provider, _ in rooms], [line.value for _, line in rooms]
        # Not every server takes a limit from a column: it is that of the widest.
        (rows,) = await self._read((self.IN_LINE, (*keys, records.stamp(now), max(rooms.values()))))
        found: dict[tuple[str, Line], list[str]] = {}
        for provider, line, name in rows:
            key = provider, Line(line)
            names = found.setdefault(key, [])
            if len(names) < rooms[key]:
                names.append(name)
        return found

    async def next_due(self, after: datetime, providers: Collection[str]) -> datetime | None:
        keys = [(provider, line.value) for provider in providers for line in Line]
        if not keys:
            return None
        asked = [provider for provider, _ in keys], [line for _, line in keys], records.stamp(after)
        (((at,),),) = await self._read((self.NEXT_IN_LINE, asked))
        return _time(at)

    COUNT: LiteralString = """
        SELECT count(*), count(CASE WHEN g.expires_at > %s THEN 1 END),
            count(CASE WHEN g.name IS NOT NULL AND g.visit_at IS NULL THEN 1 END),
            count(CASE WHEN g.visit_at <= %s THEN 1 END), max(r.name)
        FROM (SELECT name FROM rotator_register WHERE name > %s ORDER BY name LIMIT %s) AS r
            LEFT JOIN rotator_grants AS g ON g.name = r.name"""

    async def census(self, now: datetime) -> Census:
        """Counted piece by piece: it need not be of one instant, and holds up nobody."""
        times = records.stamp(now), records.stamp(now - OVERDUE)
        counts, after = [0, 0, 0, 0], ""
        while True:
            ((row,),) = await self._read((self.COUNT, (*times, after, COUNTED)))
            counts = [one + more for one, more in zip(counts, row[:4], strict=True)]
            if row[0] < COUNTED:
                return Census(*counts)
            after = row[4]

    async def heard(self) -> Heard:
        return await self._parts().changes.look()

    async def _read(self, *statements: Statement) -> list[Rows]:
        return await self._parts().read(*statements)


def _time(micros: Any) -> datetime | None:
    return None if micros is None else records.time(micros)

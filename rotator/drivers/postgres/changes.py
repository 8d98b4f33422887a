"""What others did to the register, found by the server's own clock."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, LiteralString, TypeVar

from rotator.core.ports import Clock, Heard
from rotator.drivers.postgres.forms import Known, Passing
from rotator.drivers.postgres.lane import Lane
from rotator.drivers.postgres.link import Link
from rotator.drivers.postgres.wire import Rows, Statement
from rotator.drivers.postgres.writing import Do

T = TypeVar("T")

# What is committed is seen after it was written: every look goes back a little, now and then further. What is later
# still is found by the walk.
OVERLAP, LONG_OVERLAP = timedelta(seconds=2), timedelta(seconds=60)
LONG_EVERY = timedelta(seconds=10)
# What was seen is kept for longer than any look goes back, so that nothing is heard twice.
KEPT = LONG_OVERLAP + timedelta(seconds=10)
NEVER = datetime(9000, 1, 1, tzinfo=UTC)


class Changes:
    """Looks at the register on the lane for reading. ``host`` is this machine. One look at a time."""

    def __init__(self, lane: Lane, writes: Lane, link: Link, clock: Clock, known: Known, host: str) -> None:
        self._lane = lane
        self._writes = writes
        self._link = link
        self._number = 0
        self._clock = clock
        self._known = known
        self._host = host
        self._do = Do()
        # The server's times of what was seen, our own doing included.
        self.entered, self.struck = Passing[datetime](), Passing[datetime]()
        # When we looked last, by the server's clock.
        self._looked: datetime | None = None
        self._long_at = self._pass_at = timedelta(0)

    # The server's clock may be set, or be that of another one: forward, and it counts from when we looked; back, and
    # from now. With clock_timestamp(), which moves while a statement runs, no index would serve.
    GRANTED: LiteralString = """
        SELECT name, generation, granted_at FROM rotator_grants WHERE provider IS NOT NULL
            AND written_at > LEAST(%s::timestamptz, statement_timestamp()) - %s::interval
            AND granted_at > LEAST(%s::timestamptz, statement_timestamp()) - %s::interval"""
    ENTERED: LiteralString = """
        SELECT r.name, r.entered_at, (SELECT g.generation FROM rotator_grants AS g WHERE g.name = r.name)
        FROM rotator_register AS r WHERE r.entered_at > LEAST(%s::timestamptz, statement_timestamp()) - %s::interval"""
    STRUCK: LiteralString = """
        SELECT name, struck_at FROM rotator_struck
        WHERE struck_at > LEAST(%s::timestamptz, statement_timestamp()) - %s::interval"""
    NOW: LiteralString = "SELECT clock_timestamp()"
    # Of those that were struck while we did not run: what still stands on this machine.
    LEFT: LiteralString = """
        SELECT s.name FROM rotator_struck AS s WHERE EXISTS
            (SELECT 1 FROM rotator_deliveries AS d WHERE d.grant_name = s.name AND d.host = %s)"""

    STORED: LiteralString = "SELECT name, generation, NULL FROM rotator_grants WHERE name = ANY(%b::text[])"

    async def look(self) -> Heard:
        """See `ports.Register.heard`."""
        boottime, known = self._clock.moment().boottime, self._known
        is_long = self._looked is None or boottime >= self._long_at
        since = self._looked or NEVER, LONG_OVERLAP if is_long else OVERLAP
        # What we write ourselves meanwhile is no news.
        ours = self._writes.names()
        asked: list[Statement] = [
            (self.GRANTED, (*since, *since)), (self.ENTERED, since), (self.STRUCK, since), (self.NOW, ()),
        ]  # fmt: skip
        if self._looked is None:
            asked.append((self.LEFT, (self._host,)))
        (granted, entered, struck, ((server,),), *left), _ = await self._lane.submit(self._do, "", asked)
        ours |= self._writes.names()
        lost = self._lost([*granted, *await self._compare()], ours | self._writes.names())
        fresh = [
            (name, (generation, at))
            for name, generation, at in granted
            if name not in ours and known.get(name) != (generation, at)
        ]
        for name, mark in fresh:
            known.note(name, mark, registered=True)
        come = _new(self.entered, ((name, at) for name, at, _ in entered))
        holding = {name for name, _, generation in entered if generation and name in come}
        gone = _new(self.struck, struck) | {name for rows in left for (name,) in rows}
        self._note_look(server, boottime, is_long)
        return Heard(entered=come, struck=gone, granted=frozenset(name for name, _ in fresh) | holding, lost=lost)

    async def _compare(self) -> Rows:
        """Where the connection is another one, it may lead to a server that never got what was committed last: what is
        stored of all that passed by lately."""
        number, found = self._link.number, Rows()
        if self._number not in (0, number) and (names := list(self._known.passing)):
            (found,), _ = await self._lane.submit(self._do, "", [(self.STORED, (names,))])
        self._number = number
        return found

    def _lost(self, found: Rows, ours: Collection[str]) -> frozenset[str]:
        known = self._known.passing
        marks = ((name, generation, known.get(name)) for name, generation, _ in found if name not in ours)
        return frozenset(name for name, generation, mark in marks if mark is not None and generation < mark[0])

    def _note_look(self, server: datetime, boottime: timedelta, is_long: bool) -> None:
        self._looked = server
        if is_long:
            self._long_at = boottime + LONG_EVERY
        if boottime >= self._pass_at:
            self._pass_at = boottime + KEPT
            for one in (self._known.passing, self.entered, self.struck):
                one.pass_on()


def _new(seen: Passing[T], found: Iterable[Sequence[Any]]) -> frozenset[str]:
    """Those that were not seen so before; they are from now on."""
    fresh = [(name, at) for name, at in found if seen.get(name) != at]
    for name, at in fresh:
        seen.note(name, at)
    return frozenset(name for name, _ in fresh)

"""Beside other daemons at the same store: what they saved is served here too."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator

from rotator.core import events
from rotator.core.errors import Overtaken, RotatorError
from rotator.core.grants import Grant
from rotator.engine import remembered, scribe, turns
from rotator.engine.alarm import Alarm
from rotator.engine.crew import Crew
from rotator.engine.desks import Desks
from rotator.engine.fleet import Fleet
from rotator.engine.tools import Tools


class Following:
    """Asks the store what others saved, and takes it over at the desks where nothing is at work."""

    def __init__(self, tools: Tools, crew: Crew, desks: Desks, alarm: Alarm, fleet: Fleet) -> None:
        self._tools = tools
        self._crew = crew
        self._desks = desks
        self._alarm = alarm
        self._fleet = fleet
        self._unheard = 0
        # News are told once: what could not be taken over yet.
        self._left: dict[str, Grant | None] = {}

    async def follow(self) -> None:
        """Take over what other daemons at the same store saved. Never raises for the store."""
        tools = self._tools
        # What is at work on a grant looks itself, under its lease.
        busy = self._crew.names(turns.is_rotation)
        try:
            # Together: one round trip. That one fails is no reason to lose what the other brought.
            present, news = await asyncio.gather(
                tools.store.fleet(tools.owner), tools.store.news(_Idle(self._desks, busy)), return_exceptions=True
            )
            if not isinstance(present, BaseException):
                self._fleet.hear(present)
            if not isinstance(news, BaseException):
                self._left.update(news)
            await self._take_all(busy)
            for one in (present, news):
                if isinstance(one, BaseException):
                    raise one
        except RotatorError as error:
            self._unheard += 1
            if scribe.is_told(self._unheard):
                doing = "what other daemons saved is not known"
                tools.bus.tell(events.StoreTroubled(at=tools.clock.now(), reason=str(error), doing=doing))
            return
        self._unheard = 0

    async def _take_all(self, busy: Collection[str]) -> None:
        """Raises the last error, once all others were taken over."""
        failed: RotatorError | None = None
        for name, theirs in list(self._left.items()):
            if name in busy:
                # Left from before, and at work by now.
                continue
            try:
                await self.take(name, theirs)
            except RotatorError as error:
                failed = error
            else:
                del self._left[name]
        if failed is not None:
            raise failed

    async def take(self, name: str, theirs: Grant | None) -> None:
        """Let it count at its desk, if there is one and nothing is at work. Raises what the store raises."""
        desk = self._desks.get(name)
        if desk is None or (theirs is not None and theirs.identity != desk.grant.identity):
            return
        ours = desk.grant
        same = theirs is not None and theirs.lineage == ours.lineage
        if theirs is None or (same and theirs.generation < ours.generation):
            # Deleted, or brought back from a backup: what would be spent from it is spent already.
            await self.put_right(ours, theirs)
            return
        if same and self._crew.runs(turns.key(name)):
            return
        desk.held_until, desk.failures = None, 0
        self._desks.saved(theirs)
        self._alarm.mind(self._fleet.looks_at(theirs.due_at))
        if theirs.generation > ours.generation:
            self._tools.bus.tell(events.Followed(at=self._tools.clock.now(), grant=name, generation=theirs.generation))

    async def put_right(self, ours: Grant, theirs: Grant | None) -> None:
        """Save what is known in the place of what went back or away. Raises what the store raises."""
        store, now = self._tools.store, self._tools.clock.now()
        try:
            if theirs is None:
                await store.enrol(ours)
            else:
                await store.save(ours, expected=theirs.generation, lease=None, now=now)
        except Overtaken:
            return
        desk = self._desks.get(ours.name)
        if desk is not None and remembered.is_newer(ours, desk.grant):
            # It had come there meanwhile.
            self._desks.saved(ours)
        self._tools.bus.tell(remembered.put_right(ours, theirs, now))


class _Idle(Collection[str]):
    """The grants at which nothing is at work: not listed at every look where there are many."""

    def __init__(self, desks: Desks, busy: set[str]) -> None:
        self._desks = desks
        self._busy = busy

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name not in self._busy and self._desks.get(name) is not None

    def __iter__(self) -> Iterator[str]:
        return (desk.enrolment.name for desk in self._desks if desk.enrolment.name not in self._busy)

    def __len__(self) -> int:
        return sum(1 for _ in self)

"""The grants at work: each enrolment with its last saved record, at a desk of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from rotator.core import health, lifecycle
from rotator.core.errors import BadUsage
from rotator.core.grants import Grant
from rotator.core.policy import Moment
from rotator.core.ports import Delivery, Enrolment, Roster
from rotator.engine import rotation
from rotator.engine.board import Board, Desk
from rotator.engine.courier import Courier
from rotator.engine.remembered import Remembered, is_newer
from rotator.engine.tools import Tools

SURPLUS = 16
"""So many more are asked for than there are desks, to find grants that nobody configures any more."""
TOGETHER = 500
"""Enrolments that share a transaction at a start."""


class Desks:
    """Who is at work, and what is known of each without asking the store. What is saved goes on to the courier.

    Residents are those of the configuration and of what is discovered: they have a desk for as long as they are
    enrolled. Guests are those of the register (`rotator.engine.visits`)."""

    def __init__(self, tools: Tools, courier: Courier, margin: health.Margin) -> None:
        self._tools = tools
        self._courier = courier
        self._board = Board(courier, margin)
        self._desks: dict[str, Desk] = {}
        self._guests: dict[str, Desk] = {}
        # In the order in which they became odd: a set's order would change from run to run.
        self._odd: dict[str, Desk] = {}
        self._undecided: set[str] = set()
        self._remembered = Remembered()
        # Names that the store called due and that have no desk, nor will have one: they stay due for ever.
        self.strangers: set[str] = set()

    def __iter__(self) -> Iterator[Desk]:
        """The residents."""
        return iter(self._desks.values())

    def __len__(self) -> int:
        return len(self._desks)

    def odd(self) -> list[Desk]:
        """Those that a sweep must ask; all others are due when the store says so."""
        return list(self._odd.values())

    def mind(self, desk: Desk) -> None:
        """Something of a desk changed: keep the list of the odd ones true."""
        name = desk.enrolment.name
        if self.get(name) is not desk:
            return
        if desk.is_odd:
            self._odd[name] = desk
        else:
            self._odd.pop(name, None)

    def get(self, name: str) -> Desk | None:
        return self._desks.get(name) or self._guests.get(name)

    def known(self, name: str) -> Desk:
        """The desk of a grant. Raises BadUsage naming those that are configured."""
        desk = self.get(name)
        if desk is None:
            known = ", ".join(sorted(self._desks)) or "none is configured"
            raise BadUsage(f"no grant is named {name!r}", mend=f"known grants: {known}")
        return desk

    async def take_over(self, roster: Roster) -> None:
        """Work with these enrolments from now on, all or none: enrol what is new. Raises what the store raises."""
        enrolments = list(roster.enrolments().values())
        grants: list[tuple[Grant, bool]] = []
        # Not all at once: a task of each of a hundred thousand is hundreds of megabytes for a moment.
        for first in range(0, len(enrolments), TOGETHER):
            some = enrolments[first : first + TOGETHER]
            grants += await asyncio.gather(*(rotation.enrol(one, self._tools) for one in some))
        hooked = any(place.judged_by_mark for one in enrolments for place in one.targets.values())
        marks = await self._tools.store.deliveries() if hooked else ()
        # From here on without a pause: nobody sees half of it, and no rotation ends between two lines.
        now, desks = self._tools.clock.now(), dict[str, Desk]()
        for enrolment, (read, anew) in zip(enrolments, grants, strict=True):
            old, grant = self.get(enrolment.name), read
            if old is not None and old.grant.lineage == grant.lineage and old.grant.generation >= grant.generation:
                # A rotation may have ended since the store was read.
                grant = old.grant
            desk = desks[enrolment.name] = Desk(enrolment, grant, look_at=now)
            desk.anew = anew
            desk.fell_back = None if old is None else old.fell_back
        self._desks, self._undecided = desks, set(desks)
        self._guests = {name: desk for name, desk in self._guests.items() if name not in desks}
        self._odd = {name: desk for name, desk in {**desks, **self._guests}.items() if desk.is_odd}
        self.strangers = set()
        self._courier.take_over(
            ((desk.enrolment, desk.grant) for desk in desks.values()),
            ((desk.enrolment, desk.grant) for desk in self._guests.values()),
            marks,
        )
        self._board.take_over(desks)

    async def due(self, now: datetime) -> Sequence[str]:
        """All of the residents that are due. Grants that nobody configures any more are due for ever and before all
        others; once found they are counted in. Raises what the store raises."""
        limit = len(self._desks) + len(self.strangers) + SURPLUS
        while True:
            names = await self._tools.store.due(now, limit)
            found = {name for name in names if self.get(name) is None} - self.strangers
            self.strangers |= found
            if not found or len(names) < limit:
                return names
            limit *= 2

    # --- guests ------------------------------------------------------------------------------------------------

    def guests(self) -> Iterator[str]:
        return iter(self._guests)

    def is_resident(self, name: str) -> bool:
        return name in self._desks

    def take_in(
        self, enrolment: Enrolment, grant: Grant, marks: Sequence[Delivery], *, anew: bool, trusting: bool
    ) -> Desk:
        """A guest comes; what it has is published where it is not, unless ``trusting``. ``marks``: what the store
        remembers of its hooks."""
        if not anew:
            self._note(grant)
        desk = self._guests[enrolment.name] = Desk(enrolment, grant, self._tools.clock.now(), anew=anew)
        self.mind(desk)
        self._courier.take_in(enrolment, grant, marks, trusting=trusting)
        return desk

    def remake(self, visiting: Mapping[str, tuple[Enrolment, Grant, bool]]) -> None:
        """Guests are enrolled in another way by now; what is in flight for them ends as it began. What is known of one
        by its enrolment counts where that is another client or user, and whether it is new."""
        now = self._tools.clock.now()
        for name, (enrolment, known, anew) in visiting.items():
            if (old := self._guests.get(name)) is not None:
                desk = replace(old, enrolment=enrolment, look_at=now)
                if old.grant.identity != known.identity:
                    desk = replace(desk, grant=known, anew=anew, held_until=None, failures=0)
                self._guests[name] = desk
                self.mind(desk)
                self._courier.remake(enrolment, desk.grant)

    def is_settled(self, name: str) -> bool:
        """Whether every target of a guest holds what it may hold."""
        return self._courier.is_settled(name)

    def forget(self, name: str) -> None:
        """A guest was struck: it leaves, and nothing of it is put right."""
        self._remembered.forget(name)
        if name in self._guests:
            self.let_go(name)

    def let_go(self, name: str) -> None:
        """A guest leaves; the store knows all that is worth knowing of it."""
        del self._guests[name]
        self._odd.pop(name, None)
        self._courier.let_go(name)

    # --- what happens to them ----------------------------------------------------------------------------------

    def saved(self, grant: Grant, answered: timedelta | None = None) -> None:
        """A grant became durable: publish first, everything else after. One that was in flight when its identity was
        changed by a reload is none of ours any more."""
        self._note(grant)
        self._serve(grant, answered)

    def recall(self, stored: Grant) -> Grant | None:
        """What was saved of a grant later than what is stored: the store went back."""
        desk, kept = self.get(stored.name), self._remembered.get(stored.name)
        # A guest may have come to its desk when the store had gone back already.
        best = kept if desk is None or (kept is not None and is_newer(kept, desk.grant)) else desk.grant
        return best if is_newer(best, stored) else None

    def _note(self, grant: Grant) -> None:
        # Where nobody else can write nothing goes back; and a resident has a desk.
        if self._tools.store.follows and grant.name not in self._desks:
            self._remembered.note(grant)

    def _serve(self, grant: Grant, answered: timedelta | None = None) -> None:
        desk = self.get(grant.name)
        if desk is not None and desk.grant.identity == grant.identity:
            desk.grant = grant
            self.mind(desk)
            self._board.changed(grant.name)
            self._courier.saved(grant, answered)

    def look_again(self, now: datetime) -> None:
        """Wall time was set: no time that was planned by it holds any more."""
        for desk in (*self._desks.values(), *self._guests.values()):
            desk.look_at, desk.held_until = now, None
            self.mind(desk)
        self._courier.look_again()

    def distrust(self, moment: Moment) -> None:
        """The clock fell back: at once in the records in hand, so that nothing is published by them, and in the store
        by a rotation of each."""
        for desk in (*self._desks.values(), *self._guests.values()):
            self.doubt(desk, moment)

    def doubt(self, desk: Desk, moment: Moment) -> None:
        """The same for one."""
        desk.fell_back = moment
        fact = lifecycle.ClockFellBack()
        self._serve(lifecycle.advance(desk.grant, fact, moment, desk.enrolment.rules, 0.0).grant)

    def examine(self) -> tuple[health.GrantHealth, ...]:
        """Every grant as it stands, by name."""
        return self._board.shown(self._tools.clock.now())

    def all_decided(self) -> bool:
        """Whether every grant was decided at least once since it was enrolled, and a full look is worth while. A
        start with many grants costs one question for each of them, and not one for each pair."""
        now = self._tools.clock.now()
        while self._undecided:
            name = next(iter(self._undecided))
            if name in self._desks and not self._board.judge(name, now).decided:
                return False
            self._undecided.discard(name)
        return True

    def look_at(self, name: str) -> health.GrantHealth:
        """How one of them stands. Raises BadUsage for one that has no desk."""
        return self._board.look(self.known(name), self._tools.clock.now())

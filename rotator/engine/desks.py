"""The grants at work: each enrolment with its last saved record, at a desk of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from rotator.core import health, lifecycle
from rotator.core.errors import BadUsage
from rotator.core.grants import Grant
from rotator.core.policy import Moment
from rotator.core.ports import Enrolment, Roster
from rotator.engine import rotation
from rotator.engine.delivery import Courier
from rotator.engine.rotation import Tools

TOGETHER = 500
"""Enrolments that share a transaction at a start."""


@dataclass(slots=True)
class Desk:
    """One enrolled grant at work: its last saved record; when to try again after a failure that the record does not
    know (a store that was away); and when to look whether a changed secret wakes it, where nothing is due.

    ``outdated``: its secrets changed while it was at work, which may have read what was there before.

    ``anew`` and ``fell_back`` mean that the record in hand is ahead of the stored one, which a rotation mends: the
    identity changed, the clock was set back at that moment."""

    enrolment: Enrolment
    grant: Grant
    look_at: datetime
    anew: bool = False
    fell_back: Moment | None = None
    held_until: datetime | None = None
    failures: int = 0
    outdated: bool = False

    def is_held(self, now: datetime) -> bool:
        return self.held_until is not None and self.held_until > now

    @property
    def is_odd(self) -> bool:
        """Whether a sweep must ask it, for the store alone does not tell when."""
        return self.anew or self.fell_back is not None or self.held_until is not None or self.grant.due_at is None

    def wants_look(self, now: datetime) -> bool:
        """Whether it is to be looked at although the store does not name it as due."""
        return self.anew or self.fell_back is not None or (self.grant.due_at is None and self.look_at <= now)


class Desks:
    """Who is enrolled, and what is known of each without asking the store. What is saved goes on to the courier."""

    def __init__(self, tools: Tools, courier: Courier) -> None:
        self._tools = tools
        self._courier = courier
        self._desks: dict[str, Desk] = {}
        # In the order in which they became odd: a set's order would change from run to run.
        self._odd: dict[str, Desk] = {}
        self._undecided: set[str] = set()
        self.strangers = 0

    def __iter__(self) -> Iterator[Desk]:
        return iter(self._desks.values())

    def __len__(self) -> int:
        return len(self._desks)

    def odd(self) -> list[Desk]:
        """Those that a sweep must ask; all others are due when the store says so."""
        return list(self._odd.values())

    def mind(self, desk: Desk) -> None:
        """Something of a desk changed: keep the list of the odd ones true."""
        name = desk.enrolment.name
        if self._desks.get(name) is not desk:
            return
        if desk.is_odd:
            self._odd[name] = desk
        else:
            self._odd.pop(name, None)

    def get(self, name: str) -> Desk | None:
        return self._desks.get(name)

    def known(self, name: str) -> Desk:
        """The desk of an enrolled grant. Raises BadUsage naming the known ones."""
        desk = self._desks.get(name)
        if desk is None:
            known = ", ".join(sorted(self._desks)) or "none is configured"
            raise BadUsage(f"no grant is named {name!r}", mend=f"known grants: {known}")
        return desk

    async def take_over(self, roster: Roster) -> None:
        """Work with these enrolments from now on, all or none: enrol what is new. Raises what the store raises."""
        enrolments = list(roster.enrolments().values())
        grants: list[Grant] = []
        # Not all at once: a task of each of a hundred thousand is hundreds of megabytes for a moment.
        for first in range(0, len(enrolments), TOGETHER):
            some = enrolments[first : first + TOGETHER]
            grants += await asyncio.gather(*(rotation.enrol(one, self._tools) for one in some))
        stored = {grant.name: grant for grant in await self._tools.store.grants()}
        # From here on without a pause: nobody sees half of it, and no rotation ends between two lines.
        now, desks = self._tools.clock.now(), dict[str, Desk]()
        for enrolment, read in zip(enrolments, grants, strict=True):
            old, grant = self._desks.get(enrolment.name), read
            if old is not None and old.grant.lineage == grant.lineage and old.grant.generation >= grant.generation:
                # A rotation may have ended since the store was read.
                grant = old.grant
            desk = desks[enrolment.name] = Desk(enrolment, grant, look_at=now)
            desk.anew = enrolment.name in stored and stored[enrolment.name].identity != grant.identity
            desk.fell_back = None if old is None else old.fell_back
        self._desks, self._undecided = desks, set(desks)
        self._odd = {name: desk for name, desk in desks.items() if desk.is_odd}
        self.strangers = len(stored.keys() - desks.keys())
        self._courier.take_over((desk.enrolment, desk.grant) for desk in desks.values())

    def saved(self, grant: Grant) -> None:
        """A grant became durable: publish first, everything else after. One that was in flight when its identity was
        changed by a reload is none of ours any more."""
        desk = self._desks.get(grant.name)
        if desk is not None and desk.grant.identity == grant.identity:
            desk.grant = grant
            self.mind(desk)
            self._courier.saved(grant)

    def look_again(self, now: datetime) -> None:
        """Wall time was set: no time that was planned by it holds any more."""
        for desk in self._desks.values():
            desk.look_at, desk.held_until = now, None
            self.mind(desk)
        self._courier.look_again()

    def distrust(self, moment: Moment) -> None:
        """The clock fell back: at once in the records in hand, so that nothing is published by them, and in the store
        by a rotation of each."""
        for desk in self._desks.values():
            desk.fell_back = moment
            fact = lifecycle.ClockFellBack()
            self.saved(lifecycle.advance(desk.grant, fact, moment, desk.enrolment.rules, 0.0).grant)

    def examine(self) -> health.Health:
        """The snapshot that everything shown is made of."""
        now = self._tools.clock.now()
        return health.Health(now, tuple(self._examine(name, now) for name in sorted(self._desks)))

    def all_decided(self) -> bool:
        """Whether every grant was decided at least once since it was enrolled, and a full look is worth while. A
        start with many grants costs one question for each of them, and not one for each pair."""
        now = self._tools.clock.now()
        while self._undecided:
            name = next(iter(self._undecided))
            if name in self._desks and not self._examine(name, now).decided:
                return False
            self._undecided.discard(name)
        return True

    def _examine(self, name: str, now: datetime) -> health.GrantHealth:
        desk = self._desks[name]
        rules = desk.enrolment.rules
        budget = rules.budget if rules.password else None
        return health.examine(desk.grant, desk.enrolment.provider, budget, self._courier.health(name), now)

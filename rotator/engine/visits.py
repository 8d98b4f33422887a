"""Grants of the register at work: each comes to a desk when something is to be done for it, and leaves it again. Memory
follows what is under way and not how many there are.

Two things bring one: it is due, or the walk, which glances at what everybody publishes, page by page, sees that
something is to be done; the first after a start goes as fast as targets answer: a reboot may have emptied them all.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial

from rotator.core import policy
from rotator.core.errors import Misconfigured, RotatorError
from rotator.core.grants import Grant
from rotator.core.health import Census, Listed
from rotator.core.policy import Moment
from rotator.core.ports import Enrolment, Entry, Register, Roster
from rotator.core.pressure import Line
from rotator.engine import glance, listing
from rotator.engine.board import Desk
from rotator.engine.crew import Crew
from rotator.engine.desks import Desks
from rotator.engine.headcount import Headcount
from rotator.engine.shares import Shares
from rotator.engine.tools import Tools
from rotator.engine.turns import Turns

ROOM = {Line.HELD: 512, Line.MISSING: 128, Line.FAILING: 128}
"""So many of each provider and line stand at desks because they are due: more than any gate lets in within a sweep,
and none of them can keep out those of another line."""
PAGE, PATIENCE = glance.PAGE, timedelta(seconds=10)
"""So many the walk looks at together, and how long it waits for those that it brought to desks."""
PACE = 50
"""So many it looks at in a second once it has been everywhere."""
CROWD = 1024
"""From so many guests on, those whose targets take nothing do not stay for it: the walk comes to them again."""


class Visits:
    """Who of the register is at a desk. ``ring`` asks for a sweep."""

    def __init__(
        self, tools: Tools, crew: Crew, desks: Desks, turns: Turns, shares: Shares, ring: Callable[[], None]
    ) -> None:
        self._tools = tools
        self._crew = crew
        self._desks = desks
        self._turns = turns
        self._shares = shares
        self._ring = ring
        self._roster: Roster | None = None
        self._refused = listing.LeftOut(tools)
        self._shadowed = listing.Shadowed(tools, desks)
        self._hosted: Counter[str] = Counter()
        # Due, and not in line before the look has ended that brought them.
        self._called: frozenset[str] = frozenset()
        self._cursor = ""
        self._headcount = Headcount(tools.clock)
        self._strolled: timedelta | None = None
        # Nobody stands in it: nothing is asked until somebody is entered. (Where others write too the walk goes on.)
        self._vacant = False
        self._entered = 0
        self.walked = tools.store.register is None

    @property
    def register(self) -> Register | None:
        return self._tools.store.register

    @property
    def census(self) -> Census | None:
        return self._headcount.census

    # --- who comes ---------------------------------------------------------------------------------------------

    async def use(self, roster: Roster) -> dict[str, tuple[Enrolment, Grant, bool]]:
        """Work with another roster from now on: what it makes of those that are at desks, what is known of each by it,
        and whether that is new."""
        register, guests = self.register, list(self._desks.guests())
        self._refused = listing.LeftOut(self._tools)
        if register is None:
            self._roster = roster
            return {}
        if not self._vacant:
            await self._shadowed.look(register, roster)
        entries = await self._refused.read(guests)
        self._roster = roster
        return await self._refused.made(entries, roster)

    def go_back(self, roster: Roster) -> None:
        """The reload was none: what is made from now on is made by this one again."""
        self._roster, self._refused = roster, listing.LeftOut(self._tools)

    async def due(self, now: datetime) -> list[Desk]:
        """Those that are due, at their desks. Raises what the store raises."""
        register, roster, self._called = self.register, self._roster, frozenset()
        if register is None or roster is None or self._vacant:
            return []
        spare = len(self._refused)
        rooms = {(name, line): room + spare for name in roster.providers for line, room in ROOM.items()}
        names = await self._shares.due(register, now, rooms)
        self._called = frozenset(names)
        # Before the first walk has been everywhere nobody knows what a reboot has left of it.
        await self.admit(names, trusting=self.walked)
        guests = [desk for name in names if (desk := self._desks.get(name)) is not None]
        return [*self._shadowed.due(now), *guests]

    async def next_due(self, after: datetime) -> datetime | None:
        if self.register is None or self._roster is None or self._vacant:
            return None
        times = self._shadowed.next_due(after), await self.register.next_due(after, self._roster.providers)
        return min((at for at in times if at is not None), default=None)

    @contextmanager
    def hosting(self, name: str) -> Iterator[None]:
        """Whoever comes stays at least as long as this."""
        self._hosted[name] += 1
        try:
            yield
        finally:
            self._hosted[name] -= 1
            if not self._hosted[name]:
                del self._hosted[name]

    async def invite(self, name: str) -> None:
        """Bring one to its desk because somebody asks for it; nothing happens where it does not stand in the
        register. Raises Misconfigured for one that is left out."""
        if self._desks.get(name) is None:
            self._refused.forget(name)
            await self.admit([name])
            self._refused.check(name)

    async def admit(self, names: Sequence[str], *, trusting: bool = False) -> None:
        """Bring these to their desks, where what is saved is published. ``trusting``: for those that are due (else
        another daemon has rotated them meanwhile) what was published last still stands, as far as is known."""
        register, store = self.register, self._tools.store
        missing = [name for name in names if self._desks.get(name) is None and name not in self._refused]
        if register is None or not missing:
            return
        entries, moment = await self._refused.read(missing), self._tools.clock.moment()
        for enrolment, known, anew in (await self._refused.made(entries, self._roster)).values():
            stands = trusting and known.due_at is not None and known.due_at <= moment.now
            hooked = not stands and any(place.judged_by_mark for place in enrolment.targets.values())
            marks = await store.deliveries(enrolment.name) if hooked else ()
            there = self._desks.get(enrolment.name)
            if there is not None and known.generation > there.grant.generation:
                # Brought by somebody else meanwhile, who had read what was stored before.
                self._desks.saved(known)
            elif there is None:
                desk = self._desks.take_in(enrolment, known, marks, anew=anew, trusting=stands)
                if listing.is_of_the_future(known, moment):
                    self._desks.doubt(desk, moment)

    # --- who goes ----------------------------------------------------------------------------------------------

    def release(self) -> None:
        """Let go of everybody for whom nothing is to be done now."""
        now, guests = self._tools.clock.now(), list(self._desks.guests())
        if not guests:
            return
        busy = self._crew.names(lambda key: len(key) > 1)
        for name in guests:
            desk = self._desks.get(name)
            if desk is None or name in busy or name in self._hosted:
                continue
            if name in self._refused:
                # What it was made of counts no more, not even for what is due or what it waits for.
                self._desks.let_go(name)
                continue
            if name in self._called and desk.is_due(now):
                continue
            # How often it failed is known to its desk only: whoever came anew would be tried again at once, for ever.
            if self._turns.awaits(name) or desk.is_ahead or desk.is_held(now) or desk.failures:
                continue
            if len(guests) > CROWD or self._desks.is_settled(name):
                self._desks.let_go(name)

    # --- the walk ----------------------------------------------------------------------------------------------

    def stroll(self, moment: Moment, every: timedelta) -> None:
        """Go on with the walk, once in each ``every``."""
        since = None if self._strolled is None else moment.boottime - self._strolled
        goes = self.register is not None and (not self._vacant or self._tools.store.follows)
        if not goes or (since is not None and policy.ZERO <= since < every):
            return
        if self._crew.start(("walk",), partial(self.walk, every)) is not None:
            self._strolled = moment.boottime

    async def walk(self, span: timedelta) -> None:
        """As far as the pace allows in ``span``; the first time all through. Never raises for the store."""
        left = math.ceil(PACE * span.total_seconds())
        try:
            if self.register is not None:
                await self._headcount.keep(self.register)
            while left > 0 or not self.walked:
                entered = self._entered
                page = await self._look(PAGE if not self.walked else min(PAGE, left))
                left -= len(page)
                if not page:
                    self._vacant = not self._cursor and entered == self._entered
                    self._cursor = ""
                    if not self.walked:
                        self.walked = True
                        self._headcount.outdate()
                        self._ring()
                    return
                self._cursor, self._vacant = page[-1].name, False
        except RotatorError:
            # The next sweep goes on; that the store is away is told by those who need it more.
            return

    async def _look(self, limit: int) -> Sequence[Listed]:
        register = self.register
        if register is None:
            return ()
        page = await register.page(self._cursor, limit)
        now = self._tools.clock.now()
        names = [
            one.name for one in page if one.due_at is None or (one.expires_at is not None and one.expires_at > now)
        ]
        self._shadowed.note([one.name for one in page])
        # Those who do come are read once more: meanwhile they may have been rotated.
        names = await glance.wanting(names, self._desks, self._refused, self._roster, self._tools)
        await self._wake(names)
        looked = set(names)
        with suppress(TimeoutError):  # a target that hangs keeps no other from being looked at
            async with self._tools.clock.deadline(PATIENCE):
                await self._crew.quiet(lambda key: key[0] == "deliver" and key[1] in looked)
        self.release()
        return page

    # --- orders ------------------------------------------------------------------------------------------------

    async def enter(self, entries: Sequence[Entry]) -> None:
        """Enrol these now. Raises Misconfigured for the first that does not fit, before anything is written, and after
        that for one whose record cannot be read."""
        register, roster = self.register, self._roster
        assert register is not None and roster is not None  # noqa: S101 (the daemon has looked)
        made = [roster.enrolment_of(entry) for entry in entries]
        for entry in entries:
            if self._desks.is_resident(entry.name):
                raise Misconfigured(
                    f"{entry.name} is a grant of the configuration",
                    mend="rename one of the two; the configuration counts",
                )
        await register.enter(entries)
        self._note_entered([entry.name for entry in entries])
        found = await asyncio.gather(*map(self._refused.enrol, made))
        self._desks.remake({one.name: (one, *known) for one, known in zip(made, found, strict=True)})
        await self._wake([grant.name for grant, _ in found])  # all: a changed one may have another target
        self._headcount.outdate()
        self._ring()

    def _note_entered(self, names: Collection[str]) -> None:
        """These stand in it now."""
        # Not those of before alone: a reload may have come between.
        self._shadowed.note(names)
        # After the write: a walk that had asked before it may have found nobody.
        self._vacant = False
        self._entered += 1
        for name in names:
            self._refused.forget(name)

    async def renew(self, names: Collection[str]) -> None:
        """Others entered these, or changed them. Raises what the store raises."""
        self._note_entered(names)
        if guests := [name for name in self._desks.guests() if name in names]:
            self._desks.remake(await self._refused.made(await self._refused.read(guests), self._roster))
        self._headcount.outdate()
        self._ring()

    async def _wake(self, names: Sequence[str]) -> None:
        """Bring them to their desks, and those in line that rest until their credentials change: they may just have."""
        await self.admit(names)
        moment = self._tools.clock.moment()
        for name in names:
            desk = self._desks.get(name)
            if desk is not None and (desk.is_ahead or desk.grant.due_at is None):
                self._turns.wait(desk, moment)
        self._turns.let_in()

    async def strike(self, name: str) -> bool:
        """Take one out: it is at no desk any more. False where it was not there."""
        register = self.register
        if register is None or not await register.strike(name):
            return False
        await self.struck(name)
        return True

    async def struck(self, name: str) -> None:
        """It stands in the register no more: let it go, after what is in flight for it."""
        self._shadowed.struck(name)
        await self._crew.quiet(lambda key: key[1:2] == (name,))
        self._desks.forget(name)
        self._headcount.outdate()

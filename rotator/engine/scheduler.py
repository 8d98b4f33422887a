"""Asks the core what is due, sets the alarm, runs orders, sweeps what was missed.

Nothing sleeps: every wait is a due time in the store and one alarm. The sweep derives everything anew from the
store, so that a missed alarm, a suspended machine or a clock step heals itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from functools import partial

from rotator.core import events, health, lifecycle, policy
from rotator.core.errors import RotatorError
from rotator.core.ports import Enrolment, Roster, Watcher
from rotator.core.publication import Settled
from rotator.engine import glance, questions
from rotator.engine.alarm import Alarm
from rotator.engine.board import Desk
from rotator.engine.courier import Courier
from rotator.engine.crew import Crew
from rotator.engine.desks import Desks
from rotator.engine.fleet import Fleet
from rotator.engine.following import Following
from rotator.engine.hearing import Hearing
from rotator.engine.pacing import TOGETHER, Pacing
from rotator.engine.rotation import Result, Wish
from rotator.engine.shares import Shares
from rotator.engine.timing import Timing
from rotator.engine.tools import Tools
from rotator.engine.turns import Turns
from rotator.engine.visits import Visits


class Scheduler:
    """Runs rotations as tasks of its crew and hands what they saved to its courier."""

    def __init__(
        self,
        roster: Roster,
        tools: Tools,
        timing: Timing,
        watcher: Watcher,
        changed: Callable[[], None],
        margin: health.Margin,
    ) -> None:
        self._roster = roster
        self._tools = tools
        self._timing = timing
        self._watcher = watcher
        self._changed = changed
        self._crew = Crew(tools.bus, tools.clock.now, changed)
        self._courier = Courier(tools, self._crew, watcher, timing.verify_every, self.ring, self._behind)
        self._desks = Desks(tools, self._courier, margin)
        self._alarm = Alarm(tools.clock, self.ring, beaten=tools.store.follows and timing.follow_every <= TOGETHER)
        self._fleet = Fleet(tools.owner)
        self._turns = Turns(tools, self._crew, self._desks, self._alarm, self._confirm)
        self._following = Following(tools, self._crew, self._desks, self._alarm, self._fleet)
        shares = Shares(self._fleet, self._alarm)
        self.visits = Visits(tools, self._crew, self._desks, self._turns, shares, self.ring)
        self._hearing = Hearing(tools, self._crew, self._desks, self.visits, self._following, self.clear_away)
        self._former: list[Roster] = []
        self._pacing = Pacing(shared=tools.store.follows, longest=timing.sweep_every / 2)
        self._moment = tools.clock.moment()
        self.bell = asyncio.Event()

    # --- who is enrolled ---------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Take the roster over: enrol what is new, and judge the clock against the store's high-water mark."""
        high_water = await self._tools.store.high_water()
        await self.visits.use(self._roster)
        await self._desks.take_over(self._roster)
        self._fleet.hear(await self._tools.store.fleet(self._tools.owner))
        self._moment = moment = self._tools.clock.moment()
        if high_water is not None and moment.now < high_water - policy.CLOCK_TOLERANCE:
            self._tools.bus.tell(events.ClockBehind(at=moment.now, high_water=high_water))
            self._desks.distrust(moment)

    def watch(self) -> None:
        """Notice from now on when a local target is touched, and look what happened to those that hold something since
        it was published, for nobody watched them yet."""
        self._courier.watch()
        look_back = partial(glance.look_back, self._desks, self._courier, self._roster, self._tools)
        self._crew.start(("look back",), look_back)

    async def reload(self, roster: Roster) -> events.Reloaded:
        """Work with another roster from now on. What is in flight ends under the old one, which is closed after that;
        where this raises, the new one is closed and everything is as it was."""
        before = {desk.enrolment.name: desk.enrolment.fingerprint for desk in self._desks}
        after = {name: enrolment.fingerprint for name, enrolment in roster.enrolments().items()}
        try:
            self._turns.must_go_on()
            visiting = await self.visits.use(roster)
            await self._desks.take_over(roster)
        except BaseException:
            self.visits.go_back(self._roster)
            await roster.close()
            raise
        self._desks.remake(visiting)
        self._former.append(self._roster)
        dismissed = partial(self._dismiss, self._roster, self._crew.running())
        self._crew.start((f"dismiss roster {id(self._roster)}",), dismissed)
        self._roster = roster
        self._turns.keep()
        self.ring()
        return events.Reloaded(
            at=self._tools.clock.now(),
            added=tuple(sorted(after.keys() - before.keys())),
            changed=tuple(sorted(name for name in after.keys() & before.keys() if after[name] != before[name])),
            removed=tuple(sorted(before.keys() - after.keys())),
        )

    async def _dismiss(self, former: Roster, busy: Collection[asyncio.Task[object]]) -> None:
        if busy:
            await asyncio.wait(busy)
        await former.close()
        self._former.remove(former)

    # --- the sweep ---------------------------------------------------------------------------------------------

    def ring(self) -> None:
        """Ask for a sweep."""
        self.bell.set()
        self._changed()

    async def sweep(self, *, alarm: bool = True) -> bool:
        """Start everything that is due and set the next alarm. False where the store could not be asked; what is
        published is looked after all the same."""
        tools, now = self._tools, self._read_clock()
        self._alarm.begin()
        self._courier.sweep(self._roster)
        self.visits.release()
        self.visits.stroll(self._moment, self._timing.sweep_every)
        next_look = self._pacing.next_look(self._moment, self._turns.waiting)
        upcoming: datetime | None = next_look
        if next_look <= now:
            self._pacing.looked(self._moment)
            try:
                upcoming = await self._look(now)
                if upcoming is not None:
                    # Before that nobody will be asked: to be rung for it is for nothing.
                    upcoming = max(upcoming, self._pacing.next_look(self._moment, 0))
            except RotatorError as error:
                doing = "the sweep could not ask the store"
                tools.bus.tell(events.StoreTroubled(at=now, reason=str(error), doing=doing, sweep=True))
                return False
        self._turns.let_in()
        if alarm:
            self._alarm.set(self._next(upcoming, now))
        return True

    def look_at_secrets(self) -> None:
        """A secret has changed: what rests until its credentials do is looked at now."""
        for desk in self._desks.odd():
            desk.look_at = self._moment.now
        self._turns.mark_outdated()
        self.ring()

    def follow(self) -> None:
        """Ask what other daemons saved, and with it, in one round trip, what is due, where it is time for that."""
        self._alarm.beat()
        self._turns.let_in()
        self._crew.start(("follow",), self._following.follow)
        # In the same turn of the loop, and so in the same round trip.
        self._crew.start(("hear",), self._hearing.hear)

    async def _look(self, now: datetime) -> datetime | None:
        """Let everything that is due stand in line; returns when the next becomes due. Raises what the store raises."""
        turns = self._turns
        for desk in self._desks.odd():
            if not desk.is_held(now) and desk.wants_look(now):
                desk.look_at = now + self._timing.verify_every
                turns.wait(desk, self._moment)
        # They need not wait for a store that keeps silent.
        turns.let_in()
        left: list[datetime] = []  # All that is due, for who needs it most goes first; strangers stay due for ever.

        def line(residents: Sequence[str]) -> None:
            found = [desk for name in residents if (desk := self._desks.get(name)) is not None]
            for due in found:
                if not due.is_held(now):
                    at = self._fleet.left_until(due.enrolment.name, due.grant.due_at, now, among=len(found))
                    left.append(at) if at > now else turns.wait(due, self._moment)

        try:
            guests, upcoming = await questions.ask(self._desks, self.visits, self._tools.store, now, line)
        except BaseException:
            turns.let_in()
            raise
        for guest in guests:
            if not guest.is_held(now):
                turns.wait(guest, self._moment)
        return min((at for at in (*left, self._fleet.looks_at(upcoming)) if at is not None), default=None)

    def knows_the_time(self) -> bool:
        """Whether wall time was not set since the last sweep began: else what was planned by it says nothing yet."""
        return not self._tools.clock.moment().set_by(self._moment)

    def _read_clock(self) -> datetime:
        """Now. Where wall time was set since the last look, no time that was planned by it holds any more; where it
        was set back, validity cannot be judged by it either."""
        before, moment = self._moment, self._tools.clock.moment()
        self._moment = moment
        tell = self._tools.bus.tell
        if slept := moment.slept_since(before):
            tell(events.ClockJumped(at=moment.now, by=slept, slept=True))
        if jump := moment.set_by(before):
            tell(events.ClockJumped(at=moment.now, by=jump))
            self._desks.look_again(moment.now)
            if jump < timedelta(0):
                self._desks.distrust(moment)
        return moment.now

    def _next(self, upcoming: datetime | None, now: datetime) -> datetime | None:
        held = [desk.held_until for desk in self._desks.odd() if desk.held_until is not None and desk.held_until > now]
        # Retries of the same second share a sweep: a thousand of them are no reason for a thousand.
        others = [*held, *self._courier.retries(now), *filter(None, [self._turns.starts_at()])]
        times = [max(at, now + TOGETHER) for at in others]
        return min(times if upcoming is None else [*times, upcoming], default=None)

    async def _confirm(self, enrolment: Enrolment) -> None:
        await self._hearing.confirm(enrolment, self._roster)

    async def _behind(self, name: str, target: str, found: Settled) -> None:
        desk = self._desks.get(name)
        if desk is not None and found.generation is not None and found.generation > desk.grant.generation:
            fact = lifecycle.Behind(target=target, generation=found.generation, expires_at=found.expires_at)
            await self._turns.note(name, fact)
            self.ring()

    # --- orders ------------------------------------------------------------------------------------------------

    async def ask(self, name: str, wish: Wish, adopted: lifecycle.Adopted | None = None) -> Result:
        """Rotate now because somebody asked, after what is in flight; ``adopted`` is a refresh token from elsewhere,
        which this exchange proves. Raises BadUsage for an unknown grant."""
        async with self.hosting(name):
            try:
                return await self._turns.ask(name, wish, adopted)
            finally:
                self.ring()

    @asynccontextmanager
    async def hosting(self, name: str) -> AsyncIterator[Desk]:
        """The desk of a grant, of the register too, which stays there at least as long as this. Raises BadUsage for an
        unknown one."""
        with self.visits.hosting(name):
            await self.visits.invite(name)
            yield self._desks.known(name)

    def look_at(self, name: str) -> health.GrantHealth:
        return self._desks.look_at(name)

    def is_resident(self, name: str) -> bool:
        """Whether the configuration has it, or it was discovered."""
        return self._desks.is_resident(name)

    async def clear_away(self, name: str) -> None:
        """Delete what was published for a grant that is retired, at once, after what is still in flight for it."""
        await self.quiet(name)
        await self._courier.clear_away(name, self._roster)

    def examine(self) -> tuple[health.GrantHealth, ...]:
        """Every grant as it stands, by name; the same tuple while nothing has changed."""
        return self._desks.examine()

    def gates(self) -> tuple[health.ProviderHealth, ...]:
        """What the grants of each provider share."""
        return self._turns.gates()

    def all_decided(self) -> bool:
        """Whether every grant was decided at least once since it was enrolled, and `examine` is worth its cost."""
        return self.visits.walked and self._desks.all_decided()

    # --- the end -----------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        return self._turns.in_flight

    async def quiet(self, name: str | None = None) -> None:
        """Return once nothing is in flight, neither rotation nor delivery, of one grant or of all."""
        await self._crew.quiet(lambda key: name is None or key[1:2] == (name,))

    async def drain(self) -> None:
        """Start no exchange any more; return once every one in flight is saved. What was just saved is still
        delivered, for that is what readers wait for."""
        await self._turns.close()

    async def close(self) -> None:
        """Cancel what is left: deliveries, which the next start repeats."""
        self._watcher.close()
        await self._crew.close()
        for roster in (*self._former, self._roster):
            await roster.close()

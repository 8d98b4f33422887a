"""Asks the core what is due, sets the alarm, runs orders, sweeps what was missed.

Nothing sleeps: every wait is a due time in the store and one alarm. The sweep derives everything anew from the
store, so that a missed alarm, a suspended machine or a clock step heals itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from rotator.core import events, health, lifecycle, policy
from rotator.core.errors import Overtaken, RotatorError, Transient
from rotator.core.grants import Grant
from rotator.core.ports import Roster, Watcher
from rotator.core.publication import Settled
from rotator.engine import rotation
from rotator.engine.alarm import Alarm
from rotator.engine.crew import Crew, Key
from rotator.engine.delivery import Courier
from rotator.engine.desks import Desk, Desks
from rotator.engine.rotation import Result, Tools, Wish

T = TypeVar("T")

IN_FLIGHT = 256
TOGETHER = timedelta(seconds=1)
HOLD = policy.Rules(backoff_base=timedelta(seconds=1), backoff_cap=timedelta(seconds=30))


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How often the store is swept and every target is looked at; ``sweep_every`` is also the sweep's deadline."""

    sweep_every: timedelta = timedelta(seconds=10)
    verify_every: timedelta = timedelta(seconds=30)


class Scheduler:
    """Runs rotations as tasks of its crew and hands what they saved to its courier."""

    def __init__(
        self, roster: Roster, tools: Tools, timing: Timing, watcher: Watcher, changed: Callable[[], None]
    ) -> None:
        self._roster = roster
        self._tools = tools
        self._timing = timing
        self._watcher = watcher
        self._changed = changed
        self._crew = Crew(tools.bus, tools.clock.now, changed)
        self._courier = Courier(tools, self._crew, watcher, timing.verify_every, self.ring, self._behind)
        self._desks = Desks(tools, self._courier)
        self._former: list[Roster] = []
        self._moment = tools.clock.moment()
        self._alarm = Alarm(tools.clock, self.ring)
        self._draining = self._crowded = False
        self.bell = asyncio.Event()

    # --- who is enrolled ---------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Take the roster over: enrol what is new, and judge the clock against the store's high-water mark."""
        high_water = await self._tools.store.high_water()
        await self._desks.take_over(self._roster)
        self._moment = moment = self._tools.clock.moment()
        if high_water is not None and moment.now < high_water - policy.CLOCK_TOLERANCE:
            self._desks.distrust(moment, high_water)

    async def reload(self, roster: Roster) -> events.Reloaded:
        """Work with another roster from now on. What is in flight ends under the old one, which is closed after that;
        where this raises, the new one is closed and everything is as it was."""
        before = {desk.enrolment.name: desk.enrolment.fingerprint for desk in self._desks}
        after = {name: enrolment.fingerprint for name, enrolment in roster.enrolments().items()}
        try:
            if self._draining:
                raise _stopping()
            await self._desks.take_over(roster)
        except BaseException:
            await roster.close()
            raise
        self._former.append(self._roster)
        dismissed = partial(self._dismiss, self._roster, self._crew.running())
        self._crew.start((f"dismiss roster {id(self._roster)}",), dismissed)
        self._roster = roster
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
        self._crew.start(("tend",), self._roster.tend)
        self._courier.sweep(self._roster)
        held = 0
        for desk in self._desks.odd():
            if desk.is_held(now):
                held += 1
            elif desk.wants_look(now):
                desk.look_at = now + self._timing.verify_every
                self._rotate(desk)
        try:
            # What nobody configures any more and what is held stays due in the store; it must not fill the window.
            window = IN_FLIGHT + self._desks.strangers + held
            names = await tools.store.due(now, window)
            self._crowded = len(names) == window
            for name in names:
                due = self._desks.get(name)
                if due is not None and not due.is_held(now):
                    self._rotate(due)
            upcoming = await tools.store.next_due(now)
        except RotatorError as error:
            tools.bus.tell(events.StoreTroubled(at=now, reason=str(error), doing="the sweep could not ask the store"))
            return False
        if alarm:
            self._alarm.set(self._next(upcoming, now))
        return True

    def _read_clock(self) -> datetime:
        """Now. Where wall time was set since the last look, no time that was planned by it holds any more; where it
        was set back, validity cannot be judged by it either."""
        before, moment = self._moment, self._tools.clock.moment()
        self._moment = moment
        if moment.elapsed_since(before) is None:
            self._desks.look_again(moment.now)
            expected = before.now + (moment.boottime - before.boottime)
            if moment.now < expected:
                self._desks.distrust(moment, expected)
        return moment.now

    def _next(self, upcoming: datetime | None, now: datetime) -> datetime | None:
        held = [desk.held_until for desk in self._desks.odd() if desk.held_until is not None and desk.held_until > now]
        # Retries of the same second share a sweep: a thousand of them are no reason for a thousand.
        times = [max(at, now + TOGETHER) for at in (*held, *self._courier.retries(now))]
        return min(times if upcoming is None else [*times, upcoming], default=None)

    # --- rotations ---------------------------------------------------------------------------------------------

    def _rotate(self, desk: Desk) -> None:
        if not self._draining:
            self._crew.start(("rotate", desk.enrolment.name), partial(self._rotate_due, desk))

    async def _rotate_due(self, desk: Desk) -> None:
        try:
            await self._rotation(desk, Wish())
        except RotatorError as error:
            self._hold(desk)
            if rotation.is_told(desk.failures) and not isinstance(error, Overtaken):
                now = self._tools.clock.now()
                doing = f"{desk.enrolment.name}: not rotated, nothing was spent"
                self._tools.bus.tell(events.StoreTroubled(at=now, reason=str(error), doing=doing))
        except BaseException:
            self._hold(desk)
            raise
        else:
            desk.held_until, desk.failures = None, 0
            self._desks.mind(desk)
        # The store tells it as well: that a rotation ended is no reason for a sweep, unless others did not fit in.
        self._alarm.mind(self._tools.clock.now() if self._crowded else desk.held_until or desk.grant.due_at)

    def _hold(self, desk: Desk) -> None:
        # Without it a failure that the record does not know would be due again at once: a tight loop.
        desk.failures += 1
        pause = policy.backoff(desk.failures, HOLD, self._tools.dice.chance())
        desk.held_until = self._tools.clock.now() + pause
        self._desks.mind(desk)

    async def _rotation(self, desk: Desk, wish: Wish, adopted: lifecycle.Adopted | None = None) -> Result:
        if (fell_back := desk.fell_back) is not None:
            await self._note(desk, lifecycle.ClockFellBack())
            if desk.fell_back is fell_back:
                desk.fell_back = None
                self._desks.mind(desk)
        if adopted is not None:
            await self._note(desk, adopted)
        try:
            result = await rotation.rotate(desk.enrolment, self._tools, wish, saved=self._desks.saved)
        except Overtaken:
            # What another saved is what readers wait for now; it may not be due for long.
            if (theirs := await self._tools.store.grant(desk.enrolment.name)) is not None:
                self._desks.saved(theirs)
            raise
        desk.anew = False
        self._desks.mind(desk)
        if result.grant != desk.grant:
            # Looked again under the lease and found what another saved.
            self._desks.saved(result.grant)
        return result

    async def _note(self, desk: Desk, fact: lifecycle.Fact) -> None:
        await rotation.note(desk.enrolment, self._tools, fact, saved=self._desks.saved)

    async def _behind(self, name: str, target: str, found: Settled) -> None:
        desk = self._desks.get(name)
        if desk is not None and found.generation is not None and found.generation > desk.grant.generation:
            fact = lifecycle.Behind(target=target, generation=found.generation, expires_at=found.expires_at)
            await self._alone(name, lambda: self._note(self._desks.known(name), fact))
            self.ring()

    async def _alone(self, name: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do what changes a grant's record, after what is in flight and while nothing else does: a second lease of
        our own would overtake the first, and its answer with it. Raises Transient where we are stopping."""
        task: asyncio.Task[T] | None = None
        while task is None:
            if self._draining:
                raise _stopping()
            await self._rotated(name)
            task = self._crew.start(("rotate", name), work)
        # Who asked may go away (a closed connection); the exchange goes on.
        return await asyncio.shield(task)

    # --- orders ------------------------------------------------------------------------------------------------

    async def ask(self, name: str, wish: Wish, adopted: lifecycle.Adopted | None = None) -> Result:
        """Rotate now because somebody asked, after what is in flight; ``adopted`` is a refresh token from elsewhere,
        which this exchange proves. Raises BadUsage for an unknown grant."""
        self._desks.known(name)
        try:
            return await self._alone(name, lambda: self._rotation(self._desks.known(name), wish, adopted))
        finally:
            self.ring()

    def grant(self, name: str) -> Grant:
        """The grant as it was last saved. Raises BadUsage for an unknown one."""
        return self._desks.known(name).grant

    def enrolled(self, name: str) -> bool:
        return self._desks.get(name) is not None

    async def clear_away(self, name: str) -> None:
        """Delete what was published for a grant that is retired, at once, after what is still in flight for it."""
        await self.quiet(name)
        await self._courier.clear_away(name, self._roster)

    def examine(self) -> health.Health:
        """The snapshot that everything shown is made of."""
        return self._desks.examine()

    def all_decided(self) -> bool:
        """Whether every grant was decided at least once since it was enrolled, and `examine` is worth its cost."""
        return self._desks.all_decided()

    # --- the end -----------------------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        return len(self._crew.running(_is_rotation))

    async def quiet(self, name: str | None = None) -> None:
        """Return once nothing is in flight, neither rotation nor delivery, of one grant or of all."""
        await self._crew.quiet(lambda key: name is None or key[1:2] == (name,))

    async def drain(self) -> None:
        """Start no exchange any more; return once every one in flight is saved. What was just saved is still
        delivered, for that is what readers wait for."""
        self._draining = True
        await self._rotated(None)

    async def _rotated(self, name: str | None) -> None:
        """Return once no rotation of this grant (None: of any) is in flight."""
        await self._crew.quiet(lambda key: _is_rotation(key) and (name is None or key[1] == name))

    async def close(self) -> None:
        """Cancel what is left: deliveries, which the next start repeats."""
        self._watcher.close()
        await self._crew.close()
        for roster in (*self._former, self._roster):
            await roster.close()


def _stopping() -> Transient:
    return Transient("the daemon is stopping", mend="try again once it runs")


def _is_rotation(key: Key) -> bool:
    return key[0] == "rotate"

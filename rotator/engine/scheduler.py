"""Asks the core what is due, sets the alarm, runs orders, sweeps what was missed.

Nothing sleeps: every wait is a due time in the store and one alarm. The sweep derives everything anew from the
store, so that a missed alarm, a suspended machine or a clock step heals itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from rotator.core import events, health, lifecycle, policy
from rotator.core.errors import BadUsage, Overtaken, RotatorError, Transient
from rotator.core.grants import Grant
from rotator.core.ports import Enrolment, Roster, Watcher
from rotator.core.publication import Settled
from rotator.engine import rotation
from rotator.engine.crew import Crew, Key
from rotator.engine.delivery import Courier
from rotator.engine.rotation import Result, Tools, Wish

IN_FLIGHT = 256
HOLD = policy.Rules(backoff_base=timedelta(seconds=1), backoff_cap=timedelta(seconds=30))


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """How often the store is swept and every target is looked at; ``sweep_every`` is also the sweep's deadline."""

    sweep_every: timedelta = timedelta(seconds=10)
    verify_every: timedelta = timedelta(seconds=30)


@dataclass(slots=True)
class _Desk:
    """One enrolled grant at work: its last saved record; when to try again after a failure that the record does not
    know (a store that was away); and when to look whether a changed secret wakes it, where nothing is due."""

    enrolment: Enrolment
    grant: Grant
    look_at: datetime
    held_until: datetime | None = None
    failures: int = 0


class Scheduler:
    """Runs rotations as tasks of its crew and hands what they saved to its courier."""

    def __init__(
        self, roster: Roster, tools: Tools, timing: Timing, watcher: Watcher, changed: Callable[[], None]
    ) -> None:
        self._roster = roster
        self._tools = tools
        self._timing = timing
        self._watcher = watcher
        self._crew = Crew(tools.bus, tools.clock.now, changed)
        self._courier = Courier(tools, self._crew, watcher, timing.verify_every, self.ring, self._behind)
        self._desks: dict[str, _Desk] = {}
        self._undecided: set[str] = set()
        self._strangers = 0
        self._draining = False
        self.bell = asyncio.Event()

    # --- who is enrolled ---------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Take the roster over: enrol what is new, and judge the clock against the store's high-water mark."""
        now = self._tools.clock.now()
        high_water = await self._tools.store.high_water()
        await self._take_over(self._roster)
        if high_water is not None and now < high_water - policy.CLOCK_TOLERANCE:
            self._tools.bus.tell(events.ClockBehind(at=now, high_water=high_water))
            for desk in self._desks.values():
                await self._note(desk, lifecycle.ClockFellBack())

    async def reload(self, roster: Roster) -> events.Reloaded:
        """Work with another roster from now on. Exchanges in flight end under the old one."""
        before = {name: desk.enrolment.fingerprint for name, desk in self._desks.items()}
        after = {name: enrolment.fingerprint for name, enrolment in roster.enrolments().items()}
        changed = [name for name in after.keys() & before.keys() if after[name] != before[name]]
        # A changed identity starts the grant anew under its lease, which an exchange in flight holds.
        await self._rotated(changed)
        await self._take_over(roster)
        former, self._roster = self._roster, roster
        await former.close()
        self.ring()
        return events.Reloaded(
            at=self._tools.clock.now(),
            added=tuple(sorted(after.keys() - before.keys())),
            changed=tuple(sorted(changed)),
            removed=tuple(sorted(before.keys() - after.keys())),
        )

    async def _take_over(self, roster: Roster) -> None:
        now = self._tools.clock.now()
        enrolments = list(roster.enrolments().values())
        grants = await asyncio.gather(*(rotation.enrol(one, self._tools) for one in enrolments))
        self._desks = {
            enrolment.name: _Desk(enrolment, grant, look_at=now)
            for enrolment, grant in zip(enrolments, grants, strict=True)
        }
        self._undecided = set(self._desks)
        self._strangers = max(0, len(await self._tools.store.grants()) - len(enrolments))
        self._courier.take_over(zip(enrolments, grants, strict=True))

    # --- the sweep ---------------------------------------------------------------------------------------------

    def ring(self) -> None:
        self.bell.set()

    async def sweep(self, *, alarm: bool = True) -> bool:
        """Start everything that is due and set the next alarm. False where the store could not be asked; what is
        published is looked after all the same."""
        tools, now = self._tools, self._tools.clock.now()
        self._crew.start(("tend",), self._roster.tend)
        self._courier.sweep(now)
        for desk in self._desks.values():
            if desk.grant.due_at is None and desk.look_at <= now:
                desk.look_at = now + self._timing.verify_every
                self._rotate(desk)
        try:
            # Stored grants that nobody configures any more stay due; they must not fill the window.
            for name in await tools.store.due(now, IN_FLIGHT + self._strangers):
                due = self._desks.get(name)
                if due is not None and (due.held_until is None or due.held_until <= now):
                    self._rotate(due)
            await self._courier.sweep_orphans(self._roster, now)
            upcoming = await tools.store.next_due(now)
        except RotatorError as error:
            tools.bus.tell(events.StoreTroubled(at=now, reason=str(error), doing="the sweep could not ask the store"))
            return False
        if alarm:
            tools.clock.alarm(self._next(upcoming, now), self.ring)
        return True

    def _next(self, upcoming: datetime | None, now: datetime) -> datetime | None:
        held = [desk.held_until for desk in self._desks.values() if desk.held_until is not None]
        times = [at for at in held if at > now] + self._courier.retries(now)
        return min(times if upcoming is None else [*times, upcoming], default=None)

    # --- rotations ---------------------------------------------------------------------------------------------

    def _rotate(self, desk: _Desk) -> None:
        if not self._draining:
            self._crew.start(("rotate", desk.enrolment.name), partial(self._rotate_due, desk))

    async def _rotate_due(self, desk: _Desk) -> None:
        try:
            await self._rotation(desk, Wish())
        except Overtaken:
            self._hold(desk)
        except RotatorError as error:
            self._hold(desk)
            now = self._tools.clock.now()
            doing = f"{desk.enrolment.name}: not rotated, nothing was spent"
            self._tools.bus.tell(events.StoreTroubled(at=now, reason=str(error), doing=doing))
        except BaseException:
            self._hold(desk)
            raise
        else:
            desk.held_until, desk.failures = None, 0
        self.ring()

    def _hold(self, desk: _Desk) -> None:
        # Without it a failure that the record does not know would be due again at once: a tight loop.
        desk.failures += 1
        pause = policy.backoff(desk.failures, HOLD, self._tools.dice.chance())
        desk.held_until = self._tools.clock.now() + pause

    async def _rotation(self, desk: _Desk, wish: Wish) -> Result:
        return await rotation.rotate(desk.enrolment, self._tools, wish, saved=self._saved)

    def _saved(self, grant: Grant) -> None:
        """A grant became durable: publish first, everything else after."""
        desk = self._desks.get(grant.name)
        if desk is not None:
            desk.grant = grant
            self._courier.saved(grant)

    async def _note(self, desk: _Desk, fact: lifecycle.Fact) -> None:
        tools, rules = self._tools, desk.enrolment.rules

        def judge(grant: Grant) -> lifecycle.Step:
            return lifecycle.advance(grant, fact, tools.clock.moment(), rules, tools.dice.chance())

        grant, _ = await rotation.note(desk.enrolment.name, tools, judge, rules)
        self._saved(grant)

    async def _behind(self, name: str, target: str, found: Settled) -> None:
        desk = self._desks.get(name)
        if desk is not None and found.generation is not None and found.generation > desk.grant.generation:
            await self._note(
                desk, lifecycle.Behind(target=target, generation=found.generation, expires_at=found.expires_at)
            )
            self.ring()

    # --- orders ------------------------------------------------------------------------------------------------

    async def ask(self, name: str, wish: Wish) -> Result:
        """Rotate now because somebody asked, after what is in flight. Raises BadUsage for an unknown grant."""
        desk = self._known(name)
        task = None
        while task is None:
            if self._draining:
                raise Transient("the daemon is stopping", mend="try again once it runs")
            await self._rotated((name,))
            task = self._crew.start(("rotate", name), partial(self._rotation, desk, wish))
        try:
            # Who asked may go away (a closed connection); the exchange goes on.
            result: Result = await asyncio.shield(task)
        finally:
            self.ring()
        return result

    async def adopt(self, name: str, fact: lifecycle.Adopted) -> None:
        """Take over a refresh token from elsewhere; the next exchange proves it."""
        await self._rotated((name,))
        await self._note(self._known(name), fact)

    def grant(self, name: str) -> Grant:
        """The grant as it was last saved. Raises BadUsage for an unknown one."""
        return self._known(name).grant

    def enrolled(self, name: str) -> bool:
        return name in self._desks

    def _known(self, name: str) -> _Desk:
        desk = self._desks.get(name)
        if desk is None:
            known = ", ".join(sorted(self._desks)) or "none is configured"
            raise BadUsage(f"no grant is named {name!r}", mend=f"known grants: {known}")
        return desk

    async def clear_away(self, name: str) -> None:
        """Delete what was published for a grant that is retired, at once."""
        for orphan in await self._tools.store.deliveries(name):
            await self._courier.remove(orphan, self._roster)

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

    async def _rotated(self, names: Collection[str] | None) -> None:
        """Return once no rotation of these grants (None: of any) is in flight."""
        await self._crew.quiet(lambda key: _is_rotation(key) and (names is None or key[1] in names))

    async def close(self) -> None:
        """Cancel what is left: deliveries, which the next start repeats."""
        self._watcher.close()
        await self._crew.close()
        await self._roster.close()


def _is_rotation(key: Key) -> bool:
    return key[0] == "rotate"

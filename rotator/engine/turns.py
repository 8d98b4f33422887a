"""Turns: which grants rotate now. Whoever is due stands in line at the gate of its provider and is started from there;
what a person asks for goes past the line. One thing at a time for each grant.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

from rotator.core import events, health, lifecycle, policy, pressure
from rotator.core.errors import Overtaken, RotatorError, Transient
from rotator.core.policy import Moment
from rotator.core.pressure import Line, Place
from rotator.engine import rotation, scribe
from rotator.engine.alarm import Alarm
from rotator.engine.board import Desk
from rotator.engine.crew import Crew, Key
from rotator.engine.desks import Desks
from rotator.engine.gates import Gate, Gates
from rotator.engine.rotation import Confirm, Memory, Result, Wish
from rotator.engine.tools import Tools

T = TypeVar("T")

AT_ONCE = 64
TOGETHER = timedelta(seconds=1)
SOON = timedelta(seconds=0.2)
HOLD = policy.Rules(backoff_base=timedelta(seconds=1), backoff_cap=timedelta(seconds=30))


class Turns:
    """Runs rotations as tasks of the crew, as many as the gates let in."""

    def __init__(self, tools: Tools, crew: Crew, desks: Desks, alarm: Alarm, confirm: Confirm) -> None:
        self._tools = tools
        self._memory = Memory(desks.saved, desks.recall, confirm)
        self._crew = crew
        self._desks = desks
        self._alarm = alarm
        self._gates = Gates()
        self._closed = False

    # --- in line -----------------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many stand in line, at all gates."""
        return self._gates.waiting

    def gates(self) -> tuple[health.ProviderHealth, ...]:
        """How the gates stand, for the snapshot."""
        return tuple(
            health.ProviderHealth(gate.provider, gate.waiting, gate.inside, gate.breaker.is_open)
            for gate in self._gates
        )

    def wait(self, desk: Desk, moment: Moment) -> None:
        """Stand in line, or move to where this grant belongs by now."""
        enrolment = desk.enrolment
        place = pressure.place(desk.grant, moment, enrolment.rules)
        if desk.failures:
            # Failed in a way that its record does not know.
            place = Place(Line.FAILING, place.until)
        self._gates.of(enrolment.provider, enrolment.limits).wait(enrolment.name, place)

    def awaits(self, name: str) -> bool:
        """Whether it stands in line."""
        return self._gates.hold(name)

    def let_in(self, *, minding: bool = False) -> None:
        """Start whoever may start now; no provider waits for another. ``minding``: where none of a gate may, the alarm
        rings when one does. (Else any that was started looks again when it leaves; a sweep sets the alarm itself.)"""
        if self._closed or not self._gates.waiting:
            return
        moment, started = self._tools.clock.moment(), 0
        for gate in self._gates:
            left_alone = True
            while (name := gate.next(moment)) is not None:
                started += 1
                desk = self._desks.get(name)
                if desk is None or self._start(name, partial(self._rotate_due, desk, gate)) is None:
                    # What is at work on it looks itself whether more is due.
                    gate.leave(name, moment, None, asked=False)
                else:
                    left_alone = False
                if started == AT_ONCE:
                    # The rest in the next turn of the loop: a herd must not stop it for long.
                    asyncio.get_running_loop().call_soon(partial(self.let_in, minding=minding))
                    return
            if minding and left_alone and (starts_at := gate.starts_at(moment)) is not None:
                self._alarm.mind(max(starts_at, moment.now + TOGETHER))

    def _start(self, name: str, work: Callable[[], Coroutine[Any, Any, T]]) -> asyncio.Task[T] | None:
        # Not before it has ended: it may itself be the next in line.
        return self._crew.start(key(name), work, partial(self.let_in, minding=True))

    def starts_at(self) -> datetime | None:
        """When the first of those in line may start; None where nobody waits, or only one that ends makes room."""
        return self._gates.starts_at(self._tools.clock.moment())

    def keep(self) -> None:
        """Others are enrolled now: whoever left, or went to another provider, does not wait here any more."""
        self._gates.keep(self._belongs)

    def _belongs(self, provider: str, name: str) -> bool:
        desk = self._desks.get(name)
        return desk is not None and desk.enrolment.provider == provider

    # --- a turn ------------------------------------------------------------------------------------------------

    async def _rotate_due(self, desk: Desk, gate: Gate) -> None:
        result: Result | None = None
        try:
            result = await self._rotation(desk, Wish())
        except RotatorError as error:
            self._hold(desk, error.left if isinstance(error, Overtaken) else None)
            if scribe.is_told(desk.failures) and not isinstance(error, Overtaken):
                now = self._tools.clock.now()
                doing = f"{desk.enrolment.name}: not rotated, nothing was spent"
                self._tools.bus.tell(events.StoreTroubled(at=now, reason=str(error), doing=doing))
        except Exception:
            self._hold(desk)
            self._leave(desk, gate, None)
            raise
        else:
            desk.held_until, desk.failures = None, 0
            self._desks.mind(desk)
        self._leave(desk, gate, result)

    def _hold(self, desk: Desk, left: timedelta | None = None) -> None:
        """``left``: how long the lease of another daemon may keep us out. That is no failure; and once it has run out
        the grant is an orphan, which readers wait for."""
        if left is not None:
            desk.held_until = self._tools.clock.now() + max(left, SOON)
            self._desks.mind(desk)
            return
        # Without it a failure that the record does not know would be due again at once: a tight loop.
        desk.failures += 1
        pause = policy.backoff(desk.failures, HOLD, self._tools.dice.chance())
        desk.held_until = self._tools.clock.now() + pause
        self._desks.mind(desk)

    def mark_outdated(self) -> None:
        """Secrets changed: whoever is at work may have read what was there before, and looks once more after that."""
        for name in self._crew.names(is_rotation):
            if (desk := self._desks.get(name)) is not None:
                desk.outdated = True

    def _leave(self, desk: Desk, gate: Gate, result: Result | None) -> None:
        """A turn has ended: its slot is free, and the alarm rings for what became of it."""
        name, moment = desk.enrolment.name, self._tools.clock.moment()
        if result is None:
            # It raised before the provider was asked, or where another daemon was first all the same.
            told = gate.leave(name, moment, None, asked=False)
        else:
            outcome = result.outcome
            told = gate.leave(
                name, moment, result.cls, asked=result.asked,
                message=outcome.message if outcome is not None else "",
                retry_after=outcome.retry_after if outcome is not None else None,
            )  # fmt: skip
        if told is not None:
            self._tools.bus.tell(told)
        if desk.outdated:
            desk.outdated, desk.look_at = False, moment.now
            self._alarm.mind(moment.now)
        due_at = desk.held_until or desk.grant.due_at
        if due_at is not None and due_at <= moment.now and self._desks.get(name) is desk:
            self.wait(desk, moment)
        else:
            # The store tells it as well: that a rotation ended is no reason for a sweep.
            self._alarm.mind(due_at)

    async def ask(self, name: str, wish: Wish, adopted: lifecycle.Adopted | None = None) -> Result:
        """Rotate now because a person asked, past the line. Raises what the rotation raises."""
        return await self.alone(name, partial(self._pass_by, name, wish, adopted))

    async def _pass_by(self, name: str, wish: Wish, adopted: lifecycle.Adopted | None) -> Result:
        desk = self._desks.known(name)
        gate = self._gates.of(desk.enrolment.provider, desk.enrolment.limits)
        gate.pass_by(name, self._tools.clock.moment())
        result: Result | None = None
        try:
            result = await self._rotation(desk, wish, adopted)
        except Exception:
            self._leave(desk, gate, None)
            raise
        self._leave(desk, gate, result)
        return result

    async def _rotation(self, desk: Desk, wish: Wish, adopted: lifecycle.Adopted | None = None) -> Result:
        if (fell_back := desk.fell_back) is not None:
            await self._note(desk, lifecycle.ClockFellBack())
            if desk.fell_back is fell_back:
                desk.fell_back = None
                self._desks.mind(desk)
        if adopted is not None:
            await self._note(desk, adopted)
        try:
            result = await rotation.rotate(desk.enrolment, self._tools, wish, self._memory)
        except Overtaken:
            # What another saved is what readers wait for now; it may not be due for long. What went back counts for
            # nothing: the next lease puts it right from what is known here.
            theirs = await self._tools.store.grant(desk.enrolment.name)
            if theirs is not None and self._desks.recall(theirs) is None:
                self._desks.saved(theirs)
            raise
        desk.anew = False
        self._desks.mind(desk)
        if result.grant != desk.grant:
            # Looked again under the lease and found what another saved.
            self._desks.saved(result.grant)
        return result

    async def note(self, name: str, fact: lifecycle.Fact) -> None:
        """Bring a fact that is no exchange into the record; it asks no provider and waits in no line."""
        await self.alone(name, lambda: self._note(self._desks.known(name), fact))

    async def _note(self, desk: Desk, fact: lifecycle.Fact) -> None:
        await rotation.note(desk.enrolment, self._tools, fact, self._memory)

    async def alone(self, name: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do what changes a grant's record, after what is in flight and while nothing else does: a second lease of
        our own would overtake the first, and its answer with it. Raises Transient where we are stopping."""
        task: asyncio.Task[T] | None = None
        while task is None:
            self.must_go_on()
            await self.quiet(name)
            task = self._start(name, work)
        # Who asked may go away (a closed connection); the exchange goes on.
        return await asyncio.shield(task)

    # --- the end -----------------------------------------------------------------------------------------------

    def must_go_on(self) -> None:
        """Raises Transient where nothing may be started any more."""
        if self._closed:
            raise Transient("the daemon is stopping", mend="try again once it runs")

    @property
    def in_flight(self) -> int:
        return len(self._crew.running(is_rotation))

    async def quiet(self, name: str | None = None) -> None:
        """Return once no rotation of this grant (None: of any) is in flight."""
        await self._crew.quiet(lambda key: is_rotation(key) and (name is None or key[1] == name))

    async def close(self) -> None:
        """Start nothing any more; return once every exchange in flight is saved."""
        self._closed = True
        await self.quiet()


def key(name: str) -> Key:
    """That of the task which changes the record of a grant."""
    return "rotate", name


def is_rotation(key: Key) -> bool:
    """Whether a task of that key changes the record of a grant."""
    return key[0] == "rotate"

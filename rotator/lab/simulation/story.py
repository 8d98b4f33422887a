"""One story in the virtual world: the script is played against the real engine, lifecycle and token endpoint."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from rotator.core.publication import Publication
from rotator.lab import world
from rotator.lab.simulation.judge import PATIENCE
from rotator.lab.simulation.machine import Verdict
from rotator.lab.simulation.misfortunes import Misfortunes
from rotator.lab.simulation.script import Misfortune, Plan

HOUR = timedelta(hours=1)


class Simulation(Misfortunes):
    """Plays the script, lets everything heal, and judges the end."""

    async def run(self) -> Verdict:
        for one in self.plan.misfortunes:
            self._at(one.at, one.words, _call(self.befall, one))
        self.start()
        await self._play(self.plan.span)
        if self.plan.misfortunes:
            await self._heal()
        self._judge_end()
        await self.kill()
        return self.verdict

    # --- the end ---------------------------------------------------------------------------------------------------

    async def _heal(self) -> None:
        """All faults end; then as long as any budget may hold back the next password exchange, and no longer."""
        self.tell("all faults end")
        while any(words for _, _, words, _ in self._plan):
            _, _, words, do = heapq.heappop(self._plan)
            self.tell(words)
            done = do()
            if asyncio.iscoroutine(done):
                await done
        self.provider.faults.queue.clear()
        if self.total_step:
            # NTP has the last word.
            self.clock.step(-self.total_step)
            self.is_odd_time()
        self.start_once()
        await self._play(self._awake() + 2 * PATIENCE)
        for _ in range(60):
            if all(self._is_right(name) for name in self.names):
                return
            await self._play(self._awake() + HOUR)

    def _is_right(self, name: str) -> bool:
        grant, held = self.shelf.grants.get(name), self.places[name].holds
        fresh = grant is not None and grant.latch is None and grant.holds_valid(self.clock.now())
        return fresh and isinstance(held, Publication) and grant is not None and held.access == grant.access

    def _judge_end(self) -> None:
        """What must hold once all faults have ended and time has passed."""
        now = self.clock.now()
        self.verdict.passwords = sum(len(times) for times in self.judge.logins.values())
        self.readers.end()
        for gap in self.readers.first:
            self.judge.judge_gap(gap, first=True)
        for gap in self.readers.gaps:
            self.judge.judge_gap(gap)
        self.verdict.gaps = [*self.readers.first, *self.readers.gaps]
        for name in self.names:
            grant, held = self.shelf.grants[name], self.places[name].holds
            if grant.latch is not None:
                self.judge.breaks(f"{name} is latched although its credentials are right: {grant.latch.reason}")
            elif not grant.holds_valid(now):
                self.judge.breaks(f"{name} is not fresh: {grant.trouble}")
            elif not isinstance(held, Publication) or held.access != grant.access:
                self.judge.breaks(f"{name}: the target does not hold the saved generation")
            if self.provider.is_locked(name):
                self.judge.breaks(f"{name}: the account was locked")


def _call(do: Callable[[Misfortune], object], argument: Misfortune) -> Callable[[], object]:
    return lambda: do(argument)


def run(plan: Plan) -> Verdict:
    """Tell one story."""

    async def story() -> Verdict:
        return await Simulation(plan).run()

    return world.run(story)


def quiet(plan: Plan) -> Plan:
    """The same story where nothing goes wrong."""
    return replace(plan, script=())

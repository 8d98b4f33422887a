"""What is still to happen in a story, on the clock that stands still while the machine sleeps."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable
from datetime import timedelta

from rotator.lab.simulation.machine import ZERO, Machine
from rotator.lab.simulation.readers import Cause
from rotator.lab.simulation.script import Plan


class Timeline(Machine):
    """Lets things happen at their time, and brings a process that died at a crash point back after ``down_for``."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self._orders = itertools.count()
        self._plan: list[tuple[timedelta, int, str, Callable[[], object]]] = []
        self.down_for = ZERO

    def _at(self, at: timedelta, words: str, do: Callable[[], object]) -> None:
        heapq.heappush(self._plan, (at, next(self._orders), words, do))

    def _after(self, span: timedelta, words: str, do: Callable[[], object]) -> None:
        self._at(self._awake() + span, words, do)

    def _awake(self) -> timedelta:
        return timedelta(seconds=asyncio.get_running_loop().time())

    async def _play(self, until: timedelta) -> None:
        """Let things happen until then, on the clock that stands still while the machine sleeps."""
        self._at(until, "", lambda: None)
        while True:
            at, order, words, do = heapq.heappop(self._plan)
            if not await self._live_until(at):
                heapq.heappush(self._plan, (at, order, words, do))
                continue
            if words:
                self.tell(words)
            done = do()
            if asyncio.iscoroutine(done):
                await done
            if not words and at >= until:
                return

    async def _live_until(self, at: timedelta) -> bool:
        """True once that time has come; False where the process died before, and its return is planned."""
        blown = asyncio.ensure_future(self.fuse.blown.wait())
        passing = asyncio.ensure_future(self.clock.pass_time(max(ZERO, at - self._awake())))
        await asyncio.wait([blown, passing], return_when=asyncio.FIRST_COMPLETED)
        died = blown.done()
        for one in (blown, passing):
            one.cancel()
        await asyncio.gather(blown, passing, return_exceptions=True)
        if died:
            self.tell(f"killed: {self.fuse.where}")
            await self.kill()
            self._down = self.judge.hindrances.begin(Cause.NOT_RUNNING)
            self._after(self.down_for, "started again", self.start_once)
        return not died

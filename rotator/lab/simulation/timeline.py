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
        self._news = asyncio.Event()
        self._plan: list[tuple[timedelta, int, str, Callable[[], object]]] = []
        self.down_for = ZERO

    def _at(self, at: timedelta, words: str, do: Callable[[], object]) -> None:
        heapq.heappush(self._plan, (at, next(self._orders), words, do))
        self._news.set()

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
        """True once that time has come; False where something else may come first: the process died, and its return is
        planned, or something was planned meanwhile."""
        self._news.clear()
        waits = [
            asyncio.ensure_future(wait)
            for wait in (self.clock.pass_time(max(ZERO, at - self._awake())), self.fuse.blown.wait(), self._news.wait())
        ]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        passed, died = waits[0].done(), waits[1].done()
        for one in waits:
            one.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
        if died:
            self.tell(f"killed: {self.fuse.where}")
            await self.kill()
            self._down = self.judge.hindrances.begin(Cause.NOT_RUNNING)
            self._after(self.down_for, "started again", self.start_once)
        return passed and not died

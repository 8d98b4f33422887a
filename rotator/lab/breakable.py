"""What breaks in a simulation: the way to the provider, the store, the targets. Each also checks what only it sees."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from rotator.core.errors import Overtaken, Transient, Unavailable
from rotator.core.grants import Grant
from rotator.core.ports import HttpAnswer, HttpRequest, Lease, Reach
from rotator.core.publication import Publication, Settled
from rotator.lab import world
from rotator.lab.fos import Provider
from rotator.lab.memory import MemoryStore, Shelf

Broken = Callable[[str], None]


class Fuse:
    """Numbered crash points: a call to a port begins, its effect is there, it returns. Once armed, the n-th point is
    where everything ends: whoever comes there never goes on, and `blown` tells the story to kill the process."""

    def __init__(self) -> None:
        self.left = 0
        self.blown = asyncio.Event()
        self.where = ""

    def arm(self, number: int) -> None:
        self.left = number

    def reset(self) -> None:
        self.left = 0
        self.blown.clear()

    async def point(self, where: str) -> None:
        if not self.left:
            return
        self.left -= 1
        if not self.left:
            self.where = where
            self.blown.set()
            await asyncio.get_running_loop().create_future()


@dataclass(slots=True)
class Weather:
    """What breaks for every process of the machine alike. ``cut`` counts what cuts the line, ``slowest`` is in seconds,
    ``store_away`` says why no write is taken, empty where they are. ``on_save`` is called just before
    the ``saves_left``-th save from now."""

    cut: int = 0
    slowest: float = 0.2
    store_away: str = ""
    saves_left: int = 0
    on_save: Callable[[], None] = lambda: None


class Line:
    """The port `ports.Http`: one process's way to the provider, which may be cut, slow, or lose an answer.

    ``asked`` hears of each request that sets out: (grant, fields). ``answered`` hears of each answer that
    carries a token, before it is handed over: (grant, access token).
    """

    def __init__(
        self, provider: Provider, clock: world.VirtualClock, dice: world.SeededDice, weather: Weather, fuse: Fuse,
        broken: Broken,
    ) -> None:  # fmt: skip
        self._provider = provider
        self._clock = clock
        self._dice = dice
        self._fuse = fuse
        self._broken = broken
        self._weather = weather
        self.asked: Callable[[str, dict[str, str]], None] = _ignore
        self.answered: Callable[[str, bytes], None] = _ignore
        self.touched: Callable[[str], None] = _ignore
        self._in_flight: Counter[str] = Counter()

    async def send(self, request: HttpRequest, *, deadline: timedelta, limit: int = 1 << 20) -> HttpAnswer:
        fields = dict(pair.split("=", 1) for pair in request.body.decode().split("&"))
        name = fields["client_id"].partition("_")[2]
        await self._fuse.point("before the request leaves")
        if self._weather.cut:
            return HttpAnswer(Reach.NOTHING, failure="refused", detail="connection refused")
        self._in_flight[name] += 1
        if self._in_flight[name] > 1:
            self._broken(f"{name}: two exchanges are in flight")
        try:
            self.asked(name, fields)
            return await self._carry(request, name, deadline)
        finally:
            self._in_flight[name] -= 1

    async def _carry(self, request: HttpRequest, name: str, deadline: timedelta) -> HttpAnswer:
        there = timedelta(seconds=self._weather.slowest * self._dice.chance())
        back = timedelta(seconds=self._weather.slowest * self._dice.chance())
        if there > deadline:
            await self._clock.pass_time(deadline)
            return HttpAnswer(Reach.WRITTEN, failure="timeout", detail="no answer in time")
        await self._clock.pass_time(there)
        if self._weather.cut:
            return HttpAnswer(Reach.WRITTEN, failure="reset", detail="the connection broke off")
        reply = self._provider.respond("POST", dict(request.headers), "", request.body)
        self.touched(name)
        await self._fuse.point("the provider has committed")
        await self._clock.pass_time(min(back, deadline - there))
        if reply is None or there + back > deadline or self._weather.cut:
            return HttpAnswer(Reach.WRITTEN, failure="reset", detail="the connection broke off")
        headers = tuple((key.lower(), value) for key, value in reply.headers)
        if not reply.complete:
            return HttpAnswer(Reach.STATUS, reply.status, headers, b"", "reset", "the answer broke off")
        await self._fuse.point("the answer is here")
        if reply.status == 200:
            self.answered(name, reply.body)
        return HttpAnswer(Reach.COMPLETE, reply.status, headers, reply.body)


class FlakyStore(MemoryStore):
    """The store in memory, that can be away, and that checks what only a store can see. ``saved`` hears of each grant
    that became durable."""

    def __init__(
        self, shelf: Shelf, *, clock: world.VirtualClock, dice: world.SeededDice, weather: Weather, fuse: Fuse,
        broken: Broken,
    ) -> None:  # fmt: skip
        super().__init__(shelf, clock=clock, dice=dice)
        self._weather = weather
        self._fuse = fuse
        self._broken = broken
        self.saved: Callable[[Grant], None] = _ignore

    async def save(self, grant: Grant, *, expected: int, lease: Lease | None, now: datetime) -> None:
        what = "the intent" if grant.intent else "the new generation" if grant.generation > expected else "a finding"
        await self._fuse.point(f"before {what} is saved")
        if self._weather.saves_left:
            self._weather.saves_left -= 1
            if not self._weather.saves_left:
                self._weather.on_save()
        if self._weather.store_away:
            raise Unavailable(f"the store takes no write: {self._weather.store_away}")
        before = self.shelf.grants.get(grant.name)
        if before is not None and before.lineage == grant.lineage and grant.generation < before.generation:
            self._broken(f"{grant.name}: the generation fell from {before.generation} to {grant.generation}")
        if grant.latch is not None and grant.intent is not None:
            self._broken(f"{grant.name}: announced an exchange while it is latched")
        try:
            await super().save(grant, expected=expected, lease=lease, now=now)
        except Overtaken:
            self.saved(grant)
            raise
        self.saved(grant)
        await self._fuse.point(f"{what} is saved")

    async def delivered(self, delivery: object) -> None:
        await self._fuse.point("before the delivery is noted")
        if self._weather.store_away:
            raise Unavailable(f"the store takes no write: {self._weather.store_away}")
        await super().delivered(delivery)  # type: ignore[arg-type]  # as it came


class WatchedPlace(world.MemoryPublisher):
    """A target that no unsaved and no worse token may reach. ``changed`` hears of each change a reader could see."""

    def __init__(self, location: str, fuse: Fuse, broken: Broken) -> None:
        super().__init__(location)
        self.shelves: list[Shelf] = []
        self.away = 0
        self._fuse = fuse
        self._broken = broken
        self.changed: Callable[[], None] = _nothing

    async def settle(self, publication: Publication, now: datetime) -> Settled:
        await self._fuse.point("before the target is looked at")
        if self.away:
            raise Transient("the target takes no write")
        self._check(publication, now)
        before = self.holds
        settled = await super().settle(publication, now)
        self.history.clear()
        if self.holds is not before:
            self.changed()
            await self._fuse.point("the target is written")
        return settled

    def _check(self, publication: Publication, now: datetime) -> None:
        stored = [shelf.grants.get(publication.grant) for shelf in self.shelves]
        if not any(one is not None and one.generation >= publication.generation for one in stored):
            self._broken(f"{publication.grant}: generation {publication.generation} was published before it was saved")
        if not publication.access.is_valid(now):
            self._broken(f"{publication.grant}: an expired token was published")
        there = self.holds
        if (
            isinstance(there, Publication)
            and there.lineage == publication.lineage
            and there.generation > publication.generation
            and there.access.is_valid(now)
            and len(self.shelves) == 1
            and self._judge(publication).value != "ahead"
        ):
            self._broken(f"{publication.grant}: a good token was replaced by an older one")

    async def remove(self, mark: str) -> bool:
        gone = await super().remove(mark)
        if gone:
            self._broken(f"{self.location}: a configured target was cleared away")
        return gone


def _ignore(*_: object) -> None:
    pass


def _nothing() -> None:
    pass

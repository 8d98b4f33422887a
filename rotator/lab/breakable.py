"""What breaks in a simulation: the way to the provider, the store, the targets. Each also checks what only it sees."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from urllib.parse import parse_qs

from rotator.core.errors import Unavailable
from rotator.core.grants import Grant, Kind
from rotator.core.ports import HttpAnswer, HttpRequest, Lease, Reach
from rotator.core.publication import Publication, Settled
from rotator.lab import world
from rotator.lab.fos import Provider
from rotator.lab.memory import MemoryStore, Shelf


class Line:
    """The port `ports.Http`: the way to the provider, which may be cut, slow, or lose an answer."""

    def __init__(self, provider: Provider, clock: world.VirtualClock, dice: world.SeededDice) -> None:
        self._provider = provider
        self._clock = clock
        self._dice = dice
        self.cut = False
        self.slowest = timedelta(milliseconds=200)
        self.in_flight: Counter[str] = Counter()
        self.most_in_flight = 0
        self.logins: dict[str, list[datetime]] = {}
        self.answered: dict[str, str] = {}

    async def send(self, request: HttpRequest, *, deadline: timedelta, limit: int = 1 << 20) -> HttpAnswer:
        fields = {key: values[0] for key, values in parse_qs(request.body.decode()).items()}
        name = fields["client_id"].partition("_")[2]
        if self.cut:
            return HttpAnswer(Reach.NOTHING, failure="refused", detail="connection refused")
        if fields["grant_type"] == Kind.PASSWORD.value:
            self.logins.setdefault(name, []).append(self._clock.now())
        self.in_flight[name] += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight[name])
        try:
            return await self._carry(request, name, deadline)
        finally:
            self.in_flight[name] -= 1

    async def _carry(self, request: HttpRequest, name: str, deadline: timedelta) -> HttpAnswer:
        there = self.slowest * self._dice.chance()
        if there > deadline:
            await self._clock.pass_time(deadline)
            return HttpAnswer(Reach.WRITTEN, failure="timeout", detail="no answer in time")
        await self._clock.pass_time(there)
        reply = self._provider.respond("POST", dict(request.headers), "", request.body)
        back = self.slowest * self._dice.chance()
        await self._clock.pass_time(min(back, deadline - there))
        if reply is None or there + back > deadline:
            return HttpAnswer(Reach.WRITTEN, failure="reset", detail="the connection broke off")
        headers = tuple((key.lower(), value) for key, value in reply.headers)
        if not reply.complete:
            return HttpAnswer(Reach.STATUS, reply.status, headers, b"", "reset", "the answer broke off")
        return HttpAnswer(Reach.COMPLETE, reply.status, headers, reply.body)


class FlakyStore(MemoryStore):
    """The store in memory, that can be away, and that checks what only a store can see."""

    away = False
    broken: list[str]

    async def save(self, grant: Grant, *, expected: int, lease: Lease | None, now: datetime) -> None:
        if self.away:
            raise Unavailable("the disk is full")
        before = self.shelf.grants.get(grant.name)
        if before is not None and before.lineage == grant.lineage and grant.generation < before.generation:
            self.broken.append(f"the generation of {grant.name} fell from {before.generation} to {grant.generation}")
        if before is not None and before.latch is not None and grant.latch is not None and grant.intent is not None:
            self.broken.append(f"{grant.name} announced an exchange while it is latched")
        await super().save(grant, expected=expected, lease=lease, now=now)


class WatchedPlace(world.MemoryPublisher):
    """A target whose reader notices every gap, and that no unsaved generation may reach."""

    shelf: Shelf
    broken: list[str]
    gaps: int = 0

    async def settle(self, publication: Publication, now: datetime) -> Settled:
        stored = self.shelf.grants.get(publication.grant)
        if stored is None or stored.generation < publication.generation:
            self.broken.append(
                f"{publication.grant}: generation {publication.generation} published before it was saved"
            )
        if not publication.access.is_valid(now):
            self.broken.append(f"{publication.grant}: an expired token was published")
        if isinstance(self.holds, Publication) and not self.holds.access.is_valid(now):
            self.gaps += 1
        return await super().settle(publication, now)

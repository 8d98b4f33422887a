"""What stands around the engine in a simulated month: the way to each provider, the targets with their readers, the
store. Each can be away, and each judges what only it sees."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta

from rotator.core.errors import Unavailable
from rotator.core.policy import Reuse, Rules
from rotator.core.ports import HttpAnswer, HttpRequest, Reach
from rotator.core.publication import Found, Publication, Settled
from rotator.lab import ledger, world
from rotator.lab.fos import Provider
from rotator.lab.memory import Shelf
from rotator.lab.registry import Client, Profile, User
from rotator.lab.report import Report

SECOND = timedelta(seconds=1)
GENESIS = world.GENESIS.timestamp()
LOGIN = b"grant_type=password"


def behaviour(rules: Rules) -> ledger.Reuse:
    """The emulated provider that does with a spent refresh token what these rules expect of theirs."""
    if rules.reuse is Reuse.KILLS_FAMILY:
        return ledger.Reuse.GRACE_NEW_PAIR if rules.grace else ledger.Reuse.FAMILY_REVOKE
    return ledger.Reuse.GRACE_SAME_PAIR if rules.grace else ledger.Reuse.FOS


class Site:
    """One provider and the way there. ``away`` counts the outages that are on; ``waiting_from`` tells when requests
    began to be held back by the provider's limits."""

    def __init__(
        self, names: list[str], rules: Rules, lifetime: timedelta, clock: world.VirtualClock, dice: world.SeededDice
    ) -> None:
        self.clock = clock
        self.dice = dice
        self.away = 0
        self.latency = timedelta(milliseconds=200)
        self.lost = 0.0
        self.requests: Counter[int] = Counter()
        refresh = rules.refresh_lifetime or timedelta(days=3650)
        self.provider = Provider(
            [Client(f"1_{name}", "cs") for name in names],
            [User(name, "pw") for name in names],
            now=lambda: GENESIS + clock.passed().total_seconds(),
            token=lambda: dice.name() + dice.name(),
            profile=Profile(
                access_seconds=max(1, lifetime // SECOND),
                refresh_seconds=refresh // SECOND,
                reuse=behaviour(rules),
                grace_seconds=rules.grace.total_seconds(),
            ),
            keep=0,
        )

    def good_until(self, token: str) -> timedelta | None:
        """How long the provider takes this access token; None where it does not (any more)."""
        row = self.provider.ledger.access.get(token)
        return None if row is None else timedelta(seconds=row.expires_at - GENESIS)


class Road:
    """The port `ports.Http` for one grant. ``lost_at`` is when the last answer broke off on it; ``rules`` None is for
    logins that a person makes."""

    __slots__ = ("_in_flight", "_logins", "_place", "_report", "_rules", "_site", "lost_at", "name")

    def __init__(self, name: str, site: Site, place: Place, rules: Rules | None, report: Report) -> None:
        self.name = name
        self.lost_at: timedelta | None = None
        self._site = site
        self._place = place
        self._rules = rules
        self._report = report
        self._in_flight = 0
        self._logins: list[timedelta] = []

    async def send(self, request: HttpRequest, *, deadline: timedelta, limit: int = 1 << 20) -> HttpAnswer:
        if self._site.away:
            return HttpAnswer(Reach.NOTHING, failure="refused", detail="connection refused")
        if self._in_flight:
            self._report.broken.append(f"{self.name}: two exchanges were in flight at once")
        self._in_flight += 1
        try:
            return await self._carry(request, deadline)
        finally:
            self._in_flight -= 1

    async def _carry(self, request: HttpRequest, deadline: timedelta) -> HttpAnswer:
        site = self._site
        there = min(site.latency * site.dice.chance(), deadline)
        await site.clock.pass_time(there)
        if site.away or there >= deadline:
            return self._broken_off()
        passed = site.clock.passed()
        site.requests[passed // SECOND] += 1
        if LOGIN in request.body:
            self._log_in(passed)
        reply = site.provider.respond(request.method, dict(request.headers), "", request.body)
        self._place.look()
        back = site.latency * site.dice.chance()
        await site.clock.pass_time(min(back, deadline - there))
        if reply is None or there + back >= deadline or (site.lost and site.dice.chance() < site.lost):
            return self._broken_off()
        headers = tuple((key.lower(), value) for key, value in reply.headers)
        return HttpAnswer(Reach.COMPLETE, reply.status, headers, reply.body)

    def _broken_off(self) -> HttpAnswer:
        self.lost_at = self._site.clock.passed()
        return HttpAnswer(Reach.WRITTEN, failure="reset", detail="the connection broke off")

    def _log_in(self, passed: timedelta) -> None:
        """Counted where it arrives. Wall time is no measure of a window that a clock step may have gone through."""
        self._report.logged_in(passed)
        if self._rules is None:
            return
        budget = self._rules.budget
        # A login is debited when it sets out; the one before it may have been longer on its way.
        since = passed - budget.window + self._rules.deadline
        self._logins = [at for at in self._logins if at > since] + [passed]
        if len(self._logins) > budget.limit:
            self._report.broken.append(f"{self.name}: {len(self._logins)} logins within {budget.window}")


class Place(world.MemoryPublisher):
    """A target and its reader, who notices each moment without a token that the provider takes.

    ``met`` hears of every gap as (grant, began, ended); ``good_until`` is how long the token that stands there holds.
    """

    def __init__(self, name: str, site: Site, shelf: Shelf, report: Report, met: Callable[..., None]) -> None:
        super().__init__(f"memory:{name}")
        self.name = name
        self.away = False
        self.good_until: timedelta | None = None
        self.first_at: timedelta | None = None
        self._site = site
        self._shelf = shelf
        self._report = report
        self._met = met

    async def settle(self, publication: Publication, now: datetime) -> Settled:
        if self.away:
            raise Unavailable("the target is away")
        found = self._judge(publication)
        if found is Found.CURRENT:
            return Settled(found, mark=str(publication.generation))
        if found is Found.AHEAD:
            self._report.broken.append(f"{self.name}: the target is ahead of the store")
        stored = self._shelf.grants.get(self.name)
        if stored is None or stored.generation < publication.generation:
            self._report.broken.append(
                f"{self.name}: generation {publication.generation} published before it was saved"
            )
        passed = self._site.clock.passed()
        if self.good_until is not None and self.good_until < passed:
            self._met(self.name, self.good_until, passed)
        self.first_at = passed if self.first_at is None else self.first_at
        self.holds = publication
        self.good_until = self._site.good_until(publication.value.reveal()) or passed
        return Settled(found, mark=str(publication.generation))

    def look(self) -> None:
        """The provider has just answered this grant: does it still take what stands here?"""
        if self.good_until is None or not isinstance(self.holds, Publication):
            return
        passed = self._site.clock.passed()
        if passed < self.good_until and self._site.good_until(self.holds.value.reveal()) is None:
            self.good_until = passed

    def end(self, span: timedelta) -> None:
        """The story is over: a gap that is still open ends with it."""
        until = timedelta(0) if self.good_until is None else self.good_until
        if until < span:
            self._met(self.name, until, span)

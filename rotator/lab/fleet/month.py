"""One world of a fleet: the real daemon in virtual time, from its first start to the end of the span.

Nothing of the engine is simplified: scheduler, gates, lifecycle and token endpoint are those of `rotator run`. What
stands around it is in `surroundings`: targets in memory, a store in memory, an emulated provider.
"""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

from rotator.core import events
from rotator.core.errors import RotatorError
from rotator.core.ports import Enrolment
from rotator.core.tokens import Secret
from rotator.drivers import oauth
from rotator.engine.bus import Bus
from rotator.engine.daemon import Daemon, Parts
from rotator.engine.timing import Timing
from rotator.lab import world
from rotator.lab.breakable import FlakyStore, Fuse, Weather
from rotator.lab.fleet import causes
from rotator.lab.fleet.scenario import ZERO, Fault, Scenario, Sort, Trouble
from rotator.lab.fleet.surroundings import Place, Road, Site
from rotator.lab.memory import Shelf
from rotator.lab.report import UNEXPLAINED, Report, Stretch

SECOND = timedelta(seconds=1)
BINS = 720
STEPS = 400
TIDY = 20
TRY_AGAIN = timedelta(minutes=1)
# Nobody touches a target here, so that each is looked at a few times a day; what is due rings its own alarm.
TIMING = Timing(sweep_every=timedelta(minutes=1), verify_every=timedelta(hours=6))
# A burst of events waits here until the loop has a moment; none may be dropped, they are counted.
ROOM = 1 << 24
Progress = Callable[[float], None]
Change = Callable[[], Awaitable[None]]


class Month:
    """One story. `tell` returns what happened; ``progress`` hears how much of it is over (0 to 1)."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.report = Report(
            seed=scenario.seed,
            grants=scenario.grants,
            span=scenario.span,
            bin=-(-scenario.span // (BINS * SECOND)) * SECOND,
            faults=[fault.told() for fault in scenario.faults],
        )
        self.clock = world.VirtualClock()
        self.dice = world.SeededDice(scenario.seed)
        self.shelf = Shelf()
        self.sites: dict[str, Site] = {}
        self.sorts: dict[str, Sort] = {}
        self.roads: dict[str, Road] = {}
        self.places: dict[str, Place] = {}
        self._weather = Weather()
        self._serving: asyncio.Task[None] | None = None
        self._person: asyncio.Task[None] | None = None
        self._on: Counter[Trouble] = Counter()
        self.roster = world.FixedRoster(self._furnish())

    def _furnish(self) -> list[Enrolment]:
        """A home for every grant, and a site for every provider."""
        by_provider: dict[str, list[Sort]] = {}
        for sort in self.scenario.sorts:
            by_provider.setdefault(sort.provider, []).append(sort)
        made: list[Enrolment] = []
        for number, (provider, sorts) in enumerate(sorted(by_provider.items())):
            named = {
                f"{sort.name}#{place}" if sort.count > 1 else sort.name: sort
                for sort in sorts
                for place in range(1, sort.count + 1)
            }
            site = self.sites[provider] = Site(
                list(named), sorts[0].rules, sorts[0].lifetime, self.clock,
                world.SeededDice((self.scenario.seed << 8) + number),
            )  # fmt: skip
            site.latency = self.scenario.latency
            site.lost = self.scenario.lost
            made += [self._enrol(name, sort, site) for name, sort in named.items()]
            self.sorts |= named
        return made

    def _enrol(self, name: str, sort: Sort, site: Site) -> Enrolment:
        place = self.places[name] = Place(name, site, self.shelf, self.report, self._met)
        road = self.roads[name] = Road(name, site, place, sort.rules if sort.rules.password else None, self.report)
        secrets = world.FixedCredentials(password="pw" if sort.rules.password else None)
        secrets.values |= {"client_id": f"1_{name}", "username": name}
        profile = oauth.Profile(token_url="https://provider.invalid/oauth/v2/token")  # noqa: S106 (no password)
        return Enrolment(
            name=name,
            provider=sort.provider,
            identity=(sort.provider, name, name),
            rules=sort.rules,
            endpoint=oauth.Endpoint(profile, road, now=self.clock.now),
            credentials=secrets,
            targets={"app": place},
            limits=sort.limits,
        )

    # --- the story ---------------------------------------------------------------------------------------------

    async def tell(self, progress: Progress) -> Report:
        scenario = self.scenario
        self._start()
        for at, change in self._agenda():
            if at > self.clock.passed():
                await self.clock.pass_time(at - self.clock.passed())
            await change()
            progress(min(1.0, at / scenario.span))
        await self.clock.pass_time(max(ZERO, scenario.span - self.clock.passed()))
        self._conclude()
        await self._kill()
        return self.report

    def _agenda(self) -> list[tuple[timedelta, Change]]:
        """Every fault as it comes and goes, and now and then a moment to clean up and to tell how far we are."""
        faults = self.scenario.faults
        agenda: list[tuple[timedelta, Change]] = [
            (self.scenario.span * step / STEPS, self._rest if step % TIDY else self._tidy) for step in range(1, STEPS)
        ]
        agenda += [(fault.began, partial(self._turn, fault, begins=True)) for fault in faults]
        agenda += [
            (fault.ended, partial(self._turn, fault, begins=False))
            for fault in faults
            if fault.trouble is not Trouble.CLOCK
        ]
        return sorted(agenda, key=lambda entry: entry[0])

    async def _rest(self) -> None:
        """Nothing happens; somebody hears how far we are."""

    async def _tidy(self) -> None:
        """The providers' clean-up job; it also keeps a long story small."""
        for site in self.sites.values():
            site.provider.purge()

    async def _turn(self, fault: Fault, *, begins: bool) -> None:
        if fault.trouble is Trouble.CLOCK:
            self.clock.step(fault.step)
            return
        before = self._on[fault.trouble]
        self._on[fault.trouble] += 1 if begins else -1
        on = self._on[fault.trouble] > 0
        if on == (before > 0):
            return
        match fault.trouble:
            case Trouble.PROVIDER:
                for site in self.sites.values():
                    site.away = int(on)
            case Trouble.STORE:
                self._weather.store_away = "broken on purpose" if on else ""
            case Trouble.TARGETS:
                for place in self.places.values():
                    place.away = on
            case Trouble.DAEMON:
                if on:
                    await self._kill()
                else:
                    self._start()

    def _start(self) -> None:
        """Start a daemon on what the shelf holds."""
        store = FlakyStore(
            self.shelf, clock=self.clock, dice=self.dice, weather=self._weather, fuse=Fuse(),
            broken=self.report.broken.append,
        )  # fmt: skip
        bus = Bus(self.clock.now, ROOM)
        bus.join("report", self._hear)
        daemon = Daemon(
            Parts(
                version="lab", clock=self.clock, dice=self.dice, store=store, bus=bus, roster=self.roster,
                watcher=world.BlindWatcher(), supervisor=world.QuietSupervisor(listens=False), timing=TIMING,
            )
        )  # fmt: skip
        self._serving = asyncio.create_task(daemon.serve(), name="daemon")
        self._person = asyncio.create_task(self._authorize(daemon), name="person")

    async def _authorize(self, daemon: Daemon) -> None:
        """What `rotator authorize` is for: a person logs in once for each grant whose password is not configured."""
        waiting = [name for name, sort in self.sorts.items() if not sort.rules.password]
        while waiting:
            for name in waiting:
                if self.places[name].first_at is None:
                    try:
                        await daemon.authorize(name, Secret("pw"), None)
                    except RotatorError:
                        # The daemon is not up yet, or the provider is away: later again.
                        continue
            waiting = [name for name in waiting if self.places[name].first_at is None]
            await self.clock.pass_time(TRY_AGAIN)

    async def _kill(self) -> None:
        """Cut the process off: what it had not saved is gone, and whatever it still tries reaches no store."""
        self.shelf.free()
        mine = {asyncio.current_task()}
        for task in asyncio.all_tasks() - mine:
            task.cancel()
        await asyncio.gather(*(asyncio.all_tasks() - mine), return_exceptions=True)
        self.clock.stop()

    # --- what is heard -----------------------------------------------------------------------------------------

    def _hear(self, event: events.Event) -> None:
        at = self.clock.passed()
        match event:
            case events.Rotated():
                self.report.rotated(at)
            case events.ExchangeFailed():
                self.report.failed(at)
            case events.ExchangeStarted() if event.attempt > 1:
                self.report.resends += 1
            case events.TaskFailed():
                self.report.broken.append(event.sentence)

    def _met(self, name: str, began: timedelta, ended: timedelta) -> None:
        sort = self.sorts[name]
        what = causes.explain(
            sort, began, ended, faults=self.scenario.faults, lost_at=self.roads[name].lost_at,
            requests=self.sites[sort.provider].requests, first=self.places[name].first_at is None,
        )  # fmt: skip
        self.report.gaps.append(Stretch(began=began, ended=ended, what=what, grant=name))
        if what == UNEXPLAINED:
            self.report.broken.append(
                f"{name}: readers had no valid token for {ended - began}, and nothing explains it"
            )

    def _conclude(self) -> None:
        for place in self.places.values():
            place.end(self.scenario.span)
        firsts = [place.first_at for place in self.places.values() if place.first_at is not None]
        self.report.enrolled = max(firsts, default=ZERO)
        self.report.latched = sum(grant.latch is not None for grant in self.shelf.grants.values())
        for site in self.sites.values():
            self.report.requests.update(site.requests)


def tell(scenario: Scenario, progress: Progress) -> Report:
    """Tell one world's story."""
    # Millions of short-lived objects: the collector's own pace would cost a tenth of the time.
    gc.set_threshold(200_000, 20, 20)

    async def story() -> Report:
        return await Month(scenario).tell(progress)

    return world.run(story)

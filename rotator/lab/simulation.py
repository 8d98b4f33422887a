"""Months of a fleet in seconds: the real engine, lifecycle and token endpoint against the emulated provider, in
virtual time, under seeded faults; then the invariants, then a verdict.

The same seed tells the same story. What is broken on purpose: the way to the provider (`Line`), the provider
(`rotator.lab.faults`), the store (`FlakyStore`), the process (killed and started again), and the clock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from rotator.core import events
from rotator.core.policy import Budget, Reuse, Rules
from rotator.core.ports import Enrolment
from rotator.core.publication import Publication
from rotator.drivers import oauth
from rotator.engine.bus import Bus
from rotator.engine.daemon import Daemon, Parts
from rotator.engine.scheduler import Timing
from rotator.lab import ledger, world
from rotator.lab.breakable import FlakyStore, Line, WatchedPlace
from rotator.lab.faults import Mishap
from rotator.lab.fos import Provider
from rotator.lab.memory import Shelf
from rotator.lab.registry import Client, Profile, User

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

# What a spent refresh token costs at each kind of provider, as its settings would say.
PROFILES: dict[ledger.Reuse, tuple[Reuse, timedelta]] = {
    ledger.Reuse.FOS: (Reuse.HARMLESS, timedelta(0)),
    ledger.Reuse.GRACE_SAME_PAIR: (Reuse.HARMLESS, 2 * MINUTE),
    ledger.Reuse.GRACE_NEW_PAIR: (Reuse.KILLS_FAMILY, 30 * SECOND),
    ledger.Reuse.FAMILY_REVOKE: (Reuse.KILLS_FAMILY, timedelta(0)),
    ledger.Reuse.UNTIL_NEW_USED: (Reuse.HARMLESS, timedelta(0)),
    ledger.Reuse.NEVER_REVOKED: (Reuse.HARMLESS, timedelta(0)),
    ledger.Reuse.STICKY_VALUE: (Reuse.HARMLESS, timedelta(0)),
    ledger.Reuse.NO_RT_IN_REFRESH: (Reuse.HARMLESS, timedelta(0)),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One story: how many grants, how long, at which kind of provider. ``faults`` False tells a quiet one."""

    seed: int
    grants: int = 3
    span: timedelta = 2 * DAY
    policy: ledger.Reuse = ledger.Reuse.FOS
    faults: bool = True
    budget: Budget = field(default_factory=Budget)


@dataclass(slots=True)
class Verdict:
    """How the story went. ``broken`` names every invariant that did not hold, ``told`` the story in words."""

    plan: Plan
    rotations: int = 0
    passwords: int = 0
    gaps: int = 0
    broken: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def story(self) -> str:
        """What happened and what broke, for a person."""
        head = f"seed {self.plan.seed}, {self.plan.policy.value}, {self.plan.grants} grant(s)"
        return "\n".join([head, *self.told, "", *(f"BROKEN: {one}" for one in self.broken)])


class Simulation:
    """One story in the virtual world."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.verdict = Verdict(plan)
        self.clock = world.VirtualClock()
        self.dice = world.SeededDice(plan.seed)
        self.names = [f"g{number}" for number in range(plan.grants)]
        reuse, grace = PROFILES[plan.policy]
        tokens = world.SeededDice(plan.seed + 1)
        self.provider = Provider(
            [Client(f"1_{name}", "cs") for name in self.names],
            [User(name, "pw") for name in self.names],
            now=lambda: self.clock.now().timestamp(),
            token=lambda: tokens.name() + tokens.name(),
            profile=Profile(reuse=plan.policy, grace_seconds=grace.total_seconds()),
        )
        self.line = Line(self.provider, self.clock, self.dice)
        self.rules = Rules(password=True, budget=plan.budget, reuse=reuse, grace=grace)
        self.shelf = Shelf()
        self.secrets = {name: world.FixedCredentials() for name in self.names}
        for name, secrets in self.secrets.items():
            secrets.values |= {"client_id": f"1_{name}", "username": name}
        self.places = {name: self._place(name) for name in self.names}
        self.roster = world.FixedRoster(self._enrolment(name) for name in self.names)
        self.store: FlakyStore | None = None
        self._serving: asyncio.Task[None] | None = None

    def _place(self, name: str) -> WatchedPlace:
        place = WatchedPlace(f"memory:{name}")
        place.shelf, place.broken = self.shelf, self.verdict.broken
        return place

    def _enrolment(self, name: str) -> Enrolment:
        profile = oauth.Profile(token_url="https://provider.invalid/oauth/v2/token")  # noqa: S106 (no password)
        return Enrolment(
            name=name,
            provider="lab",
            identity=("lab", name, name),
            rules=self.rules,
            endpoint=oauth.Endpoint(profile, self.line, now=self.clock.now),
            credentials=self.secrets[name],
            targets={"app": self.places[name]},
        )

    # --- the process -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start a daemon on what the shelf holds."""
        self.store = FlakyStore(self.shelf, clock=self.clock, dice=self.dice)
        self.store.broken = self.verdict.broken
        bus = Bus(self.clock.now)
        bus.join("story", self._hear)
        daemon = Daemon(
            Parts(
                version="lab",
                clock=self.clock,
                dice=self.dice,
                store=self.store,
                bus=bus,
                roster=self.roster,
                watcher=world.BlindWatcher(),
                supervisor=world.QuietSupervisor(listens=False),
                # A sweep a minute: over months the beats would cost more than the rotations.
                timing=Timing(sweep_every=MINUTE, verify_every=5 * MINUTE),
            )
        )
        self._serving = asyncio.create_task(daemon.serve(), name="daemon")

    async def kill(self) -> None:
        """Cut the process off: what it had not saved is gone, and whatever it still tries reaches no store."""
        self.shelf.free()
        mine = {asyncio.current_task()}
        for task in asyncio.all_tasks() - mine:
            task.cancel()
        await asyncio.gather(*(asyncio.all_tasks() - mine), return_exceptions=True)
        self.clock.stop()

    def _hear(self, event: events.Event) -> None:
        if isinstance(event, events.Rotated):
            self.verdict.rotations += 1
        if isinstance(event, events.TaskFailed):
            self.verdict.broken.append(event.sentence)
        if event.level <= events.Level.WARNING:
            self.tell(event.sentence)

    def tell(self, what: str) -> None:
        at = self.clock.now() - world.GENESIS
        self.verdict.told.append(f"{at.total_seconds() / 3600:8.3f} h  {what}")

    # --- the story ---------------------------------------------------------------------------------------------

    async def run(self) -> Verdict:
        self.start()
        if self.plan.faults:
            end = self.clock.now() + self.plan.span
            while self.clock.now() < end:
                await self.clock.pass_time(2 * HOUR * self.dice.chance())
                await self._misfortune()
                self.judge()
        else:
            await self.clock.pass_time(self.plan.span)
        await self._heal()
        self.judge()
        self._judge_end()
        await self.kill()
        return self.verdict

    async def _misfortune(self) -> None:
        """One thing goes wrong, for a while."""
        span = HOUR * self.dice.chance() ** 3
        kind = int(self.dice.chance() * 9)
        if kind in (0, 1):
            self.tell("the provider's line is cut")
            self.line.cut = True
            await self.clock.pass_time(span)
            self.line.cut = False
        elif kind == 2:
            mishaps = list(Mishap)
            mishap = mishaps[int(self.dice.chance() * len(mishaps))]
            times = 1 + int(3 * self.dice.chance())
            self.tell(f"the next {times} request(s): {mishap.value}")
            self.provider.faults.plan(mishap, times)
        elif kind == 3:
            self.tell("the line is slow")
            self.line.slowest = MINUTE
            await self.clock.pass_time(span)
            self.line.slowest = timedelta(milliseconds=200)
        elif kind in (4, 5):
            await self._die(span)
        elif kind == 6 and self.store is not None:
            self.tell("the store is away")
            self.store.away = True
            await self.clock.pass_time(span)
            self.store.away = False
        elif kind == 7:
            step = DAY * (2 * self.dice.chance() - 1)
            self.tell(f"the clock is set by {step.total_seconds() / 3600:.2f} h")
            self.clock.step(step)
        else:
            name = self.names[int(self.dice.chance() * len(self.names))]
            self.places[name].holds = None if self.dice.chance() < 0.5 else "rubbish"
            self.tell(f"somebody touches the target of {name}")

    async def _die(self, span: timedelta) -> None:
        """Killed, in half of the cases just while an exchange is in flight."""
        if self.dice.chance() < 0.5:
            due = [grant.due_at for grant in self.shelf.grants.values() if grant.due_at is not None]
            soon = min(due, default=self.clock.now())
            if soon - self.clock.now() < HOUR:
                await self.clock.wait_until(soon + timedelta(milliseconds=400) * self.dice.chance())
        self.tell("the daemon is killed")
        await self.kill()
        if self.dice.chance() < 0.3:
            await self.clock.pass_time(span)
            self.clock.reboot()
            self.tell("the machine comes back")
        self.start()

    async def _heal(self) -> None:
        """All faults end; long enough for any budget to allow the next password exchange."""
        self.tell("all faults end")
        self.provider.faults.clear()
        self.line.cut = False
        await self.clock.pass_time(self.plan.budget.window + 3 * HOUR)

    # --- the invariants ----------------------------------------------------------------------------------------

    def judge(self) -> None:
        """What must hold at every moment."""
        if self.line.most_in_flight > 1:
            self._break("two exchanges were in flight for one grant")
            self.line.most_in_flight = 1

    def _judge_end(self) -> None:
        """What must hold once all faults have ended and time has passed."""
        now = self.clock.now()
        self.verdict.passwords = sum(len(times) for times in self.line.logins.values())
        self.verdict.gaps = sum(place.gaps for place in self.places.values())
        for name in self.names:
            grant, held = self.shelf.grants[name], self.places[name].holds
            if grant.latch is not None:
                self._break(f"{name} is latched although its credentials are right: {grant.latch.reason}")
            elif not grant.holds_valid(now):
                self._break(f"{name} is not fresh: {grant.trouble}")
            elif not isinstance(held, Publication) or held.access != grant.access:
                self._break(f"{name}: the target does not hold the saved generation")
            self._judge_budget(name)
        if not self.plan.faults and self.verdict.gaps:
            self._break("readers saw a gap although nothing went wrong")

    def _judge_budget(self, name: str) -> None:
        """Never more logins in a window than the budget: counted where they arrive, on the provider's side."""
        times, budget = self.line.logins.get(name, []), self.plan.budget
        if any("clock is set" in line for line in self.verdict.told):
            # Wall time is no measure of a window that a clock step went through.
            return
        for first in times:
            within = [at for at in times if first <= at < first + budget.window]
            if len(within) > budget.limit:
                self._break(f"{name}: {len(within)} password exchanges within {budget.window}")
                return

    def _break(self, what: str) -> None:
        self.tell(f"BROKEN: {what}")
        self.verdict.broken.append(what)


def run(plan: Plan) -> Verdict:
    """Tell one story."""

    async def story() -> Verdict:
        return await Simulation(plan).run()

    return world.run(story)


def stories(seeds: Iterable[int]) -> Iterable[Plan]:
    """One plan for each seed, the provider's kind going round."""
    kinds = list(PROFILES)
    return (Plan(seed=seed, policy=kinds[seed % len(kinds)]) for seed in seeds)

"""The machine of a story: its provider, its readers, its processes, and what is known of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta

from rotator.core import events
from rotator.core.policy import Reuse, Rules
from rotator.lab import world
from rotator.lab.breakable import FlakyStore, Fuse, Line, WatchedPlace, Weather
from rotator.lab.fos import Provider
from rotator.lab.memory import Shelf
from rotator.lab.registry import Client, Profile, User
from rotator.lab.simulation import cast, script
from rotator.lab.simulation.judge import Judge
from rotator.lab.simulation.readers import Cause, Gap, Hindrance, Readers
from rotator.lab.simulation.script import Plan

ZERO = timedelta(0)
# A storm never ends by itself: far more requests than any story makes.
ENDLESS = 1 << 30
LOCKOUT_AFTER = 5


@dataclass(slots=True)
class Verdict:
    """How the story went. ``broken`` names every invariant that did not hold, ``told`` the story in words."""

    plan: Plan
    rotations: int = 0
    passwords: int = 0
    requests: int = 0
    gaps: list[Gap] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)

    def story(self) -> str:
        """What happened and what broke, for a person."""
        head = f"seed {self.plan.seed}, {self.plan.policy.value}, {self.plan.grants} grant(s)"
        return "\n".join([head, *self.told, "", *(f"BROKEN: {one}" for one in self.broken)])


class Machine:
    """Wall time of the provider is true time, whatever happens to the clock of our machine."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.verdict = Verdict(plan)
        self.clock = world.VirtualClock()
        self.dice = world.SeededDice(plan.seed)
        self.names = script.names_of(plan)
        reuse, grace = cast.PROFILES[plan.policy]
        self.rules = Rules(password=True, budget=plan.budget, reuse=reuse, grace=grace)
        self.judge = Judge(self.rules, plan.lifetime, self.clock.passed, self.tell)
        self.judge.broken = self.verdict.broken
        self.provider = self._provider(grace)
        self.fuse, self.weather = Fuse(), Weather()
        self.secrets = {name: world.FixedCredentials() for name in self.names}
        self.places: dict[str, WatchedPlace] = {}
        self.readers = Readers(
            self.provider, self.clock.passed, world.GENESIS.timestamp(), plan.lifetime, self.rules.rotate_at
        )
        for name, secrets in self.secrets.items():
            secrets.values |= {"client_id": f"1_{name}", "username": name}
            self.places[name] = place = WatchedPlace(f"memory:{name}", self.fuse, self.judge.breaks)
            place.changed = _call(self._look, name)
        self.readers.read_at(self.places)
        self.shelf = Shelf()
        self.set = cast.Set(rules=self.rules, secrets=self.secrets, places=self.places)
        self.copied: Shelf | None = None
        self.processes: list[cast.Process] = []
        self._until_rotated: dict[str, list[Hindrance]] = {}
        self._down: Hindrance | None = None
        self._mishap_at_work: Hindrance | None = None

    def _provider(self, grace: timedelta) -> Provider:
        tokens = world.SeededDice(self.plan.seed + 1)
        provider = Provider(
            [Client(f"1_{name}", "cs") for name in self.names],
            [User(name, "pw") for name in self.names],
            now=lambda: world.GENESIS.timestamp() + self.clock.passed().total_seconds(),
            token=lambda: tokens.name() + tokens.name(),
            profile=Profile(
                reuse=self.plan.policy, grace_seconds=grace.total_seconds(),
                access_seconds=int(self.plan.lifetime.total_seconds()),
            ),
            keep=1000,
        )  # fmt: skip
        provider.faults.lockout_after = LOCKOUT_AFTER
        return provider

    # --- the processes ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the daemon on what the shelf holds, and the one on the copy where there is one."""
        if self._down is not None:
            self.judge.hindrances.end(self._down)
            self._down = None
        shelves = [self.shelf] if self.copied is None else [self.shelf, self.copied]
        self.processes = [self._process(shelf, number) for number, shelf in enumerate(shelves)]

    def start_once(self) -> None:
        """Start unless it runs already."""
        if not self.processes:
            self.start()

    def _process(self, shelf: Shelf, number: int) -> cast.Process:
        clock = self.clock if number == 0 else self.clock.twin()
        dice = self.dice if number == 0 else world.SeededDice(self.plan.seed + 2)
        fuse = self.fuse if number == 0 else Fuse()
        line = Line(self.provider, clock, dice, self.weather, fuse, self.judge.breaks)
        line.asked = lambda name, fields: self._asked(shelf, name, fields)
        line.touched = self._touched
        store = FlakyStore(shelf, clock=clock, dice=dice, weather=self.weather, fuse=fuse, broken=self.judge.breaks)
        if number == 0:
            # What the copy's owner does with an answer is not judged: it is the mistake that the story is about.
            line.answered, store.saved = self.judge.answered, self.judge.saved
        for place in self.places.values():
            if not any(known is shelf for known in place.shelves):
                place.shelves.append(shelf)
        return cast.Process(self.set, shelf, line, store, clock, dice, self.hear if number == 0 else self._overhear)

    def _asked(self, shelf: Shelf, name: str, fields: dict[str, str]) -> None:
        self.verdict.requests += 1
        self.judge.asked(shelf, name, fields["grant_type"], mine=shelf is self.shelf)
        row, now = self.provider.ledger.refresh.get(fields.get("refresh_token", "")), self.provider.now()
        if row is None or row.spent_at is None or self.rules.reuse is not Reuse.KILLS_FAMILY:
            return
        access = shelf.grants[name].access
        held = None if access is None else self.provider.ledger.access.get(access.value.reveal())
        # We count from before the request was sent, the provider from its commit: for so long it lives on there.
        left = 0.0 if held is None else held.expires_at - now - self.rules.deadline.total_seconds()
        if left > 0 and len(self.places[name].shelves) == 1:
            self.judge.reused(name, timedelta(seconds=now - row.spent_at))

    def _touched(self, name: str) -> None:
        """A request was carried out."""
        if self._mishap_at_work is not None and all(one.times > ENDLESS / 2 for one in self.provider.faults.queue):
            self.judge.hindrances.end(self._mishap_at_work)
            self._mishap_at_work = None
        self._look(name)

    def _look(self, name: str) -> None:
        if self.readers.look(name):
            # The provider took the access token away before its time; a client learns that when it refreshes.
            self._hinder(Cause.REPLACED if self.copied is None else Cause.TWO_DAEMONS, name)

    async def kill(self) -> None:
        """Cut every process off: what it had not saved is gone, and whatever it still tries reaches no store."""
        for process in self.processes:
            process.shelf.free()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for process in self.processes:
            process.clock.stop()
        self.processes = []
        self.fuse.reset()
        self.judge.killed()

    def hear(self, event: events.Event) -> None:
        if isinstance(event, events.Rotated):
            self.verdict.rotations += 1
            access = self.shelf.grants[event.grant].access
            if access is not None and access.value.reveal() in self.provider.ledger.access:
                # Else the owner revoked it while it was on its way.
                for hindrance in self._until_rotated.pop(event.grant, []):
                    self.judge.hindrances.end(hindrance)
        elif isinstance(event, (events.ExchangeFailed, events.DoubtRaised, events.ChainLost, events.BudgetSpent)):
            self._look_for_budget(event.grant)
        self.judge.heard(event)
        if event.level <= events.Level.WARNING:
            self.tell(event.sentence)

    def _overhear(self, event: events.Event) -> None:
        """The daemon that should not be there. It warns a person as well."""
        self.judge.heard(event)
        if event.level <= events.Level.WARNING:
            self.tell(f"(the other one) {event.sentence}")

    def _look_for_budget(self, name: str) -> None:
        """Only a login helps and none is allowed: the refresh token is dead, or may be and must not be tried."""
        grant, now = self.shelf.grants[name], self.clock.now()
        is_doubtful = grant.doubt is not None and self.rules.reuse is Reuse.KILLS_FAMILY
        if (grant.refresh is None or is_doubtful) and self.rules.budget.allowed_at(grant.debits, now) > now:
            self._hinder(Cause.BUDGET, name)

    def _hinder(self, cause: Cause, grant: str) -> None:
        """Something stands in the way of a grant until its next token."""
        known = self._until_rotated.setdefault(grant, [])
        if all(one.cause is not cause for one in known):
            known.append(self.judge.hindrances.begin(cause, grant))

    def tell(self, what: str) -> None:
        self.verdict.told.append(f"{self.clock.passed().total_seconds() / 3600:8.3f} h  {what}")


def _call(do: Callable[[str], None], name: str) -> Callable[[], None]:
    return lambda: do(name)

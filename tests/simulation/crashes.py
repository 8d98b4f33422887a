"""Every crash point of an exchange at every kind of provider: the process is killed there and started again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from rotator.core import events
from rotator.lab import ledger, world
from rotator.lab.memory import Shelf
from rotator.lab.simulation import Misfortune, Plan, Simulation, What, cast, quiet
from rotator.lab.simulation.readers import Cause

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DOWN = timedelta(seconds=5)

# The targets are not looked at within a story: every point is one of the exchange.
TIMING = cast.Timing(sweep_every=2 * MINUTE, verify_every=24 * HOUR)


class Scene(StrEnum):
    """What the process is about when it dies."""

    FIRST_LOGIN = "the first login"
    ROTATION = "a rotation"
    DOUBT = "the exchange after an answer that was lost"
    RECOVERY = "the exchange after the refresh token was revoked"


# How long a scene lasts from where its points begin to count: a rotation comes within it, and the next one does not.
WINDOWS = {
    Scene.FIRST_LOGIN: 24 * MINUTE, Scene.ROTATION: 45 * MINUTE, Scene.DOUBT: 24 * MINUTE, Scene.RECOVERY: 24 * MINUTE,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cost:
    """What a crash cost beyond the same story without it."""

    recovered: bool
    logins: int
    requests: int
    gap: timedelta
    broken: tuple[str, ...]

    @property
    def words(self) -> str:
        if not self.recovered or self.broken:
            return "LOST"
        told = [f"{self.logins} login"] if self.logins > 0 else []
        more = self.requests - max(self.logins, 0)
        told += [f"{more} request" + ("s" if more > 1 else "")] if more > 0 else []
        told += [f"gap {self.gap.total_seconds():.0f} s"] if self.gap >= timedelta(seconds=0.5) else []
        return ", ".join(told) or "–"


class Crash(Simulation):
    """One story that dies at the ``number``-th point of its scene; 0 for the same story without a crash."""

    def __init__(self, scene: Scene, policy: ledger.Reuse, number: int) -> None:
        plan = quiet(Plan(seed=7, grants=1, span=5 * HOUR, policy=policy))
        lost = Misfortune(at=10 * MINUTE, what=What.MISHAP, number=1, detail="lost after commit")
        revoked = Misfortune(at=10 * MINUTE, what=What.REVOKED, grant="g0")
        script = {Scene.DOUBT: (lost,), Scene.RECOVERY: (revoked,)}.get(scene, ())
        super().__init__(Plan(seed=7, grants=1, span=plan.span, policy=policy, script=script))
        self.set = cast.Set(rules=self.rules, secrets=self.secrets, places=self.places, timing=TIMING)
        self._scene = scene
        self._number = number
        self.down_for = DOWN
        self.died_at = ""
        self.armed_at: timedelta | None = None
        self.asked_at: list[timedelta] = []
        if scene is Scene.FIRST_LOGIN:
            self.arm()
        elif scene is Scene.ROTATION:
            self._at(10 * MINUTE, "", self.arm)

    def arm(self) -> None:
        if self.armed_at is None:
            self.armed_at = self.clock.passed()
            self.fuse.arm(self._number)
            # What comes later belongs to the next exchange.
            self._after(WINDOWS[self._scene], "", self.disarm)

    def disarm(self) -> None:
        if not self.died_at:
            self.fuse.left = 0

    def hear(self, event: events.Event) -> None:
        super().hear(event)
        is_cue = {Scene.DOUBT: events.DoubtRaised, Scene.RECOVERY: events.ChainLost}.get(self._scene)
        if is_cue is not None and isinstance(event, is_cue):
            self.arm()

    def _asked(self, shelf: Shelf, name: str, fields: dict[str, str]) -> None:
        self.asked_at.append(self.clock.passed())
        super()._asked(shelf, name, fields)

    @property
    def requests(self) -> int:
        """Those of the scene; how many follow in five hours is a matter of where the later rotations fall."""
        assert self.armed_at is not None
        return sum(self.armed_at <= at < self.armed_at + WINDOWS[self._scene] for at in self.asked_at)

    async def kill(self) -> None:
        if self.fuse.blown.is_set():
            self.died_at = self.fuse.where
        await super().kill()


@dataclass(frozen=True, slots=True)
class Told:
    """How one story ended: where it died (empty where it did not), and the figures of the whole story."""

    died_at: str
    logins: int
    requests: int
    gap: timedelta
    recovered: bool
    broken: tuple[str, ...]


def tell(scene: Scene, policy: ledger.Reuse, number: int) -> Told:
    async def story() -> Told:
        played = Crash(scene, policy, number)
        verdict = await played.run()
        gap = sum((gap.ended - gap.began for gap in verdict.gaps if gap.cause != Cause.NOT_YET.value), timedelta(0))
        recovered = not any("not fresh" in one or "latched" in one for one in verdict.broken)
        broken = tuple(verdict.broken)
        return Told(played.died_at, verdict.passwords, played.requests, gap, recovered, broken)

    return world.run(story)


def cost(told: Told, calm: Told) -> Cost:
    gap = max(told.gap - calm.gap, timedelta(0))
    return Cost(told.recovered, told.logins - calm.logins, told.requests - calm.requests, gap, told.broken)


def points(scene: Scene, policy: ledger.Reuse) -> list[tuple[str, Cost]]:
    """Each point of a scene, in order, with what dying there costs at this provider."""
    calm, found = tell(scene, policy, 0), []
    for number in range(1, 40):
        told = tell(scene, policy, number)
        if not told.died_at:
            return found
        found.append((told.died_at, cost(told, calm)))
    raise AssertionError(f"{scene.value} at {policy.value} never ends")

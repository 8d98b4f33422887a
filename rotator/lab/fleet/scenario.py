"""What is simulated: which grants, for how long, and what breaks when. Data only; the same seed breaks the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum

from rotator.core.policy import Rules
from rotator.core.pressure import Limits
from rotator.lab.report import Stretch
from rotator.lab.world import SeededDice

ZERO = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sort:
    """Grants that are configured alike: ``count`` of them, whose provider gives access tokens of ``lifetime``."""

    name: str
    provider: str
    rules: Rules
    limits: Limits
    lifetime: timedelta
    count: int

    @property
    def every(self) -> timedelta:
        """How often one of them rotates while nothing is broken."""
        planned = self.lifetime * self.rules.rotate_at
        return max(planned, min(self.rules.spacing, self.lifetime / 2))


class Trouble(StrEnum):
    """What can be broken on purpose."""

    PROVIDER = "provider away"
    STORE = "store away"
    TARGETS = "targets away"
    DAEMON = "daemon down"
    CLOCK = "clock set"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """A trouble that somebody asks for: ``length`` long, ``at`` a time since the begin, or once in ``every`` such
    span, or (neither) once at a time of chance. For the clock ``length`` is how far it is set, forth or back."""

    trouble: Trouble
    length: timedelta
    at: timedelta | None = None
    every: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A trouble at its time. A clock that was set stays so: its fault ends where it begins."""

    trouble: Trouble
    began: timedelta
    ended: timedelta
    step: timedelta = ZERO

    def told(self) -> Stretch:
        what = self.trouble.value
        if self.trouble is Trouble.CLOCK:
            hours = abs(self.step) / timedelta(hours=1)
            what = f"clock set {'forward' if self.step > ZERO else 'back'} by {hours:g} h"
        return Stretch(began=self.began, ended=self.ended, what=what)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One story of a fleet. ``latency`` is what an exchange takes on average; of the answers the part ``lost`` breaks
    off on the way, after the provider has committed."""

    seed: int
    span: timedelta
    sorts: tuple[Sort, ...]
    faults: tuple[Fault, ...] = ()
    latency: timedelta = timedelta(milliseconds=200)
    lost: float = 0.0

    @property
    def grants(self) -> int:
        return sum(sort.count for sort in self.sorts)

    @property
    def rotations(self) -> float:
        """About how many rotations it takes."""
        return sum(sort.count * (1 + self.span / sort.every) for sort in self.sorts)

    def limits(self) -> dict[str, Limits]:
        """What each provider bears."""
        return {sort.provider: sort.limits for sort in self.sorts if sort.count}


def script(wishes: Iterable[Wish], span: timedelta, seed: int) -> tuple[Fault, ...]:
    """When each wished trouble comes, within ``span``."""
    dice = SeededDice(seed)
    faults: list[Fault] = []
    for wish in wishes:
        if wish.at is not None:
            begins = [wish.at]
        elif wish.every is not None:
            rounds = -(-span // wish.every)
            begins = [wish.every * (number + dice.chance()) for number in range(rounds)]
        else:
            begins = [span * dice.chance()]
        for began in begins:
            if began >= span:
                continue
            clock = wish.trouble is Trouble.CLOCK
            ended = began if clock else min(span, began + wish.length)
            step = wish.length if clock else ZERO
            faults.append(Fault(trouble=wish.trouble, began=began, ended=ended, step=step))
    return tuple(sorted(faults, key=lambda fault: (fault.began, fault.trouble, fault.ended)))


def spread(sorts: Sequence[Sort], count: int) -> tuple[Sort, ...]:
    """``count`` grants in the proportions of ``sorts``, every one of them kept while there are enough."""
    whole = sum(sort.count for sort in sorts)
    ends = [count * sum(sort.count for sort in sorts[: place + 1]) // whole for place in range(len(sorts))]
    begins = [0, *ends[:-1]]
    return tuple(
        replace(sort, count=end - begin) for sort, begin, end in zip(sorts, begins, ends, strict=True) if end > begin
    )


def sample(scenario: Scenario, count: int) -> Scenario:
    """The same story with only ``count`` grants, that may press the provider in proportion."""
    if count >= scenario.grants:
        return scenario
    part = count / scenario.grants
    sorts = [replace(sort, limits=_share(sort.limits, part)) for sort in scenario.sorts]
    return replace(scenario, sorts=spread(sorts, count))


def worlds(scenario: Scenario, count: int) -> list[Scenario]:
    """The story told in ``count`` worlds: each has its share of the grants and of what the providers bear, and the
    same faults at the same times. Fewer where a provider bears fewer exchanges at a time, or there are fewer grants."""
    count = min(count, scenario.grants, *(limits.in_flight for limits in scenario.limits().values()))
    parts: list[Scenario] = []
    left = list(scenario.sorts)
    for number in range(count):
        share = [
            replace(sort, count=sort.count // (count - number), limits=_share(whole.limits, 1 / count))
            for sort, whole in zip(left, scenario.sorts, strict=True)
        ]
        left = [replace(sort, count=sort.count - taken.count) for sort, taken in zip(left, share, strict=True)]
        kept = tuple(sort for sort in share if sort.count)
        if kept:
            parts.append(replace(scenario, sorts=kept, seed=scenario.seed + number))
    return parts


def _share(limits: Limits, part: float) -> Limits:
    return Limits(in_flight=max(1, round(limits.in_flight * part)), per_second=limits.per_second * part)

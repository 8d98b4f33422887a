"""When: rotation windows, jitter, backoff and budgets, as arithmetic on given times.

Nothing here asks the time or rolls dice: ``now`` and ``chance`` (a number in [0, 1)) are handed in.
"""

from __future__ import annotations

import math
from dataclasses import field
from datetime import datetime, timedelta
from enum import StrEnum

from rotator.core import lean

ZERO = timedelta(0)
OPERATOR_PACE = (timedelta(minutes=15), timedelta(hours=1))
"""First and longest delay of a retry where only an operator can mend."""
SHORT_LIFETIME = timedelta(minutes=2)
CLOCK_TOLERANCE = timedelta(seconds=2)


class Reuse(StrEnum):
    """What a spent refresh token costs when it is presented again (a provider's quirk)."""

    HARMLESS = "harmless"
    KILLS_FAMILY = "kills_family"


@lean.dataclass(frozen=True, slots=True)
class Moment:
    """One reading of all clocks: wall time (aware UTC), the boot's id and CLOCK_BOOTTIME since that boot.

    Wall time may be set by anybody; the boot-time clock only goes forward and counts suspension
    (clock_gettime(2)), but means nothing in another boot. ``awake`` is CLOCK_MONOTONIC, which stands still while the
    machine sleeps; it is for comparing two readings of one process and is not stored.
    """

    now: datetime
    boot_id: str
    boottime: timedelta
    awake: timedelta = field(default=ZERO, compare=False)

    def set_by(self, earlier: Moment) -> timedelta:
        """How far wall time was set between two readings of one boot; zero for what slewing and rounding explain."""
        jump = (self.now - earlier.now) - (self.boottime - earlier.boottime)
        return jump if abs(jump) > CLOCK_TOLERANCE else ZERO

    def slept_since(self, earlier: Moment) -> timedelta:
        """How long the machine was suspended between two readings of one process."""
        slept = (self.boottime - earlier.boottime) - (self.awake - earlier.awake)
        return slept if slept > CLOCK_TOLERANCE else ZERO

    def elapsed_since(self, earlier: Moment) -> timedelta | None:
        """Time that surely passed since ``earlier``; None across a boot or a stepped wall clock."""
        if earlier.boot_id != self.boot_id:
            return None
        ticked = self.boottime - earlier.boottime
        if abs((self.now - earlier.now) - ticked) > CLOCK_TOLERANCE:
            return None
        return ticked


@lean.dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """How many password exchanges may be spent: ``limit`` in any ``window``, at least ``apart``."""

    limit: int = 3
    window: timedelta = timedelta(hours=24)
    apart: timedelta = timedelta(minutes=15)

    def left(self, debits: tuple[datetime, ...], now: datetime) -> int:
        return max(0, self.limit - len(self.within(debits, now)))

    def halved(self, debits: tuple[datetime, ...], at: datetime, now: datetime) -> tuple[datetime, ...]:
        """The same debits with half of what they leave, rounded up, spent as well at ``at``."""
        left = self.left(debits, now)
        return debits + (at,) * (left - left // 2)

    def within(self, debits: tuple[datetime, ...], now: datetime) -> tuple[datetime, ...]:
        """The debits that still count. One from the future (the clock was set back) counts as well."""
        return tuple(at for at in debits if at > now - self.window)

    def allowed_at(self, debits: tuple[datetime, ...], now: datetime, *, at_once: bool = False) -> datetime:
        """The earliest time of the next password exchange; ``now`` or before means at once.

        ``at_once`` is for what need not keep apart but counts against the limit like any other: the one extra try
        after a lost answer, and the first with credentials that a person has just changed.
        """
        if self.limit == 0:
            return now + self.window
        counting = sorted(min(at, now) for at in self.within(debits, now))
        earliest = now
        if len(counting) >= self.limit:
            earliest = counting[-self.limit] + self.window
        if counting and not at_once:
            earliest = max(earliest, counting[-1] + self.apart)
        return earliest


@lean.dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Everything the lifecycle must know of one grant's provider and settings."""

    rotate_at: float = 0.75
    jitter: float = 0.05
    spacing: timedelta = timedelta(seconds=30)
    deadline: timedelta = timedelta(seconds=30)
    reuse: Reuse = Reuse.HARMLESS
    grace: timedelta = ZERO
    resend_after: timedelta = timedelta(seconds=2)
    default_lifetime: timedelta = timedelta(hours=1)
    longest_lifetime: timedelta = timedelta(hours=24)
    refresh_lifetime: timedelta | None = timedelta(days=14)
    budget: Budget = Budget()
    password: bool = False
    backoff_base: timedelta = timedelta(seconds=1)
    backoff_cap: timedelta = timedelta(minutes=5)

    @property
    def lease(self) -> timedelta:
        """A lease outlives the exchange: deadline plus a margin to save in, so that nobody starts beside it."""
        return self.deadline + max(timedelta(seconds=3), self.deadline / 2)


def spacing(lifetime: timedelta, rules: Rules) -> timedelta:
    """Least time between a granted exchange and the next: no answer of a provider can make a tight loop."""
    return min(rules.spacing, lifetime / 2) if lifetime > ZERO else rules.spacing


def due_at(
    issued_at: datetime, lifetime: timedelta, now: datetime, rules: Rules, chance: float, *, spread: bool = False
) -> datetime:
    """When to rotate: at ``rotate_at`` of the lifetime give or take ``jitter``, spaced, and well inside the
    refresh token's own life (a quarter of it), so that a very long access token cannot outlive its grant.

    ``spread`` is for a token that many others were got together with (see `is_of_a_herd`): its jitter is three times as
    wide, to the early side only, so that they part with their first rotation and not over days.
    """
    latest = rules.rotate_at + rules.jitter
    earliest = rules.rotate_at - rules.jitter
    if spread:
        # Where somebody chose a wide jitter, a new token is not rotated at once all the same.
        earliest = min(earliest, max(latest - 6 * rules.jitter, rules.rotate_at / 2))
    wanted = issued_at + lifetime * (earliest + (latest - earliest) * chance)
    if rules.refresh_lifetime is not None:
        wanted = min(wanted, issued_at + rules.refresh_lifetime / 4)
    return max(wanted, now + spacing(lifetime, rules))


def is_of_a_herd(was_due_at: datetime | None, lifetime: timedelta, now: datetime, rules: Rules) -> bool:
    """Whether a token came so long after it was due that others probably waited for the same: after an outage, a
    stop, or a queue. ``was_due_at`` None: nothing was planned."""
    return was_due_at is not None and now - was_due_at > lifetime * (2 * rules.jitter)


def backoff(failures: int, rules: Rules, chance: float) -> timedelta:
    """Delay after the n-th consecutive failure: doubling, capped, with jitter over the upper half.

    Half a step is kept as a floor where full jitter would allow zero: the delay must never be a tight loop.
    """
    step = min(rules.backoff_cap, rules.backoff_base * (1 << min(max(failures, 1) - 1, 20)))
    return step / 2 + step / 2 * chance


def slow_backoff(failures: int, first: timedelta, last: timedelta) -> timedelta:
    """Delay for what only an operator mends: from ``first`` doubling to ``last``, without jitter."""
    return min(last, first * (1 << min(max(failures, 1) - 1, 20)))


def read_lifetime(raw: object) -> timedelta | None:
    """An ``expires_in`` as it came, or None where it is unusable.

    Providers send numbers, numeric strings and floats (floored); a bool, zero, a negative number, NaN, infinity
    and anything else is unusable (RFC 6749 section 5.1 asks for seconds).
    """
    if isinstance(raw, bool):
        return None
    if isinstance(raw, str):
        text = raw.strip()
        if not (text.isascii() and text.replace(".", "", 1).isdigit() and len(text) <= 32):
            return None
        raw = float(text)
    if isinstance(raw, float) and not math.isfinite(raw):
        return None
    if not isinstance(raw, (int, float)):
        return None
    seconds = math.floor(raw)
    if seconds <= 0:
        return None
    # 10^9 s is 31 years: beyond any token, and far below what timedelta can hold.
    return timedelta(seconds=min(seconds, 10**9))


def lifetime(told: timedelta | None, rules: Rules, last_good: timedelta | None) -> timedelta:
    """The lifetime to count on: what was told, capped; the default where nothing usable was told, and then
    never more than the last good one."""
    if told is not None and told > ZERO:
        return min(told, rules.longest_lifetime)
    guess = min(rules.default_lifetime, rules.longest_lifetime)
    return min(guess, last_good) if last_good is not None and last_good > ZERO else guess

"""Grants, moments and outcomes for the tests of the core, and `Story`: a grant that lives through facts.

All times are given as what has passed since `NOON`. Every secret holds `CANARY`, so that a test can look for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from rotator.core import events, lifecycle, policy
from rotator.core.grants import Answer, Doubt, Grant, Intent, Kind, Latch, Outcome, OutcomeClass, Source, Trouble
from rotator.core.policy import Moment, Reuse, Rules
from rotator.core.tokens import AccessToken, Secret

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ZERO = timedelta(0)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
EVEN = 0.5
"""The chance at which jitter adds and takes nothing: rotation at 75 % of the lifetime exactly."""

CANARY = "c4n4ry"

FORGIVING = Rules(password=True)
FORGIVING_ALONE = Rules(password=False)
STRICT = Rules(password=True, reuse=Reuse.KILLS_FAMILY)
STRICT_ALONE = Rules(password=False, reuse=Reuse.KILLS_FAMILY)
STRICT_GRACE = Rules(password=True, reuse=Reuse.KILLS_FAMILY, grace=30 * SECOND)


def secret(word: str) -> Secret:
    return Secret(f"{CANARY}-{word}")


def moment(after: timedelta = ZERO, *, boot: str = "boot-1", stepped: timedelta = ZERO) -> Moment:
    """All clocks ``after`` noon; ``stepped`` is how far somebody set the wall clock since."""
    return Moment(NOON + after + stepped, boot, 5 * HOUR + after)


def access(generation: int = 1, lifetime: timedelta = HOUR, issued: timedelta = ZERO) -> AccessToken:
    return AccessToken(
        secret(f"access-{generation}"), "bearer", None, NOON + issued, NOON + issued + lifetime, generation
    )


def empty(**changes: Any) -> Grant:
    return replace(lifecycle.enrol("billing", "lineage-1", "identity-1", NOON), **changes)


def fresh(**changes: Any) -> Grant:
    """Rotated at noon: generation 1, a token for an hour, due at a quarter to one."""
    grant = empty(
        generation=1,
        access=access(),
        refresh=secret("refresh-1"),
        refreshed_at=NOON,
        due_at=NOON + 45 * MINUTE,
        exchanged_at=NOON,
    )
    return replace(grant, **changes)


def intent(
    kind: Kind = Kind.REFRESH,
    *,
    generation: int = 1,
    attempt: int = 1,
    source: Source = Source.CURRENT,
    at: Moment | None = None,
    interactive: bool = False,
) -> Intent:
    return Intent("lineage-1", generation, kind, source, attempt, at or moment(45 * MINUTE), interactive)


def doubt(at: Moment | None = None, attempts: int = 1) -> Doubt:
    return Doubt(at or moment(45 * MINUTE), attempts, "the answer was lost")


def latch(digest: str = "old credentials") -> Latch:
    return Latch("the provider refused the password", "change it", digest, NOON)


def trouble(cls: OutcomeClass = OutcomeClass.NOT_SENT, count: int = 1, since: timedelta = ZERO) -> Trouble:
    return Trouble(cls, "no route", "", NOON + since, count)


def answer(
    number: int | str = 2, *, lifetime: timedelta | None = HOUR, refresh: Secret | None = None, **changes: Any
) -> Answer:
    """A token set; the refresh token is a new one unless one is given, ``Secret("")`` meaning none."""
    taken = secret(f"refresh-{number}") if refresh is None else refresh
    return replace(Answer(secret(f"access-{number}"), taken or None, lifetime), **changes)


NO_REFRESH = Secret("")


def granted(number: int | str = 2, **changes: Any) -> Outcome:
    return Outcome(cls=OutcomeClass.GRANTED, message="granted", answer=answer(number, **changes))


def partly(number: int | str = 2, **changes: Any) -> Outcome:
    taken = replace(answer(number, **changes), access=None)
    return Outcome(cls=OutcomeClass.PARTIAL, message="the token type is mac", answer=taken)


def failed(cls: OutcomeClass, **changes: Any) -> Outcome:
    return Outcome(**{"cls": cls, "message": f"it was {cls.value}", **changes})


NOT_SENT = failed(OutcomeClass.NOT_SENT)
DOUBTFUL = failed(OutcomeClass.DOUBTFUL)
BUSY = failed(OutcomeClass.BUSY)
DEAD = failed(OutcomeClass.REFRESH_DEAD)
REFUSED = failed(OutcomeClass.REFUSED)
MISCONFIGURED = failed(OutcomeClass.MISCONFIGURED)
FAILURES = (NOT_SENT, DOUBTFUL, BUSY, DEAD, REFUSED, MISCONFIGURED)


class Story:
    """A grant, the clocks and what was told so far. ``at`` is what has passed since noon."""

    def __init__(self, grant: Grant, rules: Rules, at: timedelta = ZERO, chance: float = EVEN) -> None:
        self.grant = grant
        self.rules = rules
        self.at = at
        self.chance = chance
        self.boot = "boot-1"
        self.stepped = ZERO
        self.told: list[events.Event] = []

    @property
    def moment(self) -> Moment:
        return moment(self.at, boot=self.boot, stepped=self.stepped)

    @property
    def now(self) -> datetime:
        return self.moment.now

    def happen(self, fact: lifecycle.Fact) -> lifecycle.Step:
        step = lifecycle.advance(self.grant, fact, self.moment, self.rules, self.chance)
        self.grant = step.grant
        self.told.extend(step.events)
        return step

    def look(self, after: timedelta | None = None, **wish: Any) -> lifecycle.Step:
        """The sweep looks, or somebody asks, ``after`` so much more time."""
        self.at += after or ZERO
        return self.happen(lifecycle.Due(**{"credentials": "old credentials", **wish}))

    def end(self, outcome: Outcome, after: timedelta = ZERO, credentials: str = "old credentials") -> lifecycle.Step:
        """The exchange in flight ends, ``after`` so much more time."""
        sent_at = self.now
        self.at += after
        return self.happen(lifecycle.Concluded(outcome=outcome, sent_at=sent_at, credentials=credentials))

    def wait(self) -> timedelta:
        """Let time pass until the grant is due, and say how long that was."""
        assert self.grant.due_at is not None, "nothing is due"
        span = max(ZERO, self.grant.due_at - self.now)
        self.at += span
        return span

    def reboot(self, after: timedelta = ZERO) -> None:
        self.at += after
        self.boot += "'"

    def exchange(self, outcome: Outcome, **wish: Any) -> lifecycle.Exchange:
        """Wait until due, see an exchange ordered, and let it end with ``outcome`` at once."""
        if not wish:
            self.wait()
        order = ordered(self.look(**wish))
        self.end(outcome)
        return order


def ordered(step: lifecycle.Step) -> lifecycle.Exchange:
    assert isinstance(step.order, lifecycle.Exchange), step.order
    return step.order


def rests(step: lifecycle.Step) -> lifecycle.Rest:
    assert isinstance(step.order, lifecycle.Rest), step.order
    return step.order


def names(told: Iterable[events.Event]) -> list[str]:
    return [event.name for event in told]


def left(grant: Grant, at: Moment, rules: policy.Rules) -> int:
    return rules.budget.left(grant.debits, at.now)

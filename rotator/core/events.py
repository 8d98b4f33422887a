"""What happened, in the past tense. Events carry names, numbers, times and fingerprints, never a secret.

Each event is a frozen dataclass, by `Event` alone, with a stable dotted ``name``, a ``level`` (of the journal's words)
and a ``sentence`` for a person. Listeners tell them on; nothing decides by them.
"""

from __future__ import annotations

from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, fields
from datetime import datetime, timedelta
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, dataclass_transform


class Level(IntEnum):
    """Severities with the numbers of syslog(3); a smaller number is graver."""

    CRITICAL = 2
    ERROR = 3
    WARNING = 4
    NOTICE = 5
    INFO = 6
    DEBUG = 7


@dataclass_transform(kw_only_default=True, frozen_default=True)
class _Frozen:
    """Makes every class below a frozen dataclass with keywords alone. What dataclass() would write for each of them
    stands here once for all: forty times over it was a tenth of every start."""

    if TYPE_CHECKING:
        __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
    _known: ClassVar[frozenset[str]]
    _needed: ClassVar[frozenset[str]]

    def __init_subclass__(cls) -> None:
        # Where there is none dataclass() writes one, by way of inspect: that is dearer than the rest of what it does.
        cls.__doc__ = cls.__doc__ or cls.__name__
        dataclass(init=False, repr=False, eq=False, kw_only=True)(cls)
        cls._known = frozenset(field.name for field in fields(cls))
        cls._needed = frozenset(field.name for field in fields(cls) if field.default is MISSING)

    def __init__(self, **values: Any) -> None:
        if not self._needed <= values.keys() <= self._known:
            raise TypeError(f"{type(self).__name__} takes {', '.join(sorted(self._known))}")
        vars(self).update(values)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Frozen) and type(self) is type(other) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def _values(self) -> tuple[object, ...]:
        return tuple(getattr(self, field.name) for field in fields(self))


class Event(_Frozen):
    """Something that happened; ``at`` is when."""

    name: ClassVar[str]
    level: ClassVar[Level]
    at: datetime

    def __repr__(self) -> str:
        return f"<{self.name} {self.at:%H:%M:%S} {self.sentence}>"

    @property
    def sentence(self) -> str:
        raise NotImplementedError


MEASURED = frozenset({"took", "save_took", "since_answer"})
"""Fields that hold a measurement: it differs each time, so that two events may be the same without them."""


def _mended(text: str, mend: str) -> str:
    return f"{text}; {mend}" if mend else text


def _until(later: datetime | None, now: datetime) -> str:
    return "when a person acts" if later is None else f"in {brief(later - now)}"


def brief(span: timedelta) -> str:
    """A duration as a person says it: ``45s``, ``12m``, ``3h05m``, ``6d``."""
    seconds = max(0, round(span.total_seconds()))
    if seconds < 90:
        return f"{seconds}s"
    minutes = seconds // 60
    if minutes < 90:
        return f"{minutes}m"
    hours, rest = divmod(minutes, 60)
    return f"{hours}h{rest:02d}m" if hours < 48 else f"{hours // 24}d"


# --- the daemon -------------------------------------------------------------------------------------------------


class Started(Event):
    name = "daemon.started"
    level = Level.INFO
    version: str
    grants: int

    @property
    def sentence(self) -> str:
        return f"rotator {self.version} started with {self.grants} grant{'' if self.grants == 1 else 's'}"


class BecameReady(Event):
    name = "daemon.ready"
    level = Level.INFO
    status: str

    @property
    def sentence(self) -> str:
        return f"ready: {self.status}"


class Stopping(Event):
    name = "daemon.stopping"
    level = Level.INFO
    in_flight: int

    @property
    def sentence(self) -> str:
        return f"stopping; {self.in_flight} exchange(s) in flight are saved first" if self.in_flight else "stopping"


class Reloaded(Event):
    name = "configuration.reloaded"
    level = Level.INFO
    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    @property
    def sentence(self) -> str:
        parts = [
            f"{word} {', '.join(names)}"
            for word, names in (("added", self.added), ("changed", self.changed), ("removed", self.removed))
            if names
        ]
        return "configuration reloaded: " + ("; ".join(parts) or "nothing changed")


class ReloadRejected(Event):
    name = "configuration.rejected"
    level = Level.ERROR
    reason: str

    @property
    def sentence(self) -> str:
        return f"configuration not reloaded, the old one is kept: {self.reason}"


class Warned(Event):
    """A setting works but has a better way, or the surroundings are odd."""

    name = "daemon.warned"
    level = Level.WARNING
    text: str

    @property
    def sentence(self) -> str:
        return self.text


class ClockBehind(Event):
    name = "clock.behind"
    level = Level.WARNING
    high_water: datetime

    @property
    def sentence(self) -> str:
        return (
            f"the clock is {brief(self.high_water - self.at)} behind a time already seen; "
            "every grant is refreshed before its stored expiry is trusted"
        )


class ClockJumped(Event):
    """The clocks of this machine parted: wall time was set by ``by``, or the machine slept for it."""

    name = "clock.jumped"
    level = Level.WARNING
    by: timedelta
    slept: bool = False

    @property
    def sentence(self) -> str:
        if self.slept:
            return f"the machine slept for {brief(self.by)}; what became due meanwhile is done now"
        if self.by < timedelta(0):
            return (
                f"the clock was set back by {brief(-self.by)}; "
                "every grant is refreshed before its stored expiry is trusted"
            )
        return f"the clock was set forward by {brief(self.by)}; everything that was planned is looked at anew"


class StoreTroubled(Event):
    """The store did not answer or take a write; nothing is lost, it is tried again. ``sweep``: what became due waits
    for the next sweep."""

    name = "store.troubled"
    level = Level.ERROR
    reason: str
    doing: str
    sweep: bool = False

    @property
    def sentence(self) -> str:
        return f"{self.doing}: {self.reason}"


class TaskFailed(Event):
    """A defect: something raised that nothing was written to raise. The grant is left to the next sweep."""

    name = "daemon.defect"
    level = Level.CRITICAL
    doing: str
    error: str

    @property
    def sentence(self) -> str:
        return f"defect while {self.doing}: {self.error}; please report it"


class EventsDropped(Event):
    name = "bus.dropped"
    level = Level.WARNING
    listener: str
    count: int

    @property
    def sentence(self) -> str:
        return f"listener {self.listener} was too slow: {self.count} event(s) were not told to it"


# --- a provider -------------------------------------------------------------------------------------------------


class BreakerOpened(Event):
    """Told once, however often it opens again before an answer comes."""

    name = "provider.breaker_opened"
    level = Level.ERROR
    provider: str
    grants: int
    reason: str
    until: datetime

    @property
    def sentence(self) -> str:
        return (
            f"provider {self.provider} gave {self.grants} grants in a row no answer (the last: {self.reason}); it is "
            f"asked by one grant at a time, next {_until(self.until, self.at)}, until it answers; "
            "published tokens stay as they are"
        )


class BreakerClosed(Event):
    name = "provider.breaker_closed"
    level = Level.NOTICE
    provider: str
    waiting: int

    @property
    def sentence(self) -> str:
        return f"provider {self.provider} answers again; {self.waiting} grant(s) wait for their turn"


# --- a grant ----------------------------------------------------------------------------------------------------


class GrantEvent(Event):
    grant: str


class Enrolled(GrantEvent):
    name = "grant.enrolled"
    level = Level.INFO
    lineage: str

    @property
    def sentence(self) -> str:
        return f"{self.grant}: enrolled"


class Followed(GrantEvent):
    """Another daemon at the same store rotated; what it saved is published here too."""

    name = "grant.followed"
    level = Level.INFO
    generation: int

    @property
    def sentence(self) -> str:
        return f"{self.grant}: generation {self.generation} was saved by another daemon"


class IdentityChanged(GrantEvent):
    name = "grant.identity_changed"
    level = Level.WARNING

    @property
    def sentence(self) -> str:
        return f"{self.grant}: provider, client or user changed; the stored tokens belong to another and are not used"


class ExchangeStarted(GrantEvent):
    name = "exchange.started"
    level = Level.DEBUG
    kind: str
    generation: int
    attempt: int

    @property
    def sentence(self) -> str:
        again = f", attempt {self.attempt}" if self.attempt > 1 else ""
        return f"{self.grant}: {self.kind} exchange of generation {self.generation} started{again}"


class ExchangeEnded(GrantEvent):
    """How an exchange ended. The engine fills in what it measured: ``took`` from before the request until its answer
    was read, ``save_took`` from there until it was durable. None: no request left in this process."""

    provider: str | None = None
    took: timedelta | None = None
    save_took: timedelta | None = None


class Rotated(ExchangeEnded):
    name = "token.rotated"
    level = Level.NOTICE
    kind: str
    generation: int
    expires_at: datetime
    due_at: datetime | None

    @property
    def sentence(self) -> str:
        return (
            f"{self.grant}: generation {self.generation} by {self.kind}, valid for {brief(self.expires_at - self.at)}, "
            f"next rotation {_until(self.due_at, self.at)}"
        )


class AnswerOdd(GrantEvent):
    """The exchange went well but the answer had something an operator should know."""

    name = "answer.odd"
    level = Level.WARNING
    remark: str

    @property
    def sentence(self) -> str:
        return f"{self.grant}: {self.remark}"


class ExchangeFailed(ExchangeEnded):
    name = "exchange.failed"
    level = Level.WARNING
    kind: str
    cls: str
    reason: str
    mend: str
    next_at: datetime | None
    valid_until: datetime | None

    @property
    def sentence(self) -> str:
        if self.valid_until is None or self.valid_until <= self.at:
            serving = "no valid token is published"
        else:
            serving = f"the published token holds for {brief(self.valid_until - self.at)}"
        text = f"{self.grant}: {self.kind} exchange {self.cls}: {self.reason}"
        return f"{_mended(text, self.mend)}; tried again {_until(self.next_at, self.at)}, {serving}"


class DoubtRaised(GrantEvent):
    name = "exchange.doubtful"
    level = Level.WARNING
    cause: str
    plan: str

    @property
    def sentence(self) -> str:
        return f"{self.grant}: nobody knows whether the refresh token was spent ({self.cause}); {self.plan}"


class ChainLost(GrantEvent):
    name = "grant.chain_lost"
    level = Level.ERROR
    reason: str
    plan: str

    @property
    def sentence(self) -> str:
        return f"{self.grant}: the refresh token is dead ({self.reason}); {self.plan}"


class RefreshTokenEnding(GrantEvent):
    """No exchange has succeeded for so long that the refresh token itself nears its end. ``ends_at`` is an estimate by
    the provider's ``refresh_lifetime``."""

    name = "grant.refresh_ending"
    level = Level.ERROR
    ends_at: datetime

    @property
    def sentence(self) -> str:
        left = "has probably ended" if self.ends_at <= self.at else f"probably ends in {brief(self.ends_at - self.at)}"
        return f"{self.grant}: the refresh token {left}; after that only a login starts a new chain"


class PersonNeeded(GrantEvent):
    name = "grant.person_needed"
    level = Level.ERROR
    reason: str
    mend: str

    @property
    def sentence(self) -> str:
        return _mended(f"{self.grant}: {self.reason}", self.mend)


class BudgetSpent(GrantEvent):
    name = "grant.budget_spent"
    level = Level.ERROR
    next_at: datetime

    @property
    def sentence(self) -> str:
        return (
            f"{self.grant}: the budget of password exchanges is spent; the next is allowed "
            f"{_until(self.next_at, self.at)}, or at once by `rotator rotate --force {self.grant}`"
        )


class Latched(ExchangeEnded):
    name = "grant.latched"
    level = Level.CRITICAL
    cls: str
    reason: str
    mend: str

    @property
    def sentence(self) -> str:
        return _mended(f"{self.grant}: latched, no further exchange: {self.reason}", self.mend)


class Unlatched(GrantEvent):
    name = "grant.unlatched"
    level = Level.NOTICE
    why: str

    @property
    def sentence(self) -> str:
        return f"{self.grant}: latch released: {self.why}"


class StoreBehind(GrantEvent):
    name = "store.behind"
    level = Level.ERROR
    target: str
    stored: int
    found: int

    @property
    def sentence(self) -> str:
        return (
            f"{self.grant}: target {self.target} holds generation {self.found}, the store only {self.stored}: "
            "the store is an old copy; nothing older is published"
        )


class Retired(GrantEvent):
    name = "grant.retired"
    level = Level.NOTICE

    @property
    def sentence(self) -> str:
        return f"{self.grant}: retired; its stored tokens are deleted"


# --- a target ---------------------------------------------------------------------------------------------------


class TargetEvent(GrantEvent):
    target: str


class TargetSettled(TargetEvent):
    """A target holds this generation now. ``found`` says what stood there before: nothing, an older generation,
    something foreign. ``kind`` is that of the target (file, vault, secret), ``took`` how long publishing took,
    ``since_answer`` the time since the provider's answer was read; None where this process did not get it."""

    generation: int
    found: str
    kind: str | None = None
    took: timedelta | None = None
    since_answer: timedelta | None = None


class Delivered(TargetSettled):
    name = "token.delivered"
    level = Level.INFO

    @property
    def sentence(self) -> str:
        return f"{self.grant}: generation {self.generation} published to {self.target} (before: {self.found})"


class Repaired(TargetSettled):
    name = "target.repaired"
    level = Level.WARNING

    @property
    def sentence(self) -> str:
        return f"{self.grant}: target {self.target} was {self.found} and is put right (generation {self.generation})"


class DeliveryFailed(TargetEvent):
    name = "delivery.failed"
    level = Level.ERROR
    reason: str
    retry_at: datetime
    kind: str | None = None

    @property
    def sentence(self) -> str:
        again = _until(self.retry_at, self.at)
        return f"{self.grant}: target {self.target} not written: {self.reason}; tried again {again}"


class DeliveryStillFailing(DeliveryFailed):
    """It failed again for the same reason, which the log was told once."""

    name = "delivery.still_failing"
    level = Level.DEBUG


class TargetRemoved(TargetEvent):
    name = "target.removed"
    level = Level.INFO

    @property
    def sentence(self) -> str:
        return f"{self.grant}: target {self.target} is no longer configured and its token has expired; it was deleted"

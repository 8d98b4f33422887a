"""The snapshot: what was judged at one moment, immutable, and the one line about the whole."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from rotator.core import lean
from rotator.core.events import brief
from rotator.core.publication import rfc3339


class State(StrEnum):
    """One word for how a grant stands; the first that fits, from top to bottom."""

    LATCHED = "latched"
    PERSON_NEEDED = "needs a person"
    EMPTY = "no token yet"
    EXPIRED = "expired"
    DOUBT = "in doubt"
    RETRYING = "retrying"
    FRESH = "fresh"


class Startup(StrEnum):
    """Which grants must be settled before the daemon says that it is ready."""

    ALL = "all"
    ANY = "any"
    NONE = "none"


@lean.dataclass(frozen=True, slots=True)
class Pulse:
    """Whether our own loop turns: ``at`` is when the last sweep ended within its deadline, whatever its result,
    ``quiet`` the time awake since then, ``patience`` how long that may be. No provider and no Vault is part of it."""

    at: datetime
    quiet: timedelta
    patience: timedelta

    @property
    def beats(self) -> bool:
        return self.quiet <= self.patience

    @property
    def reason(self) -> str:
        """Empty while it beats."""
        if self.beats:
            return ""
        return f"the last sweep ended {brief(self.quiet)} ago ({rfc3339(self.at)}); {brief(self.patience)} are allowed"


@lean.dataclass(frozen=True, slots=True)
class TargetHealth:
    """``generation`` None: not the saved one stands there. ``trouble`` is empty where all is well. ``valid_until`` is
    about what was last seen there where that is not the saved generation; None: nothing that we can vouch for.
    Readiness and start wait for what is ``required``; a ``hook`` never is."""

    name: str
    location: str
    generation: int | None
    trouble: str = ""
    valid_until: datetime | None = None
    required: bool = True
    hook: bool = False


@lean.dataclass(frozen=True, slots=True)
class GrantHealth:
    """One grant as shown. ``reason`` is empty for a fresh one, else says why and how to mend it. ``rests``: nothing is
    tried for so long (a spent budget: up to a day) that no supervisor should hold up a start for it.

    ``published``: every required target holds the saved, valid token. ``unready`` is empty while every required target
    holds a valid token with time enough left, be it an older one, else says why. ``short`` carries the hysteresis from
    one look to the next. ``last_outcome`` is how the last exchange ended. Without a change of grant or targets all of
    this holds until ``stands_until`` (None: for ever)."""

    name: str
    provider: str
    state: State
    reason: str
    generation: int
    issued_at: datetime | None
    expires_at: datetime | None
    due_at: datetime | None
    passwords_left: int | None
    targets: tuple[TargetHealth, ...]
    published: bool
    rests: bool = False
    unready: str = ""
    short: bool = False
    last_outcome: str = ""
    passwords_limit: int | None = None
    stands_until: datetime | None = None
    # For those who reckon: how often in a row it failed, when the provider last gave tokens, when (by its
    # `refresh_lifetime`) the refresh token ends.
    failures: int = 0
    refreshed_at: datetime | None = None
    refresh_ends_at: datetime | None = None

    @property
    def ready(self) -> bool:
        return not self.unready

    @property
    def last_success_at(self) -> datetime | None:
        """When the last exchange that brought an access token was sent."""
        return self.issued_at

    @property
    def decided(self) -> bool:
        """Published, or in a state that waiting for some minutes does not change."""
        return self.published or self.rests or self.state in (State.LATCHED, State.PERSON_NEEDED)


@lean.dataclass(frozen=True, slots=True)
class ProviderHealth:
    """What the grants of one provider share: how many wait for their turn and are at work, and whether it is asked by
    one at a time because it gave many no answer."""

    name: str
    waiting: int
    in_flight: int
    breaker_open: bool


@lean.dataclass(frozen=True, slots=True)
class Census:
    """The register in numbers: how many stand in it, hold a valid token, wait for a person, and were due more than a
    minute ago."""

    total: int
    valid: int
    resting: int
    overdue: int

    def line(self) -> str:
        told = [f"register: {self.valid}/{self.total} with a valid token"]
        told += [
            f"{count} {words}"
            for count, words in ((self.resting, "wait for a person"), (self.overdue, "overdue"))
            if count
        ]
        return ", ".join(told)


@lean.dataclass(frozen=True, slots=True)
class Listed:
    """What the register shows of a grant without opening anything. ``due_at`` None: it waits for a person, or was never
    at work (``generation`` 0)."""

    name: str
    provider: str
    generation: int
    expires_at: datetime | None
    due_at: datetime | None


@lean.dataclass(frozen=True, slots=True)
class Health:
    """The whole snapshot at ``at``. ``pulse`` is None where no daemon runs; ``started``: it has once said READY=1.
    ``register``: the grants of the store's register in numbers, as they were counted last; ``walked``: what each of
    them publishes has been looked at since the start."""

    at: datetime
    grants: tuple[GrantHealth, ...]
    pulse: Pulse | None = None
    started: bool = False
    providers: tuple[ProviderHealth, ...] = ()
    register: Census | None = None
    walked: bool = True

    def settled(self, require: Startup) -> bool:
        """Whether READY=1 may be said under ``startup.require``."""
        if require is Startup.NONE:
            return True
        decided = [grant.decided for grant in self.grants]
        if require is Startup.ALL:
            return self.walked and all(decided)
        return not decided or any(decided)

    @property
    def well(self) -> bool:
        """Every grant has its valid token in every required target."""
        return all(grant.published for grant in self.grants)

    @property
    def ready(self) -> bool:
        """Every required target holds a valid token with time enough left."""
        return not any(grant.unready for grant in self.grants)

    @property
    def alive(self) -> bool:
        return self.pulse is not None and self.pulse.beats

    def line(self) -> str:
        """The one line for STATUS= and for the end of a command."""
        return self._told(reasons=True)

    def lead(self) -> str:
        """The same line without reasons, for who shows those elsewhere."""
        return self._told(reasons=False)

    def _told(self, *, reasons: bool) -> str:
        counted = self.register if self.register is not None and self.register.total else None
        if not self.grants and counted is None:
            return "no grants are configured"
        published, bad, coming, due = 0, list[GrantHealth](), "", None
        # One pass: this is said at every beat, of whatever many grants.
        for grant in self.grants:
            published += grant.published
            if grant.reason:
                bad.append(grant)
            if grant.due_at is not None and (due is None or grant.due_at < due):
                due, coming = grant.due_at, grant.name
        parts = [f"{published}/{len(self.grants)} grants published"] if self.grants else []
        parts += [] if counted is None else [counted.line()]
        if reasons:
            parts.extend(f"{grant.name}: {grant.reason}" for grant in bad[:3])
        if reasons and len(bad) > 3:
            parts.append(f"and {len(bad) - 3} more")
        if due is not None:
            parts.append(f"next rotation in {brief(due - self.at)} ({coming})")
        return "; ".join(parts)

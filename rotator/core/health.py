"""The verdict: how every grant stands, in words that every page, probe and status line shows alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from rotator.core.errors import Transient
from rotator.core.events import brief
from rotator.core.grants import Grant, OutcomeClass
from rotator.core.policy import Budget
from rotator.core.publication import header_type, rfc3339


class State(StrEnum):
    """One word for how a grant stands; the first that fits, from top to bottom."""

    LATCHED = "latched"
    PERSON_NEEDED = "needs a person"
    EMPTY = "no token yet"
    EXPIRED = "expired"
    DOUBT = "in doubt"
    RETRYING = "retrying"
    FRESH = "fresh"


# Longer than any retry of what may heal by itself (5 min), shorter than any pause that waits for an operator (15 min).
LONG_REST = timedelta(minutes=10)


class Startup(StrEnum):
    """Which grants must be settled before the daemon says that it is ready."""

    ALL = "all"
    ANY = "any"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class TargetHealth:
    """``generation`` None: nothing of ours stands there yet. ``trouble`` is empty where all is well."""

    name: str
    location: str
    generation: int | None
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class GrantHealth:
    """One grant as shown. ``reason`` is empty for a fresh one, else says why and how to mend it. ``rests``: nothing is
    tried for so long (a spent budget: up to a day) that no supervisor should hold up a start for it."""

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
    # For those who reckon: how often in a row it failed, when the provider last gave tokens, when (by its
    # `refresh_lifetime`) the refresh token ends.
    failures: int = 0
    refreshed_at: datetime | None = None
    refresh_ends_at: datetime | None = None

    @property
    def decided(self) -> bool:
        """Published, or in a state that waiting for some minutes does not change."""
        return self.published or self.rests or self.state in (State.LATCHED, State.PERSON_NEEDED)


@dataclass(frozen=True, slots=True)
class ProviderHealth:
    """What the grants of one provider share: how many wait for their turn and are at work, and whether it is asked by
    one at a time because it gave many no answer."""

    name: str
    waiting: int
    in_flight: int
    breaker_open: bool


@dataclass(frozen=True, slots=True)
class Health:
    """The whole snapshot at ``at``."""

    at: datetime
    grants: tuple[GrantHealth, ...]
    providers: tuple[ProviderHealth, ...] = ()

    def settled(self, require: Startup) -> bool:
        """Whether READY=1 may be said under ``startup.require``."""
        if require is Startup.NONE or not self.grants:
            return True
        decided = [grant.decided for grant in self.grants]
        return all(decided) if require is Startup.ALL else any(decided)

    @property
    def well(self) -> bool:
        """Every grant has a valid token in every target."""
        return all(grant.published for grant in self.grants)

    def line(self) -> str:
        """The one line for STATUS= and for the end of a command."""
        if not self.grants:
            return "no grants are configured"
        published = sum(grant.published for grant in self.grants)
        parts = [f"{published}/{len(self.grants)} grants published"]
        bad = [grant for grant in self.grants if grant.reason]
        parts.extend(f"{grant.name}: {grant.reason}" for grant in bad[:3])
        if len(bad) > 3:
            parts.append(f"and {len(bad) - 3} more")
        coming = [(grant.due_at, grant.name) for grant in self.grants if grant.due_at is not None]
        if coming:
            due, name = min(coming)
            parts.append(f"next rotation in {brief(due - self.at)} ({name})")
        return "; ".join(parts)


def examine(
    grant: Grant, provider: str, budget: Budget | None, targets: Sequence[TargetHealth], now: datetime,
    *, refresh_lifetime: timedelta | None = None,
) -> GrantHealth:  # fmt: skip
    """Judge one grant. ``budget`` None where no password is configured, ``refresh_lifetime`` where none is known."""
    state, reason = _state(grant, now)
    valid = grant.holds_valid(now) and not grant.unproven
    generation = grant.access.generation if grant.access is not None else None
    behind = [target for target in targets if target.generation != generation or target.trouble]
    if valid and behind and not reason:
        reason = "; ".join(f"target {one.name} {one.trouble or 'is not written yet'}" for one in behind)
    access = grant.access
    return GrantHealth(
        name=grant.name,
        provider=provider,
        state=state,
        reason=reason,
        generation=grant.generation,
        issued_at=access.issued_at if access else None,
        expires_at=access.expires_at if access else None,
        due_at=grant.due_at,
        passwords_left=None if budget is None else budget.left(grant.debits, now),
        targets=tuple(targets),
        published=valid and not behind,
        rests=not valid and grant.due_at is not None and grant.due_at - now > LONG_REST,
        failures=0 if grant.trouble is None else grant.trouble.count,
        refreshed_at=grant.refreshed_at,
        refresh_ends_at=None
        if grant.refresh is None or grant.refreshed_at is None or refresh_lifetime is None
        else grant.refreshed_at + refresh_lifetime,
    )


def _state(grant: Grant, now: datetime) -> tuple[State, str]:
    trouble = "" if grant.trouble is None else _why(grant)
    if grant.latch is not None:
        since = grant.latch.since.strftime("%Y-%m-%d %H:%M:%SZ")
        return State.LATCHED, f"{grant.latch.reason}, latched since {since}; {grant.latch.mend}"
    if grant.due_at is None:
        return State.PERSON_NEEDED, trouble or "waits for a person"
    if grant.access is None:
        return State.EMPTY, trouble or "the first exchange is on its way"
    if not grant.access.is_valid(now):
        return State.EXPIRED, trouble or "expired; the exchange is on its way"
    if grant.doubt is not None:
        return State.DOUBT, f"nobody knows whether the refresh token was spent: {grant.doubt.cause}"
    if grant.trouble is not None:
        return State.RETRYING, trouble
    if grant.unproven:
        return State.RETRYING, "nobody knows whether the token is still valid; it is refreshed before it is trusted"
    return State.FRESH, ""


def _why(grant: Grant) -> str:
    trouble = grant.trouble
    assert trouble is not None  # noqa: S101 (the caller looked)
    text = trouble.message
    if trouble.cls is not OutcomeClass.REFRESH_DEAD:
        text = f"{trouble.cls.value}: {text}"
    return f"{text}; {trouble.mend}" if trouble.mend else text


def document(health: Health) -> dict[str, object]:
    """The snapshot as JSON-ready data; ``schema`` goes up when a key changes its meaning."""
    return {
        "schema": 1,
        "at": rfc3339(health.at),
        "published": health.well,
        "line": health.line(),
        "grants": {grant.name: _grant_document(grant, health.at) for grant in health.grants},
    }


def _grant_document(grant: GrantHealth, now: datetime) -> Mapping[str, object]:
    return {
        "state": grant.state.value,
        "reason": grant.reason,
        "provider": grant.provider,
        "published": grant.published,
        "decided": grant.decided,
        "generation": grant.generation,
        "issued_at": _time(grant.issued_at),
        "expires_at": _time(grant.expires_at),
        "expires_in": None if grant.expires_at is None else max(0.0, (grant.expires_at - now).total_seconds()),
        "lifetime": _span(grant),
        "due_at": _time(grant.due_at),
        "passwords_left": grant.passwords_left,
        "targets": {
            target.name: {
                "location": target.location, "generation": target.generation, "trouble": target.trouble,
            }
            for target in grant.targets
        },
    }  # fmt: skip


def _span(grant: GrantHealth) -> float | None:
    if grant.issued_at is None or grant.expires_at is None:
        return None
    return (grant.expires_at - grant.issued_at).total_seconds()


def _time(at: datetime | None) -> str | None:
    return None if at is None else rfc3339(at)


def token(grant: Grant, now: datetime) -> dict[str, object]:
    """The access token of a grant in clear, for a person or a script that may see it. Raises Transient where none
    is valid."""
    access = grant.access
    if access is None or grant.unproven or not access.is_valid(now):
        raise Transient(f"{grant.name}: no valid access token", mend="see `rotator status` for the reason")
    return {
        "grant": grant.name,
        "access_token": access.value.reveal(),
        "token_type": header_type(access.token_type),
        "expires_at": rfc3339(access.expires_at),
        "generation": access.generation,
    }

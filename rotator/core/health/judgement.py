"""The judgement of one grant: a word, a reason that ends with the mending step, and whether readers are served."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from rotator.core import lean
from rotator.core.events import brief
from rotator.core.grants import Grant, OutcomeClass
from rotator.core.health.snapshot import GrantHealth, State, TargetHealth
from rotator.core.policy import Budget

# Longer than any retry of what may heal by itself (5 min), shorter than any pause that waits for an operator (15 min).
LONG_REST = timedelta(minutes=10)


@lean.dataclass(frozen=True, slots=True)
class Margin:
    """A required token with ``least`` or less left makes us unready, until one with more than ``enough`` is there.

    Two thresholds, so that nobody is taken out of service and put back for every retry near the end. Tokens that live
    for minutes only have both scaled down: to a tenth and a fifth of their lifetime."""

    least: timedelta = timedelta(seconds=30)
    enough: timedelta = timedelta(minutes=2)

    def bar(self, lifetime: timedelta, was_short: bool) -> timedelta:
        """What must be left now, given whether it was too little at the last look."""
        return min(self.enough, lifetime / 5) if was_short else min(self.least, lifetime / 10)


def examine(
    grant: Grant,
    provider: str,
    budget: Budget | None,
    targets: Sequence[TargetHealth],
    now: datetime,
    *,
    margin: Margin = Margin(),
    was_short: bool = False,
    refresh_lifetime: timedelta | None = None,
) -> GrantHealth:
    """Judge one grant. ``budget`` None where no password is configured, ``refresh_lifetime`` where nobody knows it;
    ``was_short`` from the judgement before."""
    state, reason = _state(grant, now)
    access = grant.access
    valid = grant.holds_valid(now) and not grant.unproven
    generation = access.generation if access is not None else None
    behind = [target for target in targets if target.generation != generation or target.trouble]
    if valid and behind and not reason:
        reason = "; ".join(map(_lack, behind))
    lifetime = access.lifetime if access is not None else timedelta(0)
    bar = margin.bar(lifetime, was_short)
    served = _served(grant, targets)
    unready, short = _unready(served, bar, now, was_short)
    rests_until = None if valid or grant.due_at is None else grant.due_at - LONG_REST
    changes = [until for _, until in served if until is not None]
    changes += [until - bar for until in changes]
    changes += [] if access is None else [access.expires_at]
    changes += [] if budget is None else [at + budget.window for at in grant.debits]
    changes += [] if rests_until is None else [rests_until]
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
        published=valid and not any(target.required for target in behind),
        rests=rests_until is not None and now < rests_until,
        unready=f"{unready}; {reason}" if unready and reason else unready,
        short=short,
        last_outcome=_outcome(grant),
        passwords_limit=None if budget is None else budget.limit,
        stands_until=min((at for at in changes if at > now), default=None),
        failures=0 if grant.trouble is None else grant.trouble.count,
        refreshed_at=grant.refreshed_at,
        refresh_ends_at=_refresh_ends_at(grant, refresh_lifetime),
    )


def _lack(target: TargetHealth) -> str:
    if target.hook:
        return f"hook {target.name} {target.trouble or 'has not run yet'}"
    return f"target {target.name} {target.trouble or 'is not written yet'}"


def _served(grant: Grant, targets: Sequence[TargetHealth]) -> list[tuple[str, datetime | None]]:
    """Every required target with the time until which a reader finds a valid token there; the store itself where no
    target holds one. None where nobody can say."""
    access = None if grant.unproven else grant.access
    if all(one.hook for one in targets):
        return [("the store", access.expires_at if access is not None else None)]
    found: list[tuple[str, datetime | None]] = []
    for one in targets:
        if one.required:
            current = access is not None and one.generation == access.generation and not one.trouble
            until = access.expires_at if access is not None and current else one.valid_until
            found.append((f"target {one.name}", None if grant.unproven else until))
    return found


def _unready(
    served: Sequence[tuple[str, datetime | None]], bar: timedelta, now: datetime, was_short: bool
) -> tuple[str, bool]:
    """Why readers are not served, and the hysteresis for the next look."""
    lacking = [name for name, until in served if until is None or until <= now]
    if lacking:
        return f"{' and '.join(lacking)} {'holds' if len(lacking) == 1 else 'hold'} no valid token", was_short
    left = min((until - now for _, until in served if until is not None), default=None)
    if left is None or left > bar:
        return "", False
    return f"its token holds for {brief(left)} only, {brief(bar)} are wanted", True


def _refresh_ends_at(grant: Grant, lifetime: timedelta | None) -> datetime | None:
    if grant.refresh is None or grant.refreshed_at is None or lifetime is None:
        return None
    return grant.refreshed_at + lifetime


def _outcome(grant: Grant) -> str:
    if grant.trouble is not None:
        return grant.trouble.cls.value
    return OutcomeClass.GRANTED.value if grant.access is not None else ""


def _state(grant: Grant, now: datetime) -> tuple[State, str]:
    trouble = "" if grant.trouble is None else _why(grant)
    if grant.latch is not None:
        since = grant.latch.since.strftime("%Y-%m-%d %H:%M:%SZ")
        cls = OutcomeClass.REFUSED if grant.trouble is None else grant.trouble.cls
        return State.LATCHED, f"{cls.value}: {grant.latch.reason}, latched since {since}; {grant.latch.mend}"
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

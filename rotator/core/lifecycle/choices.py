"""What would be done next, and from when: by what the record holds and the rules allow."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from rotator.core import lean, policy
from rotator.core.grants import Doubt, Grant, Kind, Source
from rotator.core.lifecycle import facts
from rotator.core.policy import Moment, Reuse, Rules

BUDGET_SPENT = "the budget allows no password exchange yet"


@lean.dataclass(frozen=True, slots=True)
class Choice:
    """What would be done and from when. ``kind`` None: only a person can help, ``why`` and ``mend`` say how."""

    at: datetime | None
    kind: Kind | None = None
    source: Source = Source.CURRENT
    why: str = ""
    mend: str = ""


def choose(grant: Grant, fact: facts.Due, moment: Moment, rules: Rules, *, changed: bool = False) -> Choice:
    """The exchange that would follow now, with the earliest time at which it may.

    ``changed``: a person has just changed refused credentials, so that a login need not keep apart from the last.
    """
    now = moment.now
    if fact.wanted is Kind.PASSWORD:
        return Choice(now, Kind.PASSWORD)
    if grant.doubt is not None and grant.refresh is not None:
        return _choose_in_doubt(grant, grant.doubt, fact, moment, rules, changed)
    if grant.refresh is not None:
        return Choice(now, Kind.REFRESH)
    if grant.previous_refresh is not None and rules.reuse is Reuse.HARMLESS:
        return Choice(now, Kind.REFRESH, Source.PREVIOUS)
    return _choose_password(grant, fact, now, rules, changed)


def _choose_in_doubt(
    grant: Grant, doubt: Doubt, fact: facts.Due, moment: Moment, rules: Rules, changed: bool
) -> Choice:
    """Resend where that can cost nothing; else serve on, and recover before the access token expires."""
    now = moment.now
    if rules.reuse is Reuse.HARMLESS or grace_left(doubt, moment, rules) is not None:
        return Choice(now, Kind.REFRESH)
    recovery = _choose_password(grant, fact, now, rules, changed)
    if fact.forced and recovery.kind is not None:
        return recovery
    serves_until = _serves_until(grant, doubt, now)
    if serves_until is None:
        # An expired token leaves nothing that a resend could revoke: it costs no login, so it goes first, once.
        if recovery.at is None or recovery.at > now or (doubt.attempts == 1 and not grant.holds_valid(now)):
            return Choice(now, Kind.REFRESH)
        return recovery
    if recovery.at is not None:
        # Half-way to expiry: late enough to ride out an outage, early enough to try again.
        password_at = max(recovery.at, doubt.since.now + (serves_until - doubt.since.now) / 2)
        if password_at < serves_until:
            why = recovery.why or "the doubt is recovered by the password, before the access token expires"
            return replace(recovery, at=password_at, why=why)
    # No password in time: once the access token has run out there is nothing left that a resend could revoke.
    why = "the refresh token may be spent, and presenting it again revokes its family"
    return Choice(serves_until, Kind.REFRESH, why=why)


def grace_left(doubt: Doubt, moment: Moment, rules: Rules) -> timedelta | None:
    """How long the one quick resend is still forgiven; None where it is not, or was made."""
    elapsed = moment.elapsed_since(doubt.since)
    if doubt.attempts != 1 or elapsed is None or elapsed >= rules.grace:
        return None
    return rules.grace - elapsed


def _serves_until(grant: Grant, doubt: Doubt, now: datetime) -> datetime | None:
    """When the access token in use runs out; None where it has, or where the clock was set back and nobody can say."""
    access = grant.access
    if access is None or not access.is_valid(now) or max(access.issued_at, doubt.since.now) > now:
        return None
    return access.expires_at


def _choose_password(grant: Grant, fact: facts.Due, now: datetime, rules: Rules, changed: bool) -> Choice:
    if not rules.password:
        lost = "the refresh token is dead" if grant.generation else "no token yet"
        return Choice(
            None, why=f"{lost} and no password is configured",
            mend=f"run `rotator authorize {grant.name}`",
        )  # fmt: skip
    if fact.forced:
        return Choice(now, Kind.PASSWORD)
    at = rules.budget.allowed_at(grant.debits, now, at_once=grant.password_lost or changed)
    return Choice(at, Kind.PASSWORD, why=BUDGET_SPENT if at > now else "")


def spaced(grant: Grant, rules: Rules, now: datetime) -> datetime:
    """The earliest time that keeps the least spacing from the last exchange; ``now`` where it is kept."""
    if grant.exchanged_at is None or grant.exchanged_at > now:
        return now
    least = rules.spacing if grant.access is None else policy.spacing(grant.access.lifetime, rules)
    return max(now, grant.exchanged_at + least)

"""How a grant begins, and what it does where the world is not as the store says."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from rotator.core import events
from rotator.core.grants import Doubt, Grant
from rotator.core.lifecycle import choices, conclusions, endings, facts
from rotator.core.policy import Moment, Rules


def enrol(name: str, lineage: str, identity: str, now: datetime, debits: tuple[datetime, ...] = ()) -> Grant:
    """A grant that has never exchanged anything: due at once. ``debits`` are charged by a tombstone."""
    return Grant(name=name, lineage=lineage, identity=identity, debits=debits, due_at=now)


def reidentify(grant: Grant, lineage: str, identity: str, now: datetime) -> facts.Step:
    """Start anew under another provider, client or user: nothing stored belongs to it.

    The password budget is kept: the account behind a new client id may be the same.
    """
    fresh = replace(
        enrol(grant.name, lineage, identity, now, grant.debits),
        password_lost=grant.password_lost,
    )
    return facts.Step(fresh, facts.Rest(now), (events.IdentityChanged(at=now, grant=grant.name),))


def behind(grant: Grant, fact: facts.Behind, moment: Moment, rules: Rules, chance: float) -> facts.Step:
    """Our store is an old copy: its refresh token may be spent and its access token outlived. Publish nothing,
    count on from what was found, and treat the refresh token as in doubt."""
    if fact.generation <= grant.generation:
        return facts.Step(grant, facts.Rest(grant.due_at))
    now = moment.now
    # Whoever died with an exchange out is remembered first: a login that was lost is one, whatever else is found.
    grant, crashed = conclusions.recall(grant, moment, rules, chance)
    told = events.StoreBehind(
        at=now, grant=grant.name, target=fact.target, stored=grant.generation, found=fact.generation
    )
    # None of its requests were ours: spent at an unknown time, so no grace covers a resend.
    doubt = Doubt(moment, 0, "the store is an old copy") if grant.refresh is not None else None
    access = grant.access
    if access is not None and fact.expires_at is not None:
        # Keeps only the time until which readers are served by the newer token; it is never published (unproven).
        # What a target says is believed within bounds only, and the lifetime never shrinks: guesses are made by it.
        until = min(max(fact.expires_at, now), now + rules.longest_lifetime)
        access = replace(access, issued_at=min(until - access.lifetime, now), expires_at=until)
    due_at = None if grant.latch is not None else choices.spaced(grant, rules, now)
    moved = replace(
        grant, generation=fact.generation, access=access, previous_refresh=None, doubt=doubt, intent=None,
        unproven=True, due_at=due_at,
    )  # fmt: skip
    return facts.Step(moved, facts.Rest(due_at), (*crashed, told))


def clock_fell_back(grant: Grant, moment: Moment, rules: Rules) -> facts.Step:
    """Refresh before trusting. Debits from the future count from now: never forgotten, but not for years either."""
    now = moment.now
    due_at = None if grant.due_at is None else min(grant.due_at, choices.spaced(grant, rules, now))
    debits = tuple(min(at, now) for at in grant.debits)
    return facts.Step(replace(grant, unproven=True, debits=debits, due_at=due_at), facts.Rest(due_at))


def adopted(grant: Grant, fact: facts.Adopted, moment: Moment) -> facts.Step:
    """A refresh token from elsewhere begins a new chain: what was latched or in doubt was the old one's."""
    now = moment.now
    told: list[events.Event] = []
    if grant.latch is not None:
        told.append(events.Unlatched(at=now, grant=grant.name, why="a person handed over a refresh token"))
    taken = replace(
        endings.renewed(grant, now), refresh=fact.refresh, previous_refresh=None,
        intent=None, doubt=None, latch=None, trouble=None, password_lost=False, due_at=now,
    )  # fmt: skip
    return facts.Step(taken, facts.Rest(now), tuple(told))

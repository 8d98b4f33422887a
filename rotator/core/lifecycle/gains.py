"""What a granted exchange gains: the next generation, and which refresh token is spent next."""

from __future__ import annotations

import re
from dataclasses import replace

from rotator.core import events, policy
from rotator.core.grants import Answer, Grant, Intent, Kind, Source
from rotator.core.lifecycle import facts
from rotator.core.policy import Moment, Rules
from rotator.core.tokens import AccessToken, Secret


def granted(
    grant: Grant, intent: Intent, answer: Answer, value: Secret, fact: facts.Concluded, moment: Moment, rules: Rules,
    chance: float,
) -> facts.Step:  # fmt: skip
    """Close the intent with the next generation; whatever was in trouble, in doubt or latched is not any more. Expiry
    counts from before the request was sent."""
    now = moment.now
    last_good = grant.access.lifetime if grant.access is not None else None
    lifetime = policy.lifetime(answer.lifetime, rules, last_good)
    generation = grant.generation + 1
    access = AccessToken(value, answer.token_type, answer.scope, fact.sent_at, fact.sent_at + lifetime, generation)
    herd = intent.kind is Kind.PASSWORD or policy.is_of_a_herd(grant.due_at, lifetime, now, rules)
    due_at = policy.due_at(fact.sent_at, lifetime, now, rules, chance, spread=herd)
    refresh, previous = succession(grant, intent, answer.refresh)
    remarks = list(answer.remarks)
    if lifetime < policy.SHORT_LIFETIME:
        remarks.append(
            f"tokens live only {events.brief(lifetime)}; an outage longer than a few seconds reaches readers"
        )
    if refresh is None:
        remarks.append("the provider gave no refresh token; the next rotation needs the password")
    seen = tuple(_alike(remark) for remark in remarks)
    renewed = replace(
        grant, generation=generation, access=access, refresh=refresh, previous_refresh=previous, refreshed_at=now,
        doubt=None, latch=None, trouble=None, password_lost=False, due_at=due_at, unproven=False,
        debits=rules.budget.within(grant.debits, now), remarks=seen, intent=None, exchanged_at=now,
    )  # fmt: skip
    told: list[events.Event] = [
        events.Rotated(
            at=now, grant=grant.name, kind=intent.kind.value, generation=generation,
            expires_at=access.expires_at, due_at=due_at,
        )
    ]  # fmt: skip
    if grant.latch is not None:
        told.append(events.Unlatched(at=now, grant=grant.name, why="a person's own exchange was granted"))
    told.extend(
        events.AnswerOdd(at=now, grant=grant.name, remark=remark)
        for remark, kept in zip(remarks, seen, strict=True)
        if kept not in grant.remarks
    )
    return facts.Step(renewed, facts.Rest(due_at), tuple(told))


def _alike(remark: str) -> str:
    """The remark without its figures: another skew or another lifetime is no news."""
    return re.sub(r"\d+", "#", remark)


def succession(grant: Grant, intent: Intent, fresh: Secret | None) -> tuple[Secret | None, Secret | None]:
    """The refresh token to use next and the one before it (RFC 6749 section 6: absent means keep the old)."""
    if intent.kind is Kind.PASSWORD:
        # A login never keeps an older chain's token: it may be dead, and belongs to another family.
        return fresh, None
    spent = grant.refresh if intent.source is Source.CURRENT else grant.previous_refresh
    if fresh is None or fresh == spent:
        return spent, None
    return fresh, spent

"""The alarm rang or somebody asked: begin an exchange, or say until when there is nothing to do."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from rotator.core import events
from rotator.core.grants import Grant, Intent, Kind, Latch, OutcomeClass, Source, Trouble
from rotator.core.lifecycle import choices, conclusions, endings, facts
from rotator.core.policy import Moment, Rules
from rotator.core.publication import rfc3339


def look(grant: Grant, fact: facts.Due, moment: Moment, rules: Rules, chance: float) -> facts.Step:
    """One exchange is begun at most; an open intent is first taken for what it is, a lost answer."""
    told: list[events.Event] = []
    now, changed = moment.now, False
    grant, crashed = conclusions.recall(grant, moment, rules, chance)
    told.extend(crashed)
    latch = grant.latch
    if latch is not None and fact.wanted is not Kind.PASSWORD:
        released = _released(latch, fact)
        if released is None:
            grant, ending = endings.noted(grant, now, rules)
            order = facts.Rest(None, f"latched: {latch.reason}")
            return facts.Step(replace(grant, due_at=None), order, (*told, *ending))
        told.append(events.Unlatched(at=now, grant=grant.name, why=released))
        grant, changed = replace(grant, latch=None, trouble=None, due_at=now), True
    # Whoever mended the credentials need not wait until the next login may be; the limit of the window holds all the
    # same, so that a secret file that flaps between two wrong ones locks no account.
    choice = choices.choose(grant, fact, moment, rules, changed=changed)
    if choice.kind is None:
        return _rest_for_a_person(grant, choice, told, now)
    starts, why = _starts(grant, fact, choice, now, rules)
    if starts > now:
        return _rest(grant, fact, starts, why, told, now)
    return _begin(grant, fact, choice, moment, told)


def _released(latch: Latch, fact: facts.Due) -> str | None:
    if fact.forced:
        return "an operator asked"
    if fact.credentials is not None and fact.credentials != latch.digest:
        return "the credentials or the settings of the request changed"
    return None


def _starts(grant: Grant, fact: facts.Due, choice: choices.Choice, now: datetime, rules: Rules) -> tuple[datetime, str]:
    starts = choice.at or now
    if fact.forced or fact.wanted is Kind.PASSWORD:
        return starts, choice.why
    if fact.asked or fact.wanted is not None:
        spaced = choices.spaced(grant, rules, now)
        return (spaced, "the last exchange was only just now") if spaced > starts else (starts, choice.why)
    return max(starts, grant.due_at or starts), choice.why


def _rest(
    grant: Grant, fact: facts.Due, starts: datetime, why: str, told: list[events.Event], now: datetime
) -> facts.Step:
    asked = fact.asked or fact.forced or fact.wanted is not None
    due = grant.due_at is None or grant.due_at <= now
    if why == choices.BUDGET_SPENT and due and not asked:
        told.append(events.BudgetSpent(at=now, grant=grant.name, next_at=starts))
        if grant.trouble is None:
            mend = f"the next is allowed at {rfc3339(starts)}, or at once by `rotator rotate --force {grant.name}`"
            grant = replace(grant, trouble=Trouble(OutcomeClass.REFRESH_DEAD, why, mend, now, 1))
    # Who asked in vain must not move the schedule, but may start one that had stopped.
    due_at = grant.due_at if asked and grant.due_at is not None else starts
    return facts.Step(replace(grant, due_at=due_at), facts.Rest(starts, why), tuple(told))


def _rest_for_a_person(grant: Grant, choice: choices.Choice, told: list[events.Event], now: datetime) -> facts.Step:
    trouble = grant.trouble
    if grant.due_at is not None or trouble is None:
        told.append(events.PersonNeeded(at=now, grant=grant.name, reason=choice.why, mend=choice.mend))
        trouble = Trouble(OutcomeClass.REFRESH_DEAD, choice.why, choice.mend, now, 1)
    return facts.Step(replace(grant, due_at=None, trouble=trouble), facts.Rest(None, choice.why), tuple(told))


def _begin(
    grant: Grant, fact: facts.Due, choice: choices.Choice, moment: Moment, told: list[events.Event]
) -> facts.Step:
    kind = choice.kind
    assert kind is not None  # noqa: S101 (the caller looked)
    attempt = grant.doubt.attempts + 1 if grant.doubt is not None and kind is Kind.REFRESH else 1
    interactive = fact.wanted is Kind.PASSWORD
    intent = Intent(grant.lineage, grant.generation, kind, choice.source, attempt, moment, interactive)
    debits = (*grant.debits, moment.now) if kind is Kind.PASSWORD else grant.debits
    refresh = grant.refresh if choice.source is Source.CURRENT else grant.previous_refresh
    told.append(
        events.ExchangeStarted(
            at=moment.now, grant=grant.name, kind=kind.value, generation=grant.generation, attempt=attempt
        )
    )
    order = facts.Exchange(kind, attempt, refresh if kind is Kind.REFRESH else None)
    # Due at once also where somebody asked before the time: a crash leaves the grant due, the open intent tells the
    # rest. A person's own try leaves the schedule alone.
    due_at = grant.due_at if interactive else min(grant.due_at or moment.now, moment.now)
    return facts.Step(replace(grant, intent=intent, debits=debits, due_at=due_at), order, tuple(told))

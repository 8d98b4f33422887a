"""What an exchange that ended means for the grant: one function for each class of outcome."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from rotator.core import events, policy
from rotator.core.grants import Answer, Doubt, Grant, Intent, Kind, Latch, Outcome, OutcomeClass, Source, Trouble
from rotator.core.lifecycle import choices, facts
from rotator.core.policy import Moment, Rules
from rotator.core.tokens import AccessToken, Secret

PARTIAL_RETRY = timedelta(seconds=30)
PASSWORD_RETRY = timedelta(seconds=5)
RETRY_AFTER_FLOOR = timedelta(seconds=1)
RETRY_AFTER_CAP = timedelta(hours=1)
BUSY_FLOOR = timedelta(seconds=60)
REPEAT_FLOOR = timedelta(seconds=60)


def conclude(grant: Grant, fact: facts.Concluded, moment: Moment, rules: Rules, chance: float) -> facts.Step:
    """Close the intent and answer by class. Raises ValueError where there was no intent: a defect of the caller."""
    intent, outcome = grant.intent, fact.outcome
    if intent is None:
        raise ValueError("an exchange was concluded that no intent announced")
    grant = replace(grant, intent=None, exchanged_at=moment.now)
    if outcome.cls is OutcomeClass.GRANTED and outcome.answer is not None and outcome.answer.access is not None:
        return _granted(grant, intent, outcome.answer, outcome.answer.access, fact, moment, rules, chance)
    if intent.kind is Kind.PASSWORD and outcome.cls is OutcomeClass.NOT_SENT:
        grant = replace(grant, debits=_refunded(grant.debits, intent.moment.now))
    if intent.interactive:
        # A person's own try that failed tells the person; the schedule, the latch and the chain stay as they were.
        return _fail(grant, intent, outcome, moment, grant.due_at, keep_trouble=True)
    match outcome.cls:
        case OutcomeClass.PARTIAL:
            return _partial(grant, intent, outcome, moment, rules)
        case OutcomeClass.DOUBTFUL | OutcomeClass.GRANTED:
            # Granted, but without what was granted: a driver's defect. The refresh token may be spent all the same.
            return _doubtful(grant, intent, outcome, moment, rules, chance)
        case OutcomeClass.REFUSED:
            return _refused(grant, fact, moment)
        case OutcomeClass.MISCONFIGURED | OutcomeClass.REFRESH_DEAD if intent.kind is Kind.PASSWORD:
            # A login that the provider answers with “wrong request” or “no such grant” is stopped like a refused one.
            return _refused(grant, fact, moment)
        case OutcomeClass.REFRESH_DEAD:
            return _refresh_dead(grant, intent, outcome, moment, rules)
        case _:
            return _waiting(grant, intent, outcome, moment, rules, chance)


def _granted(
    grant: Grant, intent: Intent, answer: Answer, value: Secret, fact: facts.Concluded, moment: Moment, rules: Rules,
    chance: float,
) -> facts.Step:  # fmt: skip
    now = moment.now
    last_good = grant.access.lifetime if grant.access is not None else None
    lifetime = policy.lifetime(answer.lifetime, rules, last_good)
    generation = grant.generation + 1
    access = AccessToken(value, answer.token_type, answer.scope, fact.sent_at, fact.sent_at + lifetime, generation)
    due_at = policy.due_at(fact.sent_at, lifetime, now, rules, chance)
    refresh, previous = _succession(grant, intent, answer.refresh)
    remarks = list(answer.remarks)
    if lifetime < policy.SHORT_LIFETIME and (last_good is None or last_good >= policy.SHORT_LIFETIME):
        remarks.append(
            f"tokens live only {events.brief(lifetime)}; an outage longer than a few seconds reaches readers"
        )
    if refresh is None:
        remarks.append("the provider gave no refresh token; the next rotation needs the password")
    renewed = replace(
        grant, generation=generation, access=access, refresh=refresh, previous_refresh=previous, refreshed_at=now,
        doubt=None, latch=None, trouble=None, password_lost=False, due_at=due_at, unproven=False,
        debits=rules.budget.within(grant.debits, now),
    )  # fmt: skip
    told: list[events.Event] = [
        events.Rotated(
            at=now, grant=grant.name, kind=intent.kind.value, generation=generation,
            expires_at=access.expires_at, due_at=due_at,
        )
    ]  # fmt: skip
    if grant.latch is not None:
        told.append(events.Unlatched(at=now, grant=grant.name, why="a person's own exchange was granted"))
    told.extend(events.AnswerOdd(at=now, grant=grant.name, remark=remark) for remark in remarks)
    return facts.Step(renewed, facts.Rest(due_at), tuple(told))


def _succession(grant: Grant, intent: Intent, fresh: Secret | None) -> tuple[Secret | None, Secret | None]:
    """The refresh token to use next and the one before it (RFC 6749 section 6: absent means keep the old)."""
    if intent.kind is Kind.PASSWORD:
        # A login never keeps an older chain's token: it may be dead, and belongs to another family.
        return fresh, None
    spent = grant.refresh if intent.source is Source.CURRENT else grant.previous_refresh
    if fresh is None or fresh == spent:
        return spent, None
    return fresh, spent


def _partial(grant: Grant, intent: Intent, outcome: Outcome, moment: Moment, rules: Rules) -> facts.Step:
    """The provider rotated the refresh token but gave no access token that may be used: keep the one, never
    publish the other."""
    fresh = outcome.answer.refresh if outcome.answer is not None else None
    if fresh is None and intent.kind is Kind.PASSWORD:
        # A login that brought nothing at all: what was held, in doubt or not, stays.
        kept = replace(grant, password_lost=False)
        return _fail(kept, intent, outcome, moment, _after(kept, PARTIAL_RETRY, moment, rules))
    refresh, previous = _succession(grant, intent, fresh)
    kept = replace(
        grant, generation=grant.generation + 1, refresh=refresh, previous_refresh=previous,
        refreshed_at=moment.now, doubt=None, password_lost=False,
    )  # fmt: skip
    return _fail(kept, intent, outcome, moment, moment.now + PARTIAL_RETRY)


def _doubtful(
    grant: Grant, intent: Intent, outcome: Outcome, moment: Moment, rules: Rules, chance: float
) -> facts.Step:
    now = moment.now
    if intent.kind is Kind.PASSWORD:
        # One extra try, which counts; a second loss waits like any other password exchange.
        lost = replace(grant, password_lost=not grant.password_lost)
        pause = PASSWORD_RETRY
        if grant.access is not None and grant.access.is_valid(now):
            # Of a token with seconds to live the pause must not take the rest.
            pause = min(pause, (grant.access.expires_at - now) / 2)
        return _fail(lost, intent, outcome, moment, _after(lost, pause, moment, rules))
    if intent.source is Source.PREVIOUS:
        # Trying the previous token was a courtesy; whatever became of it, it is not tried twice.
        return _fail(replace(grant, previous_refresh=None), intent, outcome, moment, now)
    doubt = Doubt(grant.doubt.since if grant.doubt else intent.moment, intent.attempt, outcome.message)
    grant = replace(grant, doubt=doubt)
    pause = policy.backoff(intent.attempt, replace(rules, backoff_base=rules.resend_after), chance)
    left = choices.grace_left(doubt, moment, rules)
    if left is not None:
        # The one forgiven resend must not wait until it is forgiven no more.
        pause = min(pause, left / 2)
    choice = choices.choose(grant, facts.Due(), moment, rules)
    next_at = _after(grant, pause, moment, rules)
    step = _fail(grant, intent, outcome, moment, next_at)
    if intent.attempt > 1:
        return step
    plan = f"the {_word(choice.kind)} follows in {events.brief(next_at - now)}"
    raised = events.DoubtRaised(at=now, grant=grant.name, cause=outcome.message, plan=plan)
    return replace(step, events=(raised, *step.events))


def _word(kind: Kind | None) -> str:
    return "budgeted password exchange" if kind is Kind.PASSWORD else "resend"


def _refresh_dead(grant: Grant, intent: Intent, outcome: Outcome, moment: Moment, rules: Rules) -> facts.Step:
    now = moment.now
    current = intent.source is Source.CURRENT
    grant = replace(
        grant,
        doubt=None,
        refresh=None if current else grant.refresh,
        previous_refresh=grant.previous_refresh if current else None,
    )
    choice = choices.choose(grant, facts.Due(), moment, rules)
    step = _fail(grant, intent, outcome, moment, choice.at if choice.kind is not None else now)
    plan = choice.mend or f"next: {choice.kind} exchange"
    if choice.source is Source.PREVIOUS:
        plan = "the token before it is tried once"
    told: list[events.Event] = [events.ChainLost(at=now, grant=grant.name, reason=outcome.message, plan=plan)]
    if choice.kind is Kind.PASSWORD and choice.at is not None and choice.at > now:
        told.append(events.BudgetSpent(at=now, grant=grant.name, next_at=choice.at))
    return replace(step, events=(*step.events, *told))


def _refused(grant: Grant, fact: facts.Concluded, moment: Moment) -> facts.Step:
    outcome = fact.outcome
    default = f"change the credentials of grants.{grant.name}, or run `rotator rotate --force {grant.name}`"
    mend = outcome.mend or default
    latch = Latch(outcome.message, mend, fact.credentials or "", moment.now)
    trouble = Trouble(outcome.cls, outcome.message, mend, moment.now, 1)
    latched = replace(grant, latch=latch, trouble=trouble, due_at=None, password_lost=False)
    told = events.Latched(at=moment.now, grant=grant.name, reason=outcome.message, mend=mend)
    return facts.Step(latched, facts.Rest(None, outcome.message), (told,))


def _waiting(grant: Grant, intent: Intent, outcome: Outcome, moment: Moment, rules: Rules, chance: float) -> facts.Step:
    """Not sent, busy, or a request that the operator must mend: the same again, later."""
    now = moment.now
    count = _count(grant.trouble, outcome.cls)
    pause = policy.backoff(count, rules, chance)
    if outcome.cls is OutcomeClass.BUSY:
        asked = BUSY_FLOOR * 2 ** min(count - 1, 6) if outcome.retry_after is None else outcome.retry_after
        pause = max(pause, min(max(asked, RETRY_AFTER_FLOOR), RETRY_AFTER_CAP))
    elif outcome.cls is OutcomeClass.MISCONFIGURED:
        pause = policy.slow_backoff(count, *outcome.pace)
        if grant.access is not None and grant.access.is_valid(now):
            # A deploy or a firewall page of some minutes must not cost the readers their token: while one is valid,
            # never wait longer than half of what is left.
            pause = min(pause, max((grant.access.expires_at - now) / 2, REPEAT_FLOOR))
    if intent.kind is Kind.REFRESH:
        return _fail(grant, intent, outcome, moment, now + pause)
    if outcome.cls is not OutcomeClass.NOT_SENT:
        # The one extra try after a lost answer was this one.
        grant = replace(grant, password_lost=False)
    return _fail(grant, intent, outcome, moment, _after(grant, pause, moment, rules))


def _after(grant: Grant, pause: timedelta, moment: Moment, rules: Rules) -> datetime:
    """After a pause, and not before whatever is to be done next may be done."""
    at = choices.choose(grant, facts.Due(), moment, rules).at
    paused = moment.now + pause
    return paused if at is None else max(paused, at)


def _count(before: Trouble | None, cls: OutcomeClass) -> int:
    """How often in a row it failed in this way: an hour without a network is no reason to wait an hour after the
    first “busy”."""
    return before.count + 1 if before is not None and before.cls is cls else 1


def _fail(
    grant: Grant, intent: Intent, outcome: Outcome, moment: Moment, next_at: datetime | None,
    *, keep_trouble: bool = False,
) -> facts.Step:  # fmt: skip
    now = moment.now
    before = grant.trouble
    trouble = Trouble(
        outcome.cls, outcome.message, outcome.mend, before.since if before else now, _count(before, outcome.cls)
    )
    told = events.ExchangeFailed(
        at=now, grant=grant.name, kind=intent.kind.value, cls=outcome.cls.value, reason=outcome.message,
        mend=outcome.mend, next_at=next_at, valid_until=grant.access.expires_at if grant.access else None,
    )  # fmt: skip
    failed = replace(grant, due_at=next_at, trouble=before if keep_trouble else trouble)
    return facts.Step(failed, facts.Rest(next_at, outcome.message), (told,))


def _refunded(debits: tuple[datetime, ...], at: datetime) -> tuple[datetime, ...]:
    """Take back the debit of a login that never left."""
    kept = list(debits)
    if at in kept:
        kept.remove(at)
    return tuple(kept)

"""What an exchange that ended means for the grant: one function for each class of outcome."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from rotator.core import events, policy
from rotator.core.grants import (
    Charge,
    Doubt,
    Grant,
    Intent,
    Kind,
    Latch,
    Outcome,
    OutcomeClass,
    Source,
    Trouble,
)
from rotator.core.lifecycle import choices, endings, facts, gains
from rotator.core.policy import Moment, Rules

PARTIAL_RETRY = timedelta(seconds=30)
PARTIAL_CAP = timedelta(minutes=15)
PASSWORD_RETRY = timedelta(seconds=5)
RETRY_AFTER_FLOOR = timedelta(seconds=1)
RETRY_AFTER_CAP = timedelta(hours=1)
BUSY_FLOOR = timedelta(seconds=60)
REPEAT_FLOOR = timedelta(seconds=60)


def conclude(grant: Grant, fact: facts.Concluded, moment: Moment, rules: Rules, chance: float) -> facts.Step:
    """Close the intent and answer by class. Raises ValueError where there was no intent: a defect of the caller."""
    intent = grant.intent
    if intent is None:
        raise ValueError("an exchange was concluded that no intent announced")
    outcome = fact.outcome
    if outcome.cls is OutcomeClass.GRANTED and outcome.answer is not None and outcome.answer.access is not None:
        step = gains.granted(grant, intent, outcome.answer, outcome.answer.access, fact, moment, rules, chance)
    else:
        step = _failed(replace(grant, intent=None, exchanged_at=moment.now), intent, fact, moment, rules, chance)
    concluded, ending = endings.noted(step.grant, moment.now, rules)
    return replace(step, grant=concluded, events=(*step.events, *ending)) if ending else step


def recall(grant: Grant, moment: Moment, rules: Rules, chance: float) -> tuple[Grant, tuple[events.Event, ...]]:
    """An open intent under our own lease: the process that wrote it died. The same doubt as a lost answer."""
    if grant.intent is None:
        return grant, ()
    died = Outcome(cls=OutcomeClass.DOUBTFUL, message="the daemon ended before the answer was saved")
    step = conclude(grant, facts.Concluded(outcome=died, sent_at=grant.intent.moment.now), moment, rules, chance)
    return step.grant, step.events


def _failed(
    grant: Grant, intent: Intent, fact: facts.Concluded, moment: Moment, rules: Rules, chance: float
) -> facts.Step:
    outcome = fact.outcome
    if intent.kind is Kind.PASSWORD:
        grant = replace(grant, debits=_charged(grant.debits, intent, outcome, moment.now, rules))
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
        case OutcomeClass.MISCONFIGURED if intent.kind is Kind.PASSWORD and not _counts(outcome):
            return _waiting(grant, intent, outcome, moment, rules, chance)
        case OutcomeClass.MISCONFIGURED | OutcomeClass.REFRESH_DEAD if intent.kind is Kind.PASSWORD:
            # A login that the provider answers with “wrong request” or “no such grant” is stopped like a refused one.
            return _refused(grant, fact, moment)
        case OutcomeClass.MISCONFIGURED if outcome.barred and _may_log_in(grant, moment.now, rules):
            return _barred(grant, intent, outcome, moment)
        case OutcomeClass.REFRESH_DEAD:
            return _refresh_dead(grant, intent, outcome, moment, rules)
        case _:
            return _waiting(grant, intent, outcome, moment, rules, chance)


def _partial(grant: Grant, intent: Intent, outcome: Outcome, moment: Moment, rules: Rules) -> facts.Step:
    """The provider rotated the refresh token but gave no access token that may be used: keep the one, never
    publish the other."""
    fresh = outcome.answer.refresh if outcome.answer is not None else None
    if fresh is None and intent.kind is Kind.PASSWORD:
        # A login that brought nothing at all: what was held, in doubt or not, stays.
        kept = replace(grant, password_lost=False)
        return _fail(kept, intent, outcome, moment, _after(kept, PARTIAL_RETRY, moment, rules))
    refresh, previous = gains.succession(grant, intent, fresh)
    kept = replace(
        endings.renewed(grant, moment.now), generation=grant.generation + 1, refresh=refresh,
        previous_refresh=previous, doubt=None, password_lost=False,
    )  # fmt: skip
    pause = policy.slow_backoff(_count(grant.trouble, outcome.cls), PARTIAL_RETRY, PARTIAL_CAP)
    return _fail(kept, intent, outcome, moment, moment.now + _while_served(kept, pause, moment.now))


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


def _may_log_in(grant: Grant, now: datetime, rules: Rules) -> bool:
    return rules.password and rules.budget.allowed_at(grant.debits, now) <= now


def _barred(grant: Grant, intent: Intent, outcome: Outcome, moment: Moment) -> facts.Step:
    """The client may not refresh, so its refresh token is worth nothing and a login is due. Where the budget allows
    none the token is kept and asked with again, slowly: the provider may have been told better meanwhile."""
    bare = replace(grant, doubt=None, refresh=None, previous_refresh=None)
    now = moment.now
    step = _fail(bare, intent, outcome, moment, now)
    plan = f"next: {Kind.PASSWORD} exchange"
    told = events.ChainLost(at=now, grant=grant.name, reason=outcome.message, plan=plan)
    return replace(step, events=(*step.events, told))


def _refused(grant: Grant, fact: facts.Concluded, moment: Moment) -> facts.Step:
    outcome = fact.outcome
    release = f"change the credentials of grants.{grant.name}, or run `rotator rotate --force {grant.name}`"
    mend = f"{outcome.mend}; then {release}" if outcome.mend else release
    latch = Latch(outcome.message, mend, fact.credentials or "", moment.now)
    trouble = Trouble(outcome.cls, outcome.message, mend, moment.now, 1)
    latched = replace(grant, latch=latch, trouble=trouble, due_at=None, password_lost=False)
    told = events.Latched(
        at=moment.now, grant=grant.name, cls=outcome.cls.value, reason=outcome.message, mend=mend
    )  # fmt: skip
    return facts.Step(latched, facts.Rest(None, outcome.message), (told,))


def _waiting(grant: Grant, intent: Intent, outcome: Outcome, moment: Moment, rules: Rules, chance: float) -> facts.Step:
    """Not sent, busy, or a request that the operator must mend: the same again, later."""
    now = moment.now
    count = _count(grant.trouble, outcome.cls)
    pause = policy.backoff(count, rules, chance)
    if outcome.cls is OutcomeClass.BUSY:
        asked = BUSY_FLOOR * 2 ** min(count - 1, 6) if outcome.retry_after is None else outcome.retry_after
        pause = max(pause, min(max(asked, RETRY_AFTER_FLOOR), RETRY_AFTER_CAP))
        if outcome.pace is not None:
            pause = max(pause, policy.slow_backoff(count, *outcome.pace))
    elif outcome.cls is OutcomeClass.MISCONFIGURED or outcome.pace is not None:
        pause = policy.slow_backoff(count, *(outcome.pace or policy.OPERATOR_PACE))
        pause = _while_served(grant, pause, now)
    if intent.kind is Kind.REFRESH:
        return _fail(grant, intent, outcome, moment, now + pause)
    if _counts(outcome):
        # The one extra try after a lost answer was this one.
        grant = replace(grant, password_lost=False)
    return _fail(grant, intent, outcome, moment, _after(grant, pause, moment, rules))


def _while_served(grant: Grant, pause: timedelta, now: datetime) -> timedelta:
    """A deploy or a firewall page of some minutes must not cost the readers their token: while one is valid, never wait
    longer than half of what is left."""
    if grant.access is None or not grant.access.is_valid(now):
        return pause
    return min(pause, max((grant.access.expires_at - now) / 2, REPEAT_FLOOR))


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


def _counts(outcome: Outcome) -> bool:
    """Whether a login that ended so may have been looked at."""
    return outcome.cls is not OutcomeClass.NOT_SENT and outcome.charge is not Charge.NONE


def _charged(
    debits: tuple[datetime, ...], intent: Intent, outcome: Outcome, now: datetime, rules: Rules
) -> tuple[datetime, ...]:
    """The debits after a login that was not granted; its own was made with the intent."""
    if not _counts(outcome):
        return _refunded(debits, intent.moment.now)
    if outcome.charge is Charge.HALF:
        # “Too many” is how a provider speaks before it locks the account.
        return rules.budget.halved(debits, intent.moment.now, now)
    return debits


def _refunded(debits: tuple[datetime, ...], at: datetime) -> tuple[datetime, ...]:
    """Take back the debit of a login that never left."""
    kept = list(debits)
    if at in kept:
        kept.remove(at)
    return tuple(kept)

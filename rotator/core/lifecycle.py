"""The state machine of a grant: (grant, fact, moment) → (grant, orders, events).

Pure: everything it needs is handed in, and the same input gives the same answer. The caller saves the new grant
*before* it follows an order and tells the events *after* the save.

Facts        what came back or rang: `Due`, `Concluded`, `Behind`, `ClockFellBack`, `Adopted`
Orders       what to do next: `Exchange` (its intent is already in the grant), `Rest`
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from rotator.core import events, policy
from rotator.core.grants import Answer, Doubt, Grant, Intent, Kind, Latch, Outcome, OutcomeClass, Source, Trouble
from rotator.core.policy import Moment, Reuse, Rules
from rotator.core.publication import rfc3339
from rotator.core.tokens import AccessToken, Secret

PARTIAL_RETRY = timedelta(seconds=30)
PASSWORD_RETRY = timedelta(seconds=5)
RETRY_AFTER_FLOOR = timedelta(seconds=1)
RETRY_AFTER_CAP = timedelta(hours=1)
BUSY_FLOOR = timedelta(seconds=60)
REPEAT_FLOOR = timedelta(seconds=60)
BUDGET_SPENT = "the budget allows no password exchange yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """The alarm rang, the sweep looked, or somebody asked.

    ``credentials`` is the keyed hash of the request's credentials as they are now, None where unknown.
    ``asked`` goes before the due time, ``forced`` also through a latch and an empty budget. ``wanted`` PASSWORD is a
    person's own `authorize`: it passes latch and budget, and only its success changes anything.
    """

    credentials: str | None = None
    asked: bool = False
    forced: bool = False
    wanted: Kind | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Concluded:
    """An exchange ended. ``sent_at`` is the time before its request was sent."""

    outcome: Outcome
    sent_at: datetime
    credentials: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Behind:
    """A target holds a higher generation of our lineage: our store is an old copy."""

    target: str
    generation: int
    expires_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockFellBack:
    """Wall time is below a time already seen: what the store says of validity cannot be judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adopted:
    """A person hands over a refresh token that was obtained elsewhere."""

    refresh: Secret


Fact = Due | Concluded | Behind | ClockFellBack | Adopted


@dataclass(frozen=True, slots=True)
class Exchange:
    """Send this token request now; ``refresh`` is the token it spends."""

    kind: Kind
    attempt: int
    refresh: Secret | None


@dataclass(frozen=True, slots=True)
class Rest:
    """Nothing to do before ``until``; None means until a person or a changed secret acts. ``why`` is for who asked."""

    until: datetime | None
    why: str = ""


Order = Exchange | Rest


@dataclass(frozen=True, slots=True)
class Step:
    """The new record, the order to follow once it is saved, and what to tell after that."""

    grant: Grant
    order: Order
    events: tuple[events.Event, ...] = ()


def enrol(name: str, lineage: str, identity: str, now: datetime, debits: tuple[datetime, ...] = ()) -> Grant:
    """A grant that has never exchanged anything: due at once. ``debits`` are charged by a tombstone."""
    return Grant(name=name, lineage=lineage, identity=identity, debits=debits, due_at=now)


def reidentify(grant: Grant, lineage: str, identity: str, now: datetime) -> Step:
    """Start anew under another provider, client or user: nothing stored belongs to it.

    The password budget is kept: the account behind a new client id may be the same.
    """
    fresh = replace(
        enrol(grant.name, lineage, identity, now, grant.debits),
        password_lost=grant.password_lost,
    )
    return Step(fresh, Rest(now), (events.IdentityChanged(at=now, grant=grant.name),))


def advance(grant: Grant, fact: Fact, moment: Moment, rules: Rules, chance: float) -> Step:
    """Answer one fact. ``chance`` in [0, 1) feeds jitter."""
    match fact:
        case Due():
            return _due(grant, fact, moment, rules, chance)
        case Concluded():
            return _concluded(grant, fact, moment, rules, chance)
        case Behind():
            return _behind(grant, fact, moment, rules)
        case ClockFellBack():
            return _clock_fell_back(grant, moment, rules)
        case Adopted():
            return _adopted(grant, fact, moment)


# --- due --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Choice:
    """What would be done and from when. ``kind`` None: only a person can help, ``why`` and ``mend`` say how."""

    at: datetime | None
    kind: Kind | None = None
    source: Source = Source.CURRENT
    why: str = ""
    mend: str = ""


def _due(grant: Grant, fact: Due, moment: Moment, rules: Rules, chance: float) -> Step:
    told: list[events.Event] = []
    now = moment.now
    if grant.intent is not None:
        grant, crashed = _recall(grant, moment, rules, chance)
        told.extend(crashed)
    if grant.latch is not None and fact.wanted is not Kind.PASSWORD:
        released = _released(grant.latch, fact)
        if released is None:
            return Step(replace(grant, due_at=None), Rest(None, f"latched: {grant.latch.reason}"), tuple(told))
        told.append(events.Unlatched(at=now, grant=grant.name, why=released))
        grant = replace(grant, latch=None, trouble=None, due_at=now)
    choice = _choose(grant, fact, moment, rules)
    if choice.kind is None:
        return _rest_for_a_person(grant, choice, told, now)
    starts, why = _starts(grant, fact, choice, now, rules)
    if starts > now:
        return _rest(grant, fact, starts, why, told, now)
    return _begin(grant, fact, choice, moment, told)


def _released(latch: Latch, fact: Due) -> str | None:
    if fact.forced:
        return "an operator asked"
    if fact.credentials is not None and fact.credentials != latch.digest:
        return "the credentials or the settings of the request changed"
    return None


def _starts(grant: Grant, fact: Due, choice: _Choice, now: datetime, rules: Rules) -> tuple[datetime, str]:
    starts = choice.at or now
    if fact.forced or fact.wanted is Kind.PASSWORD:
        return starts, choice.why
    if fact.asked or fact.wanted is not None:
        spaced = _spaced(grant, rules, now)
        return (spaced, "the last exchange was only just now") if spaced > starts else (starts, choice.why)
    return max(starts, grant.due_at or starts), choice.why


def _rest(grant: Grant, fact: Due, starts: datetime, why: str, told: list[events.Event], now: datetime) -> Step:
    asked = fact.asked or fact.forced or fact.wanted is not None
    due = grant.due_at is None or grant.due_at <= now
    if why == BUDGET_SPENT and due and not asked:
        told.append(events.BudgetSpent(at=now, grant=grant.name, next_at=starts))
        if grant.trouble is None:
            mend = f"the next is allowed at {rfc3339(starts)}, or at once by `rotator rotate --force {grant.name}`"
            grant = replace(grant, trouble=Trouble(OutcomeClass.REFRESH_DEAD, why, mend, now, 1))
    # Who asked in vain must not move the schedule, but may start one that had stopped.
    due_at = grant.due_at if asked and grant.due_at is not None else starts
    return Step(replace(grant, due_at=due_at), Rest(starts, why), tuple(told))


def _recall(grant: Grant, moment: Moment, rules: Rules, chance: float) -> tuple[Grant, list[events.Event]]:
    """An open intent under our own lease: the process that wrote it died. The same doubt as a lost answer."""
    intent = grant.intent
    assert intent is not None  # noqa: S101 (the caller looked)
    died = Outcome(cls=OutcomeClass.DOUBTFUL, message="the daemon ended before the answer was saved")
    step = _concluded(grant, Concluded(outcome=died, sent_at=intent.moment.now), moment, rules, chance)
    return step.grant, list(step.events)


def _choose(grant: Grant, fact: Due, moment: Moment, rules: Rules) -> _Choice:
    now = moment.now
    if fact.wanted is Kind.PASSWORD:
        return _Choice(now, Kind.PASSWORD)
    if grant.doubt is not None and grant.refresh is not None:
        return _choose_in_doubt(grant, grant.doubt, fact, moment, rules)
    if grant.refresh is not None:
        return _Choice(now, Kind.REFRESH)
    if grant.previous_refresh is not None and rules.reuse is Reuse.HARMLESS:
        return _Choice(now, Kind.REFRESH, Source.PREVIOUS)
    return _choose_password(grant, fact, now, rules)


def _choose_in_doubt(grant: Grant, doubt: Doubt, fact: Due, moment: Moment, rules: Rules) -> _Choice:
    """Resend where that can cost nothing; else serve on, and recover before the access token expires."""
    now = moment.now
    if rules.reuse is Reuse.HARMLESS or _grace_left(doubt, moment, rules) is not None:
        return _Choice(now, Kind.REFRESH)
    recovery = _choose_password(grant, fact, now, rules)
    if fact.forced and recovery.kind is not None:
        return recovery
    serves_until = _serves_until(grant, doubt, now)
    if serves_until is None:
        # An expired token leaves nothing that a resend could revoke: it costs no login, so it goes first, once.
        if recovery.at is None or recovery.at > now or (doubt.attempts == 1 and not grant.holds_valid(now)):
            return _Choice(now, Kind.REFRESH)
        return recovery
    if recovery.at is not None:
        # Half-way to expiry: late enough to ride out an outage, early enough to try again.
        password_at = max(recovery.at, doubt.since.now + (serves_until - doubt.since.now) / 2)
        if password_at < serves_until:
            why = recovery.why or "the doubt is recovered by the password, before the access token expires"
            return replace(recovery, at=password_at, why=why)
    # No password in time: once the access token has run out there is nothing left that a resend could revoke.
    why = "the refresh token may be spent, and presenting it again revokes its family"
    return _Choice(serves_until, Kind.REFRESH, why=why)


def _grace_left(doubt: Doubt, moment: Moment, rules: Rules) -> timedelta | None:
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


def _choose_password(grant: Grant, fact: Due, now: datetime, rules: Rules) -> _Choice:
    if not rules.password:
        lost = "the refresh token is dead" if grant.generation else "no token yet"
        return _Choice(
            None, why=f"{lost} and no password is configured",
            mend=f"run `rotator authorize {grant.name}`",
        )  # fmt: skip
    if fact.forced:
        return _Choice(now, Kind.PASSWORD)
    at = rules.budget.allowed_at(grant.debits, now, retry=grant.password_lost)
    return _Choice(at, Kind.PASSWORD, why=BUDGET_SPENT if at > now else "")


def _spaced(grant: Grant, rules: Rules, now: datetime) -> datetime:
    if grant.exchanged_at is None or grant.exchanged_at > now:
        return now
    least = rules.spacing if grant.access is None else policy.spacing(grant.access.lifetime, rules)
    return max(now, grant.exchanged_at + least)


def _rest_for_a_person(grant: Grant, choice: _Choice, told: list[events.Event], now: datetime) -> Step:
    trouble = grant.trouble
    if grant.due_at is not None or trouble is None:
        told.append(events.PersonNeeded(at=now, grant=grant.name, reason=choice.why, mend=choice.mend))
        trouble = Trouble(OutcomeClass.REFRESH_DEAD, choice.why, choice.mend, now, 1)
    return Step(replace(grant, due_at=None, trouble=trouble), Rest(None, choice.why), tuple(told))


def _begin(grant: Grant, fact: Due, choice: _Choice, moment: Moment, told: list[events.Event]) -> Step:
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
    order = Exchange(kind, attempt, refresh if kind is Kind.REFRESH else None)
    # Due at once also where somebody asked before the time: a crash leaves the grant due, the open intent tells the
    # rest. A person's own try leaves the schedule alone.
    due_at = grant.due_at if interactive else min(grant.due_at or moment.now, moment.now)
    return Step(replace(grant, intent=intent, debits=debits, due_at=due_at), order, tuple(told))


# --- concluded --------------------------------------------------------------------------------------------------


def _concluded(grant: Grant, fact: Concluded, moment: Moment, rules: Rules, chance: float) -> Step:
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
    grant: Grant, intent: Intent, answer: Answer, value: Secret, fact: Concluded, moment: Moment, rules: Rules,
    chance: float,
) -> Step:  # fmt: skip
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
    return Step(renewed, Rest(due_at), tuple(told))


def _succession(grant: Grant, intent: Intent, fresh: Secret | None) -> tuple[Secret | None, Secret | None]:
    """The refresh token to use next and the one before it (RFC 6749 section 6: absent means keep the old)."""
    if intent.kind is Kind.PASSWORD:
        # A login never keeps an older chain's token: it may be dead, and belongs to another family.
        return fresh, None
    spent = grant.refresh if intent.source is Source.CURRENT else grant.previous_refresh
    if fresh is None or fresh == spent:
        return spent, None
    return fresh, spent


def _partial(grant: Grant, intent: Intent, outcome: Outcome, moment: Moment, rules: Rules) -> Step:
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


def _doubtful(grant: Grant, intent: Intent, outcome: Outcome, moment: Moment, rules: Rules, chance: float) -> Step:
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
    left = _grace_left(doubt, moment, rules)
    if left is not None:
        # The one forgiven resend must not wait until it is forgiven no more.
        pause = min(pause, left / 2)
    choice = _choose(grant, Due(), moment, rules)
    next_at = _after(grant, pause, moment, rules)
    step = _fail(grant, intent, outcome, moment, next_at)
    if intent.attempt > 1:
        return step
    plan = f"the {_word(choice.kind)} follows in {events.brief(next_at - now)}"
    raised = events.DoubtRaised(at=now, grant=grant.name, cause=outcome.message, plan=plan)
    return replace(step, events=(raised, *step.events))


def _word(kind: Kind | None) -> str:
    return "budgeted password exchange" if kind is Kind.PASSWORD else "resend"


def _refresh_dead(grant: Grant, intent: Intent, outcome: Outcome, moment: Moment, rules: Rules) -> Step:
    now = moment.now
    current = intent.source is Source.CURRENT
    grant = replace(
        grant,
        doubt=None,
        refresh=None if current else grant.refresh,
        previous_refresh=grant.previous_refresh if current else None,
    )
    choice = _choose(grant, Due(), moment, rules)
    step = _fail(grant, intent, outcome, moment, choice.at if choice.kind is not None else now)
    plan = choice.mend or f"next: {choice.kind} exchange"
    if choice.source is Source.PREVIOUS:
        plan = "the token before it is tried once"
    told: list[events.Event] = [events.ChainLost(at=now, grant=grant.name, reason=outcome.message, plan=plan)]
    if choice.kind is Kind.PASSWORD and choice.at is not None and choice.at > now:
        told.append(events.BudgetSpent(at=now, grant=grant.name, next_at=choice.at))
    return replace(step, events=(*step.events, *told))


def _refused(grant: Grant, fact: Concluded, moment: Moment) -> Step:
    outcome = fact.outcome
    default = f"change the credentials of grants.{grant.name}, or run `rotator rotate --force {grant.name}`"
    mend = outcome.mend or default
    latch = Latch(outcome.message, mend, fact.credentials or "", moment.now)
    trouble = Trouble(outcome.cls, outcome.message, mend, moment.now, 1)
    latched = replace(grant, latch=latch, trouble=trouble, due_at=None, password_lost=False)
    told = events.Latched(at=moment.now, grant=grant.name, reason=outcome.message, mend=mend)
    return Step(latched, Rest(None, outcome.message), (told,))


def _waiting(grant: Grant, intent: Intent, outcome: Outcome, moment: Moment, rules: Rules, chance: float) -> Step:
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
    at = _choose(grant, Due(), moment, rules).at
    paused = moment.now + pause
    return paused if at is None else max(paused, at)


def _count(before: Trouble | None, cls: OutcomeClass) -> int:
    """How often in a row it failed in this way: an hour without a network is no reason to wait an hour after the
    first “busy”."""
    return before.count + 1 if before is not None and before.cls is cls else 1


def _fail(
    grant: Grant, intent: Intent, outcome: Outcome, moment: Moment, next_at: datetime | None,
    *, keep_trouble: bool = False,
) -> Step:  # fmt: skip
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
    return Step(failed, Rest(next_at, outcome.message), (told,))


def _refunded(debits: tuple[datetime, ...], at: datetime) -> tuple[datetime, ...]:
    """Take back the debit of a login that never left."""
    kept = list(debits)
    if at in kept:
        kept.remove(at)
    return tuple(kept)


# --- the world is not as the store says -------------------------------------------------------------------------


def _behind(grant: Grant, fact: Behind, moment: Moment, rules: Rules) -> Step:
    """Our store is an old copy: its refresh token may be spent and its access token outlived. Publish nothing,
    count on from what was found, and treat the refresh token as in doubt."""
    if fact.generation <= grant.generation:
        return Step(grant, Rest(grant.due_at))
    now = moment.now
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
    due_at = None if grant.latch is not None else _spaced(grant, rules, now)
    moved = replace(
        grant, generation=fact.generation, access=access, previous_refresh=None, doubt=doubt, intent=None,
        unproven=True, due_at=due_at,
    )  # fmt: skip
    return Step(moved, Rest(due_at), (told,))


def _clock_fell_back(grant: Grant, moment: Moment, rules: Rules) -> Step:
    """Refresh before trusting. Debits from the future count from now: never forgotten, but not for years either."""
    now = moment.now
    due_at = None if grant.due_at is None else min(grant.due_at, _spaced(grant, rules, now))
    debits = tuple(min(at, now) for at in grant.debits)
    return Step(replace(grant, unproven=True, debits=debits, due_at=due_at), Rest(due_at))


def _adopted(grant: Grant, fact: Adopted, moment: Moment) -> Step:
    now = moment.now
    told: list[events.Event] = []
    if grant.latch is not None:
        told.append(events.Unlatched(at=now, grant=grant.name, why="a person handed over a refresh token"))
    taken = replace(
        grant, refresh=fact.refresh, previous_refresh=None, refreshed_at=now,
        intent=None, doubt=None, latch=None, trouble=None, password_lost=False, due_at=now,
    )  # fmt: skip
    return Step(taken, Rest(now), tuple(told))

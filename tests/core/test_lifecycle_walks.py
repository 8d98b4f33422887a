"""Random lives of a grant, and what must hold at every step of each.

The walker plays engine, provider, network, operator and clock; it knows of the lifecycle only what is promised of it,
and counts logins and pauses in books of its own. `WALKS=5000` takes as many as asked.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import build
import pytest
from build import DAY, HOUR, MINUTE, SECOND, ZERO, Story
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rotator.core import lifecycle, policy, records
from rotator.core.grants import Charge, Grant, Kind, Outcome, OutcomeClass, Source
from rotator.core.policy import Budget, Reuse, Rules

SPANS = st.sampled_from([ZERO, SECOND / 2, 5 * SECOND, 31 * SECOND, 5 * MINUTE, 16 * MINUTE, HOUR, 7 * HOUR, 25 * HOUR])
LIFETIMES = st.sampled_from([None, ZERO, SECOND, 3 * SECOND, MINUTE, 10 * MINUTE, HOUR, 36 * HOUR])
RULES = st.builds(
    Rules,
    # Twice as often the one that has more to lose.
    reuse=st.sampled_from([*Reuse, Reuse.KILLS_FAMILY]),
    grace=st.sampled_from([ZERO, 10 * SECOND, 30 * MINUTE]),
    password=st.booleans(),
    budget=st.sampled_from([Budget(), Budget(limit=6), Budget(limit=0), Budget(limit=1)]),
    refresh_lifetime=st.sampled_from([None, timedelta(days=14), 10 * MINUTE]),
)
RETRY_AFTER = st.none() | st.sampled_from([-SECOND, ZERO, 3 * SECOND, 30 * DAY])
CREDENTIALS = st.sampled_from(["old credentials", "new credentials", "others"])
CHANCES = st.sampled_from([0.0, 0.25, 0.5, 0.999999])
PACES = st.none() | st.sampled_from([(MINUTE, 15 * MINUTE), (30 * MINUTE, 8 * HOUR)])
FOUND = {
    "retry_after": RETRY_AFTER, "charge": st.sampled_from(Charge), "barred": st.booleans(),
    "pace": PACES,
}  # fmt: skip
LEAST_PAUSE = SECOND / 2
# Enough looks for the longest way back: doubt, a resend at expiry, a dead chain, the token before, a login.
STEPS_BACK = 8


@dataclass(frozen=True)
class Ended:
    """How the exchange before ended, and when (since noon)."""

    at: timedelta
    kind: Kind
    source: Source
    cls: OutcomeClass
    barred: bool = False

    @property
    def leads_on(self) -> bool:
        """Whether the next exchange may follow at once: the way down a dead chain, which has an end."""
        dead = self.cls is OutcomeClass.REFRESH_DEAD or self.barred
        return self.kind is Kind.REFRESH and (dead or self.source is Source.PREVIOUS)


class Walk(RuleBasedStateMachine):
    @initialize(rules=RULES, born=st.booleans())
    def begin(self, rules: Rules, born: bool) -> None:
        self.story = Story(build.fresh() if born else build.empty(), rules)
        self.flying = False
        self.tokens = 1
        self.credentials = "old credentials"
        self.spent = self.credentials
        self.alone: list[timedelta] = []
        self.before: Ended | None = None
        self.at_once = 0
        self.presented = ""
        self.logins: list[datetime] = []
        self.lonely_logins: list[datetime] = []
        self.unanswered: dict[str, tuple[policy.Moment, int]] = {}

    # --- what may happen ----------------------------------------------------------------------------------------

    @rule(span=SPANS)
    def time_passes(self, span: timedelta) -> None:
        self.story.at += span

    @precondition(lambda self: not self.flying and self.story.grant.due_at is not None)
    @rule(chance=CHANCES)
    def the_alarm_rings(self, chance: float) -> None:
        self.story.wait()
        self.look(chance, lifecycle.Due(credentials=self.credentials))

    @precondition(lambda self: not self.flying)
    @rule(
        chance=CHANCES, asked=st.booleans(), forced=st.booleans(), wanted=st.none() | st.sampled_from(Kind),
        readable=st.booleans(),
    )  # fmt: skip
    def somebody_looks(self, chance: float, asked: bool, forced: bool, wanted: Kind | None, readable: bool) -> None:
        credentials = self.credentials if readable else None
        self.look(chance, lifecycle.Due(credentials=credentials, asked=asked, forced=forced, wanted=wanted))

    @rule(credentials=CREDENTIALS)
    def the_credentials_change(self, credentials: str) -> None:
        """Also while an exchange is out: what comes back is about those that it was sent with."""
        self.credentials = credentials

    @precondition(lambda self: not self.flying)
    @rule(rules=RULES)
    def the_settings_are_reloaded(self, rules: Rules) -> None:
        """An exchange that is out ends by the rules that it began with; after a crash the new ones hold."""
        self.story.rules = rules
        self.alone.clear()
        self.before = None
        self.look(build.EVEN, lifecycle.Due(credentials=self.credentials))

    @precondition(lambda self: not self.flying)
    @rule(span=SPANS)
    def the_machine_is_started_again(self, span: timedelta) -> None:
        self.story.reboot(span)

    @precondition(lambda self: self.flying)
    @rule(lifetime=LIFETIMES, refresh=st.booleans(), took=SPANS, partly=st.booleans())
    def it_is_granted(self, lifetime: timedelta | None, refresh: bool, took: timedelta, partly: bool) -> None:
        self.tokens += 1
        make: Callable[..., Outcome] = build.partly if partly else build.granted
        self.end(make(self.tokens, lifetime=lifetime, refresh=None if refresh else build.NO_REFRESH), min(took, MINUTE))

    @precondition(lambda self: self.flying)
    @rule(cls=st.sampled_from(OutcomeClass), took=SPANS, **FOUND)
    def it_fails(self, cls: OutcomeClass, took: timedelta, **found: Any) -> None:
        self.end(build.failed(cls, **found), min(took, MINUTE))

    @precondition(lambda self: self.flying)
    @rule(span=SPANS, reboots=st.booleans())
    def we_crash(self, span: timedelta, reboots: bool) -> None:
        self.flying = False
        self.story.at += span
        if reboots:
            self.story.reboot()

    @precondition(lambda self: not self.flying)
    @rule(span=st.sampled_from([-400 * DAY, -HOUR, -3 * SECOND, 3 * SECOND, HOUR, 400 * DAY]))
    def the_clock_is_set(self, span: timedelta) -> None:
        over = self.story.now - self.story.rules.budget.window
        self.story.stepped += span
        self.alone.clear()
        self.before = None
        # Nobody knows any more when those were that seem to lie ahead: they count from now.
        self.logins = [min(at, self.story.now) for at in self.logins if at > over]
        self.lonely_logins.clear()
        if span < ZERO:
            self.take(lifecycle.ClockFellBack())

    @precondition(lambda self: not self.flying)
    @rule(ahead=st.integers(-1, 3), served=st.none() | SPANS)
    def a_target_is_found_ahead(self, ahead: int, served: timedelta | None) -> None:
        expires_at = None if served is None else self.story.now + served
        generation = self.story.grant.generation + ahead
        self.take(lifecycle.Behind(target="app", generation=generation, expires_at=expires_at))

    @precondition(lambda self: not self.flying)
    @rule()
    def a_token_is_adopted(self) -> None:
        self.tokens += 1
        self.alone.clear()
        self.before = None
        self.take(lifecycle.Adopted(refresh=build.secret(f"adopted-{self.tokens}")))

    # Longer pieces of a story that single steps rarely put together.

    @rule(cls=st.sampled_from([*OutcomeClass, *[OutcomeClass.DOUBTFUL] * 5]), times=st.integers(2, 5), **FOUND)
    def a_bad_spell(self, cls: OutcomeClass, times: int, **found: Any) -> None:
        for _ in range(times):
            if not self.flying and self.story.grant.due_at is not None:
                self.the_alarm_rings(0.0)
            if self.flying:
                self.end(build.failed(cls, **found), ZERO)

    @precondition(lambda self: not self.flying)
    @rule(times=st.integers(2, 5), span=SPANS)
    def the_password_is_changed_to_another_wrong_one(self, times: int, span: timedelta) -> None:
        for number in range(times):
            self.credentials = f"wrong {number}"
            self.story.at += span
            self.look(0.5, lifecycle.Due(credentials=self.credentials))
            if self.flying:
                self.end(build.REFUSED, ZERO)

    @precondition(lambda self: not self.flying)
    @rule(times=st.integers(2, 4))
    def two_stores_outbid_each_other(self, times: int) -> None:
        for _ in range(times):
            self.a_target_is_found_ahead(1, None)
            if self.story.grant.due_at is not None:
                self.the_alarm_rings(0.5)
            if self.flying:
                self.it_is_granted(HOUR, True, ZERO, False)

    @precondition(lambda self: not self.flying)
    @rule(times=st.integers(2, 5), rebooted=st.booleans())
    def it_crashes_over_and_over(self, times: int, rebooted: bool) -> None:
        for _ in range(times):
            if not self.flying and self.story.grant.due_at is not None:
                self.the_alarm_rings(0.0)
            if self.flying:
                self.we_crash(ZERO, rebooted)

    # --- how it is played ---------------------------------------------------------------------------------------

    def look(self, chance: float, fact: lifecycle.Due) -> None:
        self.story.chance = chance
        before = self.story.grant
        if before.intent is not None:
            died = before.intent
            self.before = Ended(self.story.at, died.kind, died.source, OutcomeClass.DOUBTFUL)
        step = self.take(fact)
        willed = fact.asked or fact.forced or fact.wanted is not None
        if isinstance(step.order, lifecycle.Exchange):
            self.flying = True
            self.spent = self.credentials
            self.judge_order(step, step.order, before, fact)
            if step.order.kind is Kind.PASSWORD:
                if before.latch is not None or fact.forced:
                    # A person acted: another event, with an extra try of its own.
                    self.lonely_logins.clear()
                self.judge_login(alone=not (fact.forced or fact.wanted is Kind.PASSWORD))
            else:
                self.judge_presenting(step.order, step.grant)
            if willed or before.latch is not None:
                self.alone.clear()
                if fact.asked and not (fact.forced or fact.wanted is Kind.PASSWORD) and self.before is not None:
                    access, least = before.access, self.story.rules.spacing
                    least = least if access is None or access.lifetime <= ZERO else min(least, access.lifetime / 2)
                    assert self.story.at - self.before.at >= least, "who asks keeps the spacing too"
            else:
                self.alone.append(self.story.at)
                self.judge_pace(step.order, before)
        elif willed and before.intent is None and before.latch is None and before.due_at is not None:
            assert step.grant.due_at in (before.due_at, None), "who asked in vain does not move the schedule"

    def end(self, outcome: Outcome, took: timedelta) -> None:
        sent_at, out = self.story.now, self.story.grant.intent
        assert out is not None, "an exchange is out, and its intent is not there"
        self.story.at += took
        self.flying = False
        self.before = Ended(self.story.at, out.kind, out.source, outcome.cls, outcome.barred)
        uncounted = outcome.cls is OutcomeClass.NOT_SENT or outcome.charge is Charge.NONE
        if out.kind is Kind.PASSWORD and uncounted:
            gone = self.logins.pop()
            self.lonely_logins = [at for at in self.lonely_logins if at != gone]
        lost = outcome.answer is None and outcome.cls in (OutcomeClass.DOUBTFUL, OutcomeClass.GRANTED)
        if out.kind is Kind.REFRESH and not lost:
            # An answer came: this presentation is none that nobody answered for, and a token that was granted with and
            # stays the same is proven good.
            since, times = self.unanswered.pop(self.presented)
            if times > 1 and outcome.answer is None and outcome.cls is not OutcomeClass.PARTIAL:
                self.unanswered[self.presented] = (since, times - 1)
        self.take(lifecycle.Concluded(outcome=outcome, sent_at=sent_at, credentials=self.spent))

    def take(self, fact: lifecycle.Fact) -> lifecycle.Step:
        before = self.story.grant
        step = self.story.happen(fact)
        assert step.grant.generation >= before.generation, "generation never falls"
        if step.grant.generation > before.generation and isinstance(fact, lifecycle.Concluded):
            assert step.grant.generation == before.generation + 1
        granted = isinstance(fact, lifecycle.Concluded) and fact.outcome.cls is OutcomeClass.GRANTED
        if before.access is not None and not (granted and step.grant.generation > before.generation):
            assert step.grant.access is not None, "the last good access token is never dropped"
            assert step.grant.access.value == before.access.value
            assert step.grant.access.generation == before.access.generation
            if not isinstance(fact, lifecycle.Behind):
                assert step.grant.access == before.access
        self.judge_secrets(step)
        self.judge_rest(step)
        return step

    # --- what must hold -----------------------------------------------------------------------------------------

    def judge_order(self, step: lifecycle.Step, order: lifecycle.Exchange, before: Grant, fact: lifecycle.Due) -> None:
        held, rules, now = step.grant, self.story.rules, self.story.now
        authorize = fact.wanted is Kind.PASSWORD
        assert held.intent is not None
        assert (held.intent.lineage, held.intent.generation) == (held.lineage, held.generation)
        assert (held.intent.kind, held.intent.attempt) == (order.kind, order.attempt)
        assert held.intent.moment == self.story.moment
        assert held.intent.interactive is authorize
        assert (order.refresh is None) is (order.kind is Kind.PASSWORD)
        if not authorize:
            assert held.latch is None
            assert held.due_at is not None, "a crash now leaves it due"
            assert held.due_at <= now
        if before.latch is not None and not authorize:
            assert fact.forced or fact.credentials not in (None, before.latch.digest)
        if order.kind is Kind.PASSWORD:
            assert held.debits[-1] == now
            if not (authorize or fact.forced):
                assert rules.password
                assert rules.budget.left(held.debits[:-1], now) >= 1
                near = [at for at in held.debits[:-1] if now - rules.budget.apart < at]
                assert not near or held.password_lost or before.latch is not None
        elif rules.reuse is Reuse.KILLS_FAMILY and held.doubt is not None:
            self.judge_resend(held, held.doubt.since, 1)

    def judge_resend(self, held: Grant, since: policy.Moment, times: int) -> None:
        rules, moment = self.story.rules, self.story.moment
        elapsed = moment.elapsed_since(since)
        in_grace = elapsed is not None and elapsed < rules.grace and times == 1
        nothing_to_revoke = not held.holds_valid(moment.now)
        known = [
            since.now,
            *([held.doubt.since.now] if held.doubt else []),
            *([held.access.issued_at] if held.access else []),
        ]
        clock_unknown = max(known) > moment.now
        assert in_grace or nothing_to_revoke or clock_unknown, "a resend revokes what readers hold"

    def judge_login(self, *, alone: bool) -> None:
        """By the walker's own book: never more than the limit in any window, whatever the record says."""
        now, budget = self.story.now, self.story.rules.budget
        counting = [at for at in self.logins if at > now - budget.window]
        assert not alone or len(counting) < budget.limit, "one login more than the budget"
        self.logins.append(now)
        if alone:
            near = [at for at in self.lonely_logins if at > now - budget.apart]
            assert len(near) <= 1, "one extra try after a lost answer, and no more"
            self.lonely_logins.append(now)

    def judge_presenting(self, order: lifecycle.Exchange, held: Grant) -> None:
        """By the walker's own book of tokens that were presented and never answered for, a crash among the reasons."""
        assert order.refresh is not None
        self.presented = order.refresh.reveal()
        since, times = self.unanswered.get(self.presented, (self.story.moment, 0))
        if times and self.story.rules.reuse is Reuse.KILLS_FAMILY:
            self.judge_resend(held, since, times)
        self.unanswered[self.presented] = (since, times + 1)

    def judge_pace(self, order: lifecycle.Exchange, held: Grant) -> None:
        """Exchanges that nobody asked for: time passes between any two, but for the way down a dead chain, and for the
        one quick resend that a grace or a token's last seconds allow."""
        at, before = self.alone[-1], self.before
        if len(self.alone) > 1 and before is not None:
            hurried = order.attempt == 2 or (order.kind is Kind.PASSWORD and held.password_lost)
            # In doubt, and the token that readers had has just run out: nothing is left that a resend could revoke.
            hurried |= order.kind is Kind.REFRESH and held.doubt is not None and not held.holds_valid(self.story.now)
            pause = at - before.at
            self.at_once = self.at_once + 1 if pause < LEAST_PAUSE else 0
            assert self.at_once == 0 or before.leads_on or hurried, f"only {pause} after {before.cls}"
            assert self.at_once <= 3, "the way down has an end"
        assert sum(at - one <= MINUTE for one in self.alone) <= 125, "half-second spacing is the least there is"
        assert sum(at == one for one in self.alone) <= 3

    def judge_rest(self, step: lifecycle.Step) -> None:
        held = step.grant
        if isinstance(step.order, lifecycle.Rest) and step.order.until is not None and held.latch is None:
            assert held.due_at is not None or held.intent is not None or held.trouble is not None
        if held.latch is not None:
            assert held.due_at is None, "what is latched is not due"
            assert held.latch.reason and held.latch.mend, "a person must act, and is told how"
        elif held.due_at is None and held.intent is None:
            assert held.refresh is None, "only a person can help, or somebody would be due"
            assert not self.story.rules.password
            assert held.trouble is not None and held.trouble.message, "a person must act, and is told why"
            assert held.trouble.mend, "and how"

    def judge_secrets(self, step: lifecycle.Step) -> None:
        shown = [repr(step), str(step), repr(step.order), f"{step.grant}"]
        shown += [f"{event!r} {event.sentence}" for event in step.events]
        assert not any(build.CANARY in text for text in shown)

    @invariant()
    def a_record_holds_all_of_it(self) -> None:
        if hasattr(self, "story"):
            held = self.story.grant
            assert records.read(json.loads(json.dumps(records.write(held)))) == held

    @invariant()
    def an_exchange_that_is_out_has_its_intent(self) -> None:
        if hasattr(self, "story"):
            assert not self.flying or self.story.grant.intent is not None

    def teardown(self) -> None:
        """However it got here: once the provider grants everything there is a valid token, in bounded time and steps;
        where only a person can help, what the mend says is enough."""
        if not hasattr(self, "story"):
            return
        story = self.story
        story.chance = build.EVEN
        if not self.becomes_fresh():
            self.a_person_acts()
            assert self.becomes_fresh(), "a person did what was asked, and it is not fresh"
        assert story.grant.holds_valid(story.now)
        held = story.grant
        assert (held.latch, held.doubt, held.trouble, held.intent) == (None, None, None, None)

    def becomes_fresh(self) -> bool:
        """Let it go on alone with a provider that grants. False where it waits for a person instead."""
        story = self.story
        latest = story.now + max(DAY, story.rules.longest_lifetime) + 16 * MINUTE
        for _ in range(STEPS_BACK):
            step = story.look(credentials=self.credentials)
            if isinstance(step.order, lifecycle.Exchange):
                self.tokens += 1
                story.end(build.granted(self.tokens), credentials=self.credentials)
                return True
            if story.grant.due_at is None:
                return False
            if story.rules.budget.limit == 0 and story.grant.due_at > latest:
                return False
            assert story.grant.due_at <= latest, "waits for longer than any budget or token lasts"
            story.wait()
        raise AssertionError("looks and looks, and neither begins nor waits for anybody")

    def a_person_acts(self) -> None:
        story = self.story
        if story.grant.latch is not None:
            self.credentials = "mended credentials"
        elif not story.rules.password or story.rules.budget.limit == 0:
            self.a_token_is_adopted()
        if story.grant.refresh is None and not self.may_log_in():
            # Mended, and found that the chain is gone as well.
            self.a_token_is_adopted()

    def may_log_in(self) -> bool:
        return self.story.rules.password and self.story.rules.budget.limit > 0


Walk.TestCase.settings = settings(
    max_examples=int(os.environ.get("WALKS", "100")), stateful_step_count=50, deadline=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
TestWalk: Any = pytest.mark.crowd(Walk.TestCase)


@pytest.mark.crowd
def test_the_walk_knows_a_year() -> None:
    """A year of one grant whose provider forgives, fails one request in five, and never sees a login."""
    story = Story(build.fresh(), build.FORGIVING)
    gaps, end, count = ZERO, story.now + 365 * DAY, 0
    valid_until: datetime = story.now + HOUR
    while story.now < end:
        story.wait()
        if not isinstance(story.look().order, lifecycle.Exchange):
            continue
        count += 1
        story.end(build.DOUBTFUL if count % 5 == 0 else build.granted(count), SECOND)
        gaps += max(ZERO, story.now - valid_until)
        assert story.grant.access is not None
        valid_until = story.grant.access.expires_at
    assert gaps == ZERO, "no reader ever found an expired token"
    assert story.grant.debits == ()

"""Doubt: the request left, and nobody knows whether the refresh token was spent.

Decided per provider: resend the same refresh token once, quickly; outside the grace of a provider that revokes the
family, keep serving the current access token and recover with a budgeted password exchange before it expires.
"""

from __future__ import annotations

import itertools
from datetime import timedelta

import build
import pytest
from build import HOUR, MINUTE, NOON, SECOND, ZERO, Story, ordered, rests

from rotator.core.grants import Kind, OutcomeClass
from rotator.core.policy import Reuse, Rules

QUARTER_TO = 45 * MINUTE
ONE = NOON + HOUR


def lost(rules: Rules, after: timedelta = SECOND) -> Story:
    """Rotated when due, and the answer was lost ``after`` so long."""
    story = Story(build.fresh(), rules, QUARTER_TO)
    ordered(story.look())
    story.end(build.DOUBTFUL, after)
    assert story.grant.doubt is not None
    return story


# --- a provider that forgives -----------------------------------------------------------------------------------


def test_harmless_resends_the_same_refresh_token_within_seconds() -> None:
    story = lost(build.FORGIVING)
    assert story.wait() <= 3 * SECOND
    order = ordered(story.look())
    assert (order.kind, order.attempt, order.refresh) == (Kind.REFRESH, 2, build.secret("refresh-1"))


def test_harmless_keeps_resending_ever_more_slowly_and_never_logs_in() -> None:
    story = lost(build.FORGIVING)
    pauses = []
    for _ in range(12):
        pauses.append(story.wait())
        assert ordered(story.look()).kind is Kind.REFRESH
        story.end(build.DOUBTFUL)
    assert pauses == sorted(pauses)
    assert pauses[-1] <= story.rules.backoff_cap
    assert story.grant.debits == ()


def test_doubt_is_told_once_and_ends_with_an_answer() -> None:
    story = lost(build.FORGIVING)
    story.exchange(build.DOUBTFUL)
    assert build.names(story.told).count("exchange.doubtful") == 1
    story.exchange(build.granted())
    assert story.grant.doubt is None
    assert story.grant.trouble is None
    assert story.grant.generation == 2


def test_a_resend_that_finds_the_token_dead_tries_the_one_before_and_then_the_password() -> None:
    story = Story(build.fresh(previous_refresh=build.secret("refresh-0")), build.FORGIVING, QUARTER_TO)
    story.exchange(build.DOUBTFUL)
    assert story.exchange(build.DEAD).refresh == build.secret("refresh-1")
    assert story.exchange(build.DEAD).refresh == build.secret("refresh-0")
    assert story.exchange(build.granted()).kind is Kind.PASSWORD
    assert story.grant.generation == 2


def test_the_token_before_is_not_tried_where_that_revokes_the_family() -> None:
    story = Story(build.fresh(previous_refresh=build.secret("refresh-0")), build.STRICT, QUARTER_TO)
    story.exchange(build.DEAD)
    assert story.exchange(build.granted()).kind is Kind.PASSWORD


# --- a provider that revokes the family -------------------------------------------------------------------------


def test_within_the_grace_it_is_resent_once() -> None:
    story = lost(build.STRICT_GRACE)
    assert story.wait() <= 3 * SECOND
    assert ordered(story.look()).refresh == build.secret("refresh-1")
    story.end(build.DOUBTFUL, SECOND)
    # The one forgiven resend is made; the grace is not over, but a second one is not.
    assert story.wait() > 5 * MINUTE
    assert ordered(story.look()).kind is Kind.PASSWORD


def test_a_resend_does_not_wait_until_the_grace_is_over() -> None:
    story = lost(build.STRICT_GRACE, after=29 * SECOND)
    assert story.wait() < SECOND
    assert ordered(story.look()).kind is Kind.REFRESH


def test_a_resend_that_never_left_may_be_tried_again_within_the_grace_only() -> None:
    story = lost(build.STRICT_GRACE)
    story.exchange(build.NOT_SENT)
    assert story.exchange(build.NOT_SENT).kind is Kind.REFRESH
    assert story.exchange(build.NOT_SENT).attempt == 2
    story.at += 30 * SECOND
    assert rests(story.look()).until == NOON + QUARTER_TO + (15 * MINUTE) / 2


@pytest.mark.parametrize("after", [30 * SECOND, 31 * SECOND])
def test_an_answer_lost_when_the_grace_is_over_is_not_resent(after: timedelta) -> None:
    story = lost(build.STRICT_GRACE, after)
    story.wait()
    assert ordered(story.look()).kind is Kind.PASSWORD


def test_outside_the_grace_the_token_serves_on_and_the_password_recovers_before_expiry() -> None:
    story = lost(build.STRICT)
    assert story.grant.holds_valid(story.now)
    assert story.wait() > 5 * MINUTE, "not at once: the access token is good"
    assert ordered(story.look()).kind is Kind.PASSWORD
    assert story.now < ONE, "but while readers still have one"
    story.end(build.granted())
    assert story.grant.doubt is None


def test_a_login_that_did_not_leave_is_tried_again_before_expiry() -> None:
    story = lost(build.STRICT)
    for _ in range(5):
        assert story.exchange(build.NOT_SENT).kind is Kind.PASSWORD
    assert story.now < ONE
    assert build.left(story.grant, story.moment, story.rules) == 3


def test_without_a_password_in_time_it_is_resent_only_when_there_is_nothing_left_to_revoke() -> None:
    story = lost(build.STRICT_ALONE)
    story.wait()
    assert story.now == ONE
    assert ordered(story.look()).refresh == build.secret("refresh-1")


def test_with_the_budget_spent_it_is_resent_at_expiry_and_then_whichever_may() -> None:
    debits = (NOON - 60 * MINUTE, NOON - 40 * MINUTE, NOON - 20 * MINUTE)
    story = Story(build.fresh(debits=debits), build.STRICT, QUARTER_TO)
    story.exchange(build.DOUBTFUL)
    assert story.exchange(build.DOUBTFUL).kind is Kind.REFRESH
    assert story.now == ONE
    kinds = [story.exchange(build.DOUBTFUL).kind for _ in range(400)]
    assert kinds[0] is Kind.REFRESH
    assert Kind.PASSWORD in kinds, "the password is used as soon as its budget allows"
    assert build.left(story.grant, story.moment, story.rules) == 0


def test_once_expired_a_resend_comes_before_a_login() -> None:
    story = Story(build.fresh(intent=build.intent()), build.STRICT, 3 * HOUR)
    story.look()
    assert story.exchange(build.DEAD).kind is Kind.REFRESH
    assert story.exchange(build.granted()).kind is Kind.PASSWORD


def test_a_lost_login_in_doubt_does_not_bar_the_resend_at_expiry() -> None:
    story = lost(build.STRICT)
    while story.now < ONE:
        kind = story.exchange(build.DOUBTFUL).kind
        story.wait()
        assert kind is Kind.PASSWORD
    assert story.now - ONE <= SECOND
    assert ordered(story.look()).kind is Kind.REFRESH


def test_a_login_granted_in_part_without_a_refresh_token_leaves_the_doubt() -> None:
    story = lost(build.STRICT)
    story.exchange(build.partly(refresh=build.NO_REFRESH))
    assert story.grant.refresh == build.secret("refresh-1")
    assert story.grant.doubt is not None


# --- a crash ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [build.FORGIVING, build.STRICT, build.STRICT_ALONE, build.STRICT_GRACE])
def test_an_open_intent_found_at_start_is_the_same_doubt_as_a_lost_answer(rules: Rules) -> None:
    answered, crashed = (Story(build.fresh(), rules, QUARTER_TO) for _ in range(2))
    for story in (answered, crashed):
        ordered(story.look())
    answered.end(build.failed(OutcomeClass.DOUBTFUL, message="the daemon ended before the answer was saved"), SECOND)
    rests(crashed.look(SECOND))
    assert crashed.grant == answered.grant
    assert build.names(crashed.told) == build.names(answered.told)


def test_an_open_intent_is_due_at_once_also_where_somebody_asked_early() -> None:
    story = Story(build.fresh(), build.STRICT_GRACE, 10 * MINUTE)
    ordered(story.look(asked=True))
    assert story.grant.due_at is not None
    assert story.grant.due_at <= story.now, "a restart must find it while the grace holds"
    story.look(2 * SECOND)
    story.wait()
    assert ordered(story.look()).kind is Kind.REFRESH


@pytest.mark.parametrize("restarted", ["another boot", "clock set forward", "clock set back"])
def test_another_boot_or_a_clock_jump_means_outside_the_grace(restarted: str) -> None:
    story = Story(build.fresh(), build.STRICT_GRACE, QUARTER_TO)
    ordered(story.look())
    story.at += 2 * SECOND
    match restarted:
        case "another boot":
            story.reboot()
        case "clock set forward":
            story.stepped = 10 * SECOND
        case _:
            story.stepped = -10 * SECOND
    story.look()
    story.at += 3 * SECOND
    step = story.look()
    if restarted == "clock set back":
        # The doubt lies ahead of the clock: how long the token serves cannot be told, so the safe things go first.
        assert story.grant.doubt is not None
        return
    assert rests(step).until is not None
    assert story.grant.due_at is not None
    assert story.grant.due_at - NOON == QUARTER_TO + (15 * MINUTE) / 2


def test_a_crash_loop_resends_ever_more_slowly() -> None:
    story = Story(build.fresh(), build.FORGIVING, QUARTER_TO)
    starts = []
    while len(starts) < 10:
        if not isinstance(story.look().order, build.lifecycle.Rest):
            starts.append(story.at)
        else:
            story.wait()
    gaps = [later - sooner for sooner, later in itertools.pairwise(starts)]
    assert gaps == sorted(gaps)
    assert gaps[0] >= SECOND


def test_a_doubt_that_lies_ahead_of_a_clock_set_back_for_years_is_not_waited_for() -> None:
    years = 9 * 365 * 24 * HOUR
    story = Story(build.fresh(), build.STRICT, QUARTER_TO)
    story.exchange(build.DOUBTFUL)
    story.reboot()
    story.stepped = -years
    story.happen(build.lifecycle.ClockFellBack())
    assert story.wait() == ZERO
    assert ordered(story.look()).kind is Kind.PASSWORD, "what readers hold may be good: nothing that could revoke it"
    story.end(build.DOUBTFUL)
    story.wait()
    story.exchange(build.DOUBTFUL)
    assert story.exchange(build.granted()).kind is Kind.REFRESH, "but with no login left it is not waited for"


def test_a_crash_under_a_clock_set_back_is_not_waited_for_either() -> None:
    story = Story(build.fresh(), build.STRICT_ALONE, QUARTER_TO)
    story.stepped = -9 * 365 * 24 * HOUR
    story.happen(build.lifecycle.ClockFellBack())
    ordered(story.look())
    story.reboot(SECOND)
    story.look()
    assert story.wait() < MINUTE


def test_the_resend_pause_is_the_rules() -> None:
    story = lost(Rules(reuse=Reuse.HARMLESS, resend_after=8 * SECOND))
    assert 4 * SECOND <= story.wait() < 8 * SECOND

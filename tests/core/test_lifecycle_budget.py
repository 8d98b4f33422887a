"""The password budget: 1 per event, 3 per 24 h, 15 min apart, and the latch at the first refusal."""

from __future__ import annotations

import itertools

import build
import pytest
from build import DAY, HOUR, MINUTE, NOON, SECOND, ZERO, Story, names, ordered, rests

from rotator.core import lifecycle
from rotator.core.grants import Charge, Grant, Kind, Outcome, OutcomeClass

DEAD_CHAIN = build.fresh(refresh=None, due_at=NOON)


def logins(story: Story, outcome: Outcome, span: build.timedelta) -> list[build.timedelta]:
    """When it logged in, of itself, in ``span`` from noon, every login ending with ``outcome``."""
    sent: list[build.timedelta] = []
    while story.grant.due_at is not None and story.grant.due_at < NOON + span:
        story.wait()
        if isinstance(story.look().order, lifecycle.Exchange):
            sent.append(story.at)
            story.end(outcome)
    return sent


def test_a_lost_login_is_tried_once_more_after_five_seconds_and_both_count() -> None:
    story = Story(DEAD_CHAIN, build.FORGIVING)
    sent = logins(story, build.DOUBTFUL, DAY)
    assert sent == [ZERO, 5 * SECOND, 5 * SECOND + 15 * MINUTE]
    assert build.left(story.grant, story.moment, story.rules) == 0


UNREAD = build.failed(OutcomeClass.MISCONFIGURED, charge=Charge.NONE)


def test_a_login_that_nobody_looked_at_is_neither_counted_nor_latched_and_tried_slowly() -> None:
    story = Story(DEAD_CHAIN, build.FORGIVING)
    sent = logins(story, UNREAD, 5 * HOUR)
    assert story.grant.latch is None
    assert story.grant.debits == ()
    gaps = [later - sooner for sooner, later in itertools.pairwise(sent) if later > HOUR]
    assert min(gaps) >= MINUTE
    assert gaps[-1] == HOUR
    assert story.exchange(build.granted()).kind is Kind.PASSWORD


def test_the_extra_try_outlives_a_login_that_nobody_looked_at() -> None:
    story = Story(DEAD_CHAIN, build.FORGIVING)
    story.exchange(build.DOUBTFUL)
    story.exchange(UNREAD)
    assert story.grant.password_lost
    assert len(story.grant.debits) == 1


TOO_MANY = build.failed(OutcomeClass.BUSY, charge=Charge.HALF)


@pytest.mark.parametrize(("limit", "sent"), [(0, 0), (1, 1), (2, 1), (3, 2), (4, 2), (5, 2), (9, 3), (16, 4)])
def test_too_many_requests_at_a_login_gives_up_half_of_what_is_left(limit: int, sent: int) -> None:
    rules = build.replace(build.FORGIVING, budget=build.policy.Budget(limit=limit))
    assert len(logins(Story(DEAD_CHAIN, rules), TOO_MANY, DAY)) == sent


def test_what_was_given_up_comes_back_with_the_login_that_it_was_given_up_for() -> None:
    story = Story(DEAD_CHAIN, build.FORGIVING)
    story.exchange(TOO_MANY)
    assert build.left(story.grant, story.moment, story.rules) == 1
    assert story.rules.budget.left(story.grant.debits, NOON + DAY) == 3


def test_too_many_requests_at_a_refresh_costs_no_budget() -> None:
    story = Story(build.fresh(), build.FORGIVING)
    story.exchange(TOO_MANY)
    assert story.grant.debits == ()


def test_a_page_of_an_hour_at_a_login_leaves_one_of_three() -> None:
    """A portal or a maintenance page counts, for it may be the answer to a password, but is asked again sparingly."""
    page = build.failed(OutcomeClass.BUSY, pace=(30 * MINUTE, 8 * HOUR))
    story = Story(DEAD_CHAIN, build.FORGIVING)
    assert logins(story, page, HOUR) == [ZERO, 30 * MINUTE]
    assert build.left(story.grant, story.moment, story.rules) == 1
    assert story.exchange(build.granted()).kind is Kind.PASSWORD


@pytest.mark.parametrize("outcome", [build.BUSY, build.failed(OutcomeClass.BUSY, retry_after=SECOND)])
def test_a_busy_login_counts(outcome: Outcome) -> None:
    assert logins(Story(DEAD_CHAIN, build.FORGIVING), outcome, DAY) == [ZERO, 15 * MINUTE, 30 * MINUTE]


def test_the_budget_comes_back_one_by_one() -> None:
    sent = logins(Story(DEAD_CHAIN, build.FORGIVING), build.BUSY, 5 * DAY)
    assert sent[3] == DAY
    assert len(sent) > 12
    assert all(later - sooner >= DAY for sooner, later in zip(sent, sent[3:], strict=False)), "3 in any 24 hours"
    assert all(later - sooner >= 15 * MINUTE for sooner, later in itertools.pairwise(sent))


def test_the_one_extra_try_ends_also_with_busy() -> None:
    story = Story(DEAD_CHAIN, build.FORGIVING)
    story.exchange(build.DOUBTFUL)
    story.exchange(build.failed(OutcomeClass.BUSY, retry_after=SECOND))
    assert story.grant.password_lost is False
    rest = rests(story.look(HOUR / 12, asked=True))
    assert rest.until is not None
    assert rest.until - story.now >= 9 * MINUTE


def test_a_login_that_never_left_is_not_counted() -> None:
    story = Story(DEAD_CHAIN, build.FORGIVING)
    for _ in range(20):
        assert story.exchange(build.NOT_SENT).kind is Kind.PASSWORD
    assert build.left(story.grant, story.moment, story.rules) == 3


def test_a_refund_takes_back_its_own_debit_only() -> None:
    story = Story(build.fresh(refresh=None, due_at=NOON, debits=(NOON - HOUR,)), build.FORGIVING)
    story.exchange(build.NOT_SENT)
    assert story.grant.debits == (NOON - HOUR,)


def test_the_extra_try_outlives_a_network_that_is_away() -> None:
    story = Story(DEAD_CHAIN, build.FORGIVING)
    story.exchange(build.DOUBTFUL)
    story.exchange(build.NOT_SENT)
    assert story.grant.password_lost
    assert story.wait() < MINUTE


def test_the_debit_is_in_the_record_of_the_intent() -> None:
    step = Story(DEAD_CHAIN, build.FORGIVING).look()
    assert step.grant.intent is not None
    assert step.grant.debits == (step.grant.intent.moment.now,)


def test_a_crash_during_a_login_gives_no_debit_back() -> None:
    story = Story(DEAD_CHAIN, build.FORGIVING)
    sent = []
    while story.at < DAY:
        step = story.look()
        if isinstance(step.order, lifecycle.Exchange):
            sent.append(story.at)
            story.reboot(SECOND)
        else:
            story.wait()
    assert len(sent) == 3, "a restart loop does not reset the budget"


def test_a_spent_budget_is_told_once_with_the_time_of_the_next() -> None:
    debits = (NOON - 3 * HOUR, NOON - 2 * HOUR, NOON - HOUR)
    story = Story(build.empty(debits=debits), build.FORGIVING)
    story.look()
    rest = rests(story.look(MINUTE))
    assert rest.until == NOON + 21 * HOUR
    assert names(story.told) == ["grant.budget_spent"]
    assert "budget" in rest.why
    assert story.grant.trouble is not None, "status says why there is no token"


def test_a_chain_lost_with_the_budget_spent_tells_both() -> None:
    debits = (NOON - 3 * HOUR, NOON - 2 * HOUR, NOON - HOUR)
    story = Story(build.fresh(debits=debits, due_at=NOON), build.FORGIVING)
    story.exchange(build.DEAD)
    assert names(story.told)[-2:] == ["grant.chain_lost", "grant.budget_spent"]
    assert story.grant.due_at == NOON + 21 * HOUR


def test_force_goes_through_an_empty_budget_and_still_counts() -> None:
    debits = (NOON - 3 * HOUR, NOON - 2 * HOUR, NOON - HOUR)
    story = Story(build.empty(debits=debits), build.FORGIVING)
    assert ordered(story.look(forced=True)).kind is Kind.PASSWORD
    assert len(story.grant.debits) == 4


def test_a_password_added_later_is_used_though_a_person_was_waited_for() -> None:
    story = Story(build.fresh(refresh=None, due_at=NOON, debits=(NOON - MINUTE,)), build.FORGIVING_ALONE)
    story.look()
    assert story.grant.due_at is None
    story.rules = build.FORGIVING
    rests(story.look(SECOND, asked=True))
    assert story.grant.due_at is not None, "the schedule that had stopped starts again"


def test_another_identity_starts_anew_but_keeps_the_budget() -> None:
    held = build.fresh(debits=(NOON,), password_lost=True, latch=build.latch(), intent=build.intent())
    step = lifecycle.reidentify(held, "lineage-2", "identity-2", NOON + HOUR)
    expected = build.empty(
        lineage="lineage-2", identity="identity-2", debits=(NOON,), password_lost=True, due_at=NOON + HOUR
    )
    assert step.grant == expected
    assert names(step.events) == ["grant.identity_changed"]


def test_a_tombstones_debits_are_charged_to_a_new_grant() -> None:
    assert lifecycle.enrol("billing", "lineage-1", "identity-1", NOON, (NOON,)).debits == (NOON,)


# --- the latch --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grant", "outcome"),
    [
        (build.fresh(due_at=NOON), build.REFUSED),
        (DEAD_CHAIN, build.REFUSED),
        (DEAD_CHAIN, build.MISCONFIGURED),
        (DEAD_CHAIN, build.DEAD),
    ],
)
def test_the_first_refusal_latches_and_nothing_leaves_any_more(grant: Grant, outcome: Outcome) -> None:
    story = Story(grant, build.FORGIVING)
    story.exchange(outcome)
    assert names(story.told)[-1] == "grant.latched"
    for wish in ({}, {"asked": True}, {"credentials": None}, {"asked": True, "wanted": Kind.REFRESH}):
        assert rests(story.look(DAY, **wish)).until is None
    assert story.grant.refresh == grant.refresh, "a refused client says nothing about the refresh token"
    assert story.grant.access == grant.access


def test_a_refused_refresh_never_falls_back_to_the_password() -> None:
    story = Story(build.fresh(due_at=NOON), build.FORGIVING)
    story.exchange(build.REFUSED)
    assert story.grant.debits == ()


def test_the_latch_is_released_by_other_credentials_and_holds_again_with_the_next_refusal() -> None:
    story = Story(build.fresh(due_at=NOON), build.FORGIVING)
    story.exchange(build.REFUSED)
    assert ordered(story.look(HOUR, credentials="new credentials")).kind is Kind.REFRESH
    assert "grant.unlatched" in names(story.told)
    story.end(build.REFUSED, credentials="new credentials")
    rests(story.look(HOUR, credentials="new credentials"))
    assert ordered(story.look(HOUR, credentials="old credentials"))


def test_new_credentials_do_not_go_round_the_budget() -> None:
    """What holds is the limit of the window. The distance between two logins is there for a daemon that repeats itself;
    a person who has just mended the password is another event, and need not watch the readers wait for it."""
    story = Story(DEAD_CHAIN, build.FORGIVING)
    story.exchange(build.REFUSED)
    for number in (1, 2):
        assert ordered(story.look(SECOND, credentials=f"try {number}")).kind is Kind.PASSWORD
        story.end(build.REFUSED, credentials=f"try {number}")
    rest = rests(story.look(SECOND, credentials="right at last"))
    assert rest.until == NOON + DAY
    story.wait()
    assert ordered(story.look(credentials="right at last")).kind is Kind.PASSWORD


def test_a_secret_file_that_flaps_between_two_wrong_ones_stays_within_the_limit() -> None:
    story, sent = Story(DEAD_CHAIN, build.FORGIVING), []
    for beat in range(3 * 24 * 60):
        credentials = ("one", "other")[beat % 2]
        if isinstance(story.look(MINUTE, credentials=credentials).order, lifecycle.Exchange):
            sent.append(story.at)
            story.end(build.REFUSED, credentials=credentials)
    assert all(later - sooner >= DAY for sooner, later in zip(sent, sent[3:], strict=False)), "3 in any 24 hours"
    assert 3 <= len(sent) <= 9


def test_a_crash_loop_with_changing_credentials_stays_within_the_limit() -> None:
    story, sent = Story(DEAD_CHAIN, build.FORGIVING), 0
    for beat in range(1000):
        if isinstance(story.look(SECOND, credentials=f"try {beat}").order, lifecycle.Exchange):
            sent += 1
            if beat % 2:
                story.reboot()
            else:
                story.end(build.REFUSED, credentials=f"try {beat}")
    assert sent == 3


def test_only_the_change_itself_goes_at_once() -> None:
    story = Story(DEAD_CHAIN, build.FORGIVING)
    story.exchange(build.REFUSED)
    ordered(story.look(SECOND, credentials="new"))
    story.end(build.BUSY, credentials="new")
    assert rests(story.look(MINUTE, credentials="new", asked=True)).until == NOON + SECOND + 15 * MINUTE


def test_force_releases_the_latch() -> None:
    story = Story(build.fresh(due_at=None, latch=build.latch()), build.FORGIVING)
    ordered(story.look(forced=True))
    assert story.grant.latch is None


def test_a_latch_says_how_to_mend_it() -> None:
    story = Story(DEAD_CHAIN, build.FORGIVING)
    story.exchange(build.REFUSED)
    assert story.grant.latch is not None
    assert "grants.billing" in story.grant.latch.mend
    assert "rotate --force billing" in story.grant.latch.mend
    story = Story(DEAD_CHAIN, build.FORGIVING)
    story.exchange(build.failed(OutcomeClass.REFUSED, mend="have the account unlocked"))
    assert story.grant.latch is not None
    assert story.grant.latch.mend.startswith("have the account unlocked; then "), (
        "what is mended elsewhere changes nothing"
    )
    assert "rotate --force billing" in story.grant.latch.mend


# --- a person's own authorize -----------------------------------------------------------------------------------

STANDING = [
    build.fresh(),
    build.fresh(previous_refresh=build.secret("refresh-0"), trouble=build.trouble()),
    build.fresh(doubt=build.doubt(), trouble=build.trouble(OutcomeClass.DOUBTFUL)),
    build.fresh(due_at=None, latch=build.latch(), trouble=build.trouble(OutcomeClass.REFUSED)),
    build.fresh(refresh=None, due_at=None, trouble=build.trouble(OutcomeClass.REFRESH_DEAD)),
    build.empty(password_lost=True),
]
BAD = [*build.FAILURES, build.partly(), build.failed(OutcomeClass.GRANTED)]


@pytest.mark.parametrize("grant", STANDING)
@pytest.mark.parametrize("outcome", BAD, ids=lambda outcome: outcome.cls.value)
@pytest.mark.parametrize("rules", [build.FORGIVING, build.STRICT_ALONE])
def test_an_authorize_that_fails_changes_nothing_but_what_it_counts(
    grant: Grant, outcome: Outcome, rules: build.Rules
) -> None:
    story = Story(grant, rules, MINUTE)
    assert ordered(story.look(credentials="typed", asked=True, wanted=Kind.PASSWORD)).kind is Kind.PASSWORD
    story.end(outcome, SECOND, credentials="typed")
    counted = grant.debits if outcome.cls is OutcomeClass.NOT_SENT else (*grant.debits, NOON + MINUTE)
    assert story.grant == build.replace(grant, debits=counted, exchanged_at=story.now)


@pytest.mark.parametrize("grant", STANDING)
def test_an_authorize_that_is_granted_mends_everything(grant: Grant) -> None:
    story = Story(grant, build.STRICT_ALONE, MINUTE)
    story.exchange(build.granted("typed"), credentials="typed", asked=True, wanted=Kind.PASSWORD)
    held = story.grant
    assert (held.latch, held.doubt, held.trouble, held.password_lost) == (None, None, None, False)
    assert (held.generation, held.refresh) == (grant.generation + 1, build.secret("refresh-typed"))
    assert held.due_at is not None
    assert ("grant.unlatched" in names(story.told)) == (grant.latch is not None)


def test_a_person_may_try_again_at_once_after_a_typing_error() -> None:
    story = Story(build.empty(), build.FORGIVING_ALONE)
    for _ in range(5):
        ordered(story.look(SECOND, asked=True, wanted=Kind.PASSWORD))
        story.end(build.REFUSED)
    assert story.grant.latch is None


def test_a_named_refresh_is_no_persons_try_and_its_failure_is_kept() -> None:
    story = Story(build.fresh(), build.STRICT, MINUTE)
    story.exchange(build.DOUBTFUL, asked=True, wanted=Kind.REFRESH)
    assert story.grant.doubt is not None


def test_a_spent_budget_does_not_hide_the_trouble_that_led_to_it() -> None:
    debits = (NOON - 3 * HOUR, NOON - 2 * HOUR, NOON - HOUR)
    held = build.fresh(refresh=None, due_at=NOON, debits=debits, trouble=build.trouble(OutcomeClass.BUSY))
    story = Story(held, build.FORGIVING)
    story.look()
    assert story.grant.trouble == held.trouble
    assert names(story.told) == ["grant.budget_spent"]


def test_a_debit_that_the_clock_moved_is_not_given_back() -> None:
    story = Story(DEAD_CHAIN, build.FORGIVING)
    ordered(story.look())
    story.stepped = -HOUR
    story.happen(lifecycle.ClockFellBack())
    story.end(build.NOT_SENT)
    assert story.grant.debits == (NOON - HOUR,)


def test_the_one_extra_try_ends_also_with_an_answer_that_brought_nothing() -> None:
    story = Story(DEAD_CHAIN, build.FORGIVING)
    story.exchange(build.DOUBTFUL)
    story.exchange(build.partly(refresh=build.NO_REFRESH))
    assert story.grant.password_lost is False
    assert story.wait() == 15 * MINUTE

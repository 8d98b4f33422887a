"""What answers do to a grant: granted, granted in part, later, never; and how far apart exchanges are kept."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta

import build
import pytest
from build import DAY, HOUR, MINUTE, NOON, SECOND, ZERO, Story, names, ordered, rests

from rotator.core import lifecycle
from rotator.core.grants import Kind, Outcome, OutcomeClass
from rotator.core.policy import Rules

QUARTER_TO = 45 * MINUTE


def due() -> Story:
    return Story(build.fresh(), build.FORGIVING, QUARTER_TO)


# --- granted ----------------------------------------------------------------------------------------------------


def test_a_granted_exchange_is_the_next_generation_and_expires_from_before_it_was_sent() -> None:
    story = due()
    ordered(story.look())
    story.end(build.granted(2, scope="read"), after=7 * SECOND)
    held = story.grant.access
    assert held is not None
    assert (held.generation, held.value, held.scope) == (2, build.secret("access-2"), "read")
    assert (held.issued_at, held.expires_at) == (NOON + QUARTER_TO, NOON + QUARTER_TO + HOUR)
    assert (story.grant.refresh, story.grant.previous_refresh) == (build.secret("refresh-2"), build.secret("refresh-1"))
    assert story.grant.due_at == NOON + QUARTER_TO + QUARTER_TO


@pytest.mark.parametrize("refresh", [build.NO_REFRESH, build.secret("refresh-1")])
def test_no_new_refresh_token_or_the_same_one_means_keep_the_old(refresh: build.Secret) -> None:
    story = due()
    story.exchange(build.granted(refresh=refresh))
    assert (story.grant.refresh, story.grant.previous_refresh) == (build.secret("refresh-1"), None)


def test_a_login_without_a_refresh_token_says_so_and_logs_in_next_time() -> None:
    story = Story(build.empty(), build.FORGIVING)
    story.exchange(build.granted(refresh=build.NO_REFRESH))
    assert any("no refresh token" in event.sentence for event in story.told)
    assert story.exchange(build.granted()).kind is Kind.PASSWORD


def test_a_login_drops_the_tokens_of_an_older_chain() -> None:
    held = build.fresh(refresh=None, previous_refresh=build.secret("refresh-0"), due_at=NOON)
    story = Story(held, build.STRICT)
    story.exchange(build.granted(refresh=build.NO_REFRESH))
    assert (story.grant.refresh, story.grant.previous_refresh) == (None, None)


def test_that_there_is_no_refresh_token_is_told_once() -> None:
    story = Story(build.empty(), build.replace(build.FORGIVING, budget=build.policy.Budget(limit=9)))
    for number in range(5):
        story.exchange(build.granted(number, refresh=build.NO_REFRESH))
    assert names(story.told).count("answer.odd") == 1
    story.exchange(build.granted("with one"))
    story.exchange(build.DEAD)
    story.exchange(build.granted("without again", refresh=build.NO_REFRESH))
    assert names(story.told).count("answer.odd") == 2, "it had gone away, so it is news"


def test_a_remark_is_told_when_it_comes_and_not_while_it_stays() -> None:
    story = due()
    for seconds in (61, 62, 4000):
        skew = f"the provider's clock is {seconds} s ahead of ours"
        story.exchange(build.granted(seconds, remarks=(skew, "`token_type` is missing")))
    assert names(story.told).count("answer.odd") == 2
    story.exchange(build.granted("well"))
    story.exchange(build.granted("odd", remarks=("`token_type` is missing",)))
    assert names(story.told).count("answer.odd") == 3


def test_remarks_of_the_answer_are_told() -> None:
    story = due()
    story.exchange(build.granted(remarks=("expires_in was missing",)))
    assert names(story.told)[-1] == "answer.odd"
    assert "expires_in was missing" in story.told[-1].sentence


@pytest.mark.parametrize(("lifetime", "warned"), [(119 * SECOND, True), (120 * SECOND, False)])
def test_a_lifetime_under_two_minutes_is_told_never_refused(lifetime: timedelta, warned: bool) -> None:
    story = due()
    story.exchange(build.granted(lifetime=lifetime))
    assert ("answer.odd" in names(story.told)) is warned
    assert story.grant.holds_valid(story.now)


def test_granted_without_a_token_set_is_a_doubt_never_a_loss() -> None:
    story = due()
    story.exchange(build.failed(OutcomeClass.GRANTED))
    assert story.grant.doubt is not None
    assert story.grant.access == build.access()


def test_an_answer_that_nobody_announced_is_a_defect() -> None:
    with pytest.raises(ValueError, match="no intent"):
        due().end(build.granted())


# --- granted in part --------------------------------------------------------------------------------------------


def test_in_part_keeps_the_new_refresh_token_and_never_the_access_token() -> None:
    story = due()
    story.exchange(build.partly(2))
    assert story.grant.access == build.access(1), "the last good one stays"
    assert (story.grant.generation, story.grant.refresh) == (2, build.secret("refresh-2"))
    assert story.wait() == 30 * SECOND
    assert ordered(story.look()).refresh == build.secret("refresh-2")
    assert story.grant.intent is not None
    assert story.grant.intent.generation == 2
    story.end(build.granted(3))
    assert story.grant.access is not None
    assert story.grant.access.generation == story.grant.generation == 3


def test_in_part_ends_a_doubt() -> None:
    story = due()
    story.exchange(build.DOUBTFUL)
    story.exchange(build.partly(2))
    assert story.grant.doubt is None


# --- spacing and pace -------------------------------------------------------------------------------------------


def exchanges(story: Story, outcome: Outcome, span: timedelta) -> list[datetime]:
    """The times of the exchanges that it starts of itself in ``span``, each ending at once with ``outcome``."""
    end, times = story.now + span, []
    while story.grant.due_at is not None and story.grant.due_at < end:
        story.wait()
        if isinstance(story.look().order, lifecycle.Exchange):
            times.append(story.now)
            story.end(outcome)
    return times


@pytest.mark.parametrize("chance", [0.0, 0.5, 0.999999])
@pytest.mark.parametrize("seconds", [1, 2, 10, 59, 60, 119, 3600, 86400, 10**9])
def test_exchanges_stand_thirty_seconds_or_half_a_lifetime_apart(seconds: int, chance: float) -> None:
    lifetime = timedelta(seconds=seconds)
    story = Story(build.fresh(), build.FORGIVING, QUARTER_TO, chance)
    times = exchanges(story, build.granted(lifetime=lifetime), min(40 * lifetime, 4 * DAY))
    gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert min(gaps) >= min(30 * SECOND, lifetime / 2)
    assert max(gaps) < lifetime, "and none comes after expiry"


@pytest.mark.parametrize("lifetime", [None, ZERO, -SECOND])
@pytest.mark.parametrize("last_good", [HOUR, ZERO, -HOUR])
def test_a_lifetime_that_says_nothing_makes_no_tight_loop(lifetime: timedelta | None, last_good: timedelta) -> None:
    story = Story(build.fresh(access=build.access(lifetime=last_good)), build.FORGIVING, QUARTER_TO)
    times = exchanges(story, build.granted(lifetime=lifetime), HOUR)
    assert 1 <= len(times) <= 3


def test_a_guessed_lifetime_is_no_longer_than_the_last_good_one() -> None:
    story = due()
    story.exchange(build.granted(2, lifetime=20 * MINUTE))
    story.exchange(build.granted(3, lifetime=None))
    assert story.grant.access is not None
    assert story.grant.access.lifetime == 20 * MINUTE


def test_an_answer_that_came_late_is_still_spaced() -> None:
    story = due()
    ordered(story.look())
    story.end(build.granted(lifetime=10 * SECOND), after=29 * SECOND)
    assert story.wait() == 5 * SECOND


@pytest.mark.parametrize(
    ("outcome", "most"),
    [
        (build.NOT_SENT, 26), (build.DOUBTFUL, 26), (build.BUSY, 7), (build.MISCONFIGURED, 7), (build.partly(), 11),
        (build.failed(OutcomeClass.BUSY, retry_after=ZERO), 26), (build.failed(OutcomeClass.BUSY, retry_after=DAY), 1),
    ],
    ids=lambda value: value.cls.value if isinstance(value, Outcome) else str(value),
)  # fmt: skip
def test_the_same_failure_again_and_again_gets_slower(outcome: Outcome, most: int) -> None:
    times = exchanges(due(), outcome, HOUR)
    assert 1 <= len(times) <= most


def test_retry_after_is_honoured_between_a_second_and_an_hour() -> None:
    for asked, waited in ((ZERO, SECOND), (2 * MINUTE, 2 * MINUTE), (DAY, HOUR)):
        story = due()
        story.exchange(build.failed(OutcomeClass.BUSY, retry_after=asked))
        assert story.wait() == waited


def test_busy_without_a_time_waits_a_minute_and_doubles_to_an_hour() -> None:
    story, waits = due(), []
    for _ in range(9):
        story.exchange(build.BUSY)
        assert story.grant.due_at is not None
        waits.append((story.grant.due_at - story.now) // MINUTE)
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_an_hour_without_a_network_does_not_make_the_first_busy_cost_an_hour() -> None:
    story = due()
    for _ in range(20):
        story.exchange(build.NOT_SENT)
    story.exchange(build.BUSY)
    assert story.wait() == MINUTE
    assert story.grant.trouble is not None
    assert story.grant.trouble.since == NOON + QUARTER_TO, "but the trouble is as old as it is"


def test_what_an_operator_must_mend_is_tried_slowly_but_not_past_the_expiry() -> None:
    story = due()
    times = exchanges(story, build.MISCONFIGURED, 5 * HOUR)
    before = [at for at in times if at < NOON + HOUR]
    gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert len(before) > 1, "a deploy of some minutes heals while the old token is still good"
    assert min(gaps) >= MINUTE, "no identical failing request within a minute"
    assert gaps[-1] == HOUR


def test_what_an_operator_must_mend_keeps_the_pace_of_the_outcome_once_expired() -> None:
    story = Story(build.fresh(), build.FORGIVING, 2 * HOUR)
    outcome = build.failed(OutcomeClass.MISCONFIGURED, pace=(5 * MINUTE, 15 * MINUTE))
    waits = []
    for _ in range(4):
        story.exchange(outcome)
        assert story.grant.due_at is not None
        waits.append(story.grant.due_at - story.now)
    assert waits == [5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 15 * MINUTE]


CERTIFICATE = build.failed(OutcomeClass.NOT_SENT, pace=(MINUTE, 15 * MINUTE))


def test_what_waiting_alone_does_not_mend_is_not_hammered_though_nothing_was_sent() -> None:
    story = Story(build.fresh(), build.FORGIVING, 2 * HOUR)
    times = exchanges(story, CERTIFICATE, 3 * HOUR)
    gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert gaps[:5] == [MINUTE, 2 * MINUTE, 4 * MINUTE, 8 * MINUTE, 15 * MINUTE]


def test_but_never_waits_past_the_expiry_of_what_readers_hold() -> None:
    story = Story(build.fresh(trouble=build.trouble(count=9)), build.FORGIVING, QUARTER_TO)
    story.exchange(CERTIFICATE)
    assert story.wait() == (15 * MINUTE) / 2


# --- a client that may not refresh ------------------------------------------------------------------------------

BARRED = build.failed(OutcomeClass.MISCONFIGURED, message="HTTP 400 unauthorized_client", barred=True)


def test_a_client_that_may_not_refresh_logs_in_once_and_it_is_told() -> None:
    story = Story(build.fresh(previous_refresh=build.secret("refresh-0")), build.FORGIVING, QUARTER_TO)
    assert story.exchange(BARRED).kind is Kind.REFRESH
    (lost,) = (event for event in story.told if event.name == "grant.chain_lost")
    assert "unauthorized_client" in lost.sentence
    assert "next: password exchange" in lost.sentence
    assert story.wait() == ZERO
    assert story.exchange(build.granted()).kind is Kind.PASSWORD, "the token before would be refused in the same way"
    assert story.grant.debits == (NOON + QUARTER_TO,)


@pytest.mark.parametrize("password", [True, False])
def test_without_a_login_to_spend_the_refresh_token_is_kept_and_tried_slowly(password: bool) -> None:
    debits = (NOON, NOON + MINUTE, NOON + 2 * MINUTE)
    story = Story(build.fresh(debits=debits), build.FORGIVING if password else build.FORGIVING_ALONE, QUARTER_TO)
    times = exchanges(story, BARRED, 4 * HOUR)
    assert story.grant.refresh == build.secret("refresh-1")
    assert story.grant.debits == debits
    assert times[-1] - times[-2] == HOUR
    assert story.exchange(build.granted()).kind is Kind.REFRESH


def test_a_client_that_may_not_refresh_never_exceeds_the_budget() -> None:
    story, sent = Story(build.fresh(), build.FORGIVING), []
    while story.at < 5 * DAY:
        story.wait()
        order = story.look().order
        if isinstance(order, lifecycle.Exchange):
            if order.kind is Kind.PASSWORD:
                sent.append(story.at)
            story.end(BARRED if order.kind is Kind.REFRESH else build.granted(len(sent)))
    assert len(sent) >= 13, "and spends it: readers get what they can"
    assert all(later - sooner >= DAY for sooner, later in zip(sent, sent[3:], strict=False))


def test_a_login_that_the_client_may_not_do_latches() -> None:
    story = Story(build.empty(), build.FORGIVING)
    story.exchange(BARRED)
    assert story.grant.latch is not None


# --- the refresh token nears its end ----------------------------------------------------------------------------


def test_a_refresh_token_that_nears_its_end_is_told_once() -> None:
    story = due()
    exchanges(story, build.MISCONFIGURED, 20 * DAY)
    told = [event for event in story.told if event.name == "grant.refresh_ending"]
    assert len(told) == 1
    assert 0 <= (told[0].at - (NOON + 11 * DAY)).total_seconds() <= 3600
    assert "2d" in told[0].sentence or "3d" in told[0].sentence


def test_a_latched_grant_is_told_of_its_refresh_token_once_too() -> None:
    """Nothing is exchanged any more, and the chain would die unseen while somebody thinks about the password."""
    story = Story(build.fresh(due_at=None, latch=build.latch()), build.FORGIVING)
    for _ in range(20 * 24):
        rest = story.look(HOUR).order
        assert rest == lifecycle.Rest(None, "latched: the provider refused the password")
    assert names(story.told) == ["grant.refresh_ending"]
    assert story.told[0].at == NOON + 11 * DAY
    story.exchange(build.granted(), credentials="new credentials")
    story.grant = build.replace(story.grant, due_at=None, latch=build.latch())
    story.look(12 * DAY)
    assert names(story.told).count("grant.refresh_ending") == 2


def test_each_new_refresh_token_nears_its_own_end() -> None:
    story = due()
    exchanges(story, build.NOT_SENT, 12 * DAY)
    story.exchange(build.granted())
    exchanges(story, build.NOT_SENT, 12 * DAY)
    assert names(story.told).count("grant.refresh_ending") == 2


@pytest.mark.crowd
def test_a_short_refresh_token_is_told_in_its_last_quarter_and_an_unknown_one_never() -> None:
    for lifetime, count in ((8 * HOUR, 1), (None, 0)):
        story = Story(build.fresh(), build.replace(build.FORGIVING, refresh_lifetime=lifetime))
        exchanges(story, build.NOT_SENT, 5 * HOUR)
        assert names(story.told).count("grant.refresh_ending") == 0
        exchanges(story, build.NOT_SENT, 20 * DAY)
        assert names(story.told).count("grant.refresh_ending") == count


def test_a_fleet_that_rotates_hears_nothing_of_the_end() -> None:
    story = due()
    exchanges(story, build.granted(), 30 * DAY)
    assert "grant.refresh_ending" not in names(story.told)


# --- somebody asks ----------------------------------------------------------------------------------------------


def test_asking_goes_before_the_due_time() -> None:
    assert ordered(Story(build.fresh(), build.FORGIVING, MINUTE).look(asked=True)).kind is Kind.REFRESH


@pytest.mark.parametrize("grant", [build.fresh(), build.fresh(access=None)])
def test_asking_keeps_the_spacing_says_so_and_moves_nothing(grant: build.Grant) -> None:
    story = Story(grant, build.FORGIVING, 10 * SECOND)
    rest = rests(story.look(asked=True))
    assert rest.until == NOON + 30 * SECOND
    assert rest.why
    assert story.grant == grant


def test_forcing_does_not_keep_the_spacing() -> None:
    assert ordered(Story(build.fresh(), build.FORGIVING, SECOND).look(forced=True)).kind is Kind.REFRESH


def test_asking_over_and_over_makes_no_tight_loop() -> None:
    story, count = Story(build.empty(refresh=build.secret("adopted")), build.FORGIVING), 0
    for _ in range(600):
        if isinstance(story.look(SECOND, asked=True).order, lifecycle.Exchange):
            count += 1
            story.end(build.BUSY)
    assert count <= 600 / 30 + 1


def test_asking_in_doubt_says_why_not() -> None:
    for rules in (build.STRICT, build.STRICT_ALONE):
        held = build.fresh(doubt=build.doubt(build.moment(QUARTER_TO), attempts=2))
        rest = rests(Story(held, rules, 50 * MINUTE).look(asked=True))
        assert rest.why


def test_a_look_before_its_time_changes_nothing() -> None:
    story = Story(build.fresh(), Rules(), 10 * MINUTE)
    assert rests(story.look()).until == NOON + QUARTER_TO
    assert story.grant == build.fresh()

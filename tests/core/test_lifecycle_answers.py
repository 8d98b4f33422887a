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
        (build.NOT_SENT, 26), (build.DOUBTFUL, 26), (build.BUSY, 7), (build.MISCONFIGURED, 7), (build.partly(), 121),
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

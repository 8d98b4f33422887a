"""The world is not as the store says: an old copy of it, a clock that fell back, a refresh token from elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import build
import pytest
from build import DAY, HOUR, MINUTE, NOON, SECOND, Story, names, ordered, rests

from rotator.core.grants import Kind
from rotator.core.lifecycle import Adopted, Behind, ClockFellBack

# --- the store is an old copy -----------------------------------------------------------------------------------


def behind(generation: int = 9, expires_at: datetime | None = NOON + HOUR) -> Behind:
    return Behind(target="app", generation=generation, expires_at=expires_at)


def test_a_target_ahead_means_doubt_publish_nothing_say_so_and_count_on_from_there() -> None:
    story = Story(build.fresh(previous_refresh=build.secret("refresh-0")), build.FORGIVING, 10 * MINUTE)
    story.happen(behind())
    held = story.grant
    assert held.doubt is not None
    assert held.unproven, "nothing of ours is published"
    assert (held.generation, held.previous_refresh) == (9, None)
    assert names(story.told) == ["store.behind"]
    story.exchange(build.granted())
    assert (story.grant.generation, story.grant.unproven) == (10, False)


@pytest.mark.parametrize("generation", [0, 1])
def test_a_target_that_is_not_ahead_changes_nothing(generation: int) -> None:
    story = Story(build.fresh(), build.FORGIVING)
    assert rests(story.happen(behind(generation))).until == story.grant.due_at
    assert story.grant == build.fresh()
    assert story.told == []


def test_an_old_copys_refresh_token_is_within_no_grace() -> None:
    story = Story(build.fresh(), build.STRICT_GRACE, 10 * MINUTE)
    story.happen(behind())
    story.look()
    story.wait()
    assert ordered(story.look()).kind is Kind.PASSWORD, "presenting it would revoke what readers hold"
    assert story.now == NOON + 35 * MINUTE, "half-way to the expiry of the token that stands at the target"


def test_without_a_password_the_old_copys_token_waits_for_the_expiry_at_the_target() -> None:
    story = Story(build.fresh(), build.STRICT_ALONE, 10 * MINUTE)
    story.happen(behind(expires_at=NOON + 90 * MINUTE))
    story.look()
    story.wait()
    assert story.now == NOON + 90 * MINUTE
    assert ordered(story.look()).refresh == build.secret("refresh-1")


def test_with_an_expiry_that_nobody_knows_the_password_goes_first() -> None:
    story = Story(build.fresh(access=None), build.STRICT, 10 * MINUTE)
    story.happen(behind(expires_at=None))
    story.wait()
    assert ordered(story.look()).kind is Kind.PASSWORD


@pytest.mark.parametrize(
    "expires_at",
    [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC), NOON - HOUR, NOON, NOON + 300 * DAY],
)
@pytest.mark.parametrize("rules", [build.FORGIVING, build.STRICT, build.STRICT_ALONE])
def test_an_expiry_told_by_a_target_is_believed_within_bounds(expires_at: datetime, rules: build.Rules) -> None:
    story = Story(build.fresh(), rules, 10 * MINUTE)
    story.happen(behind(expires_at=expires_at))
    story.look()
    assert story.grant.due_at is None or story.grant.due_at - story.now <= rules.longest_lifetime
    assert story.grant.access is not None
    assert HOUR <= story.grant.access.lifetime <= rules.longest_lifetime, "guesses are made by it"


def test_two_stores_that_outbid_each_other_keep_the_spacing() -> None:
    story, count = Story(build.fresh(), build.FORGIVING, 10 * MINUTE), 0
    while story.at < 20 * MINUTE:
        story.happen(behind(story.grant.generation + 1))
        story.wait()
        ordered(story.look())
        story.end(build.granted())
        count += 1
    assert count <= 21


def test_a_login_that_a_crash_lost_is_still_known_when_a_target_is_found_ahead() -> None:
    """The one extra try was made before the crash; what was found meanwhile buys no second one."""
    story = Story(build.fresh(refresh=None, due_at=NOON), build.FORGIVING)
    story.exchange(build.DOUBTFUL)
    story.wait()
    ordered(story.look())
    story.reboot(SECOND)
    story.happen(behind())
    assert names(story.told)[-2:] == ["exchange.failed", "store.behind"]
    assert rests(story.look(MINUTE)).until == NOON + 5 * SECOND + 15 * MINUTE
    assert build.left(story.grant, story.moment, story.rules) == 1


def test_a_grant_without_a_refresh_token_is_in_no_doubt() -> None:
    story = Story(build.fresh(refresh=None), build.FORGIVING, 10 * MINUTE)
    story.happen(behind())
    assert story.grant.doubt is None
    assert ordered(story.look()).kind is Kind.PASSWORD


# --- the clock --------------------------------------------------------------------------------------------------


def test_a_clock_that_fell_back_means_refresh_before_trusting() -> None:
    story = Story(build.fresh(), build.FORGIVING, HOUR)
    story.stepped = timedelta(days=-400)
    story.happen(ClockFellBack())
    assert story.grant.unproven
    assert ordered(story.look()).kind is Kind.REFRESH
    story.end(build.granted())
    assert story.grant.unproven is False


def test_a_clock_that_keeps_falling_back_makes_no_tight_loop() -> None:
    story, count = Story(build.fresh(), build.FORGIVING, HOUR), 0
    for _ in range(120):
        story.at += SECOND
        story.happen(ClockFellBack())
        if not isinstance(story.look().order, build.lifecycle.Rest):
            count += 1
            story.end(build.granted())
    assert count <= 5


def test_debits_from_the_future_count_from_now_not_for_years() -> None:
    later = tuple(NOON + timedelta(days=3650, minutes=minutes) for minutes in (0, 20, 40))
    story = Story(build.fresh(refresh=None, debits=later), build.FORGIVING, HOUR)
    story.happen(ClockFellBack())
    assert build.left(story.grant, story.moment, story.rules) == 0, "never a fresh budget"
    rest = rests(story.look())
    assert rest.until == story.now + DAY
    story.wait()
    assert ordered(story.look()).kind is Kind.PASSWORD


def test_what_waits_for_a_person_still_does() -> None:
    story = Story(build.fresh(due_at=None, latch=build.latch()), build.FORGIVING, HOUR)
    assert rests(story.happen(ClockFellBack())).until is None
    assert story.grant.due_at is None


# --- a refresh token from elsewhere -----------------------------------------------------------------------------


def test_an_adopted_refresh_token_is_spent_at_once_and_no_password_with_it() -> None:
    held = build.fresh(
        due_at=None, latch=build.latch(), doubt=build.doubt(), trouble=build.trouble(), debits=(NOON,),
        password_lost=True,
    )  # fmt: skip
    story = Story(held, build.STRICT_ALONE, HOUR)
    story.happen(Adopted(refresh=build.secret("handed over")))
    assert names(story.told) == ["grant.unlatched"]
    assert (story.grant.access, story.grant.debits) == (held.access, held.debits)
    assert ordered(story.look()).refresh == build.secret("handed over")
    story.end(build.granted())
    assert story.grant.generation == 2

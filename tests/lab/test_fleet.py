"""A fleet in simulated days: the real engine rotates it, its readers are looked at, and the judge can find fault."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from rotator.core.policy import Budget, Reuse, Rules
from rotator.core.ports import HttpRequest, Reach
from rotator.core.pressure import Limits
from rotator.core.publication import Publication
from rotator.core.tokens import AccessToken, Secret
from rotator.lab import report, world
from rotator.lab.fleet import causes, month, outlook, scenario, worlds
from rotator.lab.fleet.month import Month
from rotator.lab.fleet.scenario import Fault, Scenario, Sort, Trouble, Wish
from rotator.lab.memory import Shelf
from rotator.lab.report import Report, Stretch
from rotator.lab.simulation.readers import Cause

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
RULES = Rules(password=True)


def sort(rules: Rules = RULES, *, count: int = 3) -> Sort:
    return Sort(name="g", provider="p", rules=rules, limits=Limits(), lifetime=HOUR, count=count)


def story(*wishes: Wish, rules: Rules = RULES, span: timedelta = DAY, count: int = 3, lost: float = 0.0) -> Scenario:
    faults = scenario.script(wishes, span, seed=1)
    return Scenario(seed=1, span=span, sorts=(sort(rules, count=count),), faults=faults, lost=lost)


def told(whole: Scenario) -> Report:
    return month.tell(whole, lambda over: None)


def wish(trouble: Trouble, length: timedelta, at: timedelta) -> Wish:
    return Wish(trouble=trouble, length=length, at=at)


def test_a_quiet_day_costs_one_login_a_grant_and_leaves_no_gap() -> None:
    seen = told(story())
    assert sum(seen.passwords) == 3
    assert seen.gaps == []
    assert seen.broken == []
    # At 75 % of an hour, jitter of 5 %: 30 to 35 a day, and the login.
    assert 3 * 30 <= sum(seen.rotations) <= 3 * 36
    assert seen.requests.total() == sum(seen.rotations)


def test_the_same_seed_tells_the_same_day_and_another_one_another() -> None:
    whole = story(wish(Trouble.PROVIDER, 2 * HOUR, 5 * HOUR), lost=0.02)
    assert told(whole) == told(whole)
    assert told(whole).requests != told(replace(whole, seed=2)).requests


def test_an_outage_longer_than_a_token_lives_is_the_name_of_the_gap() -> None:
    seen = told(story(wish(Trouble.PROVIDER, 3 * HOUR, 10 * HOUR)))
    assert {gap.what for gap in seen.gaps} == {Cause.PROVIDER_AWAY.value}
    assert {gap.grant for gap in seen.gaps} == {"g#1", "g#2", "g#3"}
    # The token that stood there ran out within the outage, and the first try after its end brought the next.
    assert all(10 * HOUR < gap.began < 13 * HOUR < gap.ended < 13 * HOUR + 6 * MINUTE for gap in seen.gaps)
    assert sum(seen.failures) > 0
    assert seen.broken == []
    assert sum(seen.passwords) == 3


@pytest.mark.parametrize(
    ("trouble", "cause"),
    [(Trouble.STORE, Cause.STORE_AWAY), (Trouble.TARGETS, Cause.TARGET_AWAY), (Trouble.DAEMON, Cause.NOT_RUNNING)],
)
def test_every_trouble_that_outlasts_a_token_gives_its_name_to_the_gaps(trouble: Trouble, cause: Cause) -> None:
    seen = told(story(wish(trouble, 2 * HOUR, 10 * HOUR)))
    assert {gap.what for gap in seen.gaps} == {cause.value}
    assert seen.broken == []


def test_short_troubles_leave_no_gap() -> None:
    short = [wish(trouble, 4 * MINUTE, (2 + 3 * number) * HOUR) for number, trouble in enumerate(Trouble)]
    seen = told(story(*short))
    assert (seen.gaps, seen.broken) == ([], [])


def test_a_clock_that_is_set_by_hours_leaves_no_gap() -> None:
    steps = [wish(Trouble.CLOCK, 5 * HOUR, 6 * HOUR), wish(Trouble.CLOCK, -9 * HOUR, 12 * HOUR)]
    seen = told(story(*steps))
    assert (seen.gaps, seen.broken) == ([], [])


def test_lost_answers_cost_password_exchanges_within_the_budget() -> None:
    seen = told(story(lost=0.05, span=5 * DAY))
    assert sum(seen.passwords) > 3
    assert seen.resends > 0
    assert seen.broken == []
    assert {gap.what for gap in seen.gaps} <= {Cause.BUDGET.value}


def test_a_grant_whose_password_is_not_kept_is_logged_in_once_by_a_person() -> None:
    seen = told(story(wish(Trouble.PROVIDER, HOUR, timedelta(0)), rules=replace(RULES, password=False)))
    assert sum(seen.passwords) == 3
    assert seen.broken == []
    assert HOUR < seen.enrolled < HOUR + 10 * MINUTE
    assert sum(seen.rotations) > 3 * 20


def test_a_lost_chain_without_a_password_is_a_gap_until_the_end() -> None:
    rules = replace(RULES, password=False, reuse=Reuse.HARMLESS)
    seen = told(story(rules=rules, lost=1.0, span=6 * HOUR))
    assert sum(seen.rotations) == 0, "no answer ever arrived"
    assert {gap.ended for gap in seen.gaps} == {6 * HOUR}
    assert len(seen.gaps) == 3


def test_two_worlds_tell_the_whole_fleet_and_say_so() -> None:
    whole = story(wish(Trouble.PROVIDER, 3 * HOUR, 5 * HOUR), count=4)
    heard: list[float] = []
    seen = worlds.tell(whole, heard.append, count=2)
    assert (seen.worlds, seen.grants) == (2, 4)
    assert len(seen.faults) == 1, "the same fault, at the same time, in both"
    assert sum(seen.passwords) == 4
    parts = [told(part) for part in scenario.worlds(whole, 2)]
    assert seen == report.merged(parts)
    assert all(0 <= over <= 1 for over in heard)


def test_a_sample_says_what_it_is_and_is_scaled() -> None:
    whole = story(count=40, span=6 * HOUR)
    seen = outlook.look(whole, lambda over: None, grants=4)
    assert (seen.is_sample, seen.factor, seen.report.grants) == (True, 10.0, 4)
    assert seen.rotations == 10 * sum(seen.report.rotations)
    assert seen.passwords == 40
    assert seen.document()["extrapolated"] is True
    # In proportion it would be 40; the limits let no more than ten start in a second.
    assert seen.peak <= Limits().burst


# --- the judge ----------------------------------------------------------------------------------------------------


def explained(
    began: timedelta, ended: timedelta, *faults: Fault, lost_at: timedelta | None = None, asked: int = 0
) -> str:
    requests = dict.fromkeys(range(24 * 3600), asked)
    return causes.explain(sort(), began, ended, faults=faults, lost_at=lost_at, requests=requests, first=False)


def fault(trouble: Trouble, began: timedelta, ended: timedelta) -> Fault:
    return Fault(trouble=trouble, began=began, ended=ended)


def test_a_gap_that_nothing_explains_is_called_so() -> None:
    assert explained(10 * HOUR, 11 * HOUR) == report.UNEXPLAINED
    # The provider granted for most of the time between due and expired: its outage after that is no excuse.
    after = fault(Trouble.PROVIDER, 10 * HOUR - MINUTE, 11 * HOUR)
    assert explained(10 * HOUR, 11 * HOUR, after) == report.UNEXPLAINED


def test_a_gap_is_named_after_what_took_most_of_the_time() -> None:
    store = fault(Trouble.STORE, 9 * HOUR, 10 * HOUR - 2 * MINUTE)
    provider = fault(Trouble.PROVIDER, 10 * HOUR - 2 * MINUTE, 10 * HOUR)
    assert explained(10 * HOUR, 10 * HOUR + MINUTE, store, provider) == Cause.STORE_AWAY.value
    assert explained(10 * HOUR, 11 * HOUR, lost_at=9.5 * HOUR) == Cause.BUDGET.value
    assert explained(10 * HOUR, 11 * HOUR, lost_at=2 * HOUR) == report.UNEXPLAINED
    assert explained(10 * HOUR, 11 * HOUR, fault(Trouble.CLOCK, 9.5 * HOUR, 9.5 * HOUR)) == causes.CLOCK
    assert explained(10 * HOUR, 11 * HOUR, asked=10) == causes.LIMITS
    assert explained(10 * HOUR, 11 * HOUR, asked=2) == report.UNEXPLAINED


def in_a_month(rules: Rules = RULES) -> Month:
    return Month(story(rules=rules, count=1))


def request(kind: str) -> HttpRequest:
    body = f"grant_type={kind}&client_id=1_g&client_secret=cs&username=g&password=pw".encode()
    return HttpRequest(
        "POST", "https://provider.invalid", (("Content-Type", "application/x-www-form-urlencoded"),), body
    )


def test_the_judge_sees_two_exchanges_in_flight() -> None:
    async def scene() -> Report:
        one = in_a_month()
        road = one.roads["g"]
        await asyncio.gather(*(road.send(request("password"), deadline=MINUTE) for _ in range(2)))
        return one.report

    assert "two exchanges" in world.run(scene).broken[0]


def test_the_judge_counts_logins_where_they_arrive() -> None:
    async def scene(pause: timedelta) -> list[str]:
        one = in_a_month(replace(RULES, budget=Budget(limit=1, window=HOUR)))
        for _ in range(2):
            answer = await one.roads["g"].send(request("password"), deadline=MINUTE)
            assert answer.reach is Reach.COMPLETE
            await one.clock.pass_time(pause)
        return one.report.broken

    assert world.run(lambda: scene(HOUR)) == []
    assert "2 logins" in world.run(lambda: scene(MINUTE))[0]


def test_the_judge_sees_a_token_that_is_published_before_it_is_saved() -> None:
    async def scene() -> Report:
        one = in_a_month()
        now = one.clock.now()
        access = AccessToken(Secret("t"), "bearer", None, now, now + HOUR, 1)
        await one.places["g"].settle(Publication("g", "lineage", access), now)
        return one.report

    assert "before it was saved" in world.run(scene).broken[0]


def test_a_reader_notices_a_token_that_ran_out_and_one_that_was_taken_away() -> None:
    async def scene(*, taken: bool) -> list[Stretch]:
        one = in_a_month()
        one.shelf = Shelf()
        place, site = one.places["g"], one.sites["p"]
        for number in (1, 2):
            await one.roads["g"].send(request("password"), deadline=MINUTE)
            value = list(site.provider.ledger.access)[-1]
            now = one.clock.now()
            access = AccessToken(Secret(value), "bearer", None, now, now + HOUR, number)
            await place.settle(Publication("g", "lineage", access), now)
            if number == 1:
                if taken:
                    await one.clock.pass_time(10 * MINUTE)
                    site.provider.ledger.access.clear()
                    place.look()
                    await one.clock.pass_time(MINUTE)
                else:
                    await one.clock.pass_time(61 * MINUTE)
        return one.report.gaps

    (ran_out,) = world.run(lambda: scene(taken=False))
    (taken_away,) = world.run(lambda: scene(taken=True))
    assert abs(ran_out.length - MINUTE) < 2 * SECOND
    assert abs(taken_away.length - MINUTE) < 2 * SECOND
    assert taken_away.began < 11 * MINUTE

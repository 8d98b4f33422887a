"""What breaks when, and how a fleet is shared among worlds or cut to a sample."""

from __future__ import annotations

from datetime import timedelta

from rotator.core.policy import Rules
from rotator.core.pressure import Limits
from rotator.lab.fleet import scenario
from rotator.lab.fleet.scenario import Scenario, Sort, Trouble, Wish

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def sort(name: str = "billing", count: int = 10, **limits: float) -> Sort:
    borne = Limits(in_flight=int(limits.get("in_flight", 16)), per_second=limits.get("per_second", 10.0))
    return Sort(name=name, provider="p", rules=Rules(password=True), limits=borne, lifetime=HOUR, count=count)


def story(*sorts: Sort) -> Scenario:
    return Scenario(seed=1, span=30 * DAY, sorts=sorts or (sort(),))


def test_a_trouble_comes_at_its_time_and_ends_with_the_story() -> None:
    wish = Wish(trouble=Trouble.PROVIDER, length=2 * HOUR, at=3 * DAY)
    late = Wish(trouble=Trouble.STORE, length=2 * HOUR, at=10 * DAY - HOUR)
    (one, other) = scenario.script([late, wish], 10 * DAY, seed=1)
    assert (one.trouble, one.began, one.ended) == (Trouble.PROVIDER, 3 * DAY, 3 * DAY + 2 * HOUR)
    assert (other.began, other.ended) == (10 * DAY - HOUR, 10 * DAY)


def test_a_trouble_that_comes_again_comes_once_in_each_round() -> None:
    faults = scenario.script([Wish(trouble=Trouble.DAEMON, length=HOUR, every=DAY)], 10 * DAY, seed=5)
    assert [fault.began // DAY for fault in faults] == list(range(10))
    assert faults == scenario.script([Wish(trouble=Trouble.DAEMON, length=HOUR, every=DAY)], 10 * DAY, seed=5)
    assert faults != scenario.script([Wish(trouble=Trouble.DAEMON, length=HOUR, every=DAY)], 10 * DAY, seed=6)


def test_a_clock_that_is_set_says_by_how_much() -> None:
    (fault,) = scenario.script([Wish(trouble=Trouble.CLOCK, length=-3 * HOUR, at=DAY)], 2 * DAY, seed=1)
    assert fault.told().what == "clock set back by 3 h"
    assert fault.told().length == timedelta(0)


def test_grants_are_spread_in_the_proportions_of_what_is_configured() -> None:
    spread = scenario.spread((sort("a", 1), sort("b", 3)), 100)
    assert [(one.name, one.count) for one in spread] == [("a", 25), ("b", 75)]
    assert sum(one.count for one in scenario.spread((sort("a", 1), sort("b", 1), sort("c", 1)), 100)) == 100


def test_the_worlds_of_a_fleet_share_its_grants_and_what_the_provider_bears() -> None:
    parts = scenario.worlds(story(sort("a", 5), sort("b", 8)), 2)
    assert [part.grants for part in parts] == [6, 7]
    assert sum(one.count for part in parts for one in part.sorts if one.name == "b") == 8
    assert [part.limits()["p"] for part in parts] == [Limits(in_flight=8, per_second=5.0)] * 2
    assert len({part.seed for part in parts}) == 2
    assert {part.faults for part in parts} == {()}


def test_what_cannot_be_shared_stays_in_one_world() -> None:
    assert scenario.worlds(story(sort(count=1)), 4) == [story(sort(count=1))]
    alone = story(sort(count=50, in_flight=1))
    assert scenario.worlds(alone, 4) == [alone]


def test_a_sample_presses_the_provider_in_proportion() -> None:
    cut = scenario.sample(story(sort("a", 100), sort("b", 300)), 40)
    assert [(one.name, one.count) for one in cut.sorts] == [("a", 10), ("b", 30)]
    assert cut.limits()["p"] == Limits(in_flight=2, per_second=1.0)
    assert scenario.sample(story(), 10) == story()

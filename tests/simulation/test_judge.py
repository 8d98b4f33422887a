"""The judge of the simulation: each invariant is broken on purpose, and that is noticed. A check that cannot fail is
none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from rotator.core.grants import Grant, Intent, Kind, Latch, Source
from rotator.core.ports import HttpRequest
from rotator.core.publication import Publication
from rotator.core.tokens import AccessToken, Secret
from rotator.lab import simulation, world
from rotator.lab.breakable import FlakyStore, Fuse, Line, Weather
from rotator.lab.simulation import Misfortune, Plan, What, shrinking
from rotator.lab.simulation.judge import MOST_EXCHANGES
from rotator.lab.simulation.readers import Cause, Gap

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
QUIET = simulation.quiet(Plan(seed=1, grants=1, span=HOUR))


def broken(story: Callable[[simulation.Simulation], Coroutine[Any, Any, None]], plan: Plan = QUIET) -> str:
    """What the judge says of a story on a machine that nobody has started."""

    async def run() -> str:
        played = simulation.Simulation(plan)
        await story(played)
        return "\n".join(played.verdict.broken)

    return world.run(run)


def announced(played: simulation.Simulation, kind: Kind = Kind.REFRESH) -> Grant:
    """A grant with a valid token and a durable intent on the shelf."""
    now = played.clock.now()
    access = AccessToken(Secret("held"), "bearer", None, now, now + HOUR, 1)
    intent = Intent("line", 1, kind, Source.CURRENT, 1, played.clock.moment())
    grant = Grant(
        name="g0", lineage="line", identity="", generation=1, access=access, refresh=Secret("r"), intent=intent
    )
    played.shelf.grants["g0"] = grant
    return grant


def ask(played: simulation.Simulation, kind: Kind = Kind.REFRESH) -> None:
    played.judge.asked(played.shelf, "g0", kind.value)


def test_a_right_exchange_breaks_nothing() -> None:
    async def story(played: simulation.Simulation) -> None:
        announced(played)
        ask(played)

    assert broken(story) == ""


def test_an_exchange_without_an_intent() -> None:
    async def story(played: simulation.Simulation) -> None:
        played.shelf.grants["g0"] = replace(announced(played), intent=None)
        ask(played)

    assert "without a durable intent" in broken(story)


def test_an_exchange_while_latched() -> None:
    async def story(played: simulation.Simulation) -> None:
        latch = Latch("refused", "mend it", "digest", played.clock.now())
        played.shelf.grants["g0"] = replace(announced(played), latch=latch)
        ask(played)

    assert "an exchange while it is latched" in broken(story)


def test_a_granted_answer_that_is_dropped() -> None:
    async def story(played: simulation.Simulation) -> None:
        announced(played)
        ask(played)
        played.judge.answered("g0", b'{"access_token": "lost"}')
        await played.clock.pass_time(HOUR)
        ask(played)

    assert "a granted answer was dropped" in broken(story)


def test_an_answer_that_a_kill_took_was_not_dropped() -> None:
    async def story(played: simulation.Simulation) -> None:
        announced(played)
        played.judge.answered("g0", b'{"access_token": "lost"}')
        played.judge.killed()
        ask(played)

    assert broken(story) == ""


def test_an_exchange_too_soon_after_a_granted_one() -> None:
    async def story(played: simulation.Simulation) -> None:
        grant = announced(played)
        played.judge.answered("g0", b'{"access_token": "held"}')
        played.judge.saved(grant)
        await played.clock.pass_time(timedelta(seconds=5))
        ask(played)

    assert "the next exchange came 0:00:05 after a granted one" in broken(story)


def test_a_tight_loop() -> None:
    async def story(played: simulation.Simulation) -> None:
        announced(played)
        for _ in range(MOST_EXCHANGES + 1):
            await played.clock.pass_time(timedelta(seconds=30))
            ask(played)

    assert "17 exchanges within 0:10:00" in broken(story)


def test_one_login_more_than_the_budget() -> None:
    async def story(played: simulation.Simulation) -> None:
        announced(played, Kind.PASSWORD)
        for _ in range(played.plan.budget.limit + 1):
            await played.clock.pass_time(HOUR / 2)
            ask(played, Kind.PASSWORD)

    assert "4 password exchanges within 4:00:00" in broken(story)


def test_a_spent_refresh_token_that_takes_a_good_token_away() -> None:
    async def story(played: simulation.Simulation) -> None:
        announced(played)
        await played.clock.pass_time(MINUTE)
        played.judge.reused("g0", MINUTE)

    assert "sent again although a good access token hung on it" in broken(story)


def test_two_exchanges_in_flight() -> None:
    async def story(played: simulation.Simulation) -> None:
        line = Line(played.provider, played.clock, played.dice, Weather(), Fuse(), played.judge.breaks)
        body = b"grant_type=password&client_id=1_g0&client_secret=cs&username=g0&password=pw"
        request = HttpRequest("POST", "https://provider.invalid/", (), body)
        await asyncio.gather(*(line.send(request, deadline=MINUTE) for _ in range(2)))

    assert "two exchanges are in flight" in broken(story)


def test_a_generation_that_falls() -> None:
    async def story(played: simulation.Simulation) -> None:
        grant = announced(played)
        store = FlakyStore(
            played.shelf, clock=played.clock, dice=played.dice, weather=Weather(), fuse=Fuse(),
            broken=played.judge.breaks,
        )  # fmt: skip
        await store.open()
        with pytest.raises(Exception, match="generation"):
            await store.save(replace(grant, generation=0), expected=0, lease=None, now=played.clock.now())

    assert "the generation fell from 1 to 0" in broken(story)


@pytest.mark.parametrize(
    ("generation", "lives", "told"),
    [(2, HOUR, "was published before it was saved"), (1, -MINUTE, "an expired token was published")],
)
def test_a_publication_that_must_not_be(generation: int, lives: timedelta, told: str) -> None:
    async def story(played: simulation.Simulation) -> None:
        announced(played)
        now = played.clock.now()
        place = played.places["g0"]
        place.shelves.append(played.shelf)
        access = AccessToken(Secret("x"), "bearer", None, now - HOUR, now + lives, generation)
        await place.settle(Publication("g0", "line", access), now)

    assert told in broken(story)


# --- gaps ------------------------------------------------------------------------------------------------------------


def judged(*hindrances: tuple[Cause, float, float], due: float = 45, began: float = 60, ended: float = 90) -> str:
    """What is said of a gap, all times in minutes since the story began: its cause, or what broke."""

    async def story() -> str:
        played = simulation.Simulation(QUIET)
        for cause, since, until in hindrances:
            one = played.judge.hindrances.begin(cause, "g0", since * MINUTE)
            one.ended = until * MINUTE
        gap = Gap("g0", due * MINUTE, began * MINUTE, ended * MINUTE)
        played.judge.judge_gap(gap)
        return "; ".join(played.verdict.broken) or gap.cause

    return world.run(story)


def test_a_gap_carries_the_name_of_what_stood_in_the_way() -> None:
    assert judged((Cause.ASLEEP, 44, 89)) == Cause.ASLEEP.value
    assert judged((Cause.NOT_RUNNING, 44, 60), (Cause.TWO_DAEMONS, 60, 89)) == Cause.TWO_DAEMONS.value


def test_a_gap_that_nothing_explains_breaks_the_promise() -> None:
    assert "although nothing stood in the way" in judged()
    assert "although nothing stood in the way" in judged((Cause.ASLEEP, 0, 40))
    assert "nothing explains" in judged(due=60, began=60, ended=61)


def test_a_gap_is_not_excused_by_an_outage_that_left_time_enough() -> None:
    assert "although nothing stood in the way for 0:14:00" in judged((Cause.PROVIDER_AWAY, 59, 89))


def test_a_long_gap_of_which_nobody_was_told_breaks_the_promise() -> None:
    assert "nobody was told" in judged((Cause.PROVIDER_AWAY, 44, 89))


def test_a_token_that_the_provider_takes_back_is_a_gap_at_once() -> None:
    plan = replace(QUIET, script=(Misfortune(at=20 * MINUTE, what=What.REVOKED, grant="g0"),), span=2 * HOUR)
    verdict = simulation.run(plan)
    (gap,) = [gap for gap in verdict.gaps if gap.cause == Cause.REVOKED.value]
    assert gap.began == 20 * MINUTE
    assert not verdict.broken


# --- crash points and shrinking --------------------------------------------------------------------------------------


def test_every_kind_of_crash_point_is_reached() -> None:
    told = set()
    # The looks of the first forty minutes come first, then the rotation.
    for number in range(1, 24):
        crash = Misfortune(at=timedelta(0), what=What.CRASH, number=number)
        verdict = simulation.run(replace(QUIET, script=(crash,)))
        assert not verdict.broken, verdict.story()
        told |= {line.partition("killed: ")[2] for line in verdict.told if "killed: " in line}
    assert told == {
        "before the intent is saved", "the intent is saved", "before the request leaves",
        "the provider has committed", "the answer is here", "before the new generation is saved",
        "the new generation is saved", "before the target is looked at", "the target is written",
        "before the delivery is noted",
    }  # fmt: skip


def test_a_failing_story_is_cut_down_to_what_makes_it_fail() -> None:
    """The machine here "fails" whenever a revocation is followed by a vandal."""

    def play(plan: Plan) -> simulation.Verdict:
        verdict = simulation.Verdict(plan)
        kinds = [one.what for one in plan.misfortunes]
        if What.REVOKED in kinds and What.VANDAL in kinds[kinds.index(What.REVOKED) :]:
            verdict.broken.append("g1: it broke at 0:12:13")
        return verdict

    guilty = next(plan for plan in simulation.stories(range(400)) if plan.grants > 1 and play(plan).broken)
    short = shrinking.shortest(guilty, play)
    assert [one.what for one in short.misfortunes] == [What.REVOKED, What.VANDAL]
    assert short.grants == 1
    assert all(one.at.seconds % 60 == 0 for one in short.misfortunes)

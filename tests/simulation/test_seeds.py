"""Stories of the real engine under seeded faults: every invariant holds at every moment.

`SEEDS=5000 make soak` tells as many as asked.
"""

from __future__ import annotations

import os
from datetime import timedelta

import pytest

from rotator.lab import ledger, simulation, world
from rotator.lab.simulation import Plan

SEEDS = int(os.environ.get("SEEDS", "24"))


@pytest.mark.parametrize("chunk", range(8))
def test_seeds(chunk: int) -> None:
    rotations = 0
    for plan in simulation.stories(range(chunk, SEEDS, 8)):
        verdict = simulation.run(plan)
        assert not verdict.broken, verdict.story()
        rotations += verdict.rotations
    assert rotations > 0


@pytest.mark.parametrize("policy", list(ledger.Reuse))
def test_where_nothing_goes_wrong_no_reader_ever_sees_a_gap_and_one_login_is_enough(policy: ledger.Reuse) -> None:
    verdict = simulation.run(Plan(seed=1, policy=policy, faults=False, grants=5, span=timedelta(days=7)))
    assert not verdict.broken, verdict.story()
    assert verdict.gaps == 0
    assert verdict.passwords == 5, "one login for each grant, at its enrolment"


def test_the_same_seed_tells_the_same_story() -> None:
    plan = Plan(seed=11, policy=ledger.Reuse.FAMILY_REVOKE, span=timedelta(days=1))
    assert simulation.run(plan).told == simulation.run(plan).told


def test_a_broken_invariant_is_noticed_and_told() -> None:
    """The judge itself: a target that lies, a line that doubles, a budget that is overdrawn."""

    async def story() -> simulation.Verdict:
        played = simulation.Simulation(Plan(seed=3, faults=False, span=timedelta(hours=1)))
        played.line.most_in_flight = 2
        played.judge()
        played.start()
        await played.clock.pass_time(timedelta(minutes=1))
        played.line.logins["g0"] = [played.clock.now()] * 4
        played.places["g1"].holds = "rubbish"
        played._judge_end()
        await played.kill()
        return played.verdict

    broken = "\n".join(world.run(story).broken)
    assert "two exchanges were in flight" in broken
    assert "4 password exchanges" in broken
    assert "g1: the target does not hold" in broken

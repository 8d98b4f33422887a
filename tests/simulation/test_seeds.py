"""Stories of the real engine under seeded faults: every invariant holds at every moment.

`SEEDS=5000 make soak` tells as many as asked. A seed that once failed stands as a file in ``seeds``, with the reason,
and is told again in every run.
"""

from __future__ import annotations

import multiprocessing
import os
import tomllib
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from rotator.lab import ledger, simulation, world
from rotator.lab.simulation import Plan

SEEDS = int(os.environ.get("SEEDS", "96"))
FROM = int(os.environ.get("SEED_FROM", "0"))
ONCE_FAILED = sorted((Path(__file__).parent / "seeds").glob("*.toml"))


def tell(seed: int) -> tuple[int, str]:
    """The rotations of one story, and the story itself where it broke an invariant."""
    (plan,) = simulation.stories([seed])
    verdict = simulation.run(plan)
    return verdict.rotations, verdict.story() if verdict.broken else ""


def test_seeds() -> None:
    # Spawned, for a fork would copy the threads of the tests before.
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        told = list(pool.map(tell, range(FROM, FROM + SEEDS), chunksize=4))
    broken = [story for _, story in told if story]
    assert not broken, f"{len(broken)} of {SEEDS} stories broke; the shortest:\n{min(broken, key=len)}"
    assert sum(rotations for rotations, _ in told) > SEEDS


@pytest.mark.parametrize("path", ONCE_FAILED, ids=lambda path: path.stem)
def test_a_seed_that_once_failed(path: Path) -> None:
    _, story = tell(tomllib.loads(path.read_text())["seed"])
    assert not story, story


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

"""Stories of the real engine under seeded faults: every invariant holds at every moment.

`SEEDS=5000 make soak` tells as many as asked, `SEED_FROM=` begins elsewhere. A story that once failed stands as a file
in ``seeds``, with the reason, and is told again in every run.
"""

from __future__ import annotations

import multiprocessing
import os
import tomllib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from rotator.lab import ledger, simulation
from rotator.lab.simulation import Plan, shrinking
from rotator.lab.simulation.readers import Cause

SEEDS = int(os.environ.get("SEEDS", "2000"))
FROM = int(os.environ.get("SEED_FROM", "0"))
ONCE_FAILED = sorted((Path(__file__).parent / "seeds").glob("*.toml"))


def tell(seed: int) -> tuple[int, int, Counter[str], bool]:
    """Rotations, requests and gaps by their cause of one story, and whether it broke an invariant."""
    (plan,) = simulation.stories(range(seed, seed + 1))
    verdict = simulation.run(plan)
    return verdict.rotations, verdict.requests, Counter(gap.cause for gap in verdict.gaps), bool(verdict.broken)


def test_seeds(figures: Callable[[str], None]) -> None:
    seeds = range(FROM, FROM + SEEDS)
    # Spawned, for a fork would copy the threads of the tests before.
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        told = list(pool.map(tell, seeds, chunksize=8))
    broken = [seed for seed, (_, _, _, broke) in zip(seeds, told, strict=True) if broke]
    rotations = sum(one[0] for one in told)
    requests = sum(one[1] for one in told)
    causes = sum((one[2] for one in told), Counter[str]())
    figures(f"simulation: {SEEDS} stories, {rotations} rotations, {requests} requests, {len(broken)} broken")
    for cause, count in causes.most_common():
        figures(f"  {count:6d} times a reader found no valid token because {cause}")
    assert not broken, f"{len(broken)} of {SEEDS} stories broke: {broken[:20]}\n{_report(broken[0])}"
    # Every exception to the promise was met, and nothing else.
    assert set(causes) <= {cause.value for cause in Cause}
    assert rotations > SEEDS


def _report(seed: int) -> str:
    (plan,) = simulation.stories(range(seed, seed + 1))
    return shrinking.report(plan)


@pytest.mark.parametrize("path", ONCE_FAILED, ids=lambda path: path.stem)
def test_a_story_that_once_failed(path: Path) -> None:
    assert tomllib.loads(path.read_text())["reason"], "why it is kept"
    verdict = simulation.run(simulation.read(path.read_text()))
    assert not verdict.broken, verdict.story()


@pytest.mark.parametrize("policy", list(ledger.Reuse))
def test_where_nothing_goes_wrong_no_reader_ever_sees_a_gap_and_one_login_is_enough(policy: ledger.Reuse) -> None:
    verdict = simulation.run(simulation.quiet(Plan(seed=1, policy=policy, grants=5, span=timedelta(days=7))))
    assert not verdict.broken, verdict.story()
    assert {gap.cause for gap in verdict.gaps} == {Cause.NOT_YET.value}
    assert len(verdict.gaps) == 5, "until the first token was there"
    assert verdict.passwords == 5, "one login for each grant, at its enrolment"


def test_the_same_seed_tells_the_same_story() -> None:
    plan = Plan(seed=11, policy=ledger.Reuse.FAMILY_REVOKE)
    assert simulation.run(plan).told == simulation.run(plan).told


def test_a_story_survives_being_written_down() -> None:
    for plan in simulation.stories(range(40)):
        written = replace(plan, script=plan.misfortunes)
        assert simulation.read(simulation.write(plan, 'it "broke"')) == written

"""Every crash point of an exchange × every kind of provider: recovered, within the budget, at the cost that
docs/crash-points.md tells. `DOCS=write pytest tests/simulation/test_crash_points.py` writes that page anew."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from rotator.core.policy import Budget
from rotator.lab.ledger import Reuse
from tests.simulation import crashes
from tests.simulation.crashes import Cost, Scene

PAGE = Path(__file__).parents[2] / "docs" / "crash-points.md"
# From the provider's commit to the durable save: who dies here does not know what was spent, and nobody can tell him.
WINDOW = ("the provider has committed", "the answer is here", "before the new generation is saved")

HEAD = """\
# Crash points

Written by `make docs` from the stories that it tells; a test fails where they end otherwise.

A *crash point* is a place in an exchange at which the process can die: before a call to the store, the provider or a
target, once its effect is there, and when it returns. Each is tried in virtual time at each of eight kinds of
provider, with the real engine, lifecycle and token endpoint: the process is killed exactly there, started again five
seconds later, and watched for five hours. A cell says what that cost beyond the same story without the crash: nothing
(–), further requests to the token endpoint, password exchanges (*logins*) from the budget, seconds in which a reader
found no valid token.

The rows in *italics* are the irreducible window: the provider has committed, and what it gave is not saved yet. Where
it forgives the old refresh token, a resend brings the chain back; else one login does. The same doubt costs a login
at a provider that revokes the family, where a resend would take the good access token away, also where the request
had not left yet: after a crash nobody knows. Before the first token, and after a revocation that took the access
token too, readers wait for as long as the process was down, and where a login may have been sent five seconds more.

The kinds of provider: `fos` deletes a spent refresh token; `grace_same_pair` repeats its answer for two minutes;
`grace_new_pair` gives a new pair for 45 seconds and revokes the family after that; `family_revoke` revokes it at
once; `until_new_used` accepts the old one until the new one was used; `never_revoked` accepts it for ever;
`sticky_value` gives the same value for a day; `no_rt_in_refresh` answers a refresh with an access token only.
"""


@pytest.fixture(scope="module")
def told() -> dict[Scene, dict[Reuse, list[tuple[str, Cost]]]]:
    return {scene: {policy: crashes.points(scene, policy) for policy in Reuse} for scene in Scene}


def test_every_crash_is_recovered_within_the_budget(
    told: dict[Scene, dict[Reuse, list[tuple[str, Cost]]]], figures: Callable[[str], None]
) -> None:
    costs = [
        (scene, policy, point, cost)
        for scene, policies in told.items()
        for policy, points in policies.items()
        for point, cost in points
    ]
    for scene, policy, point, cost in costs:
        where = f"{scene.value}, {policy.value}: {point}"
        assert cost.recovered and not cost.broken, (where, cost)
        assert cost.logins <= 1 < Budget().limit, where
        if cost.logins:
            assert point in WINDOW or policy in (Reuse.FAMILY_REVOKE, Reuse.GRACE_NEW_PAIR), where
        assert cost.gap <= crashes.DOWN + timedelta(seconds=6), where
        if scene in (Scene.ROTATION, Scene.DOUBT):
            assert cost.gap == timedelta(0), where
    logins = sum(cost.logins > 0 for *_, cost in costs)
    figures(f"crash points: {len(costs)} stories, all recovered, {logins} of them by one password exchange")
    assert len(costs) > 300


def test_the_points_of_a_rotation_are_these(told: dict[Scene, dict[Reuse, list[tuple[str, Cost]]]]) -> None:
    """A point that is lost without notice would be a hole in the proof."""
    for policy in Reuse:
        assert [point for point, _ in told[Scene.ROTATION][policy]] == [
            "before the intent is saved", "the intent is saved", "before the request leaves",
            "the provider has committed", "the answer is here", "before the new generation is saved",
            "the new generation is saved", "before the target is looked at", "the target is written",
            "before the delivery is noted",
        ]  # fmt: skip


def test_the_page_tells_what_happens(told: dict[Scene, dict[Reuse, list[tuple[str, Cost]]]]) -> None:
    page = "\n".join([HEAD, *(part for scene in Scene for part in _table(scene, told[scene]))])
    if os.environ.get("DOCS") == "write":
        PAGE.write_text(page)
    assert PAGE.read_text() == page, "the page is not what happens; write it anew with `make docs`"


def _table(scene: Scene, told: dict[Reuse, list[tuple[str, Cost]]]) -> list[str]:
    """Kinds of provider at which the exchange takes the same way share a table."""
    ways: dict[tuple[str, ...], list[Reuse]] = {}
    for policy, points in told.items():
        ways.setdefault(tuple(point for point, _ in points), []).append(policy)
    lines = [f"## Killed in {scene.value}", ""]
    for points, policies in ways.items():
        lines.append("| # | killed when | " + " | ".join(f"`{policy.value}`" for policy in policies) + " |")
        lines.append("|---|---|" + "---|" * len(policies))
        for number, point in enumerate(points):
            name = f"*{point}*" if point in WINDOW else point
            cells = [told[policy][number][1].words for policy in policies]
            lines.append(f"| {number + 1} | {name} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines

"""Password exchanges over virtual time, counted where they arrive: at the provider."""

from __future__ import annotations

from datetime import timedelta

import pytest

from rotator.lab import ledger, simulation, world
from rotator.lab.simulation import Misfortune, Plan, What

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


@pytest.mark.parametrize("span", [HOUR, 7 * DAY], ids=str)
def test_a_wrong_password_reaches_the_provider_once(span: timedelta) -> None:
    """Looked at every five minutes, over restarts and reboots: what did not change is not tried again."""
    troubles = tuple(
        Misfortune(at=span * part / 6, what=what, number=number)
        for part, what, number in (
            (1, What.REBOOT, 0.0),
            (2, What.CRASH, 1.0),
            (3, What.CLOCK, 7200.0),
            (4, What.REBOOT, 0.0),
        )
    )

    async def story() -> tuple[int, bool]:
        played = simulation.Simulation(Plan(seed=5, grants=1, span=span))
        played.secrets["g0"].values["password"] = "wrong"
        for one in troubles:
            played._at(one.at, one.words, lambda one=one: played.befall(one))  # type: ignore[misc]
        played.start()
        await played._play(span)
        logins, latched = len(played.judge.logins["g0"]), played.shelf.grants["g0"].latch is not None
        await played.kill()
        return logins, latched

    assert world.run(story) == (1, True)


@pytest.mark.parametrize("policy", [ledger.Reuse.FOS, ledger.Reuse.FAMILY_REVOKE])
def test_a_chain_that_is_lost_every_hour_of_a_month_costs_no_more_than_the_budget_of_any_day(
    policy: ledger.Reuse,
) -> None:
    """The judge breaks the story at the first login above the budget; here that is all that may be asked of it."""
    lost = tuple(Misfortune(at=number * HOUR, what=What.REVOKED, grant="g0") for number in range(1, 30 * 24))
    verdict = simulation.run(Plan(seed=5, grants=1, span=30 * DAY, policy=policy, script=lost))
    assert not [one for one in verdict.broken if "password exchanges" in one], verdict.story()[-2000:]
    # Three in any four hours: used, and not exceeded.
    assert 30 * 6 <= verdict.passwords <= 30 * 6 * 3 + 6

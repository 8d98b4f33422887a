"""Password exchanges are rationed for the account's sake: no number of restarts buys one."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance import stage as stages
from tests.acceptance.stage import Stage

RESTARTS = 50


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with stages.opened(tmp_path) as opened:
        yield opened


def test_a_wrong_password_reaches_the_provider_once_in_fifty_restarts(
    stage: Stage, figures: Callable[[str], None]
) -> None:
    stage.secret("password", "wrong")
    for life in range(RESTARTS):
        process = stage.start()
        try:
            # Ready means decided: latched here, and by then every exchange that a start brings has been sent.
            process.wait_logged("daemon.ready")
        finally:
            process.end(signal.SIGKILL if life % 2 else signal.SIGTERM)
        # Rewritten with the same text: a new time stamp is no new password.
        stage.secret("password", "wrong")
    attempts = stage.provider.journal.password_attempts
    figures(f"wrong password, {RESTARTS} restarts: {attempts} password exchange(s) reached the provider")
    assert attempts == 1


def revoke(stage: Stage) -> None:
    """The owner revokes everything."""
    ledger = stage.provider.provider.ledger
    for family in {row.family for row in list(ledger.refresh.values())}:
        ledger.revoke_family(family)


def test_a_chain_that_is_lost_again_and_again_costs_the_budget_and_no_more_over_twenty_restarts(
    tmp_path: Path, figures: Callable[[str], None]
) -> None:
    limit, restarts = 3, 20
    with stages.opened(tmp_path, access_seconds=2) as stage:
        budget = f'[grants.billing.budget]\nlimit = {limit}\nwindow = "24h"\napart = "1ms"\n'
        stage.configure(stage.grant() + budget)
        journal = stage.provider.journal
        with stage.daemon(wait="") as daemon:
            for login in range(1, limit + 1):
                stages.wait_for(lambda login=login: journal.count("password", "granted") == login, f"login {login}")
                revoke(stage)
            daemon.wait_logged("grant.budget_spent")
        for life in range(restarts):
            process = stage.start()
            try:
                process.wait_logged("daemon.ready")
            finally:
                process.end(signal.SIGKILL if life % 2 else signal.SIGTERM)
        figures(
            f"right password, a chain that is lost again and again, {restarts} restarts: "
            f"{journal.password_attempts} password exchanges of a budget of {limit}"
        )
        assert journal.password_attempts == limit

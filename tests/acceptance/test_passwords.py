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

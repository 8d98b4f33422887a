"""Long work shows how far it has come: on a terminal, on stderr, and nowhere else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance import stage as stages
from tests.acceptance.screens import Terminal
from tests.acceptance.stage import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with stages.opened(tmp_path) as opened:
        yield opened


def test_each_answer_is_shown_as_it_comes_and_a_pipe_gets_all_in_order(stage: Stage) -> None:
    terminal = Terminal(stage, "check", "--online")
    dumb = Terminal(stage, "check", "--online", TERM="dumb")
    assert (terminal.end(), dumb.end()) == (0, 0)
    piped = stage.rotator("check", "--online")
    assert "asking: 0 of 1 have answered" in terminal.text
    lines = [line for line in terminal.text.splitlines() if line.strip()]
    assert lines[-1] == "2 checks, 0 bad"
    assert any("provider emulated: the token endpoint answers" in line for line in lines)
    assert "asking" not in dumb.text + piped.stdout + piped.stderr
    *_, provider, file, sum_of_it = piped.stdout.splitlines()
    assert provider.startswith("ok   provider emulated") and file.startswith("ok   grants.billing.targets.app")
    assert sum_of_it == "2 checks, 0 bad"


def test_a_simulation_tells_its_progress_to_a_person_alone(stage: Stage) -> None:
    words = ("simulate", "--grants", "2", "--days", "1", "--json")
    terminal = Terminal(stage, *words)
    assert terminal.end() == 0, terminal.text
    piped = stage.rotator(*words)
    assert "simulating:" in terminal.text
    assert piped.stderr == ""
    assert json.loads(piped.stdout)

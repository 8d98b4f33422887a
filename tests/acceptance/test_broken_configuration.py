"""Commands beside a daemon that goes on although its configuration is broken by now: those that need only the daemon
work, and say so."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance import stage as stages
from tests.acceptance.screens import Pipe
from tests.acceptance.stage import Stage
from tests.peers.emulator import ACCOUNT

WARNING = "; the daemon goes on with the configuration of before, and a restart would fail: see `rotator check`"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with stages.opened(tmp_path) as opened:
        yield opened


def typo(stage: Stage) -> str:
    stage.write(stage.config.read_text().replace("spacing", "spacin"))
    return "providers.emulated.spacin is not a known key"


def half(stage: Stage) -> str:
    """As an editor leaves it that is saving: not even where the state is can be read in it."""
    stage.write(stage.config.read_text() + "\n[grants.next\n")
    return "not valid TOML"


@pytest.mark.parametrize("spoil", [typo, half])
def test_what_needs_only_the_daemon_works_and_warns(stage: Stage, spoil: Callable[[Stage], str]) -> None:
    with stage.daemon():
        told = spoil(stage)
        commands = (
            ("status", "--json"), ("health",), ("events",), ("wait", "billing"), ("token", "billing"),
            ("grants", "list"), ("grants", "show", "billing"),
        )  # fmt: skip
        for words, done in stage.rotators(*commands):
            assert done.returncode == 0, (words, done.stderr)
            (warning,) = [line for line in done.stderr.splitlines() if line.startswith("rotator: warning: ")]
            assert told in warning and warning.endswith(WARNING), words
        assert json.loads(stage.rotator("status", "--json").stdout)["published"] is True, "data is data all the same"
        done = stage.rotator("rotate", "--force", "billing")
        assert done.returncode == 0 and WARNING in done.stderr, done.stderr
        done = stage.rotator("authorize", "billing", "--password-file", "-", typed=ACCOUNT.password)
        assert done.returncode == 0 and WARNING in done.stderr, done.stderr
        unknown = stage.rotator("authorize", "bilings", "--password-file", "-", typed=ACCOUNT.password)
        assert unknown.returncode == 64 and "no grant is named 'bilings'" in unknown.stderr, unknown.stderr
        assert stage.rotator("check").returncode == 78, "who asks about the configuration is told about it"
    assert stage.provider.journal.password_attempts == 2
    alone = stage.rotator("authorize", "billing", "--password-file", "-", typed=ACCOUNT.password)
    assert alone.returncode == 78 and told in alone.stderr, "nobody goes on with anything"


def test_the_warning_of_one_who_looks_on_comes_once(stage: Stage) -> None:
    with stage.daemon():
        typo(stage)
        watch = Pipe(stage, "status", "--watch", "--every", "100ms", "--json")
        watch.wait_line('"generation": 1')
        assert stage.rotator("rotate", "--force", "billing").returncode == 0
        watch.wait_line('"generation": 2')
        assert watch.end(signal.SIGINT) == 130
    assert sum(WARNING in line for line in watch.err) == 1


def test_a_place_that_does_not_tell_is_no_guess_at_another_daemon(stage: Stage) -> None:
    """Neither a path that is mistyped, nor half a configuration that may name any state."""
    folders = {"STATE_DIRECTORY": "", "RUNTIME_DIRECTORY": "", "XDG_STATE_HOME": str(stage.folder / "xdg")}
    (stage.folder / "xdg" / "rotator").mkdir(parents=True)
    stage.private = "xdg/rotator/state"
    with stage.daemon(**folders):
        half(stage)
        lost = stage.rotator("status", environ=folders)
        assert lost.returncode == 78 and "not valid TOML" in lost.stderr
        absent = stage.rotator("status", "--config", str(stage.folder / "rotatr.toml"), config=False)
        assert absent.returncode == 78 and "there is no such configuration file" in absent.stderr

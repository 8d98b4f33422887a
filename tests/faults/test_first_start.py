"""A first start, killed at each call that makes its state: the next start goes on, refuses nothing, and logs in again
only where the first answer was lost in the window.

By default the calls that stand for all; with FAULTS=all each of them.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.stage import wait_for
from tests.faults import hall, tracer
from tests.faults.hall import Machine
from tests.faults.tracer import KILL, Call

Figures = Callable[[str], None]

WHOLE = os.environ.get("FAULTS") == "all"


@pytest.fixture(autouse=True)
def traceable() -> None:
    if why := tracer.missing():
        pytest.skip(why)


# The folder that we make, and everything that a first start makes in it.
NAMES = ("", "lock", "created", "reserve", "state.db", "state.db-wal", "state.db-shm", "state.db-journal")

# What changes a file, a name, or what is durable.
CALLS = (
    "mkdir", "chmod", "openat", "fchmod", "fchown", "flock", "ftruncate", "pwrite64", "fdatasync", "fsync", "unlink",
    "write", "fallocate", "rename",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Life:
    """A first start that was killed, and what the next one made of it."""

    lost: bool
    passwords: int


def test_a_first_start_killed_at_each_call_is_gone_on_with(tmp_path: Path, figures: Figures) -> None:
    lives: list[Life] = []
    with hall.prepared(tmp_path / "clean") as machine:
        assert not _is_killed(machine, tmp_path / "log", None)
        plan = [call for call in tracer.read(tmp_path / "log") if call.name in CALLS]
    for call in plan if WHOLE else _first_of_each(plan):
        with hall.prepared(tmp_path / "machine") as machine:
            life = _live_twice(machine, tmp_path / "log", call)
        shutil.rmtree(tmp_path / "machine")
        lives += [life] if life is not None else []
    lost = sum(life.lost for life in lives)
    figures(
        f"strace, a first start: killed at {len(lives)} of {len(plan)} calls that make its state; {lost} first answers "
        f"lost in the window, {sum(life.passwords for life in lives)} logins; no start was refused"
    )
    # A start on a busy machine may do with fewer calls than the one that was looked at.
    assert len(lives) >= (0.9 * len(plan) if WHOLE else 15)
    assert 0 < lost < 15 if WHOLE else lost == 0


def _first_of_each(plan: list[Call]) -> list[Call]:
    """The first call of each name on each file, up to the first exchange and without SQLite's index of the log."""
    first: dict[tuple[str, str], Call] = {}
    for call in plan:
        path = re.search(r"/state/state(/[a-z.-]+)?[\">]", call.text)
        if path is not None and path[1] != "/state.db-shm" and call.name not in ("chmod", "fchmod", "fchown", "flock"):
            first.setdefault((call.name, path[1] or ""), call)
    return list(first.values())


def _live_twice(machine: Machine, log: Path, call: Call) -> Life | None:
    """None where the first life was not struck."""
    killed = _is_killed(machine, log, call)
    if killed:
        machine.start()
        machine.stop()
    stored = machine.stored()
    lost = machine.granted - stored.generation
    assert (stored.damage, machine.leftovers(), machine.leaks()) == ("", [], [])
    assert lost in (0, 1)
    assert machine.passwords == 1 + lost, f"{call}: {machine.passwords} logins for {lost} lost answers"
    return Life(bool(lost), machine.passwords) if killed else None


def _is_killed(machine: Machine, log: Path, call: Call | None) -> bool:
    """Start the daemon under a tracer that kills it at ``call``; where it is not struck, it publishes and is ended."""
    stage = machine.stage
    paths = [word for part in NAMES for word in ("-P", str(stage.state / part) if part else str(stage.state))]
    options = tracer.all_calls() if call is None else tracer.one_fault(call.name, call.number, KILL)
    command = ["strace", "-f", "-qq", "-yy", "-s", "24", "-o", str(log), *paths, *options]
    with (stage.folder / "log-traced").open("wb") as said:
        popen = subprocess.Popen(
            [*command, *stage.command("run")], env=stage.environ(), cwd=stage.folder, stdin=subprocess.DEVNULL,
            stdout=said, stderr=said,
        )  # fmt: skip
    try:
        wait_for(lambda: popen.poll() is not None or machine.is_settled(), "the first token, or the kill")
    finally:
        if popen.poll() is None:
            # The tracer itself must not be killed: it would let go, and the daemon would live on.
            for child in Path(f"/proc/{popen.pid}/task/{popen.pid}/children").read_text().split():
                os.kill(int(child), signal.SIGTERM)
        code = popen.wait(hall.HELD_AT_MOST)
    assert code in (0, -signal.SIGKILL), (stage.folder / "log-traced").read_text()
    return code != 0

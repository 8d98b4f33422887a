"""Starts that are killed at each call on their state: the next start goes on, refuses nothing, and logs in again only
where an answer was lost in the window. A first start makes its state; one after a lost answer recovers from it.

By default the calls that stand for all; with FAULTS=all each of them.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Container
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.acceptance.stage import wait_for
from tests.faults import hall, points, tracer
from tests.faults.hall import Machine, Order
from tests.faults.tracer import KILL, Call, Fault

Figures = Callable[[str], None]

WHOLE = os.environ.get("FAULTS") == "all"


@pytest.fixture(autouse=True)
def traceable() -> None:
    if why := tracer.missing():
        pytest.skip(why)


AT_ONCE = 3
TRACE = "trace"

# The private folder, and everything that we and SQLite put into it.
NAMES = ("", "lock", "created", "reserve", "state.db", "state.db-wal", "state.db-shm", "state.db-journal")

# What changes a file, a name, or what is durable.
CALLS = (
    "mkdir", "chmod", "openat", "fchmod", "fchown", "flock", "ftruncate", "pwrite64", "fdatasync", "fsync", "unlink",
    "write", "fallocate", "rename",
)  # fmt: skip

# The likeliest error of each that can fail at all (see `points.can_fail`).
ERRORS = {
    **dict.fromkeys(("mkdir", "pwrite64", "write", "fallocate"), "ENOSPC"),
    **dict.fromkeys(("chmod", "fchmod", "ftruncate", "fdatasync", "fsync", "unlink", "pread64", "newfstatat"), "EIO"),
    **dict.fromkeys(("openat",), "EMFILE"),
    **dict.fromkeys(("flock", "fcntl"), "ENOLCK"),
}
# sysexits.h: what a supervisor starts again.
EX_UNAVAILABLE, EX_TEMPFAIL = 69, 75
GOOD_CODES = (0, EX_UNAVAILABLE, EX_TEMPFAIL)

# By default; SQLite's index of the log is made anew by every start.
TELLING = ("mkdir", "pwrite64", "fdatasync", "fsync", "unlink", "write", "fallocate")

Before = Callable[[Machine], None]


def test_a_first_start_killed_at_each_call_is_gone_on_with(tmp_path: Path, figures: Figures) -> None:
    plan = _plan(tmp_path, _nothing)
    lost = _kill_each(tmp_path, _nothing, plan if WHOLE else _first_of_each(plan)[::2])
    _tell("a first start", plan, lost, figures)
    # A start on a busy machine may do with fewer calls than the one that was looked at.
    assert len(lost) >= (0.9 * len(plan) if WHOLE else 6)
    assert 0 < sum(lost) < 15 if WHOLE else sum(lost) == 0


def test_a_start_after_a_lost_answer_killed_at_each_call_is_gone_on_with(tmp_path: Path, figures: Figures) -> None:
    """It sends the spent refresh token again, is refused, and logs in: two intents, two answers, one of them good."""
    plan = _plan(tmp_path, _lose_an_answer)
    syncs = [call for call in plan if call.name == "fdatasync"]
    lost = _kill_each(tmp_path, _lose_an_answer, plan if WHOLE else syncs[1::3])
    _tell("a start after a lost answer", plan, lost, figures)
    assert len(lost) >= (0.9 * len(plan) if WHOLE else 2)
    # The answer of before; in the whole also that of the login, for every write of its save.
    assert min(lost) == 1
    assert max(lost) == 2 if WHOLE else max(lost) <= 2


@pytest.mark.whole
@pytest.mark.parametrize("before", ["a first start", "a start"])
def test_a_start_whose_calls_fail_goes_on_or_asks_for_another(tmp_path: Path, before: str, figures: Figures) -> None:
    prepare = _nothing if before == "a first start" else _live_once
    plan = _plan(tmp_path, prepare, ERRORS)
    codes = Counter(_fail_each(tmp_path, prepare, plan))
    figures(
        f"strace, {before}: {codes.total()} of {len(plan)} calls on its state failed; {codes[0]} starts went on, "
        f"{codes.total() - codes[0]} asked for another"
    )
    assert codes.total() >= 0.9 * len(plan)
    assert codes[0] > 0


def test_a_read_that_fails_once_is_no_damage(tmp_path: Path) -> None:
    """For damage a supervisor starts nothing again."""
    for before in (_nothing, _live_once):
        (folder := tmp_path / before.__name__).mkdir()
        plan = _plan(folder, before, {"pread64": "EIO"})
        assert len(_fail_each(folder, before, plan[:4])) >= 3


def test_a_start_without_locks_asks_for_another(tmp_path: Path) -> None:
    plan = _plan(tmp_path, _nothing, {"flock": "ENOLCK"})
    assert _fail_each(tmp_path, _nothing, plan) == [EX_UNAVAILABLE]


def _fail_each(tmp_path: Path, before: Before, plan: list[Call]) -> list[int]:
    """The exit codes of the starts that were struck; of those that went on 0."""

    def case(machine: Machine, call: Call) -> int | None:
        before(machine)
        code = _exit_code(machine, call, Fault(ERRORS[call.name]))
        told = _told(machine)
        assert code in GOOD_CODES, f"{call}: {code}\n{told}"
        assert "defect" not in told, f"{call}\n{told}"
        machine.start()
        machine.stop()
        assert _lost(machine, call) == 0
        return code if any(one.struck for one in tracer.read(machine.folder / TRACE)) else None

    return _each(tmp_path, plan, case)


def _nothing(machine: Machine) -> None:
    pass


def _live_once(machine: Machine) -> None:
    machine.start()
    machine.stop()


def _lose_an_answer(machine: Machine) -> None:
    """Killed while the provider works: it commits, and nobody is there to be told."""
    machine.start()
    granted, order = machine.granted, Order(machine.client)
    machine.gate.close()
    order.start()
    wait_for(lambda: machine.gate.arrived, "the request")
    machine.process.end(signal.SIGKILL)
    machine.gate.open()
    order.join()
    wait_for(lambda: machine.granted > granted, "the provider's commit")


def _plan(tmp_path: Path, before: Before, names: Container[str] = CALLS) -> list[Call]:
    with hall.prepared(tmp_path / "clean") as machine:
        before(machine)
        assert _exit_code(machine) == 0, _told(machine)
        calls = tracer.read(machine.folder / TRACE)
    return [call for call in calls if call.name in names and (names is CALLS or points.can_fail(call))]


def _kill_each(tmp_path: Path, before: Before, plan: list[Call]) -> list[int]:
    """How many answers were lost in each life that was struck."""

    def case(machine: Machine, call: Call) -> int | None:
        before(machine)
        code = _exit_code(machine, call)
        if code == 0:
            return None
        assert code == -signal.SIGKILL, _told(machine)
        machine.start()
        machine.stop()
        return _lost(machine, call)

    return _each(tmp_path, plan, case)


def _each(tmp_path: Path, plan: list[Call], case: Callable[[Machine, Call], int | None]) -> list[int]:
    """The case with every call of the plan, each on a machine of its own; those that struck. Some at once: most of
    their time is waiting."""

    def run(number: int, call: Call) -> int | None:
        folder = tmp_path / f"machine-{number}"
        with hall.prepared(folder) as machine:
            found = case(machine, call)
        shutil.rmtree(folder)
        return found

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(run, range(len(plan)), plan))
    return [one for one in found if one is not None]


def _lost(machine: Machine, call: Call) -> int:
    stored = machine.stored()
    lost = machine.granted - stored.generation
    assert (stored.damage, machine.leftovers(), machine.leaks()) == ("", [], [])
    assert machine.passwords == 1 + lost, f"{call}: {machine.passwords} logins for {lost} lost answers"
    return lost


def _tell(what: str, plan: list[Call], lost: list[int], figures: Figures) -> None:
    figures(
        f"strace, {what}: killed at {len(lost)} of {len(plan)} calls on its state; {sum(lost)} answers lost in the "
        f"window, {len(lost) + sum(lost)} logins; no start was refused"
    )


def _first_of_each(plan: list[Call]) -> list[Call]:
    """The first call of each name on each file, of those that change what the next start will find."""
    first: dict[tuple[str, str], Call] = {}
    for call in plan:
        path = re.search(r"/state/state(/[a-z.-]+)?[\">]", call.text)
        if path is not None and path[1] != "/state.db-shm" and call.name in TELLING:
            first.setdefault((call.name, path[1] or ""), call)
    return list(first.values())


def _exit_code(machine: Machine, call: Call | None = None, fault: Fault = KILL) -> int:
    """Start the daemon under a tracer that lets ``call`` fail; if it publishes all the same, it is ended. Returns the
    exit code, or the number of a signal, negative."""
    stage = machine.stage
    paths = [word for part in NAMES for word in ("-P", str(stage.state / part) if part else str(stage.state))]
    options = tracer.all_calls() if call is None else tracer.one_fault(call.name, call.number, fault)
    command = ["strace", "-f", "-qq", "-yy", "-s", "24", "-o", str(machine.folder / TRACE), *paths, *options]
    with (stage.folder / "log-traced").open("wb") as said:
        popen = subprocess.Popen(
            [*command, *stage.command("run")], env=stage.environ(), cwd=stage.folder, stdin=subprocess.DEVNULL,
            stdout=said, stderr=said,
        )  # fmt: skip
    try:
        wait_for(lambda: popen.poll() is not None or machine.is_settled(), "the first token, or the end")
    finally:
        if popen.poll() is None:
            # The tracer itself must not be killed: it would let go, and the daemon would live on.
            for child in Path(f"/proc/{popen.pid}/task/{popen.pid}/children").read_text().split():
                os.kill(int(child), signal.SIGTERM)
        code = popen.wait(hall.HELD_AT_MOST)
    return code


def _told(machine: Machine) -> str:
    return (machine.folder / "log-traced").read_text()

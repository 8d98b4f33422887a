"""Each system call of a rotation is killed once and fails once, in a daemon that runs: no token file is torn, and the
chain is lost nowhere but between the provider's commit and our save.

By default the calls that stand for all; with FAULTS=all every call that touches the store, the secrets, the provider
or the target, and every error that it may have. The whole table is kept where the figures say.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.acceptance.reader import Seen
from tests.faults import hall, points, tracer
from tests.faults.hall import Machine
from tests.faults.matrix import Matrix, table
from tests.faults.points import Point
from tests.faults.tracer import KILL, Fault

Figures = Callable[[str], None]

WHOLE = os.environ.get("FAULTS") == "all"


@pytest.fixture(autouse=True)
def traceable() -> None:
    if why := tracer.missing():
        pytest.skip(why)


@pytest.fixture
def kept(pytestconfig: pytest.Config) -> Path:
    """A folder that outlives the run."""
    assert pytestconfig.cache is not None
    return pytestconfig.cache.mkdir("strace")


def test_killed_at_every_call(tmp_path: Path, kept: Path, figures: Figures) -> None:
    with hall.running(tmp_path / "machine") as (struck, reader):
        matrix = Matrix(struck, tmp_path)
        plan = list(matrix.learn())
        if WHOLE:
            _strike_all(matrix, plan, lambda _: (KILL,))
        else:
            for point in points.telling(plan):
                matrix.strike(point, KILL)
    _report("killed", matrix, reader.seen, kept, figures)
    _assert_covered(matrix, plan)
    lost = [row for row in matrix.rows if row.lost]
    assert len(lost) >= 2, "nothing was struck between the provider's commit and our save: this proved nothing"
    assert {points.RECEIVE, points.SAVE} == {row.point.step for row in lost}
    # Once its pages are in the log, a save outlives the process.
    assert any(row.point.name == "fdatasync" and not row.lost for row in matrix.rows if row.point.step == points.SAVE)


def test_every_call_fails(tmp_path: Path, kept: Path, figures: Figures) -> None:
    with hall.running(tmp_path / "machine") as (struck, reader):
        matrix = Matrix(struck, tmp_path)
        plan = list(matrix.learn())
        if WHOLE:
            _strike_all(matrix, plan, points.faults)
        else:
            for point in points.telling(plan):
                matrix.strike(point, points.faults(point)[0])
        assert len(struck.lives) == 1, "one failed call ended the daemon"
    _report("failed", matrix, reader.seen, kept, figures)
    _assert_covered(matrix, plan)
    # An answer that never arrives is lost; one that did is saved, whatever the disk says first.
    assert {row.point.step for row in matrix.rows if row.lost} == {points.RECEIVE}


def test_killed_and_failed_while_the_log_is_moved_into_the_database(
    tmp_path: Path, kept: Path, figures: Figures
) -> None:
    """A checkpoint: what is saved stands in the log, in the database, or in both."""
    with hall.running(tmp_path / "machine") as (struck, reader):
        matrix = Matrix(struck, tmp_path)
        matrix.learn()
        for name in ("pwrite64", "ftruncate", "fdatasync"):
            for fault in (KILL, *(Fault(error) for error in points.ERRORS[name])):
                for number in itertools.count(1) if WHOLE else (1,):
                    if matrix.run_checkpoint(name, number, fault) is None:
                        assert number > 1, f"{name} was not called on the database: no checkpoint came"
                        break
    _report("killed and failed in a checkpoint", matrix, reader.seen, kept, figures)
    assert {row.point.step for row in matrix.rows} == {points.CHECKPOINT}
    assert len(matrix.rows) >= (12 if WHOLE else 6)


def test_an_answer_waits_for_a_disk_that_fails_for_a_while(tmp_path: Path, kept: Path, figures: Figures) -> None:
    """One failed write is tried again by the store itself; these outlast all that it tries on its own."""
    with hall.running(tmp_path / "machine") as (struck, reader):
        matrix = Matrix(struck, tmp_path)
        plan = matrix.learn()
        for name in ("pwrite64", "fdatasync"):
            point = next(at for at in plan if (at.step, at.name) == (points.SAVE, name))
            for error in points.ERRORS[name]:
                matrix.strike(point, Fault(error, times=12))
        assert "waits in memory to be saved" in struck.process.told
        assert len(struck.lives) == 1
    _report("failed for a while", matrix, reader.seen, kept, figures)
    assert [row for row in matrix.rows if row.lost] == []


def test_nothing_is_asked_where_the_answer_could_not_be_heard(tmp_path: Path, kept: Path, figures: Figures) -> None:
    """Where the kernel has no room to watch a connection, the request must not leave: its answer would be lost."""
    with hall.running(tmp_path / "machine") as (struck, reader):
        matrix = Matrix(struck, tmp_path)
        plan = matrix.learn()
        for point in [at for at, call in plan.items() if at.name == "epoll_ctl" and points.can_fail(call)]:
            matrix.strike(point, Fault("ENOMEM"))
    _report("failed to watch", matrix, reader.seen, kept, figures)
    assert len(matrix.rows) >= 2
    assert [row for row in matrix.rows if row.lost] == []


def _strike_all(matrix: Matrix, plan: list[Point], faults: Callable[[Point], tuple[Fault, ...]]) -> None:
    """In the order of the trip, every name of a call in its place."""
    for point in {(at.half, at.place, at.name): at for at in plan}.values():
        for fault in faults(point):
            matrix.strike_all(point.half, point.place, point.name, fault)
    # A log that began anew or was moved has calls more: what they took the place of is struck once more.
    struck = {row.point for row in matrix.rows}
    for point in points.weighty(plan):
        if point not in struck:
            matrix.strike(point, faults(point)[0])


def _assert_covered(matrix: Matrix, plan: list[Point]) -> None:
    wanted = set(points.weighty(plan) if WHOLE else points.telling(plan))
    assert len(wanted) > 15
    assert wanted <= {row.point for row in matrix.rows}


def _report(what: str, matrix: Matrix, seen: Seen, kept: Path, figures: Figures) -> None:
    """Tell, keep the table, and judge what holds for every fault."""
    rows, struck = matrix.rows, matrix.machine
    place = kept / f"{what.replace(' ', '-')}{'-all' if WHOLE else ''}.md"
    everything = rows + matrix.astray
    place.write_text(table(f"Calls {what}", everything))
    slowest = max(row.seconds for row in rows)
    lost = sum(row.lost for row in everything)
    figures(
        f"strace, {what}: {len(rows)} calls struck in {len({row.point for row in rows})} places, {matrix.missed} aimed "
        f"again, {len(matrix.astray)} felt elsewhere; {lost} answers lost, all in the window: "
        f"{sum(row.passwords for row in everything)} logins; "
        f"all well again within {slowest:.1f} s ({place})"
    )
    figures(
        f"  reader: {seen.reads} reads, {len(seen.tokens)} tokens; torn {seen.torn}, missing {seen.missing}, "
        f"expired {seen.expired}; least time left {seen.least_left:.1f} s"
    )
    assert [str(row) for row in everything if row.wrong] == []
    assert seen.reads > 100
    assert (seen.torn, seen.missing, seen.expired) == (0, 0, 0), seen.oddities
    assert seen.generations == sorted(seen.generations), "an older generation came back"
    assert set(seen.tokens) <= set(struck.issued)
    _assert_provider_was_spared(struck, lost)


def _assert_provider_was_spared(place: Machine, lost: int) -> None:
    journal = place.provider.journal
    # The first login of the machine, and one for each answer that nobody could have kept.
    assert place.passwords == 1 + lost
    assert max(journal.max_in_flight.values()) == 1
    assert place.leaks() == []

"""A fleet of 1, 2 and 4 daemons on one PostgreSQL, all on this machine: what a rotation costs, and a takeover."""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from rotator.engine.fleet import SHIFT
from tests.peers import crowd, fleet, postgres
from tests.peers.fleet import Machine, Wish
from tests.peers.postgres import Postgres

SIZES = (1, 2, 4)
HOLD, STARTING = 0.02, 120.0


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one fleet. ``cpu`` in milliseconds for each rotation, all daemons together; ``trips`` are transactions of the
    server for each rotation."""

    daemons: int
    rotations: int
    per_second: float
    cpu: float
    trips: float


@dataclass(frozen=True, slots=True)
class Takeover:
    """Seconds from a kill -9 until the leases of the dead were taken over."""

    lease: float
    orphans: int
    median: float
    longest: float


def measure(daemons: int, grants: int, span: float) -> Figures:
    """Grants that are due every few seconds, without files: only rotations are counted."""
    wish = Wish(grants=grants, lifetime=30.0, deadline=5.0, budget=8, rotate_at=0.25, files=False)
    with postgres.cluster() as server, crowd.serve(wish.lifetime, HOLD) as served:
        database = server.database()
        with (
            tempfile.TemporaryDirectory() as folder,
            fleet.fleet(Path(folder), daemons, wish, served, server.url(database)) as machines,
        ):
            _wait_started(machines, grants, served)
            # Until they are no herd any more.
            time.sleep(wish.lifetime / 2)
            before = len(served.log()), _cpu(machines), _commits(server, database), time.monotonic()
            time.sleep(span)
            after = len(served.log()), _cpu(machines), _commits(server, database), time.monotonic()
    rotations, cpu, trips, passed = (later - earlier for later, earlier in zip(after, before, strict=True))
    return Figures(daemons, int(rotations), rotations / passed, 1000 * cpu / rotations, trips / rotations)


def take_over(grants: int) -> Takeover:
    """One of three, which rotates, is killed while its exchanges are held at the provider."""
    wish = Wish(grants=grants, lifetime=30.0, deadline=5.0, budget=8, rotate_at=0.25, files=False)
    with postgres.cluster() as server, crowd.serve(wish.lifetime, 1.0) as served:
        state = server.url(server.database())
        with tempfile.TemporaryDirectory() as folder, fleet.fleet(Path(folder), 3, wish, served, state) as machines:
            _wait_started(machines, grants, served)
            time.sleep(wish.lifetime / 2)
            popen = _on_shift(machines).popen
            assert popen is not None
            popen.kill()
            popen.wait()
            ends = [end for end in fleet.watch_orphans(state, time.time(), 60.0) if end > wish.deadline]
    return Takeover(wish.lease, len(ends), statistics.median(ends or [0.0]), max(ends, default=0.0))


def _wait_started(machines: list[Machine], grants: int, served: crowd.Served) -> None:
    until = time.monotonic() + STARTING
    while len(served.log()) < grants or any(one.health() is None for one in machines):
        if time.monotonic() > until:
            raise RuntimeError(f"the fleet did not start: {machines[0].told()}")
        time.sleep(0.3)


def _on_shift(machines: list[Machine]) -> Machine:
    """Who rotates now: whoever has just used the most processor time."""
    before = [one.cpu() for one in machines]
    time.sleep(SHIFT.total_seconds() / 4)
    used = [one.cpu() - earlier for one, earlier in zip(machines, before, strict=True)]
    return machines[used.index(max(used))]


def _cpu(machines: list[Machine]) -> float:
    return sum(one.cpu() for one in machines)


def _commits(server: Postgres, database: str) -> int:
    # Sessions report what they did at intervals of a second.
    ((commits,),) = server.do(f"SELECT xact_commit FROM pg_stat_database WHERE datname = '{database}'")
    return int(commits)

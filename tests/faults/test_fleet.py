"""A fleet on one PostgreSQL while its daemons are killed and stopped and its connections are cut.

A shortened form always, the whole with FAULTS=all. What the provider's log and the readers must show is the same.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from tests.peers import crowd, fleet, postgres
from tests.peers.crowd import Exchanged
from tests.peers.fleet import Machine, Readers, Sight, Wish
from tests.peers.postgres import Postgres

Figures = Callable[[str], None]
PATIENCE = 300.0
HOLD = 0.05
# Between a look of the test's and one of a reader.
SLACK = 0.5


@dataclass(frozen=True)
class Form:
    """``span`` in seconds; ``fewest`` blows of each kind that must have fallen."""

    machines: int
    wish: Wish
    span: float
    fewest: int


# The lead (20 s) holds the end of a killed owner's lease (5 s), the pause of a daemon that stands still (6.7 s), a
# refused refresh and the login after it; with less, an expired token would be the form's fault.
SHORT = Form(2, Wish(grants=100, lifetime=40.0, deadline=2.0, budget=8, rotate_at=0.5), 45.0, 2)
# Two thousand keep two processors busy; FLEET is for machines that have other things to do.
WHOLE = Form(4, Wish(grants=int(os.environ.get("FLEET", "2000")), lifetime=60.0, deadline=5.0, budget=8), 180.0, 6)


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres.cluster() as running:
        yield running


def wait(condition: Callable[[], object], what: Callable[[], str], within: float = PATIENCE) -> None:
    until = time.monotonic() + within
    while not condition():
        assert time.monotonic() < until, what()
        time.sleep(0.05)


@dataclass
class Blows:
    """What was done to the fleet and when (seconds since the epoch)."""

    killed: list[float] = field(default_factory=list)
    stopped: list[tuple[float, float]] = field(default_factory=list)
    cut: list[float] = field(default_factory=list)
    # Leases whose owner was killed under them: how long until somebody else had them or they were given back.
    orphans: list[float] = field(default_factory=list)
    # How long those that were started again, or went on, needed to have caught up with their files.
    back: list[float] = field(default_factory=list)


class Misfortune:
    """Strikes machines and connections at random until its time is up."""

    def __init__(self, machines: list[Machine], form: Form, server: Postgres, database: str) -> None:
        self._machines = machines
        self._form = form
        self._server = server
        self._database = database
        self._dice = random.Random(int(os.environ.get("SEED", "11")))
        self.blows = Blows()

    def strike(self) -> None:
        until = time.monotonic() + self._form.span
        kinds = [self._kill, self._stop, self._cut]
        number = 0
        while time.monotonic() < until:
            kinds[number % len(kinds)](self._dice.choice(self._machines))
            number += 1
            time.sleep(self._dice.uniform(0.3, 2.0))

    def _kill(self, machine: Machine) -> None:
        machine.popen.kill()  # type: ignore[union-attr]
        machine.popen.wait()  # type: ignore[union-attr]
        since = time.time()
        self.blows.killed.append(since)
        deadline = self._form.wish.deadline
        ends = fleet.watch_orphans(self._server.url(self._database), since, self._form.wish.lease + 30)
        # What ended within the deadline was merely at work.
        self.blows.orphans += [end for end in ends if end > deadline]
        # A supervisor would start it again at once.
        machine.start()
        self._wait_back(machine, since)

    def _stop(self, machine: Machine) -> None:
        since = time.time()
        os.kill(machine.pid, signal.SIGSTOP)
        # Longer than a lease at times, so that others take over.
        time.sleep(self._dice.uniform(0.2, min(self._form.wish.lease + 2, self._form.wish.lifetime / 6)))
        os.kill(machine.pid, signal.SIGCONT)
        self.blows.stopped.append((since, time.time()))
        self._wait_back(machine, since)

    def _cut(self, machine: Machine) -> None:
        self.blows.cut.append(time.time())
        self._server.cut()

    def _wait_back(self, machine: Machine, since: float) -> None:
        """Until it has caught up with its own files, which nobody else can write."""
        began = time.time()
        wait(lambda: machine.health() is not None and machine.published() == self._form.wish.grants, machine.told)
        machine.away.append((since, time.time() + SLACK))
        self.blows.back.append(time.time() - began)


def by_grant(log: list[Exchanged]) -> dict[str, list[Exchanged]]:
    found: dict[str, list[Exchanged]] = defaultdict(list)
    for one in sorted(log, key=lambda one: one.asked_at):
        found[one.grant].append(one)
    return found


def overlapping(log: list[Exchanged]) -> list[tuple[Exchanged, Exchanged]]:
    return [
        (one, two)
        for exchanges in by_grant(log).values()
        for one, two in pairwise(exchanges)
        if two.asked_at < (one.answered_at or one.asked_at + HOLD)
    ]


def lost(log: list[Exchanged]) -> list[Exchanged]:
    """Granted answers from which the chain did not go on."""
    return [
        one
        for exchanges in by_grant(log).values()
        for one, two in pairwise([each for each in exchanges if each.status == 200])
        if two.kind == "password"
    ]


def is_near(at: float, spans: list[tuple[float, float]], before: float, after: float) -> bool:
    return any(begin - before <= at <= end + after for begin, end in spans)


def judge(form: Form, blows: Blows, log: list[Exchanged], readers: Readers, machines: list[Machine]) -> list[Sight]:
    """Assert what the log must show; the sights that no absence of a machine's own daemon explains."""
    kills = [(at, at) for at in blows.killed]
    for one, two in overlapping(log):
        # Only who stood still between the check of his lease and the first byte may be late.
        assert is_near(two.asked_at, blows.stopped, 0.0, form.wish.deadline), (one, two, blows.stopped)
    for one in lost(log):
        # The provider had committed, and the one who asked was dead before he could save, or too late to be asked.
        assert is_near(one.committed_at, kills, form.wish.deadline, 0.5) or is_near(
            one.committed_at, blows.stopped, form.wish.deadline, form.wish.deadline
        ), (one, blows.killed)
    return [sight for sight in readers.wrong if not is_near(sight.at, machines[sight.machine].away, 0.0, 0.0)]


@pytest.mark.parametrize(
    "form", [pytest.param(SHORT, id="short"), pytest.param(WHOLE, id="whole", marks=pytest.mark.whole)]
)
def test_a_fleet_rotates_each_grant_once_whatever_befalls_its_daemons(
    tmp_path: Path, server: Postgres, form: Form, figures: Figures
) -> None:
    wish, database = form.wish, server.database()
    with (
        crowd.serve(wish.lifetime, HOLD) as served,
        fleet.fleet(tmp_path, form.machines, wish, served, server.url(database)) as machines,
    ):
        for one in machines:
            wait(lambda: one.published() == wish.grants, lambda: f"{one.published()} published\n{one.told()}")  # noqa: B023
        first = len(served.log())
        readers, misfortune = Readers(machines, wish), Misfortune(machines, form, server, database)
        with readers.reading():
            misfortune.strike()
        codes = [one.end() for one in machines]
        log, blows = served.log(), misfortune.blows
        told = "\n".join(one.told() for one in machines)
    passwords = sum(one.kind == "password" for one in log)
    refused, more = sum(one.status != 200 for one in log), passwords - wish.grants
    figures(
        f"{form.machines} daemons, {wish.grants} grants of {wish.lifetime:g} s, deadline {wish.deadline:g} s, lease "
        f"{wish.lease:g} s, {form.span:g} s: {len(blows.killed)} x kill -9, {len(blows.stopped)} x SIGSTOP, "
        f"{len(blows.cut)} x all connections cut; {len(log) - first} exchanges after the first {first}, {refused} "
        f"refused, {more} more logins (budget {wish.budget} a grant); in flight together: {len(overlapping(log))}, "
        f"answers lost: {len(lost(log))}"
    )
    if blows.orphans:
        figures(
            f"  {len(blows.orphans)} orphans taken over {statistics.median(blows.orphans):.1f} s (median) and "
            f"{max(blows.orphans):.1f} s (longest) after the kill"
        )
    figures(f"  back with all files: {statistics.median(blows.back):.1f} s (median), {max(blows.back):.1f} s (longest)")
    unexplained = judge(form, blows, log, readers, machines)
    figures(
        f"  readers: {readers.reads} reads, least time left {readers.least_left:.1f} s; wrong while the machine's own "
        f"daemon was away: {len(readers.wrong) - len(unexplained)}, else: {len(unexplained)}"
    )
    assert unexplained == [], told
    assert codes == [0] * form.machines, told
    assert min(len(blows.killed), len(blows.stopped), len(blows.cut)) >= form.fewest
    assert more <= len(lost(log)) + refused
    assert "A defect" not in told and "Traceback" not in told, told

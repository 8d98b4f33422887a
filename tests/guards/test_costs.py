"""What one rotation costs, counted and not timed: the real engine on real drivers against an endpoint in another
process. The figures hold on a busy machine too; a bound that is broken names what has come to the path of every
rotation. Each bound leaves room for how many happen to share a commit or a turn of the loop, which the load decides.
"""

from __future__ import annotations

import asyncio
import gc
import io
import selectors
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import benchmarks
from benchmarks import herd
from rotator.core import events, health
from rotator.core.publication import Settled
from rotator.core.tokens import AccessToken, Secret
from rotator.drivers.postgres import Address, PostgresStore
from rotator.engine.alarm import Alarm
from rotator.engine.bus import Bus
from rotator.engine.courier import Courier
from rotator.engine.crew import Crew
from rotator.engine.desks import Desks
from rotator.engine.fleet import Fleet
from rotator.engine.following import Following
from rotator.engine.tools import Tools
from rotator.lab import world
from tests.contracts.stores import FakeClock, FakeDice
from tests.engine.stage import HOUR, Stage
from tests.peers import postgres

LEAN = Path(benchmarks.__file__).with_name("lean.py")
HERD = 60
SECOND = timedelta(seconds=1)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with subprocess.Popen([sys.executable, str(LEAN)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}/oauth/v2/token"
        process.stdin.close()


class Selector(selectors.EpollSelector):
    """Counts how often the loop turns."""

    def __init__(self, counted: Counter[str]) -> None:
        super().__init__()
        self._counted = counted

    def select(self, timeout: float | None = None) -> Any:
        self._counted["turns"] += 1
        return super().select(timeout)


class Loop(asyncio.SelectorEventLoop):
    """Counts tasks and callbacks."""

    def __init__(self, counted: Counter[str]) -> None:
        super().__init__(Selector(counted))
        self._counted = counted

    def create_task(self, work: Coroutine[Any, Any, Any], **options: Any) -> Any:
        self._counted["tasks"] += 1
        return super().create_task(work, **options)

    def call_soon(self, callback: Any, *arguments: Any, **options: Any) -> asyncio.Handle:
        self._counted["callbacks"] += 1
        return super().call_soon(callback, *arguments, **options)


def measured(tmp_path: Path, endpoint: str, count: int) -> Counter[str]:
    """What ``count`` rotations cost that became due together, after as many to warm up."""
    counted: Counter[str] = Counter()

    def statement(text: str) -> None:
        word = text.split()[0]
        counted["commits" if word == "COMMIT" else "statements"] += 1
        if word == "UPDATE" and text.split()[1] == "grants":
            counted["records"] += 1

    def traced(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(statement)

    def called(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            counted["calls"] += 1

    async def run() -> None:
        for folder in ("state", "run"):
            (tmp_path / folder).mkdir()
        shape = herd.Shape(
            url=endpoint, count=count, in_flight=count, state=tmp_path / "state", run=tmp_path / "run"
        )  # fmt: skip
        async with herd.Herd(shape, io.StringIO()) as served:
            await served.round()
            await served.store._read(traced)
            gc.collect()
            async with served.prepared() as begun:
                counted.clear()
                blocks = sys.getallocatedblocks()
                sys.setprofile(called)
                await begun()
                sys.setprofile(None)
                gc.collect()
                counted["blocks kept"] = sys.getallocatedblocks() - blocks

    with asyncio.Runner(loop_factory=lambda: Loop(counted)) as runner:
        runner.run(run())
    told = ", ".join(f"{name} {number / count:.1f}" for name, number in sorted(counted.items()))
    print(f"\n  {count} together, for each rotation: {told}")
    return counted


def test_a_herd_shares_its_commits_and_its_turns(tmp_path: Path, endpoint: str) -> None:
    counted = measured(tmp_path, endpoint, HERD)
    assert counted["records"] == 2 * HERD, "the intent and the answer, each in one statement"
    # BEGIN and the high-water mark belong to a commit; a delivery is the third write; the sweep asks what is due.
    assert counted["statements"] - 2 * counted["commits"] <= 3 * HERD + 20
    assert counted["commits"] <= 1.5 * HERD
    assert counted["tasks"] <= 4 * HERD, "the rotation, its shielded part, the delivery"
    assert counted["turns"] <= 11 * HERD
    assert counted["callbacks"] <= 23 * HERD
    assert counted["calls"] <= 1050 * HERD
    # What is known of a grant is replaced, not added to; the log in memory and caches grow a little.
    assert counted["blocks kept"] <= 40 * HERD


def test_one_alone_waits_for_three_commits_and_nobody_else(tmp_path: Path, endpoint: str) -> None:
    counted = measured(tmp_path, endpoint, 1)
    assert counted["records"] == 2
    assert counted["commits"] <= 3
    assert counted["tasks"] <= 16, "with those of the sweep and of the alarm"
    # A thread each for the secret, the three commits and the file, and what the sweep asks.
    assert counted["turns"] <= 80
    assert counted["calls"] <= 2100


async def followed(url: str, count: int) -> Counter[str]:
    """What it costs to take over ``count`` grants without targets here that another daemon saved."""
    counted, clock = Counter[str](), FakeClock()
    ours, theirs = (PostgresStore(Address(url), clock=clock, dice=FakeDice(), host="here") for _ in range(2))

    def called(frame: FrameType, event: str, argument: object) -> None:
        if event == "call":
            counted["calls"] += 1

    async def never(name: str, target: str, found: Settled) -> None:
        raise AssertionError(name)

    def ring() -> None:
        counted["rings"] += 1

    def told(event: events.Event) -> None:
        counted["events"] += 1

    await ours.open()
    await theirs.open()
    try:
        bus = Bus(clock.now)
        bus.join("test", told)
        tools = Tools(clock=clock, dice=FakeDice(), store=ours, bus=bus, owner="me", key=await ours.key())
        crew, watcher, fleet = Crew(bus, clock.now, ring), world.BlindWatcher(), Fleet("me")
        desks = Desks(tools, Courier(tools, crew, watcher, 30 * SECOND, ring, never), health.Margin())
        stage = Stage()
        names = [f"grant_{number:04}" for number in range(count)]
        await desks.take_over(world.FixedRoster([stage.enrolment(name, targets={}) for name in names]))
        following = Following(tools, crew, desks, Alarm(clock, ring, beaten=True), fleet)
        await following.follow()
        now = clock.now()
        for grant in await theirs.grants():
            access = AccessToken(Secret("theirs"), "bearer", None, now, now + HOUR, 1)
            saved = replace(grant, generation=1, access=access, refresh=Secret("theirs"), due_at=now + HOUR / 2)
            await theirs.save(saved, expected=0, lease=None, now=now)
        bus.flush()
        counted.clear()
        before = ours.counts
        sys.setprofile(called)
        await following.follow()
        sys.setprofile(None)
        bus.flush()
        counted["trips"] = ours.counts[1] - before[1]
        assert all(desk.grant.generation == 1 for desk in desks)
    finally:
        sys.setprofile(None)
        await theirs.close()
        await ours.close()
    print(f"\n  {count} followed: {dict(counted)}")
    return counted


def test_a_follower_makes_one_round_trip_and_little_work_of_each_record() -> None:
    with postgres.cluster() as server:
        one, many = (asyncio.run(followed(server.url(server.database()), count)) for count in (1, HERD))
    assert one["trips"] == many["trips"] == 1
    assert (one["rings"], many["rings"]) == (0, 0), "nothing is due that was not: no sweep"
    assert many["events"] == HERD
    # Unsealing, parsing, the desk, the alarm, an event.
    assert (many["calls"] - one["calls"]) / (HERD - 1) <= 60

"""What a daemon costs while nothing is due, counted and not timed: every answer of a thread wakes the loop, and the
thread was woken for it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from rotator.core import health
from rotator.core.tokens import AccessToken, Secret
from rotator.drivers.files import FilePublisher
from rotator.drivers.sqlite import SqliteStore
from rotator.engine.bus import Bus
from rotator.engine.scheduler import Scheduler
from rotator.engine.timing import Timing
from rotator.engine.tools import Tools
from rotator.lab import world
from tests.contracts.stores import FakeClock, FakeDice
from tests.engine.stage import HOUR, MINUTE, SECOND, Stage
from tests.guards import test_costs


class Loop(test_costs.Loop):
    """Counts what threads tell it."""

    def call_soon_threadsafe(self, callback: Any, *arguments: Any, **options: Any) -> asyncio.Handle:
        self._counted["answers of threads"] += 1
        return super().call_soon_threadsafe(callback, *arguments, **options)


class HandClock(FakeClock):
    """Rings for nobody: the test is the beat."""

    def alarm(self, at: datetime | None, ring: Callable[[], None]) -> None:
        """The test sweeps."""

    def deadline(self, limit: timedelta) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(None)


def test_a_minute_at_rest_is_six_sweeps_and_two_looks(tmp_path: Path) -> None:
    counted, found, timing = Counter[str](), Counter[str](), Timing()

    async def run() -> None:
        clock, dice = HandClock(), FakeDice()
        store = SqliteStore(tmp_path / "state", clock=clock, dice=dice)
        await store.open()
        bus = Bus(clock.now)
        tools = Tools(clock=clock, dice=dice, store=store, bus=bus, owner="us", key=await store.key())  # type: ignore[arg-type]
        place = FilePublisher(tmp_path / "token")
        stage = Stage()
        roster = world.FixedRoster([stage.enrolment("billing", targets={"app": place})])
        scheduler = Scheduler(roster, tools, timing, world.BlindWatcher(), lambda: None, health.Margin())
        try:
            await scheduler.begin()
            (grant,) = await store.grants()
            now = clock.now()
            access = AccessToken(Secret("ours"), "bearer", None, now, now + HOUR, 1)
            saved = replace(grant, generation=1, access=access, refresh=Secret("ours"), due_at=now + HOUR / 2)
            await store.save(saved, expected=0, lease=None, now=now)
            await scheduler.begin()
            for sweep in range(12):
                if sweep == 6:
                    counted.clear()
                await scheduler.sweep()
                await scheduler.quiet()
                clock.pass_time(timing.sweep_every)
            found.update(counted)
        finally:
            await scheduler.close()
            await store.close()

    assert timing.verify_every == 3 * timing.sweep_every == MINUTE / 2 == 30 * SECOND
    with asyncio.Runner(loop_factory=lambda: Loop(counted)) as runner:
        runner.run(run())
    print(f"\n  a minute at rest: {dict(found)}")
    assert (tmp_path / "token").read_text() == "ours"
    assert found["answers of threads"] == 2
    assert found["turns"] <= 60


def test_nothing_at_rest_knows_the_names_of_two_thousand_characters() -> None:
    """A third of a megabyte for ever, to escape five of them."""
    program = (
        "import sys; import rotator.assembly.house, rotator.drivers.oauth.words, rotator.frontends.http.server; "
        "print('html.entities' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.strip() == "False"

"""What the SQLite store keeps in mind of what it saved: no more than others hold, and never what is true no more."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from rotator.core.errors import Overtaken
from rotator.core.ports import Delivery
from rotator.drivers import sqlite
from tests.contracts.stores import NOW, FakeClock, FakeDice, granted, new

T = TypeVar("T")
LEASE = timedelta(seconds=30)
STEPS = 120


def tell(directory: Path, story: Callable[[sqlite.SqliteStore, FakeClock], Coroutine[Any, Any, T]]) -> T:
    async def run() -> T:
        clock = FakeClock()
        store = sqlite.SqliteStore(directory / "state.db", clock=clock, dice=FakeDice())
        await store.open()
        try:
            return await story(store, clock)
        finally:
            await store.close()

    return asyncio.run(run())


def test_what_nobody_else_holds_is_forgotten(tmp_path: Path) -> None:
    """A register of a million grants passes through: memory follows those that are at work."""

    async def story(store: sqlite.SqliteStore, clock: FakeClock) -> None:
        grant = granted(await store.enrol(new()))
        await store.save(grant, expected=0, lease=None, now=NOW)
        held, name = weakref.ref(grant), grant.name
        lease, known = await store.lease(name, "us", clock.moment(), LEASE)
        assert known is grant, "what was just saved is not read again"
        await store.release(lease)
        del grant, known
        # The writer holds its last jobs until the next.
        await store.high_water()
        gc.collect()
        assert held() is None
        _, read = await store.lease(name, "us", clock.moment(), LEASE)
        assert read.generation == 1

    tell(tmp_path, story)


@pytest.mark.parametrize("seed", range(12))
def test_a_lease_never_gives_what_was_true_before(tmp_path: Path, seed: int) -> None:
    """Reads, saves, cancelled saves and retirements, all at once: whoever takes a lease sees the last save, also one
    that nobody waited for."""
    dice = random.Random(seed)

    async def story(store: sqlite.SqliteStore, clock: FakeClock) -> None:
        grant = await store.enrol(new())
        readers: set[asyncio.Task[object]] = set()
        for _ in range(STEPS):
            match dice.choice(("read", "read", "save", "save", "cancel", "lease", "retire", "turn")):
                case "read":
                    readers.add(asyncio.ensure_future(store.grant(grant.name)))
                case "save":
                    grant, before = granted(grant), grant.generation
                    await store.save(grant, expected=before, lease=None, now=NOW)
                case "cancel":
                    # It is done all the same, only nobody hears of it.
                    grant, before = granted(grant), grant.generation
                    task = asyncio.ensure_future(store.save(grant, expected=before, lease=None, now=NOW))
                    for _ in range(dice.randrange(1, 4)):
                        await asyncio.sleep(0)
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
                case "lease":
                    lease, seen = await store.lease(grant.name, "us", clock.moment(), LEASE)
                    assert (seen.lineage, seen.generation) == (grant.lineage, grant.generation)
                    await store.release(lease)
                case "retire":
                    assert await store.retire(grant.name)
                    with pytest.raises(Overtaken):
                        await store.lease(grant.name, "us", clock.moment(), LEASE)
                    grant = await store.enrol(replace(new(), lineage=f"{dice.getrandbits(96):024x}"))
                case "turn":
                    await asyncio.sleep(0)
        await asyncio.gather(*readers)

    tell(tmp_path, story)


def test_no_answer_overtakes_one_that_was_asked_for_before(tmp_path: Path) -> None:
    """A herd is answered in portions: what is left of it comes before the answers of the next batch."""

    async def story(store: sqlite.SqliteStore, clock: FakeClock) -> None:
        grant = granted(await store.enrol(new()))
        await store.save(grant, expected=0, lease=None, now=NOW)
        answered: list[str] = []

        async def read(name: str) -> None:
            await store.grant(name)
            # What others do in the same turn of the loop.
            sum(range(5000))
            answered.append(name)

        reading = [asyncio.ensure_future(read(f"nobody_{number}")) for number in range(1500)]
        reading.append(asyncio.ensure_future(read(grant.name)))
        while not answered:
            await asyncio.sleep(0)
        newer = replace(grant, password_lost=True)
        await store.save(newer, expected=1, lease=None, now=NOW)
        assert answered[-1] == grant.name, "asked for before, and so answered before"
        _, seen = await store.lease(grant.name, "us", clock.moment(), LEASE)
        assert seen.password_lost
        await asyncio.gather(*reading)

    tell(tmp_path, story)


def test_what_was_delivered_is_asked_for_again_once_it_may_have_expired(tmp_path: Path) -> None:
    """Each question wakes a thread: a daemon at rest asks none that was answered."""
    asked = 0

    def traced(statement: str) -> None:
        nonlocal asked
        asked += "FROM deliveries WHERE expires_at <=" in statement

    async def story(store: sqlite.SqliteStore, clock: FakeClock) -> None:
        def deliver(expires_at: datetime) -> Delivery:
            return Delivery("billing", "app", "file:/run/token", "line", 1, expires_at, "mark")

        await store._read(lambda connection: connection.set_trace_callback(traced))
        first = deliver(NOW + LEASE)
        await store.delivered(first)
        for seconds in (0, 10, 5, 29):
            assert not await store.expired(NOW + timedelta(seconds=seconds), 10)
        assert asked == 1
        assert await store.expired(NOW + LEASE, 10) == [first]
        assert await store.expired(NOW + LEASE, 10) == [first], "nobody has taken it away"
        assert asked == 3
        await store.forget(first.grant, first.location)
        assert not await store.expired(NOW + LEASE, 10)
        # Nothing is there that could expire, until something is written.
        assert not await store.expired(NOW + timedelta(days=400), 10)
        assert asked == 4
        await store.delivered(deliver(NOW))
        assert len(await store.expired(NOW + LEASE, 10)) == 1

    tell(tmp_path, story)

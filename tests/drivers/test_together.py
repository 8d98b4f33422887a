"""What a herd does together, and what a daemon at rest leaves undone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from rotator.core.tokens import Secret
from rotator.drivers import secrets, sqlite
from rotator.drivers.files import lanes
from rotator.drivers.secrets import Reference, ReferenceSource
from tests.contracts.stores import NOW, FakeClock, FakeDice, granted, intent, new


class Variables(dict[str, str]):
    """Counts how often it is read."""

    count = 0

    def __getitem__(self, name: str) -> str:
        self.count += 1
        return super().__getitem__(name)


def source(environ: Mapping[str, str]) -> ReferenceSource:
    kept = Reference("env", Secret("PASSWORD"), "grants.x.password")
    return ReferenceSource("id", None, "user", kept, key=b"k", salt=(), environ=environ)


def test_who_asks_together_reads_together() -> None:
    environ = Variables(PASSWORD="word")

    async def run() -> list[Secret | None]:
        return [one.password for one in await asyncio.gather(*(source(environ).resolve() for _ in range(200)))]

    assert asyncio.run(run()) == [Secret("word")] * 200
    assert environ.count == 1


def test_what_cannot_be_read_harms_only_who_asked_for_it(tmp_path: Path) -> None:
    (tmp_path / "good").write_text("word")

    def of(name: str) -> ReferenceSource:
        kept = Reference("file", Secret(str(tmp_path / name)), "grants.x.password")
        return ReferenceSource("id", None, "user", kept, key=b"k", salt=(), environ={})

    async def run() -> list[object]:
        return await asyncio.gather(of("bad").resolve(), of("good").resolve(), return_exceptions=True)

    bad, good = asyncio.run(run())
    assert isinstance(bad, secrets.Unavailable)
    assert getattr(good, "password") == Secret("word")  # noqa: B009 (one of two kinds)


def test_what_hangs_holds_back_nothing_that_is_done_and_order_is_kept() -> None:
    lane, release, done = lanes.Lane(0), threading.Event(), list[int]()

    async def run() -> None:
        first = lane.run(lambda: done.append(1))
        second = lane.run(lambda: release.wait(30))
        third = lane.run(lambda: done.append(3))
        await asyncio.wait_for(first, 10)
        assert not third.done()
        third.cancel()
        fourth = lane.run(lambda: done.append(4))
        release.set()
        assert await asyncio.wait_for(second, 10)
        await asyncio.wait_for(fourth, 10)

    asyncio.run(run())
    # In another loop as well, whatever became of the first.
    asyncio.run(asyncio.wait_for(_run(lane, done), 10))
    assert done == [1, 4, 5]


async def _run(lane: lanes.Lane, done: list[int]) -> None:
    await lane.run(lambda: done.append(5))


def test_a_lease_finds_what_was_saved_last_and_a_save_on_its_way(tmp_path: Path) -> None:
    clock = FakeClock()

    async def run() -> None:
        store = sqlite.SqliteStore(tmp_path / "state.db", clock=clock, dice=FakeDice())
        await store.open()
        try:
            kept = await store.enrol(new("billing"))
            lease, found = await store.lease("billing", "me", clock.moment(), timedelta(seconds=45))
            assert found == kept
            meant = replace(kept, intent=intent(kept, clock.moment()))
            await store.save(meant, expected=0, lease=lease, now=NOW)
            # The answer is handed in, and whoever waits for it goes away: it is saved all the same.
            saving = asyncio.ensure_future(store.save(granted(meant), expected=0, lease=lease, now=NOW))
            await asyncio.sleep(0)
            saving.cancel()
            _, found = await store.lease("billing", "me", clock.moment(), timedelta(seconds=45))
            assert found.generation == 1
        finally:
            await store.close()

    asyncio.run(run())


def test_a_store_at_rest_is_not_asked_again_what_is_due(tmp_path: Path) -> None:
    reads: list[str] = []

    async def run() -> None:
        store = sqlite.SqliteStore(tmp_path / "state.db", clock=FakeClock(), dice=FakeDice())
        await store.open()
        try:
            due_at = NOW + timedelta(hours=1)
            grant = await store.enrol(replace(new("billing"), due_at=due_at))
            await store._read(lambda connection: connection.set_trace_callback(reads.append))
            for minutes in range(0, 60, 5):
                now = NOW + timedelta(minutes=minutes)
                assert await store.due(now, 10) == []
                assert await store.next_due(now) == due_at
            assert len(reads) == 2
            assert await store.due(due_at, 10) == ["billing"]
            assert await store.next_due(due_at) is None
            await store.save(replace(grant, due_at=NOW), expected=0, lease=None, now=NOW)
            assert await store.due(NOW, 10) == ["billing"]
            # A clock that was set back.
            assert await store.due(NOW - timedelta(days=1), 10) == []
            assert await store.next_due(NOW - timedelta(days=1)) == NOW
        finally:
            await store.close()

    asyncio.run(run())

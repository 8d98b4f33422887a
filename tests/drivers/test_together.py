"""What a herd does together, and what a daemon at rest leaves undone."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path, PosixPath
from typing import Any

import certifi
import pytest

from rotator import settings
from rotator.assembly import references
from rotator.assembly.plan import Plan
from rotator.core.errors import Unavailable
from rotator.core.ports import HttpRequest, Reach
from rotator.core.tokens import Secret
from rotator.drivers import http, kubernetes, secrets, sqlite
from rotator.drivers.files import lanes
from rotator.drivers.http import dial, trust
from rotator.drivers.processes import SignalHook
from rotator.drivers.secrets import Reference, ReferenceSource
from tests.contracts.publishers import publication
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


# --- a mount that hangs ----------------------------------------------------------------------------------------------


class Mount:
    """A far end that hangs until it is let go, as a network mount does. ``held`` threads wait for it."""

    def __init__(self) -> None:
        self.held = 0
        self.asked = threading.Event()
        self.released = threading.Event()

    def wait(self) -> None:
        self.held += 1
        self.asked.set()
        assert self.released.wait(60)

    async def wait_asked(self, reading: list[asyncio.Task[object]]) -> None:
        while not self.asked.is_set():
            assert not any(one.done() for one in reading)
            await asyncio.sleep(0)


class HungPath(PosixPath):
    """A path that nobody comes to the end of."""

    mount: Mount

    def __fspath__(self) -> str:
        self.mount.wait()
        return super().__fspath__()


class HungVariables(dict[str, str]):
    def __init__(self, mount: Mount) -> None:
        super().__init__(TOKEN="word")
        self._mount = mount

    def __getitem__(self, name: str) -> str:
        self._mount.wait()
        return super().__getitem__(name)


def hung(mount: Mount, path: str) -> HungPath:
    found = HungPath(path)
    found.mount = mount
    return found


# More than the loop has threads of its own (`concurrent.futures`: 32 at most).
MANY = 40
SHORT = timedelta(milliseconds=50)


def signals(mount: Mount) -> list[Coroutine[Any, Any, object]]:
    hooks = [SignalHook("g", "nudge", hung(mount, f"/net/{number}/app.pid"), "HUP") for number in range(MANY)]
    return [hook.settle(publication(1), NOW) for hook in hooks]


def tokens_of_pages(mount: Mount) -> list[Coroutine[Any, Any, object]]:
    """As `http.token` is read for each request, and the signing key of a webhook for each event."""
    token, loaded = Reference("env", Secret("TOKEN"), "http.token"), settings.load(None, {})
    plans = [Plan(loaded, HungVariables(mount), None) for _ in range(MANY)]

    async def read(plan: Plan) -> Secret:
        return await references.reader(plan, token)()

    return [read(plan) for plan in plans]


def accounts(mount: Mount) -> list[Coroutine[Any, Any, object]]:
    cluster = kubernetes.Cluster(http.HttpxClient(), "http://127.0.0.1:1", hung(mount, "/net/token"))
    return [cluster.ask("GET", "/") for _ in range(MANY)]


def requests(mount: Mount) -> list[Coroutine[Any, Any, object]]:
    """Whom a provider's requests trust."""
    asked = HttpRequest("GET", "https://127.0.0.1:1/")
    clients = [http.HttpxClient(ca_file=hung(mount, f"/net/{number}/ca.pem")) for number in range(MANY)]
    return [one.send(asked, deadline=timedelta(seconds=20)) for one in clients]


@pytest.mark.parametrize("readers", [signals, tokens_of_pages, accounts, requests])
def test_whatever_hangs_on_a_mount_a_name_is_looked_up(readers: Any) -> None:
    mount = Mount()

    async def run() -> None:
        reading = [asyncio.create_task(one) for one in readers(mount)]
        await mount.wait_asked(reading)
        try:
            async with asyncio.timeout(20):
                assert await dial.addresses("localhost", 80)
        finally:
            for task in reading:
                task.cancel()
            mount.released.set()
            await asyncio.gather(*reading, return_exceptions=True)

    asyncio.run(run())


def test_a_hook_on_a_mount_that_hangs_holds_one_thread_and_says_so() -> None:
    mount = Mount()
    hook = SignalHook("g", "nudge", hung(mount, "/net/hung/app.pid"), "HUP", patience=SHORT)

    async def run() -> None:
        for _ in range(3):
            with pytest.raises(Unavailable) as caught:
                await hook.settle(publication(1), NOW)
            told = "/net/hung/app.pid: not read within 0.05 s; the file system hangs; mend the mount"
            assert str(caught.value) == told
        assert mount.held == 1
        mount.released.set()

    asyncio.run(run())


def test_the_account_of_a_pod_on_a_mount_that_hangs_holds_one_thread_and_says_so() -> None:
    mount = Mount()
    token = hung(mount, "/net/token")
    cluster = kubernetes.Cluster(http.HttpxClient(), "http://127.0.0.1:1", token, patience=SHORT)

    async def run() -> None:
        for _ in range(3):
            with pytest.raises(Unavailable, match=r"/net/token was not read within 0.05 s; the file system hangs"):
                await cluster.ask("GET", "/")
        assert mount.held == 1
        mount.released.set()

    asyncio.run(run())


def test_a_ca_file_on_a_mount_that_hangs_holds_one_thread_and_says_so() -> None:
    mount = Mount()
    client = http.HttpxClient(ca_file=hung(mount, "/net/ca.pem"))

    async def run() -> None:
        for _ in range(3):
            answer = await client.send(HttpRequest("GET", "https://127.0.0.1:1/"), deadline=SHORT)
            told = "127.0.0.1:1: out of time (0.05 s) while reading the CA certificates"
            assert (answer.reach, answer.failure, answer.detail) == (Reach.NOTHING, "connect timeout", told)
        assert mount.held == 1
        mount.released.set()

    asyncio.run(run())


def test_whom_we_trusted_last_we_trust_while_the_mount_hangs() -> None:
    mount = Mount()
    mount.released.set()
    kept = trust.Trust(hung(mount, certifi.where()), patience=SHORT)

    async def run() -> None:
        first = await kept.context()
        mount.released.clear()
        before = mount.held
        assert [await kept.context() for _ in range(3)] == [first] * 3
        assert mount.held == before + 1
        mount.released.set()
        # It is looked at again as soon as the thread is back.
        while kept.is_hung:
            await asyncio.sleep(0)
        before = mount.held
        assert await kept.context() is first
        assert mount.held > before

    asyncio.run(run())


def test_who_asks_together_looks_at_a_ca_file_together() -> None:
    mount = Mount()
    mount.released.set()
    kept = trust.Trust(hung(mount, certifi.where()))

    async def run() -> None:
        await kept.context()
        before = mount.held
        await asyncio.gather(*(kept.context() for _ in range(200)))
        assert mount.held == before + 1

    asyncio.run(run())


def test_a_token_on_a_mount_that_hangs_holds_one_thread_and_says_so() -> None:
    mount = Mount()
    reference, environ = Reference("env", Secret("TOKEN"), "http.token"), HungVariables(mount)

    async def run() -> None:
        for _ in range(3):
            with pytest.raises(Unavailable, match=r"http.token: not read within 0.05 s; the file system hangs"):
                await secrets.fetch(reference, environ, patience=SHORT)
        assert mount.held == 1
        mount.released.set()
        assert await secrets.fetch(reference, environ) == Secret("word")

    asyncio.run(run())

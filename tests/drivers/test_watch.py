"""The watcher on real folders: what it notices, what it does not, and folders that come and go."""

from __future__ import annotations

import asyncio
import mmap
import os
import resource
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rotator.core.publication import Found
from rotator.drivers import files, watch
from tests.contracts.publishers import NOW, publication


class Bells:
    """Counts calls per location and waits for them."""

    def __init__(self) -> None:
        self.watcher = watch.InotifyWatcher()
        self.watcher.begin()
        self.calls: Counter[str] = Counter()
        self._rung = asyncio.Event()

    def watch(self, *paths: Path | str) -> None:
        locations = {path if isinstance(path, str) else f"file:{path}" for path in paths}
        self.watcher.watch({location: self._bell(location) for location in locations})

    def _bell(self, location: str) -> Callable[[], None]:
        def ring() -> None:
            self.calls[location] += 1
            self._rung.set()

        return ring

    async def wait_rung(self, *paths: Path) -> None:
        """Until each of them was called since the last `forget`."""
        async with asyncio.timeout(10):
            while not all(self.calls[f"file:{path}"] for path in paths):
                self._rung.clear()
                await self._rung.wait()

    def forget(self) -> None:
        self.calls.clear()


def watching(scenario: Callable[[Bells], Awaitable[None]]) -> None:
    errors: list[dict[str, Any]] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        bells = Bells()
        try:
            await scenario(bells)
        finally:
            bells.watcher.close()

    asyncio.run(run())
    assert errors == []


def overwrite(path: Path) -> None:
    path.write_text("other")


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_text("other")
    other.replace(path)


def replace_by_symlink(path: Path) -> None:
    other = path.with_name("other")
    other.symlink_to("/dev/null")
    other.replace(path)


def write_through_memory(path: Path) -> None:
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        memory[0:1] = b"x"


CHANGES: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "overwritten": overwrite,
    "renamed over": replace,
    "renamed over by a symlink": replace_by_symlink,
    "renamed away": lambda path: path.rename(path.with_name("away")),
    "truncated": lambda path: os.truncate(path, 3),
    "written through memory": write_through_memory,
    "chmod": lambda path: path.chmod(0o644),
    "chown": lambda path: os.chown(path, -1, path.stat().st_gid),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_the_target_is_noticed(tmp_path: Path, change: str) -> None:
    path, end = tmp_path / "token", tmp_path / "end"
    path.write_text("value")

    async def scenario(bells: Bells) -> None:
        bells.watch(path, end)
        end.touch()
        await bells.wait_rung(end)
        assert bells.calls[f"file:{path}"] == 0
        CHANGES[change](path)
        await bells.wait_rung(path)

    watching(scenario)


def test_changes_beside_the_target_are_not_its_own(tmp_path: Path) -> None:
    path, end = tmp_path / "token", tmp_path / "end"
    path.write_text("value")

    async def scenario(bells: Bells) -> None:
        bells.watch(path, end)
        for name in (".token.0123456789abcdef.rotator", "token2", "tok"):
            overwrite(tmp_path / name)
            (tmp_path / name).unlink()
        path.read_text()
        end.touch()
        await bells.wait_rung(end)
        assert bells.calls[f"file:{path}"] == 0

    watching(scenario)


def test_settling_at_every_call_puts_the_target_right_and_is_not_called_for_it(tmp_path: Path) -> None:
    path, end = tmp_path / "token", tmp_path / "end"
    publisher = files.FilePublisher(path)

    async def scenario(bells: Bells) -> None:
        await publisher.settle(publication(1), NOW)
        rung: asyncio.Queue[Path] = asyncio.Queue()
        bells.watcher.watch({f"file:{each}": partial(rung.put_nowait, each) for each in (path, end)})
        path.unlink()
        found = []
        async with asyncio.timeout(10):
            assert await rung.get() == path
            found.append((await publisher.settle(publication(1), NOW)).found)
            end.touch()
            assert await rung.get() == end
            path.touch()
            assert await rung.get() == path
        assert found == [Found.ABSENT]

    watching(scenario)
    assert path.read_text() == "token-of-lineage-1-1"


def test_watching_anew_replaces_the_set_within_one_folder(tmp_path: Path) -> None:
    first, second, elsewhere = tmp_path / "first", tmp_path / "second", tmp_path / "folder" / "third"
    elsewhere.parent.mkdir()

    async def scenario(bells: Bells) -> None:
        bells.watch(first, elsewhere)
        bells.watch(second)
        first.touch()
        elsewhere.touch()
        second.touch()
        await bells.wait_rung(second)
        bells.watch(second, elsewhere)
        overwrite(elsewhere)
        await bells.wait_rung(elsewhere)
        assert bells.calls[f"file:{first}"] == 0
        bells.forget()
        bells.watch()
        overwrite(elsewhere)
        bells.watch(second)
        second.touch()
        await bells.wait_rung(second)
        assert bells.calls[f"file:{elsewhere}"] == 0

    watching(scenario)


def test_watching_the_same_again_loses_no_change(tmp_path: Path) -> None:
    path = tmp_path / "token"

    async def scenario(bells: Bells) -> None:
        bells.watch(path)
        path.touch()
        bells.watch(path)
        await bells.wait_rung(path)

    watching(scenario)


def test_two_paths_to_one_folder_are_both_called(tmp_path: Path) -> None:
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir()
    link.symlink_to(folder)

    async def scenario(bells: Bells) -> None:
        bells.watch(folder / "token", link / "token")
        (folder / "token").touch()
        await bells.wait_rung(folder / "token", link / "token")

    watching(scenario)


def test_a_deleted_folder_is_noticed_and_watched_again_when_it_comes_back(tmp_path: Path) -> None:
    one, other = tmp_path / "billing" / "one", tmp_path / "billing" / "other"
    one.parent.mkdir()
    one.touch()

    async def scenario(bells: Bells) -> None:
        bells.watch(one, other)
        for _ in range(3):
            one.unlink()
            one.parent.rmdir()
            await bells.wait_rung(one, other)
            bells.forget()
            one.parent.mkdir()
            await bells.wait_rung(one, other)
            bells.forget()
            one.touch()
            await bells.wait_rung(one)
            bells.forget()

    watching(scenario)


def test_a_folder_that_is_moved_away_is_lost_and_the_next_one_of_that_name_counts(tmp_path: Path) -> None:
    path, away, end = tmp_path / "billing" / "token", tmp_path / "away", tmp_path / "end"
    path.parent.mkdir()

    async def scenario(bells: Bells) -> None:
        bells.watch(path, end)
        path.parent.rename(away)
        await bells.wait_rung(path)
        bells.forget()
        (away / "token").touch()
        end.touch()
        await bells.wait_rung(end)
        assert bells.calls[f"file:{path}"] == 0
        away.rename(path.parent)
        await bells.wait_rung(path)

    watching(scenario)


def test_folders_that_are_missing_at_first_are_found_at_any_depth(tmp_path: Path) -> None:
    path = tmp_path / "run" / "rotator" / "billing" / "token"

    async def scenario(bells: Bells) -> None:
        bells.watch(path)
        path.parent.parent.mkdir(parents=True)
        # One level may be made before the watch on it stands, the other after.
        await asyncio.sleep(0)
        path.parent.mkdir()
        await bells.wait_rung(path)
        bells.forget()
        path.touch()
        await bells.wait_rung(path)

    watching(scenario)


def test_a_folder_made_by_the_publisher_is_found(tmp_path: Path) -> None:
    path = tmp_path / "billing" / "token"

    async def scenario(bells: Bells) -> None:
        bells.watch(path)
        await files.FilePublisher(path, make_parents=True).settle(publication(1), NOW)
        await bells.wait_rung(path)
        bells.forget()
        path.unlink()
        await bells.wait_rung(path)

    watching(scenario)


@pytest.mark.parametrize("events", [290, 1400])
def test_a_flood_beside_the_target_hides_nothing(tmp_path: Path, events: int) -> None:
    path, noise = tmp_path / "token", [tmp_path / "noise-0", tmp_path / "noise-1"]
    for each in (path, *noise):
        each.touch()

    async def scenario(bells: Bells) -> None:
        bells.watch(path)
        for number in range(events):
            os.utime(noise[number % 2])  # in turn, because the kernel merges what is alike
        path.unlink()
        os.utime(noise[0])
        await bells.wait_rung(path)

    watching(scenario)


def test_an_overflown_queue_counts_as_a_change_of_everything(tmp_path: Path) -> None:
    path, noise = tmp_path / "token", [tmp_path / "noise-0", tmp_path / "noise-1"]
    for each in noise:
        each.touch()
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 100_000:
        pytest.skip(f"fs.inotify.max_queued_events is {limit}")

    async def scenario(bells: Bells) -> None:
        bells.watch(path)
        for number in range(limit + 10):
            os.utime(noise[number % 2])
        path.touch()  # lost: the queue is full
        await bells.wait_rung(path)

    watching(scenario)


def test_what_is_no_file_costs_nothing(tmp_path: Path) -> None:
    async def scenario(bells: Bells) -> None:
        before = set(os.listdir("/proc/self/fd"))
        bells.watch("vault:default:secret/billing", "file:relative", "kubernetes:default/token")
        assert set(os.listdir("/proc/self/fd")) == before
        bells.watch("vault:default:secret/billing", tmp_path / "token")
        (tmp_path / "token").touch()
        await bells.wait_rung(tmp_path / "token")

    watching(scenario)


def test_close_calls_nobody_any_more_and_gives_everything_back(tmp_path: Path) -> None:
    path, end = tmp_path / "token", tmp_path / "end"

    async def scenario(bells: Bells) -> None:
        before = len(os.listdir("/proc/self/fd"))
        bells.watch(path)
        path.touch()
        bells.watcher.close()
        bells.watcher.close()
        assert len(os.listdir("/proc/self/fd")) == before
        bells.watch(end)
        end.touch()
        await bells.wait_rung(end)
        assert bells.calls[f"file:{path}"] == 0

    watching(scenario)


def test_a_folder_that_is_no_longer_wanted_is_let_go_of(tmp_path: Path) -> None:
    folders = [tmp_path / f"folder-{number}" for number in range(5)]
    for folder in folders:
        folder.mkdir()

    def watched() -> int:
        """Watches of this process, as the kernel counts them (proc_pid_fdinfo(5))."""
        infos = Path("/proc/self/fdinfo")
        return sum(
            (infos / number).read_text().count("inotify wd:")
            for number in os.listdir(infos)
            if (infos / number).exists()
        )

    async def scenario(bells: Bells) -> None:
        bells.watch(*(folder / "token" for folder in folders), *(folder / "other" for folder in folders))
        assert watched() == 5
        bells.watch(folders[0] / "token")
        assert watched() == 1
        bells.watch()
        assert watched() == 0

    watching(scenario)


def test_a_call_may_close_the_watcher(tmp_path: Path) -> None:
    path, other = tmp_path / "token", tmp_path / "other"

    async def scenario(bells: Bells) -> None:
        calls, closed = [], asyncio.Event()

        def close() -> None:
            calls.append("close")
            bells.watcher.close()
            closed.set()

        bells.watcher.watch({f"file:{path}": close, f"file:{other}": close})
        path.touch()
        other.touch()
        async with asyncio.timeout(10):
            await closed.wait()
        await asyncio.sleep(0)
        assert calls == ["close"]

    watching(scenario)


def test_it_may_be_closed_after_its_loop(tmp_path: Path) -> None:
    watcher = watch.InotifyWatcher()

    async def run() -> None:
        watcher.watch({f"file:{tmp_path / 'token'}": lambda: None})
        watcher.begin()

    before = len(os.listdir("/proc/self/fd"))
    asyncio.run(run())
    watcher.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_before_it_begins_nothing_is_opened_and_nobody_called(tmp_path: Path) -> None:
    path = tmp_path / "token"

    async def run() -> None:
        bells = Bells()
        bells.watcher = watch.InotifyWatcher()
        before = os.listdir("/proc/self/fd")
        bells.watch(path)
        assert os.listdir("/proc/self/fd") == before
        path.touch()
        bells.watcher.begin()
        await asyncio.sleep(0)
        assert not bells.calls
        path.touch()
        await bells.wait_rung(path)
        bells.watcher.close()

    asyncio.run(run())


def test_where_the_machine_cannot_watch_it_stays_silent_and_tries_again_later(tmp_path: Path) -> None:
    path = tmp_path / "token"

    async def scenario(bells: Bells) -> None:
        bells.watch(path)
        bells.watcher.close()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            bells.watch(path)  # EMFILE, as with fs.inotify.max_user_instances
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        bells.watch(path)
        path.touch()
        await bells.wait_rung(path)

    watching(scenario)

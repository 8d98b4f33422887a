"""The file publisher on real file systems: bytes, modes, groups, folders, and what goes wrong there."""

from __future__ import annotations

import asyncio
import grp
import hashlib
import os
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rotator.core.errors import Misconfigured, Unavailable
from rotator.core.ports import Publisher
from rotator.core.publication import Format, Found, Publication, Settled
from rotator.drivers import files
from rotator.drivers.files import folders, lanes
from rotator.lab.world import MemoryPublisher
from tests.contracts.publishers import NOW, publication

STRANGER = 65534
LEFTOVER = ".token.0123456789abcdef.rotator"

Mount = Callable[..., Path]


def settle(publisher: files.FilePublisher, wanted: Publication) -> Settled:
    return asyncio.run(publisher.settle(wanted, NOW))


def remove(publisher: files.FilePublisher, mark: str) -> bool:
    return asyncio.run(publisher.remove(mark))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def other_group() -> grp.struct_group:
    """A group that we may give files to and that new files do not have anyway."""
    mine = os.getegid()
    numbers = [group.gr_gid for group in grp.getgrall()] if os.geteuid() == 0 else os.getgroups()
    for number in numbers:
        if number != mine:
            return grp.getgrgid(number)
    pytest.skip("this user is in one group only")


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mounts as mount(8) does, and unmounts at the end."""
    mounted: list[Path] = []

    def do(*words: str, at: Path) -> Path:
        if os.geteuid() != 0:
            pytest.skip("only root may mount")
        done = subprocess.run(["mount", *words, str(at)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"no right to mount here: {done.stderr.strip()}")
        mounted.append(at)
        return at

    yield do
    for path in reversed(mounted):
        subprocess.run(["umount", str(path)], check=True)


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A folder of our own, and we are not root while the test runs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if os.geteuid() != 0:
            yield folder
            return
        os.chown(folder, STRANGER, STRANGER)
        groups, gid = os.getgroups(), os.getegid()
        os.setgroups([])
        os.setegid(STRANGER)
        os.seteuid(STRANGER)
        try:
            yield folder
        finally:
            os.seteuid(0)
            os.setegid(gid)
            os.setgroups(groups)


BYTES = {
    Format.RAW: b'a$b"c\\d`e',
    Format.HEADER: b'Authorization: Bearer a$b"c\\d`e\n',
    Format.ENV: (
        b'ACCESS_TOKEN="a\\$b\\"c\\\\d\\`e"\nTOKEN_TYPE="Bearer"\nEXPIRES_AT="2027-03-01T13:00:00Z"\n'
        b'EXPIRES_AT_UNIX="1803906000"\nGENERATION="0"\n'
    ),
    Format.JSON: (
        b'{\n  "access_token": "a$b\\"c\\\\d`e",\n  "token_type": "Bearer",\n'
        b'  "expires_at": "2027-03-01T13:00:00Z",\n  "expires_in": 3600,\n  "issued_at": "2027-03-01T12:00:00Z",\n'
        b'  "generation": 0,\n  "scope": "all",\n  "grant": "billing",\n  "lineage": "lineage-1"\n}\n'
    ),
    Format.TEMPLATE: b'token = a$b"c\\d`e until 2027-03-01T13:00:00Z',
}


@pytest.mark.parametrize("mask", [0o077, 0o000])
@pytest.mark.parametrize("form", Format)
def test_bytes_mode_and_group_are_exact_under_any_umask(tmp_path: Path, form: Format, mask: int) -> None:
    group = other_group()
    path = tmp_path / "token"
    publisher = files.FilePublisher(
        path, form=form, template="token = $access_token until $expires_at", mode=0o640, group=group.gr_name
    )

    with umask(mask):
        settled = settle(publisher, publication(0, token='a$b"c\\d`e'))

    assert path.read_bytes() == BYTES[form]
    assert mode(path) == 0o640
    assert path.stat().st_gid == group.gr_gid
    assert settled == Settled(Found.ABSENT, mark=hashlib.sha256(BYTES[form]).hexdigest())
    assert names(tmp_path) == {"token"}


def test_the_mark_names_the_bytes_that_stand_there(tmp_path: Path) -> None:
    path = tmp_path / "token"
    publisher = files.FilePublisher(path, form=Format.JSON)
    written = settle(publisher, publication(1)).mark

    later = asyncio.run(publisher.settle(publication(1), NOW + timedelta(minutes=20)))

    assert later == Settled(Found.CURRENT, mark=written)
    assert written == hashlib.sha256(path.read_bytes()).hexdigest()


def test_what_is_right_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "token"
    settle(files.FilePublisher(path, mode=0o644), publication(1))
    before = path.stat()

    assert settle(files.FilePublisher(path, mode=0o644), publication(1)).found is Found.CURRENT
    after = path.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )


@pytest.mark.parametrize("by_number", [False, True])
def test_a_changed_mode_or_group_is_put_right(tmp_path: Path, by_number: bool) -> None:
    group = other_group()
    path = tmp_path / "token"
    publisher = files.FilePublisher(path, mode=0o640, group=str(group.gr_gid) if by_number else group.gr_name)
    settle(publisher, publication(1))

    path.chmod(0o644)
    assert settle(publisher, publication(1)).found is Found.ALTERED
    assert mode(path) == 0o640

    os.chown(path, -1, os.getegid())
    assert settle(publisher, publication(1)).found is Found.ALTERED
    assert path.stat().st_gid == group.gr_gid
    assert settle(publisher, publication(1)).found is Found.CURRENT


def test_a_reader_without_pause_sees_only_whole_values_and_never_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    publisher = files.FilePublisher(path)

    def value(generation: int) -> str:
        return f"{generation:04d}" * 16_384

    settle(publisher, publication(0, token=value(0)))
    stop, reads, wrong = threading.Event(), 0, []

    def keep_reading() -> None:
        nonlocal reads
        last = 0
        while not stop.is_set():
            try:
                text = path.read_text()
            except FileNotFoundError:
                wrong.append("missing")
                continue
            reads += 1
            seen = int(text[:4]) if text[:4].isdigit() else -1
            if text != value(seen):
                wrong.append(f"torn: {len(text)} characters")
            if seen < last:
                wrong.append(f"{seen} after {last}")
            last = seen

    async def settle_all() -> None:
        for generation in range(1, 301):
            await publisher.settle(publication(generation, token=value(generation)), NOW)

    reader = threading.Thread(target=keep_reading)
    reader.start()
    try:
        asyncio.run(settle_all())
    finally:
        stop.set()
        reader.join()
    assert wrong == []
    assert reads > 50
    assert path.read_text() == value(300)
    assert names(tmp_path) == {"token"}


def test_leftovers_of_a_killed_process_are_swept_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "token"
    settle(files.FilePublisher(path), publication(1))
    others = {
        ".other.0123456789abcdef.rotator",
        ".token.0123456789abcdef.rotator.bak",
        ".token.bak",
        ".token.x.rotator",
    }
    for name in {LEFTOVER, *others}:
        (tmp_path / name).write_text("half a tok")

    publisher = files.FilePublisher(path)
    publisher.check()
    assert LEFTOVER in names(tmp_path), "check may run beside a living daemon"

    assert settle(publisher, publication(1)).found is Found.CURRENT
    assert names(tmp_path) == {"token", *others}


@pytest.mark.parametrize(("wanted", "changes"), [(0o600, 0), (0o640, 1)])
def test_a_mode_that_is_right_is_not_set(tmp_path: Path, wanted: int, changes: int) -> None:
    """It would tell everybody who watches the folder."""
    changed, watched = list[int](), True

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if watched and event == "os.chmod":
            changed.append(arguments[1])

    sys.addaudithook(hear)
    try:
        settle(files.FilePublisher(tmp_path / "token", mode=wanted), publication(1))
    finally:
        watched = False
    assert mode(tmp_path / "token") == wanted
    assert changed == [wanted] * changes


def test_a_crowded_folder_is_listed_once_for_all_its_targets_and_again_where_it_is_another(tmp_path: Path) -> None:
    folder, listed, watched = tmp_path / "many", list[str](), True

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        # There is no taking it away again (sys.addaudithook): it falls silent.
        if watched and event == "os.scandir":
            listed.append(str(arguments[0]))

    def fill() -> None:
        folder.mkdir()
        for number in range(100):
            (folder / f"t{number}").write_text("old")
            (folder / f".t{number}.0123456789abcdef.rotator").write_text("half a tok")

    sys.addaudithook(hear)
    try:
        fill()
        for turn in range(2):
            for number in range(100):
                settle(files.FilePublisher(folder / f"t{number}"), publication(turn + 1))
        assert names(folder) == {f"t{number}" for number in range(100)}
        assert listed.count(str(folder)) == 1
        folder.rename(tmp_path / "aside")
        fill()
        settle(files.FilePublisher(folder / "t7"), publication(3))
        assert ".t7.0123456789abcdef.rotator" not in names(folder)
    finally:
        watched = False


def test_a_page_of_targets_is_looked_at_on_one_way_to_each_thread(tmp_path: Path) -> None:
    """And what is torn, missing, foreign, older, of another mode or a link is found as by settling it."""
    wanted = {f"t{number}": publication(2, token=f"token-{number}") for number in range(100)}
    for name, one in wanted.items():
        settle(files.FilePublisher(tmp_path / name), one)
    (tmp_path / "t1").write_text("token")
    (tmp_path / "t2").unlink()
    (tmp_path / "t3").write_text("token-4")
    settle(files.FilePublisher(tmp_path / "t4"), publication(1))
    (tmp_path / "t5").chmod(0o644)
    (tmp_path / "t6").rename(tmp_path / "aside")
    (tmp_path / "t6").symlink_to("aside")
    (tmp_path / "t7").unlink()
    (tmp_path / "t7").mkdir()
    bundle = files.BundlePublisher(tmp_path / "bundle", {"token.json": Format.JSON}, make_parents=True)
    asyncio.run(bundle.settle(publication(2), NOW))
    (tmp_path / ".t9.0123456789abcdef.rotator").write_text("half a tok")
    # As in a fresh process.
    folders.forget(str(tmp_path))

    class Loop(asyncio.SelectorEventLoop):
        told = 0

        def call_soon_threadsafe(self, *arguments: Any, **options: Any) -> asyncio.Handle:
            self.told += 1
            return super().call_soon_threadsafe(*arguments, **options)

    asked: list[tuple[Publisher, Publication]] = [
        *((files.FilePublisher(tmp_path / name), one) for name, one in wanted.items()),
        (bundle, publication(2)),
        (bundle, publication(3)),
        (files.FilePublisher(tmp_path / "t8", group="nobody-has-this-name"), wanted["t8"]),
        (MemoryPublisher("memory:x", holds=publication(2)), publication(2)),
    ]
    loop = Loop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        found = runner.run(files.standing(asked, NOW))
    assert {index for index, stands in enumerate(found) if not stands} == {1, 2, 3, 4, 5, 6, 7, 101, 102, 103}
    assert loop.told <= 2, "one folder of files, one bundle"
    assert not (tmp_path / ".t9.0123456789abcdef.rotator").exists(), "what a killed process left holds a token"
    assert (tmp_path / "t1").read_text() == "token", "nothing is written"


def test_a_look_at_many_waits_for_no_folder_that_hangs_and_suffers_for_no_target(tmp_path: Path) -> None:
    folders: dict[int, Path] = {}
    while len(folders) < 2:
        folder = tmp_path / f"folder{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        folders.setdefault(id(files.FilePublisher(folder / "t").lane), folder)
    hung, good = (files.FilePublisher(folder / "token") for folder in folders.values())
    for one in (hung, good):
        settle(one, publication(1))
    free = threading.Event()

    async def run() -> list[bool]:
        blocked = hung.lane.run(free.wait)
        try:
            return await files.standing([(hung, publication(1)), (good, publication(1))], NOW, patience=0.5)
        finally:
            free.set()
            await blocked

    assert asyncio.run(run()) == [False, True]
    odd = files.FilePublisher(tmp_path / "token", group="1" * 5000)
    assert asyncio.run(files.standing([(odd, publication(1)), (good, publication(1))], NOW)) == [False, True]


def test_removing_sweeps_leftovers_too(tmp_path: Path) -> None:
    path = tmp_path / "token"
    mark = settle(files.FilePublisher(path), publication(1)).mark
    (tmp_path / LEFTOVER).write_text("half a tok")

    assert remove(files.FilePublisher(path), mark)
    assert names(tmp_path) == set()


def test_kill_9_leaves_a_whole_file_and_the_next_process_cleans_up(tmp_path: Path) -> None:
    path = tmp_path / "token"
    script = """
        import asyncio, sys
        from pathlib import Path
        from rotator.drivers import files
        from tests.contracts.publishers import NOW, publication

        async def main():
            publisher = files.FilePublisher(Path(sys.argv[1]))
            generation = 0
            while True:
                await publisher.settle(publication(generation, token=f"{generation:08d}" * 4096), NOW)
                generation += 1
                print(generation, flush=True)

        asyncio.run(main())
    """
    root = Path(__file__).parents[2]
    for lines in (1, 4, 9):
        command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root) as child:
            assert child.stdout is not None
            for _ in range(lines):
                assert child.stdout.readline()
            child.kill()
        text = path.read_text()
        assert text == text[:8] * 4096

    settle(files.FilePublisher(path), publication(1))
    assert names(tmp_path) == {"token"}


@pytest.mark.parametrize("dangling", [False, True])
def test_a_symlink_is_replaced_and_what_it_names_is_left_alone(tmp_path: Path, dangling: bool) -> None:
    victim, path = tmp_path / "victim", tmp_path / "token"
    if not dangling:
        victim.write_bytes(b"token-of-lineage-1-1")
        victim.chmod(0o600)
    path.symlink_to(victim)

    assert settle(files.FilePublisher(path), publication(1)).found is Found.ALTERED
    assert not path.is_symlink()
    assert path.read_text() == "token-of-lineage-1-1"
    assert victim.exists() is not dangling


def test_a_fifo_or_a_socket_is_replaced_without_waiting_for_its_other_end(tmp_path: Path) -> None:
    fifo, place = tmp_path / "fifo", tmp_path / "socket"
    os.mkfifo(fifo)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(place))

    for path in (fifo, place):
        assert settle(files.FilePublisher(path), publication(1)).found is Found.ALTERED
        assert stat.S_ISREG(path.lstat().st_mode)


def test_something_huge_is_replaced_without_being_read(tmp_path: Path) -> None:
    path = tmp_path / "token"
    with path.open("wb") as file:
        file.truncate(1 << 40)

    assert settle(files.FilePublisher(path), publication(1)).found is Found.ALTERED
    assert path.read_text() == "token-of-lineage-1-1"


def test_a_folder_in_the_place_of_the_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.mkdir()
    publisher = files.FilePublisher(path)

    for attempt in (publisher.check, lambda: settle(publisher, publication(1)), lambda: remove(publisher, "")):
        with pytest.raises(Misconfigured, match=str(path)):
            attempt()
    assert path.is_dir()
    assert names(tmp_path) == {"token"}


def test_check_leaves_nothing_behind(tmp_path: Path) -> None:
    files.FilePublisher(tmp_path / "token", mode=0o640, group=other_group().gr_name).check()

    assert names(tmp_path) == set()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group": "no-such-group"}, 'no group "no-such-group"'),
        ({"group": str((1 << 32) - 1)}, "no group"),
        ({"mode": 0o040}, "mode 0040"),
        ({"form": Format.TEMPLATE, "template": "$acess_token"}, "acess_token"),
        ({"form": Format.TEMPLATE}, "template is empty"),
    ],
)
def test_check_refuses_settings_that_cannot_work(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(Misconfigured, match=message) as caught:
        files.FilePublisher(tmp_path / "token", **options).check()
    assert str(tmp_path / "token") in caught.value.what
    assert caught.value.mend


def test_an_unknown_group_leaves_the_old_token(tmp_path: Path) -> None:
    path = tmp_path / "token"
    settle(files.FilePublisher(path), publication(1))

    with pytest.raises(Misconfigured, match="no-such-group"):
        settle(files.FilePublisher(path, group="no-such-group"), publication(2))
    assert path.read_text() == "token-of-lineage-1-1"
    assert names(tmp_path) == {"token"}


def test_a_group_that_we_are_not_in_is_told_with_the_mending_step(unprivileged: Path) -> None:
    group = next(group for group in grp.getgrall() if group.gr_gid not in (os.getegid(), *os.getgroups()))
    publisher = files.FilePublisher(unprivileged / "token", group=group.gr_name)

    for attempt in (publisher.check, lambda: settle(publisher, publication(1))):
        with pytest.raises(Misconfigured, match="not a member") as caught:
            attempt()
        assert "SupplementaryGroups" in caught.value.mend
    assert names(unprivileged) == set()


def test_a_folder_that_we_may_not_write_is_told(unprivileged: Path) -> None:
    folder = unprivileged / "closed"
    folder.mkdir(0o555)
    publisher = files.FilePublisher(folder / "token")

    for attempt in (publisher.check, lambda: settle(publisher, publication(1))):
        with pytest.raises(Misconfigured, match=str(folder / "token")) as caught:
            attempt()
        assert str(folder) in caught.value.mend


def test_a_folder_that_we_may_no_longer_enter_is_not_taken_for_one_without_our_token(unprivileged: Path) -> None:
    folder = unprivileged / "closed"
    folder.mkdir()
    publisher = files.FilePublisher(folder / "token")
    mark = settle(publisher, publication(1)).mark
    folder.chmod(0o000)

    with pytest.raises(Misconfigured, match=str(folder / "token")):
        remove(publisher, mark)
    folder.chmod(0o700)
    assert remove(publisher, mark)


def test_a_folder_that_we_may_write_but_not_list_will_do(unprivileged: Path) -> None:
    folder = unprivileged / "blind"
    folder.mkdir()
    folder.chmod(0o300)
    publisher = files.FilePublisher(folder / "token")

    publisher.check()
    mark = settle(publisher, publication(1)).mark
    assert (folder / "token").read_text() == "token-of-lineage-1-1"
    assert remove(publisher, mark)


def test_a_file_that_we_may_not_read_is_replaced(unprivileged: Path) -> None:
    path = unprivileged / "token"
    path.write_text("token-of-lineage-1-1")
    path.chmod(0o000)

    assert settle(files.FilePublisher(path), publication(1)).found is Found.ALTERED
    assert mode(path) == 0o600


@pytest.mark.parametrize("mask", [0o077, 0o000])
def test_missing_folders_are_made_with_exact_modes(tmp_path: Path, mask: int) -> None:
    group = other_group()
    with umask(mask):
        files.FilePublisher(tmp_path / "open" / "deep" / "token", make_parents=True).check()
        files.FilePublisher(tmp_path / "shared" / "deep" / "token", make_parents=True, group=group.gr_name).check()

    for folder in (tmp_path / "open", tmp_path / "open" / "deep"):
        assert mode(folder) == 0o711
    for folder in (tmp_path / "shared", tmp_path / "shared" / "deep"):
        assert mode(folder) == 0o750
        assert folder.stat().st_gid == group.gr_gid
    assert names(tmp_path) == {"open", "shared"}


def test_a_folder_that_was_there_is_not_changed(tmp_path: Path) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    folder.chmod(0o700)
    publisher = files.FilePublisher(folder / "token", make_parents=True)

    publisher.check()
    settle(publisher, publication(1))
    assert mode(folder) == 0o700


def test_a_setgid_bit_from_above_is_handed_on(tmp_path: Path) -> None:
    group = other_group()
    top = tmp_path / "volume"
    top.mkdir()
    os.chown(top, -1, group.gr_gid)
    top.chmod(0o2770)

    settle(files.FilePublisher(top / "billing" / "token", mode=0o640, make_parents=True), publication(1))
    assert mode(top / "billing") == 0o2711
    assert (top / "billing" / "token").stat().st_gid == group.gr_gid


def test_a_folder_that_vanished_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "billing" / "token"
    publisher = files.FilePublisher(path, make_parents=True)
    settle(publisher, publication(1))
    path.unlink()
    path.parent.rmdir()

    assert settle(publisher, publication(1)).found is Found.ABSENT
    assert mode(path.parent) == 0o711


def test_a_folder_left_half_made_by_a_killed_process_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".billing.0123456789abcdef.rotator").mkdir()

    files.FilePublisher(tmp_path / "billing" / "token", make_parents=True).check()
    assert names(tmp_path) == {"billing"}


def test_many_targets_of_new_folders_can_be_settled_at_once(tmp_path: Path) -> None:
    paths = [tmp_path / f"folder-{number // 8}" / "deep" / f"token-{number % 8}" for number in range(160)]
    publishers = [files.FilePublisher(path, make_parents=True) for path in paths]

    async def all_at_once() -> list[Settled]:
        return await asyncio.gather(*(each.settle(publication(1), NOW) for each in publishers))

    assert {settled.found for settled in asyncio.run(all_at_once())} == {Found.ABSENT}
    assert {path for path in tmp_path.rglob("*") if not path.is_dir()} == set(paths)
    assert names(tmp_path) == {path.parent.parent.name for path in paths}
    assert {mode(path.parent) for path in paths} == {0o711}


def test_a_missing_folder_that_is_not_ours_to_make(tmp_path: Path) -> None:
    publisher = files.FilePublisher(tmp_path / "volume" / "token")

    with pytest.raises(Misconfigured, match="does not exist") as refused:
        publisher.check()
    assert "mount" in refused.value.mend
    with pytest.raises(Unavailable, match=str(tmp_path / "volume" / "token")):
        settle(publisher, publication(1))
    assert names(tmp_path) == set()
    assert not remove(publisher, "mark")


def test_a_path_that_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path in (tmp_path / "file" / "token", tmp_path / ("t" * 250), loop / "token"):
        publisher = files.FilePublisher(path, make_parents=True)
        for attempt in (publisher.check, lambda publisher=publisher: settle(publisher, publication(1))):
            with pytest.raises(Misconfigured, match=path.name):
                attempt()


def test_a_world_writable_folder_is_refused_unless_it_is_sticky_or_ours(tmp_path: Path) -> None:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    publisher = files.FilePublisher(folder / "token")

    with pytest.raises(Misconfigured, match="everybody may write") as refused:
        publisher.check()
    assert str(folder) in refused.value.what
    assert "chmod o-w" in refused.value.mend

    folder.chmod(0o1777)
    publisher.check()

    folder.chmod(0o777)
    (folder / "state").mkdir()
    (folder / "state").chmod(0o755)
    with pytest.raises(Misconfigured, match="everybody may write"):
        publisher.check()
    (folder / "state").chmod(0o700)
    publisher.check()


def test_a_world_writable_mount_was_given_to_us(tmp_path: Path, mount: Mount) -> None:
    for number, words in enumerate((("-t", "tmpfs", "tmpfs"), ("--bind", str(tmp_path)))):
        # A blank is written as \040 in /proc/self/mountinfo.
        folder = tmp_path / f"volume {number}"
        folder.mkdir()
        mount(*words, at=folder)
        folder.chmod(0o777)
        files.FilePublisher(folder / "token").check()
        folder.chmod(0o755)


def test_a_full_disk_leaves_the_old_token_whole(tmp_path: Path, mount: Mount) -> None:
    volume = mount("-t", "tmpfs", "-o", "size=64k", "tmpfs", at=tmp_path)
    path, ballast = volume / "token", volume / "ballast"
    publisher = files.FilePublisher(path)
    old, new = "o" * 20_000, "n" * 20_000
    settle(publisher, publication(1, token=old))
    ballast.write_bytes(b"b" * 36_000)

    with pytest.raises(Unavailable, match=str(path)) as caught:
        settle(publisher, publication(2, token=new))

    assert "room" in caught.value.mend
    assert new not in str(caught.value)
    assert path.read_text() == old
    assert names(volume) == {"token", "ballast"}
    ballast.unlink()
    settle(publisher, publication(2, token=new))
    assert path.read_text() == new


def test_a_read_only_disk_is_waited_for(tmp_path: Path, mount: Mount) -> None:
    volume = mount("-t", "tmpfs", "tmpfs", at=tmp_path)
    publisher = files.FilePublisher(volume / "token")
    mark = settle(publisher, publication(1)).mark
    subprocess.run(["mount", "-o", "remount,ro", str(volume)], check=True)

    publisher.check()  # waiting may mend it, so it is no reason not to start
    assert settle(publisher, publication(1)).found is Found.CURRENT
    for attempt in (lambda: settle(publisher, publication(2)), lambda: remove(publisher, mark)):
        with pytest.raises(Unavailable, match="Read-only"):
            attempt()

    subprocess.run(["mount", "-o", "remount,rw", str(volume)], check=True)
    settle(publisher, publication(2))
    assert (volume / "token").read_text() == "token-of-lineage-1-2"


def test_a_single_file_mount_is_told_before_the_start_and_keeps_its_token(tmp_path: Path, mount: Mount) -> None:
    source, path = tmp_path / "source", tmp_path / "token"
    source.write_text("token-of-lineage-1-1")
    path.touch()
    mount("--bind", str(source), at=path)
    publisher = files.FilePublisher(path)

    for attempt in (publisher.check, lambda: settle(publisher, publication(2))):
        with pytest.raises(Misconfigured, match="mount of its own") as caught:
            attempt()
        assert f"mount the folder {tmp_path}" in caught.value.mend
    assert path.read_text() == "token-of-lineage-1-1"
    assert names(tmp_path) == {"source", "token"}


def test_a_location_leads_back_to_its_path(tmp_path: Path) -> None:
    publisher = files.FilePublisher(tmp_path / "a" / ".." / "token")

    assert publisher.location == f"file:{tmp_path}/token"
    assert files.parse_location(publisher.location) == tmp_path / "token"
    assert publisher.local
    for other in ("vault:default:secret/billing", "file:relative", f"{tmp_path}/token", ""):
        assert files.parse_location(other) is None


def test_where_no_thread_can_be_started_it_is_told_each_time_and_nothing_waits_for_ever() -> None:
    lane = lanes.Lane(99)
    # As at the limit of the service's tasks: the executor refuses.
    lane._thread.shutdown()

    async def story() -> None:
        for _ in range(2):
            with pytest.raises(Unavailable, match="no file can be written"):
                await asyncio.wait_for(lane.run(lambda: 1), 10)

    asyncio.run(story())

"""Disks that are full, tiny, read-only, limited or stuck, under the state and under the targets of the real process.

In each: no exchange without a durable intent, the last token stays, and once the disk is well everything heals by
itself (or by the restart that a supervisor makes), without a login and without a spent token.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.acceptance import house
from tests.acceptance.house import House, Reader
from tests.acceptance.stage import Process, wait_for
from tests.faults import machine, verdict
from tests.peers import django_oauth
from tests.peers.django_oauth import DjangoOAuth

LIFETIME = 40
# Between what the server has committed and its answer: long enough to do something to a disk in it.
HOLD = 0.5
TIMING = '[timing]\nsweep_every = "300ms"\nverify_every = "500ms"\n'
# How long a fault lasts where something must *not* happen; rotations are due every second.
WHILE = 2.5

Figures = Callable[[str], None]


@pytest.fixture(scope="module")
def peer() -> Iterator[DjangoOAuth]:
    machine.require("mount", "umount", "findmnt", "mkfs.ext4", "e2fsck", "fsfreeze", "chattr", "prlimit")
    with django_oauth.serve(access_seconds=LIFETIME, hold_seconds=HOLD) as served:
        yield served


@pytest.fixture
def place(peer: DjangoOAuth, tmp_path: Path) -> House:
    verdict.forget(peer)
    rules = {"rotate_at": str(1 / LIFETIME), "jitter": "0.0", "spacing": '"1s"', "reuse": '"kills_family"'}
    place = House(tmp_path / "house", peer, rules, timing=TIMING)
    place.write()
    return place


@contextmanager
def working(place: House) -> Iterator[Process]:
    """A daemon that has published; whoever reads meets no gap until the block ends."""
    process = place.start()
    try:
        place.order("wait", "billing", "--timeout", "20s")
        reader = Reader(raw=str(place.raw), described=str(place.described), pause=0.005)
        with house.reading(reader):
            yield process
            heal(place, process)
        verdict.check_reader(reader.seen, place.peer)
        assert process.end() == 0, place.told()
    finally:
        house.bury(process)


def heal(place: House, process: Process) -> None:
    """By itself and in both files: a rotation that began from now on."""
    began = len(place.peer.exchanges())

    def healed() -> bool:
        later = {one.access_token for one in place.peer.exchanges()[began:] if one.access_token}
        found = verdict.published(place)
        return found.raw in later and found.raw == found.described

    machine.wait(place, process, healed, "a new token in both files")


def wait_committed(place: House, process: Process) -> int:
    """Wait for a rotation that the provider holds in its hands; its number in the log."""
    count = len(place.peer.exchanges())
    machine.wait(place, process, lambda: len(place.peer.exchanges()) > count, "an exchange")
    return count


@contextmanager
def committed(place: House, process: Process) -> Iterator[int]:
    """A rotation that the provider holds in its hands until the block ends, however long a fault takes to come; its
    number in the log."""
    with place.peer.holding():
        yield wait_committed(place, process)


def check_answer_kept(place: House, process: Process, number: int) -> None:
    """The answer to that exchange reaches the files: it was saved."""
    machine.wait(place, process, lambda: place.peer.exchanges()[number].access_token, "the provider's answer")
    answer = place.peer.exchanges()[number].access_token
    machine.wait(place, process, lambda: place.raw.read_text() == answer, "the answer in the file")


# --- the state ------------------------------------------------------------------------------------------------------

TINY = ("size=64k", "size=256k", "size=4m,nr_inodes=6")
TINIER = (
    "size=16k", "size=32k", "size=128k", "size=384k", "size=512k", "size=4m,nr_inodes=2", "size=4m,nr_inodes=4",
    "size=4m,nr_inodes=7", "size=4m,nr_inodes=8",
)  # fmt: skip


@pytest.mark.parametrize("options", (*TINY, *(TINIER if machine.WHOLE else ())))
def test_a_state_without_room_costs_no_login_and_goes_on_once_there_is_some(place: House, options: str) -> None:
    with machine.tmpfs(place.folder / "state", options) as disk:
        process = place.start()
        try:
            # It ends and says so, or it waits; a state with just room enough works. What was sent was saved.
            began = time.monotonic()
            wait_for(lambda: process.popen.poll() is not None or time.monotonic() > began + WHILE, "a start")
            code = process.popen.poll()
            assert code in (None, 69), place.told()
            if code is not None:
                assert "to mend it: " in process.told, process.told
            sent = verdict.account(place.peer)
            assert (len(sent.exchanges) > 0) == place.raw.exists(), f"a login without room to keep it: {place.told()}"
            if options in TINY:
                assert sent.exchanges == [], "the disk of this story is too small for a login"
            disk.change("size=4m,nr_inodes=100")
            if code is not None:
                process = place.start()
            machine.wait(place, process, place.raw.exists, "the first token")
            heal(place, process)
            assert process.end() == 0, place.told()
        finally:
            house.bury(process)
    verdict.check_chain(place.peer)


def test_a_disk_that_fills_while_the_provider_answers_keeps_the_answer(place: House, figures: Figures) -> None:
    rounds = 30 if machine.WHOLE else 4
    with machine.tmpfs(place.folder / "state", "size=1m"), working(place) as process:
        for _ in range(rounds):
            with committed(place, process) as number:
                filler = machine.fill(place.folder / "state")
            check_answer_kept(place, process, number)
            filler.unlink()
    told = verdict.check_chain(place.peer)
    figures(f"state full between commit and answer, {rounds} times: every answer saved; {told}")


@pytest.mark.whole
def test_a_full_state_stops_the_exchanges_not_the_token(place: House) -> None:
    """Filled for good, and the room that was kept for an answer with it: nothing may be spent any more."""
    state = place.folder / "state"
    with machine.tmpfs(state, "size=1m"), working(place) as process:
        # What an operator in need of room may well delete.
        with machine.stopped(process):
            (state / "state" / "reserve").write_bytes(b"")
            filler = machine.fill(state)
        machine.rest(process, WHILE)
        before, token = len(place.peer.exchanges()), place.raw.read_text()
        machine.rest(process, WHILE)
        assert place.raw.read_text() == token, "the last token stays"
        stored = verdict.stored_generation(place, place.folder.parent / "aside")
        assert stored == verdict.published(place).generation
        assert len(place.peer.exchanges()) == before, f"spent without room for the answer:\n{place.told()}"
        filler.unlink()
    verdict.check_chain(place.peer)


@pytest.mark.whole
def test_a_limit_on_the_size_of_files_stops_the_exchanges_not_the_token(place: House) -> None:
    with working(place) as process:
        with committed(place, process) as number:
            machine.run("prlimit", "--pid", str(process.pid), "--fsize=4096:unlimited")
        machine.rest(process, WHILE)
        # The one in flight may wait in memory; beyond it, nothing is spent.
        assert len(place.peer.exchanges()) <= number + 1, place.told()
        machine.run("prlimit", "--pid", str(process.pid), "--fsize=unlimited:unlimited")
        check_answer_kept(place, process, number)
    verdict.check_chain(place.peer)


@pytest.mark.whole
def test_a_start_on_a_read_only_state_costs_no_login(place: House) -> None:
    with machine.tmpfs(place.folder / "state", "size=4m") as disk:
        with working(place):
            pass
        before, token = len(place.peer.exchanges()), place.raw.read_text()
        disk.change("ro")
        process = place.start()
        try:
            began = time.monotonic()
            wait_for(lambda: process.popen.poll() is not None or time.monotonic() > began + WHILE, "a start")
            assert process.popen.poll() in (None, 69), place.told()
            assert len(place.peer.exchanges()) == before, "spent what cannot be saved"
            assert place.raw.read_text() == token
        finally:
            house.bury(process)
        disk.change("rw")
        with working(place):
            pass
    verdict.check_chain(place.peer)


def test_a_disk_that_turns_read_only_while_the_daemon_runs(place: House, tmp_path: Path) -> None:
    """The kernel's own `errors=remount-ro`: then an operator stops the daemon, checks the disk and starts again."""
    state = place.folder / "state"
    with machine.disk("ext4", tmp_path / "image", state) as disk:
        process = place.start()
        try:
            place.order("wait", "billing", "--timeout", "20s")
            number = wait_committed(place, process)
            check_answer_kept(place, process, number)
            # Without an answer there is no next: one at most is on its way as the disk fails, however long that takes.
            with place.peer.holding():
                disk.fail()
            with pytest.raises(OSError):
                (state / "probe").touch()
            machine.rest(process, WHILE)
            # At most the one that was on its way as the disk failed.
            before, token = len(place.peer.exchanges()), place.raw.read_text()
            assert before <= number + 2, f"spent what cannot be saved:\n{place.told()}"
            machine.rest(process, WHILE)
            assert len(place.peer.exchanges()) == before, f"spent what cannot be saved:\n{place.told()}"
            assert place.raw.read_text() == token
            process.end(9)
            disk.mend()
            lost = before - (number + 1)
            process = place.start()
            machine.wait(place, process, lambda: place.raw.read_text() != token, "another token")
            heal(place, process)
            assert process.end() == 0, place.told()
        finally:
            house.bury(process)
    told = verdict.account(place.peer)
    assert told.passwords == 1 + lost, told
    assert told.reused <= lost


def test_a_disk_that_hangs_delays_the_save_and_loses_nothing(place: House, tmp_path: Path) -> None:
    with machine.disk("ext4", tmp_path / "image", place.folder / "state") as disk, working(place) as process:
        with ExitStack() as fault:
            with committed(place, process) as number:
                fault.enter_context(disk.frozen())
            machine.wait(place, process, lambda: place.peer.exchanges()[number].access_token, "the provider's answer")
            machine.rest(process, WHILE / 2)
            assert place.raw.read_text() != place.peer.exchanges()[number].access_token, "published and not saved"
            assert len(place.peer.exchanges()) == number + 1
        check_answer_kept(place, process, number)
    verdict.check_chain(place.peer)


@pytest.mark.whole
def test_an_intent_that_hung_longer_than_its_lease_starts_no_exchange(place: House, tmp_path: Path) -> None:
    # A lease is the deadline and three seconds.
    place.provider |= {"deadline": '"1s"', "spacing": '"3s"'}
    place.write()
    with machine.disk("ext4", tmp_path / "image", place.folder / "state") as disk, working(place) as process:
        number = wait_committed(place, process)
        check_answer_kept(place, process, number)
        # Past the marks of this delivery and before the next is due: what hangs is to be an intent.
        machine.rest(process, 1.0)
        with disk.frozen():
            machine.rest(process, 2.0 + 1.0 + 3.0 + 2.0)
            assert len(place.peer.exchanges()) == number + 1, "sent before its intent was durable"
        process.wait_logged("the lease ran out")
    verdict.check_chain(place.peer)


# --- the targets ----------------------------------------------------------------------------------------------------


def check_goes_on_without_target(place: House, process: Process) -> None:
    """While the target takes nothing: the chain goes on in the store, the last token stays where it is."""
    machine.rest(process, 1.0)
    before, found = len(place.peer.exchanges()), verdict.published(place)
    machine.wait(place, process, lambda: len(place.peer.exchanges()) >= before + 2, "rotations without a target")
    assert verdict.published(place) == found


def test_a_full_target_keeps_the_last_token_and_stops_no_rotation(place: House, figures: Figures) -> None:
    with machine.tmpfs(place.folder / "run", "size=64k"), working(place) as process:
        filler = machine.fill(place.folder / "run")
        check_goes_on_without_target(place, process)
        filler.unlink()
        began = time.monotonic()
        heal(place, process)
        figures(f"a full target: both files new {time.monotonic() - began:.1f} s after there was room")
    verdict.check_chain(place.peer)


@pytest.mark.whole
def test_a_target_without_inodes_keeps_the_last_token(place: House) -> None:
    # The folders and the two files; the temporary one beside them finds no inode.
    with machine.tmpfs(place.folder / "run", "size=1m,nr_inodes=100") as disk, working(place) as process:
        disk.change("nr_inodes=4")
        check_goes_on_without_target(place, process)
        disk.change("nr_inodes=100")
    verdict.check_chain(place.peer)


def test_a_target_that_turns_read_only_keeps_the_last_token(place: House) -> None:
    with machine.tmpfs(place.folder / "run", "size=1m") as disk, working(place) as process:
        wait_for(lambda: _tried(disk, "ro"), "a moment when nobody writes")
        check_goes_on_without_target(place, process)
        disk.change("rw")
    verdict.check_chain(place.peer)


def _tried(disk: machine.Memory, options: str) -> bool:
    # Busy while a temporary file is open for writing.
    try:
        disk.change(options)
    except AssertionError:
        return False
    return True


@pytest.mark.whole
def test_a_start_with_a_read_only_target_rotates_and_publishes_later(place: House) -> None:
    with machine.tmpfs(place.folder / "run", "size=1m") as disk:
        (place.folder / "run" / "billing").mkdir()
        disk.change("ro")
        process = place.start()
        try:
            machine.wait(
                place, process, lambda: verdict.account(place.peer).rotations >= 1, "a rotation without a target"
            )
            assert not place.raw.exists()
            disk.change("rw")
            machine.wait(place, process, place.described.exists, "the first token")
            heal(place, process)
            assert process.end() == 0, place.told()
        finally:
            house.bury(process)
    verdict.check_chain(place.peer)


@pytest.mark.whole
def test_an_immutable_token_file_is_told_and_replaced_once_it_may(place: House, tmp_path: Path) -> None:
    with machine.disk("ext4", tmp_path / "image", place.folder / "run"), working(place) as process:
        wait_for(lambda: _tied(place.raw), "a moment when it stands still")
        kept = place.raw.read_text()
        try:
            machine.rest(process, WHILE)
            assert place.raw.read_text() == kept
            assert verdict.published(place).described != kept, "the other file goes on"
            assert str(place.raw) in process.told, "the log names the file"
        finally:
            machine.run("chattr", "-i", str(place.raw))
    verdict.check_chain(place.peer)


def _tied(path: Path) -> bool:
    machine.run("chattr", "+i", str(path))
    return True

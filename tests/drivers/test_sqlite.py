"""What the SQLite store promises beyond the contract of every store (`tests/contracts/test_store.py`)."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import stat
import struct
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

import rotator
from rotator.core import policy, records
from rotator.core.errors import BadUsage, Misconfigured, Overtaken, RotatorError, StateDamaged, Unavailable
from rotator.core.grants import Grant
from rotator.core.ports import Entry
from rotator.core.pressure import Line
from rotator.core.tokens import Secret
from rotator.drivers import sqlite
from rotator.drivers.sqlite import register, room, rows, schema, writer
from rotator.drivers.sqlite.folder import Lock
from tests.contracts.stores import NOW, FakeClock, FakeDice, granted, in_line, intent, new

T = TypeVar("T")
ROOT = Path(rotator.__file__).parent.parent
NOBODY = 65534


def missing(what: str) -> None:
    """A real thing is not here: no reason to fail on a person's machine, one in CI."""
    if os.environ.get("CI"):
        pytest.fail(what)
    pytest.skip(what)


def store_at(directory: Path, *, read_only: bool = False) -> sqlite.SqliteStore:
    return sqlite.SqliteStore(directory / "state.db", clock=FakeClock(), dice=FakeDice(), read_only=read_only)


def tell(
    directory: Path, story: Callable[[sqlite.SqliteStore], Coroutine[Any, Any, T]], *, read_only: bool = False
) -> T:
    """Run a story with one open store."""

    async def run() -> T:
        store = store_at(directory, read_only=read_only)
        await store.open()
        try:
            return await story(store)
        finally:
            await store.close()

    return asyncio.run(run())


async def enrol(store: sqlite.SqliteStore) -> Grant:
    return await store.enrol(new())


async def nothing(store: sqlite.SqliteStore) -> None:
    pass


def refused(directory: Path, kind: type[RotatorError], *, read_only: bool = False) -> str:
    """Opening is refused; what the person reads."""
    with pytest.raises(kind) as caught:
        tell(directory, nothing, read_only=read_only)
    assert type(caught.value) is kind
    return str(caught.value)


def made(directory: Path) -> Path:
    """A state with one grant, closed; return the database."""
    tell(directory, enrol)
    return directory / "state" / "state.db"


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name.startswith("state.db")}


# --- another process ----------------------------------------------------------------------------------------------

PRELUDE = """
import asyncio, os, sys
from datetime import timedelta
from pathlib import Path
from rotator.drivers.clock import SystemClock, SystemDice
from rotator.drivers.sqlite import SqliteStore
from tests.contracts.stores import NOW, granted, intent, new
clock = SystemClock()
store = SqliteStore(Path(sys.argv[1]) / "state.db", clock=clock, dice=SystemDice())
def say(*words): os.write(1, (" ".join(map(str, words)) + "\\n").encode())
"""

HOLD = "async def main():\n    await store.open()\n    say('open')\n    sys.stdin.read()\n"


@contextmanager
def process(script: str, directory: Path, *before: str) -> Iterator[subprocess.Popen[bytes]]:
    code = PRELUDE + textwrap.dedent(script) + "\nasyncio.run(main())\n"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [*before, sys.executable, "-c", code, str(directory)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=directory,
    ) as child:  # fmt: skip
        try:
            yield child
        finally:
            child.kill()


def line(child: subprocess.Popen[bytes]) -> bytes:
    assert child.stdout is not None
    return child.stdout.readline()


def test_a_second_daemon_is_told_who_holds_the_state(tmp_path: Path) -> None:
    with process(HOLD, tmp_path) as child:
        assert line(child) == b"open\n"
        message = refused(tmp_path, Overtaken)
        who = sqlite.holder(tmp_path / "state")
        assert who is not None
        assert who["pid"] == child.pid
        assert who["version"] == rotator.__version__
        assert f"process {child.pid} (-c " in message
        assert who["started_at"] in message


def test_a_killed_daemon_leaves_no_lock(tmp_path: Path) -> None:
    with process(HOLD, tmp_path) as child:
        assert line(child) == b"open\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert sqlite.holder(tmp_path / "state") is None
        tell(tmp_path, enrol)


def test_nobody_holds_what_is_closed_or_was_never_made(tmp_path: Path) -> None:
    assert sqlite.holder(tmp_path / "state") is None
    made(tmp_path)
    assert sqlite.holder(tmp_path / "state") is None


def test_who_only_looks_is_never_in_the_way(tmp_path: Path) -> None:
    made(tmp_path)
    folder, over = tmp_path / "state", threading.Event()

    def look() -> None:
        while not over.is_set():
            sqlite.holder(folder)

    onlookers = [threading.Thread(target=look) for _ in range(2)]
    for onlooker in onlookers:
        onlooker.start()
    try:
        for _ in range(300):
            lock = Lock(folder)
            lock.take(NOW)
            lock.release()
    finally:
        over.set()
        for onlooker in onlookers:
            onlooker.join()


SAVES = """
async def rotate(name):
    grant = await store.enrol(new(name))
    while True:
        await store.save(grant := granted(grant), expected=grant.generation - 1, lease=None, now=clock.now())
        say(name, grant.generation)

async def main():
    await store.open()
    await asyncio.gather(*(rotate(f"grant_{n}") for n in range(12)))
"""


@pytest.mark.parametrize("acknowledged", [1, 40, 400])
def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, acknowledged: int) -> None:
    with process(SAVES, tmp_path) as child:
        told = [line(child) for _ in range(acknowledged)]
        child.send_signal(signal.SIGKILL)
        assert child.stdout is not None
        told += child.stdout.readlines()
    last: dict[str, int] = {}
    for name, generation in (one.decode().split() for one in told if one.endswith(b"\n")):
        last[name] = int(generation)

    async def story(store: sqlite.SqliteStore) -> None:
        for grant in await store.grants():
            # At most the one save more that was committed and not told yet.
            assert 0 <= grant.generation - last.get(grant.name, 0) <= 1
            if grant.generation:
                assert grant.refresh == Secret(f"refresh-{grant.name}-{grant.generation}")
        assert {grant.name for grant in await store.grants()} >= set(last)

    assert last
    tell(tmp_path, story)


# --- permissions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0, 0o077, 0o777])
@pytest.mark.parametrize("mode", [0o700, 0o777, 0o2775])
def test_the_state_is_private_in_any_directory_under_any_umask(tmp_path: Path, umask: int, mode: int) -> None:
    tmp_path.chmod(mode)

    async def story(store: sqlite.SqliteStore) -> None:
        await enrol(store)
        found = modes(store.folder)
        assert set(found) == {"state.db", "state.db-wal", "state.db-shm", "lock", "created", "reserve"}
        assert set(found.values()) == {0o600}
        assert stat.S_IMODE(store.folder.stat().st_mode) == 0o700
        assert store.folder == tmp_path / "state" == sqlite.folder_of(tmp_path / "state.db")

    former = os.umask(umask)
    try:
        tell(tmp_path, story)
    finally:
        os.umask(former)


def test_what_was_opened_to_others_is_closed_again(tmp_path: Path) -> None:
    """The kubelet gives every file of an fsGroup volume to the group, at every mount."""
    folder = made(tmp_path).parent
    folder.chmod(0o2775)
    for path in folder.iterdir():
        path.chmod(0o664)

    async def story(store: sqlite.SqliteStore) -> None:
        assert set(modes(folder).values()) == {0o600}
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700

    tell(tmp_path, story)


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing("only root can give a folder away")
    folder = made(tmp_path).parent
    os.chown(folder, NOBODY, NOBODY)
    assert f"belongs to user {NOBODY}" in refused(tmp_path, Misconfigured)


def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "state").symlink_to(elsewhere)
    assert "is not a directory" in refused(tmp_path, Misconfigured)
    assert list(elsewhere.iterdir()) == []


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("mine")
    assert "is not a directory" in refused(tmp_path, Misconfigured)


def test_a_missing_directory_is_never_made(tmp_path: Path) -> None:
    assert "does not exist" in refused(tmp_path / "unmounted", Misconfigured)
    assert not (tmp_path / "unmounted").exists()


# --- damaged, lost, newer -----------------------------------------------------------------------------------------


def garbage(database: Path) -> None:
    database.write_bytes(b"not a database at all\n" * 500)


def cut(database: Path) -> None:
    os.truncate(database, database.stat().st_size // 2)


def scribbled(database: Path) -> None:
    """A page in the middle holds something else; the header is whole."""
    with database.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * 4096)


def of_another_program(database: Path) -> None:
    database.unlink()
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")


def newer(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(f"PRAGMA user_version = {schema.VERSION + 1}")


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (garbage, "is damaged"),
        (cut, "is damaged"),
        (scribbled, "is damaged"),
        (of_another_program, "is not a state of rotator"),
        (newer, f"has schema {schema.VERSION + 1}, this rotator knows {schema.VERSION}"),
    ],
)
def test_what_cannot_be_read_stays_as_it_is(tmp_path: Path, harm: Callable[[Path], None], message: str) -> None:
    database = made(tmp_path)
    harm(database)
    before = contents(database.parent)
    assert message in refused(tmp_path, StateDamaged)
    assert contents(database.parent) == before
    assert message in refused(tmp_path, StateDamaged, read_only=True)
    assert (database.parent / "state.db").read_bytes() == before["state.db"]
    # Whoever was refused holds nothing.
    assert sqlite.holder(database.parent) is None


def test_damage_beside_a_log_leaves_the_log_too(tmp_path: Path) -> None:
    """After a kill the log holds saves that the database does not: opening must not carry them over or cut them."""
    with process(SAVES, tmp_path) as child:
        for _ in range(60):
            line(child)
        child.send_signal(signal.SIGKILL)
        child.wait()
    database = tmp_path / "state" / "state.db"
    newest = {path.name: path.read_bytes() for path in database.parent.iterdir() if path.name != "state.db-shm"}
    assert newest["state.db-wal"]
    garbage(database)
    before = database.read_bytes()
    refused(tmp_path, StateDamaged)
    assert database.read_bytes() == before
    assert (database.parent / "state.db-wal").read_bytes() == newest["state.db-wal"]


@pytest.mark.parametrize("loss", [Path.unlink, lambda database: os.truncate(database, 0)])
def test_a_lost_state_is_no_first_start(tmp_path: Path, loss: Callable[[Path], None]) -> None:
    database = made(tmp_path)
    loss(database)
    before = contents(database.parent)
    for read_only in (False, True):
        assert "is lost" in refused(tmp_path, StateDamaged, read_only=read_only)
    assert contents(database.parent) == before


def killed_before_the_schema(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


@pytest.mark.parametrize("left", [Path.touch, killed_before_the_schema])
def test_a_first_start_that_was_killed_is_begun_again(tmp_path: Path, left: Callable[[Path], None]) -> None:
    (tmp_path / "state").mkdir()
    left(tmp_path / "state" / "state.db")
    refused(tmp_path, Unavailable, read_only=True)
    assert tell(tmp_path, enrol) == new()


def test_a_marker_that_was_not_written_any_more_is_made_up_for(tmp_path: Path) -> None:
    database = made(tmp_path)
    (database.parent / "created").unlink()
    tell(tmp_path, nothing)
    assert (database.parent / "created").exists()


def test_one_unreadable_record_is_told_without_quoting_it(tmp_path: Path) -> None:
    database = made(tmp_path)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE grants SET record = '{\"secret-words\": '")
        connection.commit()

    async def story(store: sqlite.SqliteStore) -> None:
        with pytest.raises(StateDamaged) as caught:
            await store.grant("billing")
        assert "secret-words" not in str(caught.value)
        await store.enrol(new("other"))

    tell(tmp_path, story)


# --- reset --------------------------------------------------------------------------------------------------------


def reset(directory: Path, *, charge_budget: bool = True) -> Path | None:
    return sqlite.reset(directory / "state.db", now=NOW, charge_budget=charge_budget)


def test_reset_keeps_the_old_state_aside(tmp_path: Path) -> None:
    database = made(tmp_path)
    cut(database)
    (database.parent / "state.db-wal").write_bytes(b"its log")
    damaged = database.read_bytes()
    aside = reset(tmp_path)
    assert aside == database.parent / "state.db.damaged-20270301T120000Z"
    assert aside.read_bytes() == damaged
    assert aside.with_name(aside.name + "-wal").read_bytes() == b"its log"
    assert set(modes(database.parent).values()) == {0o600}

    async def story(store: sqlite.SqliteStore) -> None:
        assert await store.grants() == []
        assert len(await store.key()) == 32

    tell(tmp_path, story)


def test_a_second_reset_within_the_second_overwrites_nothing(tmp_path: Path) -> None:
    database = made(tmp_path)
    first, second, third = (reset(tmp_path) for _ in range(3))
    assert first is not None
    assert len({first, second, third}) == 3
    with closing(sqlite3.connect(first)) as connection:
        assert connection.execute("SELECT name FROM grants").fetchall() == [("billing",)]
    assert database.exists()


@pytest.mark.parametrize("limit", [1, 3, records.TOMBSTONE_DEBITS])
def test_a_reset_state_counts_the_password_budget_as_spent(tmp_path: Path, limit: int) -> None:
    made(tmp_path)
    reset(tmp_path)
    budget = policy.Budget(limit=limit)
    grant = tell(tmp_path, enrol)
    assert budget.left(grant.debits, NOW) == 0
    assert budget.allowed_at(grant.debits, NOW) == NOW + budget.window
    assert budget.left(grant.debits, NOW + budget.window) == limit


def test_the_operator_may_say_that_nothing_was_spent(tmp_path: Path) -> None:
    made(tmp_path)
    reset(tmp_path, charge_budget=False)
    assert tell(tmp_path, enrol).debits == ()


def test_reset_mends_a_lost_state(tmp_path: Path) -> None:
    made(tmp_path).unlink()
    assert reset(tmp_path) is None
    assert tell(tmp_path, enrol).debits


def test_reset_waits_for_nobody(tmp_path: Path) -> None:
    async def story(store: sqlite.SqliteStore) -> None:
        await enrol(store)
        with pytest.raises(Overtaken):
            reset(tmp_path)
        assert await store.grants() == [new()]

    tell(tmp_path, story)


# --- reading beside a daemon, or without one ----------------------------------------------------------------------


def test_reading_beside_a_live_writer(tmp_path: Path) -> None:
    async def story(store: sqlite.SqliteStore) -> None:
        grant = await enrol(store)
        reader = store_at(tmp_path, read_only=True)
        await reader.open()
        try:
            assert await reader.grants() == [grant]
            assert await reader.key() == await store.key()
            await store.save(granted(grant), expected=0, lease=None, now=NOW)
            assert await reader.grant("billing") == granted(grant)
            with pytest.raises(Unavailable, match="reading only"):
                await reader.enrol(new("other"))
        finally:
            await reader.close()
        # The reader took nothing with it.
        await store.save(granted(granted(grant)), expected=1, lease=None, now=NOW)

    tell(tmp_path, story)
    assert tell(tmp_path, lambda store: store.grant("billing")) == granted(granted(new()))


def test_reading_without_a_daemon_changes_nothing_of_ours(tmp_path: Path) -> None:
    database = made(tmp_path)
    before = database.read_bytes()
    assert tell(tmp_path, lambda store: store.grants(), read_only=True) == [new()]
    assert database.read_bytes() == before
    assert sqlite.holder(database.parent) is None


def test_reading_what_a_killed_daemon_left_in_its_log(tmp_path: Path) -> None:
    script = """
    async def main():
        await store.open()
        grant = await store.enrol(new())
        await store.save(granted(grant), expected=0, lease=None, now=NOW)
        say("saved")
        sys.stdin.read()
    """
    with process(script, tmp_path) as child:
        assert line(child) == b"saved\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert tell(tmp_path, lambda store: store.grant("billing"), read_only=True) == granted(new())


def test_reading_makes_no_state(tmp_path: Path) -> None:
    assert "there is no state" in refused(tmp_path, Unavailable, read_only=True)
    assert list(tmp_path.iterdir()) == []
    assert "there is no state" in refused(tmp_path / "nowhere", Unavailable, read_only=True)


def test_a_stranger_is_told_that_the_state_is_private(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        missing("only root can become somebody else")
    folder = made(tmp_path).parent
    os.seteuid(NOBODY)
    try:
        assert "is private" in refused(tmp_path, BadUsage, read_only=True)
        with pytest.raises(BadUsage):
            sqlite.holder(folder)
    finally:
        os.seteuid(0)


# --- what a save costs --------------------------------------------------------------------------------------------


def commits(folder: Path) -> int:
    """Durable commits since the log was begun, counted from outside: frames whose header tells the size of the
    database "after the commit" (sqlite.org/fileformat2.html, section 4.1), with the salt of this log."""
    log = (folder / "state.db-wal").read_bytes()
    page, salt = struct.unpack(">I", log[8:12])[0], log[16:24]
    starts = range(32, len(log) - page - 23, page + 24)
    return sum(log[at + 4 : at + 8] != bytes(4) for at in starts if log[at + 8 : at + 16] == salt)


async def rotate(store: sqlite.SqliteStore, clock: FakeClock) -> None:
    """As the engine does it: lease, intent, answer, release."""
    lease, grant = await store.lease("billing", "me", clock.moment(), timedelta(seconds=45))
    meant = replace(grant, intent=intent(grant, clock.moment()))
    await store.save(meant, expected=grant.generation, lease=lease, now=NOW)
    await store.save(granted(meant), expected=grant.generation, lease=lease, now=NOW)
    await store.release(lease)


def test_a_rotation_costs_two_durable_commits(tmp_path: Path) -> None:
    async def story(store: sqlite.SqliteStore) -> None:
        await enrol(store)
        for _ in range(5):
            before = commits(store.folder)
            await rotate(store, FakeClock())
            assert commits(store.folder) == before + 2
        before = commits(store.folder)
        for _ in range(3):
            await store.due(NOW, 10)
            await store.next_due(NOW)
            await store.grants()
            await enrol(store)
        assert commits(store.folder) == before

    tell(tmp_path, story)


def test_every_commit_is_synced_before_it_is_acknowledged(tmp_path: Path) -> None:
    """Seen by the kernel: between two acknowledgements the log is synced once."""
    strace = shutil.which("strace")
    if strace is None:
        missing("strace is not installed")
        return
    script = """
    async def main():
        await store.open()
        grant = await store.enrol(new())
        say("begin")
        for _ in range(10):
            await store.save(grant := granted(grant), expected=grant.generation - 1, lease=None, now=NOW)
            say("saved")
    """
    trace = tmp_path / "trace"
    with process(script, tmp_path, strace, "-f", "-y", "-o", str(trace), "-e", "fsync,fdatasync,write") as child:
        assert child.wait() == 0
    calls = trace.read_text()
    if "begin" not in calls:
        missing("strace may not trace here")
    between = calls.partition('"begin\\n"')[2].split('"saved\\n"')[:10]
    assert [len([one for one in part.splitlines() if "sync(" in one and "-wal>" in one]) for part in between] == [
        1
    ] * 10


def test_saves_that_wait_share_a_commit(tmp_path: Path) -> None:
    async def story(store: sqlite.SqliteStore) -> None:
        names = [f"grant_{number}" for number in range(64)]
        await asyncio.gather(*(store.enrol(new(name)) for name in names))
        before = commits(store.folder)
        await asyncio.gather(*(store.save(granted(new(name)), expected=0, lease=None, now=NOW) for name in names))
        assert commits(store.folder) - before < 16

    tell(tmp_path, story)


def test_who_fails_half_way_undoes_only_his_own(tmp_path: Path) -> None:
    """Of one batch: the thread is held in its opening until all three jobs wait."""
    database, gathered, batches = tmp_path / "any.db", threading.Event(), []

    def opening() -> sqlite3.Connection:
        connection = sqlite3.connect(database, isolation_level=None)
        connection.execute("CREATE TABLE names (name TEXT)")
        connection.set_trace_callback(lambda sql: batches.append(sql) if sql == "COMMIT" else None)
        gathered.wait(30)
        return connection

    def insert(name: str, error: RotatorError | None = None) -> Callable[[sqlite3.Connection], None]:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO names VALUES (?)", (name,))
            if error is not None:
                raise error

        return work

    async def story() -> None:
        scribe = writer.Writer(opening, lambda: None, lambda error: Unavailable(str(error)), room.Reserve(tmp_path))
        starting = asyncio.ensure_future(scribe.start())
        await asyncio.sleep(0)
        jobs = [insert("first"), insert("second", Overtaken("another was first")), insert("third")]
        waiting = [scribe.submit(job, writer.Kind.WRITE) for job in jobs]
        gathered.set()
        await starting
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result) for result in results] == [type(None), Overtaken, type(None)]
        await scribe.stop()

    asyncio.run(story())
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT name FROM names").fetchall() == [("first",), ("third",)]
    assert batches == ["COMMIT"]


def test_due_grants_are_found_by_the_index(tmp_path: Path) -> None:
    database = made(tmp_path)
    with closing(sqlite3.connect(database)) as connection:
        for statement, arguments, index in (
            (rows.DUE, (1, 10), "grants_due (due_at<?)"),
            (rows.NEXT_DUE, (1,), "grants_due (due_at>?)"),
            (register.IN_LINE, ("p", 0, 1, 10), "grants_in_line (provider=? AND line=? AND due_at<?)"),
            (register.NEXT_IN_LINE, ("p", 0, 1), "grants_in_line (provider=? AND line=? AND due_at>?)"),
        ):
            plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", arguments)]
            assert len(plan) == 1
            assert f"USING COVERING INDEX {index}" in plan[0]
        found = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {rows.DELIVERIES} {rows.EXPIRED}", (1, 1))]
        assert found == ["SEARCH deliveries USING INDEX deliveries_expired (expires_at<?)"]
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {register.LISTED}", ("a", 9))]
        assert not any("TEMP B-TREE" in step or step.startswith("SCAN") for step in plan), plan


def test_a_state_of_the_first_schema_is_brought_up_and_keeps_all_it_holds(tmp_path: Path) -> None:
    database = made(tmp_path)
    with closing(sqlite3.connect(database)) as connection:
        before = connection.execute("SELECT name, lineage, generation, due_at, record FROM grants").fetchall()
        assert before
        for statement in (
            "DROP INDEX grants_due", "DROP INDEX grants_in_line", "DROP INDEX deliveries_expired",
            "DROP TABLE register",
            "ALTER TABLE grants DROP COLUMN provider", "ALTER TABLE grants DROP COLUMN line",
            "ALTER TABLE grants DROP COLUMN expires_at", "CREATE INDEX grants_due ON grants (due_at, name)",
            "PRAGMA user_version = 1",
        ):  # fmt: skip
            connection.execute(statement)
    (tmp_path / "fresh").mkdir()
    fresh = schema_of(made(tmp_path / "fresh"))

    async def story(store: sqlite.SqliteStore) -> None:
        assert [grant.name for grant in await store.grants()] == [row[0] for row in before]
        names = [row[0] for row in before if row[3] is not None]
        assert await store.due(NOW, 9) == names
        # Its line is not known before it is saved; in the register it is due all the same.
        await store.register.enter([Entry(name, "p", "{}") for name in names])
        found = in_line(await store.register.due(NOW, {("p", line): 9 for line in Line}))
        assert [name for some in found.values() for name in some] == names
        assert await store.due(NOW, 9) == []

    tell(tmp_path, story)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT name, lineage, generation, due_at, record FROM grants").fetchall() == before
    assert schema_of(database) == fresh


def schema_of(database: Path) -> set[tuple[str, str]]:
    """What there is, without the text of tables, to which SQLite adds columns in its own way."""
    with closing(sqlite3.connect(database)) as connection:
        told = connection.execute("SELECT name, type, CASE type WHEN 'index' THEN sql END FROM sqlite_master")
        columns = connection.execute("SELECT name FROM pragma_table_info('grants')")
        return {(name, f"{kind} {text}") for name, kind, text in told} | {(name, "column") for (name,) in columns}


def test_a_cancelled_save_is_done_all_the_same(tmp_path: Path) -> None:
    async def story(store: sqlite.SqliteStore) -> None:
        grant = await enrol(store)
        saving = asyncio.ensure_future(store.save(granted(grant), expected=0, lease=None, now=NOW))
        await asyncio.sleep(0)
        saving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await saving
        assert await store.grant("billing") == granted(grant)

    tell(tmp_path, story)


# --- room ---------------------------------------------------------------------------------------------------------


def padding(folder: Path) -> int | None:
    with closing(sqlite3.connect(f"{(folder / 'state.db').as_uri()}?mode=ro", uri=True)) as connection:
        size: int | None = connection.execute("SELECT length(padding) FROM grants").fetchone()[0]
        return size


@pytest.mark.parametrize("size", [100, 30_000])
def test_an_intent_keeps_the_room_of_the_answer(tmp_path: Path, size: int) -> None:
    async def story(store: sqlite.SqliteStore) -> None:
        grant = replace(granted(await enrol(store)), refresh=Secret("x" * size))
        await store.save(grant, expected=0, lease=None, now=NOW)
        assert padding(store.folder) is None
        meant = replace(grant, intent=intent(grant, FakeClock().moment()))
        await store.save(meant, expected=1, lease=None, now=NOW)
        kept = padding(store.folder)
        assert kept is not None
        assert kept >= max(room.LEAST_PADDING, 2 * size)
        await store.save(granted(meant), expected=1, lease=None, now=NOW)
        assert padding(store.folder) is None

    tell(tmp_path, story)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if os.geteuid() != 0 or shutil.which("mount") is None:
        missing("only root can mount a small file system")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "rotator-test", disk], capture_output=True)
    if mounted.returncode != 0:
        missing(f"no tmpfs may be mounted here: {mounted.stderr.decode().strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def fill(disk: Path) -> None:
    """Somebody's log takes what is left, to the last byte."""
    with (disk / "hog").open("ab", buffering=0) as hog:
        try:
            while True:
                hog.write(b"x" * 4096)
        except OSError:
            pass
    assert os.statvfs(disk).f_bavail == 0


def reserve(folder: Path) -> int:
    """The room that the reserve really takes."""
    return (folder / room.RESERVE).stat().st_blocks * 512


def test_an_answer_lands_on_a_disk_that_filled_up_meanwhile(small_disk: Path) -> None:
    async def story(store: sqlite.SqliteStore) -> None:
        grant = await enrol(store)
        meant = replace(grant, intent=intent(grant, FakeClock().moment()))
        await store.save(meant, expected=0, lease=None, now=NOW)
        assert reserve(store.folder) == room.RESERVE_SIZE
        fill(small_disk)
        # Four times the token set that there was, so that the log and the database both need more than they have.
        answer = replace(granted(meant), refresh=Secret("x" * 16_000))
        await store.save(answer, expected=0, lease=None, now=NOW)
        assert await store.grant("billing") == answer
        assert reserve(store.folder) == 0

    tell(small_disk, story)


def test_no_intent_is_saved_that_leaves_its_answer_without_room(small_disk: Path) -> None:
    """Whatever the disk does: once an intent is saved, its answer is saved as well."""

    async def story(store: sqlite.SqliteStore) -> None:
        clock, grant, refusals = FakeClock(), await enrol(store), 0
        for round_ in range(40):
            if round_ == 25:
                (small_disk / "hog").unlink()
            if round_ in (5, 30):
                fill(small_disk)
            meant = replace(grant, intent=intent(grant, clock.moment()))
            try:
                await store.save(meant, expected=grant.generation, lease=None, now=NOW)
            except Unavailable as error:
                assert "full" in str(error)
                refusals += 1
                continue
            if round_ != 25:
                fill(small_disk)
            grant = replace(granted(meant), refresh=Secret(f"{round_}-" + "x" * 3000))
            await store.save(grant, expected=meant.generation, lease=None, now=NOW)
        assert await store.grant("billing") in (grant, meant)
        assert refusals > 0
        # It went on as soon as there was room again.
        assert grant.generation > 5

    tell(small_disk, story)
    (small_disk / "hog").unlink()

    async def again(store: sqlite.SqliteStore) -> None:
        assert reserve(store.folder) == room.RESERVE_SIZE

    tell(small_disk, again)


def test_the_reserve_is_made_anew_when_there_is_room(small_disk: Path) -> None:
    async def story(store: sqlite.SqliteStore) -> None:
        grant = await enrol(store)
        await store.save(replace(grant, intent=intent(grant, FakeClock().moment())), expected=0, lease=None, now=NOW)
        fill(small_disk)
        answer = replace(granted(grant), refresh=Secret("x" * 16_000))
        await store.save(answer, expected=0, lease=None, now=NOW)
        assert reserve(store.folder) == 0
        (small_disk / "hog").unlink()
        await store.enrol(new("other"))
        # The answer comes before the housekeeping: closing waits for both.
        await store.close()
        assert reserve(store.folder) == room.RESERVE_SIZE

    tell(small_disk, story)


def test_a_full_disk_is_told_and_harms_nothing(small_disk: Path) -> None:
    async def story(store: sqlite.SqliteStore) -> None:
        grant = await enrol(store)
        fill(small_disk)
        huge = replace(granted(grant), refresh=Secret("x" * 600_000))
        with pytest.raises(Unavailable, match="full"):
            await store.save(huge, expected=0, lease=None, now=NOW)
        assert await store.grant("billing") == grant
        (small_disk / "hog").unlink()
        await store.save(granted(grant), expected=0, lease=None, now=NOW)
        assert await store.grant("billing") == granted(grant)

    tell(small_disk, story)


def test_a_state_opens_on_a_full_disk(small_disk: Path) -> None:
    """A valid token in it can be published; only an exchange must wait."""
    made(small_disk)
    fill(small_disk)

    async def story(store: sqlite.SqliteStore) -> None:
        assert await store.grants() == [new()]
        fill(small_disk)
        meant = replace(new(), intent=intent(new(), FakeClock().moment()))
        with pytest.raises(Unavailable, match="too full"):
            await store.save(meant, expected=0, lease=None, now=NOW)

    tell(small_disk, story)


def test_the_lock_file_tells_no_more_than_it_should(tmp_path: Path) -> None:
    folder = made(tmp_path).parent
    told = json.loads((folder / "lock").read_text())
    assert set(told) == {"pid", "started_at", "version", "command"}

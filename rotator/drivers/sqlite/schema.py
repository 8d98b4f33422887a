"""The database file: made, looked at before it is touched, opened, and its errors in our words."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from datetime import datetime
from pathlib import Path

from rotator.core import records
from rotator.core.errors import RotatorError, StateDamaged, Unavailable
from rotator.drivers.sqlite import folder as folders

VERSION = 2
APPLICATION_ID = 0x526F7461  # "Rota"; file(1) shows it, and no other program's database passes for ours
MARKER = "created"
CHECKED_BELOW = 64 * 1024 * 1024
BUSY_SECONDS = 5.0
# 256 pages are 1 MiB of log: SQLite's default of 1000 would fill a small volume on its own.
CHECKPOINT_PAGES = 256
RESET = "see what happened to it; then `rotator state reset` keeps it aside and starts a new state"

TABLES = (
    # due_at in microseconds since the epoch (`records.stamp`); record holds the same, the column is for the index.
    # provider and line are for grants of the register alone, expires_at (of the access token) is there to be counted.
    """CREATE TABLE grants (
        name TEXT PRIMARY KEY, lineage TEXT NOT NULL, generation INTEGER NOT NULL, due_at INTEGER,
        record TEXT NOT NULL, padding BLOB, expires_at INTEGER, line INTEGER, provider TEXT)""",
    "CREATE INDEX grants_due ON grants (due_at, name, provider) WHERE provider IS NULL",
    "CREATE INDEX grants_in_line ON grants (provider, line, due_at, name) WHERE provider IS NOT NULL",
    """CREATE TABLE deliveries (
        grant_name TEXT NOT NULL, location TEXT NOT NULL, target TEXT NOT NULL, lineage TEXT NOT NULL,
        generation INTEGER NOT NULL, expires_at INTEGER NOT NULL, mark TEXT NOT NULL,
        PRIMARY KEY (grant_name, location)) WITHOUT ROWID""",
    # Grants that are enrolled at run time; text is sealed as records are.
    "CREATE TABLE register (name TEXT PRIMARY KEY, provider TEXT NOT NULL, text TEXT NOT NULL) WITHOUT ROWID",
    "CREATE INDEX deliveries_expired ON deliveries (expires_at)",
    # One row. key is NULL only between `rotator state reset` and the first opening after it.
    "CREATE TABLE meta (key BLOB, high_water INTEGER, tombstone_at INTEGER)",
)


# What makes a schema of the next one, by the version that it begins with. Each is one transaction.
STEPS = {
    1: (
        *(
            f"ALTER TABLE grants ADD COLUMN {column}"
            for column in ("expires_at INTEGER", "line INTEGER", "provider TEXT")
        ),
        "DROP INDEX grants_due",
        *TABLES[1:3],
        *TABLES[4:6],
    )
}


def connect(database: Path, mode: str) -> sqlite3.Connection:
    """``mode`` is a URI query (sqlite.org/uri.html); ``rwc`` is never used, so that nothing is made by accident."""
    uri = f"{database.absolute().as_uri()}?{mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_SECONDS)


def create(database: Path, *, tombstone_at: datetime | None = None) -> None:
    """Make an empty state, whole or not at all, and after it the marker that says so."""
    os.close(folders.open_private(database, os.O_RDWR))
    with closing(connect(database, "mode=rw")) as connection:
        _set_up(connection)
        connection.execute("BEGIN IMMEDIATE")
        for table in TABLES:
            connection.execute(table)
        tombstone = None if tombstone_at is None else records.stamp(tombstone_at)
        connection.execute("INSERT INTO meta (tombstone_at) VALUES (?)", (tombstone,))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    folders.sync(database.parent)
    mark(database)


def mark(database: Path) -> None:
    """Leave the sign that a state was made here: without it, a lost database would look like a first start, and
    that would refresh the password budget."""
    marker = database.parent / MARKER
    if marker.exists():
        return
    fd = folders.open_private(marker, os.O_WRONLY)
    try:
        os.write(fd, f"A state was made here. If {database.name} is gone, it is lost: rotator state reset\n".encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    folders.sync(database.parent)


def exists(database: Path, *, alone: bool) -> bool:
    """Whether a state is there. Raises StateDamaged where there must be one and is none, or one that cannot be read.

    Nothing is changed: a damaged file stays exactly as it is, its log included. ``alone``: we hold the lock.
    """
    marked = (database.parent / MARKER).exists()
    if _size(database) == 0:
        blank = True
    else:
        try:
            blank = _is_blank(database, alone)
        except sqlite3.Error as error:
            raise translated(error, database) from None
    if blank and marked:
        raise StateDamaged(
            f"the state {database} is lost: it was made here once and is empty or gone",
            mend="put it back if you have it; else `rotator state reset` starts a new one",
        )
    return not blank


def open_for_writing(database: Path) -> sqlite3.Connection:
    """Only for who holds the lock. Raises StateDamaged or Unavailable, with everything closed again."""
    try:
        return _open_for_writing(database)
    except StateDamaged:
        # A read that failed once looks like damage to SQLite, and after that word nobody starts us again. What is
        # damaged is so at a second look too.
        return _open_for_writing(database)


def _open_for_writing(database: Path) -> sqlite3.Connection:
    try:
        if not exists(database, alone=True):
            create(database)
        mark(database)
        connection = connect(database, "mode=rw")
        try:
            _set_up(connection)
            _bring_up(connection)
        except BaseException:
            connection.close()
            raise
        folders.tighten(database.parent)
    except sqlite3.Error as error:
        raise translated(error, database) from None
    except OSError as error:
        raise Unavailable(f"the state {database} cannot be opened: {error.strerror}") from None
    return connection


def open_for_reading(database: Path) -> sqlite3.Connection:
    """Beside a daemon or without one. We make nothing; SQLite may leave an empty log and its index behind, because
    `immutable`, which would spare them, reads torn pages if a daemon starts meanwhile."""
    folder = database.parent
    try:
        listed = {entry.name for entry in folder.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        raise _no_state(database) from None
    except OSError:
        raise folders.private(folder) from None
    if database.name not in listed and MARKER not in listed:
        raise _no_state(database)
    if not exists(database, alone=False):
        raise _no_state(database)
    try:
        return connect(database, "mode=ro")
    except sqlite3.Error as error:
        raise translated(error, database) from None


def _no_state(database: Path) -> Unavailable:
    return Unavailable(f"there is no state {database} yet", mend="start the daemon (`rotator run`), or check state.url")


def _set_up(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    # A record that was replaced holds tokens: its bytes are zeroed, not left in a free page.
    connection.execute("PRAGMA secure_delete = ON")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    # Nothing of ours in a temporary file elsewhere, and no page written before its commit.
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA cache_spill = OFF")


def _bring_up(connection: sqlite3.Connection) -> None:
    """Forward only, a version at a time; killed in between, the next start goes on from there."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    for before in range(version, VERSION):
        connection.execute("BEGIN IMMEDIATE")
        for statement in STEPS[before]:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {before + 1}")
        connection.execute("COMMIT")


def _is_blank(database: Path, alone: bool) -> bool:
    """Whether nothing of anybody stands in it: what is left of a first start that was killed."""
    # Without a log, `immutable` keeps SQLite from making one. Never beside a daemon, which may write meanwhile.
    quiet = alone and _size(database.with_name(f"{database.name}-wal")) == 0
    with closing(connect(database, "immutable=1" if quiet else "mode=ro")) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        ours = connection.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not ours and version == 0 and tables == 0:
            return True
        if not ours:
            raise StateDamaged(f"{database} is not a state of rotator", mend="change state.url, or move it away")
        if version > VERSION:
            raise StateDamaged(
                f"the state {database} has schema {version}, this rotator knows {VERSION}",
                mend="start the newer rotator that wrote it; its state is kept as it is",
            )
        if _size(database) < CHECKED_BELOW:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise damaged(database, found.splitlines()[0])
        if len(connection.execute("SELECT high_water FROM meta").fetchall()) != 1:
            raise damaged(database, "the table meta is not one row")
    return False


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def damaged(database: Path, why: str) -> StateDamaged:
    return StateDamaged(f"the state {database} is damaged ({why}) and stays as it is", mend=RESET)


_LOOK = "look at its file system: is it full (inodes count too), mounted read-only or failing?"
_MENDS = {
    sqlite3.SQLITE_FULL: "make room on its file system",
    sqlite3.SQLITE_READONLY: "mount its file system writable",
    sqlite3.SQLITE_CANTOPEN: _LOOK,
    sqlite3.SQLITE_IOERR: _LOOK,
}


def translated(error: sqlite3.Error, database: Path) -> RotatorError:
    """In our words: what waiting mends is Unavailable, what it does not is StateDamaged.

    Texts of SQLite name files, tables and columns, never a value (sqlite.org/rescode.html for the codes).
    """
    if code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT, sqlite3.SQLITE_ERROR):
        return damaged(database, str(error))
    return Unavailable(f"the state {database} cannot be used: {error}", mend=_MENDS.get(code(error), ""))


def code(error: sqlite3.Error) -> int:
    """The primary result code: the low byte of the extended one."""
    extended: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_INTERNAL)
    return extended & 0xFF

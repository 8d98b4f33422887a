"""`rotator state reset`: keep a damaged or lost state aside and start a new one that remembers its spent budget."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from rotator.core.errors import Unavailable
from rotator.drivers.sqlite import folder as folders
from rotator.drivers.sqlite import schema


def reset(path: Path, *, now: datetime, charge_budget: bool) -> Path | None:
    """Move what is there aside, in its folder, and make an empty state; return where the old database is now, or
    None where there was none any more.

    ``charge_budget`` leaves a tombstone: what was spent before ``now`` is unknown, so every grant enrolled from now
    on counts its password budget as spent for its window. Raises Overtaken while a daemon holds the state,
    Unavailable where the disk takes nothing; killed half-way, the state is lost as before and this may be repeated.
    """
    folder = folders.make(path)
    database = folders.database_of(path)
    lock = folders.Lock(folder)
    lock.take(now)
    try:
        # The marker first: killed half-way, what follows must look like a lost state, never like a first start.
        schema.mark(database)
        kept = _keep_aside(database, now)
        schema.create(database, tombstone_at=now if charge_budget else None)
        folders.tighten(folder)
    except OSError as error:
        raise Unavailable(f"the state {database} cannot be reset: {error.strerror}") from None
    except sqlite3.Error as error:
        raise schema.translated(error, database) from None
    finally:
        lock.release()
    return kept


def _keep_aside(database: Path, now: datetime) -> Path | None:
    aside = database.with_name(f"{database.name}.damaged-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}")
    number = 1
    while aside.exists():
        number += 1
        aside = aside.with_name(f"{aside.name.split('~')[0]}~{number}")
    found = database.exists()
    # The database before its log: without the log it would open as an older state and spend old tokens again.
    # The log keeps its place in the name, so that sqlite3(1) can still open the pair.
    for suffix in ("", "-wal", "-shm"):
        part = database.with_name(database.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
            folders.sync(database.parent)
    return aside if found else None

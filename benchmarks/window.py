"""The one irreducible window: from the provider's commit to our save being durable. Measured without a tracer."""

from __future__ import annotations

import os
import sqlite3
import sys
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

from benchmarks import stage
from benchmarks.provider import Provider

STAMPED = Path(__file__).with_name("stamped.py")
# A save dirties five pages of SQLite's.
PAGES, NEARLY_A_PAGE = 5, 3000


@dataclass
class Window:
    """One entry per rotation, in milliseconds: the whole; the provider's part of it, until it handed its answer over;
    SQLite's commit. ``unsynced`` are as many commits of as many pages on the same file system without a sync: what the
    commit takes longer is fdatasync(2)."""

    whole: list[float] = field(default_factory=list)
    provider: list[float] = field(default_factory=list)
    commit: list[float] = field(default_factory=list)
    unsynced: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class StampedDaemon(stage.Daemon):
    """The same daemon, which notes when a save was back."""

    @property
    def stamps(self) -> Path:
        return self.home / "stamps"

    def spawn(self) -> Popen[bytes]:
        command = [sys.executable, str(STAMPED), "run", "--config", str(self.home / "rotator.toml")]
        directories = {"STATE_DIRECTORY": str(self.home / "state"), "RUNTIME_DIRECTORY": str(self.home / "run")}
        return stage.spawn(command, self.home, {**directories, "STAMPS": str(self.stamps)})


def measure(provider: Provider, count: int) -> Window:
    """``count`` rotations one after the other, and between them the commits without a sync."""
    found = Window()
    with stage.fresh(provider) as plain:
        daemon = StampedDaemon(plain.home, provider)
        with stage.running(daemon, daemon.token), closing(_unsynced(daemon.home / "state" / "unsynced")) as database:
            stage.wait_answering(daemon)
            for _ in range(count):
                before = len(daemon.stamps.read_text().splitlines())
                daemon.client.rotate("billing", force=True)
                stamps = daemon.stamps.read_text().splitlines()
                if len(stamps) != before + 1:
                    raise RuntimeError(f"{len(stamps) - before} answers were saved in one rotation")
                saved_at, commit = (int(word) for word in stamps[-1].split())
                found.whole.append((saved_at - provider.committed_at) / 1e6)
                found.provider.append((provider.answered_at - provider.committed_at) / 1e6)
                found.commit.append(commit / 1e6)
                found.unsynced.append(_commit(database))
    return found


def _unsynced(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = OFF")
    database.execute("CREATE TABLE pages (number INTEGER PRIMARY KEY, bytes BLOB)")
    database.executemany("INSERT INTO pages VALUES (?, ?)", [(one, os.urandom(NEARLY_A_PAGE)) for one in range(PAGES)])
    return database


def _commit(database: sqlite3.Connection) -> float:
    database.execute("BEGIN IMMEDIATE")
    database.execute("UPDATE pages SET bytes = ?", (os.urandom(NEARLY_A_PAGE),))
    since = time.monotonic_ns()
    database.execute("COMMIT")
    return (time.monotonic_ns() - since) / 1e6

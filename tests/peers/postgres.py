"""A real PostgreSQL on loopback: Debian's, as a user of its own where the tests run as root.

`cluster` gives one primary; `replicated` a primary with a streaming standby that can be promoted. Both leave neither
process nor file behind.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.peers import ports
from tests.peers.openbao import wait

ADMIN = "admin"
VERSIONS = Path("/usr/lib/postgresql")
# Where the machine has a disk in memory that is large enough: thousands of small files come and go.
MEMORY, ENOUGH = Path("/dev/shm"), 2 << 30
# Nothing of a test is to outlive the machine.
SETTINGS = {
    "listen_addresses": "127.0.0.1", "fsync": "off", "shared_buffers": "16MB", "max_connections": "60",
    "wal_level": "replica", "log_min_messages": "warning", "autovacuum_naptime": "5s",
}  # fmt: skip


@dataclass
class Postgres:
    """A server that runs, asked by a connection of the test's own and without the code under test."""

    folder: Path
    port: int
    # The port of a server that this one took over from, dialled before it.
    former: int | None = None
    _databases: int = field(default=0, repr=False)

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def url(self, database: str = "postgres", user: str = ADMIN, **options: str) -> str:
        query = "&".join(f"{key}={value}" for key, value in options.items())
        hosts = ",".join(f"127.0.0.1:{port}" for port in (self.former, self.port) if port is not None)
        return f"postgresql://{user}@{hosts}/{database}" + (f"?{query}" if query else "")

    def do(self, sql: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run ``sql`` as the administrator; its rows."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def database(self) -> str:
        """A fresh database; its name."""
        self._databases += 1
        name = f"rotator_{self._databases}"
        self.do(f"CREATE DATABASE {name}")
        return name

    def cut(self, application: str = "rotator") -> int:
        """End every session of ours, as a failover or an administrator does; how many."""
        ended = self.do(
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{application}'"
        )
        return len(ended)

    def own(self, file: Path) -> None:
        """Make ``file`` the server's, which reads no key that others may read."""
        file.chmod(0o600)
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(file, user.pw_uid, user.pw_gid)

    def stop(self, how: str = "fast") -> None:
        _run(self.folder, "pg_ctl", "-D", str(self.data), "-m", how, "-w", "stop")

    def start(self) -> None:
        settings = {**SETTINGS, "port": str(self.port), "unix_socket_directories": str(self.folder)}
        options = " ".join(f"-c {key}={value}" for key, value in settings.items())
        _run(self.folder, "pg_ctl", "-D", str(self.data), "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def kill(self) -> None:
        """As a power cut: nobody is told goodbye."""
        pid = int((self.data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGQUIT)
        wait(lambda: not _lives(pid), "the end of PostgreSQL")

    def promote(self) -> None:
        _run(self.folder, "pg_ctl", "-D", str(self.data), "-w", "promote")


@contextmanager
def cluster() -> Iterator[Postgres]:
    """A fresh primary."""
    with _folder() as folder:
        server = Postgres(folder, ports.free())
        _run(folder, "initdb", "-D", str(server.data), "-A", "trust", "-U", ADMIN, "--no-sync", "-E", "UTF8",
             "--locale=C")  # fmt: skip
        with _running(server):
            yield server


@contextmanager
def replicated() -> Iterator[tuple[Postgres, Postgres]]:
    """A primary, and a standby that streams from it and confirms each commit before it counts."""
    with cluster() as primary, _folder() as folder:
        standby = Postgres(folder, ports.free())
        _run(folder, "pg_basebackup", "-h", "127.0.0.1", "-p", str(primary.port), "-U", ADMIN, "-D", str(standby.data),
             "-R", "-X", "stream", "-c", "fast", "--no-sync")  # fmt: skip
        with _running(standby):
            wait(lambda: bool(primary.do("SELECT 1 FROM pg_stat_replication")), "the standby")
            primary.do("ALTER SYSTEM SET synchronous_standby_names = '*'")
            primary.do("SELECT pg_reload_conf()")
            confirming = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
            wait(lambda: bool(primary.do(confirming)), "the confirming standby")
            yield primary, standby


@contextmanager
def _running(server: Postgres) -> Iterator[None]:
    server.start()
    try:
        yield
    finally:
        if (server.data / "postmaster.pid").exists():
            server.stop("immediate")


@contextmanager
def _folder() -> Iterator[Path]:
    if not VERSIONS.is_dir():
        reason = "no PostgreSQL: the package postgresql is not installed"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="postgres-", dir=MEMORY if _has_room(MEMORY) else None))
    try:
        if os.geteuid() == 0:
            user = pwd.getpwnam("postgres")
            os.chown(folder, user.pw_uid, user.pw_gid)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _has_room(folder: Path) -> bool:
    return folder.is_dir() and os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > ENOUGH


def _run(folder: Path, program: str, *arguments: str) -> None:
    newest = max(VERSIONS.iterdir(), key=lambda one: float(one.name))
    become = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    done = subprocess.run(
        [*become, str(newest / "bin" / program), *arguments], cwd=folder, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, (program, done.stderr[-2000:])


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True

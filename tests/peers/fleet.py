"""A fleet: machines that are configured alike, each with a real daemon, files of its own and one PostgreSQL for all."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg

from rotator.core.errors import RotatorError
from rotator.frontends.control import Client
from tests.peers import crowd
from tests.peers.crowd import Served

PATIENCE = 60.0


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What all machines of a fleet have in common."""

    grants: int
    lifetime: float
    deadline: float
    budget: int
    per_second: float = 200.0
    in_flight: int = 32
    rotate_at: float = 0.75
    files: bool = True

    @property
    def names(self) -> list[str]:
        return [f"g{number:05}" for number in range(self.grants)]

    @property
    def lease(self) -> float:
        return self.deadline + max(3.0, self.deadline / 2)

    def config(self, served: Served, state: str, folder: Path) -> str:
        head = (
            f'[state]\nurl = "{state}"\n[log]\nlevel = "notice"\n[startup]\nrequire = "none"\n'
            f'[providers.crowd]\ntoken_url = "{served.token_url}"\ndeadline = "{self.deadline}s"\n'
            f'reuse = "harmless"\nspacing = "1s"\nrotate_at = {self.rotate_at}\n'
            f"[providers.crowd.limits]\nin_flight = {self.in_flight}\nper_second = {self.per_second}\n"
        )
        grants = (
            f'[grants.{name}]\nprovider = "crowd"\nclient_id = "{crowd.CLIENT}"\n'
            f'client_secret = {{ file = "{folder}/secret" }}\nusername = "{name}"\n'
            f'password = {{ file = "{folder}/password" }}\n'
            f'[grants.{name}.budget]\nlimit = {self.budget}\nwindow = "24h"\napart = "0s"\n'
            + (f'[grants.{name}.targets.app]\nfile = "{name}"\nformat = "json"\n' if self.files else "")
            for name in self.names
        )
        return head + "".join(grants)


@dataclass
class Machine:
    """``away`` are the spans in which its daemon did not run or stood still, until it had caught up."""

    folder: Path
    popen: subprocess.Popen[bytes] | None = None
    lives: int = 0
    # What the daemon is run by: a name of its own for the machine, say.
    before: tuple[str, ...] = ()
    away: list[tuple[float, float]] = field(default_factory=list)

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def pid(self) -> int:
        assert self.popen is not None
        return self.popen.pid

    def settle(self, wish: Wish, served: Served, state: str) -> None:
        for name in ("home", "state", "run"):
            (self.folder / name).mkdir(parents=True)
        for name, value in (("secret", crowd.SECRET), ("password", crowd.PASSWORD)):
            path = self.folder / name
            path.touch(mode=0o600)
            path.write_text(value)
        (self.folder / "rotator.toml").write_text(wish.config(served, state, self.folder))

    def start(self) -> None:
        self.lives += 1
        with (self.folder / f"log-{self.lives:03}").open("wb") as log:
            self.popen = subprocess.Popen(
                self._words("run"), env=self._environ, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def rotator(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command on this machine."""
        return subprocess.run(
            self._words(*words), env=self._environ, cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True,
            text=True, timeout=PATIENCE, check=False,
        )  # fmt: skip

    def _words(self, *words: str) -> list[str]:
        config = str(self.folder / "rotator.toml")
        return [*self.before, sys.executable, "-m", "rotator", *words, "--config", config]

    @property
    def _environ(self) -> dict[str, str]:
        folders = {"HOME": "home", "STATE_DIRECTORY": "state", "RUNTIME_DIRECTORY": "run"}
        environ = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8"}
        return environ | {name: str(self.folder / folder) for name, folder in folders.items()}

    def health(self) -> dict[str, Any] | None:
        """What the daemon says of itself; None while it does not answer."""
        with suppress(RotatorError, OSError):
            return dict(Client(self.run / ".rotator" / "control").health())
        return None

    def published(self) -> int:
        """How many of its files hold a token that is valid now."""
        now, good = time.time(), 0
        for path in self.run.iterdir():
            with suppress(OSError, ValueError, KeyError):
                good += path.is_file() and expiry(json.loads(path.read_text())) > now
        return good

    def cpu(self) -> float:
        """Seconds of processor time that the daemon has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def told(self, last: int = 3000) -> str:
        return "\n".join(log.read_text() for log in sorted(self.folder.glob("log-*")))[-last:]

    def end(self) -> int:
        """Ask it to stop; its exit code."""
        assert self.popen is not None
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(PATIENCE)

    def bury(self) -> None:
        if self.popen is not None and self.popen.poll() is None:
            self.popen.send_signal(signal.SIGCONT)
            self.popen.kill()
            self.popen.wait()


@contextmanager
def fleet(
    folder: Path, count: int, wish: Wish, served: Served, state: str, *, named: bool = False
) -> Iterator[list[Machine]]:
    """``count`` machines whose daemons run; no process outlives the block. ``named``: each has a name of its own, where
    we may give one."""
    machines = [Machine(folder / f"machine-{number}") for number in range(count)]
    if named and os.geteuid() == 0:
        for number, one in enumerate(machines):
            one.before = ("unshare", "--uts", "sh", "-c", f'hostname machine-{number}; exec "$@"', "sh")
    try:
        for one in machines:
            one.settle(wish, served, state)
            one.start()
        yield machines
    finally:
        for one in machines:
            one.bury()


def watch_orphans(state: str, since: float, within: float) -> list[float]:
    """For each lease that is held now, of a grant that was due at ``since`` (seconds since the epoch): how many seconds
    after that it was given back or taken over. Waits until that is so for all; a lease that nobody takes over within
    ``within`` seconds fails the test. (One that could not be given back after its work was done is no orphan: it runs
    out, and the grant is not due for long.)"""
    ends = list[float]()
    sql = "SELECT name, owner, fence FROM rotator_grants WHERE owner <> '' AND COALESCE(due_at, visit_at) <= %s"
    due = (int(since * 1_000_000),)
    with psycopg.connect(f"{state}?application_name=witness", autocommit=True) as eye:
        held = set(eye.execute(sql, due).fetchall())
        while held:
            assert time.time() - since < within, f"never taken over: {held}"
            still = held & set(eye.execute(sql, due).fetchall())
            ends += [time.time() - since] * len(held - still)
            held = still
            time.sleep(0.05)
    return ends


def expiry(document: dict[str, Any]) -> float:
    return datetime.fromisoformat(document["expires_at"]).timestamp()


@dataclass
class Sight:
    """What a reader found wrong, and when."""

    at: float
    machine: int
    name: str
    what: str


class Readers:
    """Applications on all machines that read their files at random, without pause. ``tokens`` are all that they saw,
    with the time at which each was first seen on each machine."""

    def __init__(self, machines: list[Machine], wish: Wish) -> None:
        self._machines = machines
        self._names = wish.names
        self._dice = random.Random(8)
        self._generations: dict[tuple[int, str], int] = {}
        self.reads = 0
        self.wrong: list[Sight] = []
        self.least_left = wish.lifetime
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read_all, name="readers")

    @contextmanager
    def reading(self) -> Iterator[Readers]:
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()

    def _read_all(self) -> None:
        # The pace of readers, not a wait for anything.
        while not self._stop.wait(0.002):
            self._read(self._dice.randrange(len(self._machines)), self._dice.choice(self._names))

    def _read(self, number: int, name: str) -> None:
        began, key = time.time(), (number, name)
        self.reads += 1
        try:
            document = json.loads((self._machines[number].run / name).read_text())
            left, generation = expiry(document) - began, int(document["generation"])
        except FileNotFoundError:
            self.wrong.append(Sight(began, number, name, "missing"))
            return
        except (ValueError, KeyError) as error:
            self.wrong.append(Sight(began, number, name, f"torn: {type(error).__name__}"))
            return
        self.least_left = min(self.least_left, left)
        if left <= 0:
            self.wrong.append(Sight(began, number, name, "expired"))
        if generation < self._generations.get(key, 0):
            self.wrong.append(Sight(began, number, name, "an older generation came back"))
        self._generations[key] = generation

"""One machine under faults: the real daemon, an emulated provider that can be held before it commits, an application
that reads the token without pause, and an outside look at the store."""

from __future__ import annotations

import json
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rotator.core.errors import RotatorError
from rotator.frontends.control import Client
from rotator.lab import journal
from rotator.lab.registry import Profile
from tests.acceptance import house
from tests.acceptance.stage import Process, Stage, wait_for
from tests.peers import emulator
from tests.peers.emulator import ACCOUNT, Emulator

LIFETIME = 30
HELD_AT_MOST = 20.0
# Looks of the daemon's own would be counted by a tracer, so there are few; what failed has its own retries.
TIMING = '[timing]\nsweep_every = "3s"\nverify_every = "1m"\n'
# One, so that nothing else of ours is written beside what is struck.
TARGET = '[grants.billing.targets.app]\nfile = "billing/token"\nformat = "json"\n'
# Every loss costs one login; a matrix has more of them in a minute than a provider should see in a day.
BUDGET = '[grants.billing.budget]\nlimit = 16\nwindow = "10s"\napart = "10ms"\n'


class Gate:
    """The provider's clock, which is asked before anything is looked at: a provider that stands still there has
    received a request and committed nothing."""

    def __init__(self) -> None:
        self._armed = False
        self._arrived = threading.Event()
        self._open = threading.Event()

    def now(self) -> float:
        if self._armed:
            self._armed = False
            self._arrived.set()
            assert self._open.wait(HELD_AT_MOST), "nobody opened the gate"
        return time.time()

    def close(self) -> None:
        self._arrived.clear()
        self._open.clear()
        self._armed = True

    @property
    def arrived(self) -> bool:
        return self._arrived.is_set()

    def open(self) -> None:
        self._armed = False
        self._open.set()


class Order(threading.Thread):
    """One rotation that somebody asked for, from another thread; ``error`` is what the daemon said of it."""

    def __init__(self, client: Client) -> None:
        super().__init__(name="order")
        self._client = client
        self.error: RotatorError | None = None

    def run(self) -> None:
        try:
            self._client.rotate("billing")
        except RotatorError as error:
            self.error = error


@dataclass(frozen=True, slots=True)
class Stored:
    """What the state holds, read without rotator."""

    generation: int
    delivered: int
    open_intent: bool
    damage: str


@dataclass
class Machine:
    """``issued`` is every token that the provider ever gave, ``lives`` the daemons that ran here."""

    stage: Stage
    gate: Gate
    issued: list[str] = field(default_factory=list)
    lives: list[Process] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.stage.folder

    @property
    def process(self) -> Process:
        return self.lives[-1]

    @property
    def provider(self) -> Emulator:
        return self.stage.provider

    @property
    def client(self) -> Client:
        return Client(self.stage.state / "control")

    @property
    def token(self) -> Path:
        return self.stage.token

    @property
    def passwords(self) -> int:
        return self.provider.journal.password_attempts

    @property
    def granted(self) -> int:
        kinds = ("password", "refresh_token")
        return sum(self.provider.journal.count(kind, journal.GRANTED) for kind in kinds)

    def start(self) -> None:
        """Start a daemon; return once everything is as it should be."""
        self.lives.append(self.stage.start())
        self.process.wait_logged("daemon.ready")
        self.wait_settled()

    def stop(self) -> None:
        assert self.process.end() == 0, self.process.told

    def rotate(self, *, or_fail: bool = False) -> None:
        """One rotation, to its end. ``or_fail``: or until the daemon has got over what befell it, or died of it."""
        order = Order(self.client)
        order.start()
        order.join()
        assert or_fail or order.error is None, order.error
        self.wait_settled(or_dead=or_fail)

    # --- looks from outside -------------------------------------------------------------------------------------

    def wait_settled(self, *, or_dead: bool = False) -> None:
        """Wait until the newest token that the provider gave is saved, published and marked, and nothing is open."""
        wait_for(
            lambda: self.is_settled() or self.process.popen.poll() is not None,
            f"the newest token in the file\n{self.process.told[-3000:]}", HELD_AT_MOST,
        )  # fmt: skip
        assert or_dead or self.process.popen.poll() is None, f"the daemon ended by itself:\n{self.process.told[-3000:]}"

    def is_settled(self) -> bool:
        try:
            published = json.loads(self.token.read_text())["access_token"]
            grant: Any = self.client.health()["grants"]["billing"]
        except (FileNotFoundError, ValueError, RotatorError):
            return False
        newest, stored = next(reversed(self.provider.provider.ledger.access), ""), self.stored()
        return (
            published == newest
            and grant["state"] == "fresh" and grant["published"]
            and stored.delivered == stored.generation and not stored.open_intent
        )  # fmt: skip

    def stored(self) -> Stored:
        """Read from a copy: the daemon's files are not touched, whether it lives or not."""
        copy = self.folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        # The log first: what a checkpoint moves meanwhile is then in both, never in neither.
        for name in ("state.db-wal", "state.db"):
            source = self.stage.state / name
            if source.exists():
                shutil.copyfile(source, copy / name)
        with closing(sqlite3.connect(copy / "state.db")) as connection:
            [(damage,)] = connection.execute("PRAGMA integrity_check(1)").fetchall()
            [(generation, record)] = connection.execute("SELECT generation, record FROM grants").fetchall()
            [(delivered,)] = connection.execute("SELECT coalesce(max(generation), 0) FROM deliveries").fetchall()
        return Stored(generation, delivered, json.loads(record)["intent"] is not None, "" if damage == "ok" else damage)

    def frames(self) -> int:
        """Pages in SQLite's log since it last began anew: those whose salt is the header's (sqlite.org/fileformat.html,
        section 4.1)."""
        log = self.stage.database.with_name("state.db-wal").read_bytes()
        page, salt = int.from_bytes(log[8:12], "big"), log[16:24]
        starts = range(32, len(log), 24 + page)
        return next((number for number, at in enumerate(starts) if log[at + 8 : at + 16] != salt), len(starts))

    def leftovers(self) -> list[str]:
        """Temporary files beside the token."""
        return [path.name for path in self.token.parent.iterdir() if path.name.endswith(".rotator")]

    def leaks(self) -> list[str]:
        """Which secrets stand in what the daemons said; tokens by their number."""
        told = "".join(process.told for process in self.lives)
        named = {ACCOUNT.client_secret: "the client secret", ACCOUNT.password: "the password"}
        named |= {token: f"token {number}" for number, token in enumerate(self.issued)}
        return [name for secret, name in named.items() if secret in told]


@contextmanager
def prepared(folder: Path) -> Iterator[Machine]:
    """A machine on which nothing has run yet."""
    with emulator.serve(Profile(access_seconds=LIFETIME)) as provider:
        stage, gate = Stage(folder, provider), Gate()
        for name in ("home", "state", "run"):
            (folder / name).mkdir(parents=True)
        stage.write(TIMING + stage.provider_table().replace("50ms", "1ms") + stage.grant(targets=f"{BUDGET}\n{TARGET}"))
        machine = Machine(stage, gate)
        _note(provider, machine)
        try:
            yield machine
        finally:
            for process in machine.lives:
                house.bury(process)


@contextmanager
def running(folder: Path) -> Iterator[tuple[Machine, house.Reader]]:
    """A machine whose daemon has published, and its reader, which reads until the context ends."""
    with prepared(folder) as machine:
        machine.start()
        reader = house.Reader(described=str(machine.token), pause=0.002)
        with house.reading(reader):
            yield machine, reader
            machine.stop()


def _note(served: Emulator, machine: Machine) -> None:
    provider, mint = served.provider, served.provider.token

    def noted() -> str:
        machine.issued.append(mint())
        return machine.issued[-1]

    provider.now, provider.token = machine.gate.now, noted

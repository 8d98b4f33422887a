"""The real engine over real drivers, with as many grants as asked for: no configuration file, no control socket.

Files lie where they are told to (tmpfs, as /run is), the state on disk with `synchronous=FULL`, secrets in files that
are read anew for each exchange, events are rendered as lines.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TextIO

from rotator.cli import service
from rotator.core import events, tokens
from rotator.core.grants import Grant
from rotator.core.policy import Rules
from rotator.core.ports import Clock, Delivery, Dice, Enrolment, Entry, Publisher
from rotator.core.pressure import Limits
from rotator.core.publication import Publication
from rotator.core.tokens import AccessToken, Secret
from rotator.drivers import clock, files, http, oauth, secrets, sqlite, watch
from rotator.drivers.secrets import Reference
from rotator.engine.bus import Bus
from rotator.engine.daemon import Daemon, Parts
from rotator.frontends import systemd, telemetry

CLIENT_ID, USERNAME = "1_3bcbxd9e24g0gk4swg0kwgcwg4o8k8g4g888kwc44gcc0gwwk4", "benchmark"
EARLY = timedelta(seconds=0.05)
NEVER_FULL = 1e6
TOGETHER = 500


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What runs: ``count`` grants at ``url``, at most ``in_flight`` exchanges at a time, without a rate."""

    url: str
    count: int
    in_flight: int
    state: Path
    run: Path
    ca_file: Path | None = None
    lifetime: timedelta = timedelta(hours=1)
    verify_every: timedelta = timedelta(seconds=30)


@dataclass
class Round:
    """One round in which every grant became due in the same instant. ``seconds`` run from that instant until the last
    new token was published and noted, ``stall`` is the longest time for which the loop stood still."""

    seconds: float
    cpu: float
    stall: float
    stall_cpu: float
    late: list[float] = field(default_factory=list)


class Roster:
    """The port `ports.Roster`; nobody stands in the register."""

    providers: tuple[str, ...] = ()

    def __init__(self, shape: Shape, key: bytes) -> None:
        self._client = http.HttpxClient(ca_file=shape.ca_file)
        now = clock.SystemClock().now
        profile = oauth.Profile(token_url=shape.url)
        endpoint = oauth.Endpoint(profile, self._client, now=now)
        rules, limits = Rules(password=True), Limits(in_flight=shape.in_flight, per_second=NEVER_FULL)
        self._enrolments = {name: _enrolment(name, shape, endpoint, rules, limits, key) for name in names(shape.count)}

    def enrolments(self) -> dict[str, Enrolment]:
        return self._enrolments

    def enrolment_of(self, entry: Entry) -> Enrolment:
        raise NotImplementedError

    async def standing(self, wanted: Sequence[tuple[Publisher, Publication]], now: datetime) -> Sequence[bool]:
        return await files.standing(wanted, now)

    def publisher_at(self, location: str) -> Publisher | None:
        return None

    async def tend(self) -> None:
        pass

    async def close(self) -> None:
        await self._client.close()


def names(count: int) -> list[str]:
    return [f"grant_{number:07d}" for number in range(count)]


def _enrolment(
    name: str, shape: Shape, endpoint: oauth.Endpoint, rules: Rules, limits: Limits, key: bytes
) -> Enrolment:
    kept = {one: Reference("file", Secret(str(shape.state / one)), f"grants.{name}.{one}") for one in SECRETS}
    return Enrolment(
        name=name, provider="lean", identity=(shape.url, CLIENT_ID, USERNAME), rules=rules, endpoint=endpoint,
        credentials=secrets.ReferenceSource(
            CLIENT_ID, kept["client_secret"], USERNAME, kept["password"], key=key, salt=(shape.url,), environ=NOTHING
        ),
        targets={"app": files.FilePublisher(shape.run / name)}, limits=limits, fingerprint=name,
    )  # fmt: skip


SECRETS = ("client_secret", "password")
# One for all, as the environment of a process is: by it they know which secrets may be read together.
NOTHING: dict[str, str] = {}


class Herd:
    """A daemon that serves. ``async with`` starts and ends it; every grant holds a valid token from the start."""

    def __init__(self, shape: Shape, log: TextIO) -> None:
        self.shape = shape
        self._log = log

    async def __aenter__(self) -> Herd:
        shape = self.shape
        for one in SECRETS:
            (shape.state / one).write_text(f"a {one} of some length\n")
        self.clock, dice = clock.SystemClock(), clock.SystemDice()
        self.store = Store(shape.state / "state.db", clock=self.clock, dice=dice)
        await self.store.open()
        key = await self.store.key()
        await self._enrol(key)
        bus = Bus(self.clock.now)
        bus.join("log", telemetry.LogListener(self._log, telemetry.Form.JSON, threshold=events.Level.INFO))
        ready = asyncio.Event()
        bus.join("ready", lambda event: ready.set() if isinstance(event, events.BecameReady) else None)
        await self.store.close()
        self.daemon = Daemon(
            Parts(
                version="benchmark", clock=self.clock, dice=dice, store=self.store, bus=bus,
                roster=Roster(shape, key), watcher=watch.InotifyWatcher(),
                supervisor=systemd.Notifier({}, 0, clock.monotonic_usec),
            )
        )  # fmt: skip
        # As `rotator run` does.
        self._garbage = gc.get_threshold()
        gc.freeze()
        gc.set_threshold(*service.GARBAGE)
        self._served = asyncio.create_task(self.daemon.serve())
        await asyncio.wait([self._served, asyncio.create_task(ready.wait())], return_when=asyncio.FIRST_COMPLETED)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.daemon.stop()
        await self._served
        gc.set_threshold(*self._garbage)
        gc.unfreeze()

    async def _enrol(self, key: bytes) -> None:
        now = self.clock.now()
        identity = tokens.digest((self.shape.url, CLIENT_ID, USERNAME), key)
        expires_at = now + self.shape.lifetime

        def made(number: int) -> Grant:
            return Grant(
                name=f"grant_{number:07d}", lineage=f"{number:024x}", identity=identity, generation=1,
                access=AccessToken(Secret(f"{number:086d}"), "bearer", None, now, expires_at, 1), due_at=expires_at,
                refresh=Secret(f"{number:086d}"), refreshed_at=now, exchanged_at=now,
            )  # fmt: skip

        for first in range(0, self.shape.count, TOGETHER):
            some = range(first, min(first + TOGETHER, self.shape.count))
            await asyncio.gather(*(self.store.enrol(made(number)) for number in some))

    async def round(self) -> Round:
        """Every grant becomes due in one instant; returns once all are rotated and published."""
        async with self.prepared() as begun:
            with Pulse() as pulse:
                cpu = time.process_time()
                late = await begun()
                cpu = time.process_time() - cpu
        return Round(max(late), cpu, pulse.longest, pulse.longest_cpu, late)

    @asynccontextmanager
    async def prepared(self) -> AsyncIterator[Callable[[], Awaitable[list[float]]]]:
        """All is set for one instant, which comes a moment after this is entered. What is given waits for the end, and
        says how many seconds after that instant each was published and noted."""
        due_at = self.clock.now() + timedelta(seconds=1)
        # Held as the engine holds what it saved: the store knows them by that.
        grants = [replace(one, due_at=due_at) for one in await self.store.grants()]
        for first in range(0, len(grants), TOGETHER):
            await asyncio.gather(
                *(
                    self.store.save(one, expected=one.generation, lease=None, now=self.clock.now())
                    for one in grants[first : first + TOGETHER]
                )
            )
        self.store.expect(len(grants))
        self.daemon.look_at_secrets()
        await asyncio.sleep((due_at - EARLY - self.clock.now()).total_seconds())

        async def wait_whole() -> list[float]:
            await self.store.whole.wait()
            return [(at - due_at).total_seconds() for at in self.store.noted]

        yield wait_whole


class Store(sqlite.SqliteStore):
    """Tells when a number of deliveries was noted."""

    def __init__(self, path: Path, *, clock: Clock, dice: Dice) -> None:
        super().__init__(path, clock=clock, dice=dice)
        self._now = clock.now
        self.whole = asyncio.Event()
        self.noted: list[datetime] = []
        self._wanted = -1

    def expect(self, count: int) -> None:
        self.whole.clear()
        self.noted, self._wanted = [], count

    async def delivered(self, delivery: Delivery) -> None:
        await super().delivered(delivery)
        self.noted.append(self._now())
        if len(self.noted) == self._wanted:
            self.whole.set()


class Pulse:
    """Measures for how long the event loop stands still at most: by the clock, and in processor time of its thread,
    which leaves out what neighbours on the machine take."""

    EVERY = 0.005

    def __enter__(self) -> Pulse:
        self._loop = asyncio.get_running_loop()
        self.longest = self.longest_cpu = 0.0
        self._plan()
        return self

    def _plan(self) -> None:
        self._at, self._cpu = self._loop.time() + self.EVERY, time.thread_time()
        self._handle = self._loop.call_at(self._at, self._beat)

    def _beat(self) -> None:
        self.longest = max(self.longest, self._loop.time() - self._at)
        self.longest_cpu = max(self.longest_cpu, time.thread_time() - self._cpu)
        self._plan()

    def __exit__(self, *_: object) -> None:
        self._handle.cancel()

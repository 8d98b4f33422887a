"""The ports without a world: a virtual clock, seeded dice, publishers in memory, a supervisor that only listens.

Time is the event loop's: `VirtualLoop` never waits, it moves its clock to the next timer instead. A month passes as
fast as its events can be worked off, and the same seed gives the same month.
"""

from __future__ import annotations

import asyncio
import random  # noqa: TID251 (seeded: a run is repeated by its seed)
import selectors
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from rotator.core.errors import Misconfigured, RotatorError
from rotator.core.grants import Outcome, OutcomeClass
from rotator.core.policy import Moment
from rotator.core.ports import Credentials, Enrolment, Entry, Publisher, TokenRequest
from rotator.core.publication import Found, Publication, Settled
from rotator.core.tokens import Secret, digest

T = TypeVar("T")

GENESIS = datetime(2030, 1, 1, tzinfo=UTC)


class _LeapingSelector(selectors.SelectSelector):
    """Instead of waiting for a file it tells how long the loop would have waited."""

    def __init__(self, leap: Callable[[float], None]) -> None:
        super().__init__()
        self._leap = leap

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("the virtual world stands still: every task waits and no timer is set")
        if timeout > 0:
            self._leap(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer as soon as nothing is ready. Knows no sockets or threads."""

    def __init__(self) -> None:
        self.elapsed = 0.0
        super().__init__(_LeapingSelector(self._leap))

    def _leap(self, seconds: float) -> None:
        self.elapsed += seconds

    def time(self) -> float:
        return self.elapsed


def run(story: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(story())


class _Time:
    """What all clocks of one machine share: wall time, the boot, and the time that nobody can set."""

    def __init__(self, start: datetime) -> None:
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._start = start
        self._set_by = timedelta(0)
        self._slept = timedelta(0)
        self._boot = 1
        self._booted = timedelta(0)
        self._read: tuple[float, timedelta, datetime] | None = None

    def look(self) -> tuple[timedelta, datetime]:
        """Time that truly passed, and wall time; computed once for all who look at the same instant."""
        at, read = self._loop.time(), self._read
        if read is None or read[0] != at:
            passed = timedelta(seconds=at - self._began) + self._slept
            self._read = read = (at, passed, self._start + passed + self._set_by)
        return read[1], read[2]

    def step(self, span: timedelta) -> None:
        self._set_by += span
        self._read = None

    def sleep(self, span: timedelta) -> None:
        self._slept += span
        self._read = None

    def reboot(self) -> None:
        self._boot += 1
        self._booted = self.look()[0]

    def moment(self) -> Moment:
        passed, now = self.look()
        return Moment(now, f"boot-{self._boot}", passed - self._booted, passed - self._slept)


class VirtualClock:
    """The port `ports.Clock` on the running loop's time. ``step`` sets wall time, ``suspend`` lets the machine sleep
    (wall and boot time go on, the loop's timers stand still), ``reboot`` starts another boot. ``twin`` is another
    clock of the same machine, for a second process on it.

    Alarms ring by wall time, as APScheduler's do: after a step back they keep silent for as long. Beats do not.
    """

    def __init__(self, start: datetime = GENESIS, *, time: _Time | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._time = _Time(start) if time is None else time
        self._alarm: _Bell | None = None
        self._beats: dict[str, asyncio.TimerHandle] = {}

    def twin(self) -> VirtualClock:
        return VirtualClock(time=self._time)

    def step(self, span: timedelta) -> None:
        self._time.step(span)

    def suspend(self, span: timedelta) -> None:
        self._time.sleep(span)

    def reboot(self) -> None:
        self._time.reboot()

    def now(self) -> datetime:
        return self._time.look()[1]

    def passed(self) -> timedelta:
        """What truly passed since the first look, whatever wall time says."""
        return self._time.look()[0]

    def moment(self) -> Moment:
        return self._time.moment()

    def alarm(self, at: datetime | None, ring: Callable[[], None]) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = None if at is None else _Bell(self, at, ring)

    def beat(self, name: str, every: timedelta, ring: Callable[[], None]) -> None:
        def again() -> None:
            self._beats[name] = self._loop.call_later(every.total_seconds(), again)
            ring()

        if name in self._beats:
            self._beats[name].cancel()
        self._beats[name] = self._loop.call_later(every.total_seconds(), again)

    async def wait_until(self, at: datetime) -> None:
        rung = asyncio.Event()
        bell = _Bell(self, at, rung.set)
        try:
            await rung.wait()
        finally:
            bell.cancel()

    async def pass_time(self, span: timedelta) -> None:
        """Let the world go on for ``span``, whatever the wall clock does meanwhile."""
        passed: asyncio.Future[None] = self._loop.create_future()
        handle = self._loop.call_later(span.total_seconds(), _pass, passed)
        try:
            await passed
        finally:
            handle.cancel()

    def deadline(self, limit: timedelta) -> AbstractAsyncContextManager[object]:
        return asyncio.timeout(limit.total_seconds())  # noqa: TID251 (virtual: it runs on the loop's own clock)

    def stop(self) -> None:
        self.alarm(None, _nothing)
        for beat in self._beats.values():
            beat.cancel()
        self._beats.clear()


class _Bell:
    """Rings once, when wall time has reached ``at``; looks at the clock only when it expects that."""

    def __init__(self, clock: VirtualClock, at: datetime, ring: Callable[[], None]) -> None:
        self._clock = clock
        self._at = at
        self._ring = ring
        self._arm()

    def cancel(self) -> None:
        self._handle.cancel()

    def _arm(self) -> None:
        left = max(0.0, (self._at - self._clock.now()).total_seconds())
        self._handle = asyncio.get_running_loop().call_later(left, self._look)

    def _look(self) -> None:
        if self._clock.now() < self._at:
            self._arm()
        else:
            self._ring()


def _nothing() -> None:
    pass


def _pass(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class SeededDice:
    """The port `ports.Dice`; the same seed throws the same."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)  # noqa: S311 (not for secrets)

    def chance(self) -> float:
        return self._random.random()

    def name(self) -> str:
        return f"{self._random.getrandbits(96):024x}"


class ScriptedEndpoint:
    """The port `ports.TokenEndpoint`: a script answers each request, after ``latency``.

    ``requests`` keeps what was asked; ``busiest`` is the most that were ever in flight together.
    """

    def __init__(self, clock: VirtualClock, script: Callable[[TokenRequest], Outcome], latency: timedelta) -> None:
        self._clock = clock
        self.script = script
        self.latency = latency
        self.requests: list[tuple[datetime, TokenRequest]] = []
        self.busiest = 0
        self._in_flight = 0

    async def exchange(self, request: TokenRequest, *, deadline: timedelta) -> Outcome:
        self.requests.append((self._clock.now(), request))
        self._in_flight += 1
        self.busiest = max(self.busiest, self._in_flight)
        try:
            outcome = self.script(request)
            await self._clock.pass_time(min(self.latency, deadline))
            if self.latency > deadline:
                return Outcome(cls=OutcomeClass.DOUBTFUL, message="no answer within the deadline")
            return outcome
        finally:
            self._in_flight -= 1


class FixedCredentials:
    """The port `ports.CredentialSource`: ``values`` may be changed, ``error`` makes them unreadable."""

    def __init__(self, password: str | None = "pw") -> None:  # noqa: S107 (of the lab)
        self.values = {"client_id": "client", "client_secret": "cs", "username": "user", "password": password}
        self.error: RotatorError | None = None

    async def resolve(self, *, password: Secret | None = None) -> Credentials:
        if self.error is not None:
            raise self.error
        values = dict(self.values)
        if password is not None:
            values["password"] = password.reveal()
        mark = digest(tuple(values.values()), b"lab")
        chosen = values["password"]
        return Credentials(
            values["client_id"] or "", Secret(values["client_secret"] or ""), values["username"],
            None if chosen is None else Secret(chosen), mark,
        )  # fmt: skip


@dataclass
class MemoryPublisher:
    """The port `ports.Publisher` in memory. ``holds`` is what a reader finds; ``error`` makes the next settles
    fail; ``history`` keeps every value that ever stood there."""

    location: str
    local: bool = True
    holds: Publication | str | None = None
    error: RotatorError | None = None
    history: list[Publication] = field(default_factory=list)
    judged_by_mark = False

    async def settle(self, publication: Publication, now: datetime) -> Settled:
        if self.error is not None:
            raise self.error
        found = self._judge(publication)
        if found is Found.AHEAD and isinstance(self.holds, Publication):
            return Settled(found, generation=self.holds.generation, expires_at=self.holds.access.expires_at)
        if found is not Found.CURRENT:
            self.holds = publication
            self.history.append(publication)
        return Settled(found, mark=str(publication.generation))

    def stands(self, publication: Publication) -> bool:
        return self.error is None and self._judge(publication) is Found.CURRENT

    def _judge(self, wanted: Publication) -> Found:
        there = self.holds
        if there is None:
            return Found.ABSENT
        if isinstance(there, str):
            return Found.ALTERED
        if there.lineage != wanted.lineage:
            return Found.FOREIGN
        if there.generation != wanted.generation:
            return Found.AHEAD if there.generation > wanted.generation else Found.OLDER
        return Found.CURRENT if there == wanted else Found.ALTERED

    async def remove(self, mark: str) -> bool:
        if self.error is not None:
            raise self.error
        if isinstance(self.holds, Publication) and str(self.holds.generation) == mark:
            self.holds = None
            return True
        return False


class FixedRoster:
    """The port `ports.Roster` over a dictionary that a story may change."""

    def __init__(self, enrolments: Iterable[Enrolment]) -> None:
        self.by_name = {enrolment.name: enrolment for enrolment in enrolments}
        self.removable: dict[str, Publisher] = {
            publisher.location: publisher
            for enrolment in self.by_name.values()
            for publisher in enrolment.targets.values()
        }
        self.closed = False
        self.tended = 0
        self.providers = sorted({enrolment.provider for enrolment in self.by_name.values()} | {"lab"})
        self.registered: Callable[[Entry], Enrolment] | None = None

    def enrolments(self) -> Mapping[str, Enrolment]:
        return self.by_name

    def enrolment_of(self, entry: Entry) -> Enrolment:
        if self.registered is None:
            raise Misconfigured("no grant of a register is expected in this story")
        return self.registered(entry)

    async def standing(self, wanted: Sequence[tuple[Publisher, Publication]], now: datetime) -> Sequence[bool]:
        return [isinstance(one, MemoryPublisher) and one.stands(publication) for one, publication in wanted]

    def publisher_at(self, location: str) -> Publisher | None:
        return self.removable.get(location)

    async def tend(self) -> None:
        self.tended += 1

    async def close(self) -> None:
        self.closed = True


class BlindWatcher:
    """The port `ports.Watcher`: a story touches a location by hand."""

    def __init__(self) -> None:
        self.watched: Mapping[str, Callable[[], None]] = {}

    def watch(self, locations: Mapping[str, Callable[[], None]]) -> None:
        self.watched = dict(locations)

    def begin(self) -> None:
        """A story touches whenever it likes."""

    def touch(self, location: str) -> None:
        self.watched[location]()

    def close(self) -> None:
        self.watched = {}


class QuietSupervisor:
    """The port `ports.Supervisor`: keeps what it was told, in order."""

    def __init__(self, watchdog: timedelta | None = None, *, listens: bool = True) -> None:
        self.watchdog = watchdog
        self.listens = listens
        self.heard: list[tuple[str, str]] = []

    def ready(self, status: str) -> None:
        self.heard.append(("ready", status))

    def status(self, status: str) -> None:
        self.heard.append(("status", status))

    def extend(self, span: timedelta) -> None:
        self.heard.append(("extend", str(span)))

    def alive(self) -> None:
        self.heard.append(("alive", ""))

    def reloading(self) -> None:
        self.heard.append(("reloading", ""))

    def stopping(self, status: str) -> None:
        self.heard.append(("stopping", status))

    def words(self) -> list[str]:
        """What was told, without the texts."""
        return [word for word, _ in self.heard]

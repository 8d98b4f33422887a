"""A whole daemon in the virtual world: one call sets the stage, a story plays on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from typing import Any

from rotator.core import events
from rotator.core.grants import Answer, Grant, Kind, Outcome, OutcomeClass
from rotator.core.health import Startup
from rotator.core.policy import Rules
from rotator.core.ports import Enrolment, Roster, TokenRequest
from rotator.core.pressure import Limits
from rotator.core.tokens import Secret
from rotator.engine.bus import Bus
from rotator.engine.daemon import Daemon, Parts
from rotator.engine.timing import Timing
from rotator.lab import world
from rotator.lab.memory import MemoryStore

HOUR = timedelta(hours=1)
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
RULES = Rules(password=True)
TIMING = Timing()


class Provider:
    """A provider that rotates like FOSOAuthServerBundle, in as many lines as the engine's tests need."""

    def __init__(self, lifetime: timedelta = HOUR) -> None:
        self.lifetime = lifetime
        self.count = 0
        self.live: set[str] = set()
        self.override: list[Outcome] = []

    def __call__(self, request: TokenRequest) -> Outcome:
        if self.override:
            return self.override.pop(0)
        if request.kind is Kind.REFRESH:
            spent = request.refresh.reveal() if request.refresh else ""
            if spent not in self.live:
                return Outcome(cls=OutcomeClass.REFRESH_DEAD, message="HTTP 400 invalid_grant")
            self.live.discard(spent)
        elif request.credentials.password != Secret("pw"):
            return Outcome(cls=OutcomeClass.REFUSED, message="HTTP 400 invalid_grant")
        self.count += 1
        self.live.add(f"refresh-{self.count}")
        return granted(self.count, self.lifetime)


def granted(number: int, lifetime: timedelta = HOUR) -> Outcome:
    answer = Answer(Secret(f"access-{number}"), Secret(f"refresh-{number}"), lifetime)
    return Outcome(cls=OutcomeClass.GRANTED, message="granted", answer=answer)


def failing(cls: OutcomeClass, message: str = "as scripted") -> Outcome:
    return Outcome(cls=cls, message=message)


class Stage:
    """Everything of one run. ``store`` outlives a daemon: `play` may be entered again, which is a restart."""

    def __init__(
        self,
        *names: str,
        rules: Rules = RULES,
        lifetime: timedelta = HOUR,
        latency: timedelta = timedelta(milliseconds=50),
        require: Startup = Startup.ALL,
        watchdog: timedelta | None = None,
        timing: Timing = TIMING,
        local: bool = True,
        store: MemoryStore | None = None,
        clock: world.VirtualClock | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.clock = clock or world.VirtualClock()
        self.dice = world.SeededDice(1)
        self.store = store or MemoryStore(clock=self.clock, dice=self.dice)
        self.provider = Provider(lifetime)
        self.endpoint = world.ScriptedEndpoint(self.clock, self.provider, latency)
        self.credentials = world.FixedCredentials()
        self.rules = rules
        self.limits = limits or Limits()
        self.local = local
        self.timing = timing
        self.require = require
        self.roster = world.FixedRoster(self.enrolment(name) for name in names or ("billing",))
        self.supervisor = world.QuietSupervisor(watchdog)
        self.watcher = world.BlindWatcher()
        self.told: list[events.Event] = []
        self.reread: Callable[[], Coroutine[Any, Any, Roster]] | None = None
        self.daemon = self.raise_daemon()

    def enrolment(self, name: str, **changes: Any) -> Enrolment:
        place = world.MemoryPublisher(f"memory:{name}", local=self.local)
        given: dict[str, Any] = {
            "name": name, "provider": "lab", "identity": ("https://lab", "client", "user"), "rules": self.rules,
            "endpoint": self.endpoint, "credentials": self.credentials, "targets": {"app": place},
            "limits": self.limits,
        }  # fmt: skip
        return Enrolment(**{**given, **changes})

    def raise_daemon(self) -> Daemon:
        bus = Bus(self.clock.now)
        bus.join("test", self.told.append)
        self.daemon = Daemon(
            Parts(
                version="test",
                clock=self.clock,
                dice=self.dice,
                store=self.store,
                bus=bus,
                roster=self.roster,
                watcher=self.watcher,
                supervisor=self.supervisor,
                timing=self.timing,
                require=self.require,
                reread=self._reread,
                warnings=("a literal secret",),
            )
        )
        return self.daemon

    async def _reread(self) -> Roster:
        assert self.reread is not None
        return await self.reread()

    def place(self, name: str = "billing", target: str = "app") -> world.MemoryPublisher:
        found = self.roster.by_name[name].targets[target]
        assert isinstance(found, world.MemoryPublisher)
        return found

    @asynccontextmanager
    async def play(self) -> AsyncIterator[Daemon]:
        """The daemon serves while the story goes on, and is stopped in order after it."""
        daemon = self.raise_daemon()
        serving = asyncio.create_task(daemon.serve())
        try:
            yield daemon
            assert not serving.done() or serving.result() is None
        finally:
            daemon.stop()
            await serving

    @asynccontextmanager
    async def killed(self) -> AsyncIterator[Daemon]:
        """The daemon serves and dies without a word: its tasks are cut off, the store keeps what it has."""
        daemon = self.raise_daemon()
        before = asyncio.all_tasks()
        serving = asyncio.create_task(daemon.serve())
        yield daemon
        for task in asyncio.all_tasks() - before:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await serving

    def stored(self) -> list[Grant]:
        """What the store holds, by name, also while no daemon has it open."""
        return [grant for _, grant in sorted(self.store.shelf.grants.items())]

    def turn_to(self, *enrolments: Enrolment) -> world.FixedRoster:
        """What the next reload reads; the places of before can still be removed."""
        fresh = world.FixedRoster(enrolments)
        fresh.removable = {**self.roster.removable, **fresh.removable}

        async def reread() -> Roster:
            return fresh

        self.reread = reread
        return fresh

    async def pass_time(self, span: timedelta) -> None:
        await self.clock.pass_time(span)

    def names(self) -> list[str]:
        return [event.name for event in self.told]

    def exchanges(self) -> list[tuple[datetime, Kind]]:
        return [(at, request.kind) for at, request in self.endpoint.requests]


def play(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    world.run(story)

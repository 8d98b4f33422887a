"""The daemon, put together."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import rotator
from rotator.assembly import inspection, states, traces
from rotator.assembly.inputs import Inputs
from rotator.assembly.lasting import Lasting
from rotator.assembly.plan import Plan
from rotator.assembly.roster import ConfiguredRoster
from rotator.core import events, lean
from rotator.core.health import Margin, Startup
from rotator.core.ports import Clock, Face, Roster
from rotator.drivers import clock, watch
from rotator.engine.bus import Bus
from rotator.engine.daemon import Daemon, Parts
from rotator.engine.timing import Timing
from rotator.frontends import systemd, telemetry

if TYPE_CHECKING:
    from rotator.assembly.discovery import Discovery
    from rotator.frontends.control import Client
    from rotator.settings import Settings

CONTROL = "control"
# Events of a start that are kept until somebody can ask for them.
EARLY = 256


@lean.dataclass(frozen=True, slots=True)
class Built:
    """A daemon that is ready to serve, with its faces. ``tracing`` is one of them: a single pass has spans to send too,
    and closes that one alone."""

    daemon: Daemon
    faces: tuple[Face, ...]
    log: telemetry.LogListener
    level: events.Level
    tracing: Face | None = None


def build(plan: Plan, *, log_level: str | None = None) -> Built:
    """Every object of one run. Nothing is opened yet; call it inside the event loop."""
    system_clock, dice = clock.SystemClock(), clock.SystemDice()
    plan = _counted(plan)
    states.make_folder(plan)
    store = states.store(plan, system_clock, dice)
    bus = Bus(system_clock.now)
    settings = plan.settings
    level = telemetry.level(log_level or settings.log.level)
    log = _log(plan, level)
    bus.join("log", log)
    warn = _warnings(bus, system_clock)
    lasting = Lasting(settings, warn)

    async def reread() -> Roster:
        fresh = replace(inspection.read(plan.config, plan.environ), unwrapped=plan.unwrapped, tallies=plan.tallies)
        inputs.use(fresh)
        lasting.use(fresh.settings)
        return ConfiguredRoster(fresh, system_clock, store.key, discovered(fresh))

    discovery: Discovery | None = None

    def discovered(fresh: Plan) -> Discovery | None:
        """One object over all reloads: what it knows of Vault outlives them."""
        nonlocal discovery
        if discovery is not None:
            discovery.use(fresh)
        elif fresh.settings.discovery.vault is not None:
            from rotator.assembly.discovery import Discovery

            discovery = Discovery(fresh, system_clock, warn, lambda: daemon.hang_up(), lambda name: daemon.retire(name))
        return discovery

    supervisor = systemd.Notifier(plan.environ, os.getpid(), clock.monotonic_usec)
    daemon = Daemon(
        Parts(
            version=rotator.__version__,
            clock=system_clock,
            dice=dice,
            store=store,
            bus=bus,
            roster=ConfiguredRoster(plan, system_clock, store.key, discovered(plan)),
            watcher=watch.InotifyWatcher(),
            supervisor=supervisor,
            timing=_timing(settings),
            require=Startup(settings.startup.require),
            margin=Margin(least=settings.readiness.least, enough=settings.readiness.enough),
            reread=reread,
            warnings=(*plan.warnings, *traces.warnings(plan)),
        )
    )

    inputs = Inputs(plan, daemon.look_at_secrets, daemon.hang_up)
    tracing = traces.of(plan)
    faces: list[Face] = [inputs, _Logout(lambda: discovery)]
    if tracing is not None:
        bus.join("traces", tracing.spans)
        faces.append(tracing)
    return Built(daemon, (*_shown(plan, daemon, bus, system_clock, supervisor), *faces), log, level, tracing)


def _shown(
    plan: Plan, daemon: Daemon, bus: Bus, system_clock: clock.SystemClock, supervisor: systemd.Notifier
) -> Iterator[Face]:
    """Where people and programs ask: the control socket, and the pages where they have an address."""
    on_defect = _defects(bus, system_clock)
    control = _LateControl(control_path(plan), daemon, on_defect)
    bus.join("chronicle", control.hear)
    yield control
    if plan.settings.http.address is not None:
        from rotator.assembly import pages

        yield pages.face(plan, daemon, pages.Surroundings(system_clock, bus, supervisor), on_defect)


def _counted(plan: Plan) -> Plan:
    """With room for what is counted of each Vault, where somebody shows it."""
    return plan if plan.settings.http.address is None else replace(plan, tallies={})


def _timing(settings: Settings) -> Timing:
    timing = settings.timing
    return Timing(
        sweep_every=timing.sweep_every, verify_every=timing.verify_every, follow_every=timing.follow_every
    )  # fmt: skip


def _log(plan: Plan, level: events.Level) -> telemetry.LogListener:
    return telemetry.LogListener(
        sys.stderr,
        telemetry.choose(plan.settings.log.format, sys.stderr, plan.environ),
        threshold=level,
        colour=telemetry.is_colourful(sys.stderr, plan.environ),
        journal=telemetry.Journal(),
    )


def _warnings(bus: Bus, its_clock: Clock) -> Callable[[str], None]:
    def tell(text: str) -> None:
        bus.tell(events.Warned(at=its_clock.now(), text=text))

    return tell


def _defects(bus: Bus, its_clock: Clock) -> Callable[[str, Exception], None]:
    """Tells what was being done and the class of what was raised; its text may hold anything."""

    def tell(doing: str, error: Exception) -> None:
        bus.tell(events.TaskFailed(at=its_clock.now(), doing=doing, error=type(error).__name__))

    return tell


class _Logout:
    """Ends the login with which discovery looked, which outlives every roster."""

    def __init__(self, found: Callable[[], Discovery | None]) -> None:
        self._found = found

    async def start(self) -> None:
        """Discovery looks by itself, when it is tended."""

    async def close(self) -> None:
        discovery = self._found()
        if discovery is not None:
            await discovery.close()


class _LateControl:
    """The control socket, imported when it is opened: after the first publication."""

    def __init__(self, path: Path, daemon: Daemon, on_defect: Callable[[str, Exception], None]) -> None:
        self._path = path
        self._daemon = daemon
        self._on_defect = on_defect
        self._server: Face | None = None
        self._hear: Callable[[events.Event], None] | None = None
        self._before: deque[events.Event] = deque(maxlen=EARLY)

    def hear(self, event: events.Event) -> None:
        """What is told before there is a socket is kept for it."""
        self._before.append(event) if self._hear is None else self._hear(event)

    async def start(self) -> None:
        from rotator.frontends.control.chronicle import Chronicle
        from rotator.frontends.control.server import Server

        self._hear = chronicle = Chronicle(self._before)
        self._before.clear()
        self._server = Server(
            self._path, self._daemon, os.getuid(), on_defect=self._on_defect, chronicle=chronicle
        )  # fmt: skip
        await self._server.start()

    async def close(self) -> None:
        if self._server is not None:
            await self._server.close()


def control_path(plan: Plan) -> Path:
    return states.folder(plan) / CONTROL


def client(plan: Plan) -> Client:
    """The way to the daemon that holds this configuration's state."""
    # The daemon itself needs no client before it publishes; 3 ms.
    from rotator.frontends.control import Client

    return Client(control_path(plan))


def polls(limit: timedelta, every: timedelta) -> Iterator[None]:
    """Once at once, then every ``every`` until ``limit`` has passed: for a command that waits for a daemon."""
    until = clock.boottime() + limit
    while True:
        yield
        if clock.boottime() >= until:
            return
        clock.pause(min(every, max(timedelta(0), until - clock.boottime())))

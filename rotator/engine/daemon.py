"""Start, reload, drain: the named tasks of the daemon and the order in which they stop.

One engine for all commands: `run` is `serve`, everything short-lived is `session` with the same scheduler inside.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import field
from datetime import timedelta

from rotator.core import events, health, lean, lifecycle
from rotator.core.errors import BadUsage, Doubtful, Misconfigured, Refused, RotatorError, Transient, Unavailable
from rotator.core.grants import Kind, OutcomeClass
from rotator.core.health import Health, Startup
from rotator.core.ports import Clock, Dice, Entry, Face, Register, Roster, Store, Supervisor, Watcher
from rotator.core.publication import rfc3339
from rotator.core.tokens import Secret
from rotator.engine import reading
from rotator.engine.bus import Bus
from rotator.engine.crew import shielded
from rotator.engine.rotation import Result, Wish
from rotator.engine.scheduler import Scheduler
from rotator.engine.timing import Timing
from rotator.engine.tools import Tools

FIRST_PASS = timedelta(seconds=1)
EXTENSION = timedelta(seconds=30)
FAREWELL = timedelta(seconds=5)
PATIENCE = timedelta(seconds=30)


@lean.dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What `assembly` hands to the daemon. ``reread`` reads the configuration anew and raises Misconfigured where
    it is bad; ``warnings`` are told at start."""

    version: str
    clock: Clock
    dice: Dice
    store: Store
    bus: Bus
    roster: Roster
    watcher: Watcher
    supervisor: Supervisor
    timing: Timing = field(default_factory=Timing)
    require: Startup = Startup.ALL
    margin: health.Margin = field(default_factory=health.Margin)
    reread: Callable[[], Awaitable[Roster]] | None = None
    warnings: Sequence[str] = ()


class Daemon:
    """The running whole. Its public coroutines are also the orders that `frontends/control` carries to it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._scheduler: Scheduler | None = None
        self._ready = False
        self._stop = asyncio.Event()
        self._reload_asked = False
        self._reloading = asyncio.Lock()
        self._changed = asyncio.Event()
        self._beaten = parts.clock.moment()

    # --- the life ----------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Ask for a drain; a second call also gives up deliveries. Safe from a signal handler of the loop."""
        self._stop.set()
        self._on_change()

    def hang_up(self) -> None:
        """Ask for a reload (SIGHUP)."""
        self._reload_asked = True
        self._on_change()

    def look_at_secrets(self) -> None:
        """A secret has changed (its file was replaced); the regular look would find that too, but later."""
        self._open().look_at_secrets()

    async def serve(self, faces: Sequence[Face] = ()) -> None:
        """Run until `stop`. Raises what keeps it from starting: Overtaken, StateDamaged, Misconfigured."""
        async with AsyncExitStack() as stack:
            scheduler = await stack.enter_async_context(self.session())
            # Faces are closed after the drain, so that they can be asked during it.
            opened = await stack.enter_async_context(AsyncExitStack())
            try:
                await self._first_pass(scheduler)
                for face in faces:
                    opened.push_async_callback(face.close)
                    await face.start()
                self._set_beats(scheduler)
                await self._work(scheduler)
            finally:
                # Also where something above failed: what is in flight is saved, and the supervisor asked for the time.
                await self._drain(scheduler)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Scheduler]:
        """The open engine: store, scheduler, bus; nothing is due by itself until somebody sweeps."""
        parts = self._parts
        async with AsyncExitStack() as stack:
            stack.callback(parts.bus.flush)
            stack.push_async_callback(parts.store.close)
            stack.callback(parts.clock.stop)
            await parts.store.open()
            tools = Tools(
                clock=parts.clock, dice=parts.dice, store=parts.store, bus=parts.bus,
                owner=parts.dice.name(), key=await parts.store.key(),
            )  # fmt: skip
            scheduler = Scheduler(parts.roster, tools, parts.timing, parts.watcher, self._on_change, parts.margin)
            stack.push_async_callback(scheduler.close)
            # A cancelled command (Ctrl-C) waits for the save all the same.
            stack.push_async_callback(lambda: shielded(scheduler.drain()))
            stack.callback(self._forget)
            self._scheduler = scheduler
            await scheduler.begin()
            now = parts.clock.now()
            parts.bus.tell(
                events.Started(at=now, version=parts.version, grants=len(parts.roster.enrolments())),
                *(events.Warned(at=now, text=text) for text in parts.warnings),
            )
            yield scheduler

    def _forget(self) -> None:
        self._scheduler = None

    async def _first_pass(self, scheduler: Scheduler) -> None:
        """Publish what is stored and start what is due before anything else is imported, opened or watched."""
        if not self._stop.is_set():
            await self._turn(scheduler, alarm=False)
            await self._quiet(scheduler, FIRST_PASS)
            scheduler.watch()
        self._parts.bus.open()

    def _set_beats(self, scheduler: Scheduler) -> None:
        self._parts.clock.beat("sweep", self._parts.timing.sweep_every, scheduler.ring)
        if self._parts.store.follows:
            self._parts.clock.beat("follow", self._parts.timing.follow_every, scheduler.follow)
        if self._parts.supervisor.watchdog is not None:
            self._parts.clock.beat("watchdog", self._beat, scheduler.ring)

    @property
    def _beat(self) -> timedelta:
        """How often something rings while nothing happens: half of the watchdog's patience at most."""
        every, watchdog = self._parts.timing.sweep_every, self._parts.supervisor.watchdog
        return every if watchdog is None else min(every, watchdog / 2)

    async def _work(self, scheduler: Scheduler) -> None:
        while not self._stop.is_set():
            await self._turn(scheduler)
            self._announce(scheduler)
            if self._reload_asked and not self._stop.is_set():
                self._reload_asked = False
                await self._reload_safely()
                continue
            await self._wait_rung(scheduler)

    async def _turn(self, scheduler: Scheduler, *, alarm: bool = True) -> None:
        """One sweep within its deadline; only that feeds the watchdog, whatever the sweep's result."""
        parts = self._parts
        scheduler.bell.clear()
        try:
            async with parts.clock.deadline(parts.timing.sweep_every):
                await scheduler.sweep(alarm=alarm)
        except TimeoutError:
            now = parts.clock.now()
            reason = f"no answer within {events.brief(parts.timing.sweep_every)}"
            doing = "the sweep could not ask the store"
            parts.bus.tell(events.StoreTroubled(at=now, reason=reason, doing=doing, sweep=True))
        except Exception as error:  # noqa: BLE001 (exchanges in flight and published tokens outlive a defect here)
            self._tell_defect("sweeping", error)
        else:
            self._beat_once()

    def _beat_once(self) -> None:
        """Our loop turned: the one fact that feeds both the watchdog and whoever asks whether we live."""
        self._beaten = self._parts.clock.moment()
        self._parts.supervisor.alive()

    def _pulse(self) -> health.Pulse:
        quiet = self._parts.clock.moment().awake - self._beaten.awake
        # Without a watchdog that says it: two beats may be missed, each with a sweep of its whole deadline.
        patience = self._parts.supervisor.watchdog or 3 * self._parts.timing.sweep_every
        return health.Pulse(self._beaten.now, quiet, patience)

    def _tell_defect(self, doing: str, error: Exception) -> None:
        now = self._parts.clock.now()
        self._parts.bus.tell(events.TaskFailed(at=now, doing=doing, error=type(error).__name__))

    async def _wait_rung(self, scheduler: Scheduler) -> None:
        """Until the alarm, a beat or a kick rings; what merely changed is announced without a sweep."""
        while not self._is_rung:
            await self._changed.wait()
            self._changed.clear()
            # Ready or not, the beat tells the rest: thousands of grants must not be examined for each that ends.
            if not self._ready and self._may_be_ready(scheduler):
                self._announce(scheduler)

    def _announce(self, scheduler: Scheduler) -> None:
        """Tell the supervisor how things stand; READY=1 once everything required is published or decided."""
        supervisor = self._parts.supervisor
        if not supervisor.listens and (self._ready or not self._may_be_ready(scheduler)):
            return
        snapshot = self._examine(scheduler)
        line = snapshot.line()
        if self._ready:
            supervisor.status(line)
        elif snapshot.settled(self._parts.require):
            self._ready = True
            # What made us ready is told before: a journal is read from top to bottom.
            self._parts.bus.flush()
            supervisor.ready(line)
            self._parts.bus.tell(events.BecameReady(at=snapshot.at, status=line))
        else:
            supervisor.extend(EXTENSION)
            supervisor.status(line)

    def _may_be_ready(self, scheduler: Scheduler) -> bool:
        """Whether a look at every grant is worth its cost while we start."""
        return self._parts.require is not Startup.ALL or scheduler.all_decided()

    def _on_change(self) -> None:
        # Once ready only what rings is worth a look; thousands of tasks that end are not.
        if not self._ready or self._is_rung:
            self._changed.set()

    @property
    def _is_rung(self) -> bool:
        rung = self._scheduler is not None and self._scheduler.bell.is_set()
        return rung or self._stop.is_set() or self._reload_asked

    async def _drain(self, scheduler: Scheduler) -> None:
        """Save every exchange in flight, asking the supervisor for time; then give deliveries a moment."""
        parts = self._parts
        parts.bus.tell(events.Stopping(at=parts.clock.now(), in_flight=scheduler.in_flight))
        parts.supervisor.stopping(f"stopping; {scheduler.in_flight} exchange(s) in flight")
        self._stop.clear()

        def hold_on() -> None:
            parts.supervisor.extend(EXTENSION)
            self._beat_once()

        hold_on()
        # Rings until the clock is stopped, which is after everything was closed.
        parts.clock.beat("drain", min(EXTENSION / 6, self._beat), hold_on)
        await shielded(scheduler.drain())
        await self._quiet(scheduler, FAREWELL)

    async def _quiet(self, scheduler: Scheduler, limit: timedelta, name: str | None = None) -> None:
        """Wait until nothing of one grant or of all is in flight, for ``limit`` at most and until somebody asks to
        stop."""
        quiet = asyncio.create_task(scheduler.quiet(name))
        stop = asyncio.create_task(self._stop.wait())
        try:
            async with self._parts.clock.deadline(limit):
                await asyncio.wait([quiet, stop], return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            pass
        finally:
            for task in (quiet, stop):
                task.cancel()
            await asyncio.gather(quiet, stop, return_exceptions=True)

    # --- one pass ----------------------------------------------------------------------------------------------

    async def once(self, within: timedelta) -> Health:
        """The same engine, stopped once every grant is published or decided, or ``within`` has passed."""
        parts = self._parts
        async with self.session() as scheduler:
            parts.bus.open()
            self._set_beats(scheduler)
            try:
                async with parts.clock.deadline(within):
                    while not self._stop.is_set():
                        await self._turn(scheduler)
                        await self._quiet(scheduler, within)
                        if scheduler.knows_the_time() and self._examine(scheduler).settled(Startup.ALL):
                            break
                        await self._wait_rung(scheduler)
            except TimeoutError:
                pass
            finally:
                # What the last exchange brought is saved and still delivered: no later pass does it.
                await self._drain(scheduler)
            return self._examine(scheduler)

    # --- orders ------------------------------------------------------------------------------------------------

    async def health(self) -> dict[str, object]:
        """The snapshot that every page and status line shows."""
        return {"version": self._parts.version, **health.document(self.examine())}

    def examine(self) -> Health:
        """The snapshot itself, for who shows it in this process. Raises Transient where nothing runs."""
        return self._examine(self._open())

    def _examine(self, scheduler: Scheduler) -> Health:
        now, grants = self._parts.clock.now(), scheduler.examine()
        visits = scheduler.visits
        return Health(
            now, grants, pulse=self._pulse(), started=self._ready, providers=scheduler.gates(),
            register=visits.census, walked=visits.walked,
        )  # fmt: skip

    async def rotate(self, grant: str, force: bool) -> dict[str, object]:
        """Rotate now and publish. Raises the exchange's own error, Transient where nothing was sent."""
        return await self._ask(grant, Wish(asked=True, forced=force))

    async def authorize(self, grant: str, password: Secret | None, refresh: Secret | None) -> dict[str, object]:
        """A person's login, or a refresh token from elsewhere. Neither is kept but the token set it brings."""
        if refresh is not None:
            return await self._ask(grant, Wish(asked=True, forced=True), lifecycle.Adopted(refresh=refresh))
        if password is None:
            raise BadUsage("authorize needs a password or a refresh token")
        return await self._ask(grant, Wish(asked=True, forced=True, wanted=Kind.PASSWORD, password=password))

    async def _ask(self, name: str, wish: Wish, adopted: lifecycle.Adopted | None = None) -> dict[str, object]:
        scheduler = self._open()
        async with scheduler.hosting(name):
            error = _as_error(await scheduler.ask(name, wish, adopted))
            if error is not None:
                raise error
            # A target that keeps silent is shown as it is.
            await self._quiet(scheduler, PATIENCE, name)
            return self._shown(scheduler, name)

    async def show(self, grant: str) -> dict[str, object]:
        """How one grant stands, of the register too. Raises BadUsage for an unknown one."""
        scheduler = self._open()
        async with scheduler.hosting(grant):
            if not scheduler.is_resident(grant):
                # It may just have come, and nobody has looked yet at what it publishes.
                await self._quiet(scheduler, FAREWELL, grant)
            return self._shown(scheduler, grant)

    def _shown(self, scheduler: Scheduler, grant: str) -> dict[str, object]:
        return {"grant": grant, **health.grant_document(scheduler.look_at(grant), self._parts.clock.now())}

    async def retire(self, grant: str) -> dict[str, object]:
        """Delete the stored tokens of a grant that is no longer configured, and what it published; one of the register
        is struck out of it first, and that is all where the configuration has it too."""
        scheduler = self._open()
        struck = await scheduler.visits.strike(grant)
        if scheduler.is_resident(grant):
            if struck:
                return {"grant": grant, "retired": False}
            raise BadUsage(
                f"grant {grant!r} is still configured", mend=f"remove [grants.{grant}] and reload, then retire it"
            )
        await scheduler.clear_away(grant)
        store = self._parts.store
        if not await store.retire(grant):
            if not struck:
                raise BadUsage(f"no tokens of a grant named {grant!r} are stored", mend="see `rotator status`")
            if store.register is not None and await reading.standing(store.register, [grant]):
                # Entered again while that took its time: the record is of that one.
                scheduler.ring()
                return {"grant": grant, "retired": True}
        self._parts.bus.tell(events.Retired(at=self._parts.clock.now(), grant=grant))
        return {"grant": grant, "retired": True}

    async def token(self, grant: str) -> dict[str, object]:
        """The access token as it is saved, for `rotator token`. Raises Transient where none is valid."""
        async with self._open().hosting(grant) as desk:
            return health.token(desk.grant, self._parts.clock.now())

    async def enter(self, entries: Sequence[Entry]) -> dict[str, object]:
        """Enrol grants in the register of the store, or change them, all or none. Raises Misconfigured for the first
        that does not fit."""
        scheduler = self._open()
        self._register()
        await scheduler.visits.enter(entries)
        return {"entered": len(entries)}

    async def listed(self, after: str, limit: int) -> dict[str, object]:
        """A page of the register, by name."""
        page = await self._register().page(after, limit)
        return {"grants": [health.listed_document(one) for one in page], "more": len(page) == limit}

    def _register(self) -> Register:
        self._open()
        register = self._parts.store.register
        if register is None:
            raise BadUsage(
                "this state has no register of grants",
                mend="configure them, or drop them into grants.d; see also [discovery]",
            )
        return register

    async def reload(self) -> dict[str, object]:
        """Read the configuration anew. Raises Misconfigured, and keeps the old one, where it is bad."""
        parts, scheduler = self._parts, self._open()
        if parts.reread is None:
            raise BadUsage("this run has no configuration to reload")
        async with self._reloading:
            if self._ready:
                parts.supervisor.reloading()
            status = ""
            try:
                async with parts.clock.deadline(parts.timing.sweep_every):
                    told = await scheduler.reload(await parts.reread())
                parts.bus.tell(told)
            except TimeoutError:
                error = Unavailable(f"the store did not answer within {events.brief(parts.timing.sweep_every)}")
                status = self._reject(error)
                raise error from None
            except RotatorError as error:
                status = self._reject(error)
                raise
            except Exception as error:
                self._tell_defect("reloading", error)
                status = "configuration not reloaded: a defect"
                raise
            finally:
                # Before the first READY=1 there is none to repeat: a reload does not make anything ready.
                if self._ready:
                    parts.supervisor.ready(status or self._examine(scheduler).line())
        return {"added": told.added, "changed": told.changed, "removed": told.removed}

    def _reject(self, error: RotatorError) -> str:
        self._parts.bus.tell(events.ReloadRejected(at=self._parts.clock.now(), reason=str(error)))
        return f"configuration not reloaded: {error.what}"

    async def _reload_safely(self) -> None:
        try:
            await self.reload()
        except Exception:  # noqa: BLE001, S110 (told by reload itself; the old configuration is kept)
            pass

    def _open(self) -> Scheduler:
        if self._scheduler is None:
            raise Transient("the daemon is stopping", mend="try again once it runs")
        return self._scheduler


def _as_error(result: Result) -> RotatorError | None:
    """What a person who asked for this rotation is told, as an error of the tree; None where it was granted."""
    outcome = result.outcome
    if outcome is None:
        if result.exchanged:
            return None
        name, why, latch = result.grant.name, result.why or "nothing was due", result.grant.latch
        if latch is not None:
            return Refused(f"{name}: {why}", mend=latch.mend)
        later = f"try again after {rfc3339(result.until)}, or " if result.until is not None else ""
        return Transient(f"{name}: nothing was sent: {why}", mend=f"{later}run `rotator rotate --force {name}`")
    kinds: dict[OutcomeClass, type[RotatorError]] = {
        OutcomeClass.REFRESH_DEAD: Refused,
        OutcomeClass.REFUSED: Refused,
        OutcomeClass.MISCONFIGURED: Misconfigured,
        OutcomeClass.DOUBTFUL: Doubtful,
    }
    error = kinds.get(outcome.cls, Transient)
    return error(f"{result.grant.name}: {outcome.cls.value}: {outcome.message}", mend=outcome.mend)

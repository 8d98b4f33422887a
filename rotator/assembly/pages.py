"""The HTTP face: what it shows, where it listens, and who may see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import rotator
from rotator.assembly import references
from rotator.assembly.plan import Plan
from rotator.core import lean
from rotator.core.events import Event
from rotator.core.ports import Clock
from rotator.core.tokens import Secret
from rotator.engine.bus import Bus
from rotator.engine.daemon import Daemon
from rotator.frontends.http.history import History
from rotator.frontends.systemd import Notifier

if TYPE_CHECKING:
    from rotator.frontends.http.server import Server
    from rotator.frontends.metrics import Metrics

COUNTED = 64
"""Events that are counted in one turn of the loop, some microseconds each."""

Defect = Callable[[str, Exception], None]


@lean.dataclass(frozen=True, slots=True)
class Surroundings:
    """Whom the pages ask besides the daemon."""

    clock: Clock
    bus: Bus
    supervisor: Notifier


def face(plan: Plan, daemon: Daemon, about: Surroundings, on_defect: Defect) -> LateServer:
    """What listens at ``http.address``, which is configured; its memory begins now."""
    history, counting = History(about.clock.now()), Counting(plan, about)
    about.bus.join("status page", history)
    about.bus.join("metrics", counting, at_once=COUNTED)
    return LateServer(plan, daemon, history, counting, on_defect)


class Counting:
    """The listener behind /metrics, imported at its first event: nothing is passed on before the first publication."""

    def __init__(self, plan: Plan, about: Surroundings) -> None:
        self._plan = plan
        self._about = about
        self._metrics: Metrics | None = None

    def __call__(self, event: Event) -> None:
        self.metrics()(event)

    def metrics(self) -> Metrics:
        """What counts, made now where nothing has happened yet."""
        if self._metrics is None:
            from rotator.frontends.metrics import Metrics, Sources

            about, plan = self._about, self._plan
            asked = Sources(
                dropped=lambda: about.bus.lost,
                notify_errors=lambda: about.supervisor.errors,
                vaults=lambda: plan.tallies or {},
            )
            shown, beat = plan.settings.metrics, plan.settings.timing.sweep_every
            self._metrics = Metrics(
                rotator.__version__, about.clock, asked, per_grant_up_to=shown.per_grant_up_to, beat=beat
            )
        return self._metrics


class LateServer:
    """The server, imported when it is opened: after the first publication."""

    def __init__(self, plan: Plan, daemon: Daemon, history: History, counting: Counting, on_defect: Defect) -> None:
        self._plan = plan
        self._daemon = daemon
        self._history = history
        self._counting = counting
        self._on_defect = on_defect
        self._server: Server | None = None

    async def start(self) -> None:
        from rotator.frontends.http.application import Sources
        from rotator.frontends.http.server import Place, Server

        address = self._plan.settings.http.address
        assert address is not None  # noqa: S101 (the house has looked)
        metrics = self._counting.metrics()
        await metrics.start()
        sources = Sources(
            version=rotator.__version__,
            snapshot=self._daemon.examine,
            history=self._history,
            token=_token(self._plan),
            metrics=metrics.expose,
            on_defect=self._on_defect,
        )
        self._server = Server(Place(address.host, address.port, address.path), sources)
        await self._server.start()

    async def close(self) -> None:
        if self._server is not None:
            await self._server.close()


def _token(plan: Plan) -> Callable[[], Awaitable[Secret]] | None:
    shape = plan.settings.http.token
    return None if shape is None else references.reader(plan, references.of(shape, "http.token"))

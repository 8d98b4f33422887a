"""The HTTP face: what it shows, where it listens, and who may see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import rotator
from rotator.assembly import references
from rotator.assembly.plan import Plan
from rotator.core.events import Event
from rotator.core.ports import Clock
from rotator.core.tokens import Secret
from rotator.engine.bus import Bus
from rotator.engine.daemon import Daemon
from rotator.frontends.systemd import Notifier

if TYPE_CHECKING:
    from rotator.frontends.http.server import Server
    from rotator.frontends.metrics import Metrics

Defect = Callable[[str, Exception], None]


@dataclass(frozen=True, slots=True)
class Told:
    """Whom the metrics ask besides the daemon."""

    clock: Clock
    bus: Bus
    supervisor: Notifier


def face(plan: Plan, daemon: Daemon, on_defect: Defect, told: Told) -> LateServer:
    """What listens at ``http.address``, which is configured. Nothing of it is imported before it is opened, or before
    the first event is passed on: both are after the first publication."""
    return LateServer(plan, daemon, on_defect, told)


class LateServer:
    """The server and its metrics, imported when they are needed. Also a listener of the bus: what it counts."""

    def __init__(self, plan: Plan, daemon: Daemon, on_defect: Defect, told: Told) -> None:
        self._plan = plan
        self._daemon = daemon
        self._on_defect = on_defect
        self._told = told
        self._server: Server | None = None
        self._metrics: Metrics | None = None

    def __call__(self, event: Event) -> None:
        self._counting()(event)

    def _counting(self) -> Metrics:
        if self._metrics is None:
            from rotator.frontends.metrics import Metrics, Sources

            told, plan = self._told, self._plan
            asked = Sources(
                dropped=lambda: told.bus.lost,
                notify_errors=lambda: told.supervisor.errors,
                vaults=lambda: plan.tallies or {},
            )
            up_to = plan.settings.metrics.per_grant_up_to
            self._metrics = Metrics(rotator.__version__, told.clock, asked, per_grant_up_to=up_to)
        return self._metrics

    async def start(self) -> None:
        from rotator.frontends.http.application import Sources
        from rotator.frontends.http.server import Place, Server

        address = self._plan.settings.http.address
        assert address is not None  # noqa: S101 (the house has looked)
        metrics = self._counting()
        await metrics.start()
        sources = Sources(
            snapshot=self._daemon.examine, token=_token(self._plan), metrics=metrics.expose, on_defect=self._on_defect
        )  # fmt: skip
        self._server = Server(Place(address.host, address.port, address.path), sources)
        await self._server.start()

    async def close(self) -> None:
        if self._server is not None:
            await self._server.close()


def _token(plan: Plan) -> Callable[[], Awaitable[Secret]] | None:
    shape = plan.settings.http.token
    return None if shape is None else references.reader(plan, references.of(shape, "http.token"))

"""The HTTP face: what it shows, where it listens, and who may see it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING

import rotator
from rotator.assembly import references
from rotator.assembly.plan import Plan
from rotator.core.tokens import Secret
from rotator.engine.bus import Bus
from rotator.engine.daemon import Daemon
from rotator.frontends.http.history import History

if TYPE_CHECKING:
    from rotator.frontends.http.server import Server

Defect = Callable[[str, Exception], None]


def face(plan: Plan, daemon: Daemon, bus: Bus, since: datetime, on_defect: Defect) -> LateServer:
    """What listens at ``http.address``, which is configured; its memory begins now."""
    history = History(since)
    bus.join("status page", history)
    return LateServer(plan, daemon, history, on_defect)


class LateServer:
    """The server, imported when it is opened: after the first publication."""

    def __init__(self, plan: Plan, daemon: Daemon, history: History, on_defect: Defect) -> None:
        self._plan = plan
        self._daemon = daemon
        self._history = history
        self._on_defect = on_defect
        self._server: Server | None = None

    async def start(self) -> None:
        from rotator.frontends.http.application import Sources
        from rotator.frontends.http.server import Place, Server

        address = self._plan.settings.http.address
        assert address is not None  # noqa: S101 (the house has looked)
        sources = Sources(
            version=rotator.__version__,
            snapshot=self._daemon.examine,
            history=self._history,
            token=_token(self._plan),
            metrics=None,
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

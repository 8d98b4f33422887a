"""The emulated provider on loopback, in a thread, noting the instant at which it hands over each answer."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

import uvicorn

from rotator.lab import emulator, journal, provider

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

STARTUP_SECONDS = 10
LIFETIME = timedelta(hours=1)


@dataclass(slots=True)
class Provider:
    """``committed_at`` is the moment (`time.monotonic_ns`) at which the last pair was stored and the old one deleted,
    ``answered_at`` the one just before the last answer's body went to its socket."""

    port: int
    account: emulator.Account = field(default_factory=emulator.Account)
    committed_at: int = 0
    answered_at: int = 0

    @property
    def token_url(self) -> str:
        return f"http://127.0.0.1:{self.port}{provider.TOKEN_PATH}"


@contextmanager
def serve() -> Iterator[Provider]:
    """Serve until the context ends."""
    served, _ = emulator.account(access_ttl=LIFETIME, refresh_ttl=timedelta(days=14))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        told = Provider(listener.getsockname()[1])
        served.journal = _Stamping(told)
        config = uvicorn.Config(
            _noting(provider.application(served), told), lifespan="off", ws="none", log_config=None, access_log=False
        )
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), name="provider")
        thread.start()
        try:
            _wait_started(server)
            yield told
        finally:
            server.should_exit = True
            thread.join()


class _Stamping(journal.Journal):
    """An outcome is settled as the last step of a commit."""

    def __init__(self, told: Provider) -> None:
        super().__init__(keep=emulator.KEPT)
        self._told = told

    def settle(self, entry: journal.Entry, outcome: str) -> None:
        self._told.committed_at = time.monotonic_ns()
        super().settle(entry, outcome)


def _noting(app: ASGIApp, told: Provider) -> ASGIApp:
    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        async def sent(message: Message) -> None:
            if message["type"] == "http.response.body":
                told.answered_at = time.monotonic_ns()
            await send(message)

        await app(scope, receive, sent)

    return noting


def _wait_started(server: uvicorn.Server) -> None:
    until = time.monotonic() + STARTUP_SECONDS
    while not server.started:
        if time.monotonic() > until:
            raise RuntimeError("the emulated provider did not start")
        time.sleep(0.01)

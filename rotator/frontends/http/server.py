"""The socket and the server: uvicorn as a task on our own loop.

uvicorn would take SIGTERM for itself and look ten times a second whether it should end. Ours takes no signal and sleeps
until it is asked to end; the daemon's drain is what SIGTERM means here.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle

from rotator.core import lean
from rotator.core.errors import Misconfigured, Unavailable
from rotator.frontends.http.application import Application, Sources

CONNECTIONS = 256
HEAD_LIMIT = 16 << 10
# For a whole request to arrive, for the next one on an open connection, and for answers to end when we stop; seconds.
PATIENCE = 10.0
KEEP_ALIVE = 15
FAREWELL = 2
MODE = 0o660


@lean.dataclass(frozen=True, slots=True)
class Place:
    """Where to listen: ``path`` of a Unix socket, else an IP address and a port."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        return f"unix:{self.path}" if self.path else f"{self.host} port {self.port}"


class Server:
    """Answers at ``place`` from `start` to `close`; a face of the daemon. ``patience``: seconds for a whole request to
    arrive."""

    def __init__(self, place: Place, sources: Sources, *, patience: float = PATIENCE) -> None:
        self._place = place
        self._sources = sources
        self._patience = patience
        self._quiet: _Quiet | None = None
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises Unavailable where somebody else listens there, Misconfigured where nobody can."""
        listener = bind(self._place)
        # A page of a foreign name that was made to lead here must not read what only this machine may see.
        application = Application(self._sources, checks_host=_is_loopback(listener))
        # Called like a class, which is all that is asked of it.
        protocol = cast("type[asyncio.Protocol]", partial(_Patient, self._patience))
        config = uvicorn.Config(
            application, http=protocol, ws="none", lifespan="off", loop="none", log_config=None, log_level="critical",
            access_log=False, server_header=False, date_header=False, proxy_headers=False,
            limit_concurrency=CONNECTIONS, h11_max_incomplete_event_size=HEAD_LIMIT, timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=FAREWELL,
        )  # fmt: skip
        self._quiet = _Quiet(config, application)
        self._serving = asyncio.create_task(self._quiet.serve(sockets=[listener]), name="http")

    async def close(self) -> None:
        """Take no more requests, let answers end, hang up. Idempotent."""
        quiet, serving, self._quiet = self._quiet, self._serving, None
        if quiet is None or serving is None:
            return
        quiet.end()
        await asyncio.wait([serving])
        if self._place.path:
            _remove(Path(self._place.path))


class _Quiet(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, application: Application) -> None:
        super().__init__(config)
        self._application = application
        self._ended = asyncio.Event()

    def end(self) -> None:
        self._application.close()
        self.should_exit = True
        self._ended.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        await self._ended.wait()


class _Patient(H11Protocol):
    """Hangs up on who connects and asks nothing, and on who begins another request and does not end it: uvicorn waits
    for both for ever, and counts them among its connections."""

    _looks = False

    def __init__(self, patience: float, **given: Any) -> None:
        super().__init__(**given)
        self._patience = patience

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait()

    def _wait(self) -> None:
        if self._is_owed() and not self._looks:
            self._looks = True
            self.loop.call_later(self._patience, self._look, self.cycle)

    def _look(self, before: object) -> None:
        self._looks = False
        if self.cycle is not before:
            # One was asked and answered in between; what is owed now has not been for so long.
            self._wait()
        elif self._is_owed():
            self.transport.close()

    def _is_owed(self) -> bool:
        """Whether part of a request, or the first one, is still to come. Between two uvicorn has a timer of its own."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        return (cycle is None or cycle.response_complete) and self.timeout_keep_alive_task is None


def bind(place: Place) -> socket.socket:
    """A listening socket. Raises Unavailable where the place is taken, Misconfigured where it cannot be had."""
    try:
        return _unix(Path(place.path)) if place.path else _tcp(place.host, place.port)
    except OSError as error:
        what = f"http.address: cannot listen on {place}: {os.strerror(error.errno or 0)}"
        if error.errno == errno.EADDRINUSE:
            raise Unavailable(what, mend="end what listens there, or name another address") from None
        if error.errno in (errno.EACCES, errno.EPERM) and not place.path:
            raise Misconfigured(
                what, mend="name a port above 1023; under systemd also allow it: SocketBindAllow=tcp:PORT"
            ) from None
        raise Misconfigured(what, mend="name an address of this machine, or a path in a folder of ours") from None


def _tcp(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=128)


def _unix(path: Path) -> socket.socket:
    """What a killed daemon left is taken away; what somebody still answers at is not."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode) and not _answers(path):
                path.unlink()
        listener.bind(str(path))
        path.chmod(MODE)
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        except OSError:
            return True
        return True


def _is_loopback(listener: socket.socket) -> bool:
    if listener.family == socket.AF_UNIX:
        return False
    host: str = listener.getsockname()[0]
    return host == "::1" or host.startswith("127.")

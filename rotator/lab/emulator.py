"""Serves the provider on loopback, in this process, until it is cancelled or told to stop."""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from rotator.core import errors
from rotator.drivers.clock import SystemClock
from rotator.lab import provider as shell
from rotator.lab.fos import Provider
from rotator.lab.registry import Client, Profile, User

if TYPE_CHECKING:
    import uvicorn

# What requests in flight get when the server stops.
GRACE_SECONDS = 1


ACCESS_TTL = timedelta(hours=1)
REFRESH_TTL = timedelta(days=14)
# Requests kept in the journal; its counters go on.
KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Account:
    """The one client and user of an emulated provider. Always the same: they open nothing but the emulator, and a
    configuration written against it still fits after a restart."""

    client_id: str = "1_3bcbxd9e24g0gk4swg0kwgcwg4o8k8g4g888kwc44gcc0gwwk4"
    client_secret: str = field(default="emulated-client-secret", repr=False)
    username: str = "omnifund_user"
    password: str = field(default="emulated-password", repr=False)


def account(*, access_ttl: timedelta = ACCESS_TTL, refresh_ttl: timedelta = REFRESH_TTL) -> tuple[Provider, Account]:
    """An OmniFund on the machine's clock with one client and one user. Lifetimes are cut to whole seconds."""
    its = Account()
    clock = SystemClock()
    provider = Provider(
        [Client(its.client_id, its.client_secret)],
        [User(its.username, its.password)],
        now=lambda: clock.now().timestamp(),
        profile=Profile(
            access_seconds=int(access_ttl.total_seconds()), refresh_seconds=int(refresh_ttl.total_seconds())
        ),
        keep=KEPT,
    )
    return provider, its


def main(*, port: int, access_ttl: timedelta = ACCESS_TTL, refresh_ttl: timedelta = REFRESH_TTL) -> int:
    """Serve an `account` on loopback until SIGINT or SIGTERM, having told on stdout what a client must know."""
    provider, its = account(access_ttl=access_ttl, refresh_ttl=refresh_ttl)

    def tell(port: int) -> None:
        url = f"http://127.0.0.1:{port}"
        print(  # noqa: T201 (what `rotator emulate` is asked for)
            f"token_url      {url}{shell.TOKEN_PATH}\n"
            f"login_url      {url}{shell.LOGIN_PATH}\n"
            f"client_id      {its.client_id}\n"
            f"client_secret  {its.client_secret}\n"
            f"username       {its.username}\n"
            f"password       {its.password}\n"
            f"journal        {url}{shell.LOG_PATH}\n"
            f"faults         {url}{shell.FAULTS_PATH}",
            flush=True,
        )

    asyncio.run(serve(provider, port=port, on_ready=tell))
    return errors.EXIT_OK


async def serve(
    provider: Provider,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    on_ready: Callable[[int], None],
    allow_remote: bool = False,
) -> None:
    """Serve ``provider`` until SIGTERM, SIGINT (in the main thread) or cancellation; port 0 takes a free one.

    ``on_ready`` is called with the port once connections are accepted. Nothing is printed. The endpoints under
    ``/_lab`` let anyone break the provider, hence only loopback unless ``allow_remote``.

    Raises BadUsage for a host that is not loopback, Misconfigured where it cannot be listened on.
    """
    if not (allow_remote or _is_loopback(host)):
        raise errors.BadUsage(
            f"the emulator does not listen on {host}: it speaks plain HTTP and anyone may break it",
            mend="use 127.0.0.1",
        )
    listener = _listen(host, port)
    with listener, _signals_swallowed():
        server = _server(provider)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        on_ready(listener.getsockname()[1])
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            # Cancelling uvicorn itself would leave its connections open.
            server.should_exit = True
            await serving
            raise


def _server(provider: Provider) -> uvicorn.Server:
    # Imported here, because only an emulator pays for it.
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Protocol(H11Protocol):
        """Hands every request the way to drop its connection."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.app_state = {**self.app_state, shell.HANG_UP: transport.close}

    config = uvicorn.Config(
        shell.application(provider),
        http=Protocol,
        ws="none",
        lifespan="off",
        loop="none",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        date_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    return uvicorn.Server(config)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise errors.Misconfigured(
            f"the emulator cannot listen on {host} port {port}: {error.strerror}", mend="choose another port"
        ) from None


@contextmanager
def _signals_swallowed() -> Iterator[None]:
    """Uvicorn stops on SIGTERM and SIGINT, and then raises them again for whoever was there before. Nobody is, for
    that moment: a stop that was asked for is a plain return."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _ignore) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore(number: int, frame: object) -> None:
    pass


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

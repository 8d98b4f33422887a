"""The emulated provider on a real port, in a thread of the test."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rotator.lab import emulator, provider
from rotator.lab.faults import Faults
from rotator.lab.fos import Provider
from rotator.lab.journal import Journal
from rotator.lab.registry import Client, Profile, User

ACCOUNT = emulator.Account()
CLIENT = Client(ACCOUNT.client_id, ACCOUNT.client_secret)
USER = User(ACCOUNT.username, ACCOUNT.password)
STARTUP_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Emulator:
    """A running provider. ``provider`` is the object it serves: faults set on it count at the next request."""

    provider: Provider
    port: int
    account: emulator.Account = field(default=ACCOUNT)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token_url(self) -> str:
        return self.base_url + provider.TOKEN_PATH

    @property
    def login_url(self) -> str:
        return self.base_url + provider.LOGIN_PATH

    @property
    def log_url(self) -> str:
        return self.base_url + provider.LOG_PATH

    @property
    def faults_url(self) -> str:
        return self.base_url + provider.FAULTS_PATH

    @property
    def faults(self) -> Faults:
        return self.provider.faults

    @property
    def journal(self) -> Journal:
        return self.provider.journal


@contextmanager
def serve(
    profile: Profile | None = None,
    *,
    clients: Iterable[Client] = (CLIENT,),
    users: Iterable[User] = (USER,),
    now: Callable[[], float] = time.time,
) -> Iterator[Emulator]:
    """Serve on a free port of loopback; ``now`` may be a clock that the test turns."""
    served = Provider(clients, users, now=now, profile=profile)
    ready = threading.Event()
    ports: list[int] = []
    stops: list[Callable[[], object]] = []

    async def run() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        stops.append(lambda: loop.call_soon_threadsafe(task.cancel))

        def tell(port: int) -> None:
            ports.append(port)
            ready.set()

        try:
            await emulator.serve(served, on_ready=tell)
        except asyncio.CancelledError:
            pass

    thread = threading.Thread(target=lambda: asyncio.run(run()), name="emulator")
    thread.start()
    try:
        assert ready.wait(STARTUP_SECONDS), "the emulated provider did not start"
        yield Emulator(served, ports[0])
    finally:
        for stop in stops:
            stop()
        thread.join()

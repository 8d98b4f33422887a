"""One Vault or OpenBao with one login: the way to it for everything that wants something of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from rotator.core.errors import RotatorError, Unavailable
from rotator.core.ports import Clock
from rotator.core.tokens import Secret
from rotator.drivers.vault import answers
from rotator.drivers.vault.address import Address
from rotator.drivers.vault.answers import Declined
from rotator.drivers.vault.login import Login
from rotator.drivers.vault.pool import Pool
from rotator.drivers.vault.tally import Tally
from rotator.drivers.vault.tenure import Tenure

if TYPE_CHECKING:
    import hvac

    from rotator.drivers.vault import adapter

T = TypeVar("T")

# How long `close` waits for threads to give their connections back; a thread in a hung call is left behind.
CLOSING = timedelta(seconds=1)


class Vault:
    """One login at one Vault, on at most ``workers`` threads, because hvac knows no async.

    Each thread has a session of its own, since requests' are not safe to share. Nothing is imported, opened or sent
    before the first call. Use it within one event loop at a time. With ``revokes`` a token that Vault made for us is
    given back at the end. ``tally`` counts logins and requests.
    """

    def __init__(
        self, name: str, address: Address, login: Login, clock: Clock, *, workers: int = 4, revokes: bool = False,
        tally: Tally | None = None,
    ) -> None:  # fmt: skip
        self._name = name
        self._revokes = revokes
        self._limit = address.connect_timeout + address.timeout
        self._tenure = Tenure(name, login, clock, self._send, tally)
        self._pool: Pool[hvac.Client] = Pool(workers, f"vault-{name}", _Connecting(name, address, tally), _disconnect)

    @property
    def name(self) -> str:
        return self._name

    async def call(self, do: Callable[[hvac.Client], T], *, deadline: timedelta | None = None, mend: str = "") -> T:
        """Run ``do`` on a worker thread with a client that is logged in.

        ``do`` may run twice: a 403 is answered by one new login, shared by all that got one, and one more try. It may
        raise `answers.Declined`, as the client does, and catch what it can use. ``deadline`` bounds each run; ``mend``
        is what to tell where rights are missing. When cancelled, ``do`` has not begun or ends in the background.

        Raises Unavailable while Vault is away, sealed, busy, or silent until the deadline (then what was sent may
        still take effect); Refused where the login or the rights do not suffice; Misconfigured for the rest; and what
        reading the login's secrets raises.
        """
        held = await self._tenure.hold()
        try:
            return await self._send(do, held.auth.token, deadline)
        except Declined as declined:
            if declined.status != 403:
                raise answers.failure(declined, self._name) from None
            fresh = await self._tenure.replace(held)
            if fresh is None:
                raise answers.failure(declined, self._name, mend) from None
        try:
            return await self._send(do, fresh.auth.token, deadline)
        except Declined as declined:
            if declined.status == 403:
                self._tenure.note_fruitless()
            raise answers.failure(declined, self._name, mend) from None

    async def renew_if_short(self) -> None:
        """Keep the login alive; for a beat every few seconds. Nothing happens before the first `call`.

        Renews once two thirds of the lease are gone, and logs in anew in its last 15 % or where Vault renews no
        further. A token from outside is read again and taken over when it changed. Raises as `call` does; a renewal
        that failed is tried again after 10 s to 5 min and the login goes on while its lease lasts.
        """
        await self._tenure.renew_if_short()

    async def close(self) -> None:
        """Take no more calls and close the connections. Idempotent; waits a second at most for calls in flight."""
        held = self._tenure.made_for_us if self._revokes else None
        if held is not None:
            # Who is away does not get it back: it ends with its lease.
            with suppress(Declined, RotatorError):
                await self._send(lambda client: client.auth.token.revoke_self(), held.auth.token, CLOSING)
        ended = [asyncio.wrap_future(one) for one in self._pool.close()]
        if ended:
            await asyncio.wait(ended, timeout=CLOSING.total_seconds())

    async def _send(self, do: Callable[[hvac.Client], T], token: Secret | None, deadline: timedelta | None = None) -> T:
        """Run ``do`` on a worker thread with ``token``. Raises Declined, and what has no status as `call` does."""
        limit = deadline or self._limit
        job = self._pool.start(partial(_run, do, token))
        if job.cancelled():
            raise Unavailable(f"Vault {self._name} is no longer in use here")
        try:
            # Real time, because it is a real socket that keeps silent.
            async with asyncio.timeout(limit.total_seconds()):  # noqa: TID251 (a driver's own deadline)
                return await asyncio.wrap_future(job)
        except TimeoutError:
            raise self._no_answer(job, limit) from None

    def _no_answer(self, job: Future[T], limit: timedelta) -> Unavailable:
        seconds = f"{limit.total_seconds():g} s"
        if job.cancelled():
            return Unavailable(f"Vault {self._name}: all connections hung for {seconds}; nothing was sent")
        return Unavailable(f"Vault {self._name}: no answer within {seconds}; outcome unknown")


class _Connecting:
    """Makes a client for each thread, which share what Vault told them of its state."""

    def __init__(self, name: str, address: Address, tally: Tally | None) -> None:
        self._name = name
        self._address = address
        self._tally = tally
        self._lock = threading.Lock()
        self._index: adapter.Index | None = None

    def __call__(self) -> hvac.Client:
        # hvac and requests cost 150 ms: they are imported at the first call, and on its thread.
        from rotator.drivers.vault import adapter

        with self._lock:
            self._index = self._index or adapter.Index()
        return adapter.connect(self._name, self._address, self._index, self._tally)


def _disconnect(client: hvac.Client) -> None:
    client.session.close()


def _run(do: Callable[[hvac.Client], T], token: Secret | None, client: hvac.Client) -> T:
    client.token = token.reveal() if token else ""
    try:
        return do(client)
    finally:
        client.token = ""

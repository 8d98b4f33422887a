"""How a login is kept: single-flight, with a back-off, renewed or made anew before it ends."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from rotator.core import lean, policy
from rotator.core.errors import Misconfigured, Refused, RotatorError, Unavailable
from rotator.core.ports import Clock
from rotator.core.tokens import Secret
from rotator.drivers.vault import answers, login
from rotator.drivers.vault.answers import Declined
from rotator.drivers.vault.login import Attempt, Auth, Login
from rotator.drivers.vault.tally import Tally

if TYPE_CHECKING:
    import hvac

FIRST_BACKOFF = timedelta(seconds=1)
# A refused login may lock the account (OpenBao: five failures), so it slows down to 5 minutes; a Vault that is away
# is harmed by nobody who asks, and every second after its return is one in which a token is not published.
REFUSED_BACKOFF = timedelta(minutes=5)
AWAY_BACKOFF = timedelta(seconds=30)
FIRST_RENEWAL_BACKOFF = timedelta(seconds=10)
RENEWAL_BACKOFF = timedelta(minutes=5)

# The share of a lease at whose end a new login is made. Vault's own watcher takes a random 10 to 20 %.
GRACE = 0.15

# How often at most a token from outside is read again: by a beat of 10 s every 30. One that is refused is read at once.
REREAD = timedelta(seconds=25)

# How long a new login that did not help against a 403 speaks for the next 403 too: it is then about rights.
FRUITLESS = timedelta(minutes=5)


@lean.dataclass(frozen=True, slots=True)
class Held:
    """A login that stands. ``number`` tells it from the one before; ``first_lease`` is what it began with."""

    auth: Auth
    number: int
    since: datetime
    first_lease: timedelta
    renew_at: datetime

    @property
    def ends_at(self) -> datetime | None:
        return self.since + self.auth.lease if self.auth.lease else None

    def is_short(self, now: datetime) -> bool:
        """Whether less than the grace is left."""
        return self.ends_at is not None and now >= self.ends_at - self.first_lease * GRACE


def _share(token: Secret) -> float:
    """When a lease is renewed: at two thirds, less up to a twentieth of the lease, so that daemons that started
    together do not renew together. The token itself is the dice: it is random, and keeps its pace."""
    return 2 / 3 - hashlib.sha256(token.reveal().encode()).digest()[0] / 5120


@lean.dataclass(frozen=True, slots=True)
class _Failure:
    error: RotatorError
    at: datetime
    retry_at: datetime
    secrets: tuple[Secret, ...]


class Tenure:
    """The one login of one Vault over time. ``send`` runs something on a worker thread with a given token.

    Every method that logs in raises what `Vault.call` raises for it.
    """

    def __init__(
        self,
        vault: str,
        way: Login,
        clock: Clock,
        send: Callable[[Callable[[hvac.Client], Any], Secret | None], Awaitable[Any]],
        tally: Tally | None = None,
    ) -> None:
        self._vault = vault
        self._login = way
        self._clock = clock
        self._send = send
        self._tally = tally
        self._lock = asyncio.Lock()
        self._held: Held | None = None
        self._number = 0
        self._failures = 0
        self._failure: _Failure | None = None
        self._renewal_failures = 0
        self._fruitless_until: datetime | None = None
        self._read_at: datetime | None = None

    @property
    def made_for_us(self) -> Held | None:
        """The login that stands, where Vault made its token at our asking: only such a one is ours to end."""
        return self._held if self._login.issues else None

    async def hold(self) -> Held:
        """The login that stands, made now where there is none or its lease has run out."""
        held = self._held
        if held is not None and (held.ends_at is None or self._clock.now() < held.ends_at):
            return held
        async with self._lock:
            if self._held is not held and self._held is not None:
                return self._held
            return await self._log_in()

    async def replace(self, refused: Held) -> Held | None:
        """A new login in place of the one that got a 403; None where a new one would not help.

        However many calls got it, one login is made."""
        async with self._lock:
            if self._held is not None and self._held.number != refused.number:
                return self._held
            now = self._clock.now()
            fruitless = self._fruitless_until is not None and now < self._fruitless_until <= now + FRUITLESS
            if fruitless and await self._is_alive(refused):
                return None
            return await self._log_in()

    def note_fruitless(self) -> None:
        """A 403 came again under a fresh login."""
        self._fruitless_until = self._clock.now() + FRUITLESS

    async def renew_if_short(self) -> None:
        """Renew once two thirds of the lease are nearly gone; log in anew where that gives too little. See `Vault`."""
        if self._held is None:
            return
        async with self._lock:
            held, now = self._held, self._clock.now()
            if held.is_short(now) or (self._may_be_changed(now) and await self._is_changed(held)):
                await self._log_in()
            elif held.ends_at is not None and self._login.renews and held.auth.renewable and now >= held.renew_at:
                await self._renew(held, now)

    async def _renew(self, held: Held, now: datetime) -> None:
        try:
            told = await self._send(lambda client: client.auth.token.renew_self(), held.auth.token)
            auth = login.read_auth(told, "auth/token/renew-self", held.auth.token)
        except (Declined, RotatorError) as error:
            if isinstance(error, Declined) and error.status in (400, 403):
                await self._log_in()
                return
            self._renewal_failures += 1
            delay = policy.slow_backoff(self._renewal_failures, FIRST_RENEWAL_BACKOFF, RENEWAL_BACKOFF)
            self._held = Held(held.auth, held.number, held.since, held.first_lease, now + delay)
            raise self._told(error) from None
        self._renewal_failures = 0
        self._held = Held(auth, held.number, now, held.first_lease, now + auth.lease * _share(auth.token))
        if self._tally is not None:
            self._tally.kept(self._held.ends_at)
        if self._held.is_short(now):
            # The maximum lifetime is near: Vault renews for what is left of it and not longer.
            await self._log_in()

    async def _log_in(self) -> Held:
        attempt = await self._login.prepare()
        self._read_at = now = self._clock.now()
        self._hold_back(attempt, now)
        try:
            auth: Auth = await self._send(attempt.send, None)
            if auth.counted:
                raise Misconfigured(
                    f"the token of Vault {self._vault} may be used a few times only", mend="set token_num_uses=0 for it"
                )
        except (Declined, RotatorError) as error:
            raise self._failed(error, attempt, now) from None
        self._failures, self._failure, self._renewal_failures = 0, None, 0
        self._number += 1
        # Counted from before the request, so that it never ends later than Vault thinks.
        self._held = Held(auth, self._number, now, auth.lease, now + auth.lease * _share(auth.token))
        if self._tally is not None:
            self._tally.logged_in(self._held.ends_at)
        return self._held

    def _hold_back(self, attempt: Attempt, now: datetime) -> None:
        """Raise the last failure again, unsent, until its back-off is over or other secrets lie there."""
        last = self._failure
        if last is None or not last.at <= now < last.retry_at:
            return
        if isinstance(last.error, Unavailable) or attempt.secrets == last.secrets:
            raise type(last.error)(last.error.what, mend=last.error.mend)

    def _failed(self, error: Declined | RotatorError, attempt: Attempt, now: datetime) -> RotatorError:
        self._failures += 1
        told = self._told(error, at_login=True)
        if self._tally is not None:
            self._tally.not_logged_in(told)
        longest = AWAY_BACKOFF if isinstance(told, Unavailable) else REFUSED_BACKOFF
        delay = policy.slow_backoff(self._failures, FIRST_BACKOFF, longest)
        self._failure = _Failure(told, now, now + delay, attempt.secrets)
        return told

    def _told(self, error: Declined | RotatorError, *, at_login: bool = False) -> RotatorError:
        if isinstance(error, RotatorError):
            return error
        if at_login and error.status in (400, 401, 403):
            what = f"Vault {self._vault} refuses the login at {error.path}: {error.words}"
            return Refused(what, mend=self._login.mend)
        return answers.failure(error, self._vault)

    async def _is_alive(self, held: Held) -> bool:
        try:
            await self._send(lambda client: client.auth.token.lookup_self(), held.auth.token)
        except Declined:
            return False
        return True

    def _may_be_changed(self, now: datetime) -> bool:
        read_at = self._read_at
        return not self._login.issues and (read_at is None or not read_at <= now < read_at + REREAD)

    async def _is_changed(self, held: Held) -> bool:
        try:
            secrets = (await self._login.prepare()).secrets
        except RotatorError:
            # What cannot be read now has not changed: the token that we have goes on being renewed.
            return False
        self._read_at = self._clock.now()
        return secrets != (held.auth.token,)

"""The way to the server: where it is, how it is dialled, and what a lost connection costs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any

import psycopg
from psycopg import conninfo
from psycopg.rows import TupleRow

from rotator.core import lean, policy
from rotator.core.errors import Misconfigured, RotatorError, Unavailable
from rotator.core.ports import Clock, Dice
from rotator.core.tokens import Secret
from rotator.drivers.postgres import failures
from rotator.drivers.postgres.wire import Rows, Statement, Wire

# One round trip, and what a commit waits for at most: a standby that must confirm, a lock. A server that keeps silent
# is then as good as away.
PATIENCE = timedelta(seconds=10)
BACKOFF = policy.Rules(backoff_base=timedelta(milliseconds=100), backoff_cap=timedelta(seconds=5))
# What libpq would leave to the system: two hours until a dead peer is noticed (libpq, "Connection Parameters").
DEFAULTS = {
    "connect_timeout": "5", "keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "3",
    "tcp_user_timeout": "10000", "application_name": "rotator",
}  # fmt: skip

Password = Callable[[], Awaitable[Secret]]


@lean.dataclass(frozen=True, slots=True)
class Address:
    """``url`` as libpq reads it, without a password; ``password`` gives one for each connection, else libpq finds it
    (PGPASSFILE, a client certificate)."""

    url: str
    password: Password | None = None

    def options(self, *, writes: bool) -> dict[str, Any]:
        """What is not said in the URL. Raises Misconfigured for one that libpq cannot read."""
        try:
            given = conninfo.conninfo_to_dict(self.url)
        except psycopg.ProgrammingError as error:
            raise Misconfigured(
                f"state.url is not a URL that libpq reads: {str(error).strip()}",
                mend='write state.url = "postgresql://USER@HOST/DATABASE?sslmode=verify-full"',
            ) from None
        added: dict[str, Any] = {key: value for key, value in DEFAULTS.items() if key not in given}
        if writes and "," in str(given.get("host") or given.get("hostaddr") or ""):
            # Of several hosts one is the primary, and which may change.
            added |= {} if "target_session_attrs" in given else {"target_session_attrs": "read-write"}
        return added

    @property
    def place(self) -> str:
        """For a person: host and database, nothing else that may stand in a URL."""
        try:
            given = conninfo.conninfo_to_dict(self.url)
        except psycopg.ProgrammingError:
            return "in PostgreSQL"
        return f"in PostgreSQL ({given.get('host') or 'local'}, database {given.get('dbname') or 'of the user'})"


class Link:
    """One connection, dialled when it is needed and again when it was lost. One caller at a time.

    A server that refused is not asked again before a pause has passed, which grows up to 5 s: until then callers hear
    what it said. ``on_dial`` is called with each fresh connection's number."""

    def __init__(self, address: Address, clock: Clock, dice: Dice, *, writes: bool) -> None:
        self._address = address
        self._clock = clock
        self._dice = dice
        self._writes = writes
        self._connection: psycopg.AsyncConnection[TupleRow] | None = None
        self._failures = 0
        self._refusal: tuple[RotatorError, timedelta] | None = None
        self.number = 0
        self.statements = 0
        self.trips = 0

    @property
    def place(self) -> str:
        return self._address.place

    async def ask(self, statements: Sequence[Statement]) -> list[Rows]:
        """Send all of them together, one round trip and one transaction, and return what each gave.

        Raises psycopg.Error; where the connection was lost with them, `is_lost` tells so and what they did is not
        known. Raises what dialling raises, and then nothing was sent."""
        await self._dialled()
        self.trips += 1
        self.statements += len(statements)
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):  # noqa: TID251 (a driver's own deadline)
                return await self._wire.ask(statements)
        except TimeoutError:
            await self.drop()
            raise psycopg.OperationalError(f"no answer within {PATIENCE.total_seconds():g} s") from None
        except BaseException as error:
            # Half a conversation is no basis for the next one.
            if not isinstance(error, psycopg.Error) or self._is_useless(error) or self._wire.is_midway:
                await self.drop()
            raise

    def _is_useless(self, error: psycopg.Error) -> bool:
        # A primary that became a standby: another one may be found by dialling.
        return self.is_lost(error) or error.sqlstate == failures.READ_ONLY

    def is_lost(self, error: psycopg.Error) -> bool:
        return failures.is_lost(error, self._connection is None or self._connection.closed)

    async def connection(self) -> psycopg.AsyncConnection[TupleRow]:
        """For what is more than one round trip: migrations."""
        return await self._dialled()

    async def drop(self) -> None:
        """End the connection without a word to the server's answer."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _dialled(self) -> psycopg.AsyncConnection[TupleRow]:
        if self._connection is not None and not self._connection.closed:
            return self._connection
        moment = self._clock.moment()
        if self._refusal is not None and moment.boottime < self._refusal[1]:
            raise self._refusal[0]
        try:
            self._connection = await self._dial()
            self._wire = Wire(self._connection)
        except RotatorError as error:
            self._failures += 1
            pause = policy.backoff(self._failures, BACKOFF, self._dice.chance())
            self._refusal = error, self._clock.moment().boottime + pause
            raise
        self._failures, self._refusal = 0, None
        self.number += 1
        return self._connection

    async def _dial(self) -> psycopg.AsyncConnection[TupleRow]:
        options = self._address.options(writes=self._writes)
        if self._address.password is not None:
            options["password"] = (await self._address.password()).reveal()
        try:
            # No prepared statements: behind PgBouncer every transaction may meet another session.
            return await psycopg.AsyncConnection.connect(
                self._address.url, autocommit=True, prepare_threshold=None, **options
            )
        except psycopg.Error as error:
            raise failures.connecting(error, self.place) from None
        except (OSError, UnicodeError) as error:
            raise Unavailable(f"the state {self.place} cannot be reached: {type(error).__name__}") from None

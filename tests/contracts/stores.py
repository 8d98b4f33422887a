"""The stores under contract, and the clock and dice that they are given.

To add one: write a `Harness` and name it in `HARNESSES`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from rotator.core.grants import Grant, Intent, Kind, Source
from rotator.core.policy import Moment
from rotator.core.ports import Store
from rotator.core.pressure import Line
from rotator.core.tokens import AccessToken, Secret
from rotator.drivers import postgres, sqlite, vault
from rotator.lab import memory
from tests.peers.openbao import OpenBao
from tests.peers.postgres import Postgres

NOW = datetime(2027, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)


class FakeClock:
    """As much of `ports.Clock` as a store asks for. It moves only when told to."""

    def __init__(self, now: datetime = NOW) -> None:
        self._now = now
        self._boottime = timedelta(hours=5)
        self._boot_id = "boot-1"

    def now(self) -> datetime:
        return self._now

    def moment(self) -> Moment:
        return Moment(self._now, self._boot_id, self._boottime)

    def pass_time(self, span: timedelta) -> None:
        self._now += span
        self._boottime += span

    def step(self, span: timedelta) -> None:
        """Somebody sets wall time."""
        self._now += span

    def reboot(self) -> None:
        self._boot_id += "+"
        self._boottime = timedelta(seconds=20)


class FakeDice:
    """As much of `ports.Dice` as a store asks for; every pair of dice throws something else."""

    made = count()

    def __init__(self) -> None:
        self._names = (f"{next(FakeDice.made):08x}{number:016x}" for number in count())

    def chance(self) -> float:
        return 0.5

    def name(self) -> str:
        return next(self._names)


def new(name: str = "billing", *, lineage: str = "lineage-1", due_at: datetime | None = NOW) -> Grant:
    return Grant(name=name, lineage=lineage, identity="identity", due_at=due_at)


def in_line(found: Mapping[tuple[str, Line], Sequence[str]]) -> dict[tuple[str, Line], list[str]]:
    """What `Register.due` found, without lines that are empty."""
    return {key: list(names) for key, names in found.items() if names}


def granted(grant: Grant, *, at: datetime = NOW) -> Grant:
    """The grant after the next granted answer."""
    number = grant.generation + 1
    access = AccessToken(Secret(f"access-{grant.name}-{number}"), "bearer", "all", at, at + timedelta(hours=1), number)
    return Grant(
        name=grant.name, lineage=grant.lineage, identity=grant.identity, generation=number, access=access,
        refresh=Secret(f"refresh-{grant.name}-{number}"), previous_refresh=grant.refresh, refreshed_at=at,
        debits=grant.debits, due_at=at + timedelta(minutes=45), exchanged_at=at,
    )  # fmt: skip


def intent(grant: Grant, moment: Moment) -> Intent:
    return Intent(grant.lineage, grant.generation, Kind.REFRESH, Source.CURRENT, 1, moment)


class Harness(ABC):
    """One durable state in a world of its own."""

    #: Whether a second store is refused while one is open (a fleet's store takes many).
    exclusive: bool

    def __init__(self) -> None:
        self.clock = FakeClock()

    @abstractmethod
    def store(self) -> Store:
        """A store at this state, not open yet, with dice of its own: at each call a new one, as after a restart."""


class MemoryHarness(Harness):
    exclusive = True

    def __init__(self) -> None:
        super().__init__()
        self._shelf = memory.Shelf()

    def store(self) -> Store:
        return memory.MemoryStore(self._shelf, clock=self.clock, dice=FakeDice())


class SqliteHarness(Harness):
    exclusive = True

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._path = directory / "state.db"

    def store(self) -> Store:
        return sqlite.SqliteStore(self._path, clock=self.clock, dice=FakeDice())


class VaultHarness(Harness):
    exclusive = False

    def __init__(self, bao: OpenBao) -> None:
        super().__init__()
        self._bao = bao
        self._mount = bao.mount_kv()

    def store(self) -> Store:
        return vault.VaultStore(
            self._dial, self._mount, "rotator/state", clock=self.clock, dice=FakeDice(), host="here"
        )

    def _dial(self) -> vault.Vault:
        async def token() -> Secret:
            return Secret(self._bao.token)

        return vault.Vault("default", vault.Address(url=self._bao.url), vault.TokenLogin(token), self.clock)


class PostgresHarness(Harness):
    exclusive = False

    def __init__(self, server: Postgres, **options: str) -> None:
        super().__init__()
        self._address = postgres.Address(server.url(server.database(), **options))

    def store(self) -> Store:
        return postgres.PostgresStore(self._address, clock=self.clock, dice=FakeDice(), host="here")


@contextmanager
def _in_memory(directory: Path) -> Iterator[Harness]:
    yield MemoryHarness()


@contextmanager
def _in_sqlite(directory: Path) -> Iterator[Harness]:
    yield SqliteHarness(directory)


#: Those that need nothing but a folder; `openbao` and `postgres` need a server, which the fixture gives them.
HARNESSES = {"memory": _in_memory, "sqlite": _in_sqlite}

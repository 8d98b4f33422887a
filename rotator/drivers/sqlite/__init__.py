"""The embedded store: one SQLite file, one daemon, one writer thread.

The lock on the folder makes this process the only one that writes; hence leases live in memory, cost no fsync, and
die with the process that could have used them.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

from rotator.core.errors import Overtaken, Unavailable
from rotator.core.grants import Grant
from rotator.core.policy import Moment
from rotator.core.ports import Clock, Delivery, Dice, Lease
from rotator.core.sealing import Seal, Unsealed
from rotator.drivers.sqlite import rows, schema
from rotator.drivers.sqlite.folder import Lock, database_of, folder_of, holder, make
from rotator.drivers.sqlite.quiet import Quiet
from rotator.drivers.sqlite.register import SqliteRegister
from rotator.drivers.sqlite.reset import reset
from rotator.drivers.sqlite.room import Reserve
from rotator.drivers.sqlite.writer import Kind, Writer

__all__ = ["Lock", "SqliteStore", "folder_of", "holder", "make", "reset"]

T = TypeVar("T")


class SqliteStore:
    """The port `ports.Store` on a file that stands in the private folder of ``path`` (see `folder_of`).

    ``read_only`` opens without the lock, for a command beside a daemon or without one: it makes nothing of ours, and
    writes raise Unavailable. ``seal`` closes records at rest (`rotator.drivers.seal`). All calls come from one event
    loop.
    """

    follows = False

    def __init__(
        self, path: Path, *, clock: Clock, dice: Dice, seal: Seal | None = None, read_only: bool = False
    ) -> None:
        self._path = path
        self._seal = Unsealed() if seal is None else seal
        self._clock = clock
        self._dice = dice
        self._read_only = read_only
        self._database = database_of(path)
        self._writer: Writer | None = None
        self._leases: dict[str, Lease] = {}
        self._fence = 0
        # What is durable, for as long as the engine holds it: nobody else writes here, so that a lease need not read it
        # again. Names with a write on its way, and the number of the last, are not known meanwhile.
        self._known: WeakValueDictionary[str, Grant] = WeakValueDictionary()
        self._on_the_way: dict[str, int] = {}
        self._writes = 0
        self._quiet = Quiet()
        self.register = SqliteRegister(self._read, self._write, self._aside, self._seal)

    @property
    def folder(self) -> Path:
        """The private folder; known before it is made."""
        return self._database.parent

    async def open(self) -> None:
        """Besides the port's errors: Misconfigured for a folder that is not ours, BadUsage for one we may not read,
        StateDamaged for a damaged, lost, foreign or newer state, which stays exactly as it is."""
        if self._writer is not None:
            return
        lock, reserve = Lock(self.folder), Reserve(self.folder)
        # Read here: the clock belongs to the event loop, the opening runs on the thread.
        now = self._clock.now()

        def opening() -> sqlite3.Connection:
            if self._read_only:
                return schema.open_for_reading(self._database)
            make(self._path)
            lock.take(now)
            try:
                connection = schema.open_for_writing(self._database)
            except Unavailable:
                # A full disk: SQLite's index of the log wants 32 KiB. What is stored must be published all the same.
                reserve.give_up()
                connection = schema.open_for_writing(self._database)
            reserve.keep()
            return connection

        self._writer = Writer(opening, lock.release, partial(schema.translated, database=self._database), reserve)
        try:
            await self._writer.start()
            # Proven before anything is spent; from here on it needs nobody.
            await self._prepare()
            if not self._read_only:
                await self._write(lambda connection: rows.ensure_key(connection, self._dice))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        writer = self._writer
        if writer is not None:
            await writer.stop()
            self._writer = None
            self._leases.clear()
            self._known.clear()
            self._on_the_way.clear()

    async def key(self) -> bytes:
        return await self._read(rows.key)

    async def high_water(self) -> datetime | None:
        return await self._read(rows.high_water)

    async def enrol(self, grant: Grant) -> Grant:
        return await self._write(lambda connection: rows.enrol(connection, grant, self._seal), at=self._clock.now())

    async def grant(self, name: str) -> Grant | None:
        found = await self._read(lambda connection: rows.read(connection, name, self._seal))
        # A write that was handed in meanwhile is answered after this; one that was answered is seen in it.
        if found is not None and name not in self._on_the_way:
            self._known[name] = found
        return found

    async def grants(self) -> Sequence[Grant]:
        return await self._read(lambda connection: rows.read_all(connection, self._seal))

    async def due(self, now: datetime, limit: int) -> Sequence[str]:
        if not self._read_only and self._quiet.is_nothing_due(now):
            return []
        calm = self._quiet
        found = await self._read(lambda connection: rows.due(connection, now, limit))
        if not found and limit > 0:
            calm.nothing_until = now
        return found

    async def next_due(self, after: datetime) -> datetime | None:
        known, next_at = self._quiet.next_after(after)
        if known and not self._read_only:
            return next_at
        calm = self._quiet
        next_at = await self._read(lambda connection: rows.next_due(connection, after))
        calm.looked = (after, next_at)
        return next_at

    async def lease(self, name: str, owner: str, moment: Moment, until: timedelta) -> tuple[Lease, Grant]:
        """An owner who asks again gets a new lease; the one before is then overtaken as by a stranger."""
        held = self._leases.get(name)
        if held is not None and held.owner != owner and not _ran_out(held, moment):
            raise Overtaken(f"{name} is leased to another owner until {held.until.now:%H:%M:%S} UTC")
        self._fence += 1
        end = Moment(moment.now + until, moment.boot_id, moment.boottime + until)
        lease = self._leases[name] = Lease(name, owner, self._fence, end)
        try:
            # Else behind every save handed in before this: an answer on its way is seen.
            grant = self._known.get(name) or await self.grant(name)
            if grant is None:
                raise Overtaken(f"there is no stored grant {name}: it was retired or never enrolled")
        except BaseException:
            self._drop(lease)
            raise
        return lease, grant

    async def release(self, lease: Lease) -> None:
        self._drop(lease)

    async def save(self, grant: Grant, *, expected: int, lease: Lease | None, now: datetime) -> None:
        """A lease is current until somebody else took it or it was given back: that it ran out forbids to start,
        and is no reason to lose what is known by now."""
        granted = grant.generation > expected
        if not granted and lease is not None and not self._is_current(lease, grant.name):
            raise Overtaken(f"the lease of {grant.name} is no longer ours: another owner took over")
        kind = Kind.WRITE if grant.intent is None else Kind.INTENT
        await self._change(
            grant.name, lambda connection: rows.save(connection, grant, expected, self._seal), kind, now, becomes=grant
        )

    async def delivered(self, delivery: Delivery) -> None:
        await self._write(lambda connection: rows.delivered(connection, delivery), at=self._clock.now())

    async def deliveries(self, grant: str | None = None) -> Sequence[Delivery]:
        return await self._read(lambda connection: rows.deliveries(connection, grant))

    async def expired(self, now: datetime, limit: int) -> Sequence[Delivery]:
        if not self._read_only and self._quiet.has_none_expired(now):
            return []
        calm = self._quiet
        found, next_at = await self._read(
            lambda connection: (rows.expired(connection, now, limit), rows.next_expiry(connection, now))
        )
        if not found and limit > 0:
            calm.expires = (now, next_at)
        return found

    async def forget(self, grant: str, location: str) -> None:
        await self._write(lambda connection: rows.forget(connection, grant, location), at=self._clock.now())

    async def retire(self, name: str) -> bool:
        return await self._change(
            name, lambda connection: rows.retire(connection, name), Kind.WRITE, self._clock.now(), becomes=None
        )

    async def news(self, names: Collection[str]) -> Mapping[str, Grant | None]:
        """Nobody else writes here."""
        return {}

    async def fleet(self, owner: str) -> Collection[str]:
        """Nobody else works here."""
        return {owner}

    async def seal_anew(self) -> int:
        """Write every record under the seal as it is configured now (a data key is made anew), all or none; how many.
        What older pages held is overwritten."""
        await self._prepare(anew=True)
        return await self._write(lambda connection: rows.seal_anew(connection, self._seal))

    async def _prepare(self, *, anew: bool = False) -> None:
        # Without a seal nothing is looked for: with a million records that would be most of a start.
        sealed = [] if isinstance(self._seal, Unsealed) else await self._read(rows.sealed)
        await self._seal.prepare(sealed, anew=anew)

    async def _change(
        self, name: str, work: Callable[[sqlite3.Connection], T], kind: Kind, at: datetime, *, becomes: Grant | None
    ) -> T:
        """Write what is stored of ``name``, which is not known until the last write of it that was handed in is
        answered. One whose answer nobody heard (cancelled) leaves it unknown until the next: it may still come."""
        self._writes = write = self._writes + 1
        self._on_the_way[name] = write
        self._known.pop(name, None)
        try:
            result = await self._write(work, kind, at=at)
        except Exception:
            if self._on_the_way.get(name) == write:
                del self._on_the_way[name]
            raise
        if self._on_the_way.get(name) == write:
            del self._on_the_way[name]
            if becomes is not None:
                self._known[name] = becomes
        return result

    def _drop(self, lease: Lease) -> None:
        if self._is_current(lease, lease.grant):
            del self._leases[lease.grant]

    def _is_current(self, lease: Lease, name: str) -> bool:
        held = self._leases.get(name)
        return held is not None and held.fence == lease.fence

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        return self._open_writer().submit(work, Kind.READ)

    def _aside(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What takes long and must not hold up a save: beside the writer, as a stranger would read."""
        with closing(schema.open_for_reading(self._database)) as connection:
            try:
                return work(connection)
            except sqlite3.Error as error:
                raise schema.translated(error, self._database) from None

    def _write(
        self, work: Callable[[sqlite3.Connection], T], kind: Kind = Kind.WRITE, *, at: datetime | None = None
    ) -> asyncio.Future[T]:
        """``at`` raises the high-water mark."""
        if self._read_only:
            raise Unavailable(f"the state {self._database} was opened for reading only")
        self._quiet = Quiet()
        return self._open_writer().submit(work, kind, at)

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise Unavailable(f"the state {self._database} is not open")
        return self._writer


def _ran_out(lease: Lease, moment: Moment) -> bool:
    """By the boot-time clock. A lease of another boot ran out with the process that held it."""
    return lease.until.boot_id != moment.boot_id or moment.boottime >= lease.until.boottime

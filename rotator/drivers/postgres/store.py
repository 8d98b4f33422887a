"""The port `ports.Store` on PostgreSQL, for any number of daemons on any number of machines."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import count
from typing import Any, LiteralString, Protocol

from rotator.core import records
from rotator.core.errors import Overtaken, Unavailable
from rotator.core.grants import Grant
from rotator.core.policy import Moment
from rotator.core.ports import Clock, Delivery, Dice, Lease
from rotator.core.sealing import Seal
from rotator.drivers.postgres import entering, writing
from rotator.drivers.postgres.forms import Forms
from rotator.drivers.postgres.link import Address
from rotator.drivers.postgres.parts import Parts
from rotator.drivers.postgres.register import PostgresRegister
from rotator.drivers.postgres.wire import Rows, Statement

# How long the place of a file on another machine is kept in mind after its token expired.
STALE = timedelta(days=1)
# A place on one machine: known to the daemons of that machine alone.
LOCAL = "file:"


class Lock(Protocol):
    """See `rotator.drivers.sqlite.Lock`."""

    def take(self, now: datetime) -> None: ...

    def release(self) -> None: ...


class PostgresStore:
    """The port `ports.Store` at ``address``.

    ``host`` names this machine: places in its file system are known to its daemons alone. ``lock`` is held while it is
    open: it keeps a second daemon from our files. ``seal`` closes records at rest. ``read_only`` makes nothing of ours,
    and writes raise Unavailable. All calls come from one event loop."""

    follows = True

    def __init__(
        self,
        address: Address,
        *,
        clock: Clock,
        dice: Dice,
        host: str,
        seal: Seal | None = None,
        lock: Lock | None = None,
        read_only: bool = False,
    ) -> None:
        self._address = address
        self._clock = clock
        self._dice = dice
        self._host = host
        self._forms = Forms(seal)
        self._lock = lock
        self._read_only = read_only
        self._parts: Parts | None = None
        self._key: bytes | None = None
        self._steps = count(1)
        # What was saved and never answered, by grant.
        self._unsure: dict[str, Grant] = {}
        self.register = PostgresRegister(self._open_parts, self._writable, self._forms)

    @property
    def counts(self) -> tuple[int, int]:
        """Statements sent and round trips made since the opening."""
        parts = self._open_parts()
        return parts.link.statements + parts.looks.statements, parts.link.trips + parts.looks.trips

    # --- the life ----------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Besides the port's errors: Misconfigured where the server refuses us, StateDamaged for tables of a newer
        rotator."""
        if self._parts is not None:
            return
        if self._lock is not None:
            self._lock.take(self._clock.now())
        self._parts = Parts(self._address, self._clock, self._dice, self._forms, self._host, writes=not self._read_only)
        try:
            self._key = await self._parts.open()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        parts, self._parts = self._parts, None
        if parts is not None:
            await parts.close()
        self._key = None
        if self._lock is not None:
            self._lock.release()

    async def key(self) -> bytes:
        if self._key is None:
            raise self._closed()
        return self._key

    HIGHEST: LiteralString = """
        SELECT GREATEST((SELECT max(at) FROM rotator_grants), (SELECT max(at) FROM rotator_deliveries),
            (SELECT max(high_water) FROM rotator_meta))"""

    async def high_water(self) -> datetime | None:
        (rows,) = await self._read((self.HIGHEST, ()))
        return None if rows[0][0] is None else records.time(rows[0][0])

    # --- reading -----------------------------------------------------------------------------------------------

    GRANTS: LiteralString = "SELECT name, lineage, generation, record FROM rotator_grants"

    async def grant(self, name: str) -> Grant | None:
        (rows,) = await self._read((self.GRANTS + " WHERE name = %s", (name,)))
        return self._forms.read(*rows[0]) if rows else None

    async def grants(self) -> Sequence[Grant]:
        (rows,) = await self._read((self.GRANTS, ()))
        return [self._forms.read(*row) for row in sorted(rows)]

    async def due(self, now: datetime, limit: int) -> Sequence[str]:
        sql: LiteralString = """
            SELECT due_at, name FROM rotator_grants WHERE due_at <= %s AND provider IS NULL ORDER BY due_at LIMIT %s"""
        (rows,) = await self._read((sql, (records.stamp(now), limit)))
        return [name for _, name in sorted(rows)]

    async def next_due(self, after: datetime) -> datetime | None:
        sql: LiteralString = """
            SELECT due_at FROM rotator_grants WHERE due_at > %s AND provider IS NULL ORDER BY due_at LIMIT 1"""
        (rows,) = await self._read((sql, (records.stamp(after),)))
        return records.time(rows[0][0]) if rows else None

    DELIVERIES: LiteralString = """
        SELECT grant_name, target, location, lineage, generation, expires_at, mark FROM rotator_deliveries
        WHERE host IN ('', %s)"""

    async def deliveries(self, grant: str | None = None) -> Sequence[Delivery]:
        sql: LiteralString = " AND (%s::text IS NULL OR grant_name = %s::text)"
        (rows,) = await self._read((self.DELIVERIES + sql, (self._host, grant, grant)))
        return sorted(map(_delivery, rows), key=lambda one: (one.grant, one.location))

    async def expired(self, now: datetime, limit: int) -> Sequence[Delivery]:
        sql: LiteralString = " AND expires_at <= %s ORDER BY expires_at, grant_name, location LIMIT %s"
        (rows,) = await self._read((self.DELIVERIES + sql, (self._host, records.stamp(now), limit)))
        return [_delivery(row) for row in rows]

    async def news(self, names: Collection[str]) -> Mapping[str, Grant | None]:
        return await self._open_parts().following.news(names)

    async def fleet(self, owner: str) -> Collection[str]:
        following = self._open_parts().following
        return {owner} if self._read_only else await following.present(owner)

    # --- writing -----------------------------------------------------------------------------------------------

    async def enrol(self, grant: Grant) -> Grant:
        parts = self._writable()
        order = grant, self._forms.write(grant), records.stamp(self._clock.now())
        kept: Grant = await parts.writing.submit(parts.enrol, grant.name, order)
        return kept

    async def lease(self, name: str, owner: str, moment: Moment, until: timedelta) -> tuple[Lease, Grant]:
        parts = self._writable()
        taken: tuple[Lease, Grant] = await parts.writing.submit(parts.take, name, writing.Leasing(owner, moment, until))
        return taken

    async def release(self, lease: Lease) -> None:
        parts = self._writable()
        await parts.writing.submit(parts.give_back, lease.grant, lease)

    async def save(self, grant: Grant, *, expected: int, lease: Lease | None, now: datetime) -> None:
        parts, name = self._writable(), grant.name
        if lease is not None and lease.grant != name and grant.generation == expected:
            raise Overtaken(f"a lease of {lease.grant} is none of {name}")
        order = writing.Saving(
            grant, expected, lease, records.stamp(now), next(self._steps), self._forms.write(grant),
            self._unsure.get(name) == grant,
        )  # fmt: skip
        try:
            await parts.writing.submit(parts.save, name, order)
        except Unavailable:
            self._unsure[name] = grant
            raise
        self._unsure.pop(name, None)

    async def delivered(self, delivery: Delivery) -> None:
        parts = self._writable()
        order = delivery, self._host_of(delivery.location), records.stamp(self._clock.now())
        await parts.writing.submit(parts.deliver, f"{delivery.grant} {delivery.location}", order)

    RAISED: LiteralString = "UPDATE rotator_meta SET high_water = GREATEST(high_water, %s) WHERE id = 1"

    async def forget(self, grant: str, location: str) -> None:
        parts, now = self._writable(), self._clock.now()
        # Machines come and go: what stood on one that is gone is cleared away with this.
        gone: LiteralString = """
            DELETE FROM rotator_deliveries WHERE (grant_name = %s AND location = %s AND host = %s)
                OR (host <> '' AND expires_at < %s)"""
        place = grant, location, self._host_of(location), records.stamp(now - STALE)
        await parts.write((gone, place), (self.RAISED, (records.stamp(now),)))

    async def retire(self, name: str) -> bool:
        parts, now = self._writable(), self._clock.now()
        raised = self.RAISED, (records.stamp(now),)
        (rows, left, _), again = await parts.writing.submit(parts.do, name, [*entering.retire(name), raised])
        parts.known.forget(name)
        # Where its answer was lost, it is gone by our own doing.
        return bool(rows) or (again and not left)

    async def seal_anew(self) -> int:
        """Write every record and entry under the seal as it is configured now, all or none; how many. For when no
        daemon runs: one that wrote meanwhile makes it raise Overtaken."""
        return await self._writable().seal_anew()

    # --- the way there -----------------------------------------------------------------------------------------

    def _host_of(self, location: str) -> str:
        return self._host if location.startswith(LOCAL) else ""

    async def _read(self, *statements: Statement) -> list[Rows]:
        return await self._open_parts().read(*statements)

    def _open_parts(self) -> Parts:
        if self._parts is None:
            raise self._closed()
        return self._parts

    def _writable(self) -> Parts:
        if self._read_only:
            raise Unavailable(f"the state {self._address.place} was opened for reading only")
        return self._open_parts()

    def _closed(self) -> Unavailable:
        return Unavailable(f"the state {self._address.place} is not open")


def _delivery(row: Sequence[Any]) -> Delivery:
    name, target, location, lineage, generation, expires_at, mark = row
    return Delivery(name, target, location, lineage, generation, records.time(expires_at), mark)

"""The port `ports.Store` in memory, for the virtual world: no disk, no thread, the same promises.

A `Shelf` is what a disk would keep; a `MemoryStore` is one process at it. Dropping the store without `close` and
opening another one after `Shelf.free` is what a kill and a restart are to the real one.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import islice

from rotator.core import pressure, records
from rotator.core.errors import Overtaken, Unavailable
from rotator.core.grants import Grant
from rotator.core.health import Census, Listed
from rotator.core.policy import Moment
from rotator.core.ports import Clock, Delivery, Dice, Entry, Heard, Lease
from rotator.core.pressure import Line

MINUTE = timedelta(minutes=1)


@dataclass(slots=True)
class Shelf:
    """What outlives the process. ``tombstone_at`` is what `rotator state reset` leaves."""

    key: bytes | None = None
    high_water: datetime | None = None
    tombstone_at: datetime | None = None
    grants: dict[str, Grant] = field(default_factory=dict)
    deliveries: dict[tuple[str, str], Delivery] = field(default_factory=dict)
    entries: dict[str, Entry] = field(default_factory=dict)
    holder: MemoryStore | None = field(default=None, repr=False)

    def free(self) -> None:
        """The holder was killed: its lock is gone, and so are its leases."""
        self.holder = None


class MemoryStore:
    """One process at a shelf. After another one took the shelf over, every call of the former raises Unavailable."""

    follows = False

    def __init__(self, shelf: Shelf | None = None, *, clock: Clock, dice: Dice) -> None:
        self.shelf = Shelf() if shelf is None else shelf
        self._clock = clock
        self._dice = dice
        self._leases: dict[str, Lease] = {}
        self._fence = 0
        # Sorted (due time, name): the twin of the index.
        self._due: list[tuple[int, str]] = []
        self.register = MemoryRegister(self._held)

    async def open(self) -> None:
        shelf = self.shelf
        if shelf.holder is self:
            return
        if shelf.holder is not None:
            raise Overtaken("the state in memory is held by another store", mend="close that one first")
        shelf.holder = self
        if shelf.key is None:
            shelf.key = hashlib.sha256(":".join(self._dice.name() for _ in range(3)).encode()).digest()
        self._leases.clear()
        self._due = sorted(_entry(grant.due_at, grant.name) for grant in shelf.grants.values() if grant.due_at)

    async def close(self) -> None:
        if self.shelf.holder is self:
            self.shelf.free()

    async def key(self) -> bytes:
        key = self._held().key
        assert key is not None  # noqa: S101 (made by `open`)
        return key

    async def high_water(self) -> datetime | None:
        return self._held().high_water

    async def enrol(self, grant: Grant) -> Grant:
        shelf = self._held()
        if grant.name in shelf.grants:
            return shelf.grants[grant.name]
        grant = records.charge(grant, shelf.tombstone_at)
        self._put(grant, self._clock.now())
        return grant

    async def grant(self, name: str) -> Grant | None:
        return self._held().grants.get(name)

    async def grants(self) -> Sequence[Grant]:
        return [grant for _, grant in sorted(self._held().grants.items())]

    async def due(self, now: datetime, limit: int) -> Sequence[str]:
        self._held()
        end = bisect.bisect_left(self._due, _entry(now + records.MICROSECOND, ""))
        return [name for _, name in self._due[:end] if name not in self.shelf.entries][:limit]

    async def next_due(self, after: datetime) -> datetime | None:
        self._held()
        first = bisect.bisect_left(self._due, _entry(after + records.MICROSECOND, ""))
        entries = self.shelf.entries
        micros = next((at for at, name in islice(self._due, first, None) if name not in entries), None)
        return None if micros is None else records.time(micros)

    async def lease(self, name: str, owner: str, moment: Moment, until: timedelta) -> tuple[Lease, Grant]:
        grant = self._held().grants.get(name)
        if grant is None:
            raise Overtaken(f"there is no stored grant {name}: it was retired or never enrolled")
        held = self._leases.get(name)
        if held is not None and held.owner != owner and not _ran_out(held, moment):
            raise Overtaken(f"{name} is leased to another owner until {held.until.now:%H:%M:%S} UTC")
        self._fence += 1
        end = Moment(moment.now + until, moment.boot_id, moment.boottime + until)
        lease = self._leases[name] = Lease(name, owner, self._fence, end)
        return lease, grant

    async def release(self, lease: Lease) -> None:
        if self._is_current(lease, lease.grant):
            del self._leases[lease.grant]

    async def save(self, grant: Grant, *, expected: int, lease: Lease | None, now: datetime) -> None:
        stored = self._held().grants.get(grant.name)
        granted = grant.generation > expected
        if not granted and lease is not None and not self._is_current(lease, grant.name):
            raise Overtaken(f"the lease of {grant.name} is no longer ours: another owner took over")
        records.admit(None if stored is None else (stored.lineage, stored.generation), grant, expected)
        self._put(grant, now)

    async def delivered(self, delivery: Delivery) -> None:
        self._held().deliveries[delivery.grant, delivery.location] = delivery
        self._raise_high_water(self._clock.now())

    async def deliveries(self, grant: str | None = None) -> Sequence[Delivery]:
        known = sorted(self._held().deliveries.items())
        return [delivery for (name, _), delivery in known if grant is None or name == grant]

    async def expired(self, now: datetime, limit: int) -> Sequence[Delivery]:
        known = [one for one in self._held().deliveries.values() if one.expires_at <= now]
        return sorted(known, key=lambda one: (one.expires_at, one.grant, one.location))[:limit]

    async def forget(self, grant: str, location: str) -> None:
        if self._held().deliveries.pop((grant, location), None) is not None:
            self._raise_high_water(self._clock.now())

    async def retire(self, name: str) -> bool:
        shelf = self._held()
        if name not in shelf.grants or name in shelf.entries:
            return False
        self._unschedule(shelf.grants.pop(name))
        self._raise_high_water(self._clock.now())
        return True

    async def news(self, names: Collection[str]) -> Mapping[str, Grant | None]:
        """Nobody else writes here."""
        return {}

    async def fleet(self, owner: str) -> Collection[str]:
        """Nobody else works here."""
        return {owner}

    def _held(self) -> Shelf:
        # A process that was killed in the story must not go on writing in it.
        if self.shelf.holder is not self:
            raise Unavailable("the state in memory is not open")
        return self.shelf

    def _put(self, grant: Grant, now: datetime) -> None:
        before = self.shelf.grants.get(grant.name)
        if before is not None:
            self._unschedule(before)
        self.shelf.grants[grant.name] = grant
        if grant.due_at is not None:
            bisect.insort(self._due, _entry(grant.due_at, grant.name))
        self._raise_high_water(now)

    def _unschedule(self, grant: Grant) -> None:
        if grant.due_at is not None:
            del self._due[bisect.bisect_left(self._due, _entry(grant.due_at, grant.name))]

    def _raise_high_water(self, now: datetime) -> None:
        if self.shelf.high_water is None or self.shelf.high_water < now:
            self.shelf.high_water = now

    def _is_current(self, lease: Lease, name: str) -> bool:
        held = self._leases.get(name)
        return held is not None and held.fence == lease.fence


class MemoryRegister:
    """The port `ports.Register` at the same shelf. It looks at every grant: a story has few."""

    def __init__(self, shelf: Callable[[], Shelf]) -> None:
        self._shelf = shelf

    async def enter(self, entries: Sequence[Entry]) -> None:
        self._shelf().entries.update((entry.name, entry) for entry in entries)

    async def entries(self, names: Collection[str]) -> Sequence[Entry]:
        there = self._shelf().entries
        return [there[name] for name in sorted(names) if name in there]

    async def page(self, after: str, limit: int) -> Sequence[Listed]:
        return [one for one in self._listed() if one.name > after][:limit]

    async def strike(self, name: str) -> bool:
        return self._shelf().entries.pop(name, None) is not None

    async def due(
        self, now: datetime, rooms: Mapping[tuple[str, Line], int]
    ) -> Mapping[tuple[str, Line], Sequence[str]]:
        shelf, found = self._shelf(), dict[tuple[str, Line], Sequence[str]]()
        late = sorted(
            (one.due_at, one.name, one.provider) for one in self._listed() if one.due_at and one.due_at <= now
        )
        for (provider, line), room in rooms.items():
            fits = [
                name for _, name, theirs in late if theirs == provider and pressure.line(shelf.grants[name]) is line
            ]
            found[provider, line] = fits[:room]
        return found

    async def next_due(self, after: datetime, providers: Collection[str]) -> datetime | None:
        times = [one.due_at for one in self._listed() if one.provider in providers and one.due_at is not None]
        return min((at for at in times if at > after), default=None)

    async def census(self, now: datetime) -> Census:
        listed = self._listed()
        return Census(
            total=len(listed),
            valid=sum(one.expires_at is not None and one.expires_at > now for one in listed),
            resting=sum(one.due_at is None and one.name in self._shelf().grants for one in listed),
            overdue=sum(one.due_at is not None and one.due_at <= now - MINUTE for one in listed),
        )

    async def heard(self) -> Heard:
        """Nobody else writes here."""
        return Heard()

    def _listed(self) -> list[Listed]:
        return [self._line(entry) for _, entry in sorted(self._shelf().entries.items())]

    def _line(self, entry: Entry) -> Listed:
        grant = self._shelf().grants.get(entry.name)
        if grant is None:
            return Listed(entry.name, entry.provider, 0, None, None)
        expires_at = grant.access.expires_at if grant.access else None
        return Listed(entry.name, entry.provider, grant.generation, expires_at, grant.due_at)


def _entry(due_at: datetime, name: str) -> tuple[int, str]:
    return records.stamp(due_at), name


def _ran_out(lease: Lease, moment: Moment) -> bool:
    return lease.until.boot_id != moment.boot_id or moment.boottime >= lease.until.boottime

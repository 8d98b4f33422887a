"""Vault as the store: one KV v2 entry for each grant, and check-and-set as the compare-and-set of the contract.

Any number of daemons, on any number of machines, share it. Two machines have no clock in common, so a lease of another
machine has run out once its claim was seen unchanged for as long as it was taken for, by our own boot-time clock:
never sooner than by the owner's own, since he took it before we saw it. (Kubernetes elects its leaders by that rule.)
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Protocol

from rotator.core import records
from rotator.core.errors import Overtaken, StateDamaged, Unavailable
from rotator.core.grants import Grant
from rotator.core.policy import Moment
from rotator.core.ports import Clock, Delivery, Dice, Lease
from rotator.drivers.vault import binder, kv2, pages
from rotator.drivers.vault.binder import Alter, Binder
from rotator.drivers.vault.client import Vault
from rotator.drivers.vault.pages import Page

META = "meta"
# How long the place of a file on another machine is kept in mind after its token expired.
STALE = timedelta(days=1)


class Lock(Protocol):
    """See `rotator.drivers.sqlite.Lock`."""

    def take(self, now: datetime) -> None: ...

    def release(self) -> None: ...


class VaultStore:
    """The port `ports.Store` at ``mount``/``prefix``.

    ``dial`` makes a login of the store's own: a slow target must not hold up a save. ``host`` names this machine:
    places in its file system are known to its daemons alone. ``lock`` is held while it is open: it keeps a second
    daemon from our files. ``read_only`` makes nothing of ours, and writes raise Unavailable. All calls come from one
    event loop."""

    follows = True
    # Grants that come at run time stand in Vault themselves: `[discovery.vault]`.
    register = None

    def __init__(
        self,
        dial: Callable[[], Vault],
        mount: str,
        prefix: str,
        *,
        clock: Clock,
        dice: Dice,
        host: str,
        lock: Lock | None = None,
        read_only: bool = False,
    ) -> None:
        self._binder = Binder(dial, mount, prefix, clock)
        self._mount = mount
        self._clock = clock
        self._dice = dice
        self._host = host
        self._lock = lock
        self._read_only = read_only
        self._key: bytes | None = None
        self._meta_at: int | None = None
        self._unsure: dict[str, str] = {}

    # --- the life ----------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Besides the port's errors: what the login and the policy raise (Refused, Misconfigured)."""
        if self._key is not None:
            return
        if self._lock is not None:
            self._lock.take(self._clock.now())
        self._binder.open()
        try:
            self._key, self._meta_at = await self._read_or_make_meta()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await self._binder.close()
        self._key = None
        if self._lock is not None:
            self._lock.release()

    async def key(self) -> bytes:
        if self._key is None:
            raise Unavailable(f"the state {self._binder.place} in Vault is not open")
        return self._key

    async def high_water(self) -> datetime | None:
        await self._binder.load()
        found = [page.at for page in self._binder.pages.values() if page.at is not None]
        found += [] if self._meta_at is None else [self._meta_at]
        return records.time(max(found)) if found else None

    # --- reading -----------------------------------------------------------------------------------------------

    async def grant(self, name: str) -> Grant | None:
        return (await self._binder.read(name)).grant(name)

    async def grants(self) -> Sequence[Grant]:
        await self._binder.read_all()
        return [grant for _, grant in sorted(self._binder.grants.items())]

    async def due(self, now: datetime, limit: int) -> Sequence[str]:
        await self._binder.load()
        grants = self._binder.grants.items()
        return [name for _, name in sorted((one.due_at, name) for name, one in grants if _is_due(one, now))[:limit]]

    async def next_due(self, after: datetime) -> datetime | None:
        await self._binder.load()
        times = (one.due_at for one in self._binder.grants.values() if one.due_at is not None)
        return min((due_at for due_at in times if due_at > after), default=None)

    async def deliveries(self, grant: str | None = None) -> Sequence[Delivery]:
        await self._binder.load()
        known = sorted(self._binder.pages.items())
        return [
            one for name, page in known if grant in (None, name) for one in pages.deliveries(name, page, self._host)
        ]

    async def expired(self, now: datetime, limit: int) -> Sequence[Delivery]:
        late = [one for one in await self.deliveries() if one.expires_at <= now]
        return sorted(late, key=lambda one: (one.expires_at, one.grant, one.location))[:limit]

    async def news(self, names: Collection[str]) -> Mapping[str, Grant | None]:
        return await self._binder.news(names)

    async def fleet(self, owner: str) -> Collection[str]:
        """Others are known by their leases alone: a beat would be a write of its own."""
        return {owner}

    # --- writing -----------------------------------------------------------------------------------------------

    async def enrol(self, grant: Grant) -> Grant:
        def alter(page: Page) -> Page | None:
            return None if page.record else replace(page, record=pages.record(grant)).raised(self._clock.now())

        page = await self._change(grant.name, alter)
        if page.version == 1:
            await self._binder.call(
                lambda client, path: kv2.keep_few(client, self._mount, path), binder.GRANTS, grant.name
            )
        return page.grant(grant.name) or grant

    async def lease(self, name: str, owner: str, moment: Moment, until: timedelta) -> tuple[Lease, Grant]:
        def alter(page: Page) -> Page:
            if not page.record:
                raise Overtaken(f"there is no stored grant {name}: it was retired or never enrolled")
            claim = page.claim
            if claim.owner not in ("", owner) and not self._binder.ran_out(name, claim, moment):
                raise Overtaken(f"{name} is leased to another daemon for {claim.span.total_seconds():g} s at most")
            return replace(page, claim=claim.next(owner, moment, until))

        # An exchange must not begin with what another has spent.
        page = await self._change(name, alter, fresh=True)
        grant = page.grant(name)
        assert grant is not None  # noqa: S101 (`alter` saw it)
        end = Moment(moment.now + until, moment.boot_id, moment.boottime + until)
        return Lease(name, owner, page.claim.fence, end), grant

    async def release(self, lease: Lease) -> None:
        def alter(page: Page) -> Page | None:
            return replace(page, claim=replace(page.claim, owner="")) if page.claim.is_of(lease) else None

        await self._change(lease.grant, alter)

    async def save(self, grant: Grant, *, expected: int, lease: Lease | None, now: datetime) -> None:
        name, text = grant.name, pages.record(grant)

        def alter(page: Page) -> Page | None:
            if page.record == text and self._unsure.get(name) == text:
                # Our own write, of which we never heard.
                return None
            if grant.generation == expected and lease is not None and not page.claim.is_of(lease):
                raise Overtaken(f"the lease of {name} is no longer ours: another daemon took over")
            stored = page.grant(name)
            records.admit(None if stored is None else (stored.lineage, stored.generation), grant, expected)
            return replace(page, record=text).raised(now)

        try:
            await self._change(name, alter)
        except Unavailable:
            self._unsure[name] = text
            raise
        self._unsure.pop(name, None)

    async def delivered(self, delivery: Delivery) -> None:
        now = self._clock.now()

        def alter(page: Page) -> Page:
            kept = pages.without_stale(page.deliveries, now - STALE)
            key = pages.delivery_key(self._host, delivery.location)
            return replace(page, deliveries={**kept, key: pages.write_delivery(delivery)}).raised(now)

        await self._change(delivery.grant, alter)

    async def forget(self, grant: str, location: str) -> None:
        key = pages.delivery_key(self._host, location)

        def alter(page: Page) -> Page | None:
            if key not in page.deliveries:
                return None
            left = {other: one for other, one in page.deliveries.items() if other != key}
            return replace(page, deliveries=left).raised(self._clock.now())

        await self._end_if_empty(grant, await self._change(grant, alter))

    async def retire(self, name: str) -> bool:
        was = False

        def alter(page: Page) -> Page | None:
            nonlocal was
            was = bool(page.record)
            gone = replace(page, record="", claim=replace(page.claim, owner=""))
            return gone.raised(self._clock.now()) if was else None

        await self._end_if_empty(name, await self._change(name, alter))
        return was

    async def _change(self, name: str, alter: Alter, *, fresh: bool = False) -> Page:
        if self._read_only:
            raise Unavailable(f"the state {self._binder.place} in Vault was opened for reading only")
        return await self._binder.change(name, alter, fresh=fresh)

    async def _end_if_empty(self, name: str, page: Page) -> None:
        """Delete a page that nobody needs any more, so that no token stands in an old version of it."""
        if page.version and page.is_empty:
            if page.at is not None:
                await self._raise_meta(page.at)
            await self._binder.end(name)

    # --- what belongs to no grant ------------------------------------------------------------------------------

    async def _read_or_make_meta(self) -> tuple[bytes, int | None]:
        found = await self._read_meta()
        if found is None and not self._read_only:
            names = ":".join(self._dice.name() for _ in range(3))
            # Where another daemon is first, his key counts.
            await self._write_meta(0, hashlib.sha256(names.encode()).digest(), None)
            found = await self._read_meta()
        if found is None:
            raise Unavailable(
                f"there is no state at {self._binder.place} in Vault yet", mend="start the daemon (`rotator run`)"
            )
        return found[1], found[2]

    async def _raise_meta(self, at: int) -> None:
        """Keep the high-water mark of what is deleted next."""
        for _ in range(binder.ROUNDS):
            found = await self._read_meta()
            if found is None:
                return
            version, key, known = found
            self._meta_at = known
            if known is not None and known >= at:
                return
            if await self._write_meta(version, key, at):
                self._meta_at = at
                return

    async def _read_meta(self) -> tuple[int, bytes, int | None] | None:
        """Version, key and high-water mark."""
        found = await self._binder.call(lambda client, path: kv2.read(client, self._mount, path), META)
        if found is None:
            return None
        version, data = found
        try:
            key = base64.b64decode(data["key"], validate=True)
            high_water = int(data["high_water"]) if data["high_water"] else None
            if len(key) != hashlib.sha256().digest_size:
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise StateDamaged(
                f"{self._binder.place}/{META} in Vault was not written by rotator, or was changed",
                mend="bring back an earlier version (`bao kv rollback`)",
            ) from None
        return version, key, high_water

    async def _write_meta(self, version: int, key: bytes, high_water: int | None) -> bool:
        data = {"key": base64.b64encode(key).decode(), "high_water": "" if high_water is None else str(high_water)}
        written = await self._binder.call(
            lambda client, path: kv2.write(client, self._mount, path, data, version), META
        )
        return written is not None


def _is_due(grant: Grant, now: datetime) -> bool:
    return grant.due_at is not None and grant.due_at <= now

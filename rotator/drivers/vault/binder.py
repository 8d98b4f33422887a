"""All pages of a state in Vault: read, changed by check-and-set, and kept in mind for the questions of the sweep."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from rotator.core.errors import Overtaken, RotatorError, Unavailable
from rotator.core.grants import Grant
from rotator.core.policy import Moment
from rotator.core.ports import Clock
from rotator.drivers.vault import kv2, pages, rights
from rotator.drivers.vault.client import Vault
from rotator.drivers.vault.pages import Claim, Page

if TYPE_CHECKING:
    import hvac

T = TypeVar("T")
Alter = Callable[[Page], Page | None]

GRANTS = "grants"
# Rivals at one entry: each round that is lost was won by another, whose work is done then.
ROUNDS = 16
# A look for news must not stand before a save for as long as a whole call may take.
LOOK_LIMIT = timedelta(seconds=2)
# Every grant is one read, and no more than so many of them in a second; a Vault that is away is asked less and less.
READS_A_SECOND = 100
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=0.5), timedelta(seconds=10)


class Binder:
    """The pages under ``mount``/``prefix``/grants. All calls come from one event loop.

    ``dial`` makes the login at each opening. What writes runs to its end whoever is cancelled, and in the order in
    which it was handed in for one grant. Raises what `Vault.call` raises, and StateDamaged.
    """

    def __init__(self, dial: Callable[[], Vault], mount: str, prefix: str, clock: Clock) -> None:
        self._dial = dial
        self._mount = mount
        self._prefix = prefix
        self._clock = clock
        self._mend = rights.mend(rights.of_state(mount, prefix))
        self._vault: Vault | None = None
        self.pages: dict[str, Page] = {}
        self.grants: dict[str, Grant] = {}
        self._is_loaded = False
        self._sights: dict[str, tuple[Claim, Moment]] = {}
        self._orders: dict[str, asyncio.Lock] = {}
        # Pages that a write may have changed without our hearing of it.
        self._stale: set[str] = set()
        self._running: set[asyncio.Task[Any]] = set()
        self._look_at: timedelta | None = None
        self._failures = 0

    @property
    def place(self) -> str:
        return f"{self._mount}/{self._prefix}"

    def open(self) -> None:
        """Nothing is sent before the first call."""
        self._vault = self._dial()

    async def close(self) -> None:
        while self._running:
            await asyncio.wait(self._running)
        vault, self._vault, self._is_loaded = self._vault, None, False
        for known in (self.pages, self.grants, self._sights):
            known.clear()
        if vault is not None:
            await vault.close()

    async def call(self, do: Callable[[hvac.Client, str], T], *parts: str, deadline: timedelta | None = None) -> T:
        """Run ``do`` with a client and the path of an entry."""
        path = "/".join((self._prefix, *parts))
        return await self._way().call(lambda client: do(client, path), deadline=deadline, mend=self._mend)

    # --- looking -----------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read every page, unless that was done since the opening."""
        self._way()
        if not self._is_loaded:
            await self.read_all()

    async def read_all(self) -> None:
        names = await self.call(lambda client, path: kv2.names(client, self._mount, path), GRANTS)
        await asyncio.gather(*(self.read(name) for name in {*names, *self.pages}))
        self._is_loaded = True

    async def read(self, name: str) -> Page:
        """The page as it stands now, behind every write handed in before."""
        async with self._order(name):
            return await self._fetch(name)

    async def news(self, names: Collection[str]) -> dict[str, Grant | None]:
        """See `ports.Store.news`. It keeps a pace of its own; a grant that is being written has no news."""
        moment = self._clock.moment()
        if self._vault is None or (self._look_at is not None and moment.boottime < self._look_at):
            return {}
        known = [name for name in names if name in self.pages and not self._order(name).locked()]
        pause = timedelta(seconds=len(known) / READS_A_SECOND)
        try:
            # Nobody else has a beat for this login. One that cannot be renewed now goes on while its lease lasts.
            with suppress(RotatorError):
                await self._vault.renew_if_short()
            looked = await asyncio.gather(*(self._look(name) for name in known))
        except RotatorError:
            self._failures += 1
            pause = max(pause, min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(self._failures, 10)))
            raise
        else:
            self._failures = 0
        finally:
            self._look_at = self._clock.moment().boottime + pause
        return {name: grant for name, found in zip(known, looked, strict=True) for grant in found}

    async def _look(self, name: str) -> list[Grant | None]:
        async with self._order(name):
            before = self.pages.get(name)
            page = await self._fetch(name, LOOK_LIMIT)
            is_new = before is not None and page.record != before.record
            return [page.grant(name)] if is_new else []

    def ran_out(self, name: str, claim: Claim, moment: Moment) -> bool:
        """Whether nobody may begin anything by this claim any more."""
        if claim.boot_id == moment.boot_id:
            return moment.boottime >= claim.until
        seen = self._sights.get(name)
        if seen is None or seen[0] != claim or seen[1].boot_id != moment.boot_id:
            return False
        return moment.boottime - seen[1].boottime >= claim.span

    # --- writing -----------------------------------------------------------------------------------------------

    async def change(self, name: str, alter: Alter, *, fresh: bool = False) -> Page:
        """Put what ``alter`` makes of a page in its place, and return it; None leaves what is there.

        What ``alter`` refuses (None, Overtaken) counts once it saw the page as it stands; with ``fresh`` it sees no
        other. Raises Unavailable where others never cease to write."""
        return await self._on_its_own(self._change(name, alter, fresh))

    async def _change(self, name: str, alter: Alter, fresh: bool) -> Page:
        async with self._order(name):
            known = None if fresh or name in self._stale else self.pages.get(name)
            for _ in range(ROUNDS):
                page = known or await self._fetch(name)
                try:
                    wanted = alter(page)
                except Overtaken:
                    if known is None:
                        raise
                    wanted = None
                if wanted is None and known is None:
                    return page
                known = None
                if wanted is not None and (written := await self._put(name, page, wanted)) is not None:
                    return written
        raise Unavailable(f"{self.place}/{GRANTS}/{name} in Vault is written by others without a pause")

    async def _put(self, name: str, page: Page, wanted: Page) -> Page | None:
        data = wanted.data()
        try:
            written = await self.call(
                lambda client, path: kv2.write(client, self._mount, path, data, page.version), GRANTS, name
            )
        except Unavailable:
            self._stale.add(name)
            raise
        if written is None:
            return None
        return self._note(name, replace(wanted, version=written))

    async def end(self, name: str) -> None:
        """Delete a page that is empty. KV v2 deletes without check-and-set: what is written meanwhile goes with it."""
        await self._on_its_own(self._end(name))

    async def _end(self, name: str) -> None:
        async with self._order(name):
            page = await self._fetch(name)
            if page.version and page.is_empty:
                await self.call(lambda client, path: kv2.delete(client, self._mount, path), GRANTS, name)
                self._note(name, Page())

    async def _on_its_own(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.get_running_loop().create_task(work)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    # --- pages -------------------------------------------------------------------------------------------------

    async def _fetch(self, name: str, deadline: timedelta | None = None) -> Page:
        found = await self.call(
            lambda client, path: kv2.read(client, self._mount, path), GRANTS, name, deadline=deadline
        )
        return self._note(name, Page() if found is None else pages.read(name, *found))

    def _note(self, name: str, page: Page) -> Page:
        """Keep in mind what stands there, and since when its claim was seen."""
        before = self.pages.get(name)
        # Most looks find what was there: it is not read again.
        if before is None or before.record != page.record:
            grant = page.grant(name)
            if grant is None:
                self.grants.pop(name, None)
            else:
                self.grants[name] = grant
        self._stale.discard(name)
        if page.version:
            self.pages[name] = page
        else:
            self.pages.pop(name, None)
        seen, moment = self._sights.get(name), self._clock.moment()
        if seen is None or seen[0] != page.claim or seen[1].boot_id != moment.boot_id:
            self._sights[name] = page.claim, moment
        return page

    def _order(self, name: str) -> asyncio.Lock:
        return self._orders.setdefault(name, asyncio.Lock())

    def _way(self) -> Vault:
        if self._vault is None:
            raise Unavailable(f"the state {self.place} in Vault is not open")
        return self._vault

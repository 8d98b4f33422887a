"""Grants that stand in Vault: looked for while the daemon runs, enrolled when they come, retired when they go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import datetime

from rotator import settings
from rotator.assembly import vaults
from rotator.assembly.plan import Plan
from rotator.core.errors import Misconfigured, RotatorError
from rotator.core.ports import Clock
from rotator.drivers.vault.client import Vault
from rotator.drivers.vault.directory import Directory
from rotator.engine import pacing
from rotator.settings import Grant, Settings, VaultPath


class Discovery:
    """``[discovery.vault]`` at work. ``tell`` hears of what a person must know, once for each reason; ``changed`` asks
    for a reload; ``retire`` deletes what is stored of a grant and what it published."""

    def __init__(
        self,
        plan: Plan,
        clock: Clock,
        tell: Callable[[str], None],
        changed: Callable[[], None],
        retire: Callable[[str], Awaitable[object]],
    ) -> None:
        self._plan = plan
        self._clock = clock
        self._tell = tell
        self._changed = changed
        self._retire = retire
        self._look_at: datetime | None = None
        self._told: dict[str, str] = {}
        self._gone: set[str] = set()
        self._former: list[Vault] = []
        self._directory: Directory | None = None
        self._vault: Vault | None = None
        self.grants: dict[str, Grant] = {}
        self._begin()

    def use(self, plan: Plan) -> None:
        """Work with this configuration from now on. What was found stays, while it is looked for at the same place."""
        before, self._plan = self._plan, plan
        if _ways(before) == _ways(plan):
            self._take(self._directory.entries if self._directory is not None else {}, quietly=True)
            return
        if self._vault is not None:
            self._former.append(self._vault)
        self._vault = self._directory = self._look_at = None
        self.grants, self._told = {}, {}
        self._begin()

    def _begin(self) -> None:
        rules = self._settings.discovery.vault
        if rules is not None:
            self._vault = vaults.of(rules.prefix.name, self._plan, self._clock)
            self._directory = Directory(self._vault, rules.prefix.mount, rules.prefix.path)

    async def tend(self, enrolled: Mapping[str, object]) -> None:
        """For every beat of the sweep; it looks every ``verify_every``. A Vault that is away changes nothing.

        ``enrolled`` are the grants at work: one that went is retired once it is none of them any more."""
        for name in sorted(self._gone - enrolled.keys()):
            self._gone.discard(name)
            try:
                await self._retire(name)
            except RotatorError as error:
                self._once(name, f"{name} is gone from {self._named}, but not retired: {error}")
        while self._former:
            await self._former.pop().close()
        if self._vault is None or self._directory is None:
            return
        now, every = self._clock.now(), self._settings.timing.verify_every
        if self._look_at is not None and self._look_at - every <= now < self._look_at:
            return
        self._look_at = now + every - pacing.ahead(every)
        try:
            with suppress(RotatorError):
                await self._vault.renew_if_short()
            changed = await self._directory.look()
        except RotatorError as error:
            self._once("", f"{self._named} was not looked at; what was found there stays: {error}")
            return
        self._told.pop("", None)
        if changed:
            self._take(self._directory.entries)

    def _take(self, entries: Mapping[str, Mapping[str, object]], *, quietly: bool = False) -> None:
        found: dict[str, Grant] = {}
        rules = self._settings.discovery.vault
        if rules is None:
            return
        place = rules.prefix
        for name, fields in entries.items():
            entry = VaultPath(place.name, place.mount, f"{place.path}/{name}")
            try:
                if name in self._settings.grants:
                    raise Misconfigured(f"{entry}: the configuration has a grant of that name, which counts")
                found[name] = settings.discovered.grant(self._settings, name, fields, entry)
            except Misconfigured as error:
                self._once(name, str(error))
                if name in self.grants:
                    # It was good before: it goes on as it was until it is mended or removed.
                    found[name] = self.grants[name]
            else:
                self._told.pop(name, None)
        gone = self.grants.keys() - found.keys()
        if found != self.grants:
            self.grants = found
            self._gone = (self._gone | gone) - found.keys()
            if not quietly:
                self._changed()

    @property
    def _named(self) -> str:
        rules = self._settings.discovery.vault
        return "" if rules is None else f"{rules.prefix.mount}/{rules.prefix.path} of Vault {rules.prefix.name}"

    @property
    def _settings(self) -> Settings:
        return self._plan.settings

    def _once(self, about: str, text: str) -> None:
        if self._told.get(about) != text:
            self._told[about] = text
            self._tell(text)

    async def close(self) -> None:
        for vault in (*self._former, self._vault):
            if vault is not None:
                await vault.close()


def _ways(plan: Plan) -> object:
    rules = plan.settings.discovery.vault
    return None if rules is None else (rules.prefix, plan.settings.vault[rules.prefix.name])

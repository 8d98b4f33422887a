"""What is read from files beside the configuration, watched: a mended secret counts at once, not at the next regular
look, and so does a drop-in that comes, changes or goes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from rotator import settings
from rotator.assembly import roster
from rotator.assembly.plan import Plan
from rotator.core.errors import Misconfigured
from rotator.drivers import secrets, watch

# The link that a kubelet swaps to replace a whole volume: no file of it is touched by its own name.
SWAPPED = "..data"


# Seconds without a change after which a drop-in counts as written: whoever writes it in place does so in pieces.
REST = 0.1


class Inputs:
    """A face of the daemon: calls ``changed`` after a file with a secret was written, replaced or swapped, and
    ``reload`` after a drop-in was, once none has been touched for a moment."""

    def __init__(self, plan: Plan, changed: Callable[[], None], reload: Callable[[], None]) -> None:
        self._plan = plan
        self._changed = changed
        self._reload = reload
        self._watcher: watch.InotifyWatcher | None = None
        self._resting: asyncio.TimerHandle | None = None

    def use(self, plan: Plan) -> None:
        """Watch what another reading of the configuration names."""
        self._plan = plan
        self._watch()

    async def start(self) -> None:
        self._watcher = watch.InotifyWatcher()
        self._watcher.begin()
        self._watch()
        # What changed between its first reading and now has told nobody.
        self._changed()

    async def close(self) -> None:
        self._rest()
        if self._watcher is not None:
            self._watcher.close()

    def _watch(self) -> None:
        if self._watcher is None:
            return
        places: set[Path] = set()
        for reference in roster.references(self._plan):
            try:
                path = secrets.path(reference, self._plan.environ)
            except Misconfigured:
                continue
            if path is not None:
                places |= {Path(path).absolute(), Path(path).absolute().with_name(SWAPPED)}
        calls = {f"file:{place}": self._changed for place in places}
        if (file := self._plan.loaded.path) is not None:
            calls[f"file:{file.absolute().parent / settings.DROP_INS / watch.ANY}"] = self._touched
        self._watcher.watch(calls)

    def _touched(self) -> None:
        self._rest()
        self._resting = asyncio.get_running_loop().call_later(REST, self._reload)

    def _rest(self) -> None:
        if self._resting is not None:
            self._resting.cancel()

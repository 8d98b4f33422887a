"""Secrets in files, watched: a mended one counts at once, not at the next regular look."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rotator.assembly import roster
from rotator.assembly.plan import Plan
from rotator.core.errors import Misconfigured
from rotator.drivers import secrets, watch

# The link that a kubelet swaps to replace a whole volume: no file of it is touched by its own name.
SWAPPED = "..data"


class Inputs:
    """A face of the daemon: calls ``changed`` after a file with a secret was written, replaced or swapped."""

    def __init__(self, plan: Plan, changed: Callable[[], None]) -> None:
        self._plan = plan
        self._changed = changed
        self._watcher: watch.InotifyWatcher | None = None

    def use(self, plan: Plan) -> None:
        """Watch what another reading of the configuration names."""
        self._plan = plan
        self._watch()

    async def start(self) -> None:
        self._watcher = watch.InotifyWatcher()
        self._watch()
        # What changed between its first reading and now has told nobody.
        self._changed()

    async def close(self) -> None:
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
        self._watcher.watch({f"file:{place}": self._changed for place in places})

"""What counts from a start to its end, whatever a reload reads: it is told that a restart is needed."""

from __future__ import annotations

from collections.abc import Callable

from rotator.settings import Settings

# Of these the daemon is built; providers, grants, Vaults, discovery and the cluster are read anew.
SECTIONS = ("state", "startup", "log", "traces", "timing", "readiness", "http", "metrics")


class Lasting:
    """The sections that a reload does not change, as they were at the start. ``tell`` hears of each change once, and of
    no value."""

    def __init__(self, settings: Settings, tell: Callable[[str], None]) -> None:
        self._began = self._read = _sections(settings)
        self._tell = tell

    def use(self, settings: Settings) -> None:
        """The configuration was read anew."""
        before, self._read = self._read, _sections(settings)
        waiting = [f"[{name}]" for name in SECTIONS if self._read[name] != self._began[name]]
        if waiting and self._read != before:
            self._tell(f"what changed in {', '.join(waiting)} counts from the next start only; restart rotator")


def _sections(settings: Settings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in SECTIONS}

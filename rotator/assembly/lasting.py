"""What counts from a start to its end, whatever a reload reads: it is told that a restart is needed."""

from __future__ import annotations

from rotator.settings import Settings

# Of these the daemon is built; providers, grants, Vaults, discovery and the cluster are read anew.
SECTIONS = ("state", "startup", "log", "traces", "timing", "readiness", "http", "metrics")


class Lasting:
    """The sections that a reload does not change, as they were at the start."""

    def __init__(self, settings: Settings) -> None:
        self._began = self._read = _sections(settings)

    def warning(self, settings: Settings) -> str | None:
        """What a person must know of this reading of the configuration, once for each change. No value is in it."""
        before, self._read = self._read, _sections(settings)
        waiting = [f"[{name}]" for name in SECTIONS if self._read[name] != self._began[name]]
        if self._read == before or not waiting:
            return None
        return f"what changed in {', '.join(waiting)} counts from the next start only; restart rotator"


def _sections(settings: Settings) -> dict[str, object]:
    return {name: getattr(settings, name) for name in SECTIONS}

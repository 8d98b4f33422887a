"""The way to the running daemon, for commands that look often: without reading the configuration where it can be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rotator.core.errors import Misconfigured
from rotator.frontends.control import Client

if TYPE_CHECKING:
    from rotator.assembly import Plan


def client(config: Path | None, environ: Mapping[str, str], plan: Plan | None = None) -> Client:
    """``plan``: where it was read already. Raises Misconfigured where the configuration has to be read and is bad, and
    no daemon goes on all the same."""
    found = nearest(environ) if config is None else None
    if found is not None:
        return found
    # Where the state lies is for the configuration to say; reading that costs a quarter of a second.
    from rotator import assembly

    try:
        return assembly.client(plan or assembly.read(config, environ, check=False))
    except Misconfigured:
        # Somebody may be editing it, or a drop-in: the daemon works by what was good before.
        found = assembly.client(assembly.locate(config, environ))
        if not found.answers():
            raise
        return found


def nearest(environ: Mapping[str, str]) -> Client | None:
    """The daemon of this container or unit: the one socket in a private folder below what the environment names."""
    below = [Path(environ[name]) for name in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY") if environ.get(name)]
    found = [socket for folder in below for socket in folder.glob("*/control")]
    return Client(found[0]) if len(found) == 1 else None

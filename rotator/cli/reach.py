"""The way to the running daemon, for commands that look often: without reading the configuration where it can be."""

from __future__ import annotations

import functools
import sys
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
    except Misconfigured as error:
        # Somebody may be editing it, or a drop-in: the daemon works by what was good before.
        found = _going_on(config, environ)
        if found is None:
            raise
        _warn(error.what)
        return found


def _going_on(config: Path | None, environ: Mapping[str, str]) -> Client | None:
    """The daemon of a configuration that is bad: where it says that its state is, or where it would be unsaid."""
    from rotator import assembly

    try:
        found = [assembly.client(assembly.locate(config, environ))]
    except Misconfigured:
        found = [Client(socket) for folder in assembly.folders(config, environ) for socket in folder.glob("*/control")]
        found = [client for client in found if client.answers()]
    return found[0] if len(found) == 1 and found[0].answers() else None


@functools.cache
def _warn(what: str) -> None:
    """Once, however often a command looks."""
    first, *more = what.splitlines()
    rest = f" (and {len(more)} more)" if more else ""
    print(
        f"rotator: warning: {first}{rest}; the daemon goes on with the configuration of before, and a restart would "
        "fail: see `rotator check`",
        file=sys.stderr,
    )


def nearest(environ: Mapping[str, str]) -> Client | None:
    """The daemon of this container or unit: the one socket in a private folder below what the environment names."""
    below = [Path(environ[name]) for name in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY") if environ.get(name)]
    found = [socket for folder in below for socket in folder.glob("*/control")]
    return Client(found[0]) if len(found) == 1 else None

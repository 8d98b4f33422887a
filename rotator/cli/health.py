"""`rotator health`: the word of probes. Runs every few seconds beside a small daemon, so it loads next to nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rotator.core.errors import Unavailable
from rotator.frontends.control import Client


def health(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """0 where the daemon is ready as /readyz means it (--live: alive as /livez, --started: started as /startupz), else
    69."""
    client = _nearest(environ) if arguments.config is None else None
    if client is None:
        # Where the state lies is for the configuration to say; reading that costs a quarter of a second.
        from rotator import assembly

        client = assembly.client(assembly.read(arguments.config, environ, check=False))
    document = client.health()
    asked = "alive" if arguments.live else "started" if arguments.started else "ready"
    passed = bool(document[asked])
    print(f"{asked if passed else f'not {asked}'}: {document['line']}", file=sys.stderr)
    if asked == "ready" and not passed:
        for line in _unready(document["grants"]):
            print(line, file=sys.stderr)
    return 0 if passed else Unavailable.exit_code


def _unready(grants: Mapping[str, Any]) -> list[str]:
    """In the words of /readyz; a screen full of them at most."""
    lines = [f"[-]{name} failed: {grant['unready']}" for name, grant in sorted(grants.items()) if grant["unready"]]
    return lines if len(lines) <= 20 else [*lines[:20], f"and {len(lines) - 20} more"]


def _nearest(environ: Mapping[str, str]) -> Client | None:
    """The daemon of this container or unit: the one socket in a private folder below what the environment names."""
    below = [Path(environ[name]) for name in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY") if environ.get(name)]
    found = [socket for folder in below for socket in folder.glob("*/control")]
    return Client(found[0]) if len(found) == 1 else None

"""`rotator health`: the word of probes. Runs every few seconds beside a small daemon, so it loads next to nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from rotator.core.errors import Unavailable
from rotator.frontends.control import Client


def health(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """0 where every grant is published (with --live: where the daemon answers), else 69."""
    client = _nearest(environ) if arguments.config is None else None
    if client is None:
        # Where the state lies is for the configuration to say; reading that costs a quarter of a second.
        from rotator import assembly

        client = assembly.client(assembly.read(arguments.config, environ, check=False))
    document = client.health()
    grants = document["grants"]
    published = sum(bool(grant["published"]) for grant in grants.values())
    print(f"{published}/{len(grants)} grants published", file=sys.stderr)
    return 0 if arguments.live or document["published"] else Unavailable.exit_code


def _nearest(environ: Mapping[str, str]) -> Client | None:
    """The daemon of this container or unit: the one socket in a private folder below what the environment names."""
    below = [Path(environ[name]) for name in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY") if environ.get(name)]
    found = [socket for folder in below for socket in folder.glob("*/control")]
    return Client(found[0]) if len(found) == 1 else None

"""`rotator health`: the word of probes. Runs every few seconds beside a small daemon, so it loads next to nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from rotator.cli import reach
from rotator.core.errors import Unavailable


def health(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """0 where the daemon is ready as /readyz means it (--live: alive as /livez, --started: started as /startupz), else
    69."""
    document = reach.client(arguments.config, environ).health()
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

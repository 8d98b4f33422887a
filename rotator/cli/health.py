"""`rotator health`: the word of probes. Runs every few seconds beside a small daemon, so it loads next to nothing."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

from rotator.cli import reach
from rotator.core.errors import Unavailable


def health(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """0 where every grant is published (with --live: where the daemon answers), else 69."""
    document = reach.client(arguments.config, environ).health()
    grants = document["grants"]
    published = sum(bool(grant["published"]) for grant in grants.values())
    print(f"{published}/{len(grants)} grants published", file=sys.stderr)
    return 0 if arguments.live or document["published"] else Unavailable.exit_code

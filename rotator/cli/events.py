"""`rotator events`: what the daemon told of late, and what it tells from now on."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from rotator.cli import reach, screen


def events(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """0 at the end of what is remembered, with --follow once the daemon has ended; 69 where it was cut off."""
    since = None if arguments.since is None else _before(arguments.since)
    client = reach.client(arguments.config, environ)
    show = json.dumps if arguments.json else _sentences(arguments, environ)
    screen.end_as_asked()
    told = client.events(follow=arguments.follow, grant=arguments.grant, level=arguments.level, since=since)
    for document in told:
        print(show(document), flush=arguments.follow)
    if arguments.follow:
        print("rotator: the daemon has ended", file=sys.stderr)
    return 0


def _before(text: str) -> str:
    from rotator import assembly
    from rotator.core import telling
    from rotator.drivers.clock import SystemClock

    return telling.stamp(SystemClock().now() - assembly.span(text, "--since"))


def _sentences(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Callable[[dict[str, Any]], str]:
    """The lines of the log as a person reads them."""
    from rotator.core.events import Level
    from rotator.frontends.telemetry import forms

    colour = screen.is_drawable(sys.stdout, environ) and screen.is_colourful(arguments, environ)
    render = forms.renderer(forms.Form.TEXT, colour)

    def show(document: dict[str, Any]) -> str:
        head = {"time", "level", "event", "message"}
        fields = {key: value for key, value in document.items() if key not in head}
        level = Level[document["level"].upper()]
        at = datetime.fromisoformat(document["time"])
        return render(level, document["event"], document["message"], at, fields)

    return show

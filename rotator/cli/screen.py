"""What the surroundings of a command can show: a terminal, colours, and how a command that draws is ended."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn, TextIO


def is_drawable(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether ``stream`` is a terminal that understands more than lines."""
    return stream.isatty() and environ.get("TERM") not in ("dumb", "unknown", "")


def is_colourful(arguments: argparse.Namespace, environ: Mapping[str, str]) -> bool:
    """Whether a person who looks at a terminal has not declined (no-color.org)."""
    return not environ.get("NO_COLOR") and not arguments.no_color


def end_as_asked() -> None:
    """Let SIGTERM end a command in good order with 143: what was drawn is left as it should be."""

    def end(number: int, frame: object) -> NoReturn:
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)


def progress(environ: Mapping[str, str], stream: TextIO | None = None) -> Callable[[str], None]:
    """Shows how far long work has come in one line that is written over; an empty text takes it away. Only on a
    terminal, and on stderr: nothing of it in a pipe."""
    stream = stream or sys.stderr
    if not is_drawable(stream, environ):
        return lambda text: None
    shown = 0

    def show(text: str) -> None:
        nonlocal shown
        if not text and not shown:
            return
        stream.write("\r" + text.ljust(shown) + ("" if text else "\r"))
        stream.flush()
        shown = len(text)

    return show

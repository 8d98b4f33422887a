"""How a line looks: text for a person, json and logfmt for machines, and the journal's own prefix.

What goes in is made harmless first: a Secret is its mask, and a control character in what a provider answered is
escaped, so that it can neither forge a line nor move a cursor. Written by hand: these are forty lines, and structlog
loads rich wherever that is installed, 80 ms and 7 MB of every daemon.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TextIO

from rotator.core.events import Level
from rotator.core.tokens import MASK, Secret

# The journal cuts a line at 48 KiB (LineMax= of journald.conf(5)); no value may fill one alone.
LONGEST_VALUE = 8000

Fields = dict[str, Any]
Render = Callable[[Level, str, str, datetime, Fields], str]


class Form(StrEnum):
    """How a line looks. ``auto`` is for `choose` alone."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"
    LOGFMT = "logfmt"
    JOURNAL = "journal"


def level(word: str) -> Level:
    """``debug``, ``info``, ``notice``, ``warning``, ``error`` or ``critical``. Raises ValueError for another word."""
    try:
        return Level[word.upper()]
    except KeyError:
        raise ValueError(f"{word!r} is not a level; known: {', '.join(one.name.lower() for one in Level)}") from None


def choose(form: str, stream: TextIO, environ: Mapping[str, str]) -> Form:
    """Settle ``auto``: journal where ``stream`` is the journal's, else json off a terminal, else text.

    Raises ValueError for a word that is no form.
    """
    chosen = Form(form)
    if chosen is not Form.AUTO:
        return chosen
    if is_journal(stream, environ):
        return Form.JOURNAL
    return Form.TEXT if stream.isatty() else Form.JSON


def is_journal(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether ``JOURNAL_STREAM`` names this very stream; it is inherited, so its presence says nothing
    (systemd.exec(5))."""
    try:
        there = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return environ.get("JOURNAL_STREAM") == f"{there.st_dev}:{there.st_ino}"


def is_colourful(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Colour is for a terminal that can show it and a person who did not decline (no-color.org)."""
    return stream.isatty() and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"


# What a journal line repeats of its fields behind the sentence, for grep; the sentence tells the rest.
IN_JOURNAL = ("grant", "target", "generation", "expires_at", "repeated", "logger", "exception")
IN_TEXT = ("repeated", "logger", "exception")


# Colours of a line on a terminal by what it takes: red for a person now, yellow for a person soon (ECMA-48, SGR).
RED, GREEN, YELLOW, BOLD, DIM, PLAIN = ("\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[1m", "\x1b[2m", "\x1b[0m")
COLOURS = {Level.CRITICAL: RED, Level.ERROR: RED, Level.WARNING: YELLOW, Level.DEBUG: DIM}
WIDEST_LEVEL = max(len(one.name) for one in Level)


def renderer(form: Form, colour: bool) -> Render:
    """How a line of this form is written; ``colour`` is for text alone."""
    if form is Form.JOURNAL:
        return _journal
    if form is Form.TEXT:
        return _coloured if colour else _text
    return _json if form is Form.JSON else _logfmt


def _journal(level: Level, name: str, message: str, at: datetime, fields: Fields) -> str:
    return f"<{level.value}>{escaped(message)} {_pairs({'event': name, **_only(fields, IN_JOURNAL)})}"


def _json(level: Level, name: str, message: str, at: datetime, fields: Fields) -> str:
    line = {"time": stamp(at), "level": level.name.lower(), "event": name, "message": message, **fields}
    return json.dumps(line)


def _logfmt(level: Level, name: str, message: str, at: datetime, fields: Fields) -> str:
    head = {"time": stamp(at), "level": level.name.lower(), "event": name, "message": escaped(message)}
    return _pairs({**head, **{key: _flat(value) for key, value in fields.items()}})


def _text(level: Level, name: str, message: str, at: datetime, fields: Fields) -> str:
    pairs = _pairs({"event": name, **_only(fields, IN_TEXT)})
    return f"{stamp(at)} {level.name.lower():{WIDEST_LEVEL}} {escaped(message)} {pairs}"


def _coloured(level: Level, name: str, message: str, at: datetime, fields: Fields) -> str:
    word = f"{COLOURS.get(level, GREEN)}{level.name.lower():{WIDEST_LEVEL}}{PLAIN}"
    pairs = _pairs({"event": name, **_only(fields, IN_TEXT)})
    return f"{DIM}{stamp(at)}{PLAIN} {word} {BOLD}{escaped(message)}{PLAIN} {DIM}{pairs}{PLAIN}"


def _pairs(fields: Fields) -> str:
    """``key=value`` as logfmt has it: quoted where a reader could not tell where the value ends."""
    return " ".join(f"{key}={_quoted(value)}" for key, value in fields.items())


def _quoted(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    if text and not any(letter in text for letter in ' "='):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def stamp(at: datetime) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return (at if at.tzinfo is UTC else at.astimezone(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def plain(value: Any) -> Any:
    """A value as JSON knows it; whatever could hide a secret or fill a line is cut down."""
    if type(value) is int or (type(value) is str and len(value) <= LONGEST_VALUE):
        return value
    match value:
        case Secret():
            return MASK
        case bool() | int() | float():
            return value
        case datetime():
            return stamp(value)
        case timedelta():
            return value.total_seconds()
        case tuple() | list():
            return [plain(one) for one in value]
    text = str(value)
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def _flat(value: Any) -> Any:
    if isinstance(value, list):
        return ",".join(str(_flat(one)) for one in value)
    return escaped(value) if isinstance(value, str) else value


def _only(fields: Fields, names: tuple[str, ...]) -> Fields:
    return {name: _flat(fields[name]) for name in names if name in fields}


def escaped(text: str) -> str:
    """Printable and on one line: what a provider wrote can neither forge a line nor move a cursor."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )

"""How a line looks: text for a person, json and logfmt for machines, and the journal's own prefix.

structlog renders; what goes in is made harmless first: a Secret is its mask, and a control character in what a
provider answered is escaped, so that it can neither forge a line nor move a cursor.
"""

from __future__ import annotations

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


def renderer(form: Form, colour: bool) -> Render:
    """One of structlog's renderers, made at the first line: with rich behind it it loads 100 ms of modules."""
    made: list[Callable[[Any, str, Fields], Any]] = []

    def render(level: Level, name: str, message: str, at: datetime, fields: Fields) -> str:
        if not made:
            made.append(_structlog(form, colour))
        word = level.name.lower()
        if form is Form.JOURNAL:
            line = made[0](None, "", {"event": name, **_only(fields, IN_JOURNAL)})
            return f"<{level.value}>{_escaped(message)} {line}"
        if form is Form.TEXT:
            shown = {"time": stamp(at), "level": word, "message": _escaped(message), "event": name}
            return str(made[0](None, "", {**shown, **_only(fields, IN_TEXT)}))
        if form is Form.LOGFMT:
            message, fields = _escaped(message), {key: _flat(value) for key, value in fields.items()}
        return str(made[0](None, "", {"time": stamp(at), "level": word, "event": name, "message": message, **fields}))

    return render


def _structlog(form: Form, colour: bool) -> Callable[[Any, str, Fields], Any]:
    # Imported late because of its price, see above.
    import structlog

    if form is Form.JSON:
        return structlog.processors.JSONRenderer()
    if form is not Form.TEXT:
        return structlog.processors.LogfmtRenderer(bool_as_flag=False)
    known = structlog.dev.ConsoleRenderer.get_default_level_styles(colour)
    words = [one.name.lower() for one in Level]
    styles = {word: known.get(word, known["info"]) for word in words}
    return structlog.dev.ConsoleRenderer(
        colors=colour, level_styles=styles, sort_keys=False, pad_event_to=0, event_key="message", timestamp_key="time"
    )


def stamp(at: datetime) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def plain(value: Any) -> Any:
    """A value as JSON knows it; whatever could hide a secret or fill a line is cut down."""
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
    return _escaped(value) if isinstance(value, str) else value


def _only(fields: Fields, names: tuple[str, ...]) -> Fields:
    return {name: _flat(fields[name]) for name in names if name in fields}


def _escaped(text: str) -> str:
    """Printable and on one line: what a provider wrote can neither forge a line nor move a cursor."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )

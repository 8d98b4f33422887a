"""An event as data: what a log line, the journal, the control socket and a trace show of it, the same everywhere.

What goes out is made harmless here: a Secret is its mask, what looks like a credential is taken out of every text
(events carry none; this is the fence behind that), and a value is cut before it fills a line.
"""

from __future__ import annotations

import dataclasses
import re
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from rotator.core.events import Event, Level
from rotator.core.tokens import MASK, Secret

# The journal cuts a line at 48 KiB (LineMax= of journald.conf(5)); no value may fill one alone.
LONGEST_VALUE = 8000

# html.escape does the same, but brings the names of 2 231 characters along: a third of a megabyte for ever.
_MARKUP = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})

Fields = dict[str, Any]


def fields(event: Event) -> Fields:
    """The values of an event but its time, as they are, by the names that every log has for them."""
    return {shown: getattr(event, name) for name, shown in _names(type(event))}  # type: ignore[arg-type]


@cache
def _names(kind: type[Event]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (field.name, "outcome" if field.name == "cls" else field.name)
        for field in dataclasses.fields(kind)
        if field.name != "at"
    )


def document(event: Event) -> Fields:
    """An event as JSON-ready data: ``time``, ``level``, ``event``, ``message``, and its fields. What is None is left
    out."""
    return entry(event.level, event.name, plain(event.sentence), event.at, shown(fields(event)))


def entry(level: Level, name: str, message: str, at: datetime, shown: Fields) -> Fields:
    """The one form of a line in JSON, of values that are `plain` already."""
    return {"time": stamp(at), "level": level.name.lower(), "event": name, "message": message, **shown}


def shown(raw: Fields) -> Fields:
    """Values as JSON knows them, without those that are None."""
    return {key: plain(value) for key, value in raw.items() if value is not None}


def plain(value: Any) -> Any:
    """A value as JSON knows it; whatever could hide a secret or fill a line is cut down."""
    # By its very type first: nearly every value is a word.
    if type(value) is not str:
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
        value = str(value)
    # Cut twice: what is boundless is not searched, and what was searched is not cut within a credential.
    text = redact(value[: 2 * LONGEST_VALUE])
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def stamp(at: datetime) -> str:
    """RFC 3339 in UTC with milliseconds."""
    return (at if at.tzinfo is UTC else at.astimezone(UTC)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def markup(text: str) -> str:
    """The text as it stands in HTML, between quotes too."""
    return text.translate(_MARKUP)


def escaped(text: str) -> str:
    """Printable and on one line: what a provider wrote can neither forge a line nor move a cursor."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode("ascii") for letter in text
    )


@cache
def _credentials() -> tuple[tuple[tuple[str, ...], re.Pattern[str], str], ...]:
    """What can only be a credential: words that must be there for it, in lower case (looked for first, for nearly every
    line has none), what it looks like, and what stands there instead. Compiled with the first line that has one.

    Strict, for it reads our own sentences too: `grants.a.password: the file is missing` has none.
    """
    names = "access_token|refresh_token|id_token|client_secret|client_assertion|password|secret_id|authorization|cookie"
    return (
        # The user of a URL, and its query.
        (("://", "@"), re.compile(r"(?<=://)[^\s/@'\"]+(?=@)"), MASK),
        (("://", "?"), re.compile(r"(https?://[^\s?'\"]*\?)[^\s'\"]+"), rf"\1{MASK}"),
        # Values of Authorization (RFC 9110 section 11.4): no word of prose is that long and has a digit.
        (("bearer ",), re.compile(r"\b(bearer)\s+(?=[\w.~+/=-]*\d)[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1 {MASK}"),
        (("basic ",), re.compile(r"\b(basic)\s+(?=[\w.~+/=-]*\d)[\w.~+/=-]{8,}", re.IGNORECASE), rf"\1 {MASK}"),
        # Parameters by name, as a form or as JSON has them.
        (("=",), re.compile(rf"\b({names})=(?![\s&])[^\s&,;)}}\]\"']+", re.IGNORECASE), rf"\1={MASK}"),
        ((":", '"'), _quoted(names, '"'), rf"\1{MASK}"),
        ((":", "'"), _quoted(names, "'"), rf"\1{MASK}"),
        # Tokens by their shape: JWT (RFC 7519), Vault and OpenBao.
        (("eyj", "."), re.compile(r"\beyJ[\w-]{8,}\.[\w-]{4,}\.[\w-]*", re.ASCII), MASK),
        (("hv", "."), re.compile(r"\bhv[sbr]\.[\w-]{20,}", re.ASCII), MASK),
        (("s.",), re.compile(r"\bs\.[\w-]{20,}", re.ASCII), MASK),
    )


# Opaque ones, as OAuth servers make them: longer than any name, word or id of ours, with letters and digits.
OPAQUE = 48


@cache
def _opaque() -> re.Pattern[str]:
    return re.compile(
        rf"(?<![\w~+.-])(?=[a-zA-Z_~+-]*\d)(?=[\d_~+-]*[a-zA-Z])[\w~+-]{{{OPAQUE},}}=*", re.ASCII
    )  # fmt: skip


def _quoted(names: str, quote: str) -> re.Pattern[str]:
    return re.compile(rf"({quote}(?:{names}){quote}\s*:\s*){quote}[^{quote}]*{quote}", re.IGNORECASE)


def redact(text: str) -> str:
    """``text`` without what looks like a credential."""
    # This is asked of every word of every line, and nearly every one is a name.
    if len(text) < OPAQUE and text.isidentifier():
        return text
    lower = text.lower()
    if (
        "=" in lower or '"' in lower or "'" in lower or "://" in lower or "s." in lower
        or "hv" in lower or "eyj" in lower or "bearer " in lower or "basic " in lower
    ):  # fmt: skip
        for needed, pattern, instead in _credentials():
            if all(mark in lower for mark in needed):
                text = pattern.sub(instead, text)
    if len(text) >= OPAQUE and max(map(len, text.split()), default=0) >= OPAQUE:
        text = _opaque().sub(MASK, text)
    return text

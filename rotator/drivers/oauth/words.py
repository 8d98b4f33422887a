"""Text of the far end, made fit for a log line and a terminal: no secret, no control character, no essay."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

from rotator.core import telling
from rotator.core.tokens import MASK

CODE = re.compile(r"[A-Za-z0-9_.:/-]{1,64}")
LONGEST = 200
# A server that quotes only a part of a token still gives it away; shorter runs are met in plain prose as well.
TELLING = 16
# No secret is that long; whoever sends a longer one gets no word shown, which is cheaper than to look for it.
LONGEST_SECRET = 1 << 16
# Enough for what is shown, and a bound on the work that a megabyte of text can cause.
LOOKED_AT = 4096


def shown(text: str, hide: Iterable[str], longest: int = LONGEST) -> str:
    """``text`` with ``hide`` and what looks like any other token masked (the provider may quote one that it issued
    before), unprintable characters and quotes escaped, cut to ``longest`` characters.

    Masked before it is escaped and cut: either would hide the secret from the search, not from the reader.
    """
    told = telling.redact(_masked(text[:LOOKED_AT], hide))
    escaped = "".join(_plain(character) for character in told)
    return escaped if len(escaped) <= longest else f"{escaped[: longest - 1]}…"


def code(text: str, hide: Iterable[str]) -> str | None:
    """An ``error`` code as it may be shown, None where it does not look like one or holds a secret."""
    return text if CODE.fullmatch(text) and telling.redact(_masked(text, hide)) == text else None


def _plain(character: str) -> str:
    if character.isprintable() and character not in "\"'\\":
        return character
    return f"\\{character}" if character in "\"'\\" else character.encode("unicode_escape").decode("ascii")


def _masked(text: str, hide: Iterable[str]) -> str:
    hide = tuple(hide)
    if any(len(secret) > LONGEST_SECRET for secret in hide):
        return MASK
    covered = bytearray(len(text))
    for secret in hide:
        for form in _forms(secret):
            size = min(TELLING, len(form))
            runs = {form[start : start + size] for start in range(len(form) - size + 1)}
            for start in range(len(text) - size + 1):
                if text[start : start + size] in runs:
                    covered[start : start + size] = b"\1" * size
    pieces: list[str] = []
    for index, character in enumerate(text):
        if not covered[index]:
            pieces.append(character)
        elif not index or not covered[index - 1]:
            pieces.append(MASK)
    return "".join(pieces)


def _forms(secret: str) -> set[str]:
    """The secret as it may come back: as it is, URL-encoded, in JSON, in HTML."""
    if not secret:
        return set()
    forms = {secret, telling.markup(secret), json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    encoded = {quote_plus(secret, errors="surrogatepass"), quote(secret, safe="", errors="surrogatepass")}
    return forms | encoded | {form.lower() for form in encoded if "%" in form}

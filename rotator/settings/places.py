"""On which line of a TOML text a key stands. Good enough to point with; tomllib stays the judge of the text."""

from __future__ import annotations

import re

from rotator.settings.shape import Path

_PART = r"""(?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')"""
_KEY = rf"{_PART}(?:[ \t]*\.[ \t]*{_PART})*"
_HEADER = re.compile(rf"[ \t]*\[\[?[ \t]*({_KEY})[ \t]*\]")
_ASSIGNMENT = re.compile(rf"[ \t]*({_KEY})[ \t]*=(.*)")
_FENCE = re.compile('"""|' + "'''")
_PARTS = re.compile(_PART)


def lines(text: str) -> dict[Path, int]:
    """The line of every table and key, counted from 1. Keys of an inline table stand where that table begins.

    A table that only its children name gets the line of the first of them."""
    found: dict[Path, int] = {}
    implied: dict[Path, int] = {}
    table: Path = ()
    fence = ""
    for number, line in enumerate(text.split("\n"), start=1):
        if fence:
            fence = "" if fence in line else fence
            continue
        if header := _HEADER.match(line):
            table = _path(header[1])
            path = table
        elif assignment := _ASSIGNMENT.match(line):
            path = table + _path(assignment[1])
            fence = _opened(assignment[2])
        else:
            continue
        found.setdefault(path, number)
        for end in range(1, len(path)):
            implied.setdefault(path[:end], number)
    return implied | found


def _path(key: str) -> Path:
    return tuple(part.strip("\"'") for part in _PARTS.findall(key))


def _opened(value: str) -> str:
    """The fence of a multi-line string that begins here and does not end here."""
    fences: list[str] = _FENCE.findall(value)
    return fences[0] if fences and fences.count(fences[0]) % 2 else ""

"""A secret that is handed over on the command line's way: from a file or stdin, never as an argument."""

from __future__ import annotations

import sys
from pathlib import Path

from rotator.core.errors import BadUsage
from rotator.core.tokens import Secret


def read(path: str, option: str) -> Secret:
    """One line from a file, ``-`` for stdin. Raises BadUsage naming the option."""
    try:
        raw = sys.stdin.readline() if path == "-" else Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise BadUsage(f"{option}: {path} cannot be read: {reason}") from None
    value = raw[:-1] if raw.endswith("\n") else raw
    if not value or "\x00" in value or "\n" in value:
        raise BadUsage(f"{option}: expected one line with the secret", mend="nothing was sent")
    return Secret(value)

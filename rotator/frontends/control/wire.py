"""The words of the control socket, the same for both ends: paths, limits, answers and errors.

Standard library only and without asyncio: the command line loads this before it can show anything.
"""

from __future__ import annotations

import json
import os
import re
import socket
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rotator.core import errors
from rotator.core.tokens import Secret

Document = dict[str, Any]

HEAD_LIMIT = 16 << 10
BODY_LIMIT = 64 << 10
# sun_path holds 108 bytes with its closing zero (unix(7)); from here on the way leads through /proc.
LONGEST_ADDRESS = 100

# Which method an order takes; the second half of each key says whether it is about one grant.
METHODS: Mapping[tuple[str, bool], str] = {
    ("health", False): "GET",
    ("events", False): "GET",
    ("reload", False): "POST",
    ("enter", False): "POST",
    ("listed", False): "POST",
    ("show", True): "GET",
    ("rotate", True): "POST",
    ("authorize", True): "POST",
    ("retire", True): "POST",
    ("token", True): "POST",
}
TARGET = re.compile(r"/v1/(?:grants/(?P<grant>[a-z0-9_]+)/)?(?P<verb>[a-z]+)")
GRANT = re.compile(r"[a-z0-9_]+")

# Statuses are for curl and for logs; our client goes by the name of the class.
STATUSES: Mapping[type[errors.RotatorError], int] = {
    errors.Unavailable: 503,
    errors.Transient: 503,
    errors.Doubtful: 503,
    errors.Refused: 403,
    errors.BadUsage: 400,
    errors.StateDamaged: 422,
    errors.Misconfigured: 422,
    errors.Overtaken: 409,
    errors.RotatorError: 422,
}
CLASSES = {cls.__name__: cls for cls in STATUSES}
BUG: Document = {"error": "bug"}


def target(verb: str, grant: str | None = None) -> str:
    """The path of an order. Raises BadUsage for a name that no grant can have."""
    if grant is None:
        return f"/v1/{verb}"
    if not GRANT.fullmatch(grant):
        raise errors.BadUsage(
            f"{grant!r} is not the name of a grant", mend="grant names are made of a-z, 0-9 and _; see `rotator status`"
        )
    return f"/v1/grants/{grant}/{verb}"


def parse(raw: str) -> tuple[str, str | None] | None:
    """The verb and the grant of a path; None where it names no order."""
    found = TARGET.fullmatch(raw)
    if found is None or (found["verb"], found["grant"] is not None) not in METHODS:
        return None
    return found["verb"], found["grant"]


def encode(document: Document, *, reveal: bool = False) -> bytes:
    """JSON on one line. A Secret in it is a mask, unless ``reveal``: only the answer to `token` may show one."""

    def shown(value: object) -> str:
        if isinstance(value, Secret):
            return value.reveal() if reveal else str(value)
        raise TypeError(f"an answer holds a {type(value).__name__}, which is not JSON")

    return json.dumps(document, default=shown).encode() + b"\n"


def decode(raw: bytes) -> Document:
    """A JSON object, or ValueError without a word of it: it may hold a password."""
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(document, dict):
        raise ValueError("not an object")
    return document


def describe(error: errors.RotatorError) -> tuple[int, Document]:
    """The status and the answer that carry an error; a class of elsewhere goes as its nearest of the tree."""
    cls = next(cls for cls in type(error).__mro__ if cls in STATUSES)
    return STATUSES[cls], {
        "error": cls.__name__,
        "what": error.what,
        "mend": error.mend,
        "exit_code": error.exit_code,
    }


def revive(document: Document) -> errors.RotatorError:
    """The error that `describe` described. The class of a newer daemon comes back as a RotatorError that keeps its
    words and its exit code."""
    if document == BUG:
        return errors.RotatorError("the daemon met a defect", mend="its log tells where; please report it")
    name, what, mend, code = (document.get(key) for key in ("error", "what", "mend", "exit_code"))
    error = CLASSES.get(str(name), errors.RotatorError)(str(what), mend=str(mend or ""))
    if isinstance(code, int):
        error.exit_code = code
    return error


@contextmanager
def address(path: Path) -> Iterator[str]:
    """A name for ``path`` that fits into a socket address however long the path is: beyond 100 bytes the folder is
    opened and named through /proc/self/fd. Good while the context lasts. Raises OSError."""
    if len(os.fsencode(path)) <= LONGEST_ADDRESS:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def peer_uid(link: Any) -> int:
    """Who is at the other end: who connected, or who called listen (SO_PEERCRED, unix(7))."""
    credentials = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("iII"))
    _, uid, _ = struct.unpack("iII", credentials)
    return int(uid)

"""What only some installations have: the packages of an extra, and how the installation at hand gets them."""

from __future__ import annotations

import sys
from pathlib import Path

from rotator.core.errors import Misconfigured

BUNDLE = Path("/usr/lib/rotator")
"""Where the Debian package keeps the program with all it needs (packaging/deb.py). No pip of anybody puts anything
there; what the distribution itself has is found beside it."""
DEBIAN = {"seal": "python3-cryptography", "postgres": "python3-psycopg"}
HERE = Path(__file__).parents[2]


def lacking(what: str, extra: str, *, home: Path = HERE) -> Misconfigured:
    """The error where something needs the packages of ``extra`` and they are not there, as ``what`` says. ``home`` is
    the folder that our own package lies in."""
    return Misconfigured(what, mend=_mend(extra, home))


def _mend(extra: str, home: Path) -> str:
    wanted = f"'token-rotator[{extra}]'"
    if home != BUNDLE:
        # Whoever types `pip` alone has another's: of the system, of a shell's own environment.
        return f"install it: {sys.executable} -m pip install {wanted}"
    if extra in DEBIAN:
        return f"install it: apt install {DEBIAN[extra]}"
    return (
        "no package of the distribution has it; use an installation of its own: python3 -m venv /opt/rotator && "
        f"/opt/rotator/bin/pip install {wanted} && /opt/rotator/bin/rotator install --systemd"
    )

"""The program that runs, as it can be typed again: by its whole path, as it may lie in no PATH."""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rotator.assembly import Plan


def typed(*words: str) -> str:
    """This program with these words, for a person to paste into a shell."""
    return " ".join((_path(), *map(shlex.quote, words)))


def within(plan: Plan, *words: str) -> str:
    """The step that runs a command where the credentials of a configuration are."""
    from rotator.assembly import services

    service = services.of(plan.loaded.path)
    if service is None:
        return "run it as a part of the service, or with $CREDENTIALS_DIRECTORY naming a folder that holds them"
    return service.lends(typed(*words, "--config", str(plan.loaded.path)))


def _path() -> str:
    found = shutil.which(sys.argv[0]) if sys.argv[0] else None
    path = Path(found or sys.argv[0]).absolute()
    if path.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m rotator"
    return shlex.quote(str(path)) if path.is_file() else "rotator"

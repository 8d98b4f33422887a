"""What systemd reads of us: units, drop-ins, the user, the folders, the first configuration, and where each is put.

Vendor files go below a prefix from which systemd reads (``/usr/local`` or ``/usr``), what is the operator's into
``/etc/rotator``. Installing twice changes nothing; what the operator wrote is never touched.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from importlib import resources
from pathlib import Path, PurePosixPath
from typing import Protocol

import rotator
from rotator.core import lean

UNITS = ("rotator.service", "rotator@.service", "rotator-vault.service")
# Keys that older versions of systemd do not know, by the version that brought them (systemd's NEWS).
DROP_INS = (253, 254, 260)
EXAMPLES = ("app.service", "app-token.path", "app-reload.service")
PROGRAM = "/usr/bin/rotator"
OURS = PurePosixPath("/etc/rotator")
CONFIG = OURS / "rotator.toml"
# What `uninstall --purge` takes away besides: the state with the refresh tokens, and what is published.
STATE = (PurePosixPath("/var/lib/rotator"), PurePosixPath("/run/rotator"))


class _Tree(Protocol):
    def joinpath(self, *parts: str) -> _Tree: ...

    def is_dir(self) -> bool: ...

    def read_text(self, encoding: str) -> str: ...


@lean.dataclass(frozen=True, slots=True)
class Piece:
    """One file. ``text`` is None for one that must not be there; ``kept`` is for what is the operator's once it
    exists."""

    path: PurePosixPath
    text: str | None
    kept: bool = False


@lean.dataclass(frozen=True, slots=True)
class Change:
    """What was done to a file, or would be: ``written``, ``removed`` or ``kept``."""

    path: PurePosixPath
    done: str


def pieces(prefix: PurePosixPath, program: PurePosixPath, version: int) -> tuple[Piece, ...]:
    """Everything that is installed for a systemd of this version; ``program`` is what the units start."""
    library = prefix / "lib"
    found = []
    for unit in UNITS:
        text = _shipped("systemd", unit).replace(f"ExecStart={PROGRAM} ", f"ExecStart={program} ")
        found.append(Piece(library / "systemd" / "system" / unit, text))
        for since in DROP_INS:
            place = library / "systemd" / "system" / f"{unit}.d" / f"50-systemd-{since}.conf"
            found.append(Piece(place, _shipped("systemd", "drop-ins", f"{since}.conf") if since <= version else None))
    found.append(Piece(library / "sysusers.d" / "rotator.conf", _shipped("systemd", "rotator.sysusers")))
    found.append(Piece(library / "tmpfiles.d" / "rotator.conf", _shipped("systemd", "rotator.tmpfiles")))
    examples = prefix / "share" / "doc" / "rotator" / "examples"
    found.extend(Piece(examples / name, _shipped("systemd", "examples", name)) for name in EXAMPLES)
    found.append(Piece(CONFIG, first_configuration(), kept=True))
    return tuple(found)


def first_configuration() -> str:
    """The configuration that shows every key, with none of them set."""
    text = _shipped("config", "rotator.toml")
    return re.sub(r"^(?=[^#\n])", "#", text, flags=re.MULTILINE)


def version_of(told: str) -> int | None:
    """The number in what ``systemctl --version`` prints."""
    found = re.match(r"systemd (\d+)", told)
    return int(found[1]) if found else None


def install(wanted: tuple[Piece, ...], root: Path, *, dry: bool) -> Iterator[Change]:
    """Put every file in place that is not there as it should be; yields what was done. Each is replaced as a whole.

    Raises OSError where a file cannot be written."""
    for piece in wanted:
        place = _below(root, piece.path)
        there = _read(place)
        if there == piece.text:
            continue
        if piece.kept and there is not None:
            yield Change(piece.path, "kept")
            continue
        if not dry:
            _put(place, piece.text)
        yield Change(piece.path, "removed" if piece.text is None else "written")


def uninstall(wanted: tuple[Piece, ...], root: Path, *, purge: bool, dry: bool) -> Iterator[Change]:
    """Take away what `install` put; the configuration, credentials and state only with ``purge``. Yields what was done.

    Raises OSError where a file cannot be removed."""
    for piece in wanted:
        place = _below(root, piece.path)
        if _read(place) is None:
            continue
        if piece.kept:
            if not purge:
                yield Change(piece.path, "kept")
            continue
        if not dry:
            place.unlink()
            with contextlib.suppress(OSError):
                # Folders of ours alone; others are not empty.
                if place.parent.name.endswith((".d", "examples", "rotator")) and "rotator" in place.parent.as_posix():
                    place.parent.rmdir()
        yield Change(piece.path, "removed")
    if not purge:
        return
    for folder in (OURS, *STATE):
        place = _below(root, folder)
        if place.is_dir():
            if not dry:
                _remove_tree(place)
            yield Change(folder, "removed")


def _shipped(*parts: str) -> str:
    """A file of ours: inside the package where it is installed, beside it in a checkout."""
    inside: _Tree = resources.files(rotator) / "share"
    tree = inside if inside.is_dir() else Path(rotator.__file__).parents[1]
    return tree.joinpath(*parts).read_text(encoding="utf-8")


def _below(root: Path, path: PurePosixPath) -> Path:
    return root / path.relative_to("/")


def _read(place: Path) -> str | None:
    try:
        return place.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return None


def _put(place: Path, text: str | None) -> None:
    if text is None:
        place.unlink(missing_ok=True)
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f".{place.name}.new")
    fresh.write_text(text, encoding="utf-8")
    fresh.chmod(0o644)
    os.replace(fresh, place)  # noqa: PTH105 (says what happens: the old file is there until the new one is)


def _remove_tree(place: Path) -> None:
    import shutil

    shutil.rmtree(place)

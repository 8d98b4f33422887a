"""The configuration as text: one TOML file, and beside it a folder of drop-ins with grants of their own."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path as FilePath
from typing import Any

from rotator.core import lean
from rotator.core.errors import Misconfigured
from rotator.settings import places, shape
from rotator.settings.shape import Path

LARGEST = 16 << 20
DROP_INS = "grants.d"
"""The folder beside the configuration file; it need not exist."""


@lean.dataclass(frozen=True, slots=True)
class File:
    """A configuration file, parsed; ``path`` None stands for no file at all. ``data`` holds the grants of the drop-ins
    too; ``parts`` says for each of these which file it stands in."""

    path: FilePath | None = None
    data: dict[str, Any] = field(default_factory=dict)
    lines: dict[Path, int] = field(default_factory=dict)
    parts: Mapping[str, File] = field(default_factory=dict)

    def part(self, path: Path) -> File:
        """The file that a key stands in, or would stand in."""
        return self.parts.get(path[1], self) if path[0] == "grants" and len(path) > 1 else self

    def line(self, path: Path) -> int | None:
        """The line of the key, or of the innermost table around it that is written; the table of all grants says
        nothing about one of them."""
        top = shape.tree().below(path[0])
        least = 2 if top is not None and top.each is not None else 1
        ends = range(len(path), min(least, len(path)) - 1, -1)
        return next((self.lines[path[:end]] for end in ends if path[:end] in self.lines), None)


def read(path: FilePath) -> File:
    """The file and its drop-ins. Raises Misconfigured, with the line where there is one, and one line for each drop-in
    that is wrong."""
    file = _parse(path)
    grants = file.data.get("grants", {})
    parts: dict[str, File] = {}
    problems: list[str] = []
    for one in drop_ins(path):
        try:
            dropped = _parse(one)
            for name in _grants(dropped):
                other = parts.get(name, file if isinstance(grants, dict) and name in grants else None)
                if other is not None:
                    there = f"{other.path}:{other.line(('grants', name))}"
                    raise Misconfigured(
                        f"{one}:{dropped.line(('grants', name))}: grants.{name} is written in {there} already; "
                        "keep one of them"
                    )
            parts |= dict.fromkeys(dropped.data.get("grants", {}), dropped)
        except Misconfigured as error:
            problems.append(str(error))
    if problems:
        raise Misconfigured("\n".join(problems))
    if not parts or not isinstance(grants, dict):
        return file
    added = {name: part.data["grants"][name] for name, part in parts.items()}
    return File(path, {**file.data, "grants": {**grants, **added}}, file.lines, parts)


def alone(path: FilePath) -> File:
    """The file without its drop-ins. Raises Misconfigured."""
    return _parse(path)


def drop_ins(path: FilePath) -> Iterator[FilePath]:
    """The drop-ins of a configuration file, by name. Hidden files are none: an editor keeps its copies there, and
    whoever writes one safely renames it into place."""
    folder = path.parent / DROP_INS
    try:
        names = sorted(one.name for one in folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise Misconfigured(
            f"{folder}: the drop-ins cannot be read: {error.strerror}", mend="run as its owner or group"
        ) from None
    yield from (folder / name for name in names if name.endswith(".toml") and not name.startswith("."))


def _grants(dropped: File) -> Iterator[str]:
    """The names of its grants. Raises Misconfigured where it holds anything else."""
    for key in dropped.data:
        if key != "grants":
            line = dropped.line((key,))
            raise Misconfigured(
                f"{dropped.path}:{line}: {key} does not belong into a drop-in, which holds [grants.NAME] only; "
                "write it into the configuration file"
            )
    grants = dropped.data.get("grants", {})
    if not isinstance(grants, dict):
        raise Misconfigured(f"{dropped.path}:{dropped.line(('grants',))}: grants is a table; write [grants.NAME]")
    yield from grants


def _parse(path: FilePath) -> File:
    try:
        with path.open("rb") as handle:
            raw = handle.read(LARGEST + 1)
    except FileNotFoundError:
        raise Misconfigured(f"{path}: there is no such configuration file", mend="give the right --config") from None
    except IsADirectoryError:
        raise Misconfigured(
            f"{path}: the configuration cannot be read: it is a folder", mend="give the file in it by --config"
        ) from None
    except OSError as error:
        raise Misconfigured(
            f"{path}: the configuration cannot be read: {error.strerror}", mend="run as its owner or group"
        ) from None
    if len(raw) > LARGEST:
        raise Misconfigured(f"{path}: the configuration is larger than {LARGEST >> 20} MiB")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise Misconfigured(f"{path}:{line}: not UTF-8 text", mend="save the file as UTF-8") from None
    text = text.replace("\r\n", "\n")
    try:
        return File(path, tomllib.loads(text), places.lines(text))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise Misconfigured(_bad_toml(path, text, str(error)), mend="see https://toml.io for the syntax") from None


def _bad_toml(path: FilePath, text: str, message: str) -> str:
    """tomllib names keys and characters but never a value, so its words may be shown."""
    words, _, place = message.partition(" (at ")
    line = re.match(r"line (\d+)", place)
    number = int(line[1]) if line else text.rstrip("\n").count("\n") + 1
    return f"{path}:{number}: not valid TOML: {words[:1].lower()}{words[1:]}"

"""Where settings come from: the environment over the file over the presets, merged deep, each value's origin known."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import PydanticBaseSettingsSource

from rotator.core import lean, notices
from rotator.settings import documents, official, shape
from rotator.settings.models import Settings
from rotator.settings.shape import Node, Path

PREFIX = "ROTATOR_"
CONFIG = "ROTATOR_CONFIG"

# What a kubelet injects for every Service of the namespace whose name begins with "rotator": ROTATOR_SERVICE_HOST,
# ROTATOR_PORT_8080_TCP_ADDR, and for a Service "rotator-metrics" ROTATOR_METRICS_SERVICE_PORT. Every key of ours has
# two underscores in a row behind its first word, no service link has.
_SERVICE_LINK = re.compile(
    r"ROTATOR_(SERVICE_.*|PORT.*|([A-Z0-9]+_)+(SERVICE_(HOST|PORT(_\w+)?)|PORT(_[0-9]+_(TCP|UDP|SCTP)(_\w+)?)?))"
)


@dataclass(slots=True)
class Environment:
    """What the environment sets: ``data`` in the shape of the file, and the variable behind each path."""

    data: dict[str, Any] = field(default_factory=dict)
    variables: dict[Path, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)
    clashes: list[tuple[str, str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def read_environment(environ: Mapping[str, str], known: Mapping[str, Any]) -> Environment:
    """Read ``ROTATOR_GRANTS__BILLING__CLIENT_ID=…``: two underscores go one table down, letters are lower-cased.

    In a name a ``-`` is written ``_``: ROTATOR_PROVIDERS__OMNIFUND_SANDBOX__… means ``omnifund-sandbox`` where a
    provider of that name is ``known``. Words of others (the keys of ``error_map`` and ``fields``) are taken as they
    are written. An empty variable counts as not set, as container tools leave them behind."""
    read = Environment()
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable == CONFIG or _is_of_others(variable):
            continue
        path = _resolve(segments(variable), shape.tree(), known)
        if path is None:
            read.unknown.append(variable)
        elif environ[variable]:
            _put(read, path, variable, environ[variable])
    official.fill(read.data, read.variables, read.refused, environ, known)
    return read


def segments(variable: str) -> list[str]:
    return variable.removeprefix(PREFIX).split("__")


def _is_of_others(variable: str) -> bool:
    """Injected by a kubelet, or what the command of a hook was told by, where it runs rotator itself."""
    if variable in notices.VARIABLES:
        return True
    return _SERVICE_LINK.fullmatch(variable) is not None and "__" not in variable


def _resolve(parts: list[str], node: Node, known: Any) -> Path | None:
    """The path that the parts mean. A name may itself hold two underscores: the shortest name that fits wins."""
    if not parts:
        return () if node.holds_value else None
    known = known if isinstance(known, Mapping) else {}
    for end in range(1, len(parts) + 1 if node.each is not None else 2):
        name = spelled("__".join(parts[:end]), node, known)
        child = node.below(name)
        rest = None if child is None else _resolve(parts[end:], child, known.get(name))
        if rest is not None:
            return (name, *rest)
    return None


def spelled(part: str, node: Node, known: Mapping[str, Any]) -> str:
    """The key of ``node`` that a part of a variable means."""
    if node.each is not None and node.each.holds_value:
        return part
    name = part.lower()
    return next((key for key in known if key.replace("-", "_") == name), name)


def _put(read: Environment, path: Path, variable: str, value: str) -> None:
    table = read.data
    for depth, key in enumerate(path[:-1], start=1):
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            read.clashes.append((read.variables[path[:depth]], variable))
            return
    table[path[-1]] = value
    read.variables[path] = variable


def read_presets() -> dict[str, Any]:
    """The built-in providers, data of the package."""
    return tomllib.loads(FilePath(__file__).parents[1].joinpath("presets.toml").read_text("utf-8"))


def merge(high: Any, low: Any, node: Node | None) -> Any:
    """Tables merge key by key, anything else is replaced; of a choice, what ``high`` does not choose is dropped."""
    if not (isinstance(high, dict) and isinstance(low, dict)):
        return high
    choice = node is not None and node.choice
    merged = {key: value for key, value in low.items() if key in high or not choice}
    for key, value in high.items():
        merged[key] = merge(value, merged[key], node and node.below(key)) if key in merged else value
    return merged


@lean.dataclass(frozen=True, slots=True)
class Layers:
    """The three layers and what they come to."""

    environment: Environment
    file: documents.File
    presets: dict[str, Any]
    merged: dict[str, Any]

    def origin(self, path: Path) -> str:
        """Where the value of a key comes from, for a person."""
        if variable := self._variable(path):
            return f"environment {variable}"
        written = self.file.part(path)
        if _holds(self.file.data, path) and written.path is not None:
            return f"{written.path.name}:{written.line(path)}"
        return f"preset {path[1]}" if _holds(self.presets, path) else "default"

    def place(self, path: Path) -> str | None:
        """Where a person must look to mend a key: the variable, or the file with the line nearest to it."""
        if variable := self._variable(path):
            return f"environment {variable}"
        written = self.file.part(path)
        line = written.line(path)
        return None if line is None else f"{written.path}:{line}"

    def _variable(self, path: Path) -> str | None:
        """The variable that sets the key, or the first that sets a part of it: of one value always (a secret's
        reference), of a table only where the file has nothing there."""
        variables, node = self.environment.variables, shape.at(path)
        if path in variables or (_holds(self.file.data, path) and not (node and node.holds_value)):
            return variables.get(path)
        return next((variable for at, variable in variables.items() if at[: len(path)] == path), None)

    def sources(self) -> dict[str, str]:
        return {shape.dotted(path): self.origin(path) for path in self._paths()}

    def _paths(self) -> Iterator[Path]:
        return shape.values(shape.tree(), self.merged)


def _holds(data: Any, path: Path) -> bool:
    for key in path:
        if not isinstance(data, dict) or key not in data:
            return False
        data = data[key]
    return True


def gather(path: FilePath | None, environ: Mapping[str, str]) -> Layers:
    """Read and merge all layers. Raises Misconfigured where a file cannot be read at all."""
    tree = shape.tree()
    file = documents.File() if path is None else documents.read(path)
    presets = read_presets()
    below = merge(file.data, presets, tree)
    environment = read_environment(environ, below)
    return Layers(environment, file, presets, merge(environment.data, below, tree))


class Merged(PydanticBaseSettingsSource):
    """The merged layers as the one source of pydantic-settings. Its own environment source wants JSON for tables,
    does not know names in a path and ignores misspelt variables; its TOML source ignores a missing file."""

    def __init__(self, layers: Layers) -> None:
        super().__init__(Settings)
        self._layers = layers

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._layers.merged.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._layers.merged

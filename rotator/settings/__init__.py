"""The configuration, checked whole before anything starts. The only place that knows pydantic and pydantic-settings.

::

    schemas    how pydantic comes to functions of ours
    values     one value as people write it: "30s", "0640", { file = … }
    entries    … and where something stands in a Vault
    addresses  … and where something listens
    models     the tables, their keys and defaults
    shape      the models as a tree of keys
    places     on which line of a TOML text a key stands
    documents  the file and its drop-ins, parsed
    official   what the official clients of Vault read from the environment
    sources    environment over file over presets, merged, with the origin of each value
    problems   every error in words
    checks     what ties tables together
    sharing    … and what two targets may not both write
    advice     what works but has a better way
    discovered a grant that stands in Vault, checked like a table
    registered a grant that stands in the store's register, the same

In the environment `grants.billing.client_id` is ``ROTATOR_GRANTS__BILLING__CLIENT_ID``.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from dataclasses import field
from pathlib import Path
from typing import Any

# A plugin of pydantic would see every secret that is checked, and to look for one is to read what every installed
# package says of itself: 5 to 20 ms of a start.
os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"

from pydantic import ValidationError

from rotator.core import lean
from rotator.core.errors import Misconfigured
from rotator.settings import advice, checks, discovered, documents, problems, registered, shape, sharing, sources
from rotator.settings.addresses import Address
from rotator.settings.documents import DROP_INS
from rotator.settings.entries import VaultPath, state_entry, vault_field
from rotator.settings.models import Budget, Grant, Limits, Provider, Settings
from rotator.settings.targets import Target
from rotator.settings.values import SecretReference, duration
from rotator.settings.vaults import AppRole, Auth, Vault

__all__ = [
    "DROP_INS",
    "Address",
    "AppRole",
    "Auth",
    "Budget",
    "Grant",
    "Limits",
    "Loaded",
    "Provider",
    "SecretReference",
    "Settings",
    "Target",
    "Vault",
    "VaultPath",
    "described",
    "discovered",
    "duration",
    "effective",
    "find",
    "load",
    "of_state",
    "references",
    "registered",
    "sharing",
    "state_entry",
    "vault_field",
]

DEBUG = "PYDANTIC_SETTINGS_DEBUG"


@lean.dataclass(frozen=True, slots=True)
class Loaded:
    """Settings that hold together, and where each comes from.

    ``sources`` maps a dotted key to ``rotator.toml:12``, ``environment ROTATOR_…``, ``preset omnifund`` or
    ``default``. ``warnings`` are lines for a person: what works but has a better way.
    """

    settings: Settings
    path: Path | None
    sources: Mapping[str, str] = field(repr=False)
    warnings: tuple[str, ...] = ()


def find(environ: Mapping[str, str], explicit: Path | None) -> Path | None:
    """The configuration file to read: ``explicit`` or $ROTATOR_CONFIG whether it exists or not, else the first that
    does of $CONFIGURATION_DIRECTORY (systemd.exec(5); the first of a list), the user's own and /etc. None: no file.
    """
    named = explicit or environ.get(sources.CONFIG)
    if named:
        return Path(named)
    return next((path for path in _candidates(environ) if _is_there(path)), None)


def _candidates(environ: Mapping[str, str]) -> Iterator[Path]:
    if given := environ.get("CONFIGURATION_DIRECTORY", "").split(":")[0]:
        yield Path(given, "rotator.toml")
    if user := environ.get("XDG_CONFIG_HOME"):
        yield Path(user, "rotator", "rotator.toml")
    if home := environ.get("HOME"):
        yield Path(home, ".config", "rotator", "rotator.toml")
    yield Path("/etc/rotator/rotator.toml")


def _is_there(path: Path) -> bool:
    """A file that may be there but not be looked at counts: reading it then says why, instead of passing over it."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def load(path: Path | None, environ: Mapping[str, str]) -> Loaded:
    """Read, merge and check everything. Raises Misconfigured whose ``what`` is one line per problem."""
    if environ.get(DEBUG) or os.environ.get(DEBUG):
        raise Misconfigured(f"environment {DEBUG} is set: it logs every secret", mend="unset it")
    layers = sources.gather(path, environ)
    settings, found = _validated(layers)
    lines = list(problems.of_environment(layers, _referenced_variables(layers.merged)))
    lines += [problem.line(layers) for problem in found]
    if settings is None or lines:
        raise Misconfigured("\n".join(dict.fromkeys(lines)))
    warnings = [problem.line(layers) for problem in advice.warnings(settings)]
    if not settings.grants and settings.discovery.vault is None:
        warnings.append("no grant is configured; add [grants.NAME] with provider and client_id")
    return Loaded(settings, path, layers.sources(), tuple(warnings))


def of_state(path: Path | None, environ: Mapping[str, str]) -> Loaded:
    """Where the state is, and nothing else: for who looks for a daemon that goes on although its configuration is bad
    by now. Raises Misconfigured where even that cannot be read."""
    data = {} if path is None else documents.alone(path).data
    table = data.get("state")
    written = table.get("url") if isinstance(table, dict) else None
    url = environ.get(f"{sources.PREFIX}STATE__URL") or written
    given: dict[str, Any] = {} if url is None else {"state": {"url": url}}
    try:
        return Loaded(Settings(**given), path, {})
    except ValidationError:
        raise Misconfigured("state.url is not usable") from None


def references(settings: Settings) -> Iterator[tuple[str, SecretReference]]:
    """Every secret that is configured, with its dotted key."""
    return ((shape.dotted(path), reference) for path, reference in checks.references(settings))


def described(settings: Settings, **tables: Mapping[str, Any]) -> str:
    """Single ``grants`` or ``providers`` as text, secrets masked, to tell whether anything of them has changed.

    They are written by what writes the whole configuration: a class of its own would have to build its own first, which
    costs a start 5 ms."""
    return settings.model_copy(update=tables).model_dump_json(include=set(tables))


def effective(loaded: Loaded) -> list[tuple[str, Any, str]]:
    """Every value as (dotted key, shown value, source). Secrets are masked; a reference shows where the secret is."""
    data = loaded.settings.model_dump(mode="json")
    return [
        (shape.dotted(path), _shown(data, path), loaded.sources[shape.dotted(path)])
        for path in shape.values(shape.tree(), data)
        if shape.dotted(path) in loaded.sources
    ]


def _shown(data: Any, path: shape.Path) -> Any:
    for key in path:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def _validated(layers: sources.Layers) -> tuple[Settings | None, list[problems.Problem]]:
    """The settings, and all that is wrong: in single tables and, for tables that are whole, between them."""
    found: list[problems.Problem] = []
    settings: Settings | None
    try:
        given: dict[str, Any] = {"source": sources.Merged(layers)}
        settings = Settings(**given)
    except ValidationError as error:
        found += problems.of_validation(error, layers)
        settings = _remains(layers.merged, error)
    if settings is not None:
        found += checks.problems(settings, layers.merged)
    return settings, found


def _remains(merged: dict[str, Any], error: ValidationError) -> Settings | None:
    """What is left without the tables that are broken, so that the rest is checked in the same run."""
    rest = copy.deepcopy(merged)
    for entry in error.errors(include_url=False, include_input=False):
        _remove(rest, tuple(str(part) for part in entry["loc"]))
    try:
        return Settings(**rest)
    except ValidationError:
        return None


def _remove(rest: dict[str, Any], path: shape.Path) -> None:
    """Take out the innermost named table around a broken key: a target, else the grant, provider or Vault."""
    if path[0] == "grants" and path[2:3] == ("targets",) and len(path) > 4:
        targets = rest.get("grants", {}).get(path[1], {}).get("targets", {})
        targets.pop(path[3], None)
    elif path[0] in ("grants", "providers", "vault") and len(path) > 1:
        rest.get(path[0], {}).pop(path[1], None)
    else:
        rest.pop(path[0], None)


def _referenced_variables(merged: Any) -> frozenset[str]:
    """Variables that a reference ``{ env = … }`` names: they hold secrets and are no settings of their own."""
    if not isinstance(merged, dict):
        return frozenset()
    named = merged.get("env")
    below = frozenset[str]().union(*(_referenced_variables(value) for value in merged.values()))
    return below | {named} if isinstance(named, str) else below

"""What a command works with: the configuration as it was read, and the folders it is about."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from rotator import settings
from rotator.assembly import services
from rotator.core import lean
from rotator.core.errors import BadUsage
from rotator.settings import Loaded, Settings, sources

if TYPE_CHECKING:
    from rotator.drivers.vault import Tally

T = TypeVar("T")


class Unwrapped:
    """Logins whose secret can be unwrapped once only: all that use one Vault share it, and so do later readings of the
    configuration while that login stands there as it is."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[object, object]] = {}

    def shared(self, name: str, described: object, make: Callable[[], T]) -> T:
        """What was made for this Vault, as it is ``described``; made now where it is another."""
        known = self._kept.get(name)
        if known is None or known[0] != described:
            known = self._kept[name] = described, make()
        return cast("T", known[1])


@lean.dataclass(frozen=True, slots=True)
class Plan:
    """What a command works with. ``warnings`` are what works but has a better way; ``tallies`` (by Vault) are there
    where somebody shows what is counted."""

    loaded: Loaded
    environ: Mapping[str, str]
    config: Path | None
    warnings: tuple[str, ...] = ()
    unwrapped: Unwrapped = field(default_factory=Unwrapped, compare=False)
    tallies: dict[str, Tally] | None = field(default=None, compare=False)

    @property
    def settings(self) -> Settings:
        return self.loaded.settings


def locate(config: Path | None, environ: Mapping[str, str]) -> Plan:
    """A plan that knows where the state is, and nothing else (see `settings.of_state`)."""
    return Plan(settings.of_state(settings.find(environ, config), environ), environ, config)


def folders(config: Path | None, environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Where a daemon has its private folder, by the place of its configuration alone: for who cannot read in it where
    the state is. None where the place does not tell, as that would be a guess at some other daemon."""
    path = settings.find(environ, config)
    given = any(environ.get(name) for name in ("STATE_DIRECTORY", "RUNTIME_DIRECTORY"))
    usual = config is None and not environ.get(sources.CONFIG)
    if path is None or not os.path.isfile(path) or not (given or usual or services.of(path)):  # noqa: PTH113
        return ()
    plan = Plan(Loaded(Settings(), path, {}), environ, config)
    return tuple(dict.fromkeys((state_directory(plan), runtime_directory(plan))))


def check_entry(plan: Plan, name: str, table: Mapping[str, Any]) -> None:
    """Raises Misconfigured where a grant cannot stand in the register of this configuration."""
    settings.registered.from_table(plan.settings, name, table)


def span(text: str, option: str) -> timedelta:
    """A duration given on the command line. Raises BadUsage naming the option."""
    try:
        return settings.duration(text)
    except ValueError as error:
        raise BadUsage(f"{option} {error}") from None


def state_directory(plan: Plan) -> Path:
    service = services.folders_of(plan.loaded.path)
    system = None if service is None else service.state
    return _directory(plan, "STATE_DIRECTORY", system, "XDG_STATE_HOME", ".local/state")


def runtime_directory(plan: Plan) -> Path:
    """Where relative file targets lie. Without XDG_RUNTIME_DIR a user's own state directory serves."""
    service = services.folders_of(plan.loaded.path)
    if "RUNTIME_DIRECTORY" not in plan.environ and service is None and "XDG_RUNTIME_DIR" not in plan.environ:
        return state_directory(plan) / "run"
    system = None if service is None else service.runtime
    return _directory(plan, "RUNTIME_DIRECTORY", system, "XDG_RUNTIME_DIR", ".local/state")


def _directory(plan: Plan, given: str, system: Path | None, xdg: str, fallback: str) -> Path:
    """As systemd gives it (systemd.exec(5); the first of several), as the unit of this configuration has it, so that
    commands beside the service find it, else the user's (XDG base directories)."""
    if value := plan.environ.get(given):
        return Path(value.partition(":")[0])
    if system is not None:
        return system
    base = plan.environ.get(xdg)
    return (Path(base) if base else Path(plan.environ.get("HOME", "/")) / fallback) / "rotator"


def effective(plan: Plan) -> list[tuple[str, Any, str]]:
    """Every value as (dotted key, shown value, source); secrets are masked."""
    return settings.effective(plan.loaded)

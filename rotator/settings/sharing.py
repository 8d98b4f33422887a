"""Places that targets write: two that write the same one would overwrite each other for ever."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rotator.settings.models import Grant, Settings
from rotator.settings.problems import Problem
from rotator.settings.shape import Path, dotted
from rotator.settings.targets import KEYS_OF, Target


def problems(settings: Settings) -> Iterator[Problem]:
    """Every target but the first that writes a place."""
    taken = places(settings)
    for name, grant in settings.grants.items():
        for path, target in targets_of(name, grant):
            place = _place(name, grant, target)
            if place and taken[place] != path:
                yield _shared(path, target, taken[place])


def places(settings: Settings) -> dict[str, Path]:
    """Every place that is written, with the first target that writes it."""
    taken: dict[str, Path] = {}
    for name, grant in settings.grants.items():
        for path, target in targets_of(name, grant):
            if place := _place(name, grant, target):
                taken.setdefault(place, path)
    return taken


def of_grant(name: str, grant: Grant, taken: Mapping[str, Path]) -> Iterator[Problem]:
    """The targets of one more grant that write what is ``taken``, or one place twice. What has its name is what it
    would stand for."""
    ours: dict[str, Path] = {}
    for path, target in targets_of(name, grant):
        if not (place := _place(name, grant, target)):
            continue
        first = taken.get(place)
        if first is None or first[1] == name:
            first = ours.setdefault(place, path)
        if first != path:
            yield _shared(path, target, first)


def targets(settings: Settings) -> Iterator[tuple[Path, Target]]:
    """All that are configured, each with the path of its key."""
    for name, grant in settings.grants.items():
        yield from targets_of(name, grant)


def targets_of(name: str, grant: Grant) -> Iterator[tuple[Path, Target]]:
    """Each with the path of its key."""
    for target_name, target in grant.targets.items():
        yield ("grants", name, "targets", target_name), target


def _place(name: str, grant: Grant, target: Target) -> str:
    """Nothing for a hook."""
    if target.secret is not None:
        return f"secret {target.secret}"
    if target.vault is not None:
        return str(target.vault.filled(grant=name, provider=grant.provider))
    return target.place or ""


def _shared(path: Path, target: Target, first: Path) -> Problem:
    key = next(key for key in KEYS_OF if getattr(target, key) is not None)
    return Problem((*path, key), f"is also written by {dotted(first)}; give {path[1]} a place of its own")

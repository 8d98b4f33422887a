"""The configuration, read whole, and everything that it names looked at."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from rotator import settings
from rotator.assembly import roster
from rotator.assembly.plan import Plan
from rotator.core.errors import Misconfigured
from rotator.drivers import secrets


def read(config: Path | None, environ: Mapping[str, str], *, check: bool = True, outside: bool = False) -> Plan:
    """Read the configuration; with ``check`` also look at what it names (see `checked`). Raises Misconfigured with
    every problem found, one a line."""
    loaded = settings.load(settings.find(environ, config), environ)
    plan = Plan(loaded, environ, config, tuple(loaded.warnings))
    return checked(plan, outside=outside) if check else plan


def checked(plan: Plan, *, outside: bool = False) -> Plan:
    """Look at every file, folder, group and secret that it names, so that nothing starts that cannot work. Raises
    Misconfigured with every problem found, one a line.

    ``outside`` is for who looks from outside the service: its credentials are not there, which is no problem then."""
    environ, warnings, problems = plan.environ, [*plan.warnings], list[str]()
    for reference in roster.references(plan):
        if outside and reference.kind == "credential" and "CREDENTIALS_DIRECTORY" not in environ:
            warnings.append(f"{reference.key}: only the service itself can see its credentials; not looked at")
            continue
        try:
            warning = secrets.check(reference, environ)
        except Misconfigured as error:
            problems.append(str(error))
        else:
            if warning:
                warnings.append(warning)
    places: dict[str, str] = {}
    for key, publisher in roster.files_of(plan):
        twin = places.setdefault(publisher.location, key)
        if twin != key:
            problems.append(f"{key}: writes the same file as {twin}; give each target a file of its own")
            continue
        try:
            publisher.check()
        except Misconfigured as error:
            problems.append(f"{key}: {error}")
    # Who rotates goes on without a hook, as readers have their token; who asks is told that it is wrong.
    (problems if outside else warnings).extend(_absent_commands(plan))
    if problems:
        raise Misconfigured("\n".join(problems))
    return replace(plan, warnings=tuple(warnings))


def _absent_commands(plan: Plan) -> Iterator[str]:
    if not any(target.command for grant in plan.settings.grants.values() for target in grant.targets.values()):
        return
    from rotator.assembly import hooks

    for key, command in hooks.commands(plan):
        try:
            command.check()
        except Misconfigured as error:
            yield f"{key}: {error}"

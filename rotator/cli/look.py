"""Commands that look at the configuration and the state, and the one that resets the latter."""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

import rotator
from rotator.cli import program, screen, words
from rotator.core.errors import BadUsage, Misconfigured

if TYPE_CHECKING:
    from rotator.assembly import Plan
    from rotator.assembly.online import Finding


def check(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Everything that `run` checks before it starts, and nothing is started."""
    from rotator import assembly

    plan = assembly.read(arguments.config, environ, outside=True)
    if plan.loaded.path is None and not plan.settings.grants:
        raise Misconfigured("there is no configuration", mend=f"--config names {words.CONFIG_HELP}")
    for warning in plan.warnings:
        print(f"rotator: warning: {warning}", file=sys.stderr)
    grants = plan.settings.grants
    targets = sum(len(grant.targets) for grant in grants.values())
    where = plan.loaded.path or "the environment"
    good = f"{where}: good; {len(grants)} grant(s), {targets} target(s), state in {assembly.state_described(plan)}"
    if not arguments.online:
        print(json.dumps({"good": True, "warnings": list(plan.warnings)}) if arguments.json else good)
        return 0
    return _online(plan, good, arguments, environ)


def _online(plan: Plan, good: str, arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Ask everything. A terminal shows each answer as it comes, a pipe gets all in the order of the configuration."""
    from rotator.assembly import online

    live = not arguments.json and screen.is_drawable(sys.stdout, environ)
    progress = screen.progress(environ)

    def mend(one: Finding) -> str:
        if not one.asked:
            return program.within(plan, "check", "--online")
        return one.error.mend if one.error is not None else ""

    def heard(found: list[Finding], done: int, of: int) -> None:
        progress("")
        for one in found if live else ():
            _tell(one, mend(one))
        progress(f"asking: {done} of {of} have answered" if done < of else "")

    if not arguments.json:
        print(good, flush=True)
    findings = asyncio.run(online.check(plan, heard))
    if arguments.json:
        shown = [
            {"check": one.what, "good": one.error is None if one.asked else None, "told": one.told, "mend": mend(one)}
            for one in findings
        ]
        print(json.dumps({"good": not online.worst(findings), "warnings": list(plan.warnings), "checks": shown}))
        return online.worst(findings)
    for one in () if live else findings:
        _tell(one, mend(one))
    bad = sum(one.error is not None for one in findings)
    unasked = sum(not one.asked for one in findings)
    print(f"{len(findings)} checks, {bad} bad" + (f", {unasked} not asked" if unasked else ""))
    return online.worst(findings)


def _tell(one: Finding, mend: str) -> None:
    print(f"{'BAD' if one.error is not None else 'ok ' if one.asked else '-- '}  {one.what}: {one.told}")
    if mend:
        print(f"     {'to mend it' if one.asked else 'to ask it'}: {mend}", flush=True)


def show(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Every effective value, secrets masked, with its source."""
    from rotator import assembly

    plan = assembly.read(arguments.config, environ, check=False)
    used = {grant.provider for grant in plan.settings.grants.values()}
    values = [
        (key, value, source)
        for key, value, source in assembly.effective(plan)
        if not (key.startswith("providers.") and key.split(".")[1] not in used and _is_built_in(source))
    ]
    if arguments.json:
        print(json.dumps({key: {"value": value, "source": source} for key, value, source in values}, indent=2))
        return 0
    width = max((len(f"{key} = {_shown(value)}") for key, value, _ in values), default=0)
    for key, value, source in values:
        print(f"{key} = {_shown(value)}".ljust(min(width, 72)) + f"  # {source}")
    return 0


def _is_built_in(source: str) -> bool:
    return source == "default" or source.startswith("preset ")


def _shown(value: object) -> str:
    """A value as TOML writes it; what is not set as a dash."""
    if value is None:
        return "-"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{name} = {_shown(one)}" for name, one in value.items()) + " }" if value else "{}"
    return json.dumps(value)


def reset(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Set the state aside (it is kept) and leave a tombstone that counts the password budget as spent."""
    from rotator import assembly

    plan = assembly.read(arguments.config, environ, check=False)
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise BadUsage("state reset asks before it acts, and there is no terminal", mend="add --yes")
        print(
            f"This sets the state in {assembly.state_described(plan)} aside; every grant must log in anew.",
            file=sys.stderr,
        )
        if input("Go on? [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing was changed", file=sys.stderr)
            return 1
    aside = assembly.reset_state(plan, charge_budget=not arguments.keep_budget)
    kept = f"the old state is kept as {aside}" if aside is not None else "there was no old state to keep"
    budget = "is kept" if arguments.keep_budget else "counts as spent for its window"
    print(f"state reset; {kept}; the password budget {budget}", file=sys.stderr)
    return 0


def rekey(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Every record under the key that is configured now; killed half-way, all are as they were."""
    from rotator import assembly
    from rotator.assembly import services
    from rotator.drivers.secrets import NoCredentials

    plan = assembly.read(arguments.config, environ, check=False)
    try:
        count = asyncio.run(assembly.rekey(plan))
    except NoCredentials as error:
        service, again = services.of(plan.loaded.path), program.within(plan, "rekey")
        unit = service.unit if service else ""
        raise Misconfigured(
            f"{error.key} is a credential, and credentials are given to the service only",
            mend=f"systemctl stop {unit} && {again} && systemctl start {unit}" if service else again,
        ) from None
    print(f"{count} grant(s) sealed anew; state.seal.former is not needed any more", file=sys.stderr)
    return 0


def version(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    print(f"rotator {rotator.__version__} (Python {platform.python_version()})")
    return 0

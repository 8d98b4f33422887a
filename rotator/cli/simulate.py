"""`rotator simulate`: a month of this configuration under faults, before it is deployed."""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rotator import assembly
from rotator.cli import screen
from rotator.core.errors import EXIT_BUG, BadUsage

if TYPE_CHECKING:
    from rotator.lab.fleet.outlook import Outlook
    from rotator.lab.fleet.scenario import Fault, Scenario

MOST_GRANTS = 10_000_000
LONGEST = timedelta(days=3650)
WIDTH = 80


def simulate(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Tell the story and show it; 0 unless an invariant of rotator itself broke (70). Gaps that a fault explains are
    what the command is there to show, and no error of it."""
    from rotator.drivers import clock
    from rotator.lab.fleet import outlook

    whole = _scenario(arguments, environ)
    _check_plot(arguments.plot)
    began = clock.boottime()
    progress = screen.progress(environ)
    seen = outlook.look(
        whole, lambda over: progress(f"simulating: {over:4.0%}" if over < 1 else ""), grants=arguments.sample
    )  # fmt: skip
    took = clock.boottime() - began
    if arguments.json:
        print(json.dumps(seen.document(), indent=2))
    else:
        print(_text(seen, took))
        print()
        print(_picture(seen, environ, sys.stdout))
    if arguments.plot is not None:
        _write_plot(seen, arguments.plot)
    if seen.report.broken:
        return _complain(seen, arguments)
    return 0


# --- what is asked for ------------------------------------------------------------------------------------------


def _scenario(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Scenario:
    from rotator.lab.fleet import scenario

    for option, number in (("--grants", arguments.grants), ("--sample", arguments.sample)):
        if number is not None and not 1 <= number <= MOST_GRANTS:
            raise BadUsage(f"{option} must be from 1 to {MOST_GRANTS}")
    if not math.isfinite(arguments.days) or not 0 < arguments.days <= LONGEST.days:
        raise BadUsage(f"--days must be more than 0 and at most {LONGEST.days}")
    span = timedelta(days=arguments.days)
    lifetime = None if arguments.token_lifetime is None else _positive(arguments.token_lifetime, "--token-lifetime")
    latency = assembly.span(arguments.latency, "--latency")
    lost = _percent(arguments.lost_answers)
    faults = _faults(arguments, span)
    plan = assembly.read(arguments.config, environ, check=False)
    sorts = assembly.fleet(plan, provider=arguments.provider, grants=arguments.grants, lifetime=lifetime)
    return scenario.Scenario(seed=arguments.seed, span=span, sorts=sorts, faults=faults, latency=latency, lost=lost)


def _faults(arguments: argparse.Namespace, span: timedelta) -> tuple[Fault, ...]:
    from rotator.lab.fleet import scenario
    from rotator.lab.fleet.scenario import Trouble

    asked = (
        ("--provider-outage", Trouble.PROVIDER, arguments.provider_outage),
        ("--store-away", Trouble.STORE, arguments.store_away),
        ("--targets-away", Trouble.TARGETS, arguments.targets_away),
        ("--downtime", Trouble.DAEMON, arguments.downtime),
        ("--clock-step", Trouble.CLOCK, arguments.clock_step),
    )
    wishes = []
    for option, trouble, texts in asked:
        for text in texts:
            length, mark, rest = re.fullmatch(r"([^@/]*)([@/]?)(.*)", text, re.DOTALL).groups()  # type: ignore[union-attr]  # matches anything
            sign = -1 if trouble is Trouble.CLOCK and length.startswith("-") else 1
            long = assembly.span(length[1:] if sign < 0 else length, option)
            at = assembly.span(rest, option) if mark == "@" else None
            every = _positive(rest, option) if mark == "/" else None
            if at is not None and at >= span:
                raise BadUsage(f"{option} {text}: that is after the end of the simulation", mend="give more --days")
            if every is not None and span / every > 100_000:
                raise BadUsage(f"{option}: that is more than 100000 times", mend="let it come less often")
            wishes.append(scenario.Wish(trouble=trouble, length=sign * long, at=at, every=every))
    return scenario.script(wishes, span, arguments.seed)


def _positive(text: str, option: str) -> timedelta:
    span = assembly.span(text, option)
    if span <= timedelta(0):
        raise BadUsage(f"{option} must be longer than nothing")
    return span


def _percent(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%", text.strip())
    if match is None or float(match[1]) > 100:
        raise BadUsage("--lost-answers must be a percentage such as 1% or 0.5%")
    return float(match[1]) / 100


# --- what is shown ----------------------------------------------------------------------------------------------


def _text(seen: Outlook, took: timedelta) -> str:
    """The figures. What is extrapolated says so in its own line."""
    report, whole = seen.report, seen.whole
    by = f"  (extrapolated from {report.grants:,} grants)" if seen.is_sample else ""
    limits = "  (extrapolated, up to the limits)" if seen.is_sample else ""
    sample = f" of {whole.grants:,}" if seen.is_sample else ""
    simulated = (
        f"simulated: {report.grants:,}{sample} grants in {_worlds(seen)}; {sum(report.rotations):,} rotations of the "
        f"real engine in {took.total_seconds():.0f} s"
    )
    lines = [
        _title(seen),
        *textwrap.wrap(simulated, WIDTH, subsequent_indent="  "),
        "",
        f"rotations            {seen.rotations:>12,}{by}",
        f"failed exchanges     {seen.failures:>12,}{by}",
        f"password exchanges   {seen.passwords:>12,}{by}",
        f"resends              {seen.scaled(report.resends):>12,}{by}",
        f"latched at the end   {seen.scaled(report.latched):>12,}{by}",
        f"busiest second       {seen.peak:>12,} requests{limits}",
        f"first tokens within  {_brief(report.enrolled):>12}",
        f"reader gaps          {seen.scaled(len(report.gaps)):>12,}{by}",
    ]
    for name, count, longest in seen.causes():
        gap = f"{seen.scaled(count):>10,}  up to {_brief(longest)}: {name}"
        lines += textwrap.wrap(gap, WIDTH, subsequent_indent=" " * 12, drop_whitespace=True)
    return "\n".join(lines)


def _title(seen: Outlook) -> str:
    whole = seen.whole
    providers = ", ".join(sorted({sort.provider for sort in whole.sorts}))
    return f"{whole.grants:,} grants of {providers} for {_brief(whole.span)}, seed {whole.seed}"


def _worlds(seen: Outlook) -> str:
    report = seen.report
    if report.worlds == 1:
        return "1 world"
    each = report.grants / report.worlds
    about = "" if each.is_integer() else "about "
    return f"{report.worlds} worlds of {about}{each:,.0f} each, with their share of the limits"


def _brief(span: timedelta) -> str:
    from rotator.lab.plots import rows

    return rows.brief(span)


def _picture(seen: Outlook, environ: Mapping[str, str], stream: TextIO) -> str:
    from rotator.lab.plots import terminal

    width = shutil.get_terminal_size((80, 24)).columns if stream.isatty() else 80
    return terminal.draw(
        seen.report,
        width=min(width, 132),
        unicode=(stream.encoding or "").lower().startswith("utf"),
        colors=stream.isatty() and not environ.get("NO_COLOR"),
    )


def _write_plot(seen: Outlook, path: Path) -> None:
    from rotator.lab.plots import svg

    head = "In the simulated sample" if seen.is_sample else "In all"
    report = seen.report
    words = (
        f"{head} of {report.grants:,} grants: {sum(report.rotations):,} rotations, {sum(report.failures):,} failed and "
        f"{sum(report.passwords):,} password exchanges, at most {report.peak:,} requests a second.\n"
        f"{len(report.gaps):,} times a reader found no valid token. Shaded: what was broken on purpose."
    )
    try:
        path.write_text(svg.draw(seen.report, title=f"rotator: {_title(seen)}", words=words), encoding="utf-8")
    except OSError as error:
        raise _unwritable(path, error) from None
    sys.stdout.flush()
    print(f"{path} written", file=sys.stderr)


def _check_plot(path: Path | None) -> None:
    """Say before a minute of work, not after it, that its picture has no place."""
    if path is None:
        return
    if path.is_dir():
        raise BadUsage(f"--plot {path} is a folder", mend="name a file in it")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise _unwritable(path, None)


def _unwritable(path: Path, error: OSError | None) -> BadUsage:
    why = f": {os.strerror(error.errno or 0)}" if error is not None else ""
    return BadUsage(f"--plot {path} cannot be written{why}", mend="name a file in a folder that you may write to")


def _complain(seen: Outlook, arguments: argparse.Namespace) -> int:
    """An invariant of our own broke: the shortest way to see it again."""
    broken = seen.report.broken
    print(f"rotator: a defect: {len(broken)} broken promise(s) in this simulation, first:", file=sys.stderr)
    for what in broken[:3]:
        print(f"rotator: {what}", file=sys.stderr)
    print(
        f"rotator: please report it with this command, its words and the configuration; seed {arguments.seed} tells "
        "the same story again",
        file=sys.stderr,
    )
    return EXIT_BUG

"""From a story that breaks an invariant to the shortest one that still breaks the same."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

from rotator.lab.simulation.machine import Verdict
from rotator.lab.simulation.script import Misfortune, Plan, names_of, write
from rotator.lab.simulation.story import run

# A story takes a tenth of a second: half a minute at most.
MOST_RUNS = 300

_PARTICULARS = re.compile(r"\bg\d+\b|[\d:.,]+|\([^)]*\)")


def kinds(verdict: Verdict) -> set[str]:
    """Which invariants broke, without times and names."""
    return {" ".join(_PARTICULARS.sub("", broken).split())[:60] for broken in verdict.broken}


def shortest(plan: Plan, play: Callable[[Plan], Verdict] = run) -> Plan:
    """The same story with fewer misfortunes, fewer grants and a shorter span; ``plan`` itself where none is left out.

    Each step leaves something out and keeps the rest where the same invariant still breaks."""
    plan = replace(plan, script=plan.misfortunes)
    wanted, left = kinds(play(plan)), MOST_RUNS
    shrunk = True
    while shrunk:
        shrunk = False
        for candidate in _shorter(plan):
            if left == 0:
                return plan
            left -= 1
            if kinds(play(candidate)) & wanted:
                plan, shrunk = candidate, True
                break
    return plan


def _shorter(plan: Plan) -> Iterator[Plan]:
    """What to try next, the greatest step first."""
    script = plan.misfortunes
    size = max(1, len(script) // 2)
    while script:
        for start in range(0, len(script), size):
            yield replace(plan, script=script[:start] + script[start + size :])
        if size == 1:
            break
        size //= 2
    if plan.grants > 1:
        only = names_of(plan)[0]
        yield replace(plan, grants=1, script=tuple(replace(one, grant=one.grant and only) for one in script))
        kept = set(names_of(replace(plan, grants=plan.grants - 1)))
        yield replace(
            plan, grants=plan.grants - 1, script=tuple(one for one in script if not one.grant or one.grant in kept)
        )
    last = max((one.at + one.span for one in script), default=timedelta(0)) + timedelta(hours=1)
    if last < plan.span:
        yield replace(plan, span=last)
    for index, one in enumerate(script):
        for simpler in _simpler(one):
            yield replace(plan, script=(*script[:index], simpler, *script[index + 1 :]))


def _simpler(one: Misfortune) -> Iterator[Misfortune]:
    rounded = timedelta(minutes=round(one.at / timedelta(minutes=1)))
    if rounded != one.at:
        yield replace(one, at=rounded)
    span = timedelta(minutes=round(one.span / timedelta(minutes=1)))
    if span != one.span:
        yield replace(one, span=span)
    if one.number != int(one.number):
        yield replace(one, number=float(int(one.number)))


def report(plan: Plan) -> str:
    """For a person who reads that a seed failed: the shortest story, what broke, and the file that keeps it."""
    short = shortest(plan)
    verdict = run(short)
    words = [f"{one.at.total_seconds() / 3600:8.3f} h  {one.words}" for one in short.misfortunes]
    kept = write(short, "; ".join(sorted(kinds(verdict))))
    head = f"{short.grants} grant(s) at a provider of the kind {short.policy.value}, {short.span}"
    return "\n".join(
        [
            f"seed {plan.seed} breaks; the shortest story that still does ({head}):", *words, "",
            "as it was told:", verdict.story(), "",
            "to keep it, put this into tests/simulation/seeds/NAME.toml:", kept,
        ]
    )  # fmt: skip

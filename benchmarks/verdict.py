"""What one look at every grant costs: the snapshot that a beat takes, and the line that STATUS= shows of it."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from rotator.core.grants import Grant
from rotator.core.health import Health, Margin, TargetHealth
from rotator.core.policy import Rules
from rotator.core.ports import Enrolment
from rotator.core.tokens import AccessToken, Secret
from rotator.engine.board import Board, Desk
from rotator.engine.courier import Courier

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
# Of a thousand grants with tokens for an hour so many rotate between two beats.
CHANGED = 4


@dataclass
class Placed:
    """Stands in for a courier: every target holds what is saved."""

    changed: set[str] = field(default_factory=set)

    def health(self, name: str) -> list[TargetHealth]:
        return [TargetHealth("app", f"file:/run/rotator/{name}/token", 1, "", NOON + HOUR)]


@dataclass(frozen=True)
class Looks:
    """Milliseconds for each thousand of ``grants``: judged for the first time; nothing changed; `CHANGED` of each
    thousand did; and the line."""

    grants: int
    first: float
    idle: list[float]
    changed: list[float]
    line: list[float]


def looks(grants: int, rounds: int) -> Looks:
    board, desks = Board(cast("Courier", Placed()), Margin()), _desks(grants)
    board.take_over(desks)
    thousands = grants / 1000
    spans: dict[str, list[float]] = {"first": [], "idle": [], "changed": [], "line": []}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        since = time.perf_counter_ns()
        yield
        spans[name].append((time.perf_counter_ns() - since) / 1e6 / thousands)

    now = NOON
    with _without_collections():
        with timed("first"):
            board.shown(now)
        for number in range(rounds):
            now += timedelta(milliseconds=10)
            for name in list(desks)[number :: 1000 // CHANGED]:
                desks[name].grant = replace(desks[name].grant, generation=2 + number)
                board.changed(name)
            with timed("changed"):
                board.shown(now)
            with timed("idle"):
                shown = board.shown(now)
            with timed("line"):
                Health(now, shown).line()
    return Looks(grants, spans["first"][0], spans["idle"], spans["changed"], spans["line"])


@contextmanager
def _without_collections() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _desks(count: int) -> dict[str, Desk]:
    enrolment = Enrolment(
        name="any", provider="omnifund", identity=(), rules=Rules(password=True), endpoint=cast("Any", None),
        credentials=cast("Any", None), targets={},
    )  # fmt: skip
    found = {}
    for number in range(count):
        name, age = f"grant_{number:06}", timedelta(seconds=number % 2000)
        access = AccessToken(Secret("x"), "bearer", None, NOON - age, NOON - age + HOUR, 1)
        due_at = access.issued_at + HOUR * 3 / 4
        grant = Grant(name=name, lineage="l", identity="i", generation=1, access=access, due_at=due_at)
        found[name] = Desk(enrolment, grant, look_at=NOON)
    return found


def medians(found: Looks) -> tuple[float, float, float]:
    """Idle, changed and the line."""
    return statistics.median(found.idle), statistics.median(found.changed), statistics.median(found.line)

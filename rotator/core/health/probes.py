"""The questions of supervisors, answered from the snapshot: alive, ready, started.

A check is (name, trouble); the trouble is empty where all is well. The names of grants are names of checks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from enum import StrEnum

from rotator.core import lean
from rotator.core.health.snapshot import Health

LOOP = "loop"
START = "start"


class Question(StrEnum):
    """Named like the pages that Kubernetes asks for."""

    LIVE = "livez"
    READY = "readyz"
    STARTED = "startupz"


@lean.dataclass(frozen=True, slots=True)
class Check:
    name: str
    trouble: str

    @property
    def line(self) -> str:
        return f"[-]{self.name} failed: {self.trouble}" if self.trouble else f"[+]{self.name} ok"


def checks(health: Health, question: Question) -> Iterator[Check]:
    """What the answer is made of. Liveness is about our own loop alone: no provider, no Vault, no target."""
    match question:
        case Question.LIVE:
            yield Check(LOOP, "the daemon does not run" if health.pulse is None else health.pulse.reason)
        case Question.STARTED:
            yield Check(START, "" if health.started else health.line())
        case Question.READY:
            for grant in health.grants:
                yield Check(grant.name, grant.unready)


def passes(health: Health, question: Question) -> bool:
    """The answer alone, without its words."""
    match question:
        case Question.LIVE:
            return health.alive
        case Question.STARTED:
            return health.started
        case Question.READY:
            return health.ready


def answer(
    health: Health, question: Question, *, exclude: Collection[str] = (), only: str | None = None
) -> tuple[bool, list[Check]]:
    """Whether it passes, and every check that was asked for. Without a check of the name ``only`` the list is empty."""
    found = [
        one for one in checks(health, question) if one.name not in exclude and (only is None or one.name == only)
    ]  # fmt: skip
    return not any(one.trouble for one in found), found

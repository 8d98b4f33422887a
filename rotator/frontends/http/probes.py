"""What supervisors ask: the status is the answer, the words are for people."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import field

from rotator.core import lean
from rotator.core.health import Health
from rotator.core.health.probes import Question, answer, passes

# /healthz is the liveness of old: whoever takes it for more must not have us killed for somebody else's outage.
QUESTIONS = {"livez": Question.LIVE, "readyz": Question.READY, "startupz": Question.STARTED, "healthz": Question.LIVE}
SHOWN = 100
LINES = 500


@lean.dataclass(frozen=True, slots=True)
class Asked:
    """One probe: its page, the one check of its path, what is left out, and whether every check is to be told."""

    page: str
    check: str | None = None
    exclude: Collection[str] = field(default=())
    verbose: bool = False


def bare(health: Health, asked: Asked) -> tuple[int, str]:
    """The answer for who may not see more than that."""
    passed = passes(health, QUESTIONS[asked.page])
    return (200, "ok\n") if passed else (503, f"{asked.page} check failed\n")


def told(health: Health, asked: Asked) -> tuple[int, Iterator[str]]:
    """The status and the text in pieces. Without `verbose` a good answer is one word, a bad one names what failed."""
    if asked.check is None and not asked.exclude and not asked.verbose and passes(health, QUESTIONS[asked.page]):
        return 200, iter(("ok\n",))
    passed, found = answer(health, QUESTIONS[asked.page], exclude=asked.exclude, only=asked.check)
    if asked.check is not None and not found:
        return 404, iter((f"there is no check {asked.check!r} behind {asked.page}\n",))
    if passed and not asked.verbose:
        return 200, iter(("ok\n",))
    lines = [one.line for one in found if asked.verbose or one.trouble]
    if not asked.verbose and len(lines) > SHOWN:
        lines[SHOWN:] = [f"and {len(lines) - SHOWN} more; ?verbose shows all"]
    unknown = set(asked.exclude) - {one.name for one in answer(health, QUESTIONS[asked.page])[1]}
    lines += [f"warn: there is no check {name!r} to exclude" for name in sorted(unknown)]
    lines.append(f"{asked.page} check {'passed' if passed else 'failed'}")
    return (200 if passed else 503), _pieces(lines)


def _pieces(lines: list[str]) -> Iterator[str]:
    for start in range(0, len(lines), LINES):
        yield "".join(f"{line}\n" for line in lines[start : start + LINES])

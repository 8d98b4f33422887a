"""Where a gap comes from: the exception to the promise that explains it, judged by what was broken when."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta

from rotator.core.pressure import Limits
from rotator.lab.fleet.scenario import ZERO, Fault, Sort, Trouble
from rotator.lab.report import UNEXPLAINED
from rotator.lab.simulation.readers import Cause

SECOND = timedelta(seconds=1)


LIMITS = "the provider's limits allow fewer exchanges than the grants need"
CLOCK = "the clock was set"
BY_TROUBLE = {
    Trouble.PROVIDER: Cause.PROVIDER_AWAY,
    Trouble.STORE: Cause.STORE_AWAY,
    Trouble.TARGETS: Cause.TARGET_AWAY,
    Trouble.DAEMON: Cause.NOT_RUNNING,
}


def patience(sort: Sort) -> timedelta:
    """The longest pause between two tries of one grant: so much of a fault's end may pass before it is noticed."""
    return sort.rules.backoff_cap + 2 * sort.rules.deadline


def explain(
    sort: Sort, began: timedelta, ended: timedelta, *, faults: Sequence[Fault], lost_at: timedelta | None,
    requests: Mapping[int, int], first: bool,
) -> str:  # fmt: skip
    """The name of what a gap comes from, or `UNEXPLAINED`.

    ``first`` says that there never was a token. Between *due* and *began* somebody must have been able to rotate for
    longer than any pause of ours, or the trouble that took most of it is the cause. ``requests`` are those of the
    provider by the second, ``lost_at`` is when an answer to this grant was lost last.
    """
    rules = sort.rules
    due = began if first else max(ZERO, began - sort.lifetime * (1 - rules.rotate_at - rules.jitter))
    until = ended if first else began
    away = [fault for fault in faults if fault.trouble is not Trouble.CLOCK]
    covered = _union(away, due, until)
    free = (until - due) - sum((end - begin for begin, end in covered), ZERO)
    heaviest = max(away, key=lambda fault: _overlap(fault, due, ended), default=None)
    if heaviest is not None and _overlap(heaviest, due, ended) > ZERO and free < patience(sort):
        return BY_TROUBLE[heaviest.trouble].value
    if lost_at is not None and due - sort.lifetime <= lost_at <= ended:
        return Cause.BUDGET.value
    if any(fault.trouble is Trouble.CLOCK and due - sort.lifetime <= fault.began <= ended for fault in faults):
        return CLOCK
    if _pressed(sort.limits, requests, due, ended, covered):
        return LIMITS
    return UNEXPLAINED


def _pressed(
    limits: Limits, requests: Mapping[int, int], due: timedelta, until: timedelta,
    covered: Iterable[tuple[timedelta, timedelta]],
) -> bool:  # fmt: skip
    """Whether the provider was asked as fast as it may be, nearly all the time that it could be asked at all."""
    blocked = {second for begin, end in covered for second in range(begin // SECOND, end // SECOND)}
    seconds = [second for second in range(due // SECOND, until // SECOND + 1) if second not in blocked]
    asked = sum(requests.get(second, 0) for second in seconds)
    return asked >= 0.7 * limits.per_second * len(seconds)


def _overlap(fault: Fault, begin: timedelta, end: timedelta) -> timedelta:
    return max(ZERO, min(fault.ended, end) - max(fault.began, begin))


def _union(faults: Iterable[Fault], begin: timedelta, end: timedelta) -> list[tuple[timedelta, timedelta]]:
    """The parts of a span in which at least one of these was on, in order and without overlap."""
    parts: list[tuple[timedelta, timedelta]] = []
    for fault in sorted(faults, key=lambda fault: fault.began):
        left, right = max(fault.began, begin), min(fault.ended, end)
        if left >= right:
            continue
        if parts and left <= parts[-1][1]:
            parts[-1] = parts[-1][0], max(parts[-1][1], right)
        else:
            parts.append((left, right))
    return parts

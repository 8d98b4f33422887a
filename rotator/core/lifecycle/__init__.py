"""The state machine of a grant: (grant, fact, moment) → (grant, orders, events).

Pure: everything it needs is handed in, and the same input gives the same answer. The caller saves the new grant
*before* it follows an order and tells the events *after* the save.

`facts` are the words: what came back or rang, and what to do next. `choices` says what would be done and from when,
`looks` begins it, `conclusions` and `gains` answer what came back, `findings` what the world turned out to be.
"""

from __future__ import annotations

from rotator.core.grants import Grant
from rotator.core.lifecycle import conclusions, findings, looks
from rotator.core.lifecycle.facts import (
    Adopted,
    Behind,
    ClockFellBack,
    Concluded,
    Due,
    Exchange,
    Fact,
    Order,
    Rest,
    Step,
)  # fmt: skip
from rotator.core.lifecycle.findings import enrol, reidentify
from rotator.core.policy import Moment, Rules

__all__ = [
    "Adopted", "Behind", "ClockFellBack", "Concluded", "Due", "Exchange", "Fact", "Order", "Rest", "Step", "advance",
    "enrol", "reidentify",
]  # fmt: skip


def advance(grant: Grant, fact: Fact, moment: Moment, rules: Rules, chance: float) -> Step:
    """Answer one fact. ``chance`` in [0, 1) feeds jitter."""
    match fact:
        case Due():
            return looks.look(grant, fact, moment, rules, chance)
        case Concluded():
            return conclusions.conclude(grant, fact, moment, rules, chance)
        case Behind():
            return findings.behind(grant, fact, moment, rules, chance)
        case ClockFellBack():
            return findings.clock_fell_back(grant, moment, rules)
        case Adopted():
            return findings.adopted(grant, fact, moment)

"""Makes each step of a grant durable before anything is told of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

from rotator.core import events, lean, lifecycle, policy
from rotator.core.errors import Overtaken, RotatorError
from rotator.core.grants import Grant
from rotator.core.ports import Lease
from rotator.engine.tools import Tools

Saved = Callable[[Grant, timedelta | None], None]
"""Hears of a grant that became durable, and when (boot-time clock) the answer was read that brought it, if any did."""

SAVE_RETRY = policy.Rules(backoff_base=timedelta(milliseconds=50), backoff_cap=timedelta(seconds=5))


@lean.dataclass(frozen=True, slots=True)
class Spans:
    """What was measured of an exchange, on the boot-time clock: when its answer was read, and how long it took."""

    answered: timedelta
    took: timedelta


class Scribe:
    """Carries the grant from step to step and makes each durable before anything is told."""

    def __init__(self, provider: str, tools: Tools, lease: Lease, grant: Grant, saved: Saved) -> None:
        self.grant, self.lease = grant, lease
        self._provider = provider
        self._stored = grant.generation
        self._tools, self._saved = tools, saved

    async def keep(self, step: lifecycle.Step, *, patiently: bool = False, spans: Spans | None = None) -> None:
        """Save, then tell. ``patiently``: an answer is in hand, so the save is tried without end, whatever fails;
        only where another was first (Overtaken) is there nothing left to save it to."""
        failures = 0
        while True:
            try:
                await self._tools.store.save(
                    step.grant, expected=self._stored, lease=self.lease, now=self._tools.clock.now()
                )
                break
            except Overtaken as error:
                if step.grant.generation > self._stored:
                    remark = f"an answer of the provider is thrown away: {error.what}"
                    self._tools.bus.tell(
                        events.AnswerOdd(at=self._tools.clock.now(), grant=step.grant.name, remark=remark)
                    )
                raise
            except Exception as error:
                if not patiently:
                    raise
                failures += 1
                await self._pause(error, failures)
        self.grant, self._stored = step.grant, step.grant.generation
        save_took = None if spans is None else self._tools.clock.moment().boottime - spans.answered
        self._saved(step.grant, None if spans is None else spans.answered)
        self._tools.bus.tell(*(self._measured(event, spans, save_took) for event in step.events))

    def _measured(self, event: events.Event, spans: Spans | None, save_took: timedelta | None) -> events.Event:
        if not isinstance(event, events.ExchangeEnded):
            return event
        took = None if spans is None else spans.took
        return replace(event, provider=self._provider, took=took, save_took=save_took)

    async def _pause(self, error: Exception, failures: int) -> None:
        tools = self._tools
        if is_told(failures):
            doing = f"{self.grant.name}: an answer of the provider waits in memory to be saved (try {failures})"
            # A foreign exception may quote what was to be saved.
            reason = str(error) if isinstance(error, RotatorError) else type(error).__name__
            tools.bus.tell(events.StoreTroubled(at=tools.clock.now(), reason=reason, doing=doing))
        try:
            # A span, no point in time: a clock that is set back by a day must not keep the answer in memory for one.
            async with tools.clock.deadline(policy.backoff(failures, SAVE_RETRY, tools.dice.chance())):
                await asyncio.Event().wait()
        except TimeoutError:
            pass


def is_told(failures: int) -> bool:
    """Whether the n-th failure in a row is told: the 1st, 2nd, 4th, 8th …, so that the log does not fill the disk
    that is full already."""
    return failures & (failures - 1) == 0

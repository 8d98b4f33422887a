"""One rotation: lease, look again, intent, exchange, save, release.

The irreversible step is fenced: the durable intent proves that the store can be written, the exchange spends, the
answer is saved at once, and only then is anything told. Once a request may have left, nothing cancels the save.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from rotator.core import events, lifecycle, policy, tokens
from rotator.core.errors import Doubtful, Misconfigured, Refused, RotatorError, Transient
from rotator.core.grants import Grant, Kind, Outcome, OutcomeClass
from rotator.core.ports import Clock, Credentials, Dice, Enrolment, Lease, Store, TokenRequest
from rotator.core.tokens import Secret
from rotator.engine.bus import Bus

T = TypeVar("T")

SAVE_RETRY = policy.Rules(backoff_base=timedelta(milliseconds=50), backoff_cap=timedelta(seconds=5))


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What the engine works with, handed from the daemon to every part of it."""

    clock: Clock
    dice: Dice
    store: Store
    bus: Bus
    owner: str
    key: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody asked of a rotation: see `lifecycle.Due`. ``password`` stands in for the configured one."""

    asked: bool = False
    forced: bool = False
    wanted: Kind | None = None
    password: Secret | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The grant as it is saved now, and the error of the exchange, None where none was sent or it was granted.

    ``exchanged`` tells the two apart; ``why`` says why nothing was sent.
    """

    grant: Grant
    exchanged: bool
    outcome: Outcome | None = None
    why: str = ""
    until: datetime | None = None


async def rotate(
    enrolment: Enrolment, tools: Tools, wish: Wish = Wish(), *, saved: Callable[[Grant], None] | None = None
) -> Result:
    """Do what is due for one grant, at most one exchange.

    ``saved`` hears of every grant that became durable, before the events are told. Raises Overtaken where another
    owner holds the lease or saved first, Unavailable while the store is away *before* anything was spent. Cancelling
    is safe up to the exchange; from then on the answer is saved first and the cancellation follows.
    """
    moment = tools.clock.moment()
    lease, grant = await tools.store.lease(enrolment.name, tools.owner, moment, enrolment.rules.lease)
    try:
        return await _under_lease(enrolment, tools, wish, lease, grant, saved or _nobody)
    finally:
        await _shielded(tools.store.release(lease))


async def note(
    name: str, tools: Tools, judge: Callable[[Grant], lifecycle.Step], rules: policy.Rules
) -> tuple[Grant, lifecycle.Step]:
    """Bring one fact that is no exchange into the stored grant: lease, look again, judge, save, tell.

    Raises as `rotate` does.
    """
    lease, grant = await tools.store.lease(name, tools.owner, tools.clock.moment(), rules.lease)
    try:
        scribe = _Scribe(tools, lease, grant, _nobody)
        step = judge(grant)
        if step.grant != grant:
            await scribe.keep(step)
        return scribe.grant, step
    finally:
        await _shielded(tools.store.release(lease))


async def enrol(enrolment: Enrolment, tools: Tools) -> Grant:
    """The stored grant of an enrolment, made where there is none, and started anew where provider, client or user
    changed: stored tokens of another identity are never published or spent."""
    identity = tokens.digest(enrolment.identity, tools.key)
    fresh = lifecycle.enrol(enrolment.name, tools.dice.name(), identity, tools.clock.now())
    grant = await tools.store.enrol(fresh)
    if grant.lineage == fresh.lineage:
        tools.bus.tell(events.Enrolled(at=tools.clock.now(), grant=grant.name, lineage=grant.lineage))
    if grant.identity == identity:
        return grant
    now = tools.clock.now()
    grant, _ = await note(
        enrolment.name, tools, lambda found: lifecycle.reidentify(found, fresh.lineage, identity, now), enrolment.rules
    )
    return grant


async def _under_lease(
    enrolment: Enrolment, tools: Tools, wish: Wish, lease: Lease, grant: Grant, saved: Callable[[Grant], None]
) -> Result:
    scribe = _Scribe(tools, lease, grant, saved)
    unreadable: RotatorError | None = None
    credentials: Credentials | None = None
    try:
        credentials = await enrolment.credentials.resolve(password=wish.password)
    except RotatorError as error:
        unreadable = error
    due = lifecycle.Due(
        credentials=credentials.digest if credentials else None,
        asked=wish.asked, forced=wish.forced, wanted=wish.wanted,
    )  # fmt: skip
    # Another moment than that of the lease: reading a reference may have taken its time.
    moment = tools.clock.moment()
    if unreadable is not None and scribe.grant.latch is None and _is_due(scribe.grant, wish, moment.now):
        return await _not_sent(scribe, due, unreadable, enrolment, tools)
    step = lifecycle.advance(scribe.grant, due, moment, enrolment.rules, tools.dice.chance())
    if step.grant != scribe.grant:
        await scribe.keep(step)
    if not isinstance(step.order, lifecycle.Exchange):
        return Result(scribe.grant, False, why=step.order.why, until=step.order.until)
    if credentials is None:
        return await _conclude(scribe, _unreadable(unreadable), moment.now, None, enrolment, tools)
    return await _spend(scribe, step.order, credentials, enrolment, tools)


def _is_due(grant: Grant, wish: Wish, now: datetime) -> bool:
    return wish.asked or (grant.due_at is not None and grant.due_at <= now)


async def _not_sent(
    scribe: _Scribe, due: lifecycle.Due, error: RotatorError, enrolment: Enrolment, tools: Tools
) -> Result:
    """A reference cannot be read: no intent is worth writing twice, but the failure takes the same path."""
    moment = tools.clock.moment()
    step = lifecycle.advance(scribe.grant, due, moment, enrolment.rules, tools.dice.chance())
    if not isinstance(step.order, lifecycle.Exchange):
        if step.grant != scribe.grant:
            await scribe.keep(step)
        return Result(scribe.grant, False, why=step.order.why or str(error), until=step.order.until)
    scribe.grant = step.grant
    return await _conclude(scribe, _unreadable(error), moment.now, None, enrolment, tools)


def _unreadable(error: RotatorError | None) -> Outcome:
    what, mend = (error.what, error.mend) if error is not None else ("credentials are not readable", "")
    return Outcome(cls=OutcomeClass.NOT_SENT, message=what, mend=mend)


async def _spend(
    scribe: _Scribe, order: lifecycle.Exchange, credentials: Credentials, enrolment: Enrolment, tools: Tools
) -> Result:
    deadline = enrolment.rules.deadline
    moment = tools.clock.moment()
    if not _holds(scribe.lease, moment):
        late = Outcome(cls=OutcomeClass.NOT_SENT, message="the machine stood still and the lease ran out")
        return await _conclude(scribe, late, moment.now, credentials, enrolment, tools)
    request = TokenRequest(order.kind, credentials, order.refresh)

    async def finish() -> Result:
        try:
            outcome = await enrolment.endpoint.exchange(request, deadline=deadline)
        except Exception as error:  # noqa: BLE001 (whatever it was, the request may have left: doubt, and told as a defect)
            tools.bus.tell(
                events.TaskFailed(
                    at=tools.clock.now(), doing=f"exchanging {enrolment.name}", error=type(error).__name__
                )
            )
            outcome = Outcome(cls=OutcomeClass.DOUBTFUL, message="the exchange ended in a defect")
        return await _conclude(scribe, outcome, moment.now, credentials, enrolment, tools)

    return await _shielded(finish())


def _holds(lease: Lease, moment: policy.Moment) -> bool:
    """Checked on the boot-time clock just before the first byte: wall time may have been set meanwhile."""
    return moment.boot_id == lease.until.boot_id and moment.boottime < lease.until.boottime


async def _conclude(
    scribe: _Scribe, outcome: Outcome, sent_at: datetime, credentials: Credentials | None, enrolment: Enrolment,
    tools: Tools,
) -> Result:  # fmt: skip
    fact = lifecycle.Concluded(
        outcome=outcome, sent_at=sent_at, credentials=credentials.digest if credentials else None
    )
    step = lifecycle.advance(scribe.grant, fact, tools.clock.moment(), enrolment.rules, tools.dice.chance())
    await scribe.keep(step, patiently=True)
    return Result(
        scribe.grant, True, None if outcome.cls is OutcomeClass.GRANTED else outcome, until=step.order.until
        if isinstance(step.order, lifecycle.Rest) else None,
    )  # fmt: skip


class _Scribe:
    """Carries the grant from step to step and makes each durable before anything is told."""

    def __init__(self, tools: Tools, lease: Lease, grant: Grant, saved: Callable[[Grant], None]) -> None:
        self.grant = grant
        self.lease = lease
        self._stored = grant.generation
        self._tools = tools
        self._saved = saved

    async def keep(self, step: lifecycle.Step, *, patiently: bool = False) -> None:
        """Save, then tell. ``patiently``: an answer is in hand, so the save is tried without end."""
        failures = 0
        while True:
            try:
                await self._tools.store.save(
                    step.grant, expected=self._stored, lease=self.lease, now=self._tools.clock.now()
                )
                break
            except Transient as error:
                if not patiently:
                    raise
                failures += 1
                await self._pause(error, failures)
        self.grant, self._stored = step.grant, step.grant.generation
        self._saved(step.grant)
        self._tools.bus.tell(*step.events)

    async def _pause(self, error: Transient, failures: int) -> None:
        tools = self._tools
        now = tools.clock.now()
        # Told at 1, 2, 4, 8 … failures: the log must not fill the disk that is full already.
        if failures & (failures - 1) == 0:
            doing = f"{self.grant.name}: an answer of the provider waits in memory to be saved (try {failures})"
            tools.bus.tell(events.StoreTroubled(at=now, reason=str(error), doing=doing))
        await tools.clock.wait_until(now + policy.backoff(failures, SAVE_RETRY, tools.dice.chance()))


async def _shielded(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end whatever happens to us; a cancellation that arrived meanwhile follows afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError as error:
            if task.cancelled():
                raise
            cancelled = error
        except Exception:  # noqa: BLE001 (raised again by result() below)
            break
    if cancelled is not None:
        task.exception()
        raise cancelled
    return task.result()


def _nobody(grant: Grant) -> None:
    pass


def as_error(result: Result) -> RotatorError | None:
    """What a person who asked for this rotation is told, as an error of the tree; None where it was granted."""
    outcome = result.outcome
    if outcome is None:
        return None if result.exchanged else Transient(result.why or "nothing was due")
    kinds: dict[OutcomeClass, type[RotatorError]] = {
        OutcomeClass.REFRESH_DEAD: Refused,
        OutcomeClass.REFUSED: Refused,
        OutcomeClass.MISCONFIGURED: Misconfigured,
        OutcomeClass.DOUBTFUL: Doubtful,
    }
    error = kinds.get(outcome.cls, Transient)
    return error(f"{result.grant.name}: {outcome.cls.value}: {outcome.message}", mend=outcome.mend)

"""One rotation: lease, look again, intent, exchange, save, release.

The irreversible step is fenced: the durable intent proves that the store can be written, the exchange spends, the
answer is saved at once, and only then is anything told. Once a request may have left, nothing cancels the save.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache

from rotator.core import events, lean, lifecycle, policy, tokens
from rotator.core.errors import RotatorError, Transient
from rotator.core.grants import Grant, Kind, Outcome, OutcomeClass
from rotator.core.ports import Credentials, Enrolment, Lease, TokenRequest
from rotator.core.tokens import Secret
from rotator.engine import remembered
from rotator.engine.crew import shielded
from rotator.engine.scribe import Saved, Scribe, Spans
from rotator.engine.tools import Tools


@lean.dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody asked of a rotation: see `lifecycle.Due`. ``password`` stands in for the configured one."""

    asked: bool = False
    forced: bool = False
    wanted: Kind | None = None
    password: Secret | None = None


Confirm = Callable[[Enrolment], Awaitable[None]]


@lean.dataclass(frozen=True, slots=True)
class Memory:
    """What a daemon knows of its grants beside what is stored.

    ``saved`` hears of every grant that became durable, before the events are told. ``recall`` gives what is known to
    have been saved later than what is stored, if anything was. ``confirm`` raises Overtaken where an enrolment is not
    what is entered any more; it is asked under the lease, before anything is done that another enrolment of that name
    would not do."""

    saved: Saved
    recall: Callable[[Grant], Grant | None]
    confirm: Confirm


@lean.dataclass(frozen=True, slots=True)
class Result:
    """The grant as it is saved now, and the error of the exchange, None where none was sent or it was granted.

    ``exchanged`` tells the two apart; ``why`` says why nothing was sent. ``asked`` tells whether the provider was asked
    at all: an exchange that failed before, for want of a secret, says nothing about it.
    """

    grant: Grant
    exchanged: bool
    outcome: Outcome | None = None
    why: str = ""
    until: datetime | None = None
    asked: bool = False

    @property
    def cls(self) -> OutcomeClass | None:
        """The class of the provider's answer; None where it was not asked."""
        if not self.asked:
            return None
        return OutcomeClass.GRANTED if self.outcome is None else self.outcome.cls


async def rotate(enrolment: Enrolment, tools: Tools, wish: Wish, memory: Memory) -> Result:
    """Do what is due for one grant, at most one exchange.

    Raises Overtaken where another owner holds the lease, saved first or changed the enrolment, Unavailable while the
    store is away *before* anything was spent. Cancelling is safe up to the exchange; from then on the answer is saved
    first and the cancellation follows.
    """
    # Before the lease, so that the whole of it is left for the exchange however long this takes.
    credentials = await _read_secrets(enrolment, tools, wish)
    async with _Leased(enrolment, tools, memory) as scribe:
        return await _under_lease(enrolment, tools, wish, scribe, credentials, memory.confirm)


async def note(enrolment: Enrolment, tools: Tools, fact: lifecycle.Fact, memory: Memory) -> None:
    """Bring one fact that is no exchange into the stored grant: lease, look again, judge, save, tell.

    Raises as `rotate` does.
    """
    async with _Leased(enrolment, tools, memory) as scribe:
        moment = tools.clock.moment()
        step = lifecycle.advance(scribe.grant, fact, moment, enrolment.rules, tools.dice.chance())
        if step.grant != scribe.grant:
            await scribe.keep(step)


class _Leased:
    """Lease, and look again. What went back in the store is put right first: it is spent already. What is stored under
    another identity (provider, client or user changed) starts anew: tokens of one identity are never spent, published
    or saved under another."""

    def __init__(self, enrolment: Enrolment, tools: Tools, memory: Memory) -> None:
        self._enrolment, self._tools, self._memory = enrolment, tools, memory

    async def __aenter__(self) -> Scribe:
        tools, one, clock = self._tools, self._enrolment, self._tools.clock
        self._lease, grant = await tools.store.lease(one.name, tools.owner, clock.moment(), one.rules.lease)
        try:
            scribe = Scribe(one.provider, tools, self._lease, grant, self._memory.saved)
            if (known := self._memory.recall(grant)) is not None:
                told = remembered.put_right(known, grant, clock.now())
                await scribe.keep(lifecycle.Step(known, lifecycle.Rest(known.due_at), (told,)))
                grant = known
            if grant.identity != (ours := identity(one, tools)):
                # Either we are told of a change before others, or another daemon was told before us.
                await self._memory.confirm(one)
                await scribe.keep(lifecycle.reidentify(grant, tools.dice.name(), ours, clock.now()))
        except BaseException:
            await self.__aexit__()
            raise
        return scribe

    async def __aexit__(self, *_: object) -> None:
        # What was saved is saved; a lease that could not be given back runs out.
        with suppress(RotatorError):
            await self._tools.store.release(self._lease)


async def enrol(enrolment: Enrolment, tools: Tools) -> tuple[Grant, bool]:
    """The grant to work with: as it is stored, made where there is none. Where provider, client or user changed it is
    one that has nothing yet, which the second value tells; the next rotation makes that durable, under its lease."""
    ours = identity(enrolment, tools)
    now = tools.clock.now()
    fresh = lifecycle.enrol(enrolment.name, tools.dice.name(), ours, now)
    grant = await tools.store.enrol(fresh)
    if grant.lineage == fresh.lineage:
        tools.bus.tell(events.Enrolled(at=now, grant=grant.name, lineage=grant.lineage))
    if grant.identity == ours:
        return grant, False
    return lifecycle.reidentify(grant, fresh.lineage, ours, now).grant, True


def identity(enrolment: Enrolment, tools: Tools) -> str:
    """What the tokens of a grant belong to, as records keep it."""
    return _identity(enrolment.identity, tools.key)


@lru_cache(1024)
def _identity(parts: tuple[str | None, ...], key: bytes) -> str:
    return tokens.digest(parts, key)


async def _read_secrets(enrolment: Enrolment, tools: Tools, wish: Wish) -> Credentials | RotatorError:
    limit = enrolment.rules.deadline
    try:
        # Bounded: a Vault or a FIFO that keeps silent must not hold the grant for ever.
        async with tools.clock.deadline(limit):
            return await enrolment.credentials.resolve(password=wish.password)
    except RotatorError as error:
        return error
    except TimeoutError:
        what = f"the secrets of grants.{enrolment.name} were not read within {events.brief(limit)}"
        return Transient(what, mend="look where they are kept")


async def _under_lease(
    enrolment: Enrolment, tools: Tools, wish: Wish, scribe: Scribe, credentials: Credentials | RotatorError,
    confirm: Confirm,
) -> Result:  # fmt: skip
    unreadable = credentials if isinstance(credentials, RotatorError) else None
    due = lifecycle.Due(
        credentials=None if isinstance(credentials, RotatorError) else credentials.digest,
        asked=wish.asked, forced=wish.forced, wanted=wish.wanted,
    )  # fmt: skip
    moment = tools.clock.moment()
    step = lifecycle.advance(scribe.grant, due, moment, enrolment.rules, tools.dice.chance())
    order = step.order
    if isinstance(order, lifecycle.Rest):
        if step.grant != scribe.grant:
            await scribe.keep(step)
        why = order.why or ("" if unreadable is None else str(unreadable))
        return Result(scribe.grant, False, why=why, until=order.until)
    if isinstance(credentials, RotatorError):
        # Neither is the intent worth a write nor the failure worth waiting for: nothing can be lost.
        scribe.grant = step.grant
        outcome = Outcome(cls=OutcomeClass.NOT_SENT, message=credentials.what, mend=credentials.mend)
        earlier = tuple(one for one in step.events if not isinstance(one, events.ExchangeStarted))
        return await _conclude(scribe, outcome, moment, moment, None, enrolment, tools, asked=False, earlier=earlier)
    if order.kind is Kind.PASSWORD:
        # A login with what was entered before is one too many: some lock the account.
        await confirm(enrolment)
    await scribe.keep(step)
    return await _spend(scribe, order, credentials, enrolment, tools)


async def _spend(
    scribe: Scribe, order: lifecycle.Exchange, credentials: Credentials, enrolment: Enrolment, tools: Tools
) -> Result:
    deadline = enrolment.rules.deadline
    moment = tools.clock.moment()
    if not _outlasts(scribe.lease, moment, deadline):
        late = Outcome(cls=OutcomeClass.NOT_SENT, message="the machine stood still and the lease ran out")
        return await _conclude(scribe, late, moment, moment, credentials, enrolment, tools, asked=False)
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
        return await _conclude(scribe, outcome, moment, tools.clock.moment(), credentials, enrolment, tools, asked=True)

    return await shielded(finish())


def _outlasts(lease: Lease, moment: policy.Moment, deadline: timedelta) -> bool:
    """Whether the whole exchange fits into the lease, so that nobody starts beside it. Checked just before the first
    byte and on the boot-time clock: wall time may have been set meanwhile."""
    return moment.boot_id == lease.until.boot_id and moment.boottime + deadline <= lease.until.boottime


async def _conclude(
    scribe: Scribe, outcome: Outcome, began: policy.Moment, ended: policy.Moment, credentials: Credentials | None,
    enrolment: Enrolment, tools: Tools, *, asked: bool, earlier: tuple[events.Event, ...] = (),
) -> Result:  # fmt: skip
    fact = lifecycle.Concluded(
        outcome=outcome, sent_at=began.now, credentials=credentials.digest if credentials else None
    )
    step = lifecycle.advance(scribe.grant, fact, ended, enrolment.rules, tools.dice.chance())
    # Without credentials there was no intent either: nothing is open that a failed save would leave open.
    step = replace(step, events=(*earlier, *step.events)) if earlier else step
    spans = Spans(ended.boottime, ended.boottime - began.boottime) if asked else None
    await scribe.keep(step, patiently=credentials is not None, spans=spans)
    return Result(
        scribe.grant, True, None if outcome.cls is OutcomeClass.GRANTED else outcome, until=step.order.until
        if isinstance(step.order, lifecycle.Rest) else None, asked=asked,
    )  # fmt: skip

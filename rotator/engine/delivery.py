"""One delivery: the saved generation to one target."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from rotator.core import events, policy
from rotator.core.errors import Transient
from rotator.core.grants import Grant
from rotator.core.ports import Publisher
from rotator.core.publication import Found, Publication, Settled
from rotator.engine import agenda, hooks
from rotator.engine.agenda import Post
from rotator.engine.orphans import reason_of
from rotator.engine.tools import Tools

RETRY = policy.Rules(backoff_base=timedelta(seconds=1), backoff_cap=timedelta(seconds=30))


async def deliver(
    grant: Grant, target: str, publisher: Publisher, post: Post, tools: Tools, verify_every: timedelta,
    answered: timedelta | None = None,
) -> Post:  # fmt: skip
    """Settle one target and say what is known of it now. Never raises for the target or the store."""
    access, now = grant.access, (began := tools.clock.moment()).now
    # Counted from here: a slow answer does not put the next look off.
    next_look = now + verify_every
    if access is None or grant.unproven or not access.is_valid(now):
        # Nothing that may be published: what stands there stays until it really expires.
        return replace(post, look_at=next_look)
    if publisher.judged_by_mark and hooks.is_told(post, grant):
        if not post.holds(grant):
            ahead = Settled(Found.AHEAD, generation=post.generation)
            return replace(post, ahead=ahead, trouble="was told of a newer generation", look_at=next_look)
        # It ran, and nobody can look whether it did; what may be missing is the mark.
        recorded = post.recorded or await agenda.record(grant, target, publisher, "", tools.store)
        return replace(post, look_at=next_look, recorded=recorded)
    try:
        settled = await publisher.settle(Publication(grant.name, grant.lineage, access), now)
    except Exception as error:  # noqa: BLE001 (a publisher's defect is told and retried like a failure)
        if publisher.local and post.holds(grant):
            # What is right is only read: somebody took it away or altered it, and it cannot be put right.
            post = replace(post, valid_until=None)
        return _failed(grant, target, publisher, post, error, tools, verify_every)
    now = (ended := tools.clock.moment()).now
    if settled.found is Found.AHEAD:
        post = replace(post, ahead=settled, trouble="holds a newer generation", valid_until=settled.expires_at)
        return replace(post, look_at=next_look)
    repairs, found = 0, settled.found
    if found is Found.ALTERED and post.lineage == grant.lineage and not post.holds(grant):
        # A raw file tells no generation; we know which one we left there, and that it is not tampering.
        found = Found.OLDER
    if found is not Found.CURRENT:
        repairs = post.repairs + 1 if post.holds(grant) else 0
        told = events.Repaired if repairs else events.Delivered
        tools.bus.tell(
            told(
                at=now, grant=grant.name, target=target, generation=access.generation, found=found.value,
                kind=publisher.location.partition(":")[0], took=ended.boottime - began.boottime,
                since_answer=None if answered is None else ended.boottime - answered,
            )
        )  # fmt: skip
    # What nobody has looked at in this life but is right was recorded when it was written.
    recorded = post.recorded and found is Found.CURRENT and (post.generation is None or post.holds(grant))
    return Post(
        now + policy.backoff(repairs, RETRY, tools.dice.chance()) if repairs else next_look,
        access.generation,
        grant.lineage,
        repairs=repairs,
        recorded=recorded or await agenda.record(grant, target, publisher, settled.mark, tools.store),
        valid_until=access.expires_at,
    )


def _failed(
    grant: Grant, target: str, publisher: Publisher, post: Post, error: Exception, tools: Tools, verify_every: timedelta
) -> Post:
    now = tools.clock.now()
    failures = post.failures + 1
    rules = hooks.RETRY if publisher.judged_by_mark else RETRY
    pause = policy.backoff(failures, rules, tools.dice.chance())
    if not isinstance(error, Transient):
        # A person must act: no hurry, but it heals without a command once he did.
        pause = max(pause, rules.backoff_cap)
    # A target that answers again is right again within the time that every other one is looked at.
    retry_at = now + (pause if publisher.judged_by_mark else min(pause, verify_every))
    reason = reason_of(error)
    told = events.DeliveryStillFailing if reason == post.trouble else events.DeliveryFailed
    kind = publisher.location.partition(":")[0]
    tools.bus.tell(told(at=now, grant=grant.name, target=target, reason=reason, retry_at=retry_at, kind=kind))
    return replace(post, trouble=reason, failures=failures, look_at=retry_at)

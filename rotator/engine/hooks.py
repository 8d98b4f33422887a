"""When a hook runs: a target of which nobody can see whether it was told.

*Durable, at least once.* The mark of its delivery in the store is all that is known of it. It is due while that mark is
of another generation than the saved one, and not looked at otherwise. Killed between the save and the mark, it runs
(again) at the next start; once marked, never again for that generation. Where it ran and the store took no mark, this
life does not run it again, but tries to mark it; only a death before that makes it run twice.

*The newest only.* A hook that fails is tried again, the longer the less often. What is saved meanwhile replaces what it
was to tell: it is told of the generation that counts when it runs, and never of an earlier one than before.

*Order.* It runs after the targets that it waits for hold the generation it tells. Those named by ``after`` are waited
for, whatever happens to them. Where nothing is named it waits for every local target (a reload must not come before the
file that is to be read), and for every other one that is not failing: a Vault that is away must not keep the reader of
a file waiting, for more than the one try that shows it to be away. Hooks do not wait for each other.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from rotator.core import policy
from rotator.core.grants import Grant
from rotator.core.ports import Delivery, Enrolment, Publisher
from rotator.engine.agenda import Post

# Slower than a target that is written: each try may restart an application.
RETRY = policy.Rules(backoff_base=timedelta(seconds=1), backoff_cap=timedelta(minutes=5))


def first_post(publisher: Publisher, old: Post | None, mark: Delivery | None, now: datetime) -> Post:
    """What is known of a target that begins: of a hook what the store remembers, or what we know better (``old``, of
    the same location: it may have run since the store was read)."""
    if not publisher.judged_by_mark:
        return Post(now)
    if old is not None and old.generation is not None:
        return Post(now, old.generation, old.lineage, recorded=old.recorded)
    return Post(now) if mark is None else Post(now, mark.generation, mark.lineage, recorded=True)


def is_told(post: Post, grant: Grant) -> bool:
    """Whether there is nothing to tell: this generation was told, or a later one, which proves that what is saved is an
    old copy, as with any other target."""
    access = grant.access
    told = post.generation is not None and post.lineage == grant.lineage
    return access is not None and told and access.generation <= (post.generation or 0)


def is_news(before: Grant, after: Grant) -> bool:
    """Whether there is another token to publish; an intent or a failure that was saved is none."""
    if before.access is None or after.access is None or before.lineage != after.lineage:
        return before.access is not after.access
    return before.access.generation != after.access.generation


def awaits(target: str, enrolment: Enrolment, posts: dict[str, Post], grant: Grant) -> bool:
    """Whether a hook must still wait for another target to hold what is saved."""
    named = enrolment.after.get(target)
    for other, publisher in enrolment.targets.items():
        if publisher.judged_by_mark or posts[other].holds(grant):
            continue
        if other in named if named is not None else publisher.local or not posts[other].trouble:
            return True
    return False


def are_let_go(before: Post, after: Post, grant: Grant) -> bool:
    """Whether what became of a target may end the waiting of hooks: it took the generation, or began to fail."""
    return (after.holds(grant) and not before.holds(grant)) or (bool(after.trouble) and not before.trouble)


def is_same(one: Publisher | None, other: Publisher) -> bool:
    """Whether a hook of another reading of the configuration is told once both were."""
    return one is not None and one.judged_by_mark and other.judged_by_mark and one.location == other.location

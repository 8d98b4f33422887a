"""One delivery: the saved generation to one target; and the round over all targets.

Level-triggered: a target is settled to what the store says, whether it was never written, is behind, or was touched.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from rotator.core import events, health, policy
from rotator.core.errors import RotatorError, Transient
from rotator.core.grants import Grant
from rotator.core.ports import Delivery, Enrolment, Publisher, Roster, Watcher
from rotator.core.publication import Found, Publication, Settled
from rotator.engine import hooks
from rotator.engine.agenda import Agenda, Post
from rotator.engine.crew import Crew
from rotator.engine.orphans import Orphans, reason_of
from rotator.engine.rotation import Tools

RETRY = policy.Rules(backoff_base=timedelta(seconds=1), backoff_cap=timedelta(seconds=30))


@dataclass(slots=True)
class _Round:
    """The targets of one grant, and the grant as it was last saved."""

    enrolment: Enrolment
    grant: Grant
    posts: dict[str, Post]


class Courier:
    """Carries saved generations to all targets, looks at each again, and clears away what is no longer configured.

    ``ring`` asks for a sweep; ``behind`` hears of a target that proves our store to be an old copy.
    """

    def __init__(
        self,
        tools: Tools,
        crew: Crew,
        watcher: Watcher,
        verify_every: timedelta,
        ring: Callable[[], None],
        behind: Callable[[str, str, Settled], Awaitable[None]],
    ) -> None:
        self._tools = tools
        self._crew = crew
        self._watcher = watcher
        self._verify_every = verify_every
        self._ring = ring
        self._behind = behind
        self._rounds: dict[str, _Round] = {}
        self._agenda = Agenda()
        self._orphans = Orphans(tools, verify_every)

    def take_over(self, work: Iterable[tuple[Enrolment, Grant]], marks: Sequence[Delivery] = ()) -> None:
        """Serve these enrolments from now on; what is known of unchanged ones is kept. ``marks`` is what the store
        remembers, where there are hooks."""
        told = {(mark.grant, mark.location): mark for mark in marks}
        rounds: dict[str, _Round] = {}
        for enrolment, grant in work:
            old = self._rounds.get(enrolment.name)
            posts = {
                target: self._first_post(old, enrolment, target, told.get((enrolment.name, publisher.location)))
                for target, publisher in enrolment.targets.items()
            }
            rounds[enrolment.name] = _Round(enrolment, grant, posts)
        self._rounds = rounds
        self._plan_anew()
        places = (place.location for one in rounds.values() for place in one.enrolment.targets.values())
        self._orphans.take_over(frozenset(places))
        self._watch()

    def _first_post(self, old: _Round | None, enrolment: Enrolment, target: str, mark: Delivery | None) -> Post:
        known, publisher = None, enrolment.targets[target]
        if old is not None and target in old.posts:
            if old.enrolment.fingerprint == enrolment.fingerprint:
                return old.posts[target]
            if hooks.is_same(old.enrolment.targets[target], publisher):
                known = old.posts[target]
        return hooks.first_post(publisher, known, mark, self._tools.clock.now())

    def _watch(self) -> None:
        places: dict[str, Callable[[], None]] = {}
        for name, one in self._rounds.items():
            for target, publisher in one.enrolment.targets.items():
                if publisher.local:
                    places[publisher.location] = partial(self._touched, name, target)
        self._watcher.watch(places)

    def _touched(self, name: str, target: str) -> None:
        one = self._rounds.get(name)
        if one is not None and target in one.posts and not one.posts[target].rests:
            self._start(name, target)

    def saved(self, grant: Grant) -> None:
        """A grant that is served here became durable: publish it now."""
        one = self._rounds[grant.name]
        news = hooks.is_news(one.grant, grant)
        one.grant = grant
        for target, post in one.posts.items():
            # A hook that fails rests; that something else of the grant was saved is no reason to try it.
            if not post.holds(grant) and (news or not one.enrolment.targets[target].judged_by_mark):
                self._start(grant.name, target)

    def look_again(self) -> None:
        """Wall time was set: no time that was planned by it holds any more."""
        now = self._tools.clock.now()
        for one in self._rounds.values():
            one.posts = {target: replace(post, look_at=now) for target, post in one.posts.items()}
        self._plan_anew()
        self._orphans.look_again()

    def _plan_anew(self) -> None:
        self._agenda.clear()
        for name, one in self._rounds.items():
            for target, post in one.posts.items():
                self._plan(name, target, post)

    def _plan(self, name: str, target: str, post: Post) -> None:
        self._agenda.plan((name, target), post.look_at, rests=post.rests)

    def sweep(self, roster: Roster) -> None:
        """Look at every target whose time has come, and at what ``roster`` configures no more."""
        now = self._tools.clock.now()
        if self._orphans.is_due(now):
            self._crew.start(("orphans",), partial(self._orphans.clear, roster))
        for name, target in self._agenda.due(now):
            # Planned again at once: a delivery that a defect ends plans nothing itself.
            posts = self._rounds[name].posts
            posts[target] = replace(posts[target], look_at=now + self._verify_every)
            self._plan(name, target, posts[target])
            self._start(name, target)

    def retries(self, now: datetime) -> list[datetime]:
        """When targets that rest are tried again. Mere looking is left to the beat of the sweep."""
        return self._agenda.alarms(now)

    def health(self, name: str) -> list[health.TargetHealth]:
        one = self._rounds[name]
        return [
            health.TargetHealth(
                target,
                one.enrolment.targets[target].location,
                post.generation if post.holds(one.grant) else None,
                post.trouble,
                hook=one.enrolment.targets[target].judged_by_mark,
            )
            for target, post in one.posts.items()
        ]

    def _start(self, name: str, target: str) -> None:
        self._crew.start(("deliver", name, target), partial(self._deliver, name, target))

    async def _deliver(self, name: str, target: str) -> None:
        """Settle one target until it holds what is saved *now*: a rotation may have ended meanwhile."""
        while (one := self._rounds.get(name)) is not None and target in one.posts:
            grant, publisher = one.grant, one.enrolment.targets[target]
            if publisher.judged_by_mark and hooks.awaits(target, one.enrolment, one.posts, grant):
                # Whoever it waits for starts it; the regular look does, where that is forgotten.
                return
            post = await deliver(grant, target, publisher, one.posts[target], self._tools, self._verify_every)
            now = self._rounds.get(name)
            if now is None or not _counts(publisher, now.enrolment.targets.get(target), post, grant):
                # A reload came between: once more, with the publisher that counts now.
                continue
            before, now.posts[target] = now.posts[target], (noted := replace(post, ahead=None))
            self._plan(name, target, noted)
            if not publisher.judged_by_mark and hooks.are_let_go(before, noted, now.grant):
                self._run_hooks(name, now)
            if hooks.is_news(grant, now.grant):
                continue
            if post.ahead is not None:
                await self._behind(name, target, post.ahead)
            elif post.rests:
                self._ring()
            return

    def _run_hooks(self, name: str, one: _Round) -> None:
        """Those that are due; each looks itself whether it must wait for others still."""
        for target, publisher in one.enrolment.targets.items():
            if publisher.judged_by_mark and not hooks.is_told(one.posts[target], one.grant):
                self._start(name, target)

    async def clear_away(self, grant: str, roster: Roster) -> None:
        """Delete what was published for a grant that is retired, at once. Raises what the store raises."""
        await self._orphans.clear_away(grant, roster)


def _counts(used: Publisher, now: Publisher | None, post: Post, grant: Grant) -> bool:
    """Whether what ``used`` came to still says something: a hook that ran need not run again for a reload."""
    return now is used or (post.holds(grant) and hooks.is_same(now, used))


async def deliver(
    grant: Grant, target: str, publisher: Publisher, post: Post, tools: Tools, verify_every: timedelta
) -> Post:
    """Settle one target and say what is known of it now. Never raises for the target or the store."""
    now = tools.clock.now()
    access = grant.access
    if access is None or grant.unproven or not access.is_valid(now):
        # Nothing that may be published: what stands there stays until it really expires.
        return replace(post, look_at=now + verify_every)
    if publisher.judged_by_mark and hooks.is_told(post, grant):
        if not post.holds(grant):
            ahead = Settled(Found.AHEAD, generation=post.generation)
            return replace(post, ahead=ahead, trouble="was told of a newer generation", look_at=now + verify_every)
        # It ran, and nobody can look whether it did; what may be missing is the mark.
        recorded = post.recorded or await _record(grant, target, publisher, "", tools)
        return replace(post, look_at=now + verify_every, recorded=recorded)
    try:
        settled = await publisher.settle(Publication(grant.name, grant.lineage, access), now)
    except Exception as error:  # noqa: BLE001 (a publisher's defect is told and retried like a failure)
        return _failed(grant, target, publisher, post, error, tools, verify_every)
    now = tools.clock.now()
    if settled.found is Found.AHEAD:
        return replace(post, ahead=settled, trouble="holds a newer generation", look_at=now + verify_every)
    repairs, found = 0, settled.found
    if found is Found.ALTERED and post.lineage == grant.lineage and not post.holds(grant):
        # A raw file tells no generation; we know which one we left there, and that it is not tampering.
        found = Found.OLDER
    if found is not Found.CURRENT:
        repairs = post.repairs + 1 if post.holds(grant) else 0
        kind = events.Repaired if repairs else events.Delivered
        tools.bus.tell(kind(at=now, grant=grant.name, target=target, generation=access.generation, found=found.value))
    recorded = post.recorded and post.holds(grant) and found is Found.CURRENT
    return Post(
        now + (policy.backoff(repairs, RETRY, tools.dice.chance()) if repairs else verify_every),
        access.generation,
        grant.lineage,
        repairs=repairs,
        recorded=recorded or await _record(grant, target, publisher, settled.mark, tools),
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
    if reason != post.trouble:
        told = events.DeliveryFailed(at=now, grant=grant.name, target=target, reason=reason, retry_at=retry_at)
        tools.bus.tell(told)
    return replace(post, trouble=reason, failures=failures, look_at=retry_at)


async def _record(grant: Grant, target: str, publisher: Publisher, mark: str, tools: Tools) -> bool:
    """Remember where the token stands, so that it can be taken away once nobody configures it any more; of a hook, that
    it was told.

    Readers already have it: a store that is away only means that it is written at the next look."""
    assert grant.access is not None  # noqa: S101 (only what was published is recorded)
    delivery = Delivery(
        grant=grant.name,
        target=target,
        location=publisher.location,
        lineage=grant.lineage,
        generation=grant.access.generation,
        expires_at=grant.access.expires_at,
        mark=mark,
    )
    try:
        await tools.store.delivered(delivery)
    except RotatorError:
        return False
    return True

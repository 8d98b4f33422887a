"""The round over all targets: saved generations to each, and a look at each again and again.

Level-triggered: a target is settled to what the store says, whether it was never written, is behind, or was touched.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from rotator.core import health, policy
from rotator.core.grants import Grant
from rotator.core.ports import Delivery, Enrolment, Publisher, Roster, Watcher
from rotator.core.publication import Settled
from rotator.engine import delivery, hooks
from rotator.engine.agenda import Agenda, Post
from rotator.engine.crew import Crew
from rotator.engine.orphans import Orphans
from rotator.engine.pacing import TOGETHER, ahead
from rotator.engine.tools import Tools


@dataclass(slots=True)
class _Round:
    """The targets of one grant, and the grant as it was last saved; ``answered``: see `scribe.Saved`."""

    enrolment: Enrolment
    grant: Grant
    posts: dict[str, Post]
    answered: timedelta | None = None


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
        # To be looked at once what is near has been.
        self._far: dict[tuple[str, str], None] = {}
        self._orphans = Orphans(tools, verify_every)
        # Grants whose targets stand differently since somebody last took note.
        self.changed: set[str] = set()

    def take_over(
        self,
        residents: Iterable[tuple[Enrolment, Grant]],
        guests: Iterable[tuple[Enrolment, Grant]] = (),
        marks: Sequence[Delivery] = (),
    ) -> None:
        """Serve these enrolments from now on; what is known of unchanged ones is kept. The places of guests, who will
        leave, are neither watched nor theirs for good. ``marks`` is what the store remembers, where there are hooks."""
        told = {(mark.grant, mark.location): mark for mark in marks}
        rounds: dict[str, _Round] = {}
        staying = list(residents)
        for enrolment, grant in (*staying, *guests):
            old = self._rounds.get(enrolment.name)
            posts = {
                target: self._first_post(old, enrolment, target, told.get((enrolment.name, publisher.location)))
                for target, publisher in enrolment.targets.items()
            }
            rounds[enrolment.name] = _Round(enrolment, grant, posts)
        self._rounds = rounds
        self._plan_anew()
        places = (place.location for enrolment, _ in staying for place in enrolment.targets.values())
        self._orphans.take_over(frozenset(places))
        self._watch([enrolment for enrolment, _ in staying])

    def take_in(self, enrolment: Enrolment, grant: Grant, marks: Sequence[Delivery], *, trusting: bool) -> None:
        """Serve one more for a while; ``trusting``: what was published last still stands there. ``marks`` as above."""
        now, access = self._tools.clock.now(), grant.access
        told = {mark.location: mark for mark in marks}
        if trusting and access is not None:
            post = Post(now + self._verify_every, access.generation, grant.lineage, recorded=True)
            posts = dict.fromkeys(enrolment.targets, post)
        else:
            posts = {
                # What stands there was recorded when it was written: a walk over all of them need not write it again.
                target: hooks.first_post(publisher, None, told.get(publisher.location), now)
                if publisher.judged_by_mark
                else Post(now, recorded=True)
                for target, publisher in enrolment.targets.items()
            }
        self._rounds[enrolment.name] = _Round(enrolment, grant, posts)
        if not trusting:
            for target in posts:
                self._start(enrolment.name, target)

    def remake(self, enrolment: Enrolment, grant: Grant) -> None:
        """Serve one in another way from now on; what is known of its hooks still holds."""
        old = self._rounds.get(enrolment.name)
        posts = {target: self._first_post(old, enrolment, target, None) for target in enrolment.targets}
        self._rounds[enrolment.name] = _Round(enrolment, grant, posts)
        for target in posts:
            self._start(enrolment.name, target)

    def let_go(self, name: str) -> None:
        """Serve it no more. Nothing of it may be in flight."""
        for target in self._rounds.pop(name).posts:
            self._agenda.drop((name, target))

    def is_settled(self, name: str) -> bool:
        """Whether every target holds what is saved, on record, or there is nothing that may be published."""
        one, now = self._rounds[name], self._tools.clock.now()
        if one.grant.unproven or not one.grant.holds_valid(now):
            return True
        return all(post.holds(one.grant) and post.recorded and not post.rests for post in one.posts.values())

    def _first_post(self, old: _Round | None, enrolment: Enrolment, target: str, mark: Delivery | None) -> Post:
        known, publisher = None, enrolment.targets[target]
        if old is not None and target in old.posts:
            if old.enrolment.fingerprint == enrolment.fingerprint:
                return old.posts[target]
            if hooks.is_same(old.enrolment.targets[target], publisher):
                known = old.posts[target]
        return hooks.first_post(publisher, known, mark, self._tools.clock.now())

    def _watch(self, enrolments: Iterable[Enrolment]) -> None:
        places: dict[str, Callable[[], None]] = {}
        for one in enrolments:
            for target, publisher in one.targets.items():
                if publisher.local:
                    places[publisher.location] = partial(self.touched, one.name, target)
        self._watcher.watch(places)

    def watch(self) -> None:
        """From now on a local target that is touched is looked at, at once."""
        self._watcher.begin()

    def touched(self, name: str, target: str) -> None:
        """Look at a target that may have changed, unless it rests."""
        one = self._rounds.get(name)
        if one is not None and target in one.posts and not one.posts[target].rests:
            self._start(name, target)

    def saved(self, grant: Grant, answered: timedelta | None = None) -> None:
        """A grant that is served here became durable: publish it now. ``answered``: see `scribe.Saved`."""
        one = self._rounds[grant.name]
        news = hooks.is_news(one.grant, grant)
        if grant.access is not one.grant.access:
            one.answered = answered
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
        # With the beat that comes nearest; what rests has an alarm of its own.
        early = policy.ZERO if post.rests else ahead(self._verify_every)
        self._agenda.plan((name, target), post.look_at - early, rests=post.rests)

    def sweep(self, roster: Roster) -> None:
        """Look at every target whose time has come, and at what ``roster`` configures no more."""
        now = self._tools.clock.now()
        if self._orphans.is_due(now):
            self._crew.start(("orphans",), partial(self._orphans.clear, roster))
        near: list[asyncio.Task[None]] = []
        for name, target in self._agenda.due(now):
            # Planned again at once: a delivery that a defect ends plans nothing itself.
            one = self._rounds[name]
            post = one.posts[target] = replace(one.posts[target], look_at=now + self._verify_every)
            self._plan(name, target, post)
            if post.rests or one.enrolment.targets[target].local or not post.holds(one.grant):
                near += filter(None, [self._start(name, target)])
            else:
                self._far[name, target] = None
        if near or self._far:
            self._crew.start(("round",), partial(self._go_round, near, roster))
        else:
            self._crew.start(("tend",), roster.tend)

    async def _go_round(self, near: Collection[asyncio.Task[None]], roster: Roster) -> None:
        """What is far and right as far as we know is looked at after what is near, and with logins that were tended:
        threads that run at once wake each other at every system call."""
        await self._pause(near)
        tending = self._crew.start(("tend",), roster.tend)
        if self._far and tending is not None:
            await self._pause([tending])
        far, self._far = self._far, {}
        for name, target in far:
            self._start(name, target)

    async def _pause(self, tasks: Collection[asyncio.Task[None]]) -> None:
        """Until they have ended, and not for long: what keeps silent holds up nobody."""
        if tasks:
            with suppress(TimeoutError):
                async with self._tools.clock.deadline(TOGETHER):
                    await asyncio.wait(tasks)

    def retries(self, now: datetime) -> list[datetime]:
        """When targets that rest are tried again. Mere looking is left to the beat of the sweep."""
        return self._agenda.alarms(now)

    def health(self, name: str) -> list[health.TargetHealth]:
        one = self._rounds[name]
        enrolment, places = one.enrolment, one.enrolment.targets
        return [
            health.TargetHealth(
                target,
                places[target].location,
                post.generation if post.holds(one.grant) else None,
                post.trouble,
                post.valid_until,
                enrolment.is_required(target),
                places[target].judged_by_mark,
            )
            for target, post in one.posts.items()
        ]

    def _start(self, name: str, target: str) -> asyncio.Task[None] | None:
        return self._crew.start(("deliver", name, target), partial(self._deliver, name, target))

    async def _deliver(self, name: str, target: str) -> None:
        """Settle one target until it holds what is saved *now*: a rotation may have ended meanwhile."""
        while (one := self._rounds.get(name)) is not None and target in one.posts:
            grant, publisher = one.grant, one.enrolment.targets[target]
            if publisher.judged_by_mark and hooks.awaits(target, one.enrolment, one.posts, grant):
                # Whoever it waits for starts it; the regular look does, where that is forgotten.
                return
            post = await delivery.deliver(
                grant, target, publisher, one.posts[target], self._tools, self._verify_every, one.answered
            )
            now = self._rounds.get(name)
            if now is None or not _counts(publisher, now.enrolment.targets.get(target), post, grant):
                # A reload came between: once more, with the publisher that counts now.
                continue
            before, noted = now.posts[target], post if post.ahead is None else replace(post, ahead=None)
            if noted.differs(before):
                self.changed.add(name)
            now.posts[target] = noted
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

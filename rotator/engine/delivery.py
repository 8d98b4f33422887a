"""One delivery: the saved generation to one target; and the round over all targets.

Level-triggered: a target is settled to what the store says, whether it was never written, is behind, or was touched.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial

from rotator.core import events, health, policy
from rotator.core.errors import Misconfigured, RotatorError, Transient
from rotator.core.grants import Grant
from rotator.core.ports import Delivery, Enrolment, Publisher, Roster, Watcher
from rotator.core.publication import Found, Publication, Settled
from rotator.engine.agenda import Agenda, Post
from rotator.engine.crew import Crew
from rotator.engine.rotation import Tools

RARELY = timedelta(hours=1)
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
        self._places: frozenset[str] = frozenset()
        self._orphans_at: datetime | None = None
        self._stuck: dict[tuple[str, str], str] = {}

    def take_over(self, work: Iterable[tuple[Enrolment, Grant]]) -> None:
        """Serve these enrolments from now on; what is known of unchanged ones is kept."""
        now = self._tools.clock.now()
        rounds: dict[str, _Round] = {}
        for enrolment, grant in work:
            old = self._rounds.get(enrolment.name)
            same = old is not None and old.enrolment.fingerprint == enrolment.fingerprint
            kept = old.posts if old is not None and same else {}
            posts = {target: kept.get(target, Post(now)) for target in enrolment.targets}
            rounds[enrolment.name] = _Round(enrolment, grant, posts)
        self._rounds = rounds
        self._plan_anew()
        self._places = frozenset(place.location for one in rounds.values() for place in one.enrolment.targets.values())
        self._orphans_at = None
        self._watch()

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
        one.grant = grant
        for target, post in one.posts.items():
            if not post.holds(grant):
                self._start(grant.name, target)

    def look_again(self) -> None:
        """Wall time was set: no time that was planned by it holds any more."""
        now = self._tools.clock.now()
        for one in self._rounds.values():
            one.posts = {target: replace(post, look_at=now) for target, post in one.posts.items()}
        self._plan_anew()
        self._orphans_at = None

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
        if self._orphans_at is None or self._orphans_at <= now:
            self._crew.start(("orphans",), partial(self._clear_orphans, roster))
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
            )
            for target, post in one.posts.items()
        ]

    def _start(self, name: str, target: str) -> None:
        self._crew.start(("deliver", name, target), partial(self._deliver, name, target))

    async def _deliver(self, name: str, target: str) -> None:
        """Settle one target until it holds what is saved *now*: a rotation may have ended meanwhile."""
        while (one := self._rounds.get(name)) is not None and target in one.posts:
            grant, publisher = one.grant, one.enrolment.targets[target]
            post = await deliver(grant, target, publisher, one.posts[target], self._tools, self._verify_every)
            now = self._rounds.get(name)
            if now is None or now.enrolment.targets.get(target) is not publisher:
                # A reload came between: once more, with the publisher that counts now.
                continue
            now.posts[target] = noted = replace(post, ahead=None) if post.ahead is not None else post
            self._plan(name, target, noted)
            if now.grant.access is not grant.access:
                continue
            if post.ahead is not None:
                await self._behind(name, target, post.ahead)
            elif post.rests:
                self._ring()
            return

    # --- what is no longer configured --------------------------------------------------------------------------

    async def _clear_orphans(self, roster: Roster) -> None:
        """Targets that nobody configures any more: served until the token expires, then deleted.

        A task of its own: a Vault that keeps silent must not hold up the sweep."""
        now, places = self._tools.clock.now(), self._places
        self._orphans_at = next_at = now + self._verify_every
        deliveries = await self._tools.store.deliveries()
        if not self._tools.store.follows and all(one.location in places for one in deliveries):
            # Nobody else writes there, and a reload asks anew: there will be none before.
            next_at = now + RARELY
        for orphan in deliveries:
            # Looked up for each: a reload may have come while the one before was removed.
            if orphan.location in self._places:
                continue
            if orphan.expires_at <= now:
                await self._remove(orphan, roster)
            else:
                next_at = min(next_at, orphan.expires_at)
        if self._places is places:
            self._orphans_at = next_at

    async def clear_away(self, grant: str, roster: Roster) -> None:
        """Delete what was published for a grant that is retired, at once. Raises what the store raises."""
        for orphan in await self._tools.store.deliveries(grant):
            if orphan.location in self._places:
                # Another grant publishes there now.
                await self._tools.store.forget(orphan.grant, orphan.location)
            else:
                await self._remove(orphan, roster)

    async def _remove(self, orphan: Delivery, roster: Roster) -> None:
        """Delete one delivered token, if it still stands there, and forget it. Where that fails it is told once for
        each reason, and tried again at the next round."""
        tools, key = self._tools, (orphan.grant, orphan.location)
        try:
            publisher = roster.publisher_at(orphan.location)
            if publisher is None:
                raise Misconfigured("nothing in the configuration leads there any more", mend="delete it by hand")
            gone = await publisher.remove(orphan.mark)
            await tools.store.forget(orphan.grant, orphan.location)
        except Exception as error:  # noqa: BLE001 (a publisher's defect must not keep the other orphans)
            reason = _reason(error)
            if self._stuck.get(key) != reason:
                text = f"{orphan.grant}: {orphan.location} is no longer configured but not deleted: {reason}"
                tools.bus.tell(events.Warned(at=tools.clock.now(), text=text))
            self._stuck[key] = reason
            return
        self._stuck.pop(key, None)
        if gone:
            tools.bus.tell(events.TargetRemoved(at=tools.clock.now(), grant=orphan.grant, target=orphan.target))


async def deliver(
    grant: Grant, target: str, publisher: Publisher, post: Post, tools: Tools, verify_every: timedelta
) -> Post:
    """Settle one target and say what is known of it now. Never raises for the target or the store."""
    now = tools.clock.now()
    access = grant.access
    if access is None or grant.unproven or not access.is_valid(now):
        # Nothing that may be published: what stands there stays until it really expires.
        return replace(post, look_at=now + verify_every)
    try:
        settled = await publisher.settle(Publication(grant.name, grant.lineage, access), now)
    except Exception as error:  # noqa: BLE001 (a publisher's defect is told and retried like a failure)
        return _failed(grant, target, post, error, tools, verify_every)
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
        recorded=recorded or await _record(grant, target, publisher, settled, tools),
    )


def _failed(grant: Grant, target: str, post: Post, error: Exception, tools: Tools, verify_every: timedelta) -> Post:
    now = tools.clock.now()
    failures = post.failures + 1
    pause = policy.backoff(failures, RETRY, tools.dice.chance())
    if not isinstance(error, Transient):
        # A person must act: no hurry, but it heals without a command once he did.
        pause = max(pause, RETRY.backoff_cap)
    # A target that answers again is right again within the time that every other one is looked at.
    retry_at = now + min(pause, verify_every)
    reason = _reason(error)
    if reason != post.trouble:
        told = events.DeliveryFailed(at=now, grant=grant.name, target=target, reason=reason, retry_at=retry_at)
        tools.bus.tell(told)
    return replace(post, trouble=reason, failures=failures, look_at=retry_at)


def _reason(error: Exception) -> str:
    # The text of a foreign exception may hold anything, the token included.
    return str(error) if isinstance(error, RotatorError) else f"a defect, {type(error).__name__}; please report it"


async def _record(grant: Grant, target: str, publisher: Publisher, settled: Settled, tools: Tools) -> bool:
    """Remember where the token stands, so that it can be taken away once nobody configures it any more.

    Readers already have it: a store that is away only means that it is written at the next look."""
    assert grant.access is not None  # noqa: S101 (only what was published is recorded)
    delivery = Delivery(
        grant=grant.name,
        target=target,
        location=publisher.location,
        lineage=grant.lineage,
        generation=grant.access.generation,
        expires_at=grant.access.expires_at,
        mark=settled.mark,
    )
    try:
        await tools.store.delivered(delivery)
    except RotatorError:
        return False
    return True

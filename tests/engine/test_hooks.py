"""Hooks in virtual time: told at least once, never again once it is on record, in order, after what they wait for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import pytest

from rotator.core import errors
from rotator.core.errors import RotatorError
from rotator.core.grants import OutcomeClass
from rotator.core.policy import Reuse
from rotator.core.ports import Delivery, Enrolment, Publisher
from rotator.core.publication import Found, Publication, Settled
from rotator.lab import world
from tests.engine.stage import HOUR, MINUTE, SECOND, Stage, failing, play
from tests.engine.test_crash_points import LONG, Doom, Mortal, Story, through_every_point


@dataclass
class Hook:
    """A hook in memory. ``told`` keeps every generation it ran for, with what ``reads`` held at that moment."""

    location: str = "hook:billing/reload test"
    reads: world.MemoryPublisher | None = None
    error: RotatorError | None = None
    clock: world.VirtualClock | None = None
    span: timedelta = timedelta(0)
    told: list[int] = field(default_factory=list)
    read: list[int | None] = field(default_factory=list)
    tries: int = 0
    local = False
    judged_by_mark = True

    async def settle(self, publication: Publication, now: datetime) -> Settled:
        self.tries += 1
        if self.clock is not None:
            await self.clock.pass_time(self.span)
        if self.error is not None:
            raise self.error
        self.told.append(publication.generation)
        there = None if self.reads is None else self.reads.holds
        self.read.append(there.generation if isinstance(there, Publication) else None)
        return Settled(Found.UNTOLD)

    async def remove(self, mark: str) -> bool:
        return False


def hooked(stage: Stage, hook: Hook, *, after: frozenset[str] | None = None, **targets: Publisher) -> Enrolment:
    """The grant with its file, the hook and more targets, enrolled from the next start on."""
    hook.reads = stage.place()
    before = stage.enrolment("billing")
    waits = {} if after is None else {"reload": after}
    made = replace(before, targets={"app": stage.place(), **targets, "reload": hook}, after=waits)
    stage.roster.by_name["billing"] = made
    stage.roster.removable[hook.location] = hook
    return made


def test_it_runs_once_for_each_generation_after_its_file_and_not_at_each_look_or_restart() -> None:
    async def story() -> None:
        stage, hook = Stage(), Hook()
        hooked(stage, hook)
        async with stage.play() as daemon:
            await stage.pass_time(10 * MINUTE)
            assert (hook.told, hook.read) == ([1], [1])
            await daemon.rotate("billing", True)
            await stage.pass_time(10 * MINUTE)
            assert (hook.told, hook.read) == ([1, 2], [1, 2])
        async with stage.play():
            await stage.pass_time(10 * MINUTE)
            stage.place().holds = None
            stage.watcher.touch(stage.place().location)
            await stage.pass_time(10 * MINUTE)
        assert hook.told == [1, 2], "neither a restart nor a file that is put right is a new generation"
        assert [stage.names().count(name) for name in ("token.delivered", "target.repaired")] == [4, 1]

    play(story)


class HookStory(Story):
    """A grant with a file and a hook, over several lives of the daemon."""

    hook: Hook

    def enter(self, doom: Doom) -> None:
        super().enter(doom)
        made = self.stage.roster.by_name["billing"]
        self.hook.reads = self._place
        targets = {**made.targets, "reload": Mortal(self.hook, doom)}
        self.stage.roster.by_name["billing"] = replace(made, targets=targets)


@pytest.mark.crowd
def test_killed_at_any_call_it_is_told_of_each_generation_and_again_only_where_no_mark_was_left() -> None:
    async def tell(at: int) -> str:
        story = HookStory.begin(Reuse.HARMLESS, timedelta(0))
        assert isinstance(story, HookStory)
        hook = story.hook = Hook()
        doom = await story.live(MINUTE / 2, Doom(at))
        await story.live(MINUTE)
        assert hook.told[-1] == story.stage.stored()[0].generation, doom.where
        await story.live(LONG)
        await story.live(MINUTE)
        assert hook.told == hook.read, "told of a generation that its file did not hold"
        assert sorted(set(hook.told)) == list(range(1, story.stage.stored()[0].generation + 1))
        twice = len(hook.told) - len(set(hook.told))
        assert hook.told == sorted(hook.told)
        assert twice == 0 or (twice == 1 and doom.where in ("after settle", "before delivered")), doom.where
        again[doom.where] = again.get(doom.where, 0) + twice
        return doom.where

    again: dict[str, int] = {}
    struck = set(through_every_point(tell).values())
    assert {f"{when} {call}" for when in ("before", "after") for call in ("save", "settle", "delivered")} <= struck
    assert again["after settle"] == 1 and again["before delivered"] == 1


def test_what_was_told_but_could_not_be_marked_is_marked_later_and_not_told_again() -> None:
    async def story() -> None:
        stage, hook = Stage(), Hook()
        hooked(stage, hook)
        delivered, away = stage.store.delivered, True

        async def noting(delivery: Delivery) -> None:
            if away and delivery.target == "reload":
                raise errors.Unavailable("the store is away")
            await delivered(delivery)

        stage.store.delivered = noting  # type: ignore[method-assign]
        async with stage.play():
            await stage.pass_time(10 * MINUTE)
            assert hook.told == [1]
            assert ("billing", hook.location) not in stage.store.shelf.deliveries
            away = False
            await stage.pass_time(MINUTE)
            assert stage.store.shelf.deliveries["billing", hook.location].generation == 1
        async with stage.play():
            await stage.pass_time(MINUTE)
        assert hook.told == [1]

    play(story)


def test_only_the_newest_generation_is_told_once_it_works_again_and_never_an_earlier_one() -> None:
    async def story() -> None:
        stage, hook = Stage(), Hook()
        hooked(stage, hook)
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            hook.error = errors.Unavailable("the command ended with 1")
            for _ in range(3):
                await daemon.rotate("billing", True)
                await stage.pass_time(MINUTE)
            hook.error = None
            await stage.pass_time(10 * MINUTE)
            assert hook.told == [1, 4]
        # What is saved falls back to an old copy: it is told to nobody, and what follows is later than what was told.
        shelf = stage.store.shelf
        grant = shelf.grants["billing"]
        assert grant.access is not None
        shelf.grants["billing"] = replace(grant, generation=3, access=replace(grant.access, generation=3))
        stage.place().holds = None
        async with stage.play():
            await stage.pass_time(10 * MINUTE)
            assert "store.behind" in stage.names()
        assert hook.told == [1, 4, 5]

    play(story)


def test_a_failing_hook_is_tried_ever_less_often_shown_and_keeps_nobody_from_being_ready() -> None:
    async def story() -> None:
        stage, hook = Stage(), Hook(error=errors.Unavailable("the command ended with 1"))
        hooked(stage, hook)
        async with stage.play() as daemon:
            await stage.pass_time(10 * MINUTE)
            assert "ready" in stage.supervisor.words()
            assert 5 < hook.tries < 13
            document = await daemon.health()
            grant = document["grants"]["billing"]  # type: ignore[index]
            assert grant["published"] and "hook reload the command ended with 1" in grant["reason"]
            assert grant["targets"]["reload"] == {
                "location": hook.location, "generation": None, "trouble": "the command ended with 1",
                "required": False, "hook": True,
            }  # fmt: skip
            assert stage.names().count("delivery.failed") == 1
            before = hook.tries
            # The next generation is a reason to try at once, and no more than once.
            await daemon.rotate("billing", True)
            await stage.pass_time(SECOND)
            assert hook.tries == before + 1

    play(story)


def test_what_a_person_must_mend_is_tried_every_five_minutes() -> None:
    async def story() -> None:
        stage, hook = Stage(), Hook(error=errors.Refused("the receiver answers HTTP 410"))
        hooked(stage, hook)
        async with stage.play():
            await stage.pass_time(21 * MINUTE)
            assert hook.tries == 5
            hook.error = None
            await stage.pass_time(5 * MINUTE)
            assert hook.told == [1]

    play(story)


def test_a_vault_that_is_away_holds_up_no_hook_but_a_file_does() -> None:
    async def story() -> None:
        stage, hook = Stage(), Hook()
        cluster = world.MemoryPublisher("memory:cluster", local=False)
        hooked(stage, hook, cluster=cluster)
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            cluster.error = errors.Unavailable("sealed")
            await daemon.rotate("billing", True)
            assert hook.told == [1, 2]
            stage.place().error = errors.Unavailable("the folder is gone")
            await daemon.rotate("billing", True)
            await stage.pass_time(10 * MINUTE)
            assert hook.told == [1, 2], "the file is what it is about"
            stage.place().error = None
            await stage.pass_time(MINUTE)
            assert (hook.told, hook.read) == ([1, 2, 3], [1, 2, 3])

    play(story)


def test_a_slow_target_that_is_well_is_waited_for_unless_after_names_others() -> None:
    async def story(after: frozenset[str] | None) -> timedelta:
        stage, hook = Stage(), Hook()
        cluster = world.MemoryPublisher("memory:cluster", local=False)
        settle = cluster.settle

        async def slowly(publication: Publication, now: datetime) -> Settled:
            await stage.clock.pass_time(5 * SECOND)
            return await settle(publication, now)

        cluster.settle = slowly  # type: ignore[method-assign]
        hooked(stage, hook, after=after, cluster=cluster)
        began = stage.clock.now()
        async with stage.play():
            while not hook.told:
                await stage.pass_time(timedelta(milliseconds=100))
            took = stage.clock.now() - began
            await stage.pass_time(MINUTE)
        assert hook.told == [1]
        return took

    assert world.run(lambda: story(None)) >= 5 * SECOND
    assert world.run(lambda: story(frozenset({"app"}))) < SECOND
    assert world.run(lambda: story(frozenset({"app", "cluster"}))) >= 5 * SECOND


def test_who_is_named_by_after_is_waited_for_though_it_fails() -> None:
    async def story() -> None:
        stage, hook = Stage(), Hook()
        cluster = world.MemoryPublisher("memory:cluster", local=False, error=errors.Unavailable("sealed"))
        hooked(stage, hook, after=frozenset({"cluster"}), cluster=cluster)
        stage.place().error = errors.Unavailable("the folder is gone")
        async with stage.play():
            await stage.pass_time(10 * MINUTE)
            assert hook.told == []
            cluster.error = None
            await stage.pass_time(MINUTE)
            assert hook.told == [1]

    play(story)


def test_a_generation_that_is_saved_while_it_runs_is_told_after_it() -> None:
    async def story() -> None:
        stage, hook = Stage(), Hook(span=5 * SECOND)
        hook.clock = stage.clock
        hooked(stage, hook)
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            first, second = (asyncio.create_task(daemon.rotate("billing", True)) for _ in range(2))
            await asyncio.gather(first, second)
            await stage.pass_time(MINUTE)
            assert hook.told == [1, 3] and hook.tries == 2

    play(story)


@pytest.mark.parametrize("changed", [False, True])
def test_a_reload_runs_nothing_again_also_while_it_runs(changed: bool) -> None:
    async def story() -> None:
        stage, hook = Stage(), Hook(span=5 * SECOND)
        hook.clock = stage.clock
        made = hooked(stage, hook)
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            assert (hook.tries, hook.told) == (1, [])
            other = Hook()
            fresh = replace(
                made, targets={"app": stage.place(), "reload": other}, fingerprint="another" if changed else ""
            )
            stage.turn_to(fresh)
            await daemon.reload()
            await stage.pass_time(MINUTE)
            assert (hook.told, other.told) == ([1], [])
            await daemon.rotate("billing", True)
            await stage.pass_time(MINUTE)
            assert (hook.told, other.told) == ([1], [2])

    play(story)


def test_one_that_does_something_else_now_is_told_of_what_is_saved() -> None:
    async def story() -> None:
        stage, hook = Stage(), Hook()
        made = hooked(stage, hook)
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            other = Hook("hook:billing/reload another")
            stage.turn_to(replace(made, targets={"app": stage.place(), "reload": other}, fingerprint="another"))
            await daemon.reload()
            await stage.pass_time(MINUTE)
            assert other.told == [1]
            # What is configured no more is forgotten once the token of its mark has expired: nothing is to be deleted.
            await stage.pass_time(HOUR)
            assert ("billing", hook.location) not in stage.store.shelf.deliveries
            assert "target.removed" not in stage.names()

    play(story)


def test_an_expired_token_is_told_to_nobody() -> None:
    async def story() -> None:
        stage, hook = Stage(), Hook(error=errors.Unavailable("away"))
        hooked(stage, hook)
        async with stage.play():
            await stage.pass_time(MINUTE)
            stage.endpoint.script = lambda request: failing(OutcomeClass.BUSY)
            await stage.pass_time(2 * HOUR)
            before, hook.error = hook.tries, None
            await stage.pass_time(HOUR)
            assert (hook.tries, hook.told) == (before, [])

    play(story)

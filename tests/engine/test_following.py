"""Beside other daemons at one store: what they saved is published here, and what they lost is put right."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import timedelta

import pytest

from rotator.core.errors import Unavailable
from rotator.core.grants import Grant
from rotator.core.publication import Publication
from rotator.core.tokens import AccessToken, Secret
from rotator.lab import world
from rotator.lab.memory import MemoryStore
from tests.engine.stage import HOUR, MINUTE, SECOND, Stage, play


class Shared(MemoryStore):
    """A store that another daemon writes to."""

    follows = True

    def __init__(self, clock: world.VirtualClock) -> None:
        super().__init__(clock=clock, dice=world.SeededDice(7))
        self.clock = clock
        self.away = ""
        self.looks = 0
        self.silent = ""
        self._news: dict[str, Grant | None] = {}

    async def news(self, names: Collection[str]) -> Mapping[str, Grant | None]:
        self.looks += 1
        if self.away:
            raise Unavailable(self.away)
        found = {name: self._news[name] for name in names if name in self._news}
        for name in found:
            del self._news[name]
        return found

    async def fleet(self, owner: str) -> Collection[str]:
        if self.silent:
            raise Unavailable(self.silent)
        return await super().fleet(owner)

    async def enrol(self, grant: Grant) -> Grant:
        if self.silent:
            raise Unavailable(self.silent)
        return await super().enrol(grant)

    def written(self, grant: Grant) -> Grant:
        self._put(grant, self.clock.now())
        self._news[grant.name] = grant
        return grant

    def deleted(self, name: str) -> None:
        self._unschedule(self.shelf.grants.pop(name))
        self._news[name] = None

    def rotated(self, name: str = "billing") -> Grant:
        """The other daemon's rotation: one generation more, due in 45 minutes."""
        grant, now = self.shelf.grants[name], self.clock.now()
        number = grant.generation + 1
        access = AccessToken(Secret(f"theirs-{number}"), "bearer", None, now, now + HOUR, number)
        due_at = now + timedelta(minutes=45)
        return self.written(
            replace(grant, generation=number, access=access, refresh=Secret(f"theirs-{number}"), due_at=due_at)
        )


def shared() -> tuple[Stage, Shared]:
    clock = world.VirtualClock()
    store = Shared(clock)
    return Stage(clock=clock, store=store), store


def published(stage: Stage) -> str:
    holds = stage.place().holds
    assert isinstance(holds, Publication)
    return holds.value.reveal()


@pytest.mark.crowd
def test_what_another_saved_is_published_within_a_second_and_not_rotated_here() -> None:
    async def story() -> None:
        stage, store = shared()
        async with stage.play():
            await stage.pass_time(10 * MINUTE)
            assert published(stage) == "access-1"
            store.rotated()
            await stage.pass_time(SECOND)
            assert published(stage) == "theirs-2"
            assert "billing: generation 2 was saved by another daemon" in [one.sentence for one in stage.told]
            # Due when theirs is due, not when ours was.
            await stage.pass_time(40 * MINUTE)
            assert len(stage.exchanges()) == 1

    play(story)


@pytest.mark.crowd
def test_what_went_back_or_away_is_put_right_from_memory_and_costs_no_login() -> None:
    async def story() -> None:
        stage, store = shared()
        async with stage.play():
            await stage.pass_time(MINUTE)
            old = stage.stored()[0]
            await stage.pass_time(HOUR)
            newest = stage.stored()[0]
            assert newest.generation == old.generation + 1
            for spoil in (lambda: store.written(old), lambda: store.deleted("billing")):
                spoil()
                await stage.pass_time(SECOND)
                assert stage.stored() == [newest]
            told = [one.sentence for one in stage.told]
            assert any("went back to generation 1 by somebody else; put right" in text for text in told), told
            assert any("was deleted from the store by somebody else; put right" in text for text in told), told
            await stage.pass_time(2 * HOUR)
            assert [kind.value for _, kind in stage.exchanges()].count("password") == 1

    play(story)


def test_what_went_back_and_is_due_at_once_is_put_right_before_anything_is_spent() -> None:
    """Nobody has told of it yet: the store is asked what is due and what is news at the same instant."""

    async def story() -> None:
        stage, store = shared()
        async with stage.play():
            await stage.pass_time(MINUTE)
            old = stage.stored()[0]
            await stage.pass_time(HOUR)
            newest = stage.stored()[0]
            store._put(old, stage.clock.now())
            await stage.pass_time(20 * SECOND)
            assert stage.stored() == [newest]
            assert [kind.value for _, kind in stage.exchanges()] == ["password", "refresh_token"]

    play(story)


def test_another_identity_is_none_of_ours() -> None:
    async def story() -> None:
        stage, store = shared()
        async with stage.play():
            await stage.pass_time(MINUTE)
            store.written(replace(stage.stored()[0], identity="another client", generation=9))
            await stage.pass_time(SECOND)
            assert published(stage) == "access-1"

    play(story)


def test_a_store_that_cannot_be_asked_is_told_now_and_then_and_stops_nothing() -> None:
    async def story() -> None:
        stage, store = shared()
        async with stage.play():
            await stage.pass_time(MINUTE)
            store.away = "it is away"
            looks = store.looks
            await stage.pass_time(MINUTE)
            told = [one.sentence for one in stage.told if one.name == "store.troubled"]
            assert store.looks - looks >= 100
            # The 1st, 2nd, 4th, … of 120.
            assert 5 <= len(told) <= 8, told
            assert all("what other daemons saved is not known: it is away" in text for text in told)
            store.away = ""
            store.rotated()
            await stage.pass_time(SECOND)
            assert published(stage) == "theirs-2"

    play(story)


def test_a_store_of_one_daemon_is_never_asked_for_news() -> None:
    async def story() -> None:
        stage, store = shared()
        store.follows = False
        async with stage.play():
            await stage.pass_time(MINUTE)
        assert store.looks == 0

    play(story)


def test_news_are_taken_over_although_the_beat_failed_that_came_with_them() -> None:
    """They are told once: a store that can be read and not written (a standby) must not swallow them."""

    async def story() -> None:
        stage, store = shared()
        async with stage.play():
            await stage.pass_time(10 * MINUTE)
            store.silent = "read-only"
            store.rotated()
            await stage.pass_time(2 * SECOND)
            assert published(stage) == "theirs-2"

    play(story)


def test_what_could_not_be_put_right_at_once_is_tried_again() -> None:
    async def story() -> None:
        stage, store = shared()
        async with stage.play():
            await stage.pass_time(10 * MINUTE)
            store.silent = "read-only"
            store.deleted("billing")
            await stage.pass_time(5 * SECOND)
            assert "billing" not in store.shelf.grants
            store.silent = ""
            await stage.pass_time(2 * SECOND)
            assert store.shelf.grants["billing"].generation == 1

    play(story)


def test_who_finds_the_lease_taken_forgets_nothing_that_the_store_lost() -> None:
    """A failover lost a generation, and another daemon holds the lease of what is left, before any news came."""

    async def story() -> None:
        stage, store = shared()
        async with stage.play():
            await stage.pass_time(MINUTE)
            old = stage.stored()[0]
            await stage.pass_time(HOUR)
            assert stage.stored()[0].generation == old.generation + 1
            store._put(old, stage.clock.now())
            await store.lease("billing", "another", stage.clock.moment(), 20 * SECOND)
            await stage.pass_time(12 * SECOND)
            store._news["billing"] = old
            await stage.pass_time(5 * MINUTE)
            assert [kind.value for _, kind in stage.exchanges()] == ["password", "refresh_token"]
            assert stage.stored()[0].generation == old.generation + 1

    play(story)

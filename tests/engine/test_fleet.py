"""Several daemons at one store: who goes first, and when what he leaves is taken over."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from rotator.core.errors import Overtaken
from rotator.core.grants import Grant
from rotator.core.policy import Moment
from rotator.core.ports import Lease
from rotator.engine import fleet
from rotator.engine.fleet import HERD, PATIENCE, REST, SHIFT, Fleet
from rotator.lab import world
from rotator.lab.memory import MemoryStore
from tests.engine.stage import HOUR, MINUTE, SECOND, Stage, play
from tests.engine.test_following import Shared

OWNERS = [f"daemon-{number}" for number in range(4)]
NAMES = [f"grant_{number:04}" for number in range(2000)]
NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
SHIFTS = [NOON + number * SHIFT for number in range(2000)]


def at_work(owners: Collection[str]) -> dict[str, Fleet]:
    members = {owner: Fleet(owner) for owner in owners}
    for one in members.values():
        one.hear(owners)
    return members


def firsts(owners: Collection[str]) -> dict[str, list[str]]:
    """Who goes first for each name of a herd."""
    members = at_work(owners)
    return {name: [owner for owner, one in members.items() if one.goes_first(name)] for name in NAMES}


def on_shift(owners: Collection[str]) -> dict[datetime, list[str]]:
    """Who goes first for what becomes due then."""
    members = at_work(owners)
    return {at: [owner for owner, one in members.items() if one.is_on_shift(at)] for at in SHIFTS}


def takers(at: datetime, among: int, after: timedelta = timedelta(0)) -> dict[str, list[str]]:
    """Who begins with each of the names, which became due at ``at``, where he looks ``after`` that."""
    members, now = at_work(OWNERS), at + after
    return {
        name: [owner for owner, one in members.items() if one.left_until(name, at, now, among=among) == now]
        for name in NAMES
    }


def test_what_becomes_due_together_has_one_first_and_the_shifts_are_even() -> None:
    found = on_shift(OWNERS)
    assert all(len(owners) == 1 for owners in found.values())
    assert set(map(tuple, takers(NOON, HERD).values())) == {tuple(found[NOON])}
    shares = Counter(owners[0] for owners in found.values())
    assert all(400 < shares[owner] < 600 for owner in OWNERS)


def test_a_herd_is_work_for_all() -> None:
    assert takers(NOON, HERD + 1) == firsts(OWNERS)


def test_what_the_one_on_shift_left_of_a_herd_is_taken_by_whoever_looks_next() -> None:
    ((first,),) = set(map(tuple, takers(NOON, REST, PATIENCE / 2).values()))
    assert [first] == on_shift(OWNERS)[NOON], "of a few nothing is left but by one who is late"
    mine = firsts(OWNERS)
    assert takers(NOON, REST + 1, PATIENCE / 2) == {
        name: [owner for owner in OWNERS if owner in (first, *mine[name])] for name in NAMES
    }


def test_where_one_leaves_only_his_shifts_move() -> None:
    before, after = on_shift(OWNERS), on_shift(OWNERS[1:])
    assert {at for at in SHIFTS if before[at] != after[at]} == {at for at in SHIFTS if before[at] == [OWNERS[0]]}


def test_the_shift_of_another_is_looked_at_a_little_later_and_before_patience_ends() -> None:
    members, (first,) = at_work(OWNERS), on_shift(OWNERS)[NOON]
    for owner, one in members.items():
        looked = one.looks_at(NOON)
        assert looked is not None and (looked == NOON) == (owner == first) and looked < NOON + PATIENCE
    # Beats come and go.
    members[first].hear({first})
    assert members[first].is_on_shift(NOON + SHIFT) and members[first].is_on_shift(NOON + 2 * SHIFT)


def test_one_goes_first_for_each_grant_and_the_shares_are_even() -> None:
    found = firsts(OWNERS)
    assert all(len(owners) == 1 for owners in found.values())
    shares = Counter(owners[0] for owners in found.values())
    assert all(400 < shares[owner] < 600 for owner in OWNERS)


def test_where_one_leaves_only_his_share_moves() -> None:
    before, after = firsts(OWNERS), firsts(OWNERS[1:])
    moved = {name for name in NAMES if before[name] != after[name]}
    assert moved == {name for name in NAMES if before[name] == [OWNERS[0]]}


def test_who_is_alone_goes_first() -> None:
    alone = Fleet("me")
    assert alone.is_alone and alone.goes_first("billing")
    alone.hear({"me"})
    assert alone.is_alone
    alone.hear({"me", "you"})
    assert not alone.is_alone


class Beside(Shared):
    """A store at which others are at work that do nothing: so many that ours goes first for nothing that is due in
    these stories. ``leased_until`` is when the lease of one of them runs out."""

    def __init__(self, clock: world.VirtualClock) -> None:
        super().__init__(clock)
        self.others = frozenset(f"rival-{number}" for number in range(200))
        self.leased_until: timedelta | None = None
        self.refused = 0

    async def fleet(self, owner: str) -> Collection[str]:
        return {owner, *self.others}

    async def lease(self, name: str, owner: str, moment: Moment, until: timedelta) -> tuple[Lease, Grant]:
        if self.leased_until is not None and moment.boottime < self.leased_until:
            self.refused += 1
            raise Overtaken("leased to another daemon", left=self.leased_until - moment.boottime)
        return await super().lease(name, owner, moment, until)


def beside() -> tuple[Stage, Beside]:
    clock = world.VirtualClock()
    store = Beside(clock)
    return Stage(clock=clock, store=store), store


@pytest.mark.crowd
def test_what_another_goes_first_for_is_left_to_him_for_a_moment_only() -> None:
    async def story() -> None:
        stage, store = beside()
        begun = stage.clock.now()
        async with stage.play():
            await stage.pass_time(MINUTE)
            (first,) = stage.exchanges()
            assert PATIENCE <= first[0] - begun < PATIENCE + SECOND
            due_at = store.shelf.grants["billing"].due_at
            assert due_at is not None
            await stage.pass_time(HOUR)
            assert PATIENCE <= stage.exchanges()[1][0] - due_at < PATIENCE + SECOND

    play(story)


def test_an_orphan_is_taken_over_once_its_lease_has_run_out() -> None:
    async def story() -> None:
        stage, store = beside()
        store.others = frozenset()
        begun = stage.clock.moment()
        store.leased_until = begun.boottime + timedelta(seconds=45)
        async with stage.play():
            await stage.pass_time(2 * MINUTE)
            (first,) = stage.exchanges()
            assert timedelta(seconds=45) <= first[0] - begun.now <= timedelta(seconds=47)
            # It waited for the end of the lease, and did not knock at it.
            assert store.refused <= 2

    play(story)


def test_weights_differ_by_owner_and_name() -> None:
    assert len({fleet._weight(owner, name) for owner in OWNERS for name in NAMES}) == len(OWNERS) * len(NAMES)


class Batched(Beside):
    """Tells what was asked together, as a lane to a server does: what one turn of the loop hands in goes along."""

    def __init__(self, clock: world.VirtualClock) -> None:
        super().__init__(clock)
        self.trips: list[list[str]] = []
        self._waiting: list[str] = []

    async def _serve(self) -> None:
        self.trips.append(self._waiting)
        self._waiting = []

    def _hand_in(self, what: str) -> None:
        self._waiting.append(what)
        if len(self._waiting) == 1:
            self._serving = asyncio.create_task(self._serve())

    async def news(self, names: Collection[str]) -> Mapping[str, Grant | None]:
        self._hand_in("news")
        return await super().news(names)

    async def fleet(self, owner: str) -> Collection[str]:
        self._hand_in("fleet")
        return await super().fleet(owner)

    async def due(self, now: datetime, limit: int) -> Sequence[str]:
        self._hand_in("due")
        return await super().due(now, limit)

    async def next_due(self, after: datetime) -> datetime | None:
        self._hand_in("next_due")
        return await super().next_due(after)


def test_who_is_not_on_shift_makes_one_round_trip_a_beat_and_asks_once_a_second_what_is_due() -> None:
    names = [f"grant_{number:03}" for number in range(240)]

    async def story() -> None:
        clock = world.VirtualClock()
        store = Batched(clock)
        stage = Stage(*names, clock=clock, store=store)
        async with stage.play():
            await stage.pass_time(2 * MINUTE)
            begun = len(stage.exchanges())
            for number, name in enumerate(names):
                store.written(replace(store.shelf.grants[name], due_at=clock.now() + (number + 8) * SECOND / 4))
            await stage.pass_time(SECOND)
            store.trips.clear()
            for _ in range(4 * 60):
                await stage.pass_time(SECOND / 4)
                for name in await MemoryStore.due(store, clock.now(), len(names)):
                    store.rotated(name)
            assert len(stage.exchanges()) == begun, "they were all left to who is on shift"
            asked = Counter(tuple(sorted(trip)) for trip in store.trips)
        together, alone = ("due", "fleet", "news", "next_due"), ("due", "next_due")
        # The sweep's own beat (10 s) asks too, for it derives everything anew.
        assert asked.keys() <= {together, ("fleet", "news"), alone}, asked
        assert asked[together] + asked["fleet", "news"] <= 121 and asked[alone] <= 7, asked
        assert asked[together] <= 61, asked

    play(story)

"""Several daemons at one store: who goes first, and when what he leaves is taken over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from datetime import timedelta

from rotator.core.errors import Overtaken
from rotator.core.grants import Grant
from rotator.core.policy import Moment
from rotator.core.ports import Lease
from rotator.engine import fleet
from rotator.engine.fleet import PATIENCE, Fleet
from rotator.lab import world
from tests.engine.stage import HOUR, MINUTE, SECOND, Stage, play
from tests.engine.test_following import Shared

OWNERS = [f"daemon-{number}" for number in range(4)]
NAMES = [f"grant_{number:04}" for number in range(2000)]


def firsts(owners: Collection[str]) -> dict[str, list[str]]:
    """Who goes first for each name."""
    members = {owner: Fleet(owner) for owner in owners}
    for one in members.values():
        one.hear(owners)
    return {name: [owner for owner, one in members.items() if one.goes_first(name)] for name in NAMES}


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
    """A store at which another daemon is at work that does nothing; ``leased_until`` is when its lease runs out."""

    def __init__(self, clock: world.VirtualClock) -> None:
        super().__init__(clock)
        self.other: str | None = None
        self.leased_until: timedelta | None = None
        self.refused = 0

    async def fleet(self, owner: str) -> Collection[str]:
        if self.other is None:
            # One that goes first for the grant of these stories.
            for number in range(100):
                here = Fleet(owner)
                here.hear({owner, rival := f"rival-{number}"})
                if not here.goes_first("billing"):
                    self.other = rival
                    break
        return {owner, self.other} if self.other else {owner}

    async def lease(self, name: str, owner: str, moment: Moment, until: timedelta) -> tuple[Lease, Grant]:
        if self.leased_until is not None and moment.boottime < self.leased_until:
            self.refused += 1
            raise Overtaken("leased to another daemon", left=self.leased_until - moment.boottime)
        return await super().lease(name, owner, moment, until)


def beside() -> tuple[Stage, Beside]:
    clock = world.VirtualClock()
    store = Beside(clock)
    return Stage(clock=clock, store=store), store


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
        store.other = ""
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

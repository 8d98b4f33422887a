"""Beside other daemons at one register: what they entered, struck and rotated is served here too, and what is due is
shared."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from rotator.core import events, tokens
from rotator.core.errors import Misconfigured, Unavailable
from rotator.core.grants import Grant
from rotator.core.health import Listed
from rotator.core.policy import Moment
from rotator.core.ports import Enrolment, Entry, Heard, Lease
from rotator.core.pressure import Line
from rotator.core.publication import Publication, Settled
from rotator.core.tokens import AccessToken, Secret
from rotator.engine import hearing, remembered, visits
from rotator.engine.fleet import HERD, PATIENCE, Fleet
from rotator.engine.remembered import Remembered
from rotator.lab import world
from tests.engine.stage import HOUR, MINUTE, SECOND, play
from tests.engine.test_visits import Registry, Worn, WornRegister, at_desks, entries, names

NOBODY = Heard()


class Overheard(WornRegister):
    """A register that others write to as well."""

    def __init__(self, store: Beside) -> None:
        super().__init__(store)
        self.away = ""
        self.news = NOBODY
        self.asked: list[str] = []

    async def heard(self) -> Heard:
        if self.away:
            raise Unavailable(self.away)
        found, self.news = self.news, NOBODY
        return found

    async def entries(self, names: Collection[str]) -> Sequence[Entry]:
        self.asked += names
        return await super().entries(names)


class Beside(Worn):
    """A store that another daemon writes to; ``rivals`` are at work beside us."""

    follows = True

    def __init__(self, clock: world.VirtualClock) -> None:
        super().__init__(clock=clock, dice=world.SeededDice(2))
        self.clock = clock
        self.rivals: set[str] = set()
        self.owner = ""
        self.leased: list[str] = []
        # What the other daemon does right before our lease of a grant, or before we delete it.
        self.meanwhile: dict[str, Callable[[], None]] = {}
        self.register: Overheard = Overheard(self)

    async def fleet(self, owner: str) -> Collection[str]:
        self.owner = owner
        return {owner, *self.rivals}

    async def lease(self, name: str, owner: str, moment: Moment, until: timedelta) -> tuple[Lease, Grant]:
        self.leased.append(name)
        self._be_beside(name)
        return await super().lease(name, owner, moment, until)

    async def retire(self, name: str) -> bool:
        self._be_beside(name)
        return await super().retire(name)

    def _be_beside(self, name: str) -> None:
        if name in self.meanwhile:
            self.meanwhile.pop(name)()

    def is_ours(self, name: str) -> bool:
        fleet = Fleet(self.owner)
        fleet.hear({self.owner, *self.rivals})
        return fleet.goes_first(name)

    # What the other daemon does.

    def entered(self, some: Iterable[Entry], *, told: bool = True) -> None:
        some = list(some)
        self.shelf.entries.update((one.name, one) for one in some)
        if told:
            holding = frozenset(one.name for one in some if one.name in self.shelf.grants)
            self.register.news = Heard(entered=frozenset(one.name for one in some), granted=holding)

    def struck(self, name: str) -> None:
        del self.shelf.entries[name]
        self._unschedule(self.shelf.grants.pop(name))
        self.register.news = Heard(struck=frozenset([name]))

    def rotated(self, some: Iterable[str]) -> None:
        some, now = list(some), self.clock.now()
        for name in some:
            grant = self.shelf.grants[name]
            number = grant.generation + 1
            access = AccessToken(Secret(f"theirs-{number}"), "bearer", None, now, now + HOUR, number)
            due_at = now + timedelta(minutes=45)
            self._put(
                replace(grant, generation=number, access=access, refresh=Secret(f"theirs-{number}"), due_at=due_at), now
            )
        self.register.news = Heard(granted=frozenset(some))


def beside(*rivals: str) -> tuple[Registry, Beside]:
    clock = world.VirtualClock()
    store = Beside(clock)
    store.rivals = set(rivals)
    return Registry(clock=clock, worn=store), store


def published(stage: Registry, name: str) -> str:
    holds = stage.places[name].holds
    assert isinstance(holds, Publication)
    return holds.value.reveal()


@pytest.mark.crowd
def test_what_another_rotated_is_published_within_a_second_and_nobody_stays_for_it() -> None:
    async def story() -> None:
        stage, store = beside()
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(names(5)))
            await stage.pass_time(10 * MINUTE)
            before = len(stage.exchanges())
            store.rotated(names(5))
            await stage.pass_time(SECOND)
            assert all(published(stage, name) == "theirs-2" for name in names(5))
            await stage.pass_time(20 * SECOND)
            assert at_desks(daemon) == set()
            # Due when theirs are due, not when ours were.
            await stage.pass_time(40 * MINUTE)
            assert [at for at, _ in stage.exchanges()[before:]] == [stage.exchanges()[before][0]], "the resident alone"

    play(story)


def test_who_is_entered_by_another_is_rotated_also_where_that_was_missed() -> None:
    async def story() -> None:
        for told in (True, False):
            stage, store = beside()
            async with stage.play() as daemon:
                # Walked: nobody stands in it.
                await stage.pass_time(5 * MINUTE)
                store.entered(entries(["a"]), told=told)
                await stage.pass_time(30 * SECOND)
                assert isinstance(stage.places["a"].holds, Publication), told
                assert (await daemon.health())["register"]["total"] == 1  # type: ignore[index]

    play(story)


class Slow(Overheard):
    """A store that is slow, and slowest to tell when the next is due: the walk, which begins with a sweep, ends between
    its answers to the sweep."""

    async def page(self, after: str, limit: int) -> Sequence[Listed]:
        await self._pause(SECOND / 8)
        return await super().page(after, limit)

    async def next_due(self, after: datetime, providers: Collection[str]) -> datetime | None:
        await self._pause(SECOND / 2)
        return await super().next_due(after, providers)

    async def _pause(self, span: timedelta) -> None:
        store = self._store
        assert isinstance(store, Beside)
        await store.clock.wait_until(store.clock.now() + span)


def test_who_is_due_keeps_its_desk_until_it_stands_in_line_whatever_the_walk_lets_go() -> None:
    async def story() -> None:
        stage, store = beside()
        store.register = Slow(store)
        async with stage.play():
            await stage.pass_time(5 * MINUTE)
            store.entered(entries(["a"]), told=False)
            await stage.pass_time(MINUTE)
            assert isinstance(stage.places["a"].holds, Publication)

    play(story)


@pytest.mark.crowd
def test_who_is_struck_by_another_is_gone_here_too_and_comes_not_back() -> None:
    async def story() -> None:
        stage, store = beside()
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(["a", "b"]))
            await stage.pass_time(MINUTE)
            store.struck("a")
            await stage.pass_time(SECOND)
            assert stage.places["a"].holds is None and stage.places["b"].holds is not None
            # Rotated by another before it was struck, and heard of after.
            store.register.news = Heard(granted=frozenset("a"))
            await stage.pass_time(2 * HOUR)
            assert stage.places["a"].holds is None
            assert [grant.name for grant in stage.stored()] == ["b", "resident"]

    play(story)


def test_who_was_entered_once_more_stays() -> None:
    async def story() -> None:
        stage, store = beside()
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(["a"]))
            await stage.pass_time(MINUTE)
            store.register.news = Heard(struck=frozenset("a"))
            await stage.pass_time(MINUTE)
            assert isinstance(stage.places["a"].holds, Publication)

    play(story)


def test_who_is_entered_by_another_while_it_is_retired_keeps_its_tokens() -> None:
    async def story() -> None:
        stage, store = beside()
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(["a", "b"]))
            await stage.pass_time(MINUTE)
            begun, entry, grant = len(stage.exchanges()), store.shelf.entries["a"], store.shelf.grants["a"]
            # After everything else has looked whether it was entered again.
            store.meanwhile["a"] = lambda: store.entered([entry])
            assert await daemon.retire("a") == {"grant": "a", "retired": True}
            assert store.shelf.grants["a"] == grant
            await stage.pass_time(SECOND)
            assert published(stage, "a") == "access-2"
            assert await daemon.retire("b") == {"grant": "b", "retired": True}
            await stage.pass_time(SECOND)
            assert [one.grant for one in stage.told if isinstance(one, events.Retired)] == ["b"]
            assert len(stage.exchanges()) == begun

    play(story)


def test_an_entry_that_cannot_be_read_keeps_nobody_from_being_cleared_away_and_is_not_itself() -> None:
    async def story() -> None:
        stage, store = beside()
        everybody = names(2 * hearing.STRUCK)
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(everybody))
            await stage.pass_time(MINUTE)
            odd, *others = everybody
            store.entries.add(odd)
            for name in others:
                store.struck(name)
            # The odd one was entered again by somebody whose seal is not ours.
            store.register.news = Heard(struck=frozenset(everybody))
            await stage.pass_time(SECOND)
            assert {name for name in everybody if stage.places[name].holds is not None} == {odd}

    play(story)


@pytest.mark.parametrize("ours", [False, True])
@pytest.mark.parametrize("told", [False, True])
def test_what_a_failover_lost_of_a_guest_is_put_right_from_memory_and_nothing_is_spent_twice(
    ours: bool, told: bool
) -> None:
    """``told``: before it is found to be due once more; else under the lease."""

    async def story() -> None:
        stage, store = beside()
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(["a"]))
            await stage.pass_time(10 * MINUTE)
            old = store.shelf.grants["a"]
            if ours:
                await daemon.rotate("a", True)
            else:
                store.rotated(["a"])
            await stage.pass_time(MINUTE)
            assert at_desks(daemon) == set()
            newest, begun = store.shelf.grants["a"], len(stage.exchanges())
            store._put(replace(old, due_at=stage.clock.now() + (MINUTE if told else -MINUTE)), stage.clock.now())
            store.register.news = Heard(lost=frozenset("a")) if told else NOBODY
            await stage.pass_time(SECOND if told else 20 * SECOND)
            assert store.shelf.grants["a"] == newest
            assert published(stage, "a") == ("access-3" if ours else "theirs-2")
            await stage.pass_time(2 * MINUTE)
            assert len(stage.exchanges()) == begun
            text = "a: went back to generation 1 by somebody else; put right from memory to generation 2"
            assert [one.sentence for one in stage.told].count(text) == 1

    play(story)


def test_what_began_anew_is_no_loss_and_what_was_struck_is_not_put_right() -> None:
    async def story() -> None:
        stage, store = beside()
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(["a", "b"]))
            await stage.pass_time(10 * MINUTE)
            old = store.shelf.grants["b"]
            await daemon.rotate("b", True)
            anew = replace(store.shelf.grants["a"], lineage="theirs", generation=0)
            store._put(anew, stage.clock.now())
            store.rotated("a")
            store.register.news = Heard(lost=frozenset("a"), granted=frozenset("a"))
            await stage.pass_time(SECOND)
            assert published(stage, "a") == "theirs-1"
            entry = store.shelf.entries["b"]
            store.struck("b")
            await stage.pass_time(SECOND)
            store.entered([entry])
            store._put(old, stage.clock.now())
            store.register.news = Heard(lost=frozenset("b"))
            await stage.pass_time(SECOND)
            assert store.shelf.grants["b"] == old

    play(story)


def test_a_bounded_number_is_remembered_the_last_of_them() -> None:
    kept, like = Remembered(), Grant(name="like", lineage="l", identity="i", due_at=None)
    for number in range(remembered.MOST + 9):
        kept.note(replace(like, name=f"g{number}"))
        kept.note(replace(like, name="often", generation=number))
    kept.note(replace(like, name="often", generation=1))
    assert kept.get("g9") is None and kept.get("g10") is not None
    often = kept.get("often")
    assert often is not None and often.generation == remembered.MOST + 8, "what went back is no news"


class Leaving(world.MemoryPublisher):
    """A target whose deliveries take until ``free`` is set, once ``held``."""

    def __init__(self, name: str) -> None:
        super().__init__(f"memory:{name}", local=True)
        self.free = asyncio.Event()
        self.held = False

    async def settle(self, wanted: Publication, now: datetime) -> Settled:
        if self.held:
            await self.free.wait()
        return await super().settle(wanted, now)


def test_who_is_entered_again_or_struck_again_while_something_of_his_is_in_flight() -> None:
    async def story() -> None:
        stage, store = beside()
        stage.places["busy"] = busy = Leaving("busy")
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(["busy", "x"]))
            await stage.pass_time(MINUTE)
            entry = store.shelf.entries["busy"]
            busy.held = True
            store.rotated(["busy"])
            await stage.pass_time(SECOND)
            # x was struck and entered again before we looked: it stays.
            store.shelf.entries.pop("busy")
            store.register.news = Heard(struck=frozenset(["busy", "x"]))
            await stage.pass_time(SECOND)
            store.struck("x")
            await stage.pass_time(SECOND)
            store.entered([entry])
            await stage.pass_time(SECOND)
            busy.free.set()
            await stage.pass_time(2 * SECOND)
            assert published(stage, "busy") == "theirs-2", "it was entered again"
            assert stage.places["x"].holds is None, "it was struck again"

    play(story)


class Rival(Overheard):
    """Another daemon rotates whoever is due between our question and our look at its record."""

    async def due(
        self, now: datetime, rooms: Mapping[tuple[str, Line], int]
    ) -> Mapping[tuple[str, Line], Sequence[str]]:
        found = await super().due(now, rooms)
        if names := [name for some in found.values() for name in some]:
            store = self._store
            assert isinstance(store, Beside)
            store.rotated(names)
        return found


def test_who_was_rotated_by_another_as_it_came_to_its_desk_is_published_here_too() -> None:
    async def story() -> None:
        stage, store = beside()
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            store.register = Rival(store)
            await daemon.enter(entries(names(5)))
            await stage.pass_time(2 * SECOND)
            assert all(published(stage, name) == "theirs-1" for name in names(5))
            assert len(stage.exchanges()) == 1, "of the resident"

    play(story)


class Hasty(Overheard):
    """Another daemon strikes ``victim`` between our look at its entry and its enrolment."""

    victim = ""

    async def entries(self, names: Collection[str]) -> Sequence[Entry]:
        found = await super().entries(names)
        if self.victim in names:
            self._store.shelf.entries.pop(self.victim, None)
        return found


def test_who_is_struck_while_it_is_enrolled_leaves_nothing() -> None:
    async def story() -> None:
        stage, store = beside()
        register = store.register = Hasty(store)
        async with stage.play():
            await stage.pass_time(MINUTE)
            exchanges = len(stage.exchanges())
            register.victim = "a"
            store.entered(entries(["a"]), told=False)
            await stage.pass_time(MINUTE)
            assert [grant.name for grant in stage.stored()] == ["resident"]
            assert len(stage.exchanges()) == exchanges

    play(story)


def due_here(stage: Registry, store: Beside) -> Grant:
    """The record of a grant that another daemon entered; it is due and has nothing yet."""
    store.entered(entries(["a"]), told=False)
    ours = tokens.digest(("lab", store.shelf.entries["a"].text, "user"), store.shelf.key or b"")
    return replace(
        stage.stored()[0], name="a", lineage="ours", identity=ours, generation=0, debits=(), access=None,
        refresh=None, due_at=stage.clock.now(),
    )  # fmt: skip


@pytest.mark.parametrize("rotates", [False, True])
def test_who_was_entered_with_another_client_is_not_asked_for_with_the_one_of_before(rotates: bool) -> None:
    """Nothing has told us of it yet: neither its record is taken from the other daemon, nor is a login spent."""

    async def story() -> None:
        stage, store = beside()
        async with stage.play():
            await stage.pass_time(MINUTE)
            begun, theirs = len(stage.exchanges()), tokens.digest(("lab", "theirs", "user"), await store.key())

            def reenter() -> None:
                store.shelf.entries["a"] = Entry("a", "lab", "theirs")
                if rotates:
                    store.shelf.grants["a"] = replace(store.shelf.grants["a"], identity=theirs, lineage="theirs")
                    store.rotated(["a"])
                    store.register.news = NOBODY

            await store.enrol(due_here(stage, store))
            store.meanwhile["a"] = reenter
            await stage.pass_time(20 * SECOND)
            assert not store.meanwhile
            (grant,) = (one for one in stage.stored() if one.name == "a")
            assert (grant.identity, grant.generation) == (theirs, 1)
            assert (published(stage, "a") == "theirs-1") is rotates
            assert len(stage.exchanges()) - begun == (0 if rotates else 1)

    play(story)


def test_who_was_struck_is_not_logged_in_while_nobody_has_told_of_it() -> None:
    async def story() -> None:
        stage, store = beside()
        async with stage.play():
            await stage.pass_time(MINUTE)
            begun = len(stage.exchanges())
            await store.enrol(due_here(stage, store))
            store.meanwhile["a"] = lambda: store.shelf.entries.clear()
            await stage.pass_time(MINUTE)
            assert not store.meanwhile
            assert len(stage.exchanges()) == begun
            store.register.news = Heard(struck=frozenset("a"))
            await stage.pass_time(SECOND)
            assert stage.places["a"].holds is None

    play(story)


@pytest.mark.crowd
def test_a_resident_whose_name_stands_in_the_register_too_follows_and_keeps_what_it_published() -> None:
    async def story() -> None:
        stage, store = beside()
        async with stage.play():
            await stage.pass_time(10 * MINUTE)
            store.entered(entries(["resident"]))
            await stage.pass_time(SECOND)
            assert any("in the register and in the configuration" in one.sentence for one in stage.told)
            store.rotated(["resident"])
            await stage.pass_time(SECOND)
            holds = stage.place("resident").holds
            assert isinstance(holds, Publication) and holds.value.reveal() == "theirs-2"
            del store.shelf.entries["resident"]
            store.register.news = Heard(struck=frozenset(["resident"]))
            await stage.pass_time(2 * HOUR)
            assert isinstance(stage.place("resident").holds, Publication)

    play(story)


def test_a_guest_whose_entry_another_changed_is_served_by_it() -> None:
    async def story() -> None:
        stage, store = beside()
        stage.places["a"] = world.MemoryPublisher("memory:a", error=Misconfigured("the folder is gone"))
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(["a"]))
            await stage.pass_time(SECOND)
            assert at_desks(daemon) == {"a"}
            stage.places["a"] = world.MemoryPublisher("memory:elsewhere")
            store.entered(entries(["a"]))
            await stage.pass_time(SECOND)
            assert isinstance(stage.places["a"].holds, Publication)

    play(story)


@pytest.mark.crowd
def test_a_crowd_that_another_rotated_does_not_fill_the_desks() -> None:
    async def story() -> None:
        stage, store = beside()
        everybody = names(3 * hearing.CROWD)
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(["probe"]))
            await stage.pass_time(SECOND)
            like, due_at = store.shelf.grants["probe"], stage.clock.now() + HOUR
            store.entered(entries(everybody), told=False)
            for name in everybody:
                await store.enrol(replace(like, name=name, access=None, due_at=due_at))
            await stage.pass_time(SECOND)
            store.rotated(everybody)
            most = 0
            while not all(name in stage.places and stage.places[name].holds for name in everybody):
                await stage.pass_time(SECOND / 2)
                most = max(most, len(at_desks(daemon)))
            assert most <= hearing.CROWD + hearing.TOGETHER + visits.PAGE
            await stage.pass_time(20 * SECOND)
            assert at_desks(daemon) == set()

    play(story)


def test_a_register_that_cannot_be_asked_is_told_now_and_then_and_what_was_heard_is_not_lost() -> None:
    async def story() -> None:
        stage, store = beside()
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(["a"]))
            await stage.pass_time(MINUTE)
            store.register.away = "it is away"
            await stage.pass_time(MINUTE)
            doing = "what other daemons did to the register is not known"
            told = [one.sentence for one in stage.told if doing in one.sentence]
            assert 5 <= len(told) <= 8, told
            store.register.away = ""
            store.rotated(["a"])
            await stage.pass_time(SECOND)
            assert published(stage, "a") == "theirs-2"

    play(story)


def test_what_is_due_is_shared_and_what_is_left_to_another_is_taken_a_moment_later() -> None:
    async def story() -> None:
        stage, store = beside("rival")
        # Half of them are more than one of the two would begin whole.
        everybody = names(3 * HERD)
        async with stage.play() as daemon:
            await stage.pass_time(20 * SECOND)
            store.leased.clear()
            store.entered(entries(everybody), told=False)
            theirs = tokens.digest(("lab", store.shelf.entries["g0000"].text, "user"), await store.key())
            like = replace(store.shelf.grants["resident"], identity=theirs, debits=(), due_at=stage.clock.now())
            for name in everybody:
                await store.enrol(replace(like, name=name))
            store.register.news = Heard(entered=frozenset(everybody))
            await stage.pass_time(PATIENCE - SECOND / 2)
            ours = {name for name in everybody if store.is_ours(name)}
            assert HERD < len(ours) < 2 * HERD
            assert set(store.leased) == ours
            await stage.pass_time(2 * SECOND)
            assert set(store.leased) == set(everybody)
            await stage.pass_time(MINUTE)
            assert at_desks(daemon) == set()

    play(story)


def test_who_was_entered_as_nobody_here_can_serve_it_leaves_though_it_is_due() -> None:
    async def story() -> None:
        stage, store = beside()
        async with stage.play():
            await stage.pass_time(MINUTE)
            fits = stage.roster.registered
            assert fits is not None

            def registered(entry: Entry) -> Enrolment:
                if entry.text == "unfit":
                    raise Misconfigured("there is no such target here")
                return fits(entry)

            stage.roster.registered = registered
            await store.enrol(due_here(stage, store))
            store.meanwhile["a"] = lambda: store.shelf.entries.__setitem__("a", Entry("a", "lab", "unfit"))
            await stage.pass_time(MINUTE)
            assert not store.meanwhile
            assert store.leased.count("a") <= 2
            assert sum("left out" in event.sentence for event in stage.told) <= 2

    play(story)

"""Grants of the register: at a desk while something is to be done for them, and nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from rotator.core import events
from rotator.core.errors import BadUsage, Misconfigured, StateDamaged, Unavailable
from rotator.core.grants import Grant, OutcomeClass
from rotator.core.health import Census, Listed
from rotator.core.ports import Enrolment, Entry
from rotator.core.pressure import Limits, Line
from rotator.core.publication import Publication, Settled
from rotator.engine import pacing, visits
from rotator.engine.daemon import Daemon
from rotator.lab import world
from rotator.lab.memory import MemoryRegister, MemoryStore
from tests.engine.stage import HOUR, MINUTE, SECOND, Stage, failing, play

QUICK = Limits(in_flight=64, per_second=1000)


class Registry(Stage):
    """A stage whose grants stand in the register; each has a place of its own, which outlives every visit."""

    def __init__(
        self, *residents: str, limits: Limits = QUICK, clock: world.VirtualClock | None = None, worn: Worn | None = None
    ) -> None:
        self.places: dict[str, world.MemoryPublisher] = {}
        self.made = 0
        clock = clock or world.VirtualClock()
        self.worn = worn or Worn(clock=clock, dice=world.SeededDice(2))
        super().__init__(*(residents or ("resident",)), limits=limits, clock=clock, store=self.worn)
        self.roster.registered = self.registered

    def registered(self, entry: Entry) -> Enrolment:
        if entry.text == "bad":
            raise Misconfigured(f"{entry.name}: client_id is missing")
        self.made += 1
        place = self.places.setdefault(entry.name, world.MemoryPublisher(f"memory:{entry.name}", local=True))
        self.roster.removable[place.location] = place
        return self.enrolment(
            entry.name, provider=entry.provider, identity=(entry.provider, entry.text, "user"), targets={"app": place}
        )

    def turned(self) -> world.FixedRoster:
        fresh = self.turn_to(*self.roster.by_name.values())
        fresh.registered = self.registered
        fresh.removable = self.roster.removable
        return fresh


class Worn(MemoryStore):
    """A disk of which some cannot be read any more: entries of the register, and records."""

    def __init__(self, *, clock: world.VirtualClock, dice: world.SeededDice) -> None:
        super().__init__(clock=clock, dice=dice)
        self.entries: set[str] = set()
        self.records: set[str] = set()
        self.register = WornRegister(self)

    async def grant(self, name: str) -> Grant | None:
        if name in self.records:
            raise StateDamaged("a stored grant is not JSON", mend="run `rotator state reset`")
        return await super().grant(name)

    async def enrol(self, grant: Grant) -> Grant:
        await self.grant(grant.name)
        return await super().enrol(grant)


class WornRegister(MemoryRegister):
    def __init__(self, store: Worn) -> None:
        super().__init__(store._held)
        self._store = store

    async def entries(self, names: Collection[str]) -> Sequence[Entry]:
        if self._store.entries & set(names):
            raise StateDamaged("a stored grant does not open under its seal", mend="then `rotator state reset`")
        return await super().entries(names)


def entries(names: Iterable[str], provider: str = "lab", text: str = "client") -> list[Entry]:
    return [Entry(name, provider, text) for name in names]


def at_desks(daemon: Daemon) -> set[str]:
    assert daemon._scheduler is not None
    return set(daemon._scheduler._desks.guests())


def is_valid(place: world.MemoryPublisher, now: datetime) -> bool:
    return isinstance(place.holds, Publication) and place.holds.access.is_valid(now)


def names(count: int, prefix: str = "g") -> list[str]:
    return [f"{prefix}{number:04d}" for number in range(count)]


@pytest.mark.crowd
def test_they_are_rotated_for_ever_and_none_stays_at_a_desk() -> None:
    async def story() -> None:
        stage = Registry()
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            await daemon.enter(entries(names(20)))
            await stage.pass_time(MINUTE)
            assert at_desks(daemon) == set()
            assert all(len(place.history) == 1 for place in stage.places.values())
            for _ in range(8 * 6):
                await stage.pass_time(10 * MINUTE)
                now = stage.clock.now()
                assert all(is_valid(place, now) for place in stage.places.values())
            assert at_desks(daemon) == set()
        assert all(len(place.history) > 8 for place in stage.places.values())
        by_name = [grant.name for grant in stage.stored()]
        assert by_name == [*names(20), "resident"]

    play(story)


def test_a_restart_publishes_what_is_stored_before_it_says_that_it_is_ready() -> None:
    async def story() -> None:
        stage = Registry()
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(names(300)))
            await stage.pass_time(MINUTE)
        exchanges = len(stage.exchanges())
        for place in stage.places.values():
            place.holds = None
        stage.supervisor.heard.clear()
        async with stage.play() as daemon:
            await stage.pass_time(20 * SECOND)
            assert all(place.holds is not None for place in stage.places.values())
            assert len(stage.exchanges()) == exchanges
            words = [word for word, _ in stage.supervisor.heard]
            assert "ready" in words
            _, line = next(one for one in stage.supervisor.heard if one[0] == "ready")
            assert "register: 300/300 with a valid token" in line
            assert at_desks(daemon) == set()

    play(story)


def test_the_walk_puts_right_what_somebody_changed() -> None:
    async def story() -> None:
        stage = Registry()
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(names(10)))
            await stage.pass_time(MINUTE)
            stage.places["g0003"].holds = None
            await stage.pass_time(MINUTE)
            assert stage.places["g0003"].holds is not None
            assert at_desks(daemon) == set()
        told = [event for event in stage.told if event.name == "token.delivered" and event.grant == "g0003"]  # type: ignore[attr-defined]
        assert len(told) == 2

    play(story)


class Counted(world.MemoryPublisher):
    """Counts who was brought to a desk for it."""

    settled = 0

    async def settle(self, publication: Publication, now: datetime) -> Settled:
        self.settled += 1
        return await super().settle(publication, now)


def test_the_walk_brings_nobody_to_a_desk_who_is_in_order_and_everybody_who_is_not() -> None:
    async def story() -> None:
        stage = Registry()
        everybody = names(2 * visits.PAGE + 10)
        places = {name: Counted(f"memory:{name}") for name in everybody}
        stage.places.update(places)
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(everybody))
            await stage.pass_time(MINUTE)
        exchanges = len(stage.exchanges())
        right = {name: place.holds for name, place in places.items()}
        for place in places.values():
            place.settled = 0
        foreign = right["g0003"]
        assert isinstance(foreign, Publication)
        places["g0000"].holds = None
        places["g0001"].holds = "half a tok"
        places["g0130"].holds = replace(foreign, lineage="another")
        places["g0265"].holds = foreign
        changed = {"g0000", "g0001", "g0130", "g0265"}
        async with stage.play() as daemon:
            await stage.pass_time(20 * SECOND)
            assert "ready" in stage.supervisor.words()
            assert {name for name, place in places.items() if place.settled} == changed
            assert {name: place.holds for name, place in places.items()} == right
            await stage.pass_time(2 * MINUTE)
            assert sum(place.settled for place in places.values()) == len(changed), "round after round"
        assert len(stage.exchanges()) == exchanges

    world.run(story)


def test_the_walk_brings_those_to_a_desk_whose_record_says_that_something_is_to_be_done() -> None:
    async def story() -> None:
        stage = Registry()
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(["another_user", "in_order"]))
            await stage.pass_time(MINUTE)
        before = {one.name: one.lineage for one in stage.stored()}
        stage.store.shelf.entries["another_user"] = Entry("another_user", "lab", "other")
        async with stage.play():
            # A password exchange is not repeated at once.
            await stage.pass_time(HOUR / 2)
        after = {one.name: one.lineage for one in stage.stored()}
        assert {name for name in after if after[name] != before[name]} == {"another_user"}
        place = stage.places["another_user"].holds
        assert isinstance(place, Publication) and place.lineage == after["another_user"]

    world.run(story)


@pytest.mark.parametrize(("took", "most"), [(SECOND / 10, 41), (10 * SECOND, 3)])
def test_the_longer_a_count_takes_the_more_rarely_it_is_made(took: timedelta, most: int) -> None:
    async def story() -> None:
        stage = Registry()

        class Slow(WornRegister):
            counts = 0

            async def census(self, now: datetime) -> Census:
                self.counts += 1
                await stage.clock.pass_time(took)
                return await super().census(now)

        stage.worn.register = register = Slow(stage.worn)
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(["a"]))
            await stage.pass_time(20 * MINUTE)
            assert 2 <= register.counts <= most
            register.counts = 0
            await daemon.enter(entries(["b"]))
            await stage.pass_time(2 * MINUTE)
            assert register.counts >= 1, "sooner where somebody came"
            assert (await daemon.health())["register"]["total"] == 2  # type: ignore[index]

    world.run(story)


@pytest.mark.crowd
def test_those_that_become_due_in_the_same_moment_share_a_look_and_who_is_alone_waits_for_none() -> None:
    async def story() -> None:
        stage = Registry()

        class Counted(WornRegister):
            looks = 0

            async def due(self, now: datetime, rooms: Any) -> Mapping[tuple[str, Line], Sequence[str]]:
                self.looks += 1
                return await super().due(now, rooms)

        stage.worn.register = register = Counted(stage.worn)
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            # One after the other: so they become due.
            everybody = names(200)
            for name in everybody:
                await daemon.enter(entries([name]))
                await stage.pass_time(SECOND / 40)
            await stage.pass_time(30 * MINUTE)
            due = {one.name: one.due_at for one in stage.stored() if one.name in everybody}
            first, last = min(filter(None, due.values())), max(filter(None, due.values()))
            await stage.pass_time(first - stage.clock.now() - SECOND)
            register.looks, before = 0, len(stage.told)
            swept = stage.supervisor.words().count("alive")
            await stage.pass_time(last - first + 3 * SECOND)
            rotated = [one for one in stage.told[before:] if isinstance(one, events.Rotated) and one.grant in due]
            assert {one.grant for one in rotated} == set(everybody)
            assert register.looks <= (last - first) / pacing.BREATH + 5
            sweeps = stage.supervisor.words().count("alive") - swept
            assert sweeps <= register.looks + 10, "nobody rings for a look that may not be yet"
            late = sorted((one.at - due[one.grant]).total_seconds() for one in rotated if due[one.grant])
            assert late[0] < 0.06, "the answer takes 50 ms: the first waited for nobody"
            assert late[-1] < 0.06 + pacing.BREATH.total_seconds()

    world.run(story)


@pytest.mark.crowd
def test_many_that_are_new_keep_no_other_out() -> None:
    """Neither those of another provider, nor what is in order behind what is new or failing at the same one."""

    async def story() -> None:
        stage = Registry(limits=Limits(in_flight=4, per_second=2))
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(names(5, "held")))
            await stage.pass_time(2 * MINUTE)
            await daemon.enter(entries(names(600), provider="other"))
            await daemon.enter(entries(names(400, "new")))
            most = 2 * visits.ROOM[Line.MISSING] + visits.ROOM[Line.HELD]
            for _ in range(6):
                await stage.pass_time(9 * MINUTE)
                assert len(at_desks(daemon)) <= most
                now = stage.clock.now()
                assert all(is_valid(stage.places[name], now) for name in names(5, "held"))

    play(story)


@pytest.mark.crowd
def test_targets_that_take_nothing_do_not_fill_the_desks() -> None:
    async def story() -> None:
        stage = Registry()

        everybody = names(visits.CROWD + 200)
        for name in everybody:
            stage.places[name] = world.MemoryPublisher(f"memory:{name}", error=Misconfigured("the folder is gone"))
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(everybody))
            await stage.pass_time(5 * MINUTE)
            assert len(at_desks(daemon)) <= visits.CROWD + visits.PAGE
            shown = await daemon.show("g0007")
            assert "the folder is gone" in str(shown["reason"])

    play(story)


def test_one_that_is_latched_tries_again_once_its_entry_changed() -> None:
    async def story() -> None:
        stage = Registry()
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            stage.credentials.values["password"] = "wrong"
            await daemon.enter(entries(["a"]))
            await stage.pass_time(MINUTE)
            shown = await daemon.show("a")
            assert shown["state"] == "latched"
            await stage.pass_time(10 * MINUTE)
            assert len(stage.exchanges()) == 2, "no second try with the same credentials"
            health = await daemon.health()
            assert health["register"] == {"total": 1, "valid": 0, "resting": 1, "overdue": 0}
            stage.credentials.values["password"] = "pw"
            await daemon.enter(entries(["a"]))
            await stage.pass_time(HOUR)
            assert (await daemon.show("a"))["state"] == "fresh"

    play(story)


def test_orders_reach_those_at_no_desk() -> None:
    async def story() -> None:
        stage = Registry()
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(["a", "b"]))
            await stage.pass_time(MINUTE)
            assert at_desks(daemon) == set()
            assert (await daemon.token("a"))["access_token"] == stage.places["a"].history[-1].access.value.reveal()
            rotated = await daemon.rotate("a", False)
            assert rotated["generation"] == 2 and rotated["published"] is True
            assert (await daemon.show("b"))["generation"] == 1
            with pytest.raises(BadUsage, match="no grant is named 'c'"):
                await daemon.show("c")
            page = await daemon.listed("", 1)
            assert page["more"] is True
            assert [one["name"] for one in page["grants"]] == ["a"]  # type: ignore[attr-defined]
            await stage.pass_time(MINUTE)
            assert at_desks(daemon) == set()

    play(story)


def test_one_that_is_retired_is_gone_with_all_that_it_published() -> None:
    async def story() -> None:
        stage = Registry()
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(["a", "b"]))
            await stage.pass_time(MINUTE)
            assert await daemon.retire("a") == {"grant": "a", "retired": True}
            assert stage.places["a"].holds is None
            with pytest.raises(BadUsage):
                await daemon.show("a")
            await stage.pass_time(2 * HOUR)
            assert stage.places["a"].holds is None and stage.places["b"].holds is not None
        assert [grant.name for grant in stage.stored()] == ["b", "resident"]

    play(story)


@pytest.mark.crowd
def test_a_bad_entry_is_refused_whole_and_one_that_became_bad_is_told_once() -> None:
    async def story() -> None:
        stage = Registry()
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            with pytest.raises(Misconfigured, match="b: client_id is missing"):
                await daemon.enter([*entries(["a"]), *entries(["b"], text="bad")])
            assert (await daemon.listed("", 9))["grants"] == []
            with pytest.raises(Misconfigured, match="resident is a grant of the configuration"):
                await daemon.enter(entries(["resident"]))
            await daemon.enter(entries(["a", "c"]))
            await stage.pass_time(MINUTE)
            stage.store.shelf.entries["a"] = Entry("a", "lab", "bad")
            await stage.pass_time(3 * HOUR)
            assert is_valid(stage.places["c"], stage.clock.now())
        told = [event for event in stage.told if "of the register is left out" in event.sentence]
        assert len(told) == 1

    play(story)


@pytest.mark.crowd
def test_a_reload_serves_those_at_desks_by_what_counts_now() -> None:
    async def story() -> None:
        stage = Registry()
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            stage.endpoint.latency = 20 * SECOND
            await daemon.enter(entries(names(10)))
            await stage.pass_time(SECOND)
            assert at_desks(daemon) == set(names(10))
            stage.turned()
            await daemon.reload()
            await stage.pass_time(MINUTE)
            assert all(place.holds is not None for place in stage.places.values())
            assert at_desks(daemon) == set()
            await stage.pass_time(2 * HOUR)
            now = stage.clock.now()
            assert all(is_valid(place, now) for place in stage.places.values())

    play(story)


@pytest.mark.crowd
def test_a_provider_that_is_busy_for_hours_costs_no_desk_and_heals_by_itself() -> None:
    async def story() -> None:
        stage = Registry()
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(names(50)))
            await stage.pass_time(MINUTE)
            stage.provider.override = [failing(OutcomeClass.BUSY) for _ in range(100_000)]
            await stage.pass_time(3 * HOUR)
            stage.provider.override = []
            # The longest pause of a grant that has no valid token any more.
            await stage.pass_time(HOUR)
            now = stage.clock.now()
            assert all(is_valid(place, now) for place in stage.places.values())
            assert at_desks(daemon) == set()
            # Their tokens had expired meanwhile; nothing of an enrolled grant is cleared away for that.
            assert "target.removed" not in stage.names()

    play(story)


def test_a_clock_that_went_back_makes_every_expiry_doubtful() -> None:
    async def story() -> None:
        stage = Registry()
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(["a", "b"]))
            await stage.pass_time(MINUTE)
        stage.clock.step(timedelta(days=-1))
        before = len(stage.exchanges())
        async with stage.play() as daemon:
            await stage.pass_time(5 * MINUTE)
            assert len(stage.exchanges()) == before + 3
            assert at_desks(daemon) == set()
        assert not any(grant.unproven for grant in stage.stored())

    play(story)


def test_a_guest_that_is_entered_for_another_user_while_it_is_at_its_desk_gets_a_grant_of_its_own() -> None:
    async def story() -> None:
        stage = Registry()
        place = stage.places["a"] = world.MemoryPublisher("memory:a", error=Misconfigured("the folder is gone"))
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(["a"]))
            await stage.pass_time(MINUTE)
            assert at_desks(daemon) == {"a"}, "its target takes nothing"
            (before,) = (one for one in stage.stored() if one.name == "a")
            await daemon.enter(entries(["a"], text="other"))
            await stage.pass_time(MINUTE)
            place.error = None
            await stage.pass_time(2 * HOUR)
            (after,) = (one for one in stage.stored() if one.name == "a")
            assert after.lineage != before.lineage
            assert place.holds is not None and place.holds.lineage == after.lineage
            assert {one.lineage for one in place.history} == {after.lineage}, "what the other user got is for nobody"
            assert len(stage.exchanges()) < 10

    world.run(story)


@pytest.mark.crowd
def test_a_walk_that_found_nobody_does_not_overlook_who_is_entered_meanwhile() -> None:
    async def story() -> None:
        stage = Registry()
        register = stage.store.register
        page, goes_on = register.page, asyncio.Event()

        async def slow(after: str, limit: int) -> Sequence[Listed]:
            found = await page(after, limit)
            await goes_on.wait()
            return found

        register.page = slow
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(["a"]))
            goes_on.set()
            await stage.pass_time(5 * HOUR)
            assert is_valid(stage.places["a"], stage.clock.now())

    world.run(story)


def test_a_restart_publishes_what_is_stored_of_those_that_are_due_already() -> None:
    async def story() -> None:
        stage = Registry()
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(names(20)))
            await stage.pass_time(MINUTE)
        for place in stage.places.values():
            place.holds = None
        await stage.pass_time(max(one.due_at for one in stage.stored() if one.due_at) - stage.clock.now() + SECOND)
        stage.provider.override = [failing(OutcomeClass.BUSY) for _ in range(10_000)]
        async with stage.play():
            await stage.pass_time(3 * SECOND)
            assert all(is_valid(stage.places[name], stage.clock.now()) for name in names(20))

    world.run(story)


@pytest.mark.crowd
def test_who_fails_before_anything_is_spent_is_tried_ever_more_slowly() -> None:
    async def story() -> None:
        stage = Registry()
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(["a"]))
            await stage.pass_time(MINUTE)
            save = stage.store.save

            async def full(grant: Grant, **how: Any) -> None:
                if grant.intent is not None:
                    raise Unavailable("the disk is full")
                await save(grant, **how)

            stage.store.save = full
            await stage.pass_time(50 * MINUTE)
            stage.told.clear()
            await stage.pass_time(HOUR)
            assert sum(isinstance(one, events.StoreTroubled) for one in stage.told) < 10

    world.run(story)


# --- what cannot be read, and what stands in two places --------------------------------------------------------------


def left_out(stage: Registry) -> list[str]:
    return [event.sentence for event in stage.told if "of the register is left out" in event.sentence]


@pytest.mark.crowd
def test_what_cannot_be_read_is_told_once_and_keeps_no_other_from_its_turn() -> None:
    async def story() -> None:
        stage = Registry()
        everybody = names(20)
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(everybody))
            await stage.pass_time(MINUTE)
            stage.worn.entries, stage.worn.records = {"g0003", "g0004"}, {"g0015"}
            await stage.pass_time(3 * HOUR)
            others = set(everybody) - {"g0003", "g0004", "g0015"}
            assert all(is_valid(stage.places[name], stage.clock.now()) for name in others)
            assert sorted(left_out(stage)) == [
                "g0003 of the register is left out: a stored grant does not open under its seal; "
                "then `rotator grants retire g0003` and enter it again",
                "g0004 of the register is left out: a stored grant does not open under its seal; "
                "then `rotator grants retire g0004` and enter it again",
                "g0015 of the register is left out: a stored grant is not JSON; "
                "run `rotator grants retire g0015` and enter it again",
            ]
            assert "store.troubled" not in stage.names()
            with pytest.raises(Misconfigured, match="g0015 of the register is left out: a stored grant is not JSON"):
                await daemon.show("g0015")
            with pytest.raises(Misconfigured, match="`rotator grants retire g0015` and enter it again"):
                await daemon.enter(entries(["g0014", "g0015", "g0016"]))
            for name in ("g0003", "g0004", "g0015"):
                await daemon.retire(name)
            stage.worn.entries, stage.worn.records = set(), set()
            await daemon.enter(entries(["g0003", "g0004", "g0015"]))
            await stage.pass_time(MINUTE)
            assert all(is_valid(stage.places[name], stage.clock.now()) for name in everybody)

    world.run(story)


def test_a_start_and_a_reload_go_past_what_cannot_be_read() -> None:
    async def story() -> None:
        stage = Registry()
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(names(visits.PAGE + 10)))
            await stage.pass_time(MINUTE)
        for place in stage.places.values():
            place.holds = None
        stage.worn.entries, stage.worn.records = {"g0000", "g0137"}, {"g0100"}
        async with stage.play() as daemon:
            await stage.pass_time(20 * SECOND)
            assert "ready" in stage.supervisor.words(), "the walk has been everywhere"
            assert {name for name, place in stage.places.items() if place.holds is None} == {"g0000", "g0100", "g0137"}
            stage.endpoint.latency = 20 * SECOND
            rotating = asyncio.gather(*(daemon.rotate(name, False) for name in ("g0001", "g0002", "g0003")))
            await stage.pass_time(SECOND)
            stage.worn.entries.add("g0001")
            stage.worn.records.add("g0002")
            stage.turned()
            await daemon.reload()
            assert [one["published"] for one in await rotating] == [True, True, True], "what is in flight ends"
            await stage.pass_time(MINUTE)
            assert at_desks(daemon) == set()
            assert {one.partition(" ")[0] for one in left_out(stage)} == {"g0000", "g0001", "g0002", "g0100", "g0137"}

    world.run(story)


def moved(stage: Registry, name: str, provider: str) -> Enrolment:
    """A grant of the register, written into the configuration with the same place: the tokens are the same."""
    place = stage.places.setdefault(name, world.MemoryPublisher(f"memory:{name}"))
    identity = ("gone", "client", "user")
    return stage.enrolment(name, provider=provider, identity=identity, targets={"app": place})


def two_places(stage: Registry) -> list[str]:
    return [event.sentence for event in stage.told if "in the register and in the configuration" in event.sentence]


@pytest.mark.crowd
def test_a_grant_that_moved_into_the_configuration_is_due_although_its_provider_of_before_is_gone() -> None:
    async def story() -> None:
        stage = Registry()
        stage.roster.providers = ["gone", "lab"]
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(names(3), provider="gone"))
            await stage.pass_time(MINUTE)
            resident = stage.roster.by_name["resident"]
            fresh = stage.turn_to(resident, *(moved(stage, name, "lab") for name in names(2)))
            fresh.registered = stage.registered
            assert fresh.providers == ["lab"]
            await daemon.reload()
            for _ in range(20):
                await stage.pass_time(10 * MINUTE)
                now = stage.clock.now()
                assert all(is_valid(stage.places[name], now) for name in names(2))
            assert two_places(stage) == [
                "g0000, g0001 stand in the register and in the configuration, which counts; "
                "run `rotator grants retire NAME` to take the entry out"
            ]
            assert await daemon.retire("g0000") == {"grant": "g0000", "retired": False}
            stage.roster = fresh
            before = len(stage.exchanges())
        async with stage.play() as daemon:
            await stage.pass_time(10 * HOUR)
            now = stage.clock.now()
            assert all(is_valid(stage.places[name], now) for name in names(2))
            assert two_places(stage)[1:] == [
                "g0001 stands in the register and in the configuration, which counts; "
                "run `rotator grants retire g0001` to take the entry out"
            ]
            assert len(stage.exchanges()) - before < 3 * 10 * 2, "once for each time that it is due"
            assert (await daemon.listed("", 9))["more"] is False
        assert "daemon.defect" not in stage.names()

    world.run(story)


@pytest.mark.crowd
def test_one_that_leaves_the_configuration_again_is_served_by_its_entry() -> None:
    async def story() -> None:
        stage = Registry()
        stage.roster.providers = ["gone", "lab"]
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(["a"], provider="gone"))
            await stage.pass_time(MINUTE)
            resident = stage.roster.by_name["resident"]
            stage.turn_to(resident, moved(stage, "a", "lab")).registered = stage.registered
            await daemon.reload()
            await stage.pass_time(2 * HOUR)
            back = stage.turn_to(resident)
            back.registered, back.providers = stage.registered, ["gone", "lab"]
            await daemon.reload()
            await stage.pass_time(5 * HOUR)
            assert is_valid(stage.places["a"], stage.clock.now())
            assert at_desks(daemon) == set()
            assert len(two_places(stage)) == 1

    world.run(story)


@pytest.mark.crowd
def test_a_guest_whose_entry_fits_no_more_is_not_served_by_what_counted_before() -> None:
    async def story() -> None:
        stage = Registry()
        place = stage.places["a"] = world.MemoryPublisher("memory:a", error=Misconfigured("the folder is gone"))
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(["a"]))
            await stage.pass_time(MINUTE)
            assert at_desks(daemon) == {"a"}, "its target takes nothing"
            stage.store.shelf.entries["a"] = Entry("a", "lab", "bad")
            stage.turned()
            await daemon.reload()
            await stage.pass_time(MINUTE)
            assert at_desks(daemon) == set()
            place.error = None
            await stage.pass_time(3 * HOUR)
            assert place.holds is None and len(left_out(stage)) == 1

    world.run(story)


@pytest.mark.crowd
@pytest.mark.parametrize("wrong", ["fails", "hangs", "has a defect"])
def test_whatever_is_wrong_with_the_register_residents_are_rotated(wrong: str) -> None:
    class Broken(WornRegister):
        async def due(self, now: datetime, rooms: Any) -> Mapping[tuple[str, Line], Sequence[str]]:
            if wrong == "fails":
                raise Unavailable("the index is away")
            if wrong == "hangs":
                await asyncio.Event().wait()
            raise ValueError("a defect")

    async def story() -> None:
        stage = Registry()
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            await daemon.enter(entries(names(3)))
            await stage.pass_time(MINUTE)
            stage.worn.register = Broken(stage.worn)
            await stage.pass_time(2 * HOUR)
            assert is_valid(stage.place("resident"), stage.clock.now())

    play(story)


class Uncounted(WornRegister):
    """A register that cannot be counted, as where a statement takes too long."""

    async def census(self, now: datetime) -> Census:
        raise Unavailable("canceling statement due to statement timeout")


class Hung(world.MemoryPublisher):
    """A target whose mount hangs."""

    async def settle(self, wanted: Publication, now: datetime) -> Settled:
        await asyncio.Event().wait()
        raise AssertionError


@pytest.mark.parametrize("fault", ["a count that fails", "a target that hangs"])
def test_neither_keeps_the_walk_from_going_everywhere(fault: str) -> None:
    async def story() -> None:
        stage = Registry()
        everybody = names(visits.PAGE + 10)
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(everybody))
            await stage.pass_time(MINUTE)
        for place in stage.places.values():
            place.holds = None
        if fault == "a count that fails":
            stage.worn.register = Uncounted(stage.worn)
        else:
            stage.places["g0003"] = Hung("memory:g0003", local=True)
        async with stage.play():
            await stage.pass_time(MINUTE)
            assert [name for name in everybody if stage.places[name].holds is None] == (
                [] if fault == "a count that fails" else ["g0003"]
            )

    play(story)


def test_one_whose_entry_changes_is_looked_at_at_once() -> None:
    """It may name another target; the walk may be hours away."""

    async def story() -> None:
        stage = Registry()
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            await daemon.enter(entries(["a"]))
            await stage.pass_time(MINUTE)
            stage.places["a"] = world.MemoryPublisher("memory:elsewhere", local=True)
            await daemon.enter(entries(["a"]))
            await stage.pass_time(SECOND)
            assert is_valid(stage.places["a"], stage.clock.now())
            assert len(stage.exchanges()) == 1 + 1

    play(story)

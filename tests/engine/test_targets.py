"""Targets that fail, fight, keep silent, or are nobody's any more."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from rotator.core import errors, events
from rotator.core.ports import Delivery
from rotator.core.publication import Found, Publication, Settled
from rotator.engine.timing import Timing
from rotator.lab import world
from tests.engine.stage import HOUR, MINUTE, SECOND, Stage, play


def test_a_defect_of_a_publisher_is_told_once_without_its_text_and_retried_slowly() -> None:
    async def story() -> None:
        stage = Stage()
        place, tries = stage.place(), 0
        settle = place.settle

        async def broken(publication: Publication, now: object) -> Settled:
            nonlocal tries
            tries += 1
            raise ValueError(publication.value.reveal())

        place.settle = broken  # type: ignore[method-assign,assignment]
        async with stage.play() as daemon:
            await stage.pass_time(10 * MINUTE)
            assert tries < 25
            assert stage.names().count("delivery.failed") == 1
            assert "ValueError" in str(await daemon.health())
            assert "access-1" not in " ".join(event.sentence for event in stage.told)
            place.settle = settle  # type: ignore[method-assign]
            await stage.pass_time(MINUTE)
            assert isinstance(place.holds, Publication)

    play(story)


def test_somebody_who_changes_a_target_whenever_it_is_put_right_starts_no_race() -> None:
    async def story() -> None:
        stage = Stage()
        place, writes = stage.place(), 0
        settle = place.settle

        async def contested(publication: Publication, now: object) -> Settled:
            nonlocal writes
            settled = await settle(publication, stage.clock.now())
            if fighting:
                writes += 1
                place.holds = "somebody else's"
                asyncio.get_running_loop().call_later(0.01, stage.watcher.touch, place.location)
            return settled

        fighting = True
        place.settle = contested  # type: ignore[method-assign,assignment]
        async with stage.play():
            await stage.pass_time(10 * MINUTE)
            assert 5 < writes < 40
            fighting = False
            await stage.pass_time(MINUTE)
            assert isinstance(place.holds, Publication)
            # Peace again: the next one is put right at once.
            place.holds = None
            stage.watcher.touch(place.location)
            await stage.pass_time(timedelta(milliseconds=10))
            assert isinstance(place.holds, Publication)

    play(story)


def test_a_touch_of_what_is_right_or_gone_or_failing_writes_nothing() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            touched = stage.watcher.watched[stage.place().location]
            touched()
            await stage.pass_time(SECOND)
            assert len(stage.place().history) == 1
            stage.place().error = errors.Unavailable("the folder is gone")
            touched()
            await stage.pass_time(timedelta(milliseconds=10))
            for _ in range(100):
                touched()
                await stage.pass_time(timedelta(milliseconds=1))
            assert stage.names().count("delivery.failed") == 1
            stage.turn_to(stage.enrolment("reports"))
            await daemon.reload()
            touched()
            await stage.pass_time(SECOND)

    play(story)


def test_a_new_generation_is_delivered_though_the_former_is_still_on_its_way() -> None:
    async def story() -> None:
        stage = Stage(latency=SECOND)
        place, slow = stage.place(), False
        settle = place.settle

        async def slowly(publication: Publication, now: object) -> Settled:
            if slow:
                await stage.clock.pass_time(5 * SECOND)
            return await settle(publication, stage.clock.now())

        place.settle = slowly  # type: ignore[method-assign,assignment]
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            slow = True
            stage.watcher.touch(place.location)
            await daemon.rotate("billing", True)
            assert isinstance(place.holds, Publication) and place.holds.generation == 2

    play(story)


async def remove_grant(stage: Stage) -> None:
    stage.turn_to(stage.enrolment("reports"))
    await stage.daemon.reload()


def test_an_orphan_that_keeps_silent_holds_up_neither_the_sweep_nor_the_watchdog() -> None:
    async def story() -> None:
        stage = Stage("billing", "reports", watchdog=10 * SECOND)

        async def silent(mark: str) -> bool:
            await asyncio.Event().wait()
            raise AssertionError

        stage.place("billing").remove = silent  # type: ignore[method-assign]
        async with stage.play():
            await stage.pass_time(MINUTE)
            await remove_grant(stage)
            await stage.pass_time(2 * HOUR)
            assert "store.troubled" not in stage.names()
            before = stage.supervisor.words().count("alive")
            await stage.pass_time(MINUTE)
            assert stage.supervisor.words().count("alive") - before >= 6
            assert stage.provider.count >= 4

    play(story)


@pytest.mark.parametrize("error", [errors.Unavailable("the Vault is sealed"), ValueError("canary")])
def test_an_orphan_that_cannot_be_deleted_is_told_once_and_tried_until_it_can(error: Exception) -> None:
    async def story() -> None:
        stage = Stage("billing", "reports")
        place, tries = stage.place("billing"), 0
        remove = place.remove

        async def failing(mark: str) -> bool:
            nonlocal tries
            tries += 1
            raise error

        place.remove = failing  # type: ignore[method-assign]
        async with stage.play():
            await stage.pass_time(MINUTE)
            await remove_grant(stage)
            await stage.pass_time(2 * HOUR)
            told = [event.sentence for event in stage.told if "not deleted" in event.sentence]
            assert len(told) == 1 and "canary" not in told[0] and place.location in told[0]
            # About once for each look in the hour since the token expired.
            assert 60 < tries < 130
            place.remove = remove  # type: ignore[method-assign]
            await stage.pass_time(MINUTE)
            assert place.holds is None and "target.removed" in stage.names()
            assert ("billing", place.location) not in stage.store.shelf.deliveries

    play(story)


def test_an_orphan_without_a_way_to_it_is_told_once_and_one_that_is_no_longer_ours_is_left_alone() -> None:
    async def story() -> None:
        stage = Stage("billing", "reports")
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            place = stage.place("billing")
            place.holds = "the operator's own"
            lost = Delivery("billing", "far", "vault:gone", "lineage", 1, stage.clock.now(), "1")
            await stage.store.delivered(lost)
            await remove_grant(stage)
            await stage.pass_time(2 * HOUR)
            assert place.holds == "the operator's own"
            assert "target.removed" not in stage.names()
            assert sum("vault:gone" in event.sentence for event in stage.told) == 1
            await daemon.retire("billing")

    play(story)


def test_a_delivery_that_could_not_be_noted_is_noted_with_the_next_look() -> None:
    async def story() -> None:
        stage = Stage()
        delivered, away = stage.store.delivered, True

        async def noting(delivery: Delivery) -> None:
            if away:
                raise errors.Unavailable("the store is away")
            await delivered(delivery)

        stage.store.delivered = noting  # type: ignore[method-assign]
        async with stage.play():
            await stage.pass_time(MINUTE)
            assert isinstance(stage.place().holds, Publication) and not stage.store.shelf.deliveries
            away = False
            await stage.pass_time(MINUTE)
            assert len(stage.store.shelf.deliveries) == 1

    play(story)


def test_a_raw_target_that_holds_our_former_generation_is_not_told_as_tampered_with() -> None:
    async def story() -> None:
        stage = Stage()
        place = stage.place()
        settle = place.settle

        async def raw(publication: Publication, now: object) -> Settled:
            settled = await settle(publication, stage.clock.now())
            return replace(settled, found=Found.ALTERED) if settled.found is Found.OLDER else settled

        place.settle = raw  # type: ignore[method-assign,assignment]
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            await daemon.rotate("billing", True)
        told = [event.found for event in stage.told if isinstance(event, events.Delivered)]
        assert told == [Found.ABSENT.value, Found.OLDER.value]

    play(story)


def test_a_target_that_is_ahead_while_we_stop_is_left_to_the_next_start() -> None:
    async def story() -> None:
        stage = Stage(latency=20 * SECOND)
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            asking = asyncio.create_task(daemon.rotate("billing", True))
            await stage.pass_time(SECOND)
            held = stage.place().holds
            assert isinstance(held, Publication)
            daemon.stop()
            await stage.pass_time(SECOND)
            stage.place().holds = replace(held, access=replace(held.access, generation=9))
            stage.watcher.touch(stage.place().location)
            await asking
        assert stage.stored()[0].generation == 2
        async with stage.play():
            await stage.pass_time(10 * MINUTE)
            held = stage.place().holds
            assert isinstance(held, Publication) and held.generation == 10

    play(story)


def test_what_is_changed_before_anybody_watches_is_found_as_soon_as_somebody_does() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play():
            await stage.pass_time(SECOND)

        class Spoiling(world.BlindWatcher):
            """Between the publication and the watch somebody else was at the target."""

            def begin(self) -> None:
                stage.place().holds = "somebody else's"

        stage.watcher = Spoiling()
        async with stage.play():
            await stage.pass_time(timedelta(milliseconds=10))
            assert isinstance(stage.place().holds, Publication)
            assert stage.names().count("target.repaired") == 1

    play(story)


def test_targets_are_looked_at_in_time_and_those_far_away_after_those_at_hand() -> None:
    """Threads that run at once wake each other all the time; a beat that was missed by a moment would be 10 s late."""

    async def story() -> None:
        stage = Stage()
        near, far = world.MemoryPublisher("memory:near"), world.MemoryPublisher("memory:far", local=False)
        stage.roster = world.FixedRoster([stage.enrolment("billing", targets={"far": far, "near": near})])
        told: list[tuple[str, float]] = []

        def slow(place: world.MemoryPublisher, span: timedelta) -> None:
            settle = place.settle

            async def settled(publication: Publication, now: datetime) -> Settled:
                told.append((f"begins {place.location[7:]}", stage.clock.moment().boottime.total_seconds()))
                await stage.pass_time(span)
                told.append((f"ends {place.location[7:]}", stage.clock.moment().boottime.total_seconds()))
                return await settle(publication, now)

            place.settle = settled  # type: ignore[method-assign]

        async with stage.play():
            await stage.pass_time(SECOND)
            slow(near, SECOND / 2)
            slow(far, SECOND / 2)
            await stage.pass_time(2 * MINUTE + SECOND)
            assert [what for what, _ in told] == ["begins near", "ends near", "begins far", "ends far"] * 4
            begun = [at for what, at in told if what == "begins near"]
            assert [round(later - one, 6) for one, later in itertools.pairwise(begun)] == [30.0] * 3
            told.clear()
            slow(near, HOUR)
            await stage.pass_time(2 * MINUTE + SECOND)
            # One that hangs keeps the other waiting for a moment, and only once.
            assert [what for what, _ in told if what != "ends near"].count("begins far") == 4

    play(story)


@pytest.mark.parametrize("verify_every", [SECOND, SECOND / 10])
def test_looks_that_are_shorter_apart_than_a_beat_come_with_each_beat(verify_every: timedelta) -> None:
    async def story() -> None:
        stage = Stage(timing=Timing(sweep_every=SECOND, verify_every=verify_every))
        place, looks = stage.place(), 0
        settle = place.settle

        async def counted(publication: Publication, now: datetime) -> Settled:
            nonlocal looks
            looks += 1
            return await settle(publication, now)

        async with stage.play():
            await stage.pass_time(SECOND / 2)
            place.settle = counted  # type: ignore[method-assign]
            await stage.pass_time(10 * SECOND)
        assert looks == 10

    play(story)

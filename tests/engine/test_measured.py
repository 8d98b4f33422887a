"""What the engine measures and tells with its events: on a clock that nobody can set, and only what really happened."""

from __future__ import annotations

from datetime import timedelta

from rotator.core import errors, events
from rotator.core.grants import OutcomeClass
from rotator.core.health import ProviderHealth
from rotator.engine.bus import Bus
from tests.engine.stage import HOUR, MINUTE, SECOND, Stage, failing, play

LATENCY = timedelta(milliseconds=80)
ZERO = timedelta(0)


def test_a_rotation_tells_how_long_the_answer_and_the_save_took() -> None:
    async def story() -> None:
        stage = Stage(latency=LATENCY)
        async with stage.play():
            await stage.pass_time(HOUR)
        told = [event for event in stage.told if isinstance(event, events.Rotated)]
        assert len(told) == 2
        assert {(event.provider, event.took, event.save_took) for event in told} == {("lab", LATENCY, ZERO)}

    play(story)


def test_a_delivery_tells_how_long_readers_waited_for_an_answer_that_came_here() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play():
            await stage.pass_time(MINUTE)
        (first,) = [event for event in stage.told if isinstance(event, events.Delivered)]
        assert (first.kind, first.took, first.since_answer) == ("memory", ZERO, ZERO)
        stage.told.clear()
        stage.place().holds = None
        async with stage.play():
            await stage.pass_time(MINUTE)
        (again,) = [event for event in stage.told if isinstance(event, events.Delivered)]
        assert again.since_answer is None, "the answer came to another process"

    play(story)


def test_readers_who_wait_for_a_target_that_is_mended_wait_since_the_answer() -> None:
    async def story() -> None:
        stage = Stage()
        stage.place().error = errors.Transient("the disk is full")
        async with stage.play():
            await stage.pass_time(5 * MINUTE)
            stage.place().error = None
            await stage.pass_time(MINUTE)
        (told,) = [event for event in stage.told if isinstance(event, events.Delivered)]
        assert told.since_answer is not None and 5 * MINUTE < told.since_answer < 6 * MINUTE
        failed = [event for event in stage.told if isinstance(event, events.DeliveryFailed)]
        assert {event.kind for event in failed} == {"memory"}
        assert stage.names().count("delivery.failed") == 1, "the log is told once"
        assert stage.names().count("delivery.still_failing") == len(failed) - 1 > 5, "who counts is told of each"

    play(story)


def test_a_failure_tells_it_too_and_one_of_another_process_was_not_measured() -> None:
    async def story() -> None:
        stage = Stage(latency=LATENCY)
        stage.provider.override = [failing(OutcomeClass.BUSY)]
        async with stage.play():
            await stage.pass_time(SECOND)
        (busy,) = [event for event in stage.told if isinstance(event, events.ExchangeFailed)]
        assert (busy.provider, busy.took, busy.cls) == ("lab", LATENCY, "busy")

        stage = Stage(latency=MINUTE / 4)
        async with stage.killed():
            await stage.pass_time(SECOND)
        stage.told.clear()
        async with stage.play():
            await stage.pass_time(MINUTE)
        recalled = [event for event in stage.told if isinstance(event, events.ExchangeFailed)]
        assert [(event.provider, event.took, event.save_took) for event in recalled] == [("lab", None, None)]

    play(story)


def test_a_latch_tells_how_the_exchange_ended() -> None:
    async def story() -> None:
        stage = Stage(latency=LATENCY)
        stage.provider.override = [failing(OutcomeClass.REFUSED)]
        async with stage.play():
            await stage.pass_time(SECOND)
        (latched,) = [event for event in stage.told if isinstance(event, events.Latched)]
        assert (latched.cls, latched.provider, latched.took) == (OutcomeClass.REFUSED.value, "lab", LATENCY)

    play(story)


def test_every_exchange_is_told_once_by_who_ended_it() -> None:
    async def story() -> None:
        stage = Stage()
        stage.provider.override = [failing(OutcomeClass.NOT_SENT), failing(OutcomeClass.DOUBTFUL)]
        async with stage.play():
            await stage.pass_time(2 * HOUR)
        ended = [event for event in stage.told if isinstance(event, events.ExchangeEnded)]
        assert len(ended) == len(stage.exchanges()) > 3

    play(story)


def test_the_snapshot_shows_the_gates() -> None:
    async def story() -> None:
        stage = Stage("a", "b", latency=MINUTE / 4)
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            assert daemon.examine().providers == (ProviderHealth("lab", 0, 2, False),)
            await stage.pass_time(MINUTE)
            assert daemon.examine().providers == (ProviderHealth("lab", 0, 0, False),)
            shown = daemon.examine().grants[0]
            assert shown.failures == 0
            assert shown.refresh_ends_at is not None and shown.refreshed_at is not None
            assert shown.refresh_ends_at - shown.refreshed_at == timedelta(days=14)

    play(story)


def test_a_sweep_without_an_answer_says_so() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play():
            await stage.pass_time(MINUTE)
            next_due = stage.store.next_due

            async def away(after: object) -> None:
                raise errors.Unavailable("the store is away")

            stage.store.next_due = away  # type: ignore[method-assign,assignment]
            await stage.pass_time(MINUTE)
            stage.store.next_due = next_due  # type: ignore[method-assign]
        troubled = [event for event in stage.told if isinstance(event, events.StoreTroubled)]
        assert troubled and all(event.sweep for event in troubled)

    play(story)


def test_what_a_listener_missed_is_counted_for_good() -> None:
    async def story() -> None:
        stage = Stage()
        bus = Bus(stage.clock.now, capacity=2)
        bus.join("slow", lambda event: None)
        bus.tell(*(events.Warned(at=stage.clock.now(), text="x") for _ in range(5)))
        bus.flush()
        bus.tell(*(events.Warned(at=stage.clock.now(), text="x") for _ in range(3)))
        assert bus.lost == {"slow": 4}

    play(story)

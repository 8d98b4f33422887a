"""Wall time that is set while the daemon runs: nothing freezes, nothing expired is trusted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest

from rotator.core import errors, events
from rotator.core.grants import Kind, OutcomeClass
from rotator.core.publication import Publication
from rotator.engine.daemon import Daemon
from tests.engine.stage import HOUR, MINUTE, SECOND, Stage, failing, play

DAY = timedelta(days=1)


class Reader:
    """Knows when each token was really issued, whatever the wall clock says, and how long it lives."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.loop = asyncio.get_running_loop()
        self.issued: dict[str, float] = {}
        script = stage.endpoint.script

        def dated(request: object) -> object:
            outcome = script(request)  # type: ignore[arg-type]
            if outcome.answer is not None and outcome.answer.access is not None:
                self.issued[outcome.answer.access.reveal()] = self.loop.time()
            return outcome

        stage.endpoint.script = dated  # type: ignore[assignment]

    def is_served(self) -> bool:
        held = self.stage.place().holds
        if not isinstance(held, Publication):
            return False
        return self.loop.time() < self.issued[held.value.reveal()] + self.stage.provider.lifetime.total_seconds()


@pytest.mark.crowd
@pytest.mark.parametrize("steps", [(-DAY,), (DAY,), (DAY, -DAY), (-DAY, DAY), (-30 * MINUTE,), (-DAY, -DAY)])
@pytest.mark.parametrize("watchdog", [None, 4 * SECOND])
def test_no_reader_gap_when_wall_time_is_set(steps: tuple[timedelta, ...], watchdog: timedelta | None) -> None:
    async def story() -> None:
        stage = Stage(watchdog=watchdog)
        reader = Reader(stage)
        async with stage.play():
            await stage.pass_time(20 * MINUTE)
            for step in steps:
                stage.clock.step(step)
                for _ in range(4 * 30):
                    await stage.pass_time(MINUTE / 2)
                    assert reader.is_served()
        told = [event for event in stage.told if isinstance(event, events.ClockJumped)]
        assert [event.by for event in told] == list(steps), "each once, and by how much"
        assert not any(event.slept for event in told)
        assert [kind for _, kind in stage.exchanges()].count(Kind.PASSWORD) == 1
        # One more for each step at most.
        assert len(stage.endpoint.requests) <= 1 + len(steps) * 3

    play(story)


def test_the_watchdog_is_fed_and_targets_are_looked_after_when_the_clock_was_set_back() -> None:
    async def story() -> None:
        stage = Stage(watchdog=10 * SECOND)
        async with stage.play():
            await stage.pass_time(MINUTE)
            stage.clock.step(-DAY)
            await stage.pass_time(MINUTE)
            stage.place().holds = None
            for _ in range(10):
                before = stage.supervisor.words().count("alive")
                await stage.pass_time(10 * SECOND)
                assert stage.supervisor.words().count("alive") > before
            assert isinstance(stage.place().holds, Publication)

    play(story)


def test_a_latched_grant_is_still_looked_at_when_the_clock_was_set_back() -> None:
    async def story() -> None:
        stage = Stage()
        stage.credentials.values["password"] = "wrong"
        async with stage.play():
            await stage.pass_time(MINUTE)
            stage.clock.step(-DAY)
            await stage.pass_time(MINUTE)
            stage.credentials.values["password"] = "pw"
            # Password exchanges are kept 15 min apart.
            await stage.pass_time(16 * MINUTE)
            assert isinstance(stage.place().holds, Publication)

    play(story)


def test_an_answer_in_memory_is_saved_in_seconds_though_the_clock_is_set_back() -> None:
    async def story() -> None:
        stage = Stage()
        save = stage.store.save
        away = True

        async def flaky(grant: object, *, expected: int, **rest: object) -> None:
            if away and grant.generation > expected:  # type: ignore[attr-defined]
                raise errors.Unavailable("the disk is full")
            await save(grant, expected=expected, **rest)  # type: ignore[arg-type]

        stage.store.save = flaky  # type: ignore[method-assign,assignment]
        async with stage.play():
            await stage.pass_time(MINUTE)
            stage.clock.step(-DAY)
            away = False
            await stage.pass_time(10 * SECOND)
            assert stage.stored()[0].generation >= 1
        assert len(stage.endpoint.requests) == 1 + (stage.stored()[0].generation - 1)

    play(story)


def test_a_step_while_the_store_is_away_is_made_up_for() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            lease = stage.store.lease

            async def away(*_: object) -> object:
                raise errors.Unavailable("the store is away")

            stage.store.lease = away  # type: ignore[method-assign,assignment]
            stage.clock.step(-DAY)
            await stage.pass_time(MINUTE)
            with pytest.raises(errors.Transient, match="no valid access token"):
                await daemon.token("billing")
            stage.store.lease = lease  # type: ignore[method-assign]
            await stage.pass_time(MINUTE)
            assert (await daemon.token("billing"))["generation"] == 2
            assert not stage.stored()[0].unproven

    play(story)


def test_a_start_below_the_high_water_mark_publishes_nothing_stored_and_survives_a_store_that_is_away() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play():
            await stage.pass_time(MINUTE)
        stage.clock.step(-DAY)
        stage.place().holds = None
        save = stage.store.save

        async def full(*_: object, **__: object) -> None:
            raise errors.Unavailable("the disk is full")

        stage.store.save = full  # type: ignore[method-assign]
        async with stage.play():
            await stage.pass_time(MINUTE)
            assert stage.place().holds is None
            assert len(stage.endpoint.requests) == 1, "no intent, no exchange"
            stage.store.save = save  # type: ignore[method-assign]
            await stage.pass_time(MINUTE)
            held = stage.place().holds
            assert isinstance(held, Publication) and held.generation == 2

    play(story)


def test_one_pass_is_not_held_up_by_a_clock_that_is_set_back() -> None:
    async def story() -> None:
        stage = Stage()
        stage.endpoint.script = lambda request: failing(OutcomeClass.NOT_SENT, "connection refused")
        passing = asyncio.create_task(_once(stage.daemon))
        await stage.pass_time(MINUTE)
        stage.clock.step(-DAY)
        stage.endpoint.script = stage.provider
        await stage.pass_time(10 * MINUTE)
        assert passing.done() and passing.result() is True

    play(story)


def test_one_pass_is_not_ended_by_a_clock_that_is_set_back_during_a_sweep() -> None:
    async def story() -> None:
        stage = Stage()
        stage.endpoint.script = lambda request: failing(OutcomeClass.NOT_SENT, "connection refused")
        due, steps = stage.store.due, [-DAY]

        async def slow(now: datetime, limit: int) -> Sequence[str]:
            found = await due(now, limit)
            if stage.clock.passed() > MINUTE and steps:
                stage.clock.step(steps.pop())
                stage.endpoint.script = stage.provider
            return found

        stage.store.due = slow  # type: ignore[method-assign]
        passing = asyncio.create_task(_once(stage.daemon))
        await stage.pass_time(10 * MINUTE)
        assert passing.done() and passing.result() is True and not steps

    play(story)


async def _once(daemon: Daemon) -> bool:
    return (await daemon.once(HOUR)).well


@pytest.mark.parametrize("span", [30 * MINUTE, 5 * HOUR, DAY])
def test_a_machine_that_slept_rotates_what_became_due_within_a_beat_of_waking(span: timedelta) -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play():
            await stage.pass_time(25 * MINUTE)
            stage.clock.suspend(span)
            await stage.pass_time(20 * SECOND)
            held = stage.place().holds
            assert isinstance(held, Publication) and held.access.is_valid(stage.clock.now())
            assert held.generation == 2
            # No burst: one exchange for all that was missed.
            assert len(stage.endpoint.requests) == 2
        told = [event for event in stage.told if isinstance(event, events.ClockJumped)]
        assert [(event.slept, event.by) for event in told] == [(True, span)]

    play(story)


def test_a_drain_goes_on_asking_for_time_though_the_clock_is_set_back() -> None:
    async def story() -> None:
        stage = Stage(latency=25 * SECOND)
        async with stage.play():
            await stage.pass_time(SECOND)
            stage.clock.step(-DAY)
        assert stage.supervisor.words().count("extend") >= 3
        assert stage.stored()[0].generation == 1, "what was in flight is saved"

    play(story)


def test_a_token_counts_from_before_the_request_was_sent() -> None:
    async def story() -> None:
        stage = Stage(latency=20 * SECOND)
        async with stage.play():
            began = stage.clock.now()
            await stage.pass_time(MINUTE)
            access = stage.stored()[0].access
            assert access is not None
            assert access.issued_at - began < SECOND
            assert access.expires_at == access.issued_at + stage.provider.lifetime

    play(story)

"""The order in which things start and stop, and what the supervisor hears of it."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from rotator.core import errors
from rotator.core.grants import Grant, OutcomeClass
from rotator.core.ports import Lease
from rotator.core.publication import Publication, Settled
from tests.engine.stage import HOUR, MINUTE, SECOND, Stage, failing, play


class Face:
    """Keeps what happened in the order in which it happened."""

    def __init__(self, name: str, heard: list[tuple[str, str]], error: Exception | None = None) -> None:
        self.name, self.heard, self.error = name, heard, error

    async def start(self) -> None:
        self.heard.append(("open", self.name))
        if self.error is not None:
            raise self.error

    async def close(self) -> None:
        self.heard.append(("close", self.name))


def store_away_for_answers(stage: Stage) -> asyncio.Event:
    """The store takes intents and no answers until the event is set."""
    save, back = stage.store.save, asyncio.Event()

    async def away(grant: Grant, *, expected: int, lease: Lease | None, now: object) -> None:
        if grant.generation > expected and not back.is_set():
            raise errors.Unavailable("the disk is full")
        await save(grant, expected=expected, lease=lease, now=stage.clock.now())

    stage.store.save = away  # type: ignore[method-assign,assignment]
    return back


def test_the_supervisor_hears_ready_once_the_faces_are_open_and_stopping_before_they_close() -> None:
    async def story() -> None:
        stage = Stage()
        heard = stage.supervisor.heard
        serving = asyncio.create_task(stage.daemon.serve([Face("one", heard), Face("two", heard)]))
        await stage.pass_time(MINUTE)
        stage.daemon.stop()
        await serving
        order = [entry for entry in heard if entry[0] in ("open", "close")]
        assert order == [("open", "one"), ("open", "two"), ("close", "two"), ("close", "one")]
        words = stage.supervisor.words()
        assert words.index("open") < words.index("ready") < words.index("stopping") < words.index("close")
        assert words.count("ready") == words.count("stopping") == 1

    play(story)


def test_a_face_that_cannot_open_ends_the_start_but_not_the_exchange_in_flight() -> None:
    async def story() -> None:
        stage = Stage(latency=20 * SECOND)
        heard = stage.supervisor.heard
        faces = [Face("one", heard), Face("two", heard, errors.Misconfigured("no socket")), Face("three", heard)]
        with pytest.raises(errors.Misconfigured, match="no socket"):
            await stage.daemon.serve(faces)
        assert stage.stored()[0].generation == 1 and isinstance(stage.place().holds, Publication)
        assert ("open", "three") not in heard and ("close", "one") in heard
        words = stage.supervisor.words()
        assert "ready" not in words and "extend" in words[words.index("stopping") :]

    play(story)


def test_stopped_before_it_began_it_starts_no_exchange() -> None:
    async def story() -> None:
        stage = Stage()
        stage.daemon.stop()
        await stage.daemon.serve()
        assert not stage.endpoint.requests
        assert "ready" not in stage.supervisor.words()

    play(story)


@pytest.mark.parametrize("after", [timedelta(milliseconds=1), SECOND / 2, 5 * SECOND])
def test_stopped_during_the_first_pass_the_exchange_is_saved_and_published(after: timedelta) -> None:
    async def story() -> None:
        stage = Stage(latency=20 * SECOND)
        serving = asyncio.create_task(stage.daemon.serve())
        await stage.pass_time(after)
        stage.daemon.stop()
        begun = stage.clock.now()
        await serving
        assert len(stage.endpoint.requests) == 1
        assert stage.stored()[0].generation == 1 and isinstance(stage.place().holds, Publication)
        assert stage.clock.now() - begun < 21 * SECOND

    play(story)


def test_a_store_that_keeps_silent_at_the_start_does_not_keep_it_from_stopping() -> None:
    async def story() -> None:
        stage = Stage()

        async def silent(*_: object) -> list[str]:
            await asyncio.Event().wait()
            return []

        stage.store.due = silent  # type: ignore[method-assign,assignment]
        async with stage.play():
            await stage.pass_time(5 * SECOND)
            begun = stage.clock.now()
        assert stage.clock.now() - begun < 20 * SECOND
        assert "store.troubled" in stage.names()

    play(story)


@pytest.mark.parametrize("signals", [1, 3])
def test_shutdown_waits_for_the_save_and_asks_for_time_as_often_as_it_must(signals: int) -> None:
    async def story() -> None:
        stage = Stage(watchdog=4 * SECOND)
        back = store_away_for_answers(stage)
        serving = asyncio.create_task(stage.daemon.serve())
        await stage.pass_time(10 * SECOND)
        for _ in range(signals):
            stage.daemon.stop()
            await stage.pass_time(SECOND)
        for _ in range(20):
            words = len(stage.supervisor.heard)
            await stage.pass_time(MINUTE)
            heard = stage.supervisor.words()[words:]
            assert heard.count("alive") >= 60 / 2 - 1 and heard.count("extend") >= 60 / 5
        assert not serving.done() and stage.place().holds is None
        back.set()
        await serving
        assert stage.stored()[0].generation == 1 and len(stage.endpoint.requests) == 1
        assert isinstance(stage.place().holds, Publication) or signals > 1

    play(story)


def test_a_stop_during_a_reload_is_heard() -> None:
    async def story() -> None:
        stage = Stage()
        back = store_away_for_answers(stage)
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            # The grant is changed while its answer waits in memory.
            stage.turn_to(stage.enrolment("billing", identity=("https://lab", "other", "user"), fingerprint="other"))
            daemon.hang_up()
            await stage.pass_time(SECOND)
            daemon.stop()
            await stage.pass_time(SECOND)
            assert "stopping" in stage.supervisor.words()
            back.set()
        assert stage.stored()[0].generation == 1

    play(story)


def test_a_defect_in_the_sweep_is_told_and_does_not_end_the_daemon_nor_feed_the_watchdog() -> None:
    async def story() -> None:
        stage = Stage(watchdog=10 * SECOND)
        async with stage.play():
            await stage.pass_time(MINUTE)
            due = stage.store.due

            async def broken(*_: object) -> list[str]:
                raise ZeroDivisionError("canary")

            stage.store.due = broken  # type: ignore[method-assign,assignment]
            await stage.pass_time(SECOND)
            before = stage.supervisor.words().count("alive")
            await stage.pass_time(MINUTE)
            assert stage.supervisor.words().count("alive") == before
            assert stage.names().count("daemon.defect") < 20
            stage.store.due = due  # type: ignore[method-assign]
            await stage.pass_time(HOUR)
            assert stage.provider.count == 2
        assert "canary" not in str(stage.told)

    play(story)


def test_one_pass_that_runs_out_of_time_still_saves_and_delivers_its_last_answer() -> None:
    async def story() -> None:
        stage = Stage(latency=20 * SECOND)
        place = stage.place()
        settle = place.settle

        async def slowly(publication: Publication, now: object) -> Settled:
            await stage.clock.pass_time(SECOND)
            return await settle(publication, stage.clock.now())

        place.settle = slowly  # type: ignore[method-assign,assignment]
        health = await stage.daemon.once(10 * SECOND)
        assert stage.stored()[0].generation == 1
        assert isinstance(place.holds, Publication) and health.well

    play(story)


def test_one_pass_that_is_told_to_stop_saves_what_is_in_flight() -> None:
    async def story() -> None:
        stage = Stage(latency=5 * SECOND)
        passing = asyncio.create_task(stage.daemon.once(HOUR))
        await stage.pass_time(SECOND)
        stage.daemon.stop()
        assert (await passing).well

    play(story)


def test_one_pass_waits_for_what_must_be_tried_again() -> None:
    async def story() -> None:
        stage = Stage()
        stage.provider.override.append(failing(OutcomeClass.NOT_SENT, "connection refused"))
        assert (await stage.daemon.once(MINUTE)).well

    play(story)


def test_a_store_that_another_daemon_holds_keeps_it_from_starting() -> None:
    async def story() -> None:
        first, second = Stage(), Stage()
        second.store.shelf = first.store.shelf
        async with first.play():
            await first.pass_time(SECOND)
            with pytest.raises(errors.Overtaken):
                await second.daemon.serve()
            await first.pass_time(MINUTE)
        assert first.stored()[0].generation == 1

    play(story)


@pytest.mark.crowd
def test_a_pause_of_the_store_for_hours_floods_nobody() -> None:
    async def story() -> None:
        stage = Stage(*(f"grant{number}" for number in range(5)))
        async with stage.play():
            await stage.pass_time(MINUTE)
            before = len(stage.told)

            async def full(*_: object, **__: object) -> None:
                raise errors.Unavailable("the disk is full")

            stage.store.save = full  # type: ignore[method-assign]
            await stage.pass_time(4 * HOUR)
            # Each grant at its 1st, 2nd, 4th … 512th try.
            assert 5 < len(stage.told) - before < 5 * 11

    play(story)

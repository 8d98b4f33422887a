"""The real clock: beats, alarm and moment."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from rotator.drivers.clock import SystemClock

TICK = timedelta(milliseconds=20)


def test_a_beat_rings_until_it_is_stopped_and_one_of_its_name_replaces_it() -> None:
    async def story() -> None:
        clock, rung = SystemClock(), asyncio.Queue[str]()
        clock.beat("sweep", TICK, lambda: rung.put_nowait("old"))
        assert await asyncio.wait_for(rung.get(), 10) == "old"
        clock.beat("sweep", TICK, lambda: rung.put_nowait("new"))
        heard = [await asyncio.wait_for(rung.get(), 10) for _ in range(3)]
        assert heard == ["new"] * 3
        clock.stop()
        clock.stop()
        left = rung.qsize()
        await clock_passes(5 * TICK)
        assert rung.qsize() == left

    asyncio.run(story())


async def clock_passes(span: timedelta) -> None:
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(span.total_seconds(), passed.set)
    await passed.wait()


def test_a_beat_that_comes_late_rings_once_and_not_for_each_that_it_missed() -> None:
    async def story() -> None:
        clock, count = SystemClock(), 0

        def ring() -> None:
            nonlocal count
            count += 1

        clock.beat("sweep", TICK, ring)
        # The loop hangs for many beats.
        until = clock.moment().awake + 10 * TICK
        while clock.moment().awake < until:
            pass
        await asyncio.sleep(0)
        assert count <= 1
        clock.stop()

    asyncio.run(story())


def test_beats_that_fall_together_wake_the_loop_once() -> None:
    async def story() -> None:
        loop, clock, heard, ended = asyncio.get_running_loop(), SystemClock(), list[str](), asyncio.Event()

        def turn() -> None:
            heard.append("|")
            if heard.count("b") == 3:
                ended.set()

        def ring(name: str) -> None:
            if not heard or heard[-1] == "|":
                loop.call_soon(turn)
            heard.append(name)

        clock.beat("often", TICK, lambda: ring("a"))
        await clock_passes(TICK / 2)
        clock.beat("rarely", 2 * TICK, lambda: ring("b"))
        await asyncio.wait_for(ended.wait(), 10)
        clock.stop()
        # Whatever the loop was held up by, no turn of it was for the rarer one alone.
        assert all("a" in turn for turn in "".join(heard).split("|") if "b" in turn), heard

    asyncio.run(story())


def test_the_alarm_rings_for_a_time_in_the_past_and_is_taken_away() -> None:
    async def story() -> None:
        clock, rung = SystemClock(), asyncio.Event()
        clock.alarm(clock.now() - timedelta(days=1), rung.set)
        await asyncio.wait_for(rung.wait(), 10)
        rung.clear()
        clock.alarm(clock.now() + 5 * TICK, rung.set)
        clock.alarm(None, rung.set)
        await clock_passes(10 * TICK)
        assert not rung.is_set()
        clock.stop()

    asyncio.run(story())


def test_two_readings_of_a_machine_that_runs_tell_of_no_jump_and_no_sleep() -> None:
    clock = SystemClock()
    before, after = clock.moment(), clock.moment()
    assert after.boottime >= before.boottime and after.awake >= before.awake
    assert after.set_by(before) == after.slept_since(before) == timedelta(0)

"""The bus tells everybody in order, and nobody can harm it."""

from __future__ import annotations

import asyncio

from rotator.core import events
from rotator.engine.bus import Bus
from rotator.lab import world
from tests.engine.stage import SECOND, Stage, play


def test_a_broken_or_slow_listener_harms_nobody() -> None:
    async def story() -> None:
        clock = world.VirtualClock()
        bus, heard = Bus(clock.now, capacity=4), []

        def broken(event: events.Event) -> None:
            raise ValueError("canary")

        bus.join("broken", broken)
        bus.join("good", heard.append)
        told = [events.Warned(at=clock.now(), text=str(number)) for number in range(6)]
        bus.tell(*told)
        assert not heard, "nothing is passed on before the first publication"
        bus.open()
        await clock.pass_time(SECOND)
        assert [event.sentence for event in heard[1:]] == ["2", "3", "4", "5"]
        assert isinstance(heard[0], events.EventsDropped) and heard[0].count == 2 and heard[0].listener == "good"
        bus.tell(told[0])
        bus.tell(told[1])
        bus.flush()
        await clock.pass_time(SECOND)
        assert heard[-2:] == told[:2]

    play(story)


def test_who_merely_counts_hears_many_in_one_turn() -> None:
    async def story() -> None:
        clock = world.VirtualClock()
        bus = Bus(clock.now)
        turns: dict[str, list[str]] = {"slow": [], "quick": []}
        bus.join("slow", lambda event: turns["slow"].append(event.sentence))
        bus.join("quick", lambda event: turns["quick"].append(event.sentence), at_once=64)
        bus.open()
        bus.tell(*(events.Warned(at=clock.now(), text=str(number)) for number in range(80)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert (len(turns["slow"]), len(turns["quick"])) in ((16, 64), (32, 80))
        await clock.pass_time(SECOND)
        assert turns["slow"] == turns["quick"] == [str(number) for number in range(80)]

    play(story)


def test_without_any_listener_tokens_still_rotate() -> None:
    async def story() -> None:
        stage = Stage()
        stage.daemon._parts.bus._lines.clear()
        health = await stage.daemon.once(SECOND * 10)
        assert health.well and not stage.told

    play(story)

"""The snapshot of the running daemon: what feeds the watchdog and /livez, and that what is kept is what is true."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import pytest

from rotator.core import errors, health
from rotator.core.grants import OutcomeClass
from rotator.engine.daemon import Daemon
from rotator.engine.timing import Timing
from rotator.lab.memory import MemoryStore
from tests.engine.stage import HOUR, MINUTE, SECOND, Stage, failing, play


class _Silent(MemoryStore):
    """A store whose index never answers, from some time on."""

    silent = False

    async def due(self, now: datetime, limit: int) -> Sequence[str]:
        if self.silent:
            await asyncio.Event().wait()
        return await super().due(now, limit)


def test_a_sweep_that_does_not_end_starves_liveness_and_the_watchdog_alike() -> None:
    async def story() -> None:
        stage = Stage(watchdog=MINUTE)
        stage.store = store = _Silent(clock=stage.clock, dice=stage.dice)
        async with stage.play() as daemon:
            await stage.pass_time(5 * MINUTE)
            assert daemon.examine().alive and daemon.examine().started
            store.silent = True
            await stage.pass_time(10 * SECOND)
            fed = stage.supervisor.words().count("alive")
            await stage.pass_time(40 * SECOND)
            assert daemon.examine().alive, "for as long as the watchdog is patient"
            await stage.pass_time(30 * SECOND)
            assert not daemon.examine().alive
            assert stage.supervisor.words().count("alive") == fed
            store.silent = False
            await stage.pass_time(MINUTE)
            assert daemon.examine().alive

    play(story)


def test_an_outage_of_hours_is_no_matter_of_life() -> None:
    async def story() -> None:
        stage = Stage(lifetime=4 * HOUR)
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            stage.provider.override = [failing(OutcomeClass.NOT_SENT)] * 10_000
            for _ in range(3 * 60):
                await stage.pass_time(MINUTE)
                assert daemon.examine().alive and daemon.examine().ready
            # Without a valid token it is not ready, at once, and still alive.
            await stage.pass_time(HOUR)
            assert daemon.examine().alive and not daemon.examine().ready
            assert "holds no valid token; not sent: " in daemon.examine().grants[0].unready
            stage.provider.override.clear()
            await stage.pass_time(6 * MINUTE)
            assert daemon.examine().ready

    play(story)


def test_a_target_that_cannot_take_the_next_token_is_ready_until_the_one_before_expires() -> None:
    async def story() -> None:
        stage = Stage(local=True, timing=Timing(verify_every=HOUR))
        async with stage.play() as daemon:
            await stage.pass_time(30 * MINUTE)
            stage.place().error = errors.Unavailable("the disk is full")
            await stage.pass_time(20 * MINUTE)
            (grant,) = daemon.examine().grants
            assert (grant.generation, grant.published, grant.ready) == (2, False, True)
            await stage.pass_time(15 * MINUTE)
            assert not daemon.examine().ready
            stage.place().error = None
            await stage.pass_time(MINUTE)
            assert daemon.examine().ready

    play(story)


def test_a_remote_target_that_is_away_still_holds_what_was_seen_there() -> None:
    async def story() -> None:
        stage = Stage(local=False)
        async with stage.play() as daemon:
            await stage.pass_time(30 * MINUTE)
            assert daemon.examine().ready
            stage.place().error = errors.Unavailable("the Vault is sealed")
            await stage.pass_time(20 * MINUTE)
            (grant,) = daemon.examine().grants
            assert (grant.generation, grant.published, grant.ready) == (2, False, True)
            await stage.pass_time(15 * MINUTE)
            assert not daemon.examine().ready, "what was seen there has expired"
            stage.place().error = None
            await stage.pass_time(MINUTE)
            assert daemon.examine().ready

    play(story)


def test_a_local_target_that_was_taken_away_and_cannot_be_put_right_is_not_vouched_for() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            stage.place().error = errors.Misconfigured("no right to write")
            stage.watcher.touch("memory:billing")
            await stage.pass_time(SECOND)
            assert "target app holds no valid token" in daemon.examine().grants[0].unready

    play(story)


@pytest.mark.crowd
def test_what_is_kept_is_what_would_be_judged_anew() -> None:
    """Over eight hours with troubles, at every minute: the kept snapshot against judgements that nobody kept."""

    async def story() -> None:
        stage = Stage(*(f"grant_{number}" for number in range(8)))
        async with stage.play() as daemon:
            for minute in range(8 * 60):
                if minute % 97 == 13:
                    stage.provider.override = [failing(OutcomeClass.BUSY, "busy")] * (minute % 30)
                stage.place(f"grant_{minute % 8}").error = (
                    errors.Unavailable("the disk is full") if minute % 5 == 0 else None
                )
                await stage.pass_time(MINUTE)
                kept, anew = daemon.examine().grants, _anew(daemon)
                assert [_timeless(one) for one in kept] == [_timeless(one) for one in anew], minute
                assert daemon.examine().grants is kept, "nothing has changed"

    play(story)


def _anew(daemon: Daemon) -> tuple[health.GrantHealth, ...]:
    scheduler = daemon._open()
    board, now = scheduler._desks._board, daemon.examine().at
    return tuple(
        health.examine(
            desk.grant, desk.enrolment.provider, desk.enrolment.rules.budget, scheduler._courier.health(name), now,
            was_short=board._judged[name].short, refresh_lifetime=desk.enrolment.rules.refresh_lifetime,
        )
        for name, desk in sorted(scheduler._desks._desks.items())
    )  # fmt: skip


def _timeless(grant: health.GrantHealth) -> health.GrantHealth:
    """Without the one duration in words, which may be some seconds old, and without how long it stands: of a judgement
    that ended a shortage that is earlier than need be."""
    return replace(grant, unready=grant.unready and "not ready", stands_until=None)

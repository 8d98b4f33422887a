"""A reload beside everything else that goes on."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from rotator.core import errors
from rotator.core.grants import Grant, Kind
from rotator.core.ports import Roster, TokenRequest
from rotator.core.publication import Publication, Settled
from rotator.lab import world
from tests.engine.stage import HOUR, MINUTE, SECOND, Stage, failing, play

OTHER = ("https://lab", "other", "user")


def slow_enrolment(stage: Stage, span: timedelta) -> None:
    """What a reload asks the store takes its time, and is old by the time it is answered."""
    enrol = stage.store.enrol

    async def slowly(grant: Grant) -> Grant:
        found = await enrol(grant)
        await stage.clock.pass_time(span)
        return found

    stage.store.enrol = slowly  # type: ignore[method-assign]


async def until_due(stage: Stage) -> None:
    due = stage.stored()[0].due_at
    assert due is not None
    await stage.clock.wait_until(due + timedelta(milliseconds=1))


def test_a_rotation_that_ends_during_a_reload_is_not_forgotten() -> None:
    async def story() -> None:
        stage = Stage(latency=2 * SECOND)
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            await until_due(stage)
            slow_enrolment(stage, 5 * SECOND)
            stage.turn_to(stage.roster.by_name["billing"])
            await daemon.reload()
            shown = (await daemon.health())["grants"]["billing"]  # type: ignore[index]
            assert shown["generation"] == 2 and shown["published"] is True
            assert (await daemon.token("billing"))["access_token"] == "access-2"
            await stage.pass_time(MINUTE)
        assert "store.behind" not in stage.names()
        assert [one.generation for one in stage.place().history] == [1, 2]

    play(story)


def test_health_can_be_asked_for_in_the_middle_of_a_reload() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            slow_enrolment(stage, 5 * SECOND)
            stage.turn_to(stage.roster.by_name["billing"], stage.enrolment("extra"))
            reloading = asyncio.create_task(daemon.reload())
            await stage.pass_time(SECOND)
            assert list((await daemon.health())["grants"]) == ["billing"]  # type: ignore[call-overload]
            await reloading
            await stage.pass_time(MINUTE)
            assert (await daemon.health())["published"] is True

    play(story)


def test_the_former_roster_is_closed_after_what_still_uses_it() -> None:
    async def story() -> None:
        stage = Stage(latency=20 * SECOND)
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            former = stage.roster
            stage.turn_to(stage.roster.by_name["billing"])
            await daemon.reload()
            await stage.pass_time(SECOND)
            assert not former.closed, "its exchange is in flight"
            await stage.pass_time(MINUTE)
            assert former.closed
            assert stage.stored()[0].generation == 1

    play(story)


def test_every_roster_is_closed_at_the_end_also_one_that_was_refused() -> None:
    async def story() -> None:
        stage = Stage(latency=20 * SECOND)
        hang = asyncio.Event()

        async def never(publication: Publication, now: object) -> Settled:
            await hang.wait()
            raise AssertionError

        stage.place().settle = never  # type: ignore[method-assign,assignment]
        enrol = stage.store.enrol

        async def away(_: Grant) -> Grant:
            raise errors.Unavailable("the store is away")

        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            used = stage.turn_to(stage.roster.by_name["billing"])
            await daemon.reload()
            stage.store.enrol = away  # type: ignore[method-assign]
            refused = stage.turn_to(stage.roster.by_name["billing"])
            with pytest.raises(errors.Unavailable):
                await daemon.reload()
            assert refused.closed and not used.closed and not stage.roster.closed
            stage.store.enrol = enrol  # type: ignore[method-assign]
        assert used.closed and stage.roster.closed

    play(story)


def test_tokens_of_a_former_identity_that_arrive_late_are_neither_published_nor_spent() -> None:
    async def story() -> None:
        stage = Stage(latency=20 * SECOND)
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            before = stage.stored()[0]
            await until_due(stage)
            place = world.MemoryPublisher("memory:other")
            stage.turn_to(
                stage.enrolment("billing", identity=OTHER, fingerprint="other", targets={"app": place})
            )  # fmt: skip
            await daemon.reload()
            assert stage.exchanges()[-1][1] is Kind.REFRESH
            await stage.pass_time(MINUTE)
            after = stage.stored()[0]
            assert after.lineage != before.lineage and after.identity != before.identity
            assert [one.value.reveal() for one in place.history] == ["access-3"]
            # The late one was saved under its own lineage all the same, before the grant was started anew.
            assert stage.names().count("token.rotated") == 3
        assert [kind for _, kind in stage.exchanges()] == [Kind.PASSWORD, Kind.REFRESH, Kind.PASSWORD]

    play(story)


def test_a_reload_that_fails_half_way_leaves_the_old_identity_at_work() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            before = stage.stored()[0]

            async def away(_: Grant) -> Grant:
                raise errors.Unavailable("the store is away")

            enrol, stage.store.enrol = stage.store.enrol, away  # type: ignore[method-assign]
            stage.turn_to(stage.enrolment("billing", identity=OTHER, fingerprint="other"))
            with pytest.raises(errors.Unavailable):
                await daemon.reload()
            stage.store.enrol = enrol  # type: ignore[method-assign]
            await stage.pass_time(2 * HOUR)
            assert stage.stored()[0].lineage == before.lineage
        kinds = [kind for _, kind in stage.exchanges()]
        assert kinds[0] is Kind.PASSWORD and set(kinds[1:]) == {Kind.REFRESH}

    play(story)


def test_a_store_that_keeps_silent_does_not_hold_up_a_reload_for_ever() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            slow_enrolment(stage, HOUR)
            fresh = stage.turn_to(stage.roster.by_name["billing"])
            daemon.hang_up()
            await stage.pass_time(11 * SECOND)
            assert fresh.closed
            assert "configuration.rejected" in stage.names()
            assert stage.supervisor.words()[-1] != "reloading"
            await stage.pass_time(HOUR)
            assert stage.provider.count == 2

    play(story)


def test_a_defect_in_a_reload_is_told_and_ends_it_for_the_supervisor() -> None:
    async def story() -> None:
        stage = Stage()

        async def reread() -> Roster:
            raise ValueError("canary")

        stage.reread = reread
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            daemon.hang_up()
            await stage.pass_time(SECOND)
            words = [word for word in stage.supervisor.words() if word in ("reloading", "ready")]
            assert words == ["ready", "reloading", "ready"]
            await stage.pass_time(HOUR)
            assert stage.provider.count == 2
        assert "daemon.defect" in stage.names() and "canary" not in str(stage.told)

    play(story)


def test_a_reload_before_the_daemon_is_ready_does_not_make_it_so() -> None:
    async def story() -> None:
        stage = Stage()
        stage.endpoint.script = lambda request: failing_to_connect(request)
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            stage.turn_to(stage.roster.by_name["billing"])
            daemon.hang_up()
            await stage.pass_time(MINUTE)
            assert "configuration.reloaded" in stage.names()
            assert not {"ready", "reloading"} & set(stage.supervisor.words())
            stage.endpoint.script = stage.provider
            await stage.pass_time(6 * MINUTE)
            assert "ready" in stage.supervisor.words()

    play(story)


def failing_to_connect(request: TokenRequest) -> Any:
    from rotator.core.grants import OutcomeClass

    return failing(OutcomeClass.NOT_SENT, "connection refused")


def test_a_run_without_a_configuration_file_has_nothing_to_reload() -> None:
    async def story() -> None:
        stage = Stage()
        object.__setattr__(stage.daemon._parts, "reread", None)
        async with stage.daemon.session():
            with pytest.raises(errors.BadUsage, match="no configuration"):
                await stage.daemon.reload()

    play(story)


def test_a_reload_that_comes_during_the_drain_is_turned_away() -> None:
    async def story() -> None:
        stage = Stage(latency=20 * SECOND)
        async with stage.play() as daemon:
            await stage.pass_time(2 * SECOND)
            daemon.stop()
            await stage.pass_time(SECOND)
            fresh = stage.turn_to(stage.roster.by_name["billing"])
            with pytest.raises(errors.Transient, match="stopping"):
                await daemon.reload()
            assert fresh.closed
            shown = (await daemon.health())["grants"]["billing"]  # type: ignore[index]
            assert shown["generation"] == 0, "health is told during the drain"

    play(story)


def test_two_grants_that_swap_their_names_publish_nothing_of_each_other() -> None:
    async def story() -> None:
        stage = Stage("a", "b")
        one, two = ("https://lab", "one", "user"), ("https://lab", "two", "user")
        stage.roster.by_name = {
            "a": stage.enrolment("a", identity=one, fingerprint="1"),
            "b": stage.enrolment("b", identity=two, fingerprint="2"),
        }
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            first = {name: stage.place(name).holds for name in "ab"}
            fresh = stage.turn_to(
                stage.enrolment("a", identity=two, fingerprint="2", targets=stage.roster.by_name["b"].targets),
                stage.enrolment("b", identity=one, fingerprint="1", targets=stage.roster.by_name["a"].targets),
            )
            await daemon.reload()
            # The budget keeps logins 15 min apart; until then what is published stays.
            await stage.pass_time(MINUTE)
            assert {name: stage.place(name).holds for name in "ab"} == first
            await stage.pass_time(20 * MINUTE)
            for place in (fresh.by_name["a"].targets["app"], fresh.by_name["b"].targets["app"]):
                assert isinstance(place, world.MemoryPublisher) and isinstance(place.holds, Publication)
                assert len(place.history) == 2 and place.history[0].lineage != place.history[1].lineage

    play(story)


def test_a_target_moved_to_another_path_is_written_there_and_the_old_one_goes_when_its_token_expired() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            moved = world.MemoryPublisher("memory:moved")
            stage.turn_to(stage.enrolment("billing", fingerprint="moved", targets={"app": moved}))
            await daemon.reload()
            await stage.pass_time(SECOND)
            assert isinstance(moved.holds, Publication) and isinstance(stage.place().holds, Publication)
            await stage.pass_time(HOUR)
            assert stage.place().holds is None and isinstance(moved.holds, Publication)
        assert list(stage.store.shelf.deliveries) == [("billing", "memory:moved")]

    play(story)


def test_a_reload_between_settling_and_noting_it_delivers_with_the_new_publisher() -> None:
    async def story() -> None:
        stage = Stage()
        former, fresh = stage.place(), world.MemoryPublisher("memory:fresh")
        settle = former.settle

        async def slowly(publication: Publication, now: Any) -> Settled:
            await stage.clock.pass_time(3 * SECOND)
            return await settle(publication, now)

        former.settle = slowly  # type: ignore[method-assign,assignment]
        async with stage.play() as daemon:
            await stage.pass_time(2 * SECOND)
            stage.turn_to(stage.enrolment("billing", fingerprint="moved", targets={"app": fresh}))
            await daemon.reload()
            await stage.pass_time(2 * SECOND)
            assert isinstance(fresh.holds, Publication), "at once, not with the next look"

    play(story)


def test_retire_waits_for_what_is_in_flight_and_spares_what_another_grant_publishes() -> None:
    async def story() -> None:
        stage = Stage("billing", "reports", latency=10 * SECOND)
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            await until_due(stage)
            shared = stage.place("billing")
            stage.turn_to(
                stage.enrolment("reports", fingerprint="shared", targets={"app": shared}),
            )
            await daemon.reload()
            await stage.pass_time(SECOND)
            retired = await daemon.retire("billing")
            assert retired == {"grant": "billing", "retired": True}
            await stage.pass_time(MINUTE)
            assert isinstance(shared.holds, Publication) and shared.holds.grant == "reports"
            assert [grant.name for grant in stage.stored()] == ["reports"]
            assert {grant for grant, _ in stage.store.shelf.deliveries} == {"reports"}

    play(story)

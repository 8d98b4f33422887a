"""What a rotation promises when the store, the secrets or another process get in its way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from rotator.core import errors, events
from rotator.core.grants import Grant, Kind, Outcome, OutcomeClass
from rotator.core.policy import Budget, Rules
from rotator.core.ports import Lease
from rotator.core.publication import Publication
from rotator.core.tokens import AccessToken, Secret
from rotator.engine.bus import Bus
from rotator.engine.crew import Crew
from rotator.lab import world
from tests.engine.stage import HOUR, MINUTE, SECOND, Stage, play


def break_saves_of_answers(stage: Stage, error: Callable[[], Exception | None]) -> None:
    save = stage.store.save

    async def broken(grant: Grant, *, expected: int, lease: Lease | None, now: object) -> None:
        if grant.generation > expected and (raised := error()) is not None:
            raise raised
        await save(grant, expected=expected, lease=lease, now=stage.clock.now())

    stage.store.save = broken  # type: ignore[method-assign,assignment]


@pytest.mark.parametrize(
    "error",
    [errors.StateDamaged("the disk lies"), errors.Misconfigured("read-only"), OSError("canary"), ValueError("canary")],
)
def test_a_granted_answer_outlives_every_failure_of_the_save(error: Exception) -> None:
    async def story() -> None:
        stage = Stage()
        failures = [error] * 3
        break_saves_of_answers(stage, lambda: failures.pop() if failures else None)
        async with stage.play():
            await stage.pass_time(MINUTE)
        assert stage.stored()[0].generation == 1
        assert len(stage.endpoint.requests) == 1
        told = [event.sentence for event in stage.told if event.name == "store.troubled"]
        assert told and all("waits in memory" in sentence and "canary" not in sentence for sentence in told)

    play(story)


def test_an_answer_that_another_process_was_ahead_of_is_told_and_its_generation_taken_over() -> None:
    async def story() -> None:
        stage = Stage(latency=5 * SECOND)
        async with stage.play():
            await stage.pass_time(MINUTE)
            (mine,) = stage.stored()
            assert mine.access is not None and mine.due_at is not None
            await stage.clock.wait_until(mine.due_at + SECOND)
            assert len(stage.endpoint.requests) == 2, "ours is in flight"
            now = stage.clock.now()
            access = AccessToken(Secret("theirs"), "bearer", None, now, now + HOUR, 2)
            theirs = replace(mine, generation=2, access=access, intent=None, due_at=now + HOUR / 2)
            stage.store._put(theirs, now)
            await stage.pass_time(MINUTE)
            held = stage.place().holds
            assert isinstance(held, Publication) and held.value == Secret("theirs")
        assert "thrown away" in next(event.sentence for event in stage.told if event.name == "answer.odd")

    play(story)


def test_a_refresh_token_found_dead_because_another_process_spent_it_costs_no_login() -> None:
    """The store is asked again before a dead chain is believed: the save of that verdict is compared with what is
    there, and what another one saved meanwhile is used."""

    async def story() -> None:
        stage = Stage(latency=5 * SECOND)
        async with stage.play():
            await stage.pass_time(MINUTE)
            (mine,) = stage.stored()
            assert mine.due_at is not None
            stage.provider.override.append(Outcome(cls=OutcomeClass.REFRESH_DEAD, message="HTTP 400 invalid_grant"))
            await stage.clock.wait_until(mine.due_at + SECOND)
            assert [kind for _, kind in stage.exchanges()] == [Kind.PASSWORD, Kind.REFRESH], "ours is in flight"
            now = stage.clock.now()
            access = AccessToken(Secret("theirs"), "bearer", None, now, now + HOUR, 2)
            theirs = replace(
                mine, generation=2, access=access, refresh=Secret("refresh-1"), intent=None, due_at=now + HOUR / 2
            )
            stage.store._put(theirs, now)
            await stage.pass_time(HOUR / 4)
            held = stage.place().holds
            assert isinstance(held, Publication) and held.value == Secret("theirs")
            assert stage.stored() == [theirs]
            await stage.pass_time(HOUR)
        assert "grant.chain_lost" not in stage.names()
        assert [kind for _, kind in stage.exchanges()].count(Kind.PASSWORD) == 1, "the enrolment's own"
        assert stage.stored()[0].generation >= 3

    play(story)


def test_what_another_process_saved_before_is_published_without_an_exchange() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            (mine,) = stage.stored()
            now = stage.clock.now()
            access = AccessToken(Secret("theirs"), "bearer", None, now, now + HOUR, 2)
            stage.store._put(replace(mine, generation=2, access=access, exchanged_at=now, due_at=now + HOUR / 2), now)
            with pytest.raises(errors.Transient, match="only just now"):
                await daemon.rotate("billing", False)
            await stage.pass_time(SECOND)
            held = stage.place().holds
            assert isinstance(held, Publication) and held.value == Secret("theirs")
        assert len(stage.endpoint.requests) == 1

    play(story)


def test_a_target_ahead_found_during_an_exchange_does_not_cost_its_answer() -> None:
    async def story() -> None:
        stage = Stage(latency=20 * SECOND)
        other = world.MemoryPublisher("memory:other")
        enrolment = stage.enrolment("billing")
        stage.roster.by_name["billing"] = replace(enrolment, targets={**enrolment.targets, "other": other})
        async with stage.play():
            await stage.pass_time(MINUTE)
            (grant,) = stage.stored()
            assert grant.due_at is not None and isinstance(other.holds, Publication)
            await stage.clock.wait_until(grant.due_at + SECOND)
            access = replace(other.holds.access, generation=9)
            other.holds = replace(other.holds, access=access)
            stage.watcher.touch("memory:other")
            await stage.pass_time(30 * SECOND)
            rotated = [event for event in stage.told if isinstance(event, events.Rotated)]
            assert [event.generation for event in rotated] == [1, 2], "the answer in flight is saved first"
            assert "store.behind" in stage.names()
            await stage.pass_time(5 * MINUTE)
            held = stage.place().holds
            assert isinstance(held, Publication) and held.generation == 10

    play(story)


def test_a_lease_that_could_not_be_given_back_is_no_failure_of_the_rotation() -> None:
    async def story() -> None:
        stage = Stage()

        async def away(lease: Lease) -> None:
            raise errors.Unavailable("the store is away")

        stage.store.release = away  # type: ignore[method-assign]
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            assert (await daemon.rotate("billing", True))["generation"] == 2
        assert "store.troubled" not in stage.names()

    play(story)


def test_secrets_that_nobody_hands_over_are_given_up_and_read_again() -> None:
    async def story() -> None:
        stage = Stage(rules=Rules(password=True, budget=Budget(limit=1)))
        resolve, silent = stage.credentials.resolve, True

        async def silently(*, password: Secret | None = None) -> object:
            if silent:
                await asyncio.Event().wait()
            return await resolve(password=password)

        stage.credentials.resolve = silently  # type: ignore[method-assign,assignment]
        async with stage.play() as daemon:
            await stage.pass_time(5 * MINUTE)
            assert "not read within 30s" in str(await daemon.health())
            silent = False
            await stage.pass_time(6 * MINUTE)
            assert isinstance(stage.place().holds, Publication)
        assert len(stage.endpoint.requests) == 1

    play(story)


def test_unreadable_secrets_and_a_store_that_is_away_do_not_keep_the_daemon_from_stopping() -> None:
    async def story() -> None:
        stage = Stage()
        stage.credentials.error = errors.Unavailable("the secret file is away")

        async def full(*_: object, **__: object) -> None:
            raise errors.Unavailable("the disk is full")

        stage.store.save = full  # type: ignore[method-assign]
        async with stage.play():
            await stage.pass_time(HOUR)
            begun = stage.clock.now()
        assert stage.clock.now() - begun < 10 * SECOND
        # The same trouble for hours: told at the 1st, 2nd, 4th, 8th … try.
        assert 0 < stage.names().count("store.troubled") < 12

    play(story)


def test_an_intent_that_took_too_long_sends_nothing_and_costs_no_budget() -> None:
    async def story() -> None:
        stage = Stage(rules=Rules(password=True, budget=Budget(limit=1)))
        save, slow = stage.store.save, True

        async def slowly(grant: Grant, **rest: object) -> None:
            if slow and grant.intent is not None:
                # Within the lease, but what is left of it is shorter than the exchange may take.
                await stage.clock.pass_time(20 * SECOND)
            await save(grant, **rest)  # type: ignore[arg-type]

        stage.store.save = slowly  # type: ignore[method-assign]
        async with stage.play():
            await stage.pass_time(MINUTE)
            assert not stage.endpoint.requests
            assert stage.stored()[0].intent is None and not stage.stored()[0].debits
            slow = False
            await stage.pass_time(MINUTE)
            assert isinstance(stage.place().holds, Publication)

    play(story)


def test_expiry_counts_from_before_the_request_and_the_intent_from_before_that() -> None:
    async def story() -> None:
        stage = Stage(latency=7 * SECOND)
        save, intents = stage.store.save, []

        async def noting(grant: Grant, **rest: object) -> None:
            if grant.intent is not None:
                intents.append(grant.intent)
            await stage.clock.pass_time(SECOND)
            await save(grant, **rest)  # type: ignore[arg-type]

        stage.store.save = noting  # type: ignore[method-assign]
        begun = stage.clock.now()
        async with stage.play():
            await stage.pass_time(MINUTE)
        (grant,) = stage.stored()
        (intent,) = intents
        assert grant.access is not None
        assert intent.moment.now == begun and intent.moment.boot_id == "boot-1"
        assert grant.access.issued_at == stage.endpoint.requests[0][0] == begun + SECOND
        assert grant.access.expires_at == begun + SECOND + HOUR

    play(story)


def test_hundreds_of_grants_with_a_defect_do_not_starve_the_others() -> None:
    async def story() -> None:
        broken = [f"a{number}" for number in range(300)]
        stage = Stage(*broken, "zebra")

        class Defect(world.FixedCredentials):
            async def resolve(self, *, password: Secret | None = None) -> object:  # type: ignore[override]
                raise ValueError("canary")

        for name in broken:
            stage.roster.by_name[name] = replace(stage.roster.by_name[name], credentials=Defect())
        async with stage.play():
            await stage.pass_time(MINUTE)
            assert isinstance(stage.place("zebra").holds, Publication)

    play(story)


def test_a_defect_is_tried_again_but_not_in_a_tight_loop() -> None:
    async def story() -> None:
        stage = Stage()
        tries, resolve = 0, stage.credentials.resolve

        async def defect(*, password: Secret | None = None) -> object:
            nonlocal tries
            tries += 1
            if tries < 10:
                raise ValueError("canary")
            return await resolve(password=password)

        stage.credentials.resolve = defect  # type: ignore[method-assign,assignment]
        async with stage.play():
            await stage.pass_time(10 * SECOND)
            assert tries < 6
            await stage.pass_time(5 * MINUTE)
            assert isinstance(stage.place().holds, Publication)
        assert "daemon.defect" in stage.names()
        assert "canary" not in str(stage.told)

    play(story)


def test_a_rotation_asked_for_while_the_former_one_ends_is_not_lost() -> None:
    async def story() -> None:
        loop, began = asyncio.get_running_loop(), []
        clock = world.VirtualClock()
        crew = Crew(Bus(clock.now), clock.now, lambda: None)

        async def first() -> None:
            began.append("first")
            # Runs after this task has ended and before its end is taken note of.
            loop.call_soon(lambda: crew.start(("deliver", "billing"), second))

        async def second() -> None:
            began.append("second")

        crew.start(("deliver", "billing"), first)
        await crew.quiet()
        await asyncio.sleep(0)
        await crew.quiet()
        assert began == ["first", "second"]
        await crew.close()
        assert crew.start(("deliver", "billing"), first) is None

    play(story)


def test_an_adopted_refresh_token_costs_one_exchange_also_while_one_is_in_flight() -> None:
    async def story() -> None:
        stage = Stage(latency=5 * SECOND)
        stage.provider.live.add("old-friend")
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            shown = await daemon.authorize("billing", None, Secret("old-friend"))
            assert shown["generation"] == 2
            await stage.pass_time(MINUTE)
        spent = [request.refresh for _, request in stage.endpoint.requests if request.kind is Kind.REFRESH]
        assert spent == [Secret("old-friend")]

    play(story)


def test_the_error_of_an_order_says_who_must_act() -> None:
    async def story() -> None:
        kinds = {
            OutcomeClass.REFUSED: errors.Refused, OutcomeClass.MISCONFIGURED: errors.Misconfigured,
            OutcomeClass.DOUBTFUL: errors.Doubtful, OutcomeClass.BUSY: errors.Transient,
        }  # fmt: skip
        for cls, kind in kinds.items():
            stage = Stage()
            async with stage.play() as daemon:
                await stage.pass_time(MINUTE)
                stage.endpoint.script = lambda request, cls=cls: _failing(cls)  # type: ignore[misc]
                with pytest.raises(kind, match=cls.value):
                    await daemon.rotate("billing", True)

    play(story)


def _failing(cls: OutcomeClass) -> object:
    from tests.engine.stage import failing

    return failing(cls)


def test_a_caller_who_goes_away_cancels_nothing() -> None:
    async def story() -> None:
        stage = Stage(latency=5 * SECOND)
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            asking = asyncio.create_task(daemon.rotate("billing", True))
            await stage.pass_time(SECOND)
            asking.cancel()
            await stage.pass_time(10 * SECOND)
            assert stage.stored()[0].generation == 2

    play(story)


def test_cancelled_like_a_command_under_ctrl_c_the_answer_is_saved_first() -> None:
    async def story() -> None:
        stage = Stage(latency=5 * SECOND)

        async def command() -> None:
            async with stage.daemon.session():
                await stage.daemon.rotate("billing", True)

        running = asyncio.create_task(command())
        await stage.pass_time(SECOND)
        for _ in range(3):
            running.cancel()
            await stage.pass_time(timedelta(milliseconds=100))
        with pytest.raises(asyncio.CancelledError):
            await running
        assert stage.stored()[0].generation == 1

    play(story)

"""The life of a grant in the whole engine, in virtual time."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from rotator.core import errors, policy
from rotator.core.grants import Kind, OutcomeClass
from rotator.core.health import Startup, State
from rotator.core.policy import Budget, Rules
from rotator.core.pressure import Limits
from rotator.core.publication import Publication
from rotator.core.tokens import Secret
from rotator.engine.timing import Timing
from rotator.lab import world
from tests.engine.stage import HOUR, MINUTE, SECOND, Stage, failing, granted, play


def test_first_token_by_password_then_rotation_by_refresh_token() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play():
            await stage.pass_time(SECOND)
            assert stage.place().holds is not None
            await stage.pass_time(3 * HOUR)
        kinds = [kind for _, kind in stage.exchanges()]
        assert kinds[0] is Kind.PASSWORD
        assert set(kinds[1:]) == {Kind.REFRESH}
        # 3 h at 70 to 80 % of an hour: four rotations.
        assert len(kinds) == 1 + 4
        assert stage.endpoint.busiest == 1

    play(story)


@pytest.mark.crowd
def test_no_reader_gap_over_two_days() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play():
            await stage.pass_time(SECOND)
            for _ in range(2 * 24 * 12):
                await stage.pass_time(5 * MINUTE)
                held = stage.place().holds
                assert isinstance(held, Publication)
                assert held.access.is_valid(stage.clock.now())

    play(story)


def test_restart_with_a_valid_token_publishes_without_asking_the_provider() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play():
            await stage.pass_time(MINUTE)
        asked = len(stage.endpoint.requests)
        stage.place().holds = None
        async with stage.play():
            await stage.pass_time(SECOND)
            assert isinstance(stage.place().holds, Publication)
        assert len(stage.endpoint.requests) == asked

    play(story)


def test_saved_before_published_before_told() -> None:
    async def story() -> None:
        stage = Stage()
        order: list[str] = []
        place = stage.place()
        settle, save = place.settle, stage.store.save

        async def settling(publication: Publication, now: object) -> object:
            kept = await stage.store.grant("billing")
            assert kept is not None and kept.generation >= publication.generation
            order.append(f"publish {publication.generation}")
            return await settle(publication, stage.clock.now())

        stage.roster.by_name["billing"] = stage.enrolment("billing", targets={"app": _Wrapped(place, settling)})
        async with stage.play():
            await stage.pass_time(MINUTE)
        assert order[0] == "publish 1"
        names = stage.names()
        assert names.index("token.rotated") < names.index("token.delivered")
        assert save is not None

    play(story)


class _Wrapped:
    def __init__(self, inner: world.MemoryPublisher, settle: object) -> None:
        self.local, self.location, self.judged_by_mark = inner.local, inner.location, inner.judged_by_mark
        self.settle, self.remove = settle, inner.remove


def test_an_altered_target_is_put_right_at_once_when_watched_and_at_the_next_look_when_not() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play():
            await stage.pass_time(MINUTE)
            stage.place().holds = "rubbish"
            stage.watcher.touch("memory:billing")
            await stage.pass_time(timedelta(milliseconds=10))
            assert isinstance(stage.place().holds, Publication)
            stage.place().holds = None
            await stage.pass_time(stage.timing.verify_every + stage.timing.sweep_every)
            assert isinstance(stage.place().holds, Publication)
        assert stage.names().count("target.repaired") == 2

    play(story)


def test_targets_that_are_looked_at_every_moment_do_not_hold_up_a_sweep() -> None:
    async def story() -> None:
        stage = Stage(timing=Timing(verify_every=SECOND))
        async with stage.play():
            await stage.pass_time(MINUTE)
            stage.place().holds = None
            await stage.pass_time(SECOND + stage.timing.sweep_every)
            assert isinstance(stage.place().holds, Publication)

    play(story)


def test_a_failing_target_is_retried_told_once_and_never_stops_rotation() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play():
            stage.place().error = errors.Unavailable("the disk is full")
            await stage.pass_time(2 * HOUR)
            assert stage.names().count("delivery.failed") == 1
            assert stage.provider.count == 3
            stage.place().error = None
            await stage.pass_time(MINUTE)
            held = stage.place().holds
            assert isinstance(held, Publication) and held.generation == 3

    play(story)


def test_a_target_that_needs_a_person_is_retried_slowly() -> None:
    async def story() -> None:
        stage = Stage()
        stage.place().error = errors.Misconfigured("no right to write")
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            health = await daemon.health()
            assert "no right to write" in str(health)

    play(story)


def test_refused_password_is_asked_exactly_once_and_a_changed_secret_releases_the_latch() -> None:
    async def story() -> None:
        stage = Stage()
        stage.credentials.values["password"] = "wrong"
        async with stage.play() as daemon:
            await stage.pass_time(HOUR)
            assert len(stage.endpoint.requests) == 1
            document = await daemon.health()
            assert document["grants"]["billing"]["state"] == State.LATCHED.value  # type: ignore[index]
            assert "ready" in stage.supervisor.words(), "a latched grant is decided"
            stage.credentials.values["password"] = "pw"
            await stage.pass_time(MINUTE)
            assert isinstance(stage.place().holds, Publication)
        assert len(stage.endpoint.requests) == 2
        assert "grant.unlatched" in stage.names()

    play(story)


def test_a_latch_holds_over_restarts() -> None:
    async def story() -> None:
        stage = Stage()
        stage.credentials.values["password"] = "wrong"
        for _ in range(20):
            async with stage.play():
                await stage.pass_time(SECOND)
        assert len(stage.endpoint.requests) == 1

    play(story)


def test_an_operator_forces_a_latched_grant() -> None:
    async def story() -> None:
        stage = Stage()
        stage.provider.override.append(failing(OutcomeClass.REFUSED))
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            with pytest.raises(errors.Refused, match="latched"):
                await daemon.rotate("billing", False)
            shown = await daemon.rotate("billing", True)
            assert shown["published"] is True

    play(story)


@pytest.mark.parametrize("crashes", [1, 5, 20])
def test_a_crash_loop_buys_no_extra_password_exchange(crashes: int) -> None:
    async def story() -> None:
        stage = Stage(rules=Rules(password=True, budget=Budget(limit=3)), latency=timedelta(seconds=5))
        for _ in range(crashes):
            async with stage.killed():
                # The request leaves and the process dies before the answer.
                await stage.pass_time(SECOND)
            await stage.pass_time(MINUTE)
        assert len(stage.endpoint.requests) <= 3

    play(story)


def test_a_dead_refresh_token_is_recovered_by_one_budgeted_password_exchange() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play():
            await stage.pass_time(MINUTE)
            stage.provider.live.clear()
            await stage.pass_time(HOUR)
        kinds = [kind for _, kind in stage.exchanges()]
        assert kinds.count(Kind.PASSWORD) == 2
        assert "grant.chain_lost" in stage.names()

    play(story)


def test_killed_after_the_provider_committed_recovers_within_the_budget_without_a_gap() -> None:
    async def story() -> None:
        stage = Stage(latency=timedelta(seconds=2))
        async with stage.play():
            await stage.pass_time(MINUTE)
        due = stage.stored()[0].due_at
        assert due is not None
        await stage.clock.wait_until(due - SECOND)
        async with stage.killed():
            await stage.pass_time(timedelta(seconds=2))
            assert stage.exchanges()[-1][1] is Kind.REFRESH
        async with stage.play():
            for _ in range(200):
                await stage.pass_time(10 * SECOND)
                held = stage.place().holds
                assert isinstance(held, Publication) and held.access.is_valid(stage.clock.now())
        assert [kind for _, kind in stage.exchanges()].count(Kind.PASSWORD) == 2
        assert "exchange.doubtful" in stage.names()

    play(story)


def test_unreadable_secrets_are_not_sent_and_cost_no_budget() -> None:
    async def story() -> None:
        stage = Stage(rules=Rules(password=True, budget=Budget(limit=1)))
        stage.credentials.error = errors.Unavailable("the secret file is away")
        async with stage.play():
            await stage.pass_time(HOUR)
            assert not stage.endpoint.requests
            stage.credentials.error = None
            await stage.pass_time(10 * MINUTE)
            assert isinstance(stage.place().holds, Publication)

    play(story)


def test_a_defect_in_the_endpoint_is_doubt_and_told() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play():
            await stage.pass_time(MINUTE)
            script, stage.endpoint.script = stage.endpoint.script, _broken
            await stage.pass_time(HOUR - 5 * MINUTE)
            assert "daemon.defect" in stage.names()
            assert "exchange.doubtful" in stage.names()
            stage.endpoint.script = script
            await stage.pass_time(10 * MINUTE)
            held = stage.place().holds
            assert isinstance(held, Publication) and held.access.is_valid(stage.clock.now())

    play(story)


def _broken(request: object) -> object:
    raise ZeroDivisionError("canary")


def test_without_a_password_a_person_is_needed_and_authorize_helps() -> None:
    async def story() -> None:
        stage = Stage(rules=Rules(password=False))
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            assert not stage.endpoint.requests
            assert "ready" in stage.supervisor.words()
            with pytest.raises(errors.Refused):
                await daemon.authorize("billing", Secret("wrong"), None)
            shown = await daemon.authorize("billing", Secret("pw"), None)
            assert shown["generation"] == 1 and shown["published"] is True
            with pytest.raises(errors.BadUsage):
                await daemon.authorize("billing", None, None)
            with pytest.raises(errors.BadUsage, match="known grants: billing"):
                await daemon.authorize("nobody", Secret("pw"), None)

    play(story)


def test_a_refresh_token_from_elsewhere_is_taken_over_without_a_password() -> None:
    async def story() -> None:
        stage = Stage(rules=Rules(password=False))
        stage.provider.live.add("old-friend")
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            shown = await daemon.authorize("billing", None, Secret("old-friend"))
            assert shown["generation"] == 1
        assert [kind for _, kind in stage.exchanges()] == [Kind.REFRESH]

    play(story)


def test_rotate_keeps_the_least_spacing_unless_forced() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            with pytest.raises(errors.Transient):
                await daemon.rotate("billing", False)
            await stage.pass_time(policy.Rules().spacing)
            assert (await daemon.rotate("billing", False))["generation"] == 2
            assert (await daemon.rotate("billing", True))["generation"] == 3

    play(story)


def test_the_token_is_shown_only_while_it_is_valid() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            shown = await daemon.token("billing")
            assert shown["access_token"] == "access-1" and shown["token_type"] == "Bearer"
            stage.endpoint.script = lambda request: failing(OutcomeClass.NOT_SENT)
            await stage.pass_time(2 * HOUR)
            with pytest.raises(errors.Transient):
                await daemon.token("billing")

    play(story)


def test_the_last_good_token_stays_published_through_an_outage() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play():
            await stage.pass_time(SECOND)
            stage.endpoint.script = lambda request: failing(OutcomeClass.NOT_SENT, "connection refused")
            await stage.pass_time(2 * HOUR)
            held = stage.place().holds
            assert isinstance(held, Publication) and held.generation == 1
            stage.endpoint.script = lambda request: granted(9)
            await stage.pass_time(6 * MINUTE)
            held = stage.place().holds
            assert isinstance(held, Publication) and held.generation == 2

    play(story)


@pytest.mark.crowd
def test_thousands_of_due_grants_do_not_delay_one_another() -> None:
    async def story() -> None:
        names = [f"grant{number}" for number in range(1000)]
        # A provider that bears them all: what delays them here is not its limits.
        stage = Stage(*names, latency=timedelta(seconds=1), limits=Limits(in_flight=256, per_second=1000))
        async with stage.play():
            await stage.pass_time(10 * SECOND)
            assert all(isinstance(stage.place(name).holds, Publication) for name in names)

    play(story)


def test_startup_require_none_and_any() -> None:
    async def story() -> None:
        for require in (Startup.NONE, Startup.ANY):
            stage = Stage("one", "two", require=require)
            stage.credentials.error = errors.Unavailable("away")
            async with stage.play():
                await stage.pass_time(SECOND)
                assert ("ready" in stage.supervisor.words()) is (require is Startup.NONE)

    play(story)


def test_not_ready_while_trying_and_time_is_asked_for() -> None:
    async def story() -> None:
        stage = Stage()
        stage.endpoint.script = lambda request: failing(OutcomeClass.NOT_SENT, "connection refused")
        async with stage.play():
            await stage.pass_time(5 * MINUTE)
            assert "ready" not in stage.supervisor.words()
            assert "extend" in stage.supervisor.words()
            stage.endpoint.script = stage.provider
            await stage.pass_time(6 * MINUTE)
            assert "ready" in stage.supervisor.words()

    play(story)


def test_the_watchdog_hears_after_each_sweep_also_through_an_outage_and_not_when_the_sweep_hangs() -> None:
    async def story() -> None:
        stage = Stage(watchdog=10 * SECOND)
        async with stage.play():
            stage.endpoint.script = lambda request: failing(OutcomeClass.NOT_SENT)
            await stage.pass_time(MINUTE)
            assert stage.supervisor.words().count("alive") >= 10
            before = stage.supervisor.words().count("alive")
            due, hang = stage.store.due, asyncio.Event()

            async def hanging(*_: object) -> list[str]:
                await hang.wait()
                return []

            stage.store.due = hanging  # type: ignore[method-assign,assignment]
            await stage.pass_time(MINUTE)
            assert stage.supervisor.words().count("alive") <= before + 1
            assert "store.troubled" in stage.names()
            stage.store.due = due  # type: ignore[method-assign]
            hang.set()
            await stage.pass_time(MINUTE)
            assert stage.supervisor.words().count("alive") > before + 1

    play(story)

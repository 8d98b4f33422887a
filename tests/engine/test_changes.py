"""Reload, removal, retirement, drain, clocks and stores that are not as they should be."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from rotator.core import errors
from rotator.core.grants import Kind, OutcomeClass
from rotator.core.policy import Reuse, Rules
from rotator.core.ports import Roster
from rotator.core.publication import Publication
from rotator.core.tokens import AccessToken, Secret
from rotator.lab import world
from tests.engine.stage import HOUR, MINUTE, SECOND, Stage, failing, play


def test_reload_adds_changes_and_removes_and_a_removed_grant_keeps_its_token_until_expiry() -> None:
    async def story() -> None:
        stage = Stage("billing", "reports")
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            kept = stage.place("billing")
            fresh = world.FixedRoster([stage.enrolment("reports", fingerprint="changed"), stage.enrolment("extra")])
            fresh.removable["memory:billing"] = kept

            async def reread() -> Roster:
                return fresh

            stage.reread = reread
            daemon.hang_up()
            await stage.pass_time(SECOND)
            words = stage.supervisor.words()
            assert words.index("reloading") < len(words) - 1 - words[::-1].index("ready")
            reloaded = next(event for event in stage.told if event.name == "configuration.reloaded")
            assert reloaded.sentence.endswith("added extra; changed reports; removed billing")
            assert isinstance(kept.holds, Publication)
            await stage.pass_time(50 * MINUTE)
            assert isinstance(kept.holds, Publication), "served until it expires"
            await stage.pass_time(11 * MINUTE)
            assert kept.holds is None
            assert "target.removed" in stage.names()
            assert {grant.name for grant in stage.stored()} == {"billing", "reports", "extra"}
            assert stage.roster.closed, "the former roster's logins are closed"

    play(story)


def test_a_removed_grant_is_not_rotated_and_does_not_fill_the_window() -> None:
    async def story() -> None:
        stage = Stage("a", "b")
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            fresh = world.FixedRoster([stage.enrolment("b")])

            async def reread() -> Roster:
                return fresh

            stage.reread = reread
            await daemon.reload()
            before = stage.provider.count
            await stage.pass_time(3 * HOUR)
            # At 70 to 80 % of an hour; both would make six at least.
            assert stage.provider.count - before in (3, 4)

    play(story)


def test_a_bad_configuration_keeps_the_old_one_and_says_so() -> None:
    async def story() -> None:
        stage = Stage()

        async def reread() -> Roster:
            raise errors.Misconfigured("grants.billing.client_id is missing")

        stage.reread = reread
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            with pytest.raises(errors.Misconfigured):
                await daemon.reload()
            daemon.hang_up()
            await stage.pass_time(HOUR)
            assert stage.provider.count == 2
            assert stage.names().count("configuration.rejected") == 2
            status = [text for word, text in stage.supervisor.heard if word == "ready"][-1]
            assert "not reloaded" in status

    play(story)


def test_a_changed_client_starts_anew_and_publishes_nothing_of_the_old_one() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            other = stage.enrolment("billing", identity=("https://lab", "other", "user"), fingerprint="other")

            async def reread() -> Roster:
                return world.FixedRoster([other])

            stage.reread = reread
            lineage = stage.stored()[0].lineage
            await daemon.reload()
            await stage.pass_time(20 * MINUTE)
            grant = stage.stored()[0]
            assert grant.lineage != lineage
            assert [kind for _, kind in stage.exchanges()] == [Kind.PASSWORD, Kind.PASSWORD]
            assert "grant.identity_changed" in stage.names()

    play(story)


def test_retire_deletes_what_is_stored_and_published_but_only_once_it_is_not_configured() -> None:
    async def story() -> None:
        stage = Stage("billing", "reports")
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            with pytest.raises(errors.BadUsage, match="still configured"):
                await daemon.retire("billing")
            fresh = world.FixedRoster([stage.enrolment("reports")])
            place = stage.place("billing")
            fresh.removable["memory:billing"] = place

            async def reread() -> Roster:
                return fresh

            stage.reread = reread
            await daemon.reload()
            await daemon.retire("billing")
            assert place.holds is None
            assert [grant.name for grant in stage.stored()] == ["reports"]
            with pytest.raises(errors.BadUsage, match="no tokens"):
                await daemon.retire("billing")

    play(story)


def test_stop_saves_the_exchange_in_flight_and_asks_for_time() -> None:
    async def story() -> None:
        stage = Stage(latency=20 * SECOND)
        async with stage.play() as daemon:
            await stage.pass_time(2 * SECOND)
            assert len(stage.endpoint.requests) == 1
            daemon.stop()
            await stage.pass_time(SECOND)
            with pytest.raises(errors.Transient, match="stopping"):
                await daemon.rotate("billing", True)
            await stage.pass_time(20 * SECOND)
        assert stage.stored()[0].generation == 1
        assert isinstance(stage.place().holds, Publication)
        words = stage.supervisor.words()
        assert "extend" in words[words.index("stopping") :]

    play(story)


def test_a_second_stop_gives_up_deliveries_but_not_the_save() -> None:
    async def story() -> None:
        stage = Stage(latency=10 * SECOND)
        hang = asyncio.Event()

        async def never(publication: Publication, now: object) -> object:
            await hang.wait()
            raise AssertionError

        place = stage.place()
        stage.roster.by_name["billing"] = stage.enrolment("billing", targets={"app": _Stuck(place, never)})
        begun = stage.clock.now()
        async with stage.play() as daemon:
            await stage.pass_time(2 * SECOND)
            daemon.stop()
            await stage.pass_time(SECOND)
            daemon.stop()
        assert stage.stored()[0].generation == 1
        assert stage.clock.now() - begun < timedelta(seconds=16)

    play(story)


class _Stuck:
    def __init__(self, inner: world.MemoryPublisher, settle: object) -> None:
        self.local, self.location, self.judged_by_mark = inner.local, inner.location, inner.judged_by_mark
        self.settle, self.remove = settle, inner.remove


def test_the_store_away_before_the_exchange_spends_nothing() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play():
            await stage.pass_time(MINUTE)
            save = stage.store.save

            async def failing_save(*_: object, **__: object) -> None:
                raise errors.Unavailable("the disk is full")

            stage.store.save = failing_save  # type: ignore[method-assign]
            await stage.pass_time(HOUR - 2 * MINUTE)
            assert len(stage.endpoint.requests) == 1, "no intent, no exchange"
            stage.store.save = save  # type: ignore[method-assign]
            await stage.pass_time(MINUTE)
            assert len(stage.endpoint.requests) == 2

    play(story)


def test_the_store_away_after_the_exchange_keeps_the_answer_and_publishes_only_once_saved() -> None:
    async def story() -> None:
        stage = Stage(latency=2 * SECOND)
        save, failures = stage.store.save, 0

        async def flaky(grant: object, *, expected: int, **rest: object) -> None:
            nonlocal failures
            if grant.generation > expected and failures < 40:  # type: ignore[attr-defined]
                failures += 1
                raise errors.Unavailable("the disk is full")
            await save(grant, expected=expected, **rest)  # type: ignore[arg-type]

        stage.store.save = flaky  # type: ignore[method-assign,assignment]
        async with stage.play() as daemon:
            await stage.pass_time(10 * SECOND)
            assert failures and stage.place().holds is None
            daemon.stop()
        assert failures == 40
        assert stage.stored()[0].generation == 1
        assert len(stage.endpoint.requests) == 1

    play(story)


def test_the_store_away_in_the_sweep_is_told_and_targets_are_kept_right() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play():
            await stage.pass_time(MINUTE)

            async def away(*_: object) -> list[str]:
                raise errors.Unavailable("the store is away")

            stage.store.due = away  # type: ignore[method-assign,assignment]
            stage.place().holds = None
            await stage.pass_time(MINUTE)
            assert isinstance(stage.place().holds, Publication)
            assert "store.troubled" in stage.names()
            assert stage.supervisor.words().count("alive") > 3

    play(story)


def test_a_target_ahead_of_the_store_proves_an_old_copy_and_nothing_older_is_published() -> None:
    async def story() -> None:
        for reuse in Reuse:
            stage = Stage(rules=Rules(password=True, reuse=reuse))
            async with stage.play():
                await stage.pass_time(MINUTE)
                held = stage.place().holds
                assert isinstance(held, Publication)
                access = held.access
                newer = AccessToken(
                    Secret("newer"), "bearer", None, access.issued_at, access.expires_at + HOUR, access.generation + 5
                )
                stage.place().holds = replace(held, access=newer)
                await stage.pass_time(MINUTE)
                assert "store.behind" in stage.names()
                await stage.pass_time(2 * HOUR)
                held = stage.place().holds
                assert isinstance(held, Publication) and held.generation > 6

    play(story)


def test_a_clock_behind_the_high_water_mark_refreshes_before_it_trusts() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play():
            await stage.pass_time(MINUTE)
        stage.clock.step(-timedelta(minutes=50))
        stage.clock.reboot()
        stage.place().holds = None
        async with stage.play():
            await stage.pass_time(MINUTE)
            held = stage.place().holds
            assert isinstance(held, Publication) and held.generation == 2
        assert "clock.behind" in stage.names()

    play(story)


def test_one_pass_ends_when_all_is_published_or_decided_or_time_is_up() -> None:
    async def story() -> None:
        stage = Stage()
        health = await stage.daemon.once(MINUTE)
        assert health.well
        stage = Stage()
        stage.credentials.values["password"] = "wrong"
        health = await stage.daemon.once(MINUTE)
        assert not health.well and health.grants[0].decided
        stage = Stage()
        stage.endpoint.script = lambda request: failing(OutcomeClass.NOT_SENT, "connection refused")
        begun = stage.clock.now()
        health = await stage.daemon.once(MINUTE)
        assert not health.well and stage.clock.now() - begun == MINUTE

    play(story)


def test_orders_after_the_end_are_turned_away() -> None:
    async def story() -> None:
        stage = Stage()
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
        for order in (daemon.health(), daemon.rotate("billing", False), daemon.token("billing"), daemon.reload()):
            with pytest.raises(errors.Transient, match="stopping"):
                await order

    play(story)

"""Many grants at one provider: a herd, an outage, a few that fail, a person, a reload and a crash among them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from rotator.core import events
from rotator.core.grants import Kind, Outcome, OutcomeClass
from rotator.core.policy import Rules
from rotator.core.ports import Enrolment, TokenRequest
from rotator.core.pressure import LONGEST_PAUSE, OPENS_AFTER, Limits
from rotator.core.publication import Publication
from rotator.engine.timing import Timing
from rotator.lab import world
from tests.engine.stage import HOUR, MINUTE, SECOND, Stage, failing, play

SLOW = Limits(in_flight=4, per_second=2)


def fleet(stage: Stage, count: int, prefix: str = "g", **changes: object) -> list[str]:
    """More grants, each with credentials of its own, so that the far end can tell them apart."""
    names = [f"{prefix}{number:04}" for number in range(count)]
    for name in names:
        credentials = world.FixedCredentials()
        credentials.values |= {"username": name}
        stage.roster.by_name[name] = stage.enrolment(
            name, credentials=credentials, identity=("https://lab", "client", name), **changes
        )
    return names


def staged(count: int, **given: object) -> tuple[Stage, list[str]]:
    # Looked at less often than in production: it is not the targets that these stories are about.
    stage = Stage(timing=Timing(sweep_every=10 * SECOND, verify_every=HOUR), **given)  # type: ignore[arg-type]
    stage.supervisor.listens = False
    del stage.roster.by_name["billing"]
    return stage, fleet(stage, count)


def asked(stage: Stage, since: datetime = world.GENESIS) -> list[tuple[datetime, str]]:
    return [(at, request.credentials.username or "") for at, request in stage.endpoint.requests if at >= since]


def busiest(times: list[datetime], span: timedelta) -> int:
    """The most in any span, wherever it begins."""
    most, first = 0, 0
    for last, at in enumerate(times):
        while times[first] <= at - span:
            first += 1
        most = max(most, last - first + 1)
    return most


def fail_some(stage: Stage, fails: Callable[[str], bool], cls: OutcomeClass = OutcomeClass.NOT_SENT) -> None:
    def script(request: TokenRequest) -> Outcome:
        return failing(cls) if fails(request.credentials.username or "") else stage.provider(request)

    stage.endpoint.script = script


def served(stage: Stage, names: list[str]) -> int:
    now = stage.clock.now()
    found = [stage.place(name).holds for name in names]
    return sum(isinstance(one, Publication) and one.access.is_valid(now) for one in found)


# --- a herd -----------------------------------------------------------------------------------------------------


@pytest.mark.crowd
def test_a_herd_that_is_enrolled_in_one_second_comes_no_faster_than_the_rate_and_does_not_stay_a_herd() -> None:
    async def story() -> None:
        # Ten thousand at ten a second are as this at one.
        stage, names = staged(1000, limits=Limits(in_flight=16, per_second=1))
        async with stage.play():
            await stage.pass_time(16 * HOUR)
            assert served(stage, names) == len(names)
        times = [at for at, _ in asked(stage)]
        assert busiest(times, SECOND) == 1
        assert stage.endpoint.busiest <= 16
        assert {name for _, name in asked(stage)} == set(names)
        late = [at for at in times if at >= times[0] + 14 * HOUR]
        # Spread evenly it would be 222 in ten minutes; as they came it was 600.
        assert busiest(late, 10 * MINUTE) < 400

    play(story)


@pytest.mark.crowd
def test_after_an_outage_those_whose_token_runs_out_first_come_first_and_nobody_runs_out() -> None:
    async def story() -> None:
        stage, names = staged(200, limits=Limits(in_flight=16, per_second=2))
        async with stage.play():
            await stage.pass_time(5 * MINUTE)
            assert served(stage, names) == 200
            begun = max(grant.access.issued_at for grant in stage.stored() if grant.access)
            # Due after half an hour at the earliest, run out after an hour.
            await stage.clock.wait_until(begun + 40 * MINUTE)
            fail_some(stage, lambda name: True)
            await stage.pass_time(14 * MINUTE)
            healed = stage.clock.now()
            left = {grant.name: grant.access.expires_at for grant in stage.stored() if grant.access}
            waiting = {grant.name for grant in stage.stored() if grant.due_at and grant.due_at < healed}
            assert len(waiting) > 60
            stage.endpoint.script = stage.provider
            await stage.pass_time(2 * MINUTE)
            assert served(stage, names) == 200
            order = [name for _, name in asked(stage, healed) if name in waiting]
            assert set(order) >= waiting
            untouched = [name for name in order if left[name] < healed + 10 * MINUTE][: len(waiting)]
            swaps = sum(left[one] > left[other] for one, other in itertools.pairwise(untouched))
            assert swaps <= len(untouched) / 4, "but for those in a line of their own they come in order"
        assert busiest([at for at, _ in asked(stage)], SECOND) <= 2

    play(story)


# --- those that fail --------------------------------------------------------------------------------------------


@pytest.mark.crowd
def test_a_grant_that_fails_never_delays_another() -> None:
    """The same fleet with and without failing ones among it: nobody else is later for them than by one pause."""

    def published(fails: Callable[[str], bool], cls: OutcomeClass, latency: timedelta) -> dict[str, datetime]:
        first: dict[str, datetime] = {}

        async def story() -> None:
            stage, names = staged(30, limits=Limits(in_flight=8, per_second=50), latency=latency)
            fail_some(stage, fails, cls)
            async with stage.play():
                for _ in range(12 * 60):
                    await stage.pass_time(5 * SECOND)
                    for name in names:
                        held = stage.place(name).holds
                        if isinstance(held, Publication) and name not in first:
                            first[name] = held.access.issued_at
                assert served(stage, names) == sum(not fails(name) for name in names)

        play(story)
        return first

    quick = timedelta(milliseconds=50)
    for cls in (OutcomeClass.NOT_SENT, OutcomeClass.BUSY, OutcomeClass.DOUBTFUL, OutcomeClass.REFUSED):
        alone = published(lambda name: False, cls, quick)
        among = published(lambda name: int(name[1:]) % 3 == 0, cls, quick)
        assert len(alone) == 30 and len(among) == 20
        assert max(among[name] - alone[name] for name in among) <= 5 * SECOND


def test_grants_that_hang_leave_slots_to_those_that_do_not() -> None:
    async def story() -> None:
        stage, names = staged(8, limits=Limits(in_flight=4, per_second=100))
        slow = world.ScriptedEndpoint(stage.clock, stage.provider, HOUR)
        hanging = fleet(stage, 4, "h", endpoint=slow)
        lifetimes = stage.provider
        async with stage.play():
            await stage.pass_time(3 * HOUR)
            assert served(stage, names) == 8
            for name in names:
                history = stage.place(name).history
                gaps = [
                    later.access.issued_at - sooner.access.expires_at for sooner, later in itertools.pairwise(history)
                ]
                assert len(history) > 3 and max(gaps) < timedelta(0), "no reader ever waited"
        assert lifetimes.count > 24
        assert slow.busiest <= 4 and served(stage, hanging) == 0

    play(story)


def test_latched_grants_that_are_looked_at_cost_the_others_no_turn() -> None:
    async def story() -> None:
        stage, names = staged(40, limits=SLOW)
        fail_some(stage, lambda name: name != names[-1], OutcomeClass.REFUSED)
        async with stage.play():
            await stage.pass_time(5 * MINUTE)
            assert sum(grant.latch is not None for grant in stage.stored()) == 39
            before = len(stage.endpoint.requests)
            looks = stage.clock.now()
            late = fleet(stage, 5, "late")
            fresh = stage.turn_to(*stage.roster.by_name.values())
            daemon = stage.daemon
            await daemon.reload()
            await stage.pass_time(20 * SECOND)
            stage.roster = fresh
            stage.endpoint.script = stage.provider
            await stage.pass_time(MINUTE)
            assert served(stage, [names[-1], *late]) >= 1
            assert len(asked(stage, looks)) == len(stage.endpoint.requests) - before
            assert not {name for _, name in asked(stage, looks)} & set(names[:-1]), "latched is latched"

    play(story)


# --- the breaker ------------------------------------------------------------------------------------------------


@pytest.mark.crowd
def test_in_an_outage_one_at_a_time_asks_and_with_the_first_answer_all_come() -> None:
    async def story() -> None:
        stage, names = staged(300, limits=Limits(in_flight=16, per_second=20))
        fail_some(stage, lambda name: True)
        async with stage.play():
            await stage.pass_time(30 * MINUTE)
            outage = [at for at, _ in asked(stage)]
            # The pauses double to a minute: 6 to get there, then one a minute; without a breaker it is thousands.
            assert OPENS_AFTER <= len(outage) <= 16 + 6 + 30
            assert max(later - sooner for sooner, later in itertools.pairwise(outage)) <= (LONGEST_PAUSE + 2 * SECOND)
            assert stage.names().count("provider.breaker_opened") == 1
            assert "provider.breaker_closed" not in stage.names()
            stage.endpoint.script = stage.provider
            healed = stage.clock.now()
            await stage.pass_time(LONGEST_PAUSE + 2 * SECOND)
            assert stage.names().count("provider.breaker_closed") == 1
            # All that never failed are through at the rate; those that did have pauses of their own.
            await stage.pass_time(20 * SECOND)
            assert served(stage, names) >= 300 - len(outage)
            assert busiest([at for at, _ in asked(stage, healed)], SECOND) <= 20
            await stage.pass_time(5 * MINUTE)
            assert served(stage, names) == 300
        (opened,) = [event for event in stage.told if isinstance(event, events.BreakerOpened)]
        assert "lab" in opened.sentence and "as scripted" in opened.sentence

    play(story)


def test_an_outage_of_one_provider_holds_no_grant_of_another() -> None:
    async def story() -> None:
        stage, names = staged(20, limits=SLOW)
        others = fleet(stage, 20, "other", provider="another", limits=Limits(per_second=100))
        fail_some(stage, lambda name: name.startswith("g"))
        async with stage.play():
            await stage.pass_time(5 * SECOND)
            assert (served(stage, others), served(stage, names)) == (20, 0)

    play(story)


def test_secrets_that_cannot_be_read_say_nothing_about_the_provider() -> None:
    async def story() -> None:
        stage = Stage(*[f"g{number}" for number in range(3 * OPENS_AFTER)])
        stage.credentials.values |= {"username": None}
        stage.credentials.error = None
        from rotator.core.errors import Unavailable

        stage.credentials.error = Unavailable("the Vault is away")
        async with stage.play():
            await stage.pass_time(10 * MINUTE)
            assert not stage.endpoint.requests
        assert "provider.breaker_opened" not in stage.names()
        assert stage.names().count("exchange.failed") > 3 * OPENS_AFTER

    play(story)


# --- persons, reloads, crashes ----------------------------------------------------------------------------------


def test_a_person_who_asks_passes_the_line_and_an_open_breaker() -> None:
    async def story() -> None:
        stage, names = staged(50, limits=Limits(per_second=0.1))
        async with stage.play() as daemon:
            await stage.pass_time(SECOND)
            assert len(asked(stage)) == 1
            await daemon.rotate(names[-1], force=False)
            assert [name for _, name in asked(stage)][1:] == names[-1:]
            assert stage.clock.now() < world.GENESIS + 5 * SECOND

        down, names = staged(50, limits=Limits(in_flight=16, per_second=100))
        fail_some(down, lambda name: True)
        async with down.play() as daemon:
            await down.pass_time(5 * MINUTE)
            down.endpoint.script = down.provider
            await daemon.rotate(names[-1], force=False)
            assert down.names()[-1] != "provider.breaker_opened"
            await down.pass_time(2 * SECOND)
            assert served(down, names) > 25, "what the person learnt, all others know"

    play(story)


def test_nobody_in_line_is_lost_or_asked_twice_by_a_reload_and_who_left_does_not_come() -> None:
    async def story() -> None:
        stage, names = staged(40, limits=SLOW, latency=SECOND)
        async with stage.play() as daemon:
            await stage.pass_time(5 * SECOND)
            kept: list[Enrolment] = [replace(stage.roster.by_name[name], fingerprint="new") for name in names[:20]]
            moved = [
                replace(stage.roster.by_name[name], provider="another", fingerprint="new") for name in names[20:30]
            ]
            before = {name for _, name in asked(stage)}
            stage.turn_to(*kept, *moved)
            await daemon.reload()
            await stage.pass_time(MINUTE)
            first = Counter(name for _, name in asked(stage))
            assert set(first) == before | set(names[:30])
            assert set(first.values()) == {1}
        assert stage.endpoint.busiest <= 2 * SLOW.in_flight, "two providers from now on"

    play(story)


def test_other_limits_by_a_reload_count_at_once() -> None:
    async def story() -> None:
        stage, names = staged(30, limits=Limits(per_second=0.05))
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            assert len(asked(stage)) <= 4
            wide = Limits(per_second=50)
            stage.turn_to(*(replace(stage.roster.by_name[name], limits=wide, fingerprint="new") for name in names))
            await daemon.reload()
            await stage.pass_time(5 * SECOND)
            assert served(stage, names) == 30

    play(story)


def test_a_crash_forgets_the_line_and_loses_nobody() -> None:
    async def story() -> None:
        stage, names = staged(60, limits=SLOW)
        async with stage.killed():
            await stage.pass_time(10 * SECOND)
            assert 10 < len(asked(stage)) < 30
        stage.store.shelf.free()
        stage.endpoint._in_flight = 0
        async with stage.play():
            await stage.pass_time(MINUTE)
            assert served(stage, names) == 60
        assert max(Counter(name for _, name in asked(stage)).values()) <= 2
        assert busiest([at for at, _ in asked(stage, world.GENESIS + 11 * SECOND)], SECOND) <= 2

    play(story)


def test_a_daemon_that_stops_starts_nobody_who_waits() -> None:
    async def story() -> None:
        stage, _ = staged(60, limits=SLOW, latency=5 * SECOND)
        async with stage.play():
            await stage.pass_time(SECOND)
        assert len(asked(stage)) == 2, "what was in flight is saved, and no more"
        assert sum(grant.generation for grant in stage.stored()) == 2

    play(story)


# --- time -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [timedelta(days=1), timedelta(days=-1)], ids=str)
def test_a_clock_that_is_set_by_a_day_neither_stops_nor_floods_the_line(step: timedelta) -> None:
    async def story() -> None:
        stage, names = staged(60, limits=SLOW)
        times: list[timedelta] = []

        def timed(request: TokenRequest) -> Outcome:
            times.append(stage.clock.passed())
            return stage.provider(request)

        stage.endpoint.script = timed
        async with stage.play():
            await stage.pass_time(5 * SECOND)
            stage.clock.step(step)
            await stage.pass_time(3 * MINUTE)
            assert served(stage, names) == 60
        assert max(sum(at <= one < at + 0.999 * SECOND for one in times) for at in times) <= 2

    play(story)


@pytest.mark.crowd
def test_a_forgiven_resend_is_not_kept_waiting_behind_a_crowd() -> None:
    async def story() -> None:
        rules = Rules(password=True, grace=20 * SECOND)
        stage, names = staged(1, rules=rules, limits=Limits(in_flight=16, per_second=2))
        async with stage.play() as daemon:
            await stage.pass_time(MINUTE)
            # A crowd comes just when an answer is lost.
            fleet(stage, 400, "crowd")
            stage.turn_to(*stage.roster.by_name.values())
            await daemon.reload()
            await stage.pass_time(5 * SECOND)
            (mine,) = [grant for grant in stage.stored() if grant.name == names[0]]
            assert mine.due_at is not None
            await stage.clock.wait_until(mine.due_at - SECOND)
            since = stage.clock.now()
            stage.provider.override = [failing(OutcomeClass.DOUBTFUL)]
            fail_first = [name for _, name in asked(stage, since)]
            assert not fail_first
            await stage.pass_time(30 * SECOND)
            kinds = [
                (at - since, request.kind)
                for at, request in stage.endpoint.requests
                if at >= since and request.credentials.username == names[0]
            ]
            assert Kind.PASSWORD not in [kind for _, kind in kinds]

    play(story)

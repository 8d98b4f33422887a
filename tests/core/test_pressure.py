"""How hard a provider may be pressed, who goes first, and when its breaker opens."""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from random import Random

import build
import pytest
from build import DAY, HOUR, MINUTE, NOON, SECOND, ZERO
from hypothesis import given
from hypothesis import strategies as st

from rotator.core import policy, pressure
from rotator.core.grants import Grant, OutcomeClass
from rotator.core.policy import Rules
from rotator.core.pressure import CLOSED, FIRST_PAUSE, LONGEST_PAUSE, OPENS_AFTER, Breaker, Limits, Line, Place

SILENCE = st.sampled_from(sorted(pressure.SILENT))
ANSWERS = st.sampled_from(sorted(set(OutcomeClass) - pressure.SILENT))
ENDS = st.tuples(
    st.sampled_from("abcdefgh"),
    st.sampled_from(OutcomeClass),
    st.none() | st.timedeltas(ZERO, DAY),
    st.timedeltas(ZERO, HOUR),
    st.booleans(),
)


# --- limits -----------------------------------------------------------------------------------------------------


@given(st.floats(0.01, 1000))
def test_no_more_than_the_rate_starts_in_a_window(per_second: float) -> None:
    limits = Limits(per_second=per_second)
    assert limits.burst == max(1, -(-per_second // 1))
    assert limits.burst / limits.window.total_seconds() == pytest.approx(per_second, rel=1e-4)
    assert limits.window >= 0.999 * SECOND


@pytest.mark.parametrize(("in_flight", "failing"), [(1, 1), (2, 1), (3, 1), (16, 8)])
def test_those_that_fail_leave_half_of_the_slots_to_others(in_flight: int, failing: int) -> None:
    assert Limits(in_flight=in_flight).for_failing == failing


# --- who goes first ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grant", "after", "rules", "place"),
    [
        (build.fresh(), 50 * MINUTE, build.FORGIVING, Place(Line.HELD, NOON + HOUR)),
        (build.fresh(), 70 * MINUTE, build.FORGIVING, Place(Line.MISSING, NOON + HOUR)),
        (build.empty(), 5 * MINUTE, build.FORGIVING, Place(Line.MISSING, NOON)),
        (build.empty(due_at=None), 5 * MINUTE, build.FORGIVING, Place(Line.MISSING, NOON + 5 * MINUTE)),
        (
            build.fresh(trouble=build.trouble(OutcomeClass.BUSY)), 50 * MINUTE, build.FORGIVING,
            Place(Line.FAILING, NOON + HOUR),
        ),
        (build.empty(trouble=build.trouble(OutcomeClass.NOT_SENT)), SECOND, build.FORGIVING, Place(Line.FAILING, NOON)),
    ],
)  # fmt: skip
def test_a_grant_stands_in_the_line_of_its_need(grant: Grant, after: timedelta, rules: Rules, place: Place) -> None:
    assert pressure.place(grant, build.moment(after), rules) == place


def test_a_resend_that_is_still_forgiven_is_needed_before_the_grace_is_over_and_afterwards_fails_like_others() -> None:
    doubted = build.fresh(doubt=build.doubt(), trouble=build.trouble(OutcomeClass.DOUBTFUL))
    assert doubted.doubt is not None
    since = doubted.doubt.since.now - NOON
    within = pressure.place(doubted, build.moment(since + 10 * SECOND), build.STRICT_GRACE)
    assert within == Place(Line.HELD, NOON + since + 30 * SECOND)
    after = pressure.place(doubted, build.moment(since + 31 * SECOND), build.STRICT_GRACE)
    assert after == Place(Line.FAILING, NOON + HOUR)


def test_those_in_order_get_half_of_all_turns_and_every_line_gets_one() -> None:
    assert set(pressure.TURNS) == set(Line)
    assert pressure.TURNS.count(Line.HELD) * 2 >= len(pressure.TURNS)


# --- the breaker ------------------------------------------------------------------------------------------------


def fail(breaker: Breaker, *names: str, at: timedelta = ZERO, asked: timedelta | None = None) -> Breaker:
    for name in names:
        breaker = pressure.judged(breaker, name, OutcomeClass.NOT_SENT, asked, at, probe=breaker.is_open)
    return breaker


ILL = [f"grant{number}" for number in range(OPENS_AFTER)]


@given(ends=st.lists(st.tuples(SILENCE, st.none() | st.timedeltas(ZERO, DAY)), max_size=60))
def test_one_grant_that_fails_for_ever_never_opens_it(ends: list[tuple[OutcomeClass, timedelta | None]]) -> None:
    breaker = CLOSED
    for cls, asked in ends:
        breaker = pressure.judged(breaker, "billing", cls, asked, ZERO, probe=False)
        assert not breaker.is_open


def test_as_many_different_grants_as_it_takes_open_it_and_one_fewer_do_not() -> None:
    assert not fail(CLOSED, *ILL[:-1], *ILL[:-1]).is_open
    opened = fail(CLOSED, *ILL, at=HOUR)
    assert (opened.is_open, opened.opened_at, opened.pause) == (True, HOUR, FIRST_PAUSE)


@given(cls=ANSWERS, rounds=st.integers(0, 20))
def test_any_answer_closes_it_and_forgets_what_was_counted(cls: OutcomeClass, rounds: int) -> None:
    opened = fail(CLOSED, *ILL, *["probe"] * rounds)
    assert opened.is_open
    for breaker in (opened, fail(CLOSED, *ILL[:-1])):
        for probe in (True, False):
            assert pressure.judged(breaker, "other", cls, None, HOUR, probe=probe) == CLOSED


def test_pauses_double_up_to_their_cap_with_each_probe_that_gets_no_answer() -> None:
    breaker, pauses = fail(CLOSED, *ILL), []
    for _ in range(9):
        pauses.append(breaker.pause // SECOND)
        breaker = fail(breaker, "probe")
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_what_was_under_way_when_it_opened_does_not_make_the_pause_longer() -> None:
    opened = fail(CLOSED, *ILL, at=SECOND)
    late = pressure.judged(opened, "late", OutcomeClass.DOUBTFUL, None, 20 * SECOND, probe=False)
    assert late == opened


def test_a_provider_that_asks_for_a_pause_holds_back_who_asked_and_the_rest_only_once_several_agree() -> None:
    told_once = fail(CLOSED, "one", asked=30 * SECOND)
    assert not told_once.is_open
    assert fail(told_once, *ILL[1:]).pause == 30 * SECOND
    assert fail(CLOSED, *ILL, asked=DAY).pause == LONGEST_PAUSE
    opened = fail(CLOSED, *ILL)
    late = pressure.judged(opened, "late", OutcomeClass.BUSY, 20 * SECOND, ZERO, probe=False)
    assert (late.pause, late.opened_at) == (20 * SECOND, opened.opened_at)


def test_a_pause_takes_no_more_than_a_quarter_of_what_the_most_urgent_has_left() -> None:
    breaker = fail(CLOSED, *ILL, *["probe"] * 8, at=HOUR)
    assert breaker.probes_at(None) == HOUR + LONGEST_PAUSE
    assert breaker.probes_at(HOUR + 40 * SECOND) == HOUR + 10 * SECOND
    assert breaker.probes_at(HOUR + 2 * SECOND) == HOUR + FIRST_PAUSE
    assert breaker.probes_at(HOUR - SECOND) == HOUR + LONGEST_PAUSE, "it ran out before"
    assert breaker.probes_at(2 * HOUR) == HOUR + LONGEST_PAUSE


@given(ends=st.lists(ENDS, max_size=60), urgent=st.none() | st.timedeltas(ZERO, DAY))
def test_whatever_happens_a_probe_is_let_through_within_the_longest_pause(
    ends: list[tuple[str, OutcomeClass, timedelta | None, timedelta, bool]], urgent: timedelta | None
) -> None:
    breaker, now = CLOSED, ZERO
    for name, cls, asked, passed, probe in ends:
        now += passed
        breaker = pressure.judged(breaker, name, cls, asked, now, probe=probe)
        if breaker.opened_at is not None:
            assert FIRST_PAUSE <= breaker.probes_at(urgent) - breaker.opened_at <= LONGEST_PAUSE
            assert len(breaker.failed) == OPENS_AFTER


# --- herds ------------------------------------------------------------------------------------------------------


def busiest(times: list[timedelta], span: timedelta) -> int:
    return max(Counter(at // span for at in times).values())


@pytest.mark.crowd
def test_ten_thousand_grants_got_in_one_second_part_with_their_first_rotation() -> None:
    chances, rules = Random(1), Rules()
    herd = [policy.due_at(NOON, HOUR, NOON, rules, chances.random(), spread=True) - NOON for _ in range(10_000)]
    tight = [policy.due_at(NOON, HOUR, NOON, rules, chances.random()) - NOON for _ in range(10_000)]
    assert busiest(tight, MINUTE) > 1_600, "ten percent of an hour holds them all"
    assert busiest(herd, MINUTE) < 650, "ten a second and no more, with nobody holding them back"
    times: list[timedelta] = []
    for due in herd:
        while due < DAY:
            times.append(due)
            due += policy.due_at(NOON, HOUR, NOON, rules, chances.random()) - NOON
    assert busiest([at for at in times if at < HOUR], MINUTE) < 650
    # Spread evenly it would be 222 a minute.
    assert busiest([at for at in times if at >= DAY - 2 * HOUR], MINUTE) < 450, "and ever less of one"


@given(chance=st.floats(0, 1, exclude_max=True), jitter=st.floats(0, 0.2), lifetime=st.timedeltas(MINUTE, DAY))
def test_a_herd_is_spread_to_the_early_side_only(chance: float, jitter: float, lifetime: timedelta) -> None:
    rules = Rules(jitter=jitter)
    plain = policy.due_at(NOON, lifetime, NOON, rules, chance)
    spread = policy.due_at(NOON, lifetime, NOON, rules, chance, spread=True)
    assert spread <= plain + SECOND / 1000
    assert spread - NOON >= lifetime * 0.374


@pytest.mark.parametrize(
    ("due_at", "herd"), [(None, False), (NOON, False), (NOON - 5 * MINUTE, False), (NOON - 7 * MINUTE, True)]
)
def test_a_token_that_came_late_came_late_with_others(due_at: datetime | None, herd: bool) -> None:
    assert policy.is_of_a_herd(due_at, HOUR, NOON, Rules()) is herd

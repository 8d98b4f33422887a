"""When: rotation windows, spacing, backoff, budgets and lifetimes, as arithmetic."""

from __future__ import annotations

from datetime import timedelta

import build
import pytest
from build import DAY, HOUR, MINUTE, NOON, SECOND, ZERO
from hypothesis import given
from hypothesis import strategies as st

from rotator.core import policy
from rotator.core.policy import Budget, Rules

CHANCES = st.floats(0, 1, exclude_max=True)
LIFETIMES = st.timedeltas(SECOND, 24 * HOUR)
RULES = Rules()


# --- when to rotate ---------------------------------------------------------------------------------------------


@given(lifetime=LIFETIMES, chance=CHANCES)
def test_rotation_is_at_three_quarters_give_or_take_five_percent(lifetime: timedelta, chance: float) -> None:
    at = policy.due_at(NOON, lifetime, NOON, RULES, chance)
    assert 0.7 * lifetime - SECOND / 1000 <= at - NOON <= 0.8 * lifetime + SECOND / 1000


@given(lifetime=LIFETIMES, chance=CHANCES, took=st.timedeltas(ZERO, HOUR))
def test_no_answer_makes_a_tight_loop(lifetime: timedelta, chance: float, took: timedelta) -> None:
    at = policy.due_at(NOON, lifetime, NOON + took, RULES, chance)
    assert at - (NOON + took) >= min(30 * SECOND, lifetime / 2)


def test_a_long_access_token_is_rotated_within_a_quarter_of_the_refresh_tokens_life() -> None:
    rules = Rules(refresh_lifetime=8 * HOUR)
    assert policy.due_at(NOON, DAY, NOON, rules, 0.5) == NOON + 2 * HOUR
    assert policy.due_at(NOON, DAY, NOON, Rules(refresh_lifetime=None), 0.5) == NOON + 18 * HOUR


@pytest.mark.parametrize(
    ("lifetime", "spaced"), [(HOUR, 30 * SECOND), (MINUTE, 30 * SECOND), (10 * SECOND, 5 * SECOND), (ZERO, 30 * SECOND)]
)
def test_spacing(lifetime: timedelta, spaced: timedelta) -> None:
    assert policy.spacing(lifetime, RULES) == spaced


@given(failures=st.integers(-5, 10**9), chance=CHANCES)
def test_backoff_is_never_none_and_never_beyond_its_cap(failures: int, chance: float) -> None:
    assert SECOND / 2 <= policy.backoff(failures, RULES, chance) <= 5 * MINUTE


@given(failures=st.integers(1, 30), sooner=CHANCES, later=CHANCES)
def test_backoff_grows(failures: int, sooner: float, later: float) -> None:
    pause, longer = policy.backoff(failures, RULES, sooner), policy.backoff(failures + 1, RULES, later)
    assert longer >= pause or longer >= RULES.backoff_cap / 2


@given(failures=st.integers(-5, 10**9))
def test_slow_backoff_stays_within_its_bounds(failures: int) -> None:
    assert 15 * MINUTE <= policy.slow_backoff(failures, 15 * MINUTE, HOUR) <= HOUR


def test_slow_backoff_doubles() -> None:
    pauses = [policy.slow_backoff(count, 15 * MINUTE, HOUR) for count in (1, 2, 3, 4)]
    assert pauses == [15 * MINUTE, 30 * MINUTE, HOUR, HOUR]


# --- the budget -------------------------------------------------------------------------------------------------

DEBITS = st.lists(st.timedeltas(-3 * DAY, DAY).map(lambda span: NOON + span), max_size=6).map(tuple)


@given(debits=DEBITS, limit=st.integers(1, 4), at_once=st.booleans())
def test_who_waits_until_it_is_allowed_never_exceeds_the_budget(
    debits: tuple[build.datetime, ...], limit: int, at_once: bool
) -> None:
    budget = Budget(limit=limit)
    at = budget.allowed_at(debits, NOON, at_once=at_once)
    assert at >= NOON
    past = tuple(debit for debit in debits if debit <= NOON)
    assert budget.left(past, at) >= 1
    if not at_once:
        assert all(at - debit >= budget.apart for debit in past)


@given(debits=DEBITS)
def test_a_debit_from_the_future_counts_as_one_of_now(debits: tuple[build.datetime, ...]) -> None:
    clamped = tuple(min(at, NOON) for at in debits)
    assert Budget().allowed_at(debits, NOON) == Budget().allowed_at(clamped, NOON)
    assert Budget().left(debits, NOON) == Budget().left(clamped, NOON)


@pytest.mark.parametrize(
    ("ago", "at_once", "allowed_in"),
    [
        ((), False, ZERO),
        ((MINUTE,), False, 14 * MINUTE),
        ((MINUTE,), True, ZERO),
        ((16 * MINUTE,), False, ZERO),
        ((3 * HOUR, 2 * HOUR, HOUR), False, 21 * HOUR),
        ((3 * HOUR, 2 * HOUR, HOUR), True, 21 * HOUR),
        ((HOUR, 3 * HOUR, 2 * HOUR), False, 21 * HOUR),
        ((DAY, 2 * HOUR, HOUR), False, ZERO),
        ((DAY - SECOND, 2 * HOUR, MINUTE), False, 14 * MINUTE),
        ((5 * HOUR, 4 * HOUR, 3 * HOUR, 2 * HOUR), False, 20 * HOUR),
    ],
)
def test_allowed_at(ago: tuple[timedelta, ...], at_once: bool, allowed_in: timedelta) -> None:
    assert Budget().allowed_at(tuple(NOON - span for span in ago), NOON, at_once=at_once) == NOON + allowed_in


@given(debits=DEBITS, limit=st.integers(0, 16))
def test_half_of_what_is_left_is_given_up_and_nothing_is_forgotten(
    debits: tuple[build.datetime, ...], limit: int
) -> None:
    budget = Budget(limit=limit)
    halved = budget.halved(debits, NOON, NOON)
    assert halved[: len(debits)] == debits
    assert budget.left(halved, NOON) == budget.left(debits, NOON) // 2
    assert budget.left(halved, NOON + budget.window) == budget.left(debits, NOON + budget.window)


def test_a_budget_of_none_allows_none() -> None:
    assert Budget(limit=0).allowed_at((), NOON) > NOON
    assert Budget(limit=0).left((), NOON) == 0


def test_left_counts_what_lies_in_the_window() -> None:
    debits = (NOON - DAY, NOON - HOUR, NOON)
    assert Budget().left(debits, NOON) == 1
    assert Budget().left(debits * 5, NOON) == 0


# --- clocks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("later", "elapsed"),
    [
        (build.moment(10 * SECOND), 10 * SECOND),
        (build.moment(10 * SECOND, stepped=2 * SECOND), 10 * SECOND),
        (build.moment(10 * SECOND, stepped=3 * SECOND), None),
        (build.moment(10 * SECOND, stepped=-3 * SECOND), None),
        (build.moment(10 * SECOND, boot="boot-2"), None),
    ],
)
def test_elapsed_since_is_known_within_one_boot_and_an_unset_clock(
    later: policy.Moment, elapsed: timedelta | None
) -> None:
    assert later.elapsed_since(build.moment()) == elapsed


@given(deadline=st.timedeltas(SECOND, 5 * MINUTE))
def test_a_lease_outlives_the_exchange_with_time_to_save(deadline: timedelta) -> None:
    assert Rules(deadline=deadline).lease >= deadline + 3 * SECOND


# --- lifetimes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [(3600, 3600), ("3600", 3600), (" 3600 ", 3600), ("3600.0", 3600), (3599.9, 3599), (1, 1), (10**9, 10**9),
     (10**400, 10**9), ("9" * 32, 10**9), (1e308, 10**9)],
)  # fmt: skip
def test_read_lifetime_takes_what_providers_send(raw: object, seconds: int) -> None:
    assert policy.read_lifetime(raw) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "raw",
    [None, True, False, 0, -1, 0.5, "0", "-5", "", ".", "1e9", "3600s", "٣٦٠٠", "9" * 33, [], {}, float("nan"),
     float("inf"), float("-inf"), -(10**400)],
)  # fmt: skip
def test_read_lifetime_says_none_of_what_is_unusable(raw: object) -> None:
    assert policy.read_lifetime(raw) is None


@given(raw=st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.integers())))
def test_read_lifetime_never_raises_and_is_never_less_than_a_second(raw: object) -> None:
    told = policy.read_lifetime(raw)
    assert told is None or told >= SECOND


@pytest.mark.parametrize(
    ("told", "last_good", "counted"),
    [
        (HOUR, None, HOUR),
        (30 * DAY, None, 24 * HOUR),
        (None, None, HOUR),
        (None, 20 * MINUTE, 20 * MINUTE),
        (None, 5 * HOUR, HOUR),
        (HOUR, 20 * MINUTE, HOUR),
        (ZERO, None, HOUR),
        (None, ZERO, HOUR),
    ],
)
def test_lifetime(told: timedelta | None, last_good: timedelta | None, counted: timedelta) -> None:
    assert policy.lifetime(told, RULES, last_good) == counted

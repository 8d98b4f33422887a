"""What all grants of one provider share: slots, the rate, the breaker, and turns. Whatever happens, its bounds hold."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rotator.core import events, pressure
from rotator.core.grants import OutcomeClass
from rotator.core.policy import Moment
from rotator.core.pressure import Limits, Line, Place
from rotator.engine.gates import Gate, Gates
from rotator.lab.world import GENESIS

SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
ZERO = timedelta(0)
WIDE = Limits(in_flight=1000, per_second=1000)


def at(span: timedelta, *, stepped: timedelta = ZERO) -> Moment:
    return Moment(GENESIS + span + stepped, "boot-1", HOUR + span)


def held(left: timedelta) -> Place:
    return Place(Line.HELD, GENESIS + left)


def all_in(gate: Gate, moment: Moment) -> list[str]:
    found = []
    while (name := gate.next(moment)) is not None:
        found.append(name)
    return found


def crowd(gate: Gate, line: Line, count: int, prefix: str = "") -> list[str]:
    names = [f"{prefix or line.name.lower()}{number:04}" for number in range(count)]
    for number, name in enumerate(names):
        gate.wait(name, Place(line, GENESIS + MINUTE + number * SECOND))
    return names


def open_breaker(gate: Gate, moment: Moment, retry_after: timedelta | None = None) -> list[events.Event]:
    told = []
    for number in range(pressure.OPENS_AFTER):
        gate.pass_by(f"ill{number}", moment)
        told.append(
            gate.leave(
                f"ill{number}", moment, OutcomeClass.NOT_SENT, message="connection refused", retry_after=retry_after
            )
        )
    return [event for event in told if event is not None]


# --- slots and turns --------------------------------------------------------------------------------------------


def test_the_token_that_runs_out_first_goes_first_and_a_freed_slot_goes_to_the_next() -> None:
    gate = Gate("lab", Limits(in_flight=2, per_second=1000))
    for name, left in (("late", HOUR), ("soon", MINUTE), ("next", 2 * MINUTE)):
        gate.wait(name, held(left))
    assert all_in(gate, at(ZERO)) == ["soon", "next"]
    assert (gate.waiting, gate.inside, gate.starts_at(at(ZERO))) == (1, 2, None)
    gate.leave("soon", at(SECOND), OutcomeClass.GRANTED)
    assert gate.starts_at(at(SECOND)) == GENESIS + SECOND
    assert all_in(gate, at(SECOND)) == ["late"]


def test_waiting_twice_is_waiting_once_and_who_is_inside_does_not_wait() -> None:
    gate = Gate("lab", WIDE)
    for _ in range(3):
        gate.wait("billing", held(HOUR))
    assert all_in(gate, at(ZERO)) == ["billing"]
    gate.wait("billing", held(HOUR))
    assert (gate.waiting, gate.next(at(SECOND))) == (0, None)


def test_who_waits_moves_to_where_it_belongs_by_now() -> None:
    gate = Gate("lab", Limits(in_flight=1, per_second=1000))
    gate.wait("a", held(HOUR))
    gate.wait("b", held(2 * HOUR))
    gate.wait("b", held(MINUTE))
    assert gate.waiting == 2
    assert gate.next(at(ZERO)) == "b"


@pytest.mark.parametrize("many", [Line.MISSING, Line.FAILING])
def test_thousands_that_are_new_or_fail_leave_half_of_all_turns_to_those_in_order(many: Line) -> None:
    gate = Gate("lab", Limits(in_flight=40, per_second=1000))
    crowd(gate, many, 1000)
    crowd(gate, Line.HELD, 1000)
    first = all_in(gate, at(ZERO))
    assert sum(name.startswith("held") for name in first) >= 20
    assert sum(name.startswith(many.name.lower()) for name in first) >= 10


def test_thousands_in_order_starve_neither_the_new_nor_those_that_failed() -> None:
    gate = Gate("lab", Limits(in_flight=8, per_second=1000))
    crowd(gate, Line.HELD, 1000)
    gate.wait("new", Place(Line.MISSING, GENESIS))
    gate.wait("failing", Place(Line.FAILING, GENESIS))
    assert {"new", "failing"} <= set(all_in(gate, at(ZERO))[: len(pressure.TURNS)])


def test_grants_that_hang_take_half_of_the_slots_and_never_the_other_half() -> None:
    gate = Gate("lab", Limits(in_flight=8, per_second=1000))
    crowd(gate, Line.FAILING, 100)
    assert len(all_in(gate, at(ZERO))) == 4
    assert gate.starts_at(at(ZERO)) is None, "no alarm can help those that are left"
    names = crowd(gate, Line.HELD, 100)
    assert all_in(gate, at(SECOND)) == names[:4]
    for name in names[:4]:
        gate.leave(name, at(SECOND), OutcomeClass.GRANTED)
    assert all_in(gate, at(SECOND)) == names[4:8], "what they leave free is not for those that hang"
    gate.leave("failing0000", at(SECOND), OutcomeClass.DOUBTFUL)
    assert all_in(gate, at(SECOND)) == ["failing0004"], "for them as many as before"


# --- the rate ---------------------------------------------------------------------------------------------------


def test_no_more_start_in_a_second_than_the_rate_and_the_rest_is_told_when() -> None:
    gate = Gate("lab", Limits(in_flight=1000, per_second=10))
    names = crowd(gate, Line.HELD, 25)
    assert all_in(gate, at(ZERO)) == names[:10]
    assert gate.starts_at(at(SECOND / 2)) == GENESIS + SECOND
    assert all_in(gate, at(SECOND - timedelta(microseconds=1))) == []
    assert all_in(gate, at(SECOND)) == names[10:20]
    assert all_in(gate, at(10 * SECOND)) == names[20:]


def test_a_slow_rate_keeps_its_distance() -> None:
    gate = Gate("lab", Limits(per_second=0.1))
    names = crowd(gate, Line.HELD, 3)
    assert all_in(gate, at(ZERO)) == names[:1]
    assert gate.starts_at(at(ZERO)) == GENESIS + 10 * SECOND
    assert all_in(gate, at(9 * SECOND)) == []
    assert all_in(gate, at(10 * SECOND)) == names[1:2]


def test_a_look_that_asked_the_provider_nothing_costs_none_of_the_rate() -> None:
    gate = Gate("lab", Limits(in_flight=1000, per_second=1))
    gate.wait("latched", Place(Line.FAILING, GENESIS))
    gate.wait("due", Place(Line.FAILING, GENESIS + HOUR))
    assert all_in(gate, at(ZERO)) == ["latched"]
    gate.leave("latched", at(ZERO), None, asked=False)
    assert all_in(gate, at(ZERO)) == ["due"]


def test_a_person_waits_for_nobody_and_counts_like_all_others() -> None:
    gate = Gate("lab", Limits(in_flight=2, per_second=2))
    names = crowd(gate, Line.HELD, 4)
    gate.pass_by(names[0], at(ZERO))
    assert all_in(gate, at(ZERO)) == [names[1]]
    gate.pass_by("another", at(ZERO))
    assert (gate.inside, gate.waiting) == (3, 2)
    for name in (names[0], names[1], "another"):
        gate.leave(name, at(ZERO), OutcomeClass.GRANTED)
    assert all_in(gate, at(SECOND / 2)) == [], "three started in this second already"
    assert all_in(gate, at(SECOND)) == names[2:]


def test_a_wall_clock_that_is_set_moves_neither_the_rate_nor_the_breaker() -> None:
    gate = Gate("lab", Limits(in_flight=1000, per_second=1))
    names = crowd(gate, Line.MISSING, 5)
    assert all_in(gate, at(ZERO)) == names[:1]
    day = timedelta(days=1)
    assert all_in(gate, at(SECOND / 2, stepped=day)) == []
    assert gate.starts_at(at(SECOND / 2, stepped=-day)) == GENESIS - day + SECOND
    assert all_in(gate, at(SECOND, stepped=-day)) == names[1:2]
    open_breaker(gate, at(2 * SECOND, stepped=-day))
    assert all_in(gate, at(2 * SECOND, stepped=day)) == []
    assert all_in(gate, at(MINUTE, stepped=-day)) == names[2:3]


# --- the breaker ------------------------------------------------------------------------------------------------


def test_an_open_breaker_lets_one_probe_through_and_its_answer_lets_all_others_in() -> None:
    gate = Gate("lab", WIDE)
    names = crowd(gate, Line.HELD, 20)
    (opened,) = open_breaker(gate, at(ZERO))
    assert isinstance(opened, events.BreakerOpened)
    assert (opened.grants, opened.until) == (pressure.OPENS_AFTER, GENESIS + SECOND)
    assert gate.starts_at(at(ZERO)) == GENESIS + SECOND
    assert all_in(gate, at(ZERO)) == []
    assert all_in(gate, at(SECOND)) == names[:1], "one probe, the most urgent"
    assert gate.starts_at(at(SECOND)) is None
    assert gate.leave(names[0], at(2 * SECOND), OutcomeClass.DOUBTFUL) is None, "opened once, told once"
    assert all_in(gate, at(3 * SECOND)) == []
    assert all_in(gate, at(4 * SECOND)) == names[1:2]
    closed = gate.leave(names[1], at(5 * SECOND), OutcomeClass.REFUSED)
    assert isinstance(closed, events.BreakerClosed)
    assert closed.waiting == 18
    assert all_in(gate, at(5 * SECOND)) == names[2:]


def test_a_probe_that_asked_nothing_makes_room_for_another() -> None:
    gate = Gate("lab", WIDE)
    names = crowd(gate, Line.HELD, 2)
    open_breaker(gate, at(ZERO))
    assert all_in(gate, at(SECOND)) == names[:1]
    gate.leave(names[0], at(SECOND), None, asked=False)
    assert all_in(gate, at(SECOND)) == names[1:]


def test_the_probe_is_one_that_did_not_fail_itself() -> None:
    gate = Gate("lab", WIDE)
    open_breaker(gate, at(ZERO))
    crowd(gate, Line.FAILING, 10)
    gate.wait("new", Place(Line.MISSING, GENESIS))
    gate.wait("healthy", held(HOUR))
    assert gate.next(at(SECOND)) == "healthy"


def test_a_breaker_that_is_open_without_need_costs_a_healthy_grant_one_pause() -> None:
    gate = Gate("lab", WIDE)
    open_breaker(gate, at(ZERO), retry_after=HOUR)
    gate.wait("healthy", held(40 * SECOND))
    assert gate.starts_at(at(ZERO)) == GENESIS + 10 * SECOND
    assert gate.next(at(9 * SECOND)) is None
    assert gate.next(at(10 * SECOND)) == "healthy"
    told = gate.leave("healthy", at(11 * SECOND), OutcomeClass.GRANTED)
    assert isinstance(told, events.BreakerClosed)


def test_a_late_answer_of_one_that_was_under_way_closes_it_too() -> None:
    gate = Gate("lab", WIDE)
    gate.wait("slow", held(HOUR))
    assert gate.next(at(ZERO)) == "slow"
    open_breaker(gate, at(ZERO))
    assert isinstance(gate.leave("slow", at(SECOND), OutcomeClass.GRANTED), events.BreakerClosed)


# --- who comes and goes -----------------------------------------------------------------------------------------


def test_other_limits_count_at_once_and_who_is_inside_stays() -> None:
    gates = Gates()
    gate = gates.of("lab", Limits(in_flight=4, per_second=0.01))
    names = crowd(gate, Line.HELD, 10)
    assert all_in(gate, at(ZERO)) == names[:1]
    assert gates.of("lab", Limits(in_flight=4, per_second=100)) is gate
    assert all_in(gate, at(ZERO)) == names[1:4]
    gates.of("lab", Limits(in_flight=2, per_second=100))
    gate.leave(names[0], at(ZERO), OutcomeClass.GRANTED)
    assert (gate.inside, all_in(gate, at(ZERO))) == (3, [])


def test_who_is_enrolled_no_more_waits_no_more_and_an_empty_gate_goes() -> None:
    gates = Gates()
    one, other = gates.of("one", WIDE), gates.of("other", WIDE)
    crowd(one, Line.HELD, 3)
    one.pass_by("inside", at(ZERO))
    crowd(other, Line.HELD, 2)
    gates.keep(lambda provider, name: provider == "one" and name != "held0000")
    assert [gate.provider for gate in gates] == ["one"]
    assert gates.waiting == 2
    assert all_in(one, at(ZERO)) == ["held0001", "held0002"]
    assert one.leave("inside", at(ZERO), OutcomeClass.GRANTED) is None
    assert one.leave("stranger", at(ZERO), OutcomeClass.GRANTED) is None


def test_gates_say_when_the_first_of_them_lets_somebody_in() -> None:
    gates = Gates()
    assert gates.starts_at(at(ZERO)) is None
    for provider, rate in (("slow", 0.1), ("fast", 1.0)):
        gate = gates.of(provider, Limits(per_second=rate))
        crowd(gate, Line.HELD, 2)
        assert len(all_in(gate, at(ZERO))) == 1
    assert gates.starts_at(at(ZERO)) == GENESIS + SECOND


# --- whatever happens -------------------------------------------------------------------------------------------


class AnyDay(RuleBasedStateMachine):
    """Grants come, start, end in any way; time passes; limits change. The bounds hold at every step."""

    @initialize(in_flight=st.integers(1, 5), per_second=st.sampled_from([0.5, 1.0, 2.5, 7.0]))
    def begin(self, in_flight: int, per_second: float) -> None:
        self.gate = Gate("lab", Limits(in_flight=in_flight, per_second=per_second))
        self.time = ZERO
        self.inside: dict[str, timedelta] = {}
        self.started: list[timedelta] = []
        self.waits: dict[str, int] = {}
        self.probes = 0

    @property
    def moment(self) -> Moment:
        return at(self.time)

    @rule(name=st.sampled_from("abcdefghijkl"), line=st.sampled_from(Line), left=st.integers(-600, 600))
    def wait(self, name: str, line: Line, left: int) -> None:
        self.gate.wait(name, Place(line, GENESIS + left * SECOND))
        if name not in self.inside:
            self.waits.setdefault(name, 0)

    @rule()
    def let_in(self) -> None:
        gate = self.gate
        while (name := gate.next(self.moment)) is not None:
            assert name in self.waits, "nobody starts who does not wait, nor twice"
            if gate.breaker.is_open:
                self.probes += 1
                assert self.probes == 1, "one probe at a time"
            del self.waits[name]
            self.inside[name] = self.time
            self.started.append(self.time)
            assert len(self.inside) <= gate.limits.in_flight
        at_last = gate.starts_at(self.moment)
        assert at_last is None or at_last > self.moment.now, "nobody is left standing at an open gate"
        if self.waits and not self.inside:
            # One slot is free, nobody is asked: then only time holds them back, and not for ever.
            assert at_last is not None
            assert at_last - self.moment.now <= max(pressure.LONGEST_PAUSE, gate.limits.window)

    @precondition(lambda self: self.inside)
    @rule(
        which=st.integers(0, 20), cls=st.none() | st.sampled_from(OutcomeClass), asked=st.booleans(),
        retry=st.none() | st.timedeltas(ZERO, HOUR),
    )  # fmt: skip
    def end(self, which: int, cls: OutcomeClass | None, asked: bool, retry: timedelta | None) -> None:
        name = sorted(self.inside)[which % len(self.inside)]
        began = self.inside.pop(name)
        before = self.gate.breaker
        if cls is None and not asked:
            self.started.remove(began)
        told = self.gate.leave(name, self.moment, cls, retry_after=retry, asked=asked or cls is not None)
        after = self.gate.breaker
        if not before.is_open or not after.is_open or after.opened_at != before.opened_at or cls is None:
            self.probes = min(self.probes, int(self.gate._probe is not None))
        assert isinstance(told, events.BreakerOpened) is (after.is_open and not before.is_open)
        assert isinstance(told, events.BreakerClosed) is (before.is_open and not after.is_open)

    @rule(seconds=st.sampled_from([0.01, 0.1, 0.4, 1.0, 3.0, 30.0, 61.0]))
    def pass_time(self, seconds: float) -> None:
        self.time += seconds * SECOND

    @rule(in_flight=st.integers(1, 5))
    def reload(self, in_flight: int) -> None:
        self.gate.limits = Limits(in_flight=in_flight, per_second=self.gate.limits.per_second)

    @invariant()
    def no_window_holds_more_starts_than_the_rate(self) -> None:
        limits = self.gate.limits
        for first in self.started[-40:]:
            within = sum(first <= one < first + limits.window for one in self.started)
            assert within <= limits.burst


AnyDay.TestCase.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAnyDay = pytest.mark.crowd(AnyDay.TestCase)


def test_nobody_starves_however_many_come() -> None:
    """New ones come as fast as the gate can take them, in all lines; whoever waits is let in all the same."""
    gate = Gate("lab", Limits(in_flight=4, per_second=10))
    waiting_since: dict[str, int] = {}
    longest, number = 0, 0
    for second in range(600):
        now = at(second * SECOND)
        for line in Line:
            for _ in range(3):
                number += 1
                name = f"{line.name}{number}"
                # Due with the same time left as all others of its line, as real grants are.
                gate.wait(name, Place(line, now.now + 15 * MINUTE))
                waiting_since[name] = second
        for _ in range(3):
            for name in all_in(gate, now):
                longest = max(longest, second - waiting_since.pop(name))
                gate.leave(name, now, OutcomeClass.GRANTED)
    assert number == 9 * 600
    assert longest <= 60, "a stream of nine a second through a gate of ten"

"""Worlds add up to one report: counts by bins, requests by seconds."""

from __future__ import annotations

from datetime import timedelta

import pytest

from rotator.lab import report
from rotator.lab.report import Report, Stretch

HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


def made(**changes: object) -> Report:
    values: dict[str, object] = {"seed": 7, "grants": 2, "span": 4 * HOUR, "bin": HOUR}
    return Report(**(values | changes))  # type: ignore[arg-type]


def test_what_happens_is_counted_in_its_bin() -> None:
    told = made()
    told.rotated(timedelta(0))
    told.rotated(HOUR - SECOND)
    told.rotated(HOUR)
    told.failed(2 * HOUR)
    told.logged_in(3 * HOUR)
    assert told.rotations == [2, 1, 0, 0]
    assert told.failures == [0, 0, 1, 0]
    assert told.passwords == [0, 0, 0, 1]


def test_what_comes_after_the_end_belongs_to_the_last_bin() -> None:
    told = made(span=2.5 * HOUR)
    told.rotated(9 * HOUR)
    told.asked(9 * HOUR)
    assert (told.bins, told.rotations, told.busiest) == (3, [0, 0, 1], [0, 0, 1])


def test_the_peak_of_two_worlds_is_the_busiest_second_of_both_together() -> None:
    one, other = made(), made()
    for second, here, there in ((10, 3, 1), (11, 0, 3), (12, 2, 2)):
        for told, times in ((one, here), (other, there)):
            for _ in range(times):
                told.asked(second * SECOND + timedelta(milliseconds=500))
    whole = report.merged([one, other])
    # Not 3 + 3, as the sum of the peaks would have it.
    assert (one.peak, other.peak, whole.peak) == (3, 3, 4)
    assert whole.busiest == [4, 0, 0, 0]


def test_a_fault_of_all_worlds_is_told_once_and_every_gap_is_kept() -> None:
    fault = Stretch(began=HOUR, ended=2 * HOUR, what="the provider is away")
    gaps = [Stretch(began=2 * HOUR, ended=3 * HOUR, what="provider away", grant=name) for name in ("b", "a")]
    worlds = [made(faults=[fault], gaps=[gap], resends=1, latched=1, broken=["x"]) for gap in gaps]
    whole = report.merged(worlds)
    assert whole.faults == [fault]
    assert [gap.grant for gap in whole.gaps] == ["a", "b"]
    assert (whole.grants, whole.resends, whole.latched, whole.broken, whole.worlds) == (4, 2, 2, ["x", "x"], 2)
    assert whole.gap_time() == 2 * HOUR


def test_reports_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(ValueError, match="different spans"):
        report.merged([made(), made(bin=2 * HOUR)])
    with pytest.raises(ValueError, match="no report"):
        report.merged([])
    with pytest.raises(ValueError, match="longer than nothing"):
        made(span=timedelta(0))

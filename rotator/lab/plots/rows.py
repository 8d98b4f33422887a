"""The rows of a timeline: what happened in each column of time, whatever draws it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from itertools import pairwise

from rotator.lab.report import Report, Stretch

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
# Between two marks of the axis; the first that gives no more than `MARKS`.
PACES = (
    timedelta(minutes=10), HOUR, 3 * HOUR, 6 * HOUR, DAY, 2 * DAY, 5 * DAY, 10 * DAY, 30 * DAY, 90 * DAY, 365 * DAY,
    3650 * DAY,
)  # fmt: skip
MARKS = 10


class Tone(StrEnum):
    """How a row is meant: as it should be, worth a look, or a reader in need."""

    CALM = "calm"
    ODD = "odd"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Row:
    """One row: a value for each column, and the greatest of them in words."""

    label: str
    values: tuple[float, ...]
    most: str
    tone: Tone = Tone.CALM


def fitting(report: Report, most: int) -> int:
    """How many columns to draw, at most ``most``: columns of unequally many bins would show a beat that is not there,
    so that a few less are better."""
    bins = report.bins
    return next((count for count in range(min(most, bins), most * 2 // 3, -1) if bins % count == 0), min(most, bins))


def rows(report: Report, columns: int) -> list[Row]:
    """What is shown, from top to bottom, in so many columns, which are no more than the report has bins."""
    each = f"in {brief(report.span / columns)}"
    made = [
        _counted("rotations", _columns(report.rotations, columns, sum), each, Tone.CALM),
        _counted("peak/s", _columns(report.busiest, columns, max), "a second", Tone.CALM),
        _counted("failed", _columns(report.failures, columns, sum), each, Tone.ODD),
        _counted("passwords", _columns(report.passwords, columns, sum), each, Tone.ODD),
    ]
    without = _lasting(report.gaps, report.span, columns)
    most = max(without)
    made.append(Row("no token", tuple(without), f"{most:,.1f} grants" if most else "no gap", Tone.BAD))
    return made


def faults(report: Report, columns: int) -> list[Row]:
    """What was broken on purpose, a row for each kind; 1 where it was on at any time of a column."""
    width = report.span / columns
    made: list[Row] = []
    for what in dict.fromkeys(_kind(fault) for fault in report.faults):
        values = [0.0] * columns
        for fault in report.faults:
            if _kind(fault) == what:
                last = min(columns - 1, fault.ended // width)
                for column in range(min(columns - 1, fault.began // width), last + 1):
                    values[column] = 1.0
        count = sum(_kind(fault) == what for fault in report.faults)
        made.append(Row(what, tuple(values), "once" if count == 1 else f"{count} times", Tone.ODD))
    return made


def _kind(fault: Stretch) -> str:
    """``clock set back by 3 h`` and ``by 1 h`` share a row."""
    return fault.what.partition(" by ")[0]


def marks(span: timedelta) -> list[tuple[timedelta, str]]:
    """Where the axis is marked, and with what."""
    pace = next((pace for pace in PACES if span / pace <= MARKS), PACES[-1])
    return [(number * pace, brief(number * pace) if number else "0") for number in range(span // pace + 1)]


def brief(span: timedelta) -> str:
    """A duration in its largest unit: ``12h``, ``1.5d``, ``40s``."""
    for name, unit in (("d", DAY), ("h", HOUR), ("m", timedelta(minutes=1))):
        if span >= unit:
            return f"{round(span / unit, 1):g}{name}"
    return f"{round(span.total_seconds(), 1):g}s"


def _counted(label: str, values: tuple[float, ...], unit: str, tone: Tone) -> Row:
    most = max(values)
    return Row(label, values, f"{most:,.0f} {unit}" if most else "none", tone)


def _columns(bins: Sequence[int], columns: int, fold: Callable[[Iterable[int]], int]) -> tuple[float, ...]:
    edges = [len(bins) * column // columns for column in range(columns + 1)]
    return tuple(float(fold(bins[begin:end])) for begin, end in pairwise(edges))


def _lasting(stretches: Sequence[Stretch], span: timedelta, columns: int) -> list[float]:
    """How many stretches were on, on average over each column."""
    width = span / columns
    values = [0.0] * columns
    for one in stretches:
        column = min(columns - 1, one.began // width)
        while column < columns and column * width < one.ended:
            shared = min(one.ended, (column + 1) * width) - max(one.began, column * width)
            values[column] += max(0.0, shared / width)
            column += 1
    return values

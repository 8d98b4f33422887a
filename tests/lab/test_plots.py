"""A report as a picture, on a terminal and as SVG."""

from __future__ import annotations

import re
from datetime import timedelta
from xml.etree import ElementTree

import pytest

from rotator.lab.plots import rows, svg, terminal
from rotator.lab.report import Report, Stretch

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def made(*, days: int = 10, quiet: bool = False) -> Report:
    report = Report(seed=1, grants=40, span=days * DAY, bin=days * DAY / 720)
    for number in range(720):
        for _ in range(4):
            report.rotated(number * report.bin)
        report.asked(number * report.bin)
    if not quiet:
        report.faults = [
            Stretch(began=3 * DAY, ended=4 * DAY, what="provider away"),
            Stretch(began=6 * DAY, ended=6 * DAY, what="clock set back by 3 h"),
        ]
        report.gaps = [Stretch(began=3.5 * DAY, ended=4 * DAY, what="x", grant=f"g{number}") for number in range(20)]
        for _ in range(7):
            report.failed(3.5 * DAY)
    return report


@pytest.mark.parametrize("width", [40, 60, 80, 100, 132])
@pytest.mark.parametrize("days", [1, 10, 30, 365])
def test_the_picture_fits_the_terminal(width: int, days: int) -> None:
    drawn = terminal.draw(made(days=days, quiet=days < 10), width=width).splitlines()
    assert max(map(len, drawn)) <= max(60, width)
    bars = {line.index("│", 16) for line in drawn if line.count("│") == 2}
    assert len(bars) == 1, "all rows end in one line"


def test_plain_ascii_where_the_terminal_knows_no_more() -> None:
    drawn = terminal.draw(made(), unicode=False)
    assert drawn.isascii()
    assert "provider away" in drawn
    assert not terminal.draw(made()).isascii()


def test_colors_only_where_they_are_wanted() -> None:
    assert "\x1b" not in terminal.draw(made())
    colored = terminal.draw(made(), colors=True)
    assert re.sub(r"\x1b\[\d+m", "", colored) == terminal.draw(made())
    assert "\x1b[31m" in colored


def test_what_happened_stands_in_its_column() -> None:
    lines = {line[:14].strip(): line[16:].partition("│")[0] for line in terminal.draw(made()).splitlines()}
    columns = len(lines["rotations"])
    away = [number for number, sign in enumerate(lines["provider away"]) if sign != " "]
    assert away[0] == pytest.approx(0.3 * columns, abs=1)
    assert away[-1] == pytest.approx(0.4 * columns, abs=1)
    assert set(lines["rotations"]) == {"█"}, "the same in every column"
    assert lines["failed"].strip() == "█"
    without = [number for number, sign in enumerate(lines["no token"]) if sign != " "]
    assert set(without) < set(away)
    assert lines["no token"].strip().endswith("█")
    assert lines["clock set back"].count("█") == 1


def test_one_event_among_thousands_is_seen() -> None:
    report = made(quiet=True)
    for _ in range(100_000):
        report.failed(2 * DAY)
    report.failed(8 * DAY)
    (row,) = [line for line in terminal.draw(report).splitlines() if "failed" in line]
    assert "▁" in row[16:]


def test_gaps_are_counted_as_grants_without_a_token() -> None:
    (row,) = [row for row in rows.rows(made(), 20) if row.label == "no token"]
    assert row.values[7] == pytest.approx(20.0)
    assert sum(row.values) == pytest.approx(20.0)
    assert row.most == "20.0 grants"


def test_the_axis_has_a_handful_of_marks() -> None:
    for span in (HOUR, 7 * HOUR, DAY, 10 * DAY, 30 * DAY, 365 * DAY, 3650 * DAY):
        marks = rows.marks(span)
        assert 2 <= len(marks) <= rows.MARKS + 1
        assert marks[0] == (timedelta(0), "0")
    assert [text for _, text in rows.marks(10 * DAY)][:3] == ["0", "1d", "2d"]


def test_the_svg_is_one_readable_file_that_loads_nothing() -> None:
    text = svg.draw(made(), title="40 grants <of> p", words="first line\nsecond & last")
    root = ElementTree.fromstring(text)
    space = "{http://www.w3.org/2000/svg}"
    assert root.attrib["role"] == "img"
    named = {
        element.attrib.get("id"): element.text for element in root if element.tag in (f"{space}title", f"{space}desc")
    }
    assert root.attrib["aria-labelledby"].split() == list(named)
    assert named == {"title": "40 grants <of> p", "words": "first line\nsecond & last"}
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"<script|href|url\(|@import|<image|<foreignObject", text)
    assert {"rotations", "no token", "provider away", "clock set back"} <= {element.text for element in root}


def test_nothing_is_drawn_outside_the_svg() -> None:
    root = ElementTree.fromstring(svg.draw(made(), title="t", words="w"))
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for element in root:
        x, y = float(element.attrib.get("x", 0)), float(element.attrib.get("y", 0))
        assert 0 <= x <= width
        assert 0 <= y <= height
        if element.tag.endswith("rect"):
            assert x + float(element.attrib["width"]) <= width
            assert y + float(element.attrib["height"]) <= height

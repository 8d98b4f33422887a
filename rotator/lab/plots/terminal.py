"""The timeline on a terminal: a line for each row, blocks for its height, and an axis of days below."""

from __future__ import annotations

from rotator.lab.plots import rows
from rotator.lab.plots.rows import Row, Tone
from rotator.lab.report import Report

BLOCKS = " ▁▂▃▄▅▆▇█"
ASCII = " .:-=+*#@"
LABEL = 14
MOST = 16
COLORS = {Tone.CALM: "32", Tone.ODD: "33", Tone.BAD: "31"}


def draw(report: Report, *, width: int = 80, unicode: bool = True, colors: bool = False) -> str:
    """The whole picture, no line wider than ``width`` (at least 60). ``unicode`` False draws with plain ASCII."""
    columns = rows.fitting(report, max(60, width) - LABEL - MOST - 4)
    shades, bar = (BLOCKS, "│") if unicode else (ASCII, "|")
    lines = [_line(row, shades, bar, colors=colors) for row in rows.rows(report, columns)]
    lines += [_line(row, shades[0] + shades[-1], bar, colors=colors) for row in rows.faults(report, columns)]
    return "\n".join([*lines, *_axis(report, columns, unicode=unicode)])


def _line(row: Row, shades: str, bar: str, *, colors: bool) -> str:
    most = max(row.values)
    # Whatever is there is seen: only nothing at all is empty.
    steps = [0 if not value else max(1, round(value / most * (len(shades) - 1))) for value in row.values]
    drawn = "".join(shades[step] for step in steps)
    if colors and most:
        drawn = f"\x1b[{COLORS[row.tone]}m{drawn}\x1b[0m"
    return f"{row.label:>{LABEL}} {bar}{drawn}{bar} {row.most}".rstrip()


def _axis(report: Report, columns: int, *, unicode: bool) -> list[str]:
    rule, tick = ("─", "┴") if unicode else ("-", "+")
    line, texts = [rule] * columns, [" "] * (columns + MOST)
    free = 0
    for at, text in rows.marks(report.span):
        column = min(columns - 1, int(at / report.span * columns))
        if column < free:
            continue
        line[column] = tick
        texts[column : column + len(text)] = text
        free = column + len(text) + 1
    left, right = ("└", "┘") if unicode else ("+", "+")
    return [" " * (LABEL + 1) + left + "".join(line) + right, (" " * (LABEL + 2) + "".join(texts)).rstrip()]

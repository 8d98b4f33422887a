"""The timeline as one SVG file: no script, nothing loaded from elsewhere, light and dark, and told in words for who
cannot see it (WAI-ARIA graphics: role img with title and desc)."""

from __future__ import annotations

from datetime import timedelta
from html import escape

from rotator.lab.plots import rows
from rotator.lab.plots.rows import Row
from rotator.lab.report import Report

WIDTH, LEFT, RIGHT, TOP = 900, 110, 130, 92
PANEL, BETWEEN, STRIP = 62, 16, 14
COLUMNS = 360
STYLE = """\
  .paper { fill: #ffffff } text { font: 13px system-ui, sans-serif; fill: #1f2328 } .soft { fill: #59636e }
  .head { font-size: 18px } .rule { stroke: #d1d9e0 }
  .calm { fill: #1a7f37 } .odd { fill: #bf8700 } .bad { fill: #cf222e } .fault { fill: #bf8700; fill-opacity: 0.16 }
  @media (prefers-color-scheme: dark) {
    .paper { fill: #0d1117 } text { fill: #f0f6fc } .soft { fill: #9198a1 } .rule { stroke: #3d444d }
    .calm { fill: #3fb950 } .odd { fill: #d29922 } .bad { fill: #f85149 } .fault { fill: #d29922; fill-opacity: 0.2 }
  }"""


def draw(report: Report, *, title: str, words: str) -> str:
    """The file's text. ``title`` stands above the picture, ``words`` (one line each) tell what it shows."""
    columns = rows.fitting(report, COLUMNS)
    panels = rows.rows(report, columns)
    strips = rows.faults(report, columns)
    bottom = TOP + len(panels) * (PANEL + BETWEEN) + len(strips) * (STRIP + 6)
    height = bottom + 40
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" aria-labelledby="title words">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="words">{escape(words)}</desc>',
        f"<style>\n{STYLE}\n</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
        f'<text class="head" x="24" y="34">{escape(title)}</text>',
    ]
    lines += [
        f'<text class="soft" x="24" y="{56 + 18 * number}">{escape(line)}</text>'
        for number, line in enumerate(words.splitlines()[:2])
    ]
    lines += _bands(report, bottom)
    for number, row in enumerate(panels):
        lines += _panel(row, TOP + number * (PANEL + BETWEEN))
    begin = TOP + len(panels) * (PANEL + BETWEEN)
    for number, row in enumerate(strips):
        lines += _strip(row, begin + number * (STRIP + 6))
    return "\n".join([*lines, *_axis(report.span, bottom), "</svg>", ""])


def _bands(report: Report, bottom: int) -> list[str]:
    """What was broken on purpose, behind all panels."""
    wide = WIDTH - LEFT - RIGHT
    made = []
    for fault in report.faults:
        x = LEFT + wide * (fault.began / report.span)
        width = max(1.0, wide * (fault.length / report.span))
        made.append(
            f'<rect class="fault" x="{x:.1f}" y="{TOP}" width="{width:.1f}" height="{bottom - TOP}">'
            f"<title>{escape(fault.what)}, {rows.brief(fault.length)}</title></rect>"
        )
    return made


def _panel(row: Row, top: int) -> list[str]:
    """One row as an area of steps, scaled to its own greatest value."""
    wide, most, base = WIDTH - LEFT - RIGHT, max(row.values), top + PANEL
    step = wide / len(row.values)
    path = [f"M{LEFT} {base}"]
    for number, value in enumerate(row.values):
        # Whatever is there is seen.
        high = 0.0 if not value else max(2.0, (PANEL - 6) * value / most)
        path.append(f"V{base - high:.1f}H{LEFT + (number + 1) * step:.1f}")
    path.append(f"V{base}Z")
    drawn = [f'<path class="{row.tone}" d="{"".join(path)}"/>'] if most else []
    return [
        *drawn,
        f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{base}" y2="{base}"/>',
        f'<text x="{LEFT - 10}" y="{base - 4}" text-anchor="end">{escape(row.label)}</text>',
        f'<text class="soft" x="{WIDTH - RIGHT + 10}" y="{top + 16}">{escape(row.most)}</text>',
    ]


def _strip(row: Row, top: int) -> list[str]:
    step = (WIDTH - LEFT - RIGHT) / len(row.values)
    marks = [
        f'<rect class="{row.tone}" x="{LEFT + number * step:.1f}" y="{top}" width="{max(2.0, step):.1f}" '
        f'height="{STRIP}"/>'
        for number, value in enumerate(row.values)
        if value
    ]
    return [
        *marks,
        f'<text x="{LEFT - 10}" y="{top + 12}" text-anchor="end">{escape(row.label)}</text>',
        f'<text class="soft" x="{WIDTH - RIGHT + 10}" y="{top + 12}">{escape(row.most)}</text>',
    ]


def _axis(span: timedelta, bottom: int) -> list[str]:
    wide = WIDTH - LEFT - RIGHT
    made = []
    for at, text in rows.marks(span):
        x = LEFT + wide * (at / span)
        made.append(f'<line class="rule" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{bottom + 6}"/>')
        made.append(f'<text class="soft" x="{x:.1f}" y="{bottom + 22}" text-anchor="middle">{text}</text>')
    return made

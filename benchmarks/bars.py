"""Figures as bars in one SVG file: light and dark, nothing from elsewhere, told in words for who cannot see it."""

from __future__ import annotations

from html import escape

from rotator.lab.plots.svg import STYLE

WIDTH, LEFT, RIGHT, TOP, BAR, BETWEEN, GROUP = 900, 210, 190, 70, 16, 6, 34


def draw(title: str, words: str, groups: dict[str, list[tuple[str, float, str]]]) -> str:
    """Each group has a name and bars of (name, length, label); all bars share one scale."""
    longest = max(length for bars in groups.values() for _, length, _ in bars)
    height = TOP + sum(GROUP + len(bars) * (BAR + BETWEEN) for bars in groups.values()) + 16
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'role="img" aria-labelledby="title words">',
        f'<title id="title">{escape(title)}</title>',
        f'<desc id="words">{escape(words)}</desc>',
        f"<style>\n{STYLE}\n</style>",
        f'<rect class="paper" width="{WIDTH}" height="{height}"/>',
        f'<text class="head" x="24" y="34">{escape(title)}</text>',
        f'<text class="soft" x="24" y="56">{escape(words)}</text>',
    ]
    at = TOP
    for group, bars in groups.items():
        lines.append(f'<text x="24" y="{at + 22}">{escape(group)}</text>')
        at += GROUP
        for name, length, label in bars:
            wide = max(2.0, (WIDTH - LEFT - RIGHT) * length / longest)
            tone = "calm" if name == "rotator" else "odd"
            lines += [
                f'<text class="soft" x="{LEFT - 8}" y="{at + 13}" text-anchor="end">{escape(name)}</text>',
                f'<rect class="{tone}" x="{LEFT}" y="{at}" width="{wide:.1f}" height="{BAR}"/>',
                f'<text x="{LEFT + wide + 8:.1f}" y="{at + 13}">{escape(label)}</text>',
            ]
            at += BAR + BETWEEN
    return "\n".join([*lines, "</svg>", ""])

"""How a figure grows as the work does: tenfold from one step to the next, with the exponent. 1 is in proportion, 0 not
at all, less than 0 cheaper."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise

Row = tuple[str, str, str]


def row(what: str, found: Mapping[int, float], unit: str) -> Row:
    """``found``: the figure by the amount of work."""
    works = sorted(found)
    grown = ", ".join(f"{exponent(found[one], found[two], two / one):+.2f}" for one, two in pairwise(works))
    values = " → ".join(f"{found[work]:.3g}" for work in works)
    return f"growth: {what}, {' → '.join(f'{work:,}' for work in works)}", f"{values} {unit}; exponent {grown}", "–"


def exponent(before: float, after: float, times: float) -> float:
    return math.log(after / before) / math.log(times)

"""The text of a scrape: OpenMetrics 1.0 or the older text of Prometheus, whichever the scraper prefers.

https://prometheus.io/docs/specs/om/open_metrics_spec/ and .../docs/instrumenting/exposition_formats/. Written by hand:
prometheus_client builds objects for each sample and joins the whole page in one slice of the event loop.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator

from rotator.frontends.metrics.catalogue import COUNTER, Family

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
# Large enough that the server's own cost for each does not count, small enough to be made within a millisecond.
CHUNK = 24 << 10

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def wants_openmetrics(accept: str) -> bool:
    """Whether an Accept header (RFC 9110 section 12.5.1) ranks OpenMetrics in a version we speak above plain text.

    A wildcard means plain text, which everybody reads."""
    ranks = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for one in accept.split(","):
        kind, *parameters = (part.strip().lower() for part in one.split(";"))
        told = dict(part.partition("=")[::2] for part in parameters)
        version = told.get("version", "1.0.0")
        if kind in ranks and (kind == "text/plain" or version in ("1.0.0", "0.0.1")):
            ranks[kind] = max(ranks[kind], _quality(told.get("q", "1")))
    openmetrics = ranks["application/openmetrics-text"]
    return openmetrics > 0 and openmetrics >= ranks["text/plain"]


def _quality(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def escaped(value: str) -> str:
    """A label's value as both formats quote it; what UTF-8 cannot carry becomes a question mark."""
    if value.isprintable() and '"' not in value and "\\" not in value:
        return value
    return value.translate(_ESCAPES).encode("utf-8", "replace").decode()


def labels(names: Iterable[str], values: Iterable[str]) -> str:
    """``a="1",b="2"``."""
    return ",".join(f'{name}="{escaped(value)}"' for name, value in zip(names, values, strict=True))


def head(family: Family, openmetrics: bool) -> str:
    """HELP and TYPE. OpenMetrics names a counter without its ``_total``."""
    name = family.name.removesuffix("_total") if openmetrics and family.type == COUNTER else family.name
    return f"# HELP {name} {family.help}\n# TYPE {name} {family.type}\n"


def sample(family: Family, marks: str, value: float) -> str:
    """One line; ``marks`` are the labels as `labels` writes them."""
    return f"{family.name}{{{marks}}} {value}\n" if marks else f"{family.name} {value}\n"


class Histogram:
    """How often something took how long. An exemplar is never kept."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def lines(self, family: Family, marks: str) -> Iterator[str]:
        before = f"{marks}," if marks else ""
        total = 0
        for bound, count in zip((*self._bounds, float("inf")), self._counts, strict=True):
            total += count
            le = "+Inf" if bound == float("inf") else f"{bound!r}"
            yield f'{family.name}_bucket{{{before}le="{le}"}} {total}\n'
        within = f"{{{marks}}}" if marks else ""
        yield f"{family.name}_sum{within} {self._sum!r}\n{family.name}_count{within} {total}\n"


def chunks(pieces: Iterable[str]) -> Iterator[bytes]:
    """The pieces in pieces of some kB. One that is empty is passed on: there is nothing to tell yet, but the loop may
    turn."""
    waiting: list[str] = []
    size = 0
    for piece in pieces:
        if not piece:
            yield b""
            continue
        waiting.append(piece)
        size += len(piece)
        if size >= CHUNK:
            yield "".join(waiting).encode()
            waiting.clear()
            size = 0
    if waiting:
        yield "".join(waiting).encode()

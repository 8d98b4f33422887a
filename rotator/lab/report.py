"""What a simulated fleet went through, in figures: the timeline, the faults, the gaps.

Pure data. A fleet that is spread over several worlds is told as one: `merged` adds the worlds up, second by second,
so that the busiest second of the whole is exact and no upper bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

SECOND = timedelta(seconds=1)
UNEXPLAINED = "unexplained"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """Something that lasted: a fault, or a gap that a reader met. Times count from the story's begin.

    ``what`` says in words what was broken; of a gap it is the name of the exception to the promise that explains
    it, or `UNEXPLAINED`. ``grant`` is the one it is about; empty where it is about all.
    """

    began: timedelta
    ended: timedelta
    what: str
    grant: str = ""

    @property
    def length(self) -> timedelta:
        return self.ended - self.began


@dataclass(slots=True, kw_only=True)
class Report:
    """One fleet over one span. ``rotations``, ``failures`` and ``passwords`` count by bins of the width ``bin``;
    ``requests`` counts what reached the provider by whole seconds since the begin.

    ``rotations`` are saved generations, the first login included; ``failures`` are exchanges that brought no token;
    ``passwords`` are password exchanges that reached the provider. ``latched`` counts grants that ended latched,
    ``resends`` refresh tokens sent a second time after a lost answer; ``enrolled`` is when the last of those that got a
    first token got it. ``broken`` names every invariant that did not hold. ``worlds`` is how many were added up.
    """

    seed: int
    grants: int
    span: timedelta
    bin: timedelta
    rotations: list[int] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    passwords: list[int] = field(default_factory=list)
    requests: Counter[int] = field(default_factory=Counter)
    faults: list[Stretch] = field(default_factory=list)
    gaps: list[Stretch] = field(default_factory=list)
    resends: int = 0
    latched: int = 0
    enrolled: timedelta = timedelta(0)
    broken: list[str] = field(default_factory=list)
    worlds: int = 1

    def __post_init__(self) -> None:
        if self.span <= timedelta(0) or self.bin <= timedelta(0):
            raise ValueError("a report needs a span and a bin that are longer than nothing")
        for row in (self.rotations, self.failures, self.passwords):
            row.extend([0] * (self.bins - len(row)))

    @property
    def bins(self) -> int:
        """How many bins the span has; the last may be cut short."""
        return -(-self.span // self.bin)

    def rotated(self, at: timedelta) -> None:
        self.rotations[self._bin(at)] += 1

    def failed(self, at: timedelta) -> None:
        self.failures[self._bin(at)] += 1

    def logged_in(self, at: timedelta) -> None:
        self.passwords[self._bin(at)] += 1

    def asked(self, at: timedelta) -> None:
        """A token request has reached the provider."""
        self.requests[at // SECOND] += 1

    @property
    def busiest(self) -> list[int]:
        """The most requests in any one second, for each bin."""
        most = [0] * self.bins
        for second, count in self.requests.items():
            place = self._bin(second * SECOND)
            most[place] = max(most[place], count)
        return most

    @property
    def peak(self) -> int:
        """The most requests in any one second of the whole span."""
        return max(self.requests.values(), default=0)

    def gap_time(self) -> timedelta:
        """How long readers had no valid token, all grants together."""
        return sum((gap.length for gap in self.gaps), timedelta(0))

    def _bin(self, at: timedelta) -> int:
        # What still happens after the end belongs to the last bin.
        return min(max(at // self.bin, 0), self.bins - 1)


def merged(reports: Sequence[Report]) -> Report:
    """Several worlds of one fleet as one. All were told over the same span, in the same bins, with the same faults.

    Raises ValueError where they do not fit together, or where there is none."""
    if not reports:
        raise ValueError("there is no report to merge")
    first = reports[0]
    if any((one.span, one.bin) != (first.span, first.bin) for one in reports):
        raise ValueError("reports of different spans or bins cannot be added up")
    requests: Counter[int] = Counter()
    for one in reports:
        requests.update(one.requests)
    return Report(
        seed=first.seed,
        grants=sum(one.grants for one in reports),
        span=first.span,
        bin=first.bin,
        rotations=_sums([one.rotations for one in reports]),
        failures=_sums([one.failures for one in reports]),
        passwords=_sums([one.passwords for one in reports]),
        requests=requests,
        # The same script was played in each world; a fault of the whole is told once.
        faults=sorted({fault for one in reports for fault in one.faults}, key=_order),
        gaps=sorted((gap for one in reports for gap in one.gaps), key=_order),
        resends=sum(one.resends for one in reports),
        latched=sum(one.latched for one in reports),
        enrolled=max(one.enrolled for one in reports),
        broken=[what for one in reports for what in one.broken],
        worlds=sum(one.worlds for one in reports),
    )


def _sums(rows: Sequence[Sequence[int]]) -> list[int]:
    return [sum(column) for column in zip(*rows, strict=True)]


def _order(stretch: Stretch) -> tuple[timedelta, timedelta, str, str]:
    return stretch.began, stretch.ended, stretch.what, stretch.grant

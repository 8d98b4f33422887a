"""What a simulation says about the fleet that was asked for: counted where all of it was simulated, extrapolated and
labelled as such where it was only a sample."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from rotator.lab.fleet import scenario, worlds
from rotator.lab.fleet.scenario import Scenario
from rotator.lab.report import Report

MOST = 300_000
"""So many rotations are simulated unless somebody asks for more; about a minute on two cores."""

MOST_GRANTS = 20_000
"""And so many grants, for the memory that they take."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """``whole`` is what was asked for, ``report`` what was simulated of it."""

    whole: Scenario
    report: Report

    @property
    def factor(self) -> float:
        """How many grants stand behind each simulated one."""
        return self.whole.grants / self.report.grants

    @property
    def is_sample(self) -> bool:
        return self.report.grants < self.whole.grants

    def scaled(self, count: int) -> int:
        return round(count * self.factor)

    @property
    def rotations(self) -> int:
        return self.scaled(sum(self.report.rotations))

    @property
    def failures(self) -> int:
        return self.scaled(sum(self.report.failures))

    @property
    def passwords(self) -> int:
        return self.scaled(sum(self.report.passwords))

    @property
    def peak(self) -> int:
        """The most requests in one second. Of a sample: its busiest second times the factor, and never more than the
        limits of the providers let through."""
        if not self.is_sample:
            return self.report.peak
        return min(self.scaled(self.report.peak), sum(limits.burst for limits in self.whole.limits().values()))

    def causes(self) -> list[tuple[str, int, timedelta]]:
        """Why readers met gaps: (name of the exception, how many in the simulated grants, the longest)."""
        counts = Counter(gap.what for gap in self.report.gaps)
        longest = {name: max(gap.length for gap in self.report.gaps if gap.what == name) for name in counts}
        return [(name, count, longest[name]) for name, count in counts.most_common()]

    def document(self) -> dict[str, object]:
        """The same as JSON; durations in seconds."""
        report = self.report
        return {
            "seed": self.whole.seed,
            "days": self.whole.span / timedelta(days=1),
            "grants": self.whole.grants,
            "simulated_grants": report.grants,
            "extrapolated": self.is_sample,
            "worlds": report.worlds,
            "rotations": self.rotations,
            "failed_exchanges": self.failures,
            "password_exchanges": self.passwords,
            "peak_requests_per_second": self.peak,
            "resends": self.scaled(report.resends),
            "latched_grants": self.scaled(report.latched),
            "first_tokens_within_seconds": report.enrolled.total_seconds(),
            "gaps": [
                {"cause": name, "count": self.scaled(count), "longest_seconds": longest.total_seconds()}
                for name, count, longest in self.causes()
            ],
            "gap_seconds": round(report.gap_time().total_seconds() * self.factor, 3),
            "faults": [
                {
                    "what": one.what,
                    "began_seconds": one.began.total_seconds(),
                    "ended_seconds": one.ended.total_seconds(),
                }
                for one in report.faults
            ],
            "broken": report.broken,
            "timeline": {
                "bin_seconds": report.bin.total_seconds(),
                "rotations": report.rotations,
                "failed_exchanges": report.failures,
                "password_exchanges": report.passwords,
                "busiest_second": report.busiest,
            },
        }


def look(whole: Scenario, progress: Callable[[float], None], *, grants: int | None = None) -> Outlook:
    """Simulate ``whole``, or ``grants`` of it; without a number all, or as many as make `MOST` rotations."""
    if grants is None:
        grants = min(int(whole.grants * min(1.0, MOST / whole.rotations)), MOST_GRANTS)
    grants = max(1, grants)
    return Outlook(whole, worlds.tell(scenario.sample(whole, min(grants, whole.grants)), progress))

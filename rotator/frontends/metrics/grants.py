"""What a snapshot says of grants, their targets and their providers, as lines.

Ten thousand grants are two hundred thousand lines: they are written family by family, some hundred grants at a time, so
that neither time nor memory is taken in one piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import lru_cache

from rotator.core.health import GrantHealth, Health, State, TargetHealth
from rotator.frontends.metrics import catalogue
from rotator.frontends.metrics.catalogue import Family
from rotator.frontends.metrics.counts import Counts
from rotator.frontends.metrics.exposition import Histogram, escaped, head, labels, sample

# Half a millisecond each: to look at grants, to write one line of each.
LOOKED_AT = 400
AT_A_TIME = 100
MOST_SHOWN = 100
"""So many grants that are not well keep series of their own where there are too many for all."""

Rows = tuple[list[str], list[GrantHealth]]
"""Labels and grants side by side: a tuple for each would be ten thousand more objects for the garbage collector."""
Part = Sequence[tuple[str, GrantHealth]]
Write = Callable[[Part], str]


class Page:
    """The lines of one scrape. ``per_grant_up_to``: beyond so many grants only those that are not well, and
    `MOST_SHOWN` at most, have series of their own; counters are then told for each provider and each kind of target."""

    def __init__(self, snapshot: Health, counts: Counts, per_grant_up_to: int, openmetrics: bool) -> None:
        self._snapshot = snapshot
        self._counts = counts
        self._openmetrics = openmetrics
        self._crowded = len(snapshot.grants) > per_grant_up_to

    def pieces(self) -> Iterator[str]:
        """Every line, some at a time."""
        rows: Rows = [], []
        tallies: dict[str, list[int]] = {}
        grants = self._snapshot.grants
        for start in range(0, len(grants), LOOKED_AT):
            for grant in grants[start : start + LOOKED_AT]:
                tally = tallies.get(grant.provider) or tallies.setdefault(grant.provider, [0] * (len(State) + 2))
                tally[_STATE[grant.state]] += 1
                tally[-2] += grant.published
                if self._crowded and (len(rows[1]) >= MOST_SHOWN or self._is_well(grant)):
                    tally[-1] += 1
                else:
                    rows[0].append(f'provider="{escaped(grant.provider)}",grant="{escaped(grant.name)}"')
                    rows[1].append(grant)
            yield ""
        yield from self._of_providers(tallies)
        yield from self._of_grants(rows)

    def _is_well(self, grant: GrantHealth) -> bool:
        overdue = grant.due_at is not None and grant.due_at <= self._snapshot.at
        return grant.state is State.FRESH and grant.published and not overdue

    # --- providers ---------------------------------------------------------------------------------------------

    def _of_providers(self, tallies: dict[str, list[int]]) -> Iterator[str]:
        counts = self._counts
        names = sorted({*tallies, *(gate.name for gate in self._snapshot.providers)})
        marks = {name: labels(("provider",), (name,)) for name in names}
        yield head(catalogue.GRANTS, self._openmetrics)
        for name, tally in tallies.items():
            for state, number in _STATE.items():
                yield sample(catalogue.GRANTS, f'{marks[name]},state="{state.value}"', tally[number])
        for family, place in ((catalogue.GRANTS_PUBLISHED, -2), (catalogue.GRANTS_OMITTED, -1)):
            yield head(family, self._openmetrics)
            for name, tally in tallies.items():
                yield sample(family, marks[name], tally[place])
        gates = {gate.name: (gate.waiting, gate.in_flight, int(gate.breaker_open)) for gate in self._snapshot.providers}
        for place, family in enumerate((catalogue.WAITING, catalogue.IN_FLIGHT, catalogue.BREAKER_OPEN)):
            yield head(family, self._openmetrics)
            for name in names:
                yield sample(family, marks[name], gates.get(name, (0, 0, 0))[place])
        yield head(catalogue.BREAKER_OPENED, self._openmetrics)
        for name in names:
            yield sample(catalogue.BREAKER_OPENED, marks[name], counts.breakers.get(name, 0))
        yield from self._histograms(catalogue.EXCHANGE_SECONDS, names, counts.exchange_seconds)
        kinds = sorted({"file", *counts.by_kind})
        yield from self._histograms(catalogue.PUBLISH_SECONDS, kinds, counts.publish_seconds)
        yield from self._histograms(catalogue.READABLE_SECONDS, kinds, counts.readable_seconds)
        if self._crowded:
            yield head(catalogue.EXCHANGES, self._openmetrics)
            yield "".join(_exchanges(marks[name], counts.by_provider.get(name)) for name in names)
            yield head(catalogue.PUBLICATIONS, self._openmetrics)
            yield "".join(_publications(labels(("kind",), (kind,)), counts.by_kind.get(kind)) for kind in kinds)

    def _histograms(self, family: Family, names: Iterable[str], known: dict[str, Histogram]) -> Iterator[str]:
        yield head(family, self._openmetrics)
        for name in names:
            yield from (known.get(name) or Histogram(family.buckets)).lines(family, labels(family.labels, (name,)))

    # --- grants ------------------------------------------------------------------------------------------------

    def _of_grants(self, rows: Rows) -> Iterator[str]:
        counts = self._counts
        writers: list[tuple[Family, Write]] = [
            (catalogue.EXPIRATION, _times(catalogue.EXPIRATION, lambda grant: grant.expires_at)),
            (catalogue.ISSUED, _times(catalogue.ISSUED, lambda grant: grant.issued_at)),
            (catalogue.RENEWAL, _times(catalogue.RENEWAL, lambda grant: grant.due_at)),
            (catalogue.REFRESH_EXPIRATION, _times(catalogue.REFRESH_EXPIRATION, lambda grant: grant.refresh_ends_at)),
            (catalogue.LAST_SUCCESS, _times(catalogue.LAST_SUCCESS, lambda grant: grant.refreshed_at)),
            (catalogue.FAILURES, _numbers(catalogue.FAILURES, lambda grant: grant.failures)),
            (catalogue.BUDGET, _numbers(catalogue.BUDGET, lambda grant: grant.passwords_left)),
            (catalogue.STATE, _states),
            (catalogue.PUBLISHED_EXPIRATION, _published_until),
            (catalogue.PUBLISHED_AT, lambda part: _published_at(part, counts)),
        ]
        if not self._crowded:
            writers += [
                (catalogue.EXCHANGES, lambda part: _exchanges_of(part, counts)),
                (catalogue.PUBLICATIONS, lambda part: _publications_of(part, counts)),
            ]
        for family, write in writers:
            yield head(family, self._openmetrics)
            for start in range(0, len(rows[1]), AT_A_TIME):
                piece = slice(start, start + AT_A_TIME)
                yield write(list(zip(rows[0][piece], rows[1][piece], strict=True)))


_STATE = {state: number for number, state in enumerate(State)}
# A NUL stands for the labels; no label holds one that is not escaped away by TOML.
_STATES = {
    state: "".join(
        f'{catalogue.STATE.name}{{\0,state="{one.value}"}} {int(one is state)}\n' for one in State
    )
    for state in State
}  # fmt: skip
_EXCHANGES = "".join(f'{catalogue.EXCHANGES.name}{{%s,outcome="{word}"}} %d\n' for word in catalogue.OUTCOMES)
_PUBLICATIONS = "".join(f'{catalogue.PUBLICATIONS.name}{{%s,outcome="{word}"}} %d\n' for word in catalogue.PUBLISHED)


def _times(family: Family, read: Callable[[GrantHealth], datetime | None]) -> Write:
    start = f"{family.name}{{"

    def write(part: Part) -> str:
        return "".join(
            [f"{start}{marks}}} {at.timestamp():.3f}\n" for marks, grant in part if (at := read(grant)) is not None]
        )

    return write


def _numbers(family: Family, read: Callable[[GrantHealth], int | None]) -> Write:
    start = f"{family.name}{{"

    def write(part: Part) -> str:
        return "".join([f"{start}{marks}}} {it}\n" for marks, grant in part if (it := read(grant)) is not None])

    return write


def _states(part: Part) -> str:
    return "".join([_STATES[grant.state].replace("\0", marks) for marks, grant in part])


def _exchanges(marks: str, counted: Sequence[int] | None) -> str:
    a, b, c, d, e, f, g, h = counted or (0,) * len(catalogue.OUTCOMES)
    return _EXCHANGES % (marks, a, marks, b, marks, c, marks, d, marks, e, marks, f, marks, g, marks, h)


def _exchanges_of(part: Part, counts: Counts) -> str:
    return "".join([_exchanges(marks, counts.exchanges.get(grant.name)) for marks, grant in part])


def _publications(marks: str, counted: Sequence[int] | None) -> str:
    delivered, repaired, failed = counted or (0,) * len(catalogue.PUBLISHED)
    return _PUBLICATIONS % (marks, delivered, marks, repaired, marks, failed)


def _publications_of(part: Part, counts: Counts) -> str:
    known = counts.publications
    return "".join(
        [
            _publications(_marks_of(marks, target), known.get((grant.name, target.name)))
            for marks, grant in part
            for target in grant.targets
        ]
    )


def _published_at(part: Part, counts: Counts) -> str:
    start, known = f"{catalogue.PUBLISHED_AT.name}{{", counts.published_at
    return "".join(
        [
            f"{start}{_marks_of(marks, target)}}} {known.get((grant.name, target.name), 0):.3f}\n"
            for marks, grant in part
            for target in grant.targets
        ]
    )


def _published_until(part: Part) -> str:
    start = f"{catalogue.PUBLISHED_EXPIRATION.name}{{"
    return "".join(
        [
            f"{start}{_marks_of(marks, target)}}} {_until(grant, target):.3f}\n"
            for marks, grant in part
            for target in grant.targets
        ]
    )


def _until(grant: GrantHealth, target: TargetHealth) -> float:
    until = grant.expires_at if target.generation is not None else target.valid_until
    return 0.0 if until is None else until.timestamp()


def _marks_of(marks: str, target: TargetHealth) -> str:
    location = target.location
    return marks + _about(target.name, location[: location.find(":")])


@lru_cache(maxsize=1024)
def _about(target: str, kind: str) -> str:
    return f',target="{escaped(target)}",kind="{escaped(kind)}"'

"""`/metrics`: what the bus told, what a snapshot says, and the process, for Prometheus.

Labels name configured things and words of ours, never a secret, a hash or a URL.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Protocol

from rotator.core import events, lean
from rotator.core.health import Health
from rotator.core.ports import Clock
from rotator.frontends.metrics import catalogue, process
from rotator.frontends.metrics.catalogue import Family
from rotator.frontends.metrics.counts import Counts
from rotator.frontends.metrics.exposition import OPENMETRICS, TEXT, chunks, head, labels, sample, wants_openmetrics
from rotator.frontends.metrics.grants import Page

__all__ = ["FAMILIES", "PER_GRANT_UP_TO", "Metrics", "Sources", "Tally"]

FAMILIES = catalogue.FAMILIES
PER_GRANT_UP_TO = 1000


class Tally(Protocol):
    """What was counted of one Vault; see `rotator.drivers.vault.tally`."""

    @property
    def ends_at(self) -> datetime | None: ...

    @property
    def logins(self) -> Mapping[str, int]: ...

    @property
    def requests(self) -> Mapping[tuple[str, str], int]: ...


@lean.dataclass(frozen=True, slots=True)
class Sources:
    """What is asked at each scrape: events that listeners missed (by listener), messages that systemd did not take,
    and the Vaults by name."""

    dropped: Callable[[], Mapping[str, int]] = dict
    notify_errors: Callable[[], int] = int
    vaults: Callable[[], Mapping[str, Tally]] = dict


class Metrics:
    """A listener of the bus (call it), a face (`start` begins to measure the loop's lag), and the page.

    The lag is measured once in ``beat``: where that is the beat of the sweep, it costs no awakening."""

    def __init__(
        self, version: str, clock: Clock, sources: Sources, *, per_grant_up_to: int = PER_GRANT_UP_TO,
        beat: timedelta = timedelta(seconds=10),
    ) -> None:  # fmt: skip
        self._version = version
        self._clock = clock
        self._sources = sources
        self._per_grant_up_to = per_grant_up_to
        self._counts = Counts(clock.now())
        self._beat = beat
        self._expected: timedelta | None = None

    def __call__(self, event: events.Event) -> None:
        self._counts(event)

    async def start(self) -> None:
        self._clock.beat("lag", self._beat, self._rung)

    async def close(self) -> None:
        """Nothing is left: the beat ends with the clock."""

    def _rung(self) -> None:
        awake = self._clock.moment().awake
        if self._expected is None or awake < self._expected:
            # The one that was counted from was late itself.
            self._expected = awake
        late = awake - self._expected
        self._counts.lag.observe(late.total_seconds())
        # Beats stay where they are, however late one rings; those that it missed are not made up for.
        self._expected += (late // self._beat + 1) * self._beat

    def expose(self, snapshot: Health, accept: str) -> tuple[str, Iterator[bytes]]:
        """The content type that the Accept header asks for, and the page in chunks of some kB; between two of them
        the event loop may turn. Empty chunks only mean that."""
        openmetrics = wants_openmetrics(accept)
        return (OPENMETRICS if openmetrics else TEXT), chunks(self._pieces(snapshot, openmetrics))

    def _pieces(self, snapshot: Health, openmetrics: bool) -> Iterator[str]:
        yield from Page(snapshot, self._counts, self._per_grant_up_to, openmetrics).pieces()
        for family, lines in (*_register(snapshot), *self._daemon()):
            yield head(family, openmetrics)
            yield from lines
        if openmetrics:
            yield "# EOF\n"

    def _daemon(self) -> Iterator[tuple[Family, Iterable[str]]]:
        counts, sources = self._counts, self._sources
        about = labels(catalogue.BUILD.labels, (self._version, platform.python_version()))
        yield catalogue.BUILD, [sample(catalogue.BUILD, about, 1)]
        plain: list[tuple[Family, float]] = [
            (catalogue.RELOAD_GOOD, int(counts.reload_good)),
            (catalogue.RELOADED_AT, counts.reloaded_at),
            (catalogue.MISSED, counts.missed),
            (catalogue.STORE_ERRORS, counts.store_errors),
            (catalogue.DEFECTS, counts.defects),
            (catalogue.NOTIFY_ERRORS, sources.notify_errors()),
            *process.samples(self._clock.moment()),
        ]
        for family, value in plain:
            yield family, [sample(family, "", value)]
        yield catalogue.LAG, counts.lag.lines(catalogue.LAG, "")
        yield catalogue.SAVE_SECONDS, counts.save_seconds.lines(catalogue.SAVE_SECONDS, "")
        yield catalogue.CLOCK_JUMPS, _each(catalogue.CLOCK_JUMPS, {(way,): n for way, n in counts.jumps.items()})
        dropped = {(name,): count for name, count in sources.dropped().items()}
        yield catalogue.EVENTS_DROPPED, _each(catalogue.EVENTS_DROPPED, dropped)
        yield from self._vaults(sources.vaults())

    def _vaults(self, vaults: Mapping[str, Tally]) -> Iterator[tuple[Family, Iterable[str]]]:
        ends = {(name,): one.ends_at.timestamp() for name, one in vaults.items() if one.ends_at is not None}
        yield catalogue.VAULT_EXPIRATION, _each(catalogue.VAULT_EXPIRATION, ends)
        logins = {(name, word): one.logins.get(word, 0) for name, one in vaults.items() for word in catalogue.LOGINS}
        yield catalogue.VAULT_LOGINS, _each(catalogue.VAULT_LOGINS, logins)
        requests = {
            (name, operation, code): one.requests.get((operation, code), 0)
            for name, one in vaults.items()
            for operation in catalogue.OPERATIONS
            for code in catalogue.CODES
        }
        yield catalogue.VAULT_REQUESTS, _each(catalogue.VAULT_REQUESTS, requests)


def _register(snapshot: Health) -> Iterator[tuple[Family, Iterable[str]]]:
    """The grants that come and go have no series of their own."""
    census = snapshot.register
    if census is not None and census.total:
        counted = {(standing,): getattr(census, standing) for standing in catalogue.STANDINGS}
        yield catalogue.REGISTER, _each(catalogue.REGISTER, counted)


def _each(family: Family, values: Mapping[Any, float]) -> list[str]:
    return [sample(family, labels(family.labels, names), value) for names, value in values.items()]

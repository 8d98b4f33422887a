"""What the bus tells, counted. Made of lists and dictionaries of plain numbers: some 300 bytes for each grant."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from functools import partial

from rotator.core import events
from rotator.core.grants import OutcomeClass
from rotator.frontends.metrics import catalogue
from rotator.frontends.metrics.exposition import Histogram

_OUTCOME = {word: number for number, word in enumerate(catalogue.OUTCOMES)}
_GRANTED = _OUTCOME[OutcomeClass.GRANTED.value]
MOST = 20_000
"""So many grants, and so many targets, are counted one by one; of more (those of a register come by the hundred
thousand) only the sums."""
_DELIVERED, _REPAIRED, _FAILED = range(3)


def _zeros(words: tuple[str, ...]) -> list[int]:
    return [0] * len(words)


class Counts:
    """A listener of the bus. What it knows of a grant ends when the configuration names it no more; what is summed
    over many (``by_…``) only ever goes up."""

    def __init__(self, now: datetime) -> None:
        self.exchanges: defaultdict[str, list[int]] = defaultdict(partial(_zeros, catalogue.OUTCOMES))
        self.by_provider: defaultdict[str, list[int]] = defaultdict(partial(_zeros, catalogue.OUTCOMES))
        self.publications: defaultdict[tuple[str, str], list[int]] = defaultdict(partial(_zeros, catalogue.PUBLISHED))
        self.by_kind: defaultdict[str, list[int]] = defaultdict(partial(_zeros, catalogue.PUBLISHED))
        self.published_at: dict[tuple[str, str], float] = {}
        self.exchange_seconds = _histograms(catalogue.EXCHANGE_SECONDS)
        self.publish_seconds = _histograms(catalogue.PUBLISH_SECONDS)
        self.readable_seconds = _histograms(catalogue.READABLE_SECONDS)
        self.save_seconds = Histogram(catalogue.SAVE_SECONDS.buckets)
        self.lag = Histogram(catalogue.LAG.buckets)
        self.breakers: defaultdict[str, int] = defaultdict(int)
        self.jumps = dict.fromkeys(catalogue.JUMPS, 0)
        self.missed = self.store_errors = self.defects = 0
        self.reload_good = True
        self.reloaded_at = now.timestamp()

    def __call__(self, event: events.Event) -> None:
        match event:
            case events.ExchangeEnded():
                self._exchange(event)
            case events.TargetSettled():
                self._settled(event)
            case events.DeliveryFailed():
                self._published(event, event.kind, _FAILED)
            case events.StoreTroubled():
                self.store_errors += 1
                self.missed += event.sweep
            case events.ClockJumped():
                self.jumps["sleep" if event.slept else "back" if event.by < timedelta(0) else "forward"] += 1
            case events.ClockBehind():
                self.jumps["back"] += 1
            case events.BreakerOpened():
                self.breakers[event.provider] += 1
            case events.TaskFailed():
                self.defects += 1
            case events.Reloaded():
                self._reloaded(event)
            case events.ReloadRejected():
                self.reload_good = False

    def _exchange(self, event: events.ExchangeEnded) -> None:
        word = event.cls if isinstance(event, events.ExchangeFailed | events.Latched) else None
        number = _GRANTED if word is None else _OUTCOME[word]
        if event.grant in self.exchanges or len(self.exchanges) < MOST:
            self.exchanges[event.grant][number] += 1
        if event.provider is None:
            return
        self.by_provider[event.provider][number] += 1
        if event.took is not None:
            self.exchange_seconds[event.provider].observe(event.took.total_seconds())
        if event.save_took is not None:
            self.save_seconds.observe(event.save_took.total_seconds())

    def _settled(self, event: events.TargetSettled) -> None:
        self._published(event, event.kind, _REPAIRED if isinstance(event, events.Repaired) else _DELIVERED)
        if (event.grant, event.target) in self.publications:
            self.published_at[event.grant, event.target] = event.at.timestamp()
        if event.kind is None:
            return
        if event.took is not None:
            self.publish_seconds[event.kind].observe(event.took.total_seconds())
        if event.since_answer is not None and isinstance(event, events.Delivered):
            self.readable_seconds[event.kind].observe(event.since_answer.total_seconds())

    def _published(self, event: events.TargetEvent, kind: str | None, outcome: int) -> None:
        if (event.grant, event.target) in self.publications or len(self.publications) < MOST:
            self.publications[event.grant, event.target][outcome] += 1
        if kind is not None:
            self.by_kind[kind][outcome] += 1

    def _reloaded(self, event: events.Reloaded) -> None:
        self.reload_good, self.reloaded_at = True, event.at.timestamp()
        gone = set(event.removed)
        if not gone:
            return
        for name in gone:
            self.exchanges.pop(name, None)
        for key in [key for key in self.publications if key[0] in gone]:
            del self.publications[key]
            self.published_at.pop(key, None)


def _histograms(family: catalogue.Family) -> defaultdict[str, Histogram]:
    return defaultdict(partial(Histogram, family.buckets))

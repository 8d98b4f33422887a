"""A desk, and the judgement of whoever sits there, kept until it may have changed."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from datetime import datetime

from rotator.core import health
from rotator.core.grants import Grant
from rotator.core.policy import Moment
from rotator.core.ports import Enrolment
from rotator.engine.courier import Courier


@dataclass(slots=True)
class Desk:
    """One enrolled grant at work: its last saved record; when to try again after a failure that the record does not
    know (a store that was away); and when to look whether a changed secret wakes it, where nothing is due.

    ``outdated``: its secrets changed while it was at work, which may have read what was there before.

    ``anew`` and ``fell_back`` mean that the record in hand is ahead of the stored one, which a rotation mends: the
    identity changed, the clock was set back at that moment."""

    enrolment: Enrolment
    grant: Grant
    look_at: datetime
    anew: bool = False
    fell_back: Moment | None = None
    held_until: datetime | None = None
    failures: int = 0
    outdated: bool = False

    def is_held(self, now: datetime) -> bool:
        return self.held_until is not None and self.held_until > now

    def is_due(self, now: datetime) -> bool:
        return self.grant.due_at is not None and self.grant.due_at <= now

    @property
    def is_odd(self) -> bool:
        """Whether a sweep must ask it, for the store alone does not tell when."""
        return self.is_ahead or self.held_until is not None or self.grant.due_at is None

    @property
    def is_ahead(self) -> bool:
        """Whether a rotation must mend what is stored, due or not."""
        return self.anew or self.fell_back is not None

    def wants_look(self, now: datetime) -> bool:
        """Whether it is to be looked at although the store does not name it as due."""
        return self.is_ahead or (self.grant.due_at is None and self.look_at <= now)


class Board:
    """The judgement of every grant, kept until it may have changed: by a save, by a delivery, or by time alone. What a
    look costs follows what changed, not how many grants there are."""

    def __init__(self, courier: Courier, margin: health.Margin) -> None:
        self._courier = courier
        self._margin = margin
        self._desks: dict[str, Desk] = {}
        self._judged: dict[str, health.GrantHealth] = {}
        self._stale: set[str] = set()
        self._names: list[str] = []
        # One plan a name; an entry of the queue that was replaced is passed over.
        self._plans: dict[str, datetime] = {}
        self._queue: list[tuple[datetime, str]] = []
        self._shown: tuple[health.GrantHealth, ...] | None = None
        self._looked: datetime | None = None

    def take_over(self, desks: dict[str, Desk]) -> None:
        """These are enrolled from now on; of those that were before, the hysteresis is kept."""
        self._desks = desks
        self._names = sorted(desks)
        self._judged = {name: self._judged[name] for name in self._names if name in self._judged}
        self._judge_all_anew()

    def changed(self, name: str) -> None:
        self._stale.add(name)

    def shown(self, now: datetime) -> tuple[health.GrantHealth, ...]:
        """All of them, by name; the same tuple while nothing has changed."""
        self._note_changes(now)
        for name in self._stale & self._desks.keys():
            self._judge(name, now)
        self._stale.clear()
        if self._shown is None:
            self._shown = tuple(map(self._judged.__getitem__, self._names))
        return self._shown

    def judge(self, name: str, now: datetime) -> health.GrantHealth:
        """One of them."""
        self._note_changes(now)
        if name in self._stale:
            self._stale.discard(name)
            self._judge(name, now)
        return self._judged[name]

    def _note_changes(self, now: datetime) -> None:
        if self._looked is not None and now < self._looked:
            # The clock was set back: what time had changed it may change again.
            self._judge_all_anew()
        self._looked = now
        self._stale |= self._courier.changed & self._desks.keys()
        self._courier.changed.clear()
        while self._queue and self._queue[0][0] <= now:
            at, name = heapq.heappop(self._queue)
            if self._plans.get(name) == at:
                del self._plans[name]
                self._stale.add(name)

    def _judge_all_anew(self) -> None:
        self._stale = set(self._desks)
        self._plans.clear()
        self._queue.clear()
        self._shown = None

    def look(self, desk: Desk, now: datetime) -> health.GrantHealth:
        """One that is not kept in mind: a guest."""
        return self._examine(desk, now, was_short=False)

    def _judge(self, name: str, now: datetime) -> None:
        before = self._judged.get(name)
        found = self._examine(self._desks[name], now, was_short=before is not None and before.short)
        until = found.stands_until
        if until is None:
            self._plans.pop(name, None)
        elif self._plans.get(name) != until:
            self._plans[name] = until
            heapq.heappush(self._queue, (until, name))
        if found != before:
            self._judged[name] = found
            self._shown = None

    def _examine(self, desk: Desk, now: datetime, *, was_short: bool) -> health.GrantHealth:
        enrolment, rules = desk.enrolment, desk.enrolment.rules
        return health.examine(
            desk.grant, enrolment.provider, rules.budget if rules.password else None,
            self._courier.health(enrolment.name), now, margin=self._margin, was_short=was_short,
            refresh_lifetime=rules.refresh_lifetime,
        )  # fmt: skip

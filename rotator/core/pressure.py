"""How hard a provider may be pressed: what its grants share, and which of them goes first.

Arithmetic on given times. Spans of a breaker are read on the boot-time clock, so that a wall clock that is set by a
day neither holds a provider for a day nor lets a herd loose.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import datetime, timedelta
from enum import IntEnum

from rotator.core import lean
from rotator.core.grants import Grant, OutcomeClass
from rotator.core.lifecycle import choices
from rotator.core.policy import ZERO, Moment, Rules

OPENS_AFTER = 5
"""So many different grants without one answer between them are evidence about the provider, not about a grant."""
FIRST_PAUSE = timedelta(seconds=1)
LONGEST_PAUSE = timedelta(minutes=1)
SHARE = 4
"""One pause takes at most this part (a quarter) of what the most urgent of those that wait has left."""

# Whether the provider is ill, not whether a grant is: all else is an answer, also one that nobody likes.
SILENT = frozenset({OutcomeClass.NOT_SENT, OutcomeClass.BUSY, OutcomeClass.DOUBTFUL})


@lean.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one provider bears from us: ``in_flight`` exchanges at a time, ``per_second`` started in a second.

    The defaults keep fifteen thousand grants of an hour fresh with room to catch up, and stay below what providers
    publish as the limit of one client application; a provider that hashes a password for each login (some 100 ms of
    a core) bears ten a second as well.
    """

    in_flight: int = 16
    per_second: float = 10.0

    @property
    def burst(self) -> int:
        """How many may start together."""
        return max(1, math.ceil(self.per_second))

    @property
    def window(self) -> timedelta:
        """No more than `burst` are started in any span of this length: a second, or longer for a slower rate."""
        return timedelta(seconds=self.burst / self.per_second)

    @property
    def for_failing(self) -> int:
        """How many of those in flight may be grants that failed the last time: they may hang until their deadline,
        and a grant that fails must not delay another. Of one slot nothing can be kept free."""
        return max(1, self.in_flight // 2)


# --- who goes first ---------------------------------------------------------------------------------------------


class Line(IntEnum):
    """Grants that wait at one provider stand in three lines, each in the order of need, and the lines take turns.

    One line would let one kind starve another: ten thousand new grants those whose token runs out soon, or those that
    fail again and again, whose token ran out first of all, everybody else.
    """

    HELD = 0
    """Readers have a valid token; the one that runs out first goes first."""
    MISSING = 1
    """Readers have none; who misses it longest goes first."""
    FAILING = 2
    """The last exchange was not granted, whatever readers have; in the order of expiry."""


def line(grant: Grant) -> Line:
    """The line in which a grant will wait when it becomes due, as far as its record tells."""
    if grant.trouble is not None:
        return Line.FAILING
    return Line.MISSING if grant.access is None else Line.HELD


TURNS = (Line.HELD, Line.MISSING, Line.HELD, Line.FAILING)
"""Those that are in order get half of all turns: what is promised to readers comes before what is new or broken."""


@lean.dataclass(frozen=True, slots=True)
class Place:
    """Where a grant stands in line; ``until`` is when it is needed at the latest (or since when it is missed)."""

    line: Line
    until: datetime


def place(grant: Grant, moment: Moment, rules: Rules) -> Place:
    """Where a grant that is due belongs.

    A doubt whose one resend is still forgiven counts as in order, needed until the grace is over: to keep it waiting
    would cost a password exchange.
    """
    now, access = moment.now, grant.access
    if grant.doubt is not None and (left := choices.grace_left(grant.doubt, moment, rules)) is not None:
        return Place(Line.HELD, now + left)
    until = grant.due_at or now if access is None else access.expires_at
    if grant.trouble is not None:
        return Place(Line.FAILING, until)
    return Place(Line.HELD if grant.holds_valid(now) else Line.MISSING, until)


# --- the breaker ------------------------------------------------------------------------------------------------


@lean.dataclass(frozen=True, slots=True, kw_only=True)
class Breaker:
    """Whether the provider is asked at all, shared by its grants. ``failed`` names the different grants that got no
    answer since the last one; ``opened_at`` (boot-time clock) is set while it is open, ``openings`` counts them in a
    row.

    Open, it holds every exchange back for ``pause`` and then lets one through, the probe. What that says decides: any
    answer closes the breaker, silence opens it again for twice as long, up to `LONGEST_PAUSE`. One grant that fails for
    its own reasons never opens it, however often.
    """

    failed: frozenset[str] = frozenset()
    opened_at: timedelta | None = None
    pause: timedelta = ZERO
    openings: int = 0

    @property
    def is_open(self) -> bool:
        return self.opened_at is not None

    def probes_at(self, most_urgent: timedelta | None) -> timedelta:
        """When (boot-time clock) the next probe may leave. ``most_urgent`` is when the first token of those that wait
        in order (`Line.HELD`) runs out, by the same clock; None where none is valid.

        Never later than a `SHARE` of what that token had left when the breaker opened, so that between “due” and
        “expired” the provider is asked several times whatever it answered before.
        """
        opened_at = self.opened_at or ZERO
        pause = self.pause
        if most_urgent is not None and most_urgent > opened_at:
            pause = min(pause, max(FIRST_PAUSE, (most_urgent - opened_at) / SHARE))
        return opened_at + pause


CLOSED = Breaker()


def judged(
    breaker: Breaker, grant: str, cls: OutcomeClass, retry_after: timedelta | None, at: timedelta, *, probe: bool
) -> Breaker:
    """The breaker after an exchange of ``grant`` ended as ``cls``; ``at`` is the boot-time clock.

    A ``retry_after`` alone holds nobody else back: RFC 6585 section 4 leaves open whether a 429 counts a user, a
    client or an address, and a grant that fails must not delay another. Once several grants agree that the provider
    is ill, the pause is at least what it asked for, up to `LONGEST_PAUSE`.
    """
    if cls not in SILENT:
        return CLOSED
    asked = min(retry_after or ZERO, LONGEST_PAUSE)
    if breaker.is_open and not probe:
        # Was under way when it opened: it says the same again.
        return replace(breaker, pause=max(breaker.pause, asked))
    failed = breaker.failed if len(breaker.failed) >= OPENS_AFTER else breaker.failed | {grant}
    if len(failed) < OPENS_AFTER:
        return replace(breaker, failed=failed, pause=max(breaker.pause, asked))
    pause = min(LONGEST_PAUSE, FIRST_PAUSE * (1 << min(breaker.openings, 10)))
    asked = asked if breaker.is_open else max(asked, breaker.pause)
    return Breaker(failed=failed, opened_at=at, pause=max(pause, asked), openings=breaker.openings + 1)

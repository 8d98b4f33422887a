"""Which grants a page shows: filtered, what is wrong first, in pages; and the numbers about all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

from rotator.core import lean
from rotator.core.health import GrantHealth, Health, State
from rotator.frontends.http.rows import TONES

PER_PAGE = 50
LONGEST_QUERY = 100
ATTENTION = "attention"
WELL = 3
CHOICES = (ATTENTION, *(state.value for state in State))


@lean.dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to see. A ``state`` is a word of `State`, or `ATTENTION` for all that is not simply well."""

    query: str = ""
    state: str = ""
    page: int = 1

    @classmethod
    def read(cls, query: Mapping[str, str]) -> Wish:
        """From a query string; what makes no sense counts as not said."""
        state, page = query.get("state", ""), query.get("page", "1")
        return cls(
            query.get("q", "")[:LONGEST_QUERY].strip().lower(),
            state if state in CHOICES else "",
            max(1, int(page)) if page.isascii() and page.isdigit() and len(page) < 7 else 1,
        )


@lean.dataclass(frozen=True, slots=True)
class Shown:
    """One page of what was found; ``page`` may be less than wished for."""

    grants: Sequence[GrantHealth]
    found: int
    page: int
    pages: int


@lean.dataclass(frozen=True, slots=True)
class Count:
    """All grants in numbers; ``next`` is the one that rotates next."""

    total: int
    ready: int
    attention: int
    next: GrantHealth | None


def rank(grant: GrantHealth) -> int:
    """What stands first: readers go without, a person must act, it may heal by itself, all is well (`WELL`)."""
    if grant.unready:
        return 0
    if TONES[grant.state] == "bad":
        return 1
    return 2 if grant.reason else WELL


def count(health: Health) -> Count:
    grants = health.grants
    coming = min((one for one in grants if one.due_at is not None), key=_due, default=None)
    return Count(
        len(grants), sum(not one.unready for one in grants), sum(rank(one) < WELL for one in grants), coming
    )  # fmt: skip


def choose(grants: Sequence[GrantHealth], wish: Wish) -> Shown:
    """What is wrong stands first, the rest by name."""
    found = grants
    if wish.query:
        found = [one for one in found if wish.query in one.name or wish.query in one.provider]
    if wish.state == ATTENTION:
        found = [one for one in found if rank(one) < WELL]
    elif wish.state:
        found = [one for one in found if one.state.value == wish.state]
    pages = max(1, -(-len(found) // PER_PAGE))
    page = min(wish.page, pages)
    begin, end = (page - 1) * PER_PAGE, page * PER_PAGE
    # Few are wrong, and the rest stands in order already: it is never sorted as a whole.
    front = sorted((one for one in found if rank(one) < WELL), key=rank)
    shown = front[begin:end]
    if len(shown) < PER_PAGE:
        rest = (one for one in found if rank(one) == WELL)
        skipped = max(0, begin - len(front))
        shown += islice(rest, skipped, skipped + PER_PAGE - len(shown))
    return Shown(shown, len(found), page, pages)


def _due(grant: GrantHealth) -> tuple[object, str]:
    return grant.due_at, grant.name

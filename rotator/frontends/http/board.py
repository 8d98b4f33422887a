"""Which grants a page shows: filtered, what is wrong first, in pages; and the numbers about all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rotator.core.health import GrantHealth, Health, State
from rotator.frontends.http.rows import TONES

PER_PAGE = 50
LONGEST_QUERY = 100
ATTENTION = "attention"
CHOICES = (ATTENTION, *(state.value for state in State))


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Shown:
    """One page of what was found; ``page`` may be less than wished for."""

    grants: Sequence[GrantHealth]
    found: int
    page: int
    pages: int


@dataclass(frozen=True, slots=True)
class Count:
    """All grants in numbers; ``next`` is the one that rotates next."""

    total: int
    ready: int
    attention: int
    next: GrantHealth | None


def needs_attention(grant: GrantHealth) -> bool:
    return bool(grant.reason or grant.unready)


def count(health: Health) -> Count:
    grants = health.grants
    coming = min((one for one in grants if one.due_at is not None), key=_due, default=None)
    return Count(
        len(grants), sum(not one.unready for one in grants), sum(needs_attention(one) for one in grants), coming
    )  # fmt: skip


def choose(grants: Sequence[GrantHealth], wish: Wish) -> Shown:
    """What is wrong stands first, what can heal by itself behind it, the rest by name."""
    found = grants
    if wish.query:
        found = [one for one in found if wish.query in one.name or wish.query in one.provider]
    if wish.state == ATTENTION:
        found = [one for one in found if needs_attention(one)]
    elif wish.state:
        found = [one for one in found if one.state.value == wish.state]
    worst = [one for one in found if one.unready or TONES[one.state] == "bad"]
    fair = [one for one in found if needs_attention(one) and not (one.unready or TONES[one.state] == "bad")]
    pages = max(1, -(-len(found) // PER_PAGE))
    page = min(wish.page, pages)
    begin, end = (page - 1) * PER_PAGE, page * PER_PAGE
    front = [*worst, *fair]
    shown = front[begin:end]
    if len(shown) < PER_PAGE:
        # The rest need not be sorted or copied as a whole: they stand in order already.
        skip, wanted = max(0, begin - len(front)), PER_PAGE - len(shown)
        for one in found:
            if wanted == 0:
                break
            if needs_attention(one) or TONES[one.state] == "bad":
                continue
            if skip:
                skip -= 1
                continue
            shown.append(one)
            wanted -= 1
    return Shown(shown, len(found), page, pages)


def by_state(grants: Sequence[GrantHealth]) -> Counter[str]:
    return Counter(one.state.value for one in grants)


def _due(grant: GrantHealth) -> tuple[object, str]:
    return grant.due_at, grant.name

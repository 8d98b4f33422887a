"""Which grants of a snapshot are shown, and in which order: one that is worse stands before one that is better."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

from rotator.core import lean
from rotator.core.errors import BadUsage
from rotator.core.health import State

Document = dict[str, Any]
MOST_NAMED = 10
RANKS = {state.value: rank for rank, state in enumerate(State)}


@lean.dataclass(frozen=True, slots=True)
class Wish:
    """``names`` may have ``*`` and ``?``; ``states`` as they are shown, with ``-`` for a space if one likes. Empty: all
    of them. ``limit`` None: however many they are."""

    names: Sequence[str] = ()
    states: Sequence[str] = ()
    limit: int | None = None
    worst_first: bool = False


@lean.dataclass(frozen=True, slots=True)
class Selection:
    """``rows`` in order. ``well``: every grant that the names mean is published, shown or not. ``left_out``: how many
    grants of the snapshot are not among the rows."""

    rows: tuple[tuple[str, Document], ...]
    well: bool
    left_out: int


def check(wish: Wish) -> None:
    """Raises BadUsage for a state that there is not."""
    unknown = [state for state in wish.states if _plain(state) not in RANKS]
    if unknown:
        raise BadUsage(f"no state is called {unknown[0]!r}", mend=f"states: {', '.join(RANKS)}")
    if wish.limit is not None and wish.limit < 1:
        raise BadUsage("--limit is a number from 1 on")


def pick(document: Document, wish: Wish, most: int | None = None) -> Selection:
    """``most``: what the place to show it has room for; of more grants than that the worst are taken. Raises BadUsage
    for a name that means no grant."""
    grants: dict[str, Document] = document["grants"]
    named = _named(grants, wish.names) if wish.names else grants
    states = {_plain(state) for state in wish.states}
    rows = [(name, grant) for name, grant in named.items() if not states or grant["state"] in states]
    limit = min((one for one in (wish.limit, most) if one is not None), default=len(rows))
    crowded = most is not None and len(rows) > most and limit == most
    rows.sort(key=_badness if wish.worst_first or crowded else lambda row: row[0])
    kept = tuple(rows[:limit])
    return Selection(kept, all(grant["published"] for grant in named.values()), len(grants) - len(kept))


def narrowed(document: Document, selection: Selection) -> Document:
    """The same snapshot with the selected grants alone; ``left_out`` is there where that is not all of them."""
    grants = dict(selection.rows)
    return {**document, "grants": grants, **({"left_out": selection.left_out} if selection.left_out else {})}


def _named(grants: dict[str, Document], patterns: Sequence[str]) -> dict[str, Document]:
    found: dict[str, Document] = {}
    for pattern in patterns:
        meant = {name: grant for name, grant in grants.items() if fnmatchcase(name, pattern)}
        if not meant:
            some = sorted(grants)[:MOST_NAMED]
            more = f" and {len(grants) - MOST_NAMED} more" if len(grants) > MOST_NAMED else ""
            raise BadUsage(
                f"no grant is named {pattern!r}", mend=f"known grants: {', '.join(some) or 'none'}{more}"
            )  # fmt: skip
        found |= meant
    return found


def _badness(row: tuple[str, Document]) -> tuple[int, bool, float, str]:
    """What needs a person first, then what readers feel; a state of a newer daemon before all."""
    name, grant = row
    left = grant["expires_in"]
    return RANKS.get(grant["state"], -1), bool(grant["published"]), -1.0 if left is None else left, name


def _plain(state: str) -> str:
    return state.replace("-", " ").lower()

"""The provider's memory of what it was asked, so that a test can count. It holds no secret."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

UNFINISHED = "in flight"
GRANTED = "granted"
LOCKED_OUT = "locked out"
NEWEST = "newest"
OLD = "old"
UNKNOWN = "unknown"


@dataclass(slots=True)
class Entry:
    """One request.

    ``kind`` is the grant type (``login`` for Token Login, ``none`` where there was no grant type), ``user`` a *known*
    account (a stranger's name could be a password typed into the wrong field), ``at`` seconds since the epoch.
    ``outcome`` is ``granted``, an OAuth error code, or the mishap; ``committed`` tells whether a pair was stored.
    ``token`` says of a presented refresh token whether it was the newest of its family, an old or an unknown one.
    """

    number: int
    kind: str
    at: float
    client: str | None = None
    user: str | None = None
    outcome: str = UNFINISHED
    committed: bool = False
    token: str | None = None


class Journal:
    """The last ``keep`` entries (all of them with None) and counters over everything."""

    def __init__(self, keep: int | None = None) -> None:
        self.entries: deque[Entry] = deque(maxlen=keep)
        self.counters: Counter[str] = Counter()
        self.max_in_flight: dict[str, int] = {}
        self._in_flight: Counter[str] = Counter()
        self._number = 0

    def begin(self, kind: str, at: float) -> Entry:
        """Open the next entry; the caller settles its outcome."""
        self._number += 1
        entry = Entry(self._number, kind, at)
        self.entries.append(entry)
        self.counters[kind] += 1
        return entry

    @contextmanager
    def flight(self, grant: str | None) -> Iterator[None]:
        """Count a token request of ``grant`` (client and user) as in flight; None where the grant is unknown."""
        if grant is None:
            yield
            return
        self._in_flight[grant] += 1
        self.max_in_flight[grant] = max(self.max_in_flight.get(grant, 0), self._in_flight[grant])
        try:
            yield
        finally:
            self._in_flight[grant] -= 1

    def settle(self, entry: Entry, outcome: str) -> None:
        """Note how it ended; what befell the answer on its way replaces what the provider had decided."""
        if entry.outcome != UNFINISHED:
            self.counters[f"{entry.kind}: {entry.outcome}"] -= 1
        entry.outcome = outcome
        self.counters[f"{entry.kind}: {outcome}"] += 1

    def count(self, kind: str, outcome: str | None = None) -> int:
        """How many requests of ``kind`` there were, or how many of them ended in ``outcome``."""
        return self.counters[kind if outcome is None else f"{kind}: {outcome}"]

    @property
    def password_attempts(self) -> int:
        return self.count("password")

    @property
    def refreshes(self) -> int:
        return self.count("refresh_token")

    def describe(self) -> dict[str, object]:
        """Counters and entries, as `GET /_lab/log` shows them."""
        return {
            "counters": dict(self.counters),
            "password_attempts": self.password_attempts,
            "refreshes": self.refreshes,
            "max_in_flight": dict(self.max_in_flight),
            "requests": [asdict(entry) for entry in self.entries],
        }

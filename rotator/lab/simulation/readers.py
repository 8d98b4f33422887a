"""What readers see: for each grant, from when to when the token at its target was not good at the provider."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from rotator.core.publication import Publication
from rotator.lab.fos import Provider
from rotator.lab.world import MemoryPublisher


class Cause(StrEnum):
    """Why a reader may find no valid token: the exceptions to the promise, by name."""

    NOT_YET = "the first token is not there yet"
    PROVIDER_AWAY = "the provider did not grant between due and expired"
    STORE_AWAY = "the store could not be written"
    TARGET_AWAY = "the target did not accept a write"
    NOT_RUNNING = "the daemon or its machine was not running"
    ASLEEP = "the machine woke after expiry"
    CREDENTIALS = "the credentials were wrong or could not be read"
    REVOKED = "the owner revoked the grant"
    TWO_DAEMONS = "two daemons worked on copies of one state"
    BUDGET = "the irreducible window, and no password exchange left in the budget"
    TOUCHED = "somebody else changed the target"
    REPLACED = "the chain was lost in the irreducible window, and its access token with it"


@dataclass(slots=True)
class Hindrance:
    """That something stood in the way of one grant (or of all) from ``began`` to ``ended`` (None: still)."""

    cause: Cause
    began: timedelta
    ended: timedelta | None = None
    grant: str = ""


class Hindrances:
    """Everything that stood in the way, as the story knows it."""

    def __init__(self, passed: Callable[[], timedelta]) -> None:
        self._passed = passed
        self.all: list[Hindrance] = []

    def begin(self, cause: Cause, grant: str = "", began: timedelta | None = None) -> Hindrance:
        one = Hindrance(cause, self._passed() if began is None else began, grant=grant)
        self.all.append(one)
        return one

    def end(self, one: Hindrance) -> None:
        if one.ended is None:
            one.ended = self._passed()

    def of(self, grant: str, began: timedelta, ended: timedelta) -> list[Hindrance]:
        """Those of a grant that reach into a stretch."""
        return [
            one for one in self.all
            if one.grant in ("", grant) and one.began <= ended and (one.ended is None or one.ended >= began)
        ]  # fmt: skip

    def longest_clear(self, grant: str, began: timedelta, ended: timedelta) -> timedelta:
        """The longest time within a stretch in which nothing stood in the way."""
        longest, clear_from = timedelta(0), began
        for one in sorted(self.of(grant, began, ended), key=lambda one: one.began):
            longest = max(longest, one.began - clear_from)
            clear_from = max(clear_from, ended if one.ended is None else one.ended)
        return max(longest, ended - clear_from)


@dataclass(slots=True)
class Gap:
    """That readers of ``grant`` found no valid token. ``due`` is since when it should have been rotated."""

    grant: str
    due: timedelta
    began: timedelta
    ended: timedelta
    cause: str = ""


@dataclass(slots=True)
class _Reader:
    place: MemoryPublisher
    good_until: timedelta | None = None
    due: timedelta = timedelta(0)
    gap_since: timedelta | None = timedelta(0)
    had_one: bool = False


@dataclass(slots=True)
class Readers:
    """One reader a grant, who looks whenever something may have changed: nothing is sampled."""

    provider: Provider
    passed: Callable[[], timedelta]
    epoch: float
    lifetime: timedelta
    rotate_at: float
    gaps: list[Gap] = field(default_factory=list)
    first: list[Gap] = field(default_factory=list)
    _readers: dict[str, _Reader] = field(default_factory=dict)

    def read_at(self, places: Mapping[str, MemoryPublisher]) -> None:
        self._readers = {name: _Reader(place) for name, place in places.items()}

    def look(self, name: str) -> bool:
        """What the reader of one grant finds now. True where a good token has just gone before its time."""
        reader, now = self._readers[name], self.passed()
        holds = reader.place.holds
        row = self.provider.ledger.access.get(holds.access.value.reveal()) if isinstance(holds, Publication) else None
        gone = False
        until = None if row is None else timedelta(seconds=row.expires_at - self.epoch)
        if reader.gap_since is None and reader.good_until is not None:
            if reader.good_until < now:
                reader.gap_since = reader.good_until
            elif until is None or until < now:
                # Gone before its time: deleted, overwritten or revoked. What is due is due from now on.
                reader.gap_since = reader.due = now
                gone = True
        if until is not None and until >= now:
            if reader.gap_since is not None:
                self._note(name, reader, now)
            reader.due = until - self.lifetime * (1 - self.rotate_at)
            reader.good_until = until
        return gone

    def look_all(self, names: Iterable[str]) -> None:
        for name in names:
            self.look(name)

    def end(self) -> None:
        """Close what is still open."""
        self.look_all(self._readers)
        for name, reader in self._readers.items():
            if reader.gap_since is not None:
                self._note(name, reader, self.passed())

    def _note(self, name: str, reader: _Reader, now: timedelta) -> None:
        assert reader.gap_since is not None  # noqa: S101 (asked by the callers)
        gap = Gap(name, min(reader.due, reader.gap_since), reader.gap_since, now)
        (self.gaps if reader.had_one else self.first).append(gap)
        reader.gap_since, reader.had_one = None, True

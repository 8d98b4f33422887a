"""How a grant and an entry look in a row, sealed or in clear; and what of each row was seen last."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from json.encoder import encode_basestring_ascii as _quoted
from typing import Generic, LiteralString, TypeVar

from psycopg.rows import TupleRow

from rotator.core import records
from rotator.core.errors import StateDamaged
from rotator.core.grants import Grant
from rotator.core.ports import Entry
from rotator.core.sealing import Seal, Unsealed

T = TypeVar("T")


class Forms:
    """Writes and reads the column ``record``. A sealed record is bound to its grant, lineage and generation."""

    def __init__(self, seal: Seal | None) -> None:
        self.seal: Seal = Unsealed() if seal is None else seal

    def write(self, grant: Grant) -> str:
        plain = json.dumps(records.write(grant), separators=(",", ":"))
        return self.seal.close(plain, about(grant.name, grant.lineage, grant.generation))

    def read(self, name: str, lineage: str, generation: int, record: str) -> Grant:
        """Raises StateDamaged, and Misconfigured for a seal that is not ours."""
        text = self.seal.open(record, about(name, lineage, generation))
        try:
            return records.read(json.loads(text))
        except (ValueError, RecursionError):
            raise StateDamaged(
                f"what is stored of {name} in PostgreSQL was not written by rotator, or was changed",
                mend="bring it back from a backup; or delete its row in rotator_grants and start it anew",
            ) from None

    def write_entry(self, entry: Entry) -> str:
        return self.seal.close(entry.text, about_entry(entry.name))

    def read_entry(self, name: str, provider: str, text: str) -> Entry:
        """Raises StateDamaged, and Misconfigured for a seal that is not ours."""
        return Entry(name, provider, self.seal.open(text, about_entry(name)))


# The generation, and the server's time of the last write, which is only ever compared with other times of it; for one
# of the register that of the last generation (None before the first), for nothing else of it is followed.
Mark = tuple[int, datetime | None]
MARK: LiteralString = """ g.name, g.generation,
    CASE WHEN g.provider IS NULL THEN g.written_at ELSE g.granted_at END, g.provider IS NOT NULL """


class Passing(Generic[T]):
    """What is kept for a while: from one call of `pass_on` to the next but one."""

    def __init__(self) -> None:
        self._young: dict[str, T] = {}
        self._old: dict[str, T] = {}

    def note(self, name: str, what: T) -> None:
        self._young[name] = what

    def get(self, name: str) -> T | None:
        found = self._young.get(name)
        return self._old.get(name) if found is None else found

    def __iter__(self) -> Iterator[str]:
        return iter(self._old.keys() | self._young.keys())

    def forget(self, name: str) -> None:
        self._young.pop(name, None)
        self._old.pop(name, None)

    def pass_on(self) -> None:
        self._old, self._young = self._young, {}


class Known:
    """The mark of each row that was seen here: what differs was written by another. Those of the register are known for
    a while only, or memory would follow how many there are."""

    def __init__(self) -> None:
        self._seen: dict[str, Mark] = {}
        self.passing = Passing[Mark]()
        # Noted since somebody began to look.
        self.fresh: set[str] = set()

    def note(self, name: str, seen: Mark, *, registered: bool = False) -> None:
        if registered:
            self._seen.pop(name, None)
            self.passing.note(name, seen)
        else:
            # It counts before what is passing.
            self._seen[name] = seen
        self.fresh.add(name)

    def unlike(self, rows: Iterable[TupleRow]) -> list[TupleRow]:
        """Those that begin with a name and a mark which is not what was seen last. (A look goes back so far that it
        finds nearly all a second time.)"""
        seen = self._seen
        return [row for row in rows if seen.get(row[0]) != row[1:3] and self.get(row[0]) != row[1:3]]

    def get(self, name: str) -> Mark | None:
        return self._seen.get(name) or self.passing.get(name)

    def forget(self, name: str) -> None:
        self._seen.pop(name, None)
        self.passing.forget(name)

    def clear(self) -> None:
        self._seen.clear()
        self.passing = Passing()


def about(name: str, lineage: str, generation: int) -> str:
    """As json.dumps writes a list of these, for a tenth of what that costs: every record that is read needs it."""
    return f"[{_quoted(name)}, {_quoted(lineage)}, {generation}]"


def about_entry(name: str) -> str:
    """It opens under no other name, and is no record."""
    return json.dumps(["register", name])

"""How a grant looks in a row, sealed or in clear; and what of each row was seen last."""

from __future__ import annotations

import json
from datetime import datetime

from rotator.core import records
from rotator.core.errors import StateDamaged
from rotator.core.grants import Grant
from rotator.core.sealing import Seal, Unsealed


class Forms:
    """Writes and reads the column ``record``. A sealed record is bound to its grant, lineage and generation."""

    def __init__(self, seal: Seal | None) -> None:
        self.seal: Seal = Unsealed() if seal is None else seal

    def write(self, grant: Grant) -> str:
        plain = json.dumps(records.write(grant), separators=(",", ":"))
        return self.seal.close(plain, _about(grant.name, grant.lineage, grant.generation))

    def read(self, name: str, lineage: str, generation: int, record: str) -> Grant:
        """Raises StateDamaged, and Misconfigured for a seal that is not ours."""
        text = self.seal.open(record, _about(name, lineage, generation))
        try:
            return records.read(json.loads(text))
        except (ValueError, RecursionError):
            raise StateDamaged(
                f"what is stored of {name} in PostgreSQL was not written by rotator, or was changed",
                mend="bring it back from a backup; or delete its row in rotator_grants and start it anew",
            ) from None


# The generation, and the server's time of the last write, which is only ever compared with other times of it.
Mark = tuple[int, datetime]


class Known:
    """Generation and time of the last write of each row that was seen here: what differs was written by another."""

    def __init__(self) -> None:
        self._seen: dict[str, Mark] = {}
        # Noted since somebody began to look.
        self.fresh: set[str] = set()

    def note(self, name: str, seen: Mark) -> None:
        self._seen[name] = seen
        self.fresh.add(name)

    def get(self, name: str) -> Mark | None:
        return self._seen.get(name)

    def forget(self, name: str) -> None:
        self._seen.pop(name, None)

    def clear(self) -> None:
        self._seen.clear()


def _about(name: str, lineage: str, generation: int) -> str:
    return json.dumps([name, lineage, generation])

"""What there is while a store is open: two lanes to the server, and what belongs to no grant."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import LiteralString

from rotator.core.errors import RotatorError
from rotator.core.ports import Clock, Dice
from rotator.drivers.postgres import anew, entering, schema, writing
from rotator.drivers.postgres.changes import Changes
from rotator.drivers.postgres.claims import Sights
from rotator.drivers.postgres.failures import NoState
from rotator.drivers.postgres.following import Following
from rotator.drivers.postgres.forms import Forms, Known
from rotator.drivers.postgres.lane import Lane
from rotator.drivers.postgres.link import Address, Link
from rotator.drivers.postgres.wire import Rows, Statement

KEY_NAMES = 3  # of at least 96 bits each: more than the 256 that the key keeps
PROBE = "a probe"


class Parts:
    """A lane for what is written, and one for looking: a long look holds up no save. ``writes`` is False for who only
    reads."""

    def __init__(self, address: Address, clock: Clock, dice: Dice, forms: Forms, host: str, *, writes: bool) -> None:
        self._dice = dice
        self._forms = forms
        self.writes = writes
        self._place = address.place
        self.link = Link(address, clock, dice, writes=writes)
        self.looks = Link(address, clock, dice, writes=writes)
        self.known, self.sights = Known(), Sights()
        self.writing, self.reading = Lane(self.link), Lane(self.looks)
        self.following = Following(self.reading, self.writing, self.looks, clock, forms, self.known, self.sights)
        self.changes = Changes(self.reading, self.writing, self.looks, clock, self.known, host)
        self.do = writing.Do()
        self.save = writing.Save(forms, self.known)
        self.take = writing.Take(forms, self.sights, clock.moment)
        self.give_back = writing.GiveBack()
        self.deliver = writing.Deliver()
        self.enrol = entering.Enrol(forms, self.known)

    async def open(self) -> bytes:
        """Make or check the tables, prove the seal, and return the installation's key."""
        await schema.prepare(self.link, read_only=not self.writes)
        key, probe = await self._meta()
        await self._prepare_seal(probe)
        self.writing.served = self.reading.served = True
        return key

    async def close(self) -> None:
        await self.writing.stop()
        with suppress(RotatorError):
            # Where it cannot be said, the others notice that we beat no more.
            await self.following.leave()
        await self.reading.stop()

    async def write(self, *statements: Statement) -> list[Rows]:
        return await self._ask(self.writing, *statements)

    async def read(self, *statements: Statement) -> list[Rows]:
        return await self._ask(self.reading, *statements)

    async def _ask(self, lane: Lane, *statements: Statement) -> list[Rows]:
        answers, _ = await lane.submit(self.do, "", statements)
        rows: list[Rows] = answers
        return rows

    META: LiteralString = "SELECT key, probe FROM rotator_meta WHERE id = 1"
    LATEST: LiteralString = "SELECT record FROM rotator_grants ORDER BY written_at DESC LIMIT 1"

    async def _meta(self) -> tuple[bytes, str]:
        """The key, made where there is none, and the sealed word. Where another daemon is first, his counts."""
        key = hashlib.sha256(":".join(self._dice.name() for _ in range(KEY_NAMES)).encode()).digest()
        make: Statement = "INSERT INTO rotator_meta (id, key) VALUES (1, %s) ON CONFLICT (id) DO NOTHING", (key,)
        *_, rows = await self.write(*([make] if self.writes else []), (self.META, ()))
        if not rows:
            raise NoState(f"there is no state {self._place} yet", mend="start the daemon (`rotator run`)")
        return bytes(rows[0][0]), str(rows[0][1])

    async def _prepare_seal(self, probe: str) -> None:
        """Proven before anything is spent. All daemons seal with the key of the probe, which the first of them made."""
        seal = self._forms.seal
        (rows,) = await self.write((self.LATEST, ()))
        await seal.prepare([*(row[0] for row in rows), *([probe] if probe else [])])
        closed = seal.close(PROBE, "probe")
        if probe or not self.writes or closed == PROBE:
            return
        put: Statement = "UPDATE rotator_meta SET probe = %s WHERE id = 1 AND probe = ''", (closed,)
        *_, rows = await self.write(put, (self.META, ()))
        await seal.prepare([str(rows[0][1])])

    async def seal_anew(self) -> int:
        """See `PostgresStore.seal_anew`."""
        probe: Statement = "UPDATE rotator_meta SET probe = %s", (PROBE,)
        return await anew.seal(self.link, self._forms.seal, probe)

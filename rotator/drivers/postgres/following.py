"""What other daemons wrote, found by the server's own clock; the leases they hold; and who of them is at work."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import LiteralString

from psycopg.rows import TupleRow

from rotator.core.errors import Misconfigured
from rotator.core.grants import Grant
from rotator.core.policy import Moment
from rotator.core.ports import Clock
from rotator.drivers.postgres import claims
from rotator.drivers.postgres.claims import Sights
from rotator.drivers.postgres.forms import Forms, Known
from rotator.drivers.postgres.lane import Lane
from rotator.drivers.postgres.link import Link
from rotator.drivers.postgres.wire import Rows, Statement
from rotator.drivers.postgres.writing import Do

# A write is seen once it is committed, which may be as much later than its time as a commit takes. Every look goes back
# a little, now and then further; what is later still, or was brought back from a backup, is found by comparing all.
OVERLAP, LONG_OVERLAP = timedelta(seconds=2), timedelta(seconds=60)
LONG_EVERY = timedelta(seconds=10)
COMPARED_EVERY, COMPARED_A_SECOND = timedelta(seconds=30), 1000
# A daemon that did not beat for so long is not counted any more. Beats are written this often at most.
PRESENCE, BEAT = timedelta(seconds=5), timedelta(seconds=1)
GONE = timedelta(hours=1)

ZERO = timedelta(0)


class Following:
    """Looks at the state on the lane for reading. One look at a time."""

    def __init__(
        self, lane: Lane, writes: Lane, link: Link, clock: Clock, forms: Forms, known: Known, sights: Sights
    ) -> None:
        self._lane = lane
        self._writes = writes
        self._link = link
        self._clock = clock
        self._forms = forms
        self._known = known
        self._sights = sights
        self._do = Do()
        # When we looked last, by our boot-time clock and by the server's.
        self._looked: tuple[Moment, datetime] | None = None
        self._long_at = self._compare_at = ZERO
        self._number = 0
        self._beats: dict[str, tuple[int, timedelta]] = {}
        self._beat_at: timedelta | None = None
        self._owner: str | None = None

    # With clock_timestamp(), which moves while a statement runs, no index would serve. Of the register `Changes` tells.
    # The record of what was written since the last look, unless we wrote it; the rest of the window was mostly seen.
    WRITTEN: LiteralString = """
        SELECT name, generation, written_at, lineage,
            CASE WHEN written_at > %s::timestamptz AND name <> ALL(%b::text[]) THEN record END, owner <> ''
        FROM rotator_grants WHERE written_at > statement_timestamp() - %s::interval AND provider IS NULL"""
    ALL: LiteralString = (
        "SELECT name, generation, written_at, lineage, NULL, FALSE FROM rotator_grants WHERE provider IS NULL"
    )
    LEASED: LiteralString = "SELECT name, owner, fence, span, boot_id, until FROM rotator_grants WHERE owner <> ''"
    NOW: LiteralString = "SELECT clock_timestamp()"
    RECORDS: LiteralString = (
        "SELECT name, generation, written_at, lineage, record FROM rotator_grants WHERE name = ANY(%b::text[])"
    )

    async def news(self, names: Collection[str]) -> Mapping[str, Grant | None]:
        """See `ports.Store.news`."""
        known, moment = self._known, self._clock.moment()
        # What we write ourselves meanwhile is no news.
        seen, known.fresh = known.fresh, self._writes.names()
        ours = known.fresh
        compare = self._is_time_to_compare(moment)
        rows = await self._look(moment, compare, seen)
        if not compare and self._is_elsewhere():
            compare, rows = True, await self._look(moment, True, seen)
        fresh = [row for row in known.unlike(rows) if self._is_news(row) and row[0] in names and row[0] not in ours]
        read = await self._read(fresh)
        gone: list[str] = []
        if compare:
            found = {row[0] for row in rows}
            gone = [name for name in names if name not in found and name not in ours and known.get(name) is not None]
            gone = await self._lacking(gone)
            pause = max(COMPARED_EVERY, timedelta(seconds=len(found) / COMPARED_A_SECOND))
            self._compare_at = moment.boottime + pause
        for name in gone:
            known.forget(name)
        return {**dict.fromkeys(gone), **read}

    def _is_news(self, row: TupleRow) -> bool:
        """Whether what differs counts. An intent does not yet, while its owner's lease stands: its end will, and who
        takes the lease over looks again."""
        name, generation, *_, is_leased = row
        seen = self._known.get(name)
        return not (is_leased and seen is not None and seen[0] == generation)

    async def _look(self, moment: Moment, compare: bool, seen: Collection[str]) -> Rows:
        """Rows that may be news, without a record where there is none to expect: of those that were ``seen`` last, too.
        The leases of now are taken note of."""
        window = LONG_OVERLAP if moment.boottime >= self._long_at else OVERLAP
        if self._looked is not None:
            window += max(moment.boottime - self._looked[0].boottime, ZERO)
        last = None if self._looked is None else self._looked[1]
        written: Statement = (self.ALL, ()) if compare else (self.WRITTEN, (last, list(seen), window))
        rows, leased, ((server,),) = await self._ask(written, (self.LEASED, ()), (self.NOW, ()))
        after = self._clock.moment()
        self._sights.all(((name, claims.read(*rest)) for name, *rest in leased), after)
        if self._looked is not None and not compare:
            passed = server - self._looked[1]
            if passed > window - OVERLAP / 2:
                # The server's clock was set forward: what was written before that is further back than it seems.
                (rows,) = await self._ask((self.WRITTEN, (last, list(seen), passed + window)))
        self._looked = moment, server
        if window >= LONG_OVERLAP:
            self._long_at = moment.boottime + LONG_EVERY
        return rows

    REGISTERED: LiteralString = "SELECT name FROM rotator_grants WHERE name = ANY(%b::text[])"

    async def _lacking(self, names: list[str]) -> list[str]:
        """Those of them that are not merely of the register by now."""
        (rows,) = await self._ask((self.REGISTERED, (names,))) if names else ((),)
        found = {name for (name,) in rows}
        return [name for name in names if name not in found]

    async def _read(self, found: Rows) -> dict[str, Grant]:
        rows = [row for row in found if row[4] is not None]
        if missing := [row[0] for row in found if row[4] is None]:
            rows += (await self._ask((self.RECORDS, (missing,))))[0]
        ours, read = self._known.fresh | self._writes.names(), {}
        for name, generation, written_at, lineage, record, *_ in rows:
            if name not in ours:
                try:
                    read[name] = self._forms.read(name, lineage, generation, record)
                except Misconfigured:
                    # Told by whoever needs it; the others are news all the same.
                    pass
                self._known.note(name, (generation, written_at))
                # Not by us: what comes next of it is news.
                self._known.fresh.discard(name)
        return read

    def _is_time_to_compare(self, moment: Moment) -> bool:
        if self._compare_at == ZERO:
            self._compare_at = moment.boottime + COMPARED_EVERY
        return self._is_elsewhere() or moment.boottime >= self._compare_at

    def _is_elsewhere(self) -> bool:
        """Whether the connection is another one: it may lead to another server, or to one that was restored."""
        before, self._number = self._number, self._link.number
        return before not in (0, self._number)

    # --- who is at work ----------------------------------------------------------------------------------------

    BEATING: LiteralString = """
        INSERT INTO rotator_daemons (owner, beat, seen_at) VALUES (%s, 1, clock_timestamp())
        ON CONFLICT (owner) DO UPDATE SET beat = rotator_daemons.beat + 1, seen_at = clock_timestamp()"""
    PRESENT: LiteralString = "SELECT owner, beat FROM rotator_daemons WHERE seen_at > clock_timestamp() - %s::interval"
    LEFT: LiteralString = "DELETE FROM rotator_daemons WHERE owner = %s OR seen_at < clock_timestamp() - %s::interval"

    async def present(self, owner: str) -> Collection[str]:
        """Beat for ``owner``, and tell whose beat was heard lately."""
        moment, self._owner = self._clock.moment(), owner
        if self._beat_at is None or moment.boottime >= self._beat_at:
            *_, rows = await self._ask((self.BEATING, (owner,)), (self.PRESENT, (GONE,)))
            self._beat_at = moment.boottime + BEAT
            before, self._beats = self._beats, {}
            for one, beat in rows:
                known = before.get(one)
                self._beats[one] = known if known is not None and known[0] == beat else (beat, moment.boottime)
        return {owner, *(one for one, (_, at) in self._beats.items() if moment.boottime - at < PRESENCE)}

    async def leave(self) -> None:
        """Say goodbye, where we ever beat."""
        if self._owner is not None:
            await self._ask((self.LEFT, (self._owner, GONE)))

    async def _ask(self, *statements: Statement) -> list[Rows]:
        answers, _ = await self._lane.submit(self._do, "", statements)
        result: list[Rows] = answers
        return result

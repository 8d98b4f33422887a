"""What is written, each kind of job as one statement over arrays: a thousand saves are parsed and planned once.

Every statement is conditional and tells by its rows who got through; none of them fails because somebody was first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import field
from datetime import datetime, timedelta
from typing import LiteralString

from rotator.core import lean, pressure, records
from rotator.core.errors import Overtaken
from rotator.core.grants import Grant
from rotator.core.policy import Moment
from rotator.core.ports import Delivery, Lease
from rotator.drivers.postgres import claims
from rotator.drivers.postgres.claims import Sights
from rotator.drivers.postgres.forms import MARK, Forms, Known
from rotator.drivers.postgres.lane import Job
from rotator.drivers.postgres.wire import Rows, Statement

SOON = timedelta(seconds=0.2)


@lean.dataclass(frozen=True, slots=True)
class Saving:
    """``step`` goes up with every save that this process sends, so that one that comes late, over a connection given
    up long ago, changes nothing. ``unsure``: an earlier try to save exactly this was never answered."""

    grant: Grant
    expected: int
    lease: Lease | None
    at: int
    step: int
    text: str = field(repr=False)
    unsure: bool


class Save:
    """The compare-and-set of `ports.Store.save`."""

    def __init__(self, forms: Forms, known: Known) -> None:
        self._known = known
        self._why = _WhyNotSaved(forms, known)

    SQL: LiteralString = """
        UPDATE rotator_grants AS g SET lineage = i.lineage, generation = i.generation,
            due_at = CASE WHEN g.provider IS NULL THEN i.due_at END,
            visit_at = CASE WHEN g.provider IS NOT NULL THEN i.due_at END, line = i.line, expires_at = i.expires_at,
            record = i.record, at = GREATEST(g.at, i.at), written_at = clock_timestamp(),
            granted_at = CASE WHEN i.granted THEN clock_timestamp() ELSE g.granted_at END,
            step = CASE WHEN g.owner = i.owner AND g.fence = i.fence THEN i.step ELSE g.step END
        FROM unnest(%b::text[], %b::text[], %b::bigint[], %b::bigint[], %b::text[], %b::bigint[], %b::boolean[],
                %b::boolean[], %b::text[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[])
            AS i (name, lineage, generation, due_at, record, expected, anew, granted, owner, fence, step, at, line,
                expires_at)
        WHERE g.name = i.name AND g.generation = i.expected AND (g.lineage = i.lineage OR i.anew)
            AND (i.granted OR i.owner = '' OR (g.owner = i.owner AND g.fence = i.fence AND g.step < i.step))
        RETURNING g.name, g.generation, CASE WHEN g.provider IS NULL THEN g.written_at ELSE g.granted_at END,
            g.provider IS NOT NULL"""

    def ask(self, jobs: Sequence[Job]) -> list[Statement]:
        orders: list[Saving] = [job.order for job in jobs]
        grants = [one.grant for one in orders]
        leases = [one.lease for one in orders]
        return [(self.SQL, (
            [one.name for one in grants], [one.lineage for one in grants], [one.generation for one in grants],
            [stamp(one.due_at) for one in grants], [one.text for one in orders], [one.expected for one in orders],
            [records.starts_anew(one) for one in grants],
            [one.grant.generation > one.expected for one in orders],
            ["" if one is None else one.owner for one in leases], [0 if one is None else one.fence for one in leases],
            [one.step for one in orders], [one.at for one in orders], [pressure.line(one).value for one in grants],
            [expiry(one) for one in grants],
        ))]  # fmt: skip

    def hear(self, jobs: Sequence[Job], answers: Sequence[Rows]) -> None:
        saved = {name: mark for name, *mark in answers[0]}
        for job in jobs:
            if job.name in saved:
                generation, at, registered = saved[job.name]
                self._known.note(job.name, (generation, at), registered=registered)
                job.done()
            else:
                job.kind = self._why


class _WhyNotSaved:
    """Why a save did not get through; or that it did, and only its answer was lost."""

    def __init__(self, forms: Forms, known: Known) -> None:
        self._forms = forms
        self._known = known

    SQL: LiteralString = (
        "SELECT" + MARK + ", g.lineage, g.record FROM rotator_grants AS g WHERE g.name = ANY(%b::text[])"
    )

    def ask(self, jobs: Sequence[Job]) -> list[Statement]:
        return [(self.SQL, ([job.name for job in jobs],))]

    def hear(self, jobs: Sequence[Job], answers: Sequence[Rows]) -> None:
        found = {row[0]: row for row in answers[0]}
        for job in jobs:
            order: Saving = job.order
            row = found.get(job.name)
            try:
                if row is not None and (job.again or order.unsure):
                    name, generation, at, registered, lineage, record = row
                    if self._forms.read(name, lineage, generation, record) == order.grant:
                        self._known.note(name, (generation, at), registered=registered)
                        job.done()
                        continue
                records.admit(None if row is None else (row[4], row[1]), order.grant, order.expected)
                raise Overtaken(f"the lease of {job.name} is no longer ours: another daemon took over")
            except Exception as error:  # noqa: BLE001 (carried to whoever waits)
                job.failed(error)


@lean.dataclass(frozen=True, slots=True)
class Leasing:
    owner: str
    moment: Moment
    span: timedelta


class Take:
    """Leases, as many as are asked for, in one statement. A row that somebody is writing this instant is skipped."""

    def __init__(self, forms: Forms, sights: Sights, moment: Callable[[], Moment]) -> None:
        self._forms = forms
        self._sights = sights
        self._why = _WhyNotLeased(self, sights, moment)

    SQL: LiteralString = """
        WITH wanted AS (
            SELECT * FROM unnest(%b::text[], %b::text[], %b::text[], %b::bigint[], %b::bigint[], %b::text[],
                %b::bigint[]) AS w (name, owner, seen_owner, seen_fence, span, boot_id, until)
        ), free AS (
            SELECT g.name FROM rotator_grants AS g JOIN wanted AS w ON w.name = g.name
            WHERE g.owner IN ('', w.owner) OR (g.owner = w.seen_owner AND g.fence = w.seen_fence)
            FOR UPDATE OF g SKIP LOCKED
        )
        UPDATE rotator_grants AS g SET owner = w.owner, fence = g.fence + 1, step = 0, span = w.span,
            boot_id = w.boot_id, until = w.until,
            -- A daemon that knows no register has written when one of it is due as for all others.
            visit_at = CASE WHEN g.provider IS NOT NULL THEN COALESCE(g.due_at, g.visit_at) END,
            due_at = CASE WHEN g.provider IS NULL THEN g.due_at END
        FROM free, wanted AS w WHERE g.name = free.name AND w.name = g.name
        RETURNING g.name, g.lineage, g.generation, g.record, g.fence"""

    def ask(self, jobs: Sequence[Job]) -> list[Statement]:
        names, orders = [job.name for job in jobs], [job.order for job in jobs]
        over = [self._sights.ran_out(name, order.moment) for name, order in zip(names, orders, strict=True)]
        return [
            (self.SQL, (
                names, [one.owner for one in orders],
                ["" if one is None else one.owner for one in over], [0 if one is None else one.fence for one in over],
                [one.span // records.MICROSECOND for one in orders], [one.moment.boot_id for one in orders],
                [(one.moment.boottime + one.span) // records.MICROSECOND for one in orders],
            )),
        ]  # fmt: skip

    def hear(self, jobs: Sequence[Job], answers: Sequence[Rows]) -> None:
        won = {row[0]: row for row in answers[0]}
        for job in jobs:
            order: Leasing = job.order
            row, moment = won.get(job.name), order.moment
            if row is None:
                job.kind = self._why
                continue
            try:
                self._sights.forget(job.name)
                end = Moment(moment.now + order.span, moment.boot_id, moment.boottime + order.span)
                job.done((Lease(job.name, order.owner, row[4], end), self._forms.read(*row[:4])))
            except Exception as error:  # noqa: BLE001 (carried to whoever waits)
                job.failed(error)


class _WhyNotLeased:
    """Who holds what was not given to us; where his lease has run out, it is asked for once more, and named."""

    def __init__(self, take: Take, sights: Sights, moment: Callable[[], Moment]) -> None:
        self._take = take
        self._sights = sights
        self._moment = moment

    SQL: LiteralString = (
        "SELECT name, owner, fence, span, boot_id, until FROM rotator_grants WHERE name = ANY(%b::text[])"
    )

    def ask(self, jobs: Sequence[Job]) -> list[Statement]:
        return [(self.SQL, ([job.name for job in jobs],))]

    def hear(self, jobs: Sequence[Job], answers: Sequence[Rows]) -> None:
        held = {name: claims.read(*rest) for name, *rest in answers[0]}
        for job in jobs:
            order: Leasing = job.order
            claim, name = held.get(job.name), job.name
            if claim is None:
                job.failed(Overtaken(f"there is no stored grant {name}: it was retired or never enrolled"))
            elif claim.owner in ("", order.owner):
                job.failed(Overtaken(f"{name} is being written by another daemon", left=SOON))
            else:
                self._sights.note(name, claim, self._moment())
                left = self._sights.left(name, claim, order.moment)
                if left > claims.NOTHING:
                    told = f"{name} is leased to another daemon for {left.total_seconds():.1f} s at most"
                    job.failed(Overtaken(told, left=left))
                else:
                    job.kind = self._take


class GiveBack:
    SQL: LiteralString = """
        UPDATE rotator_grants AS g SET owner = '' FROM unnest(%b::text[], %b::text[], %b::bigint[])
            AS i (name, owner, fence) WHERE g.name = i.name AND g.owner = i.owner AND g.fence = i.fence"""

    def ask(self, jobs: Sequence[Job]) -> list[Statement]:
        leases: list[Lease] = [job.order for job in jobs]
        return [(self.SQL, ([job.name for job in jobs], [one.owner for one in leases], [one.fence for one in leases]))]

    def hear(self, jobs: Sequence[Job], answers: Sequence[Rows]) -> None:
        for job in jobs:
            job.done()


class Deliver:
    """``order`` is a Delivery, the host it is known to, and the time."""

    SQL: LiteralString = """
        INSERT INTO rotator_deliveries (grant_name, location, host, target, lineage, generation, expires_at, mark, at)
        SELECT * FROM unnest(%b::text[], %b::text[], %b::text[], %b::text[], %b::text[], %b::bigint[], %b::bigint[],
            %b::text[], %b::bigint[])
        ON CONFLICT (grant_name, location, host) DO UPDATE SET target = excluded.target, lineage = excluded.lineage,
            generation = excluded.generation, expires_at = excluded.expires_at, mark = excluded.mark,
            at = GREATEST(rotator_deliveries.at, excluded.at)"""

    def ask(self, jobs: Sequence[Job]) -> list[Statement]:
        # One order for all daemons, so that no two wait for each other.
        orders: list[tuple[Delivery, str, int]] = sorted((job.order for job in jobs), key=lambda one: one[0].location)
        rows = [
            (one.grant, one.location, host, one.target, one.lineage, one.generation, records.stamp(one.expires_at),
             one.mark, at) for one, host, at in orders
        ]  # fmt: skip
        return [(self.SQL, tuple(list(column) for column in zip(*rows, strict=True)))]

    def hear(self, jobs: Sequence[Job], answers: Sequence[Rows]) -> None:
        for job in jobs:
            job.done()


class Do:
    """Statements of one job on its own; the rows of the last one are its result."""

    def ask(self, jobs: Sequence[Job]) -> list[Statement]:
        return [statement for job in jobs for statement in job.order]

    def hear(self, jobs: Sequence[Job], answers: Sequence[Rows]) -> None:
        first = 0
        for job in jobs:
            count = len(job.order)
            job.done((answers[first : first + count], job.again))
            first += count


def stamp(at: datetime | None) -> int | None:
    return None if at is None else records.stamp(at)


def expiry(grant: Grant) -> int | None:
    """Of its access token."""
    return None if grant.access is None else records.stamp(grant.access.expires_at)

"""How a grant comes to be stored, and an entry of the register; and how they leave it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import LiteralString

from rotator.core import pressure
from rotator.core.errors import Overtaken
from rotator.core.grants import Grant
from rotator.core.ports import Entry
from rotator.drivers.postgres.forms import MARK, Forms, Known
from rotator.drivers.postgres.lane import Job
from rotator.drivers.postgres.wire import Rows, Statement
from rotator.drivers.postgres.writing import expiry, stamp

# So long it is remembered who was taken out of the register, for daemons that did not run meanwhile.
REMEMBERED = timedelta(days=1)


class Enrol:
    """``order`` is the grant, its text and the time. What is there is kept, and told."""

    def __init__(self, forms: Forms, known: Known) -> None:
        self._forms = forms
        self._known = known

    # Locked: who strikes one waits, and then finds its record, which would belong to no register otherwise.
    INSERT: LiteralString = """
        WITH there AS (
            SELECT name, provider FROM rotator_register WHERE name = ANY(%b::text[]) ORDER BY name FOR UPDATE
        )
        INSERT INTO rotator_grants (name, lineage, generation, due_at, visit_at, provider, line, expires_at, record, at,
            written_at)
        SELECT i.name, i.lineage, i.generation, CASE WHEN r.name IS NULL THEN i.due_at END,
            CASE WHEN r.name IS NOT NULL THEN i.due_at END, r.provider, i.line, i.expires_at, i.record, i.at,
            clock_timestamp()
        FROM unnest(%b::text[], %b::text[], %b::bigint[], %b::bigint[], %b::bigint[], %b::bigint[], %b::text[],
            %b::bigint[]) AS i (name, lineage, generation, due_at, line, expires_at, record, at)
            LEFT JOIN there AS r ON r.name = i.name
        ON CONFLICT (name) DO NOTHING"""
    SELECT: LiteralString = (
        "SELECT" + MARK + ", g.lineage, g.record FROM rotator_grants AS g WHERE g.name = ANY(%b::text[])"
    )

    def ask(self, jobs: Sequence[Job]) -> list[Statement]:
        orders: list[tuple[Grant, str, int]] = sorted((job.order for job in jobs), key=lambda one: one[0].name)
        rows = [
            (one.name, one.lineage, one.generation, stamp(one.due_at), pressure.line(one).value,
             expiry(one), text, at)
            for one, text, at in orders
        ]  # fmt: skip
        names = [row[0] for row in rows]
        return [
            (self.INSERT, (names, *(list(column) for column in zip(*rows, strict=True)))),
            (self.SELECT, (names,)),
        ]

    def hear(self, jobs: Sequence[Job], answers: Sequence[Rows]) -> None:
        found = {row[0]: row for row in answers[1]}
        for job in jobs:
            row = found.get(job.name)
            try:
                if row is None:
                    raise Overtaken(f"{job.name} was retired while it was enrolled")
                name, generation, at, registered, lineage, record = row
                self._known.note(name, (generation, at), registered=registered)
                job.done(self._forms.read(name, lineage, generation, record))
            except Exception as error:  # noqa: BLE001 (carried to whoever waits)
                job.failed(error)


BACK: LiteralString = "DELETE FROM rotator_struck WHERE name = ANY(%b::text[])"
ENTERED: LiteralString = """
    INSERT INTO rotator_register (name, provider, text, entered_at)
    SELECT i.name, i.provider, i.text, clock_timestamp()
    FROM unnest(%b::text[], %b::text[], %b::text[]) AS i (name, provider, text)
    ON CONFLICT (name) DO UPDATE SET provider = excluded.provider, text = excluded.text,
        entered_at = excluded.entered_at
    RETURNING name, entered_at"""
# Also where it had a record before: it is one of the register from now on. Locked as above.
CLAIMED: LiteralString = """
    WITH there AS (
        SELECT name, provider FROM rotator_register WHERE name = ANY(%b::text[]) ORDER BY name FOR UPDATE
    )
    UPDATE rotator_grants AS g SET provider = r.provider, visit_at = COALESCE(g.due_at, g.visit_at), due_at = NULL
    FROM there AS r WHERE g.name = r.name
        AND (g.provider IS NULL OR g.provider <> r.provider OR g.due_at IS NOT NULL)"""


def enter(entries: Sequence[Entry], forms: Forms) -> list[Statement]:
    """The second of them tells the server's time of each."""
    # In one order for all daemons, so that no two wait for each other; the last of a name counts.
    some = [one for _, one in sorted({one.name: one for one in entries}.items())]
    names = [one.name for one in some]
    sealed = [forms.write_entry(one) for one in some]
    return [(BACK, (names,)), (ENTERED, (names, [one.provider for one in some], sealed)), (CLAIMED, (names,))]


STRUCK: LiteralString = """
    WITH gone AS (DELETE FROM rotator_register WHERE name = %s RETURNING name)
    INSERT INTO rotator_struck (name, struck_at) SELECT name, clock_timestamp() FROM gone
    ON CONFLICT (name) DO UPDATE SET struck_at = excluded.struck_at RETURNING name, struck_at"""
FREED: LiteralString = """
    UPDATE rotator_grants SET provider = NULL, due_at = COALESCE(due_at, visit_at), visit_at = NULL
    WHERE name = %s AND provider IS NOT NULL"""
FORGOTTEN: LiteralString = "DELETE FROM rotator_struck WHERE struck_at < statement_timestamp() - %s::interval"


# Who is entered at this instant changes the row first, and that is seen in the row alone; or finds it gone.
RETIRED: LiteralString = """
    DELETE FROM rotator_grants AS g WHERE g.name = %s AND g.provider IS NULL
        AND NOT EXISTS (SELECT 1 FROM rotator_register AS r WHERE r.name = g.name) RETURNING g.name"""
LEFT: LiteralString = "SELECT name FROM rotator_grants WHERE name = %s"


def retire(name: str) -> list[Statement]:
    """The first of them tells whether it was deleted, the second whether anything is left of it."""
    return [(RETIRED, (name,)), (LEFT, (name,))]


def strike(name: str) -> list[Statement]:
    """The first of them tells whether it was there, and the server's time."""
    return [(STRUCK, (name,)), (FREED, (name,)), (FORGOTTEN, (REMEMBERED,))]

"""The tables, and how they come about: migrations that only go forward and are safe beside older daemons.

Nothing that CockroachDB or YugabyteDB lacks: no extension, no advisory lock, no trigger. Who migrates holds the row
of version 0 in the table of migrations; each step can be run again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString

import psycopg
from psycopg.rows import TupleRow

from rotator.core import lean
from rotator.core.errors import StateDamaged, Unavailable
from rotator.drivers.postgres import failures
from rotator.drivers.postgres.failures import NoState
from rotator.drivers.postgres.link import Link

ROUNDS = 8


@lean.dataclass(frozen=True, slots=True)
class Migration:
    """``oldest`` is the version of a program that still works with the tables after this step: one that only adds
    keeps it. It is raised, a release later, by a step that takes something away."""

    version: int
    oldest: int
    statements: tuple[LiteralString, ...]


MIGRATIONS = (
    Migration(1, 1, (
        # due_at and at in microseconds since the epoch (`records.stamp`); record holds due_at too, the column is for
        # the index. The lease stands in the row: owner is empty where there is none, fence and step only go up.
        # written_at is the server's clock at the last write of the record, by which followers find what is new.
        """CREATE TABLE IF NOT EXISTS rotator_grants (
            name text PRIMARY KEY, lineage text NOT NULL, generation bigint NOT NULL, due_at bigint,
            record text NOT NULL, at bigint NOT NULL, written_at timestamptz NOT NULL,
            owner text NOT NULL DEFAULT '', fence bigint NOT NULL DEFAULT 0, step bigint NOT NULL DEFAULT 0,
            span bigint NOT NULL DEFAULT 0, boot_id text NOT NULL DEFAULT '', until bigint NOT NULL DEFAULT 0)""",
        "CREATE INDEX IF NOT EXISTS rotator_grants_due ON rotator_grants (due_at) WHERE due_at IS NOT NULL",
        "CREATE INDEX IF NOT EXISTS rotator_grants_written ON rotator_grants (written_at)",
        "CREATE INDEX IF NOT EXISTS rotator_grants_leased ON rotator_grants (owner) WHERE owner <> ''",
        # host is empty for places that every machine reaches.
        """CREATE TABLE IF NOT EXISTS rotator_deliveries (
            grant_name text NOT NULL, location text NOT NULL, host text NOT NULL, target text NOT NULL,
            lineage text NOT NULL, generation bigint NOT NULL, expires_at bigint NOT NULL, mark text NOT NULL,
            at bigint NOT NULL, PRIMARY KEY (grant_name, location, host))""",
        # One row. probe is a sealed word: who starts later seals with the same key.
        """CREATE TABLE IF NOT EXISTS rotator_meta (
            id bigint PRIMARY KEY, key bytea NOT NULL, high_water bigint, probe text NOT NULL DEFAULT '')""",
        # Who is at work. beat goes up while it lives.
        """CREATE TABLE IF NOT EXISTS rotator_daemons (
            owner text PRIMARY KEY, beat bigint NOT NULL, seen_at timestamptz NOT NULL)""",
    )),
    Migration(2, 1, (
        # provider is that of a grant of the register, NULL for all others. When one of the register is due stands in
        # visit_at and not in due_at, where an older daemon would take it for a grant that nobody configures any more.
        # granted_at is the server's clock at the last generation; expires_at is there to be counted.
        "ALTER TABLE rotator_grants ADD COLUMN IF NOT EXISTS provider text",
        "ALTER TABLE rotator_grants ADD COLUMN IF NOT EXISTS line bigint NOT NULL DEFAULT 0",
        "ALTER TABLE rotator_grants ADD COLUMN IF NOT EXISTS visit_at bigint",
        "ALTER TABLE rotator_grants ADD COLUMN IF NOT EXISTS expires_at bigint",
        "ALTER TABLE rotator_grants ADD COLUMN IF NOT EXISTS granted_at timestamptz",
        # Grants that are enrolled at run time; text is sealed as records are. entered_at is the server's clock.
        """CREATE TABLE IF NOT EXISTS rotator_register (
            name text PRIMARY KEY, provider text NOT NULL, text text NOT NULL, entered_at timestamptz NOT NULL)""",
        # Who was taken out of it lately, for daemons that have not heard of it yet.
        "CREATE TABLE IF NOT EXISTS rotator_struck (name text PRIMARY KEY, struck_at timestamptz NOT NULL)",
    )),
    # Of columns that an earlier transaction made: not every server makes both in one.
    Migration(3, 1, (
        "CREATE INDEX IF NOT EXISTS rotator_grants_in_line ON rotator_grants (provider, line, visit_at, name) "
        "WHERE visit_at IS NOT NULL",
        "CREATE INDEX IF NOT EXISTS rotator_grants_residents ON rotator_grants (name) WHERE provider IS NULL",
        "CREATE INDEX IF NOT EXISTS rotator_grants_at ON rotator_grants (at)",
        "CREATE INDEX IF NOT EXISTS rotator_deliveries_at ON rotator_deliveries (at)",
        "CREATE INDEX IF NOT EXISTS rotator_deliveries_expired ON rotator_deliveries (expires_at)",
        "CREATE INDEX IF NOT EXISTS rotator_register_entered ON rotator_register (entered_at)",
        "CREATE INDEX IF NOT EXISTS rotator_struck_at ON rotator_struck (struck_at)",
    )),
)  # fmt: skip
VERSION = MIGRATIONS[-1].version

_LEDGER: LiteralString = """CREATE TABLE IF NOT EXISTS rotator_migrations (
    version bigint PRIMARY KEY, oldest bigint NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"""
_FOUND: LiteralString = "SELECT version, oldest FROM rotator_migrations ORDER BY version DESC LIMIT 1"


async def prepare(link: Link, *, read_only: bool, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Make the tables or bring them forward. Raises StateDamaged where a newer program left us behind, Unavailable
    where there are none and we may not write, and what `failures` makes of the rest."""
    for _ in range(ROUNDS):
        connection = await link.connection()
        try:
            found = await _version(connection)
            _admit(found, migrations, link.place)
            if found is not None and found[0] >= migrations[-1].version:
                return
            if read_only:
                if found is not None:
                    # The tables of before: a step that an older daemon bears adds only what it does not ask for.
                    return
                raise NoState(f"there is no state {link.place} yet", mend="start the daemon (`rotator run`)")
            await _migrate(connection, migrations, link.place)
            return
        except psycopg.Error as error:
            if not (failures.is_contended(error) or error.sqlstate in failures.MADE_MEANWHILE):
                await link.drop()
                raise failures.asking(error, link.place) from None
    raise Unavailable(
        f"the tables of the state {link.place} are held or made by others without an end",
        mend="look who holds them (pg_stat_activity, pg_locks): a dump must end before they are brought on",
    )


async def _version(connection: psycopg.AsyncConnection[TupleRow]) -> tuple[int, int] | None:
    try:
        row = await (await connection.execute(_FOUND)).fetchone()
    except psycopg.errors.UndefinedTable:
        return None
    return None if row is None else (row[0], row[1])


def _admit(found: tuple[int, int] | None, migrations: Sequence[Migration], place: str) -> None:
    ours = migrations[-1].version
    if found is not None and found[1] > ours:
        raise StateDamaged(
            f"the state {place} has schema {found[0]}, which needs a rotator that knows {found[1]}; this one knows "
            f"{ours}",
            mend="start the newer rotator; the state is kept as it is",
        )


async def _migrate(connection: psycopg.AsyncConnection[TupleRow], migrations: Sequence[Migration], place: str) -> None:
    await connection.execute(_LEDGER)
    await connection.execute(
        "INSERT INTO rotator_migrations (version, oldest) VALUES (0, 0) ON CONFLICT (version) DO NOTHING"
    )
    for one in migrations:
        async with connection.transaction():
            # Behind a long reader (pg_dump) ALTER TABLE would wait, and every daemon that is at work behind it.
            await connection.execute("SET LOCAL lock_timeout = '1s'")
            # Whoever comes second waits here, and then finds it done.
            await connection.execute("SELECT version FROM rotator_migrations WHERE version = 0 FOR UPDATE")
            found = await _version(connection)
            _admit(found, migrations, place)
            if found is not None and one.version <= found[0]:
                continue
            for statement in one.statements:
                await connection.execute(statement)
            await connection.execute(
                "INSERT INTO rotator_migrations (version, oldest) VALUES (%s, %s) ON CONFLICT (version) DO NOTHING",
                (one.version, one.oldest),
            )

"""The statements. Each function runs inside a transaction that the writer begins and commits."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Sequence
from datetime import datetime

from rotator.core import pressure, records
from rotator.core.errors import StateDamaged, Unavailable
from rotator.core.grants import Grant
from rotator.core.ports import Delivery, Dice
from rotator.core.sealing import Seal
from rotator.drivers.sqlite import register, room

_dense = json.JSONEncoder(separators=(",", ":")).encode
KEY_NAMES = 3  # of at least 96 bits each: more than the 256 that the key keeps


def ensure_key(connection: sqlite3.Connection, dice: Dice) -> None:
    if connection.execute("SELECT key FROM meta").fetchone()[0] is None:
        names = ":".join(dice.name() for _ in range(KEY_NAMES))
        connection.execute("UPDATE meta SET key = ?", (hashlib.sha256(names.encode()).digest(),))


def key(connection: sqlite3.Connection) -> bytes:
    found: bytes | None = connection.execute("SELECT key FROM meta").fetchone()[0]
    if found is None:
        raise Unavailable("the state was reset and not opened since", mend="start the daemon (`rotator run`)")
    return found


def high_water(connection: sqlite3.Connection) -> datetime | None:
    micros: int | None = connection.execute("SELECT high_water FROM meta").fetchone()[0]
    return None if micros is None else records.time(micros)


def raise_high_water(connection: sqlite3.Connection, now: datetime) -> None:
    """Once for a whole batch, by the writer."""
    micros = records.stamp(now)
    connection.execute("UPDATE meta SET high_water = ?1 WHERE high_water IS NULL OR high_water < ?1", (micros,))


def enrol(connection: sqlite3.Connection, grant: Grant, seal: Seal) -> Grant:
    found = read(connection, grant.name, seal)
    if found is not None:
        return found
    tombstone_at: int | None = connection.execute("SELECT tombstone_at FROM meta").fetchone()[0]
    grant = records.charge(grant, None if tombstone_at is None else records.time(tombstone_at))
    connection.execute(INSERT, (*_columns(grant, seal), grant.name))
    return grant


def save(connection: sqlite3.Connection, grant: Grant, expected: int, seal: Seal) -> None:
    """The compare-and-set; whether the lease allows it was judged before. One statement, but for the rare rest."""
    columns = _columns(grant, seal)
    same = (*columns, grant.name, expected, grant.lineage)
    if connection.execute(f"{UPDATE} AND generation = ? AND lineage = ?", same).rowcount == 1:
        return
    found = connection.execute("SELECT lineage, generation FROM grants WHERE name = ?", (grant.name,)).fetchone()
    records.admit(found, grant, expected)
    connection.execute(UPDATE, (*columns, grant.name))


UPDATE = """UPDATE grants SET lineage = ?, generation = ?, due_at = ?, record = ?, padding = ?, expires_at = ?, line = ?
    WHERE name = ?"""
# What is entered in the register before it is enrolled is known by its provider from the beginning.
INSERT = """INSERT INTO grants (lineage, generation, due_at, record, padding, expires_at, line, name, provider)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?8, (SELECT provider FROM register WHERE register.name = ?8))"""


def _columns(grant: Grant, seal: Seal) -> tuple[object, ...]:
    record = seal.close(_dense(records.write(grant)), _about(grant.name, grant.lineage, grant.generation))
    return (
        grant.lineage, grant.generation, _stamp(grant.due_at), record,
        bytes(room.padding(record)) if grant.intent else None,
        None if grant.access is None else _stamp(grant.access.expires_at), pressure.line(grant).value,
    )  # fmt: skip


def _stamp(at: datetime | None) -> int | None:
    return None if at is None else records.stamp(at)


def read(connection: sqlite3.Connection, name: str, seal: Seal) -> Grant | None:
    row = connection.execute(f"{RECORDS} WHERE name = ?", (name,)).fetchone()
    return None if row is None else _grant(row, seal)


def read_all(connection: sqlite3.Connection, seal: Seal) -> list[Grant]:
    return [_grant(row, seal) for row in connection.execute(f"{RECORDS} ORDER BY name")]


def sealed(connection: sqlite3.Connection) -> list[str]:
    """One record for each key that sealed any, the one that was used last behind the others."""
    rows = connection.execute(
        """SELECT record, max(at) FROM (
            SELECT record, coalesce(due_at, 0) AS at FROM grants UNION ALL SELECT text, -1 FROM register)
        WHERE record LIKE '{"sealed":%'
        GROUP BY json_extract(record, '$.key'), json_extract(record, '$.wrapped') ORDER BY 2"""
    )
    return [record for record, _ in rows]


def seal_anew(connection: sqlite3.Connection, seal: Seal) -> int:
    """Write every record under the seal as it is now; how many. Nothing else of them changes."""
    grants = connection.execute(RECORDS).fetchall()
    for name, lineage, generation, record in grants:
        about = _about(name, lineage, generation)
        sealed = seal.close(seal.open(record, about), about)
        connection.execute("UPDATE grants SET record = ? WHERE name = ?", (sealed, name))
    return len(grants) + register.seal_anew(connection, seal)


RECORDS = "SELECT name, lineage, generation, record FROM grants"


def _about(name: str, lineage: str, generation: int) -> str:
    """What a sealed record is bound to: it opens in no other place."""
    return json.dumps([name, lineage, generation])


def _grant(row: tuple[str, str, int, str], seal: Seal) -> Grant:
    name, lineage, generation, record = row
    text = seal.open(record, _about(name, lineage, generation))
    try:
        return records.read(json.loads(text))
    except ValueError:
        raise StateDamaged("a stored grant is not JSON", mend="run `rotator state reset`") from None


DUE = "SELECT name FROM grants WHERE provider IS NULL AND due_at <= ? ORDER BY due_at, name LIMIT ?"
NEXT_DUE = "SELECT min(due_at) FROM grants WHERE provider IS NULL AND due_at > ?"


def due(connection: sqlite3.Connection, now: datetime, limit: int) -> list[str]:
    return [row[0] for row in connection.execute(DUE, (records.stamp(now), limit))]


def next_due(connection: sqlite3.Connection, after: datetime) -> datetime | None:
    micros: int | None = connection.execute(NEXT_DUE, (records.stamp(after),)).fetchone()[0]
    return None if micros is None else records.time(micros)


RETIRED = "DELETE FROM grants WHERE name = ?1 AND NOT EXISTS (SELECT 1 FROM register WHERE register.name = ?1)"


def retire(connection: sqlite3.Connection, name: str) -> bool:
    return connection.execute(RETIRED, (name,)).rowcount > 0


def delivered(connection: sqlite3.Connection, delivery: Delivery) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO deliveries VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            delivery.grant, delivery.location, delivery.target, delivery.lineage, delivery.generation,
            records.stamp(delivery.expires_at), delivery.mark,
        ),
    )  # fmt: skip


DELIVERIES = "SELECT grant_name, target, location, lineage, generation, expires_at, mark FROM deliveries"


EXPIRED = "WHERE expires_at <= ? ORDER BY expires_at, grant_name, location LIMIT ?"
NEXT_EXPIRY = "SELECT min(expires_at) FROM deliveries WHERE expires_at > ?"


def deliveries(connection: sqlite3.Connection, grant: str | None) -> Sequence[Delivery]:
    return _deliveries(
        connection.execute(f"{DELIVERIES} WHERE ?1 IS NULL OR grant_name = ?1 ORDER BY grant_name, location", (grant,))
    )


def expired(connection: sqlite3.Connection, now: datetime, limit: int) -> Sequence[Delivery]:
    return _deliveries(connection.execute(f"{DELIVERIES} {EXPIRED}", (records.stamp(now), limit)))


def next_expiry(connection: sqlite3.Connection, after: datetime) -> datetime | None:
    micros: int | None = connection.execute(NEXT_EXPIRY, (records.stamp(after),)).fetchone()[0]
    return None if micros is None else records.time(micros)


def _deliveries(rows: Iterable[tuple[str, str, str, str, int, int, str]]) -> Sequence[Delivery]:
    return [
        Delivery(name, target, location, lineage, generation, records.time(expires_at), mark)
        for name, target, location, lineage, generation, expires_at, mark in rows
    ]


def forget(connection: sqlite3.Connection, grant: str, location: str) -> None:
    connection.execute("DELETE FROM deliveries WHERE grant_name = ? AND location = ?", (grant, location))

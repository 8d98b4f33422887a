"""Every record and every entry under another seal: all or none, and not all in memory."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, LiteralString

import psycopg
from psycopg.rows import TupleRow

from rotator.core.errors import Overtaken
from rotator.core.sealing import Seal
from rotator.drivers.postgres import failures, forms
from rotator.drivers.postgres.link import Link
from rotator.drivers.postgres.wire import Statement

PAGE = 1000
Connection = psycopg.AsyncConnection[TupleRow]

RECORDS: LiteralString = """
    SELECT name, record, lineage, generation FROM rotator_grants WHERE name > %s ORDER BY name LIMIT %s"""
RECORDED: LiteralString = """
    UPDATE rotator_grants AS g SET record = i.sealed FROM unnest(%b::text[], %b::text[], %b::text[])
        AS i (name, before, sealed) WHERE g.name = i.name AND g.record = i.before"""
ENTRIES: LiteralString = "SELECT name, text FROM rotator_register WHERE name > %s ORDER BY name LIMIT %s"
ENTERED: LiteralString = """
    UPDATE rotator_register AS g SET text = i.sealed FROM unnest(%b::text[], %b::text[], %b::text[])
        AS i (name, before, sealed) WHERE g.name = i.name AND g.text = i.before"""


async def seal(link: Link, seal: Seal, probe: Statement) -> int:
    """Write them under ``seal`` as it is now, and with them ``probe``, a statement whose parameter is sealed too; how
    many. Raises Overtaken where somebody wrote meanwhile, and what `failures` makes of the rest."""
    connection = await link.connection()
    try:
        async with connection.transaction():
            await seal.prepare(await _of_each_key(connection), anew=True)
            count = 0
            for read, write in ((RECORDS, RECORDED), (ENTRIES, ENTERED)):
                async for rows in _pages(connection, read):
                    count += await _write(connection, write, rows, seal)
            sql, (plain,) = probe
            await connection.execute(sql, (seal.close(plain, "probe"),))
            return count
    except psycopg.Error as error:
        await link.drop()
        raise failures.asking(error, link.place) from None


async def _write(connection: Connection, sql: LiteralString, rows: list[TupleRow], seal: Seal) -> int:
    names, before = [row[0] for row in rows], [row[1] for row in rows]
    about = [forms.about(row[0], *row[2:]) if row[2:] else forms.about_entry(row[0]) for row in rows]
    sealed = [seal.close(seal.open(text, what), what) for text, what in zip(before, about, strict=True)]
    done = await connection.execute(sql, (names, before, sealed))
    if done.rowcount != len(rows):
        raise Overtaken("a daemon wrote to the state meanwhile", mend="stop every daemon, then run it again")
    return len(rows)


async def _of_each_key(connection: Connection) -> list[str]:
    """One of those that each key sealed: no more is needed to fetch it, or to find that it is not at hand."""
    found: dict[Any, str] = {}
    for sql in (ENTRIES, RECORDS):
        async for rows in _pages(connection, sql):
            found |= {_key(row[1]): row[1] for row in rows}
    return list(found.values())


def _key(text: str) -> tuple[str, str] | None:
    if not text.startswith('{"sealed":'):
        return None
    try:
        told = json.loads(text)
        return str(told.get("key")), str(told.get("wrapped"))
    except ValueError:
        # Whoever opens it says what is wrong with it.
        return None


async def _pages(connection: Connection, sql: LiteralString) -> AsyncIterator[list[TupleRow]]:
    after = ""
    while rows := await (await connection.execute(sql, (after, PAGE))).fetchall():
        yield rows
        after = rows[-1][0]

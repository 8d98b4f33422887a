"""One round trip over libpq's pipeline: what is sent and what comes back, also where that does not go smoothly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress

import psycopg
import pytest
from psycopg.rows import TupleRow

from rotator.drivers.postgres.wire import Wire
from tests.peers.postgres import Postgres

BIG = 20_000_000


@asynccontextmanager
async def connected(server: Postgres) -> AsyncIterator[tuple[Wire, psycopg.AsyncConnection[TupleRow]]]:
    connection = await psycopg.AsyncConnection.connect(server.url(server.database()), autocommit=True)
    async with connection:
        yield Wire(connection), connection


def tell(story: Callable[[], Coroutine[object, object, None]]) -> None:
    asyncio.run(story())


def test_each_statement_gets_its_rows_in_the_order_of_asking(database_server: Postgres) -> None:
    async def story() -> None:
        async with connected(database_server) as (wire, _):
            for _ in range(2):
                rows = await wire.ask([
                    ("SELECT %s::text, %s::bigint, %s::bytea", ("100% ünï", 7, b"\0")),
                    ("CREATE TABLE IF NOT EXISTS told (name text, count bigint)", ()),
                    ("INSERT INTO told SELECT * FROM unnest(%b::text[], %b::bigint[]) AS i (name, count)",
                     (["a", "b"], [1, None])),
                    ("SELECT name, count FROM told ORDER BY name", ()),
                    ("DELETE FROM told", ()),
                ])  # fmt: skip
                assert rows == [[("100% ünï", 7, b"\0")], [], [], [("a", 1), ("b", None)], []]
            assert await wire.ask([]) == []

    tell(story)


def test_what_is_larger_than_any_buffer_goes_out_and_comes_back(database_server: Postgres) -> None:
    async def story() -> None:
        async with connected(database_server) as (wire, _):
            sent = "x" * BIG
            # The first answer is on its way while the rest of the question still is.
            (echo,), (length,) = await wire.ask([("SELECT %s::text", (sent,)), ("SELECT length(%s)", (sent,))])
            assert (echo[0] == sent, length[0]) == (True, BIG)

    tell(story)


def test_one_that_fails_undoes_all_and_leaves_the_connection_as_it_was(database_server: Postgres) -> None:
    async def story() -> None:
        async with connected(database_server) as (wire, connection):
            await wire.ask([("CREATE TABLE told (name text PRIMARY KEY DEFERRABLE INITIALLY DEFERRED)", ())])
            put = "INSERT INTO told VALUES (%s)"
            with pytest.raises(psycopg.errors.DivisionByZero):
                await wire.ask([(put, ("a",)), ("SELECT 1 / 0", ()), ("SELECT 1", ())])
            with pytest.raises(psycopg.errors.UniqueViolation):
                # Seen by the commit, after every statement has had its answer.
                await wire.ask([(put, ("a",)), (put, ("a",))])
            with pytest.raises(psycopg.Error):
                # No text of PostgreSQL's: it is never sent.
                await wire.ask([(put, ("b",)), (put, ("\0",))])
            assert not wire.is_midway
            assert await wire.ask([("SELECT count(*) FROM told", ())]) == [[(0,)]]
            # For what is more than one round trip it is psycopg's own.
            assert await (await connection.execute("SELECT 1")).fetchall() == [(1,)]

    tell(story)


def test_a_connection_that_is_lost_midway_is_told_and_its_socket_let_go(database_server: Postgres) -> None:
    async def story() -> None:
        async with connected(database_server) as (wire, connection):
            (((pid,),),) = await wire.ask([("SELECT pg_backend_pid()", ())])
            asked = asyncio.create_task(wire.ask([("SELECT pg_sleep(60)", ())]))
            with psycopg.connect(database_server.url("postgres"), autocommit=True) as eye:
                active = "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND query LIKE '%%sleep%%' AND state = 'active'"
                while not eye.execute(active, (pid,)).fetchall():
                    await asyncio.sleep(0)
                eye.execute("SELECT pg_terminate_backend(%s)", (pid,))
            with pytest.raises(psycopg.OperationalError):
                await asked
            assert connection.closed

    tell(story)


def test_who_is_cancelled_leaves_half_a_conversation_and_it_shows(database_server: Postgres) -> None:
    async def story() -> None:
        async with connected(database_server) as (wire, connection):
            asked = asyncio.create_task(wire.ask([("SELECT pg_sleep(60)", ())]))
            while not wire.is_midway:
                await asyncio.sleep(0)
            asked.cancel()
            with suppress(asyncio.CancelledError):
                await asked
            assert asked.cancelled() and wire.is_midway
            await connection.close()

    tell(story)

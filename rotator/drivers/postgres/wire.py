"""Statements out and rows back, in one round trip, over libpq's own pipeline. A cursor of psycopg's for each statement,
and its waits, took more processor time than everything else that a daemon does to look what others saved."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, LiteralString

import psycopg
from psycopg import errors, pq
from psycopg.adapt import PyFormat, Transformer
from psycopg.rows import TupleRow

Statement = tuple[LiteralString, Sequence[Any]]
Rows = list[TupleRow]

_PARAMETER = re.compile(r"%(.)")
_FORMATS = {"s": PyFormat.AUTO, "b": PyFormat.BINARY}


class Wire:
    """One connection. One caller at a time; while nobody asks, the connection is psycopg's as ever."""

    def __init__(self, connection: psycopg.AsyncConnection[TupleRow]) -> None:
        self._pgconn = connection.pgconn
        self._encoding = connection.info.encoding
        # It keeps what it found out about a type of Python's or of the server's.
        self._transformer = Transformer(connection)

    async def ask(self, statements: Sequence[Statement]) -> list[Rows]:
        """All in one transaction: what each gave. Raises psycopg.Error for the first that failed. Whoever is cancelled,
        or gets an error of a lost connection, ends it: half of a conversation is still to come."""
        pgconn = self._pgconn
        # All that can be wrong with a value shows before anything is sent.
        sent = [self._dumped(*statement) for statement in statements]
        pgconn.enter_pipeline_mode()
        for one in sent:
            pgconn.send_query_params(*one)
        # Without BEGIN all statements up to the Sync are one transaction (PostgreSQL manual, 55.2.4).
        pgconn.pipeline_sync()
        found = await _Conversation(pgconn).held()
        pgconn.exit_pipeline_mode()
        for result in found:
            if result.status == pq.ExecStatus.FATAL_ERROR:
                raise errors.error_from_result(result, self._encoding)
        return [self._rows(result) for result in found]

    @property
    def is_midway(self) -> bool:
        """Whether a conversation was broken off."""
        return self._pgconn.pipeline_status != pq.PipelineStatus.OFF

    def _dumped(self, sql: LiteralString, parameters: Sequence[Any]) -> tuple[bytes, Any, Any, Any]:
        text, formats = _translated(sql, self._encoding)
        values = self._transformer.dump_sequence(parameters, formats)
        return text, values, self._transformer.types, self._transformer.formats

    def _rows(self, result: pq.abc.PGresult) -> Rows:
        if result.status != pq.ExecStatus.TUPLES_OK:
            return []
        self._transformer.set_pgresult(result)
        return self._transformer.load_rows(0, result.ntuples, tuple)


class _Conversation:
    """What was sent goes out, and what comes back is gathered up to the Sync, in as few turns of the loop as that
    takes."""

    def __init__(self, pgconn: pq.abc.PGconn) -> None:
        self._pgconn = pgconn
        # libpq closes the socket of a connection that is lost; by then we must have let go of it.
        self._socket = pgconn.socket
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[list[pq.abc.PGresult]] = self._loop.create_future()
        self._found: list[pq.abc.PGresult] = []

    async def held(self) -> list[pq.abc.PGresult]:
        """All results. Raises psycopg.OperationalError where the connection is lost."""
        try:
            if self._pgconn.flush():
                self._loop.add_writer(self._socket, self._write)
            # What libpq read while it could not write makes no socket ready.
            self._gather()
            if not self._over.done():
                self._loop.add_reader(self._socket, self._read)
            return await self._over
        finally:
            self._let_go()

    def _let_go(self) -> None:
        # Once, and at once: a closed socket's number is soon another's.
        if self._socket >= 0:
            self._loop.remove_reader(self._socket)
            self._loop.remove_writer(self._socket)
            self._socket = -1

    def _write(self) -> None:
        try:
            if not self._pgconn.flush():
                self._loop.remove_writer(self._socket)
            self._gather()
        except psycopg.Error as error:
            self._fail(error)

    def _read(self) -> None:
        try:
            self._pgconn.consume_input()
            self._gather()
        except psycopg.Error as error:
            self._fail(error)

    def _gather(self) -> None:
        pgconn, ended = self._pgconn, False
        while not pgconn.is_busy():
            result = pgconn.get_result()
            if result is None:
                # The end of one statement's; a second one is the end of all.
                if ended:
                    raise psycopg.OperationalError(pgconn.get_error_message(), encoding="utf-8")
                ended = True
            elif result.status == pq.ExecStatus.PIPELINE_SYNC:
                self._let_go()
                if not self._over.done():
                    self._over.set_result(self._found)
                return
            else:
                ended = False
                self._found.append(result)

    def _fail(self, error: psycopg.Error) -> None:
        self._let_go()
        if self._over.done():
            return
        # The server's last words, where it had any.
        fatal = next((one for one in self._found if one.status == pq.ExecStatus.FATAL_ERROR), None)
        self._over.set_exception(error if fatal is None else errors.error_from_result(fatal))


@lru_cache(256)
def _translated(sql: LiteralString, encoding: str) -> tuple[bytes, list[PyFormat]]:
    """As PostgreSQL numbers parameters, and how each of them goes: %s as it comes, %b in binary form."""
    formats = [_FORMATS[letter] for letter in _PARAMETER.findall(sql)]
    parts = _PARAMETER.sub("\0", sql).split("\0")
    text = "".join(f"{part}${number}" for number, part in enumerate(parts[:-1], 1)) + parts[-1]
    return text.encode(encoding), formats

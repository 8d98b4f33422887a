"""The one thread that owns the connection: jobs in, group commits out.

When it is idle it takes everything that waits, runs it in one transaction, commits durably, and only then answers;
no timer holds a commit back. While one commit syncs, the next batch gathers: a herd shares its fsyncs, a single
rotation waits for nobody.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from rotator.core.errors import RotatorError, Unavailable
from rotator.drivers.sqlite import room, rows, schema

T = TypeVar("T")

OUT_OF_ROOM = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)  # a spent quota (EDQUOT) is told as an I/O error


# Answers given in one turn of the loop: each sets somebody going, and a herd must not stop the loop for long.
AT_ONCE = 32


class Kind(Enum):
    """What a job is to the room on the disk. An INTENT proves that its answer will find room, so it never takes from
    the reserve and is refused while the reserve is not whole; any other WRITE may use it up."""

    READ = auto()
    INTENT = auto()
    WRITE = auto()


@dataclass(slots=True)
class _Job:
    """One piece of work and who waits for it. A result counts only once the batch is committed. ``at`` is the wall time
    of a write, for the high-water mark."""

    work: Callable[[sqlite3.Connection], Any]
    kind: Kind
    waiter: asyncio.Future[Any]
    at: datetime | None = None
    result: Any = None
    error: Exception | None = None

    def answer(self) -> None:
        # Whoever waited may have been cancelled: the work is done all the same.
        if self.waiter.done():
            return
        if self.error is not None:
            self.waiter.set_exception(self.error)
        else:
            self.waiter.set_result(self.result)


class Writer:
    """Runs jobs on a thread of its own, in the order in which they were handed in, reads after the writes of their
    batch: nobody reads what is not durable.

    ``opening`` makes the connection, ``closing`` is called after it was closed, ``translated`` puts SQLite's errors
    in our words; all three on the thread.
    """

    def __init__(
        self,
        opening: Callable[[], sqlite3.Connection],
        closing: Callable[[], None],
        translated: Callable[[sqlite3.Error], RotatorError],
        reserve: room.Reserve,
    ) -> None:
        self._opening = opening
        self._closing = closing
        self._translated = translated
        self._reserve = reserve
        self._jobs: SimpleQueue[list[_Job] | None] = SimpleQueue()
        self._gathered: list[_Job] = []
        self._answers: deque[_Job] = deque()
        self._loop = asyncio.get_running_loop()
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._stopping = False
        # A daemon thread: a process that ends without `stop` must not hang, and what was not answered may be lost.
        self._thread = threading.Thread(target=self._run, name="rotator state", daemon=True)

    async def start(self) -> None:
        """Raises what ``opening`` raised."""
        self._thread.start()
        await asyncio.shield(self._opened)

    def submit(
        self, work: Callable[[sqlite3.Connection], T], kind: Kind, at: datetime | None = None
    ) -> asyncio.Future[T]:
        """Hand in a job. Cancelling the future takes nothing back."""
        waiter: asyncio.Future[T] = self._loop.create_future()
        if self._stopping:
            waiter.set_exception(Unavailable("the state is closed"))
        else:
            if not self._gathered:
                # With this turn of the loop whatever else is handed in during it: a thread that is woken for the first
                # of them takes the interpreter away from those who hand in the others.
                self._loop.call_soon(self._hand_over)
            self._gathered.append(_Job(work, kind, waiter, at))
        return waiter

    def _hand_over(self) -> None:
        if self._gathered:
            self._jobs.put(self._gathered)
            self._gathered = []

    def _answer(self, batch: list[_Job]) -> None:
        """In the order of the jobs: no batch overtakes what is left of the one before."""
        is_at_it = bool(self._answers)
        self._answers.extend(batch)
        if not is_at_it:
            self._answer_some()

    def _answer_some(self) -> None:
        for _ in range(min(len(self._answers), AT_ONCE)):
            self._answers.popleft().answer()
        if self._answers:
            self._loop.call_soon(self._answer_some)

    async def stop(self) -> None:
        """Wait until everything handed in is done and the connection is closed. Idempotent."""
        if not self._stopping:
            self._stopping = True
            self._hand_over()
            self._jobs.put(None)
        # Cancelled while waiting, the thread still ends in its own time.
        await asyncio.shield(self._ended)
        self._thread.join()

    # --- on the thread ------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            try:
                connection = self._opening()
            except Exception as error:  # noqa: BLE001 (carried to whoever opens)
                self._tell(_fail, self._opened, error)
                return
            self._tell(_fulfil, self._opened)
            try:
                self._serve(connection)
            finally:
                connection.close()
        finally:
            self._closing()
            self._tell(_fulfil, self._ended)

    def _serve(self, connection: sqlite3.Connection) -> None:
        running = True
        while running:
            waiting = [self._jobs.get()]
            with suppress(Empty):
                while True:
                    waiting.append(self._jobs.get_nowait())
            running = None not in waiting
            batch = [job for jobs in waiting if jobs is not None for job in jobs]
            writes = [job for job in batch if job.kind is not Kind.READ]
            if writes:
                self._commit(connection, writes)
            for job in batch:
                if job.kind is Kind.READ:
                    self._read(connection, job)
            self._tell(self._answer, batch)
            if writes:
                # Nobody waits for this: answered first. Nearly always there is nothing to do.
                self._reserve.keep()

    def _commit(self, connection: sqlite3.Connection, jobs: list[_Job]) -> None:
        """All in one transaction; where that fails, once more, each on its own, so that what fits lands."""
        allowed = [job for job in jobs if job.kind is not Kind.INTENT or self._has_reserve(connection, job)]
        if not allowed:
            return
        try:
            _transact(connection, allowed)
        except sqlite3.Error as error:
            _roll_back(connection)
            full = _is_for_room(error)
            for job in allowed:
                self._commit_alone(connection, job, full)

    def _has_reserve(self, connection: sqlite3.Connection, job: _Job) -> bool:
        if not self._reserve.keep(sparing=False):
            # The log may have grown over what the reserve had.
            _checkpoint(connection, "TRUNCATE")
            if not self._reserve.keep(sparing=False):
                job.error = Unavailable(
                    "the file system of the state is too full to keep the provider's answer",
                    mend=f"make room there; at least {room.RESERVE_SIZE // 1024} KiB are needed",
                )
                return False
        return True

    def _commit_alone(self, connection: sqlite3.Connection, job: _Job, full: bool) -> None:
        if full:
            # The next commit then overwrites the log instead of growing it.
            _checkpoint(connection, "PASSIVE")
        if job.kind is Kind.INTENT and not self._has_reserve(connection, job):
            return
        error = _attempt(connection, job)
        if error is not None and _is_for_room(error) and job.kind is not Kind.INTENT:
            self._reserve.give_up()
            _checkpoint(connection, "PASSIVE")
            error = _attempt(connection, job)
        if error is not None:
            job.error = self._translated(error)

    def _read(self, connection: sqlite3.Connection, job: _Job) -> None:
        try:
            job.result = job.work(connection)
        except sqlite3.Error as error:
            job.error = self._translated(error)
        except Exception as error:  # noqa: BLE001 (carried to whoever waits)
            job.error = error

    def _tell(self, what: Callable[..., None], *arguments: Any) -> None:
        # One hop for a whole batch. A loop that is closed already has nobody who waits.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(what, *arguments)


def _transact(connection: sqlite3.Connection, jobs: list[_Job], *, apart: bool = False) -> None:
    """Who was overtaken undoes only his own: nearly always he has changed nothing yet, else all are run once more, each
    ``apart`` in a savepoint. Raises sqlite3.Error for the whole."""
    connection.execute("BEGIN IMMEDIATE")
    latest: datetime | None = None
    for job in jobs:
        job.error, before = None, connection.total_changes
        if apart:
            connection.execute("SAVEPOINT job")
        try:
            job.result = job.work(connection)
        except sqlite3.Error:
            raise
        except Exception as error:  # noqa: BLE001 (carried to whoever waits)
            job.error = error
            if apart:
                connection.execute("ROLLBACK TO job")
            elif connection.total_changes != before:
                connection.execute("ROLLBACK")
                _transact(connection, jobs, apart=True)
                return
        else:
            if job.at is not None and (latest is None or job.at > latest):
                latest = job.at
        if apart:
            connection.execute("RELEASE job")
    if latest is not None:
        rows.raise_high_water(connection, latest)
    connection.execute("COMMIT")


def _attempt(connection: sqlite3.Connection, job: _Job) -> sqlite3.Error | None:
    try:
        _transact(connection, [job])
    except sqlite3.Error as error:
        _roll_back(connection)
        return error
    return None


def _checkpoint(connection: sqlite3.Connection, mode: str) -> None:
    # Where it cannot be done, the commit that follows will tell.
    with suppress(sqlite3.Error):
        connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchall()


def _is_for_room(error: sqlite3.Error) -> bool:
    return schema.code(error) in OUT_OF_ROOM


def _roll_back(connection: sqlite3.Connection) -> None:
    # Some errors have rolled back already (sqlite.org/lang_transaction.html, "Response To Errors").
    with suppress(sqlite3.Error):
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _fulfil(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _fail(future: asyncio.Future[None], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)

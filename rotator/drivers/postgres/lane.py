"""Everything that waits goes to the server together: one round trip, one transaction, one commit.

There is no pool: whoever comes while a batch is on its way is in the next one, so a single connection never keeps
anybody waiting for longer than a round trip, and a herd shares its commits. (A pool would part the batches and cost the
server a process for each part.) A lone write waits for nobody, no timer holds it back.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import psycopg

from rotator.core.errors import Overtaken, RotatorError, Unavailable
from rotator.drivers.postgres import failures
from rotator.drivers.postgres.link import Link
from rotator.drivers.postgres.wire import Rows, Statement

# A connection that breaks under a batch is made anew and the batch sent again; rivals at the same rows likewise.
TRIES = 5
# How often a job may be asked again in the light of what it heard (a lease that ran out).
ROUNDS = 4
BATCH = 500


class Kind(Protocol):
    """How jobs of one sort are asked together. What `hear` leaves open is asked once more, by the job's ``kind``."""

    def ask(self, jobs: Sequence[Job]) -> list[Statement]: ...

    def hear(self, jobs: Sequence[Job], answers: Sequence[Rows]) -> None: ...


@dataclass(slots=True, eq=False)
class Job:
    """One piece of work and who waits for it. ``name`` is the grant it is about: jobs of one grant keep their order.

    ``again``: it was sent before and its answer was lost, so that what it finds may be its own doing."""

    kind: Kind
    name: str
    order: Any = field(repr=False)
    waiter: asyncio.Future[Any] = field(repr=False)
    again: bool = False
    is_open: bool = True
    result: Any = field(default=None, repr=False)
    error: Exception | None = None

    def done(self, result: Any = None) -> None:
        self.is_open, self.result = False, result

    def failed(self, error: Exception) -> None:
        self.is_open, self.error = False, error

    def answer(self) -> None:
        # Whoever waited may have been cancelled: the work is done all the same.
        if self.waiter.done():
            return
        if self.error is not None:
            self.waiter.set_exception(self.error)
        else:
            self.waiter.set_result(self.result)


class Lane:
    """Runs jobs over one link, in the order in which they were handed in. All calls come from one event loop."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._waiting: deque[Job] = deque()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        # Once it has: a refusal is about now then.
        self.served = False

    def submit(self, kind: Kind, name: str, order: Any = None) -> asyncio.Future[Any]:
        """Hand in a job. Cancelling the future takes nothing back."""
        waiter: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self._stopping:
            waiter.set_exception(Unavailable(f"the state {self._link.place} is closed"))
            return waiter
        self._waiting.append(Job(kind, name, order, waiter))
        if self._task is None or self._task.done():
            # What is handed in by this turn of the loop goes along.
            self._task = asyncio.create_task(self._serve(), name="rotator state")
        return waiter

    def names(self) -> set[str]:
        """The grants about which something is on its way or waits for it."""
        return {job.name for job in self._waiting} | self._under_way

    async def stop(self) -> None:
        """Wait until everything handed in is done, and end the connection. Idempotent."""
        self._stopping = True
        while self._task is not None and not self._task.done():
            await asyncio.wait([self._task])
        await self._link.drop()

    _under_way: frozenset[str] = frozenset()

    async def _serve(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH))]
            self._under_way = frozenset(job.name for job in batch)
            try:
                await self._run(batch)
            except BaseException as error:
                reason = error if isinstance(error, Exception) else Unavailable("the state is closed")
                for job in batch:
                    if job.is_open:
                        job.failed(reason)
                if not isinstance(error, Exception):
                    raise
            finally:
                self._under_way = frozenset()
                for job in batch:
                    job.answer()

    async def _run(self, batch: Sequence[Job]) -> None:
        """Until every job is done or failed."""
        for _ in range(ROUNDS):
            open_jobs = [job for job in batch if job.is_open]
            if not open_jobs:
                return
            await self._try(open_jobs)
        for job in batch:
            if job.is_open:
                job.failed(Overtaken(f"{job.name} is written by others without a pause"))

    async def _try(self, jobs: Sequence[Job]) -> None:
        error: RotatorError | None = None
        for _ in range(TRIES):
            groups = list(_groups(jobs))
            asked = [(kind, together, kind.ask(together)) for kind, together in groups]
            statements = [statement for *_, some in asked for statement in some]
            try:
                answers = await self._link.ask(statements)
            except RotatorError as refusal:
                error = error or self._told(refusal)
                break
            except psycopg.Error as failure:
                error = self._told(failures.asking(failure, self._link.place))
                for job in jobs:
                    job.again = True
                if self._link.is_lost(failure) or failures.is_contended(failure):
                    continue
                if len(jobs) == 1:
                    break
                # One of them is to blame, and the others are not to suffer for it.
                for job in jobs:
                    await self._try([job])
                return
            first = 0
            for kind, together, some in asked:
                kind.hear(together, answers[first : first + len(some)])
                first += len(some)
            return
        for job in jobs:
            job.failed(error or Unavailable(f"the state {self._link.place} cannot be reached"))

    def _told(self, error: RotatorError) -> RotatorError:
        return failures.of_the_store(error) if self.served else error


def _groups(jobs: Iterable[Job]) -> Iterable[tuple[Kind, list[Job]]]:
    """Jobs that are asked together: of one kind, and no two of one grant, whose order is kept."""
    waves: list[dict[int, tuple[Kind, list[Job]]]] = []
    reached: dict[str, int] = {}
    for job in jobs:
        wave = reached.get(job.name, -1) + 1 if job.name else 0
        if job.name:
            reached[job.name] = wave
        if wave == len(waves):
            waves.append({})
        waves[wave].setdefault(id(job.kind), (job.kind, []))[1].append(job)
    for one in waves:
        yield from one.values()

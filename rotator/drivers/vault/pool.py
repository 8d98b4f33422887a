"""A bounded pool of worker threads, each with one thing of its own that no other thread touches."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Own = TypeVar("Own")


class Pool(Generic[Own]):
    """Runs jobs on at most ``size`` threads; ``make`` gives a thread its own thing, ``end`` takes it away.

    Not concurrent.futures' pool: Python joins the threads of that one at exit, and a server that drips one byte now
    and then would keep the process from ending for as long as it likes. These are daemon threads.
    """

    def __init__(self, size: int, name: str, make: Callable[[], Own], end: Callable[[Own], None]) -> None:
        self._size = size
        self._name = name
        self._make = make
        self._end = end
        self._jobs: queue.SimpleQueue[tuple[Callable[[Own], Any], Future[Any]] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._ended: list[Future[None]] = []
        self._idle = 0
        self._closed = False

    def start(self, job: Callable[[Own], T]) -> Future[T]:
        """Queue a job. Its future can be cancelled until a thread has taken it; once closed it is cancelled at once."""
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                future.cancel()
                return future
            self._jobs.put((job, future))
            if self._idle:
                self._idle -= 1
            elif len(self._ended) < self._size:
                ended: Future[None] = Future()
                self._ended.append(ended)
                name = f"{self._name}-{len(self._ended)}"
                threading.Thread(target=self._work, args=(ended,), name=name, daemon=True).start()
        return future

    def close(self) -> list[Future[None]]:
        """Take no more jobs and let the threads end once the queue is empty; a future for each. Idempotent."""
        with self._lock:
            if not self._closed:
                self._closed = True
                for _ in self._ended:
                    self._jobs.put(None)
            return list(self._ended)

    def _work(self, ended: Future[None]) -> None:
        own: Own | None = None
        while (task := self._jobs.get()) is not None:
            own = self._run(own, *task)
            # While this thread waits it keeps nothing: a job's closure may hold a token.
            del task
        if own is not None:
            self._end(own)
        ended.set_result(None)

    def _run(self, own: Own | None, job: Callable[[Own], T], future: Future[T]) -> Own | None:
        if not future.set_running_or_notify_cancel():
            self._rest()
            return own
        try:
            own = self._make() if own is None else own
            result = job(own)
        except BaseException as error:  # noqa: BLE001 (it belongs to whoever waits for the future)
            self._rest()
            future.set_exception(error)
        else:
            self._rest()
            future.set_result(result)
        return own

    def _rest(self) -> None:
        # Before the result is told: who starts his next job at once finds this thread, and its open connection.
        with self._lock:
            self._idle += 1

"""A fleet shared among the cores: one world a process, told side by side and added up."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from datetime import timedelta
from functools import partial
from multiprocessing import get_context
from typing import Any, TypeAlias

from rotator.core.errors import Transient
from rotator.lab import report
from rotator.lab.fleet import month, scenario
from rotator.lab.fleet.scenario import Scenario
from rotator.lab.report import Report

Array: TypeAlias = Any  # of multiprocessing, which has no name for its type

LOOK_EVERY = timedelta(milliseconds=200)
# Read and written by all processes: how much of each world is over, and at the end whether to stop.
_shares: Array = []


class _Stopped(Exception):
    """The person has gone; nobody wants the rest."""


def cores() -> int:
    """On how many cores this process may run (sched_getaffinity(2))."""
    return len(os.sched_getaffinity(0))


def tell(whole: Scenario, progress: Callable[[float], None], *, count: int | None = None) -> Report:
    """Tell the story in as many worlds as there are cores (or ``count``); ``progress`` hears how much is over.

    The same scenario in the same number of worlds gives the same report. Raises Transient where a world's process
    is killed."""
    parts = scenario.worlds(whole, cores() if count is None else count)
    if len(parts) == 1:
        return month.tell(parts[0], progress)
    # Spawned, not forked: nothing of this process (threads, a running loop) gets into a world.
    context = get_context("spawn")
    shares = context.Array("d", len(parts) + 1)
    with ProcessPoolExecutor(len(parts), mp_context=context, initializer=_enter, initargs=(shares,)) as pool:
        try:
            running = [pool.submit(_tell, part, number) for number, part in enumerate(parts)]
            while wait(running, timeout=LOOK_EVERY.total_seconds()).not_done:
                progress(sum(shares[:-1]) / len(parts))
                if any(one.done() and one.exception() for one in running):
                    break
            return report.merged([one.result() for one in running])
        except BrokenProcessPool:
            raise Transient(
                "a world of the simulation was killed, perhaps for its memory", mend="simulate fewer grants or days"
            ) from None
        finally:
            # Worlds that still run see it at their next step; the pool waits for them.
            shares[-1] = 1.0


def _enter(shares: Array) -> None:
    global _shares
    _shares = shares
    # A terminal sends Ctrl-C to all of us; the first process tells the worlds to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _tell(part: Scenario, number: int) -> Report:
    return month.tell(part, partial(_heard, number))


def _heard(number: int, over: float) -> None:
    _shares[number] = over
    if _shares[-1]:
        raise _Stopped

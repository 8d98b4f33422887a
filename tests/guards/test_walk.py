"""What a look of the walk at one grant of the register costs, counted and not timed: a start with a million of them is
a million such looks."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Coroutine
from datetime import timedelta
from pathlib import Path
from typing import Any

from benchmarks import register
from rotator import assembly
from rotator.engine import visits
from tests.guards import test_costs

GRANTS = 8 * visits.PAGE
URL = "http://127.0.0.1:1/oauth/v2/token"


class Loop(test_costs.Loop):
    """Counts deliveries too."""

    def create_task(self, work: Coroutine[Any, Any, Any], **options: Any) -> Any:
        self._counted["deliveries"] += work.__qualname__ == "Courier._deliver"
        return super().create_task(work, **options)


def walked(tmp_path: Path, *, emptied: int = 0) -> Counter[str]:
    """What a pass over all of them costs; the files of ``emptied`` are gone before."""
    counted: Counter[str] = Counter()
    state, run = tmp_path / "state", tmp_path / "run"
    for folder in (state, run):
        folder.mkdir(mode=0o700)
    environ = {"STATE_DIRECTORY": str(state), "RUNTIME_DIRECTORY": str(run), "PATH": ""}
    config = register.configure(state, URL)
    due = asyncio.run(register.fill(state, run, GRANTS, URL, files=True, lead=timedelta(minutes=5)))
    for name in sorted(due)[:emptied]:
        (run / "many" / name).unlink()
    watched = True

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        # There is no taking it away again (sys.addaudithook): it falls silent.
        if watched and event in ("open", "os.scandir") and str(run / "many") in str(arguments[0]):
            counted[event] += 1

    async def once() -> None:
        built = assembly.build(assembly.read(config, environ), log_level="error")
        assert (await built.daemon.once(timedelta(minutes=1))).well

    sys.addaudithook(hear)
    try:
        with asyncio.Runner(loop_factory=lambda: Loop(counted)) as runner:
            runner.run(once())
    finally:
        watched = False
    assert all((run / "many" / name).exists() for name in due)
    told = ", ".join(f"{name} {number / GRANTS:.2f}" for name, number in sorted(counted.items()))
    print(f"\n  {GRANTS} looked at, for each: {told}")
    return counted


def test_who_is_in_order_costs_one_record_and_one_file(tmp_path: Path) -> None:
    counted = walked(tmp_path)
    assert counted["open"] == GRANTS
    assert counted["os.scandir"] == 1, "a crowded folder, whatever stands in it"
    assert counted["deliveries"] == 0
    assert counted["tasks"] <= 1.1 * GRANTS + 50
    assert counted["callbacks"] <= 4 * GRANTS + 500
    assert counted["turns"] <= 0.2 * GRANTS + 200


def test_who_lost_a_file_is_brought_to_a_desk_and_no_other(tmp_path: Path) -> None:
    counted = walked(tmp_path, emptied=10)
    assert counted["deliveries"] == 10
    assert counted["tasks"] <= 1.1 * GRANTS + 100

"""What a start may load and make before the first publication, counted: its time is nearly all imports."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks import provider, stage

# Runs the daemon until its file is about to appear, and tells then what is there.
PROBE = """
import json, os, sys

def published(event, given):
    if event != "os.rename" or not str(given[1]).endswith("/billing/token"):
        return
    from pydantic import BaseModel
    kinds = {kind for name, module in sys.modules.items() if name.startswith("rotator.")
             for kind in vars(module).values() if isinstance(kind, type) and kind.__module__ == name}
    made = [kind for kind in kinds if "__dataclass_params__" in vars(kind)]
    print(json.dumps({
        "modules": sorted(sys.modules),
        "costly": sorted(kind.__qualname__ for kind in made if kind.__dataclass_params__.frozen),
        "built": sorted(kind.__name__ for kind in kinds
                        if issubclass(kind, BaseModel) and vars(kind).get("__pydantic_complete__")),
    }), flush=True)
    os._exit(0)

sys.addaudithook(published)
from rotator import cli
cli.main(sys.argv[1:])
"""
# Nothing that stands is published by these; they come after it.
LATER = (
    "apscheduler", "asyncinotify", "ctypes", "h11", "httpx", "hvac", "requests", "rich", "starlette", "uvicorn",
    "rotator.frontends.control.server", "rotator.frontends.http", "rotator.lab",
)  # fmt: skip
EXCHANGE = ("rotator.drivers.http.direct", "rotator.drivers.oauth.table")
MODULES = 450


@pytest.fixture(scope="module")
def starts() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """What the first start had loaded and made when it published, and a restart with a valid stored token."""
    with provider.serve() as served, stage.fresh(served) as daemon:

        def probed() -> dict[str, Any]:
            told: dict[str, Any] = json.loads(
                subprocess.run(
                    [sys.executable, "-c", PROBE, "run", "--config", str(daemon.home / "rotator.toml")],
                    env=daemon.directories, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60, check=True,
                ).stdout
            )  # fmt: skip
            return told

        first = probed()
        yield first, probed()


def test_a_restart_loads_what_it_needs_to_publish_and_no_more(starts: tuple[dict[str, Any], dict[str, Any]]) -> None:
    _, restart = starts
    assert set(restart["modules"]).isdisjoint((*LATER, *EXCHANGE))
    assert len(restart["modules"]) <= MODULES


def test_a_first_start_adds_the_exchange(starts: tuple[dict[str, Any], dict[str, Any]]) -> None:
    first, _ = starts
    assert set(first["modules"]).isdisjoint(LATER)
    assert set(first["modules"]) >= set(EXCHANGE)
    assert len(first["modules"]) <= MODULES + 20


def test_frozen_records_are_lean_ones(starts: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """A frozen dataclass of the standard library compiles six functions, half a millisecond; there are a hundred."""
    assert [found["costly"] for found in starts] == [[], []]


def test_of_the_configuration_one_validator_is_built(starts: tuple[dict[str, Any], dict[str, Any]]) -> None:
    assert [found["built"] for found in starts] == [["Settings"], ["Settings"]]

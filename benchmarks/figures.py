"""What is measured: each function returns its samples, in milliseconds unless it says otherwise."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks import stage
from benchmarks.provider import Provider
from tests.peers import openbao


@dataclass
class Starts:
    """One entry per interleaved round: a first start, a restart, the peer."""

    first: list[float] = field(default_factory=list)
    restart: list[float] = field(default_factory=list)
    agent: list[float] = field(default_factory=list)

    def ratio(self, ours: Sequence[float]) -> float:
        """The median of the ratios within each round: the machine's drift falls out."""
        return statistics.median(mine / theirs for mine, theirs in zip(ours, self.agent, strict=True))


def starts(provider: Provider, server: openbao.OpenBao, rounds: int) -> Starts:
    """One round more than asked for is run first, so that files are in the page cache and byte code is written."""
    found = Starts()
    with stage.agent(server) as agent:
        for _ in range(rounds + 1):
            with stage.fresh(provider) as daemon:
                with stage.running(daemon, daemon.token) as (_, span):
                    found.first.append(span)
                with stage.running(agent, agent.rendered) as (_, span):
                    found.agent.append(span)
                with stage.running(daemon, daemon.token) as (_, span):
                    found.restart.append(span)
    return Starts(found.first[1:], found.restart[1:], found.agent[1:])


def answer_to_readable(provider: Provider, count: int) -> list[float]:
    """From the provider's handing over its answer to the new token being readable under its name."""
    spans: list[float] = []
    with stage.fresh(provider) as daemon, stage.running(daemon, daemon.token) as (process, _):
        stage.wait_answering(daemon)
        for _ in range(count):
            before = daemon.token.read_bytes()
            readable: list[int] = []
            with stage.Appearance(daemon.token, keep=True) as appearance:
                order = threading.Thread(target=daemon.client.rotate, args=("billing",), kwargs={"force": True})
                order.start()
                readable.append(appearance.wait(process))
                order.join()
            if daemon.token.read_bytes() == before:
                raise RuntimeError("the file still holds the token of before")
            spans.append((readable[0] - provider.answered_at) / 1e6)
    return spans


IMPORTS = {
    "nothing": "pass",
    "command line": "import rotator.cli",
    "daemon": "import rotator.cli, rotator.cli.service, rotator.assembly; from rotator.assembly import house",
}


def imports(rounds: int) -> dict[str, list[float]]:
    """A fresh interpreter that imports and ends, as wall time; interleaved."""
    found: dict[str, list[float]] = {name: [] for name in IMPORTS}
    environ = {"PATH": os.environ.get("PATH", "")}
    for _ in range(rounds + 1):
        for name, code in IMPORTS.items():
            since = time.monotonic_ns()
            subprocess.run([sys.executable, "-c", code], check=True, env=environ)
            found[name].append((time.monotonic_ns() - since) / 1e6)
    return {name: spans[1:] for name, spans in found.items()}

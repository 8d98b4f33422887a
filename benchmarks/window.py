"""The one irreducible window: from the provider's commit to our save being durable. Measured without a tracer."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

from benchmarks import stage
from benchmarks.provider import Provider

STAMPED = Path(__file__).with_name("stamped.py")
# What a save appends to SQLite's log: five pages and their headers.
PAGES, PAGE, HEADER = 5, 4096, 24


@dataclass
class Window:
    """One entry per rotation, in milliseconds: the whole; the provider's part of it, until it handed its answer over;
    SQLite's commit. ``syncs`` are as many fdatasync(2) of the same bytes on the same file system and nothing else."""

    whole: list[float] = field(default_factory=list)
    provider: list[float] = field(default_factory=list)
    commit: list[float] = field(default_factory=list)
    syncs: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class StampedDaemon(stage.Daemon):
    """The same daemon, which notes when a save was back."""

    @property
    def stamps(self) -> Path:
        return self.home / "stamps"

    def spawn(self) -> Popen[bytes]:
        command = [sys.executable, str(STAMPED), "run", "--config", str(self.home / "rotator.toml")]
        directories = {"STATE_DIRECTORY": str(self.home / "state"), "RUNTIME_DIRECTORY": str(self.home / "run")}
        return stage.spawn(command, self.home, {**directories, "STAMPS": str(self.stamps)})


def measure(provider: Provider, count: int) -> Window:
    """``count`` rotations one after the other, between each a bare fdatasync for comparison."""
    found = Window()
    with stage.fresh(provider) as plain:
        daemon = StampedDaemon(plain.home, provider)
        with stage.running(daemon, daemon.token), (daemon.home / "state" / "bare").open("wb", buffering=0) as bare:
            stage.wait_answering(daemon)
            for _ in range(count):
                before = len(daemon.stamps.read_text().splitlines())
                daemon.client.rotate("billing", force=True)
                stamps = daemon.stamps.read_text().splitlines()
                if len(stamps) != before + 1:
                    raise RuntimeError(f"{len(stamps) - before} answers were saved in one rotation")
                saved_at, commit = (int(word) for word in stamps[-1].split())
                found.whole.append((saved_at - provider.committed_at) / 1e6)
                found.provider.append((provider.answered_at - provider.committed_at) / 1e6)
                found.commit.append(commit / 1e6)
                found.syncs.append(_sync(bare.fileno()))
    return found


def _sync(descriptor: int) -> float:
    for _ in range(PAGES):
        os.write(descriptor, os.urandom(HEADER))
        os.write(descriptor, os.urandom(PAGE))
    since = time.monotonic_ns()
    os.fdatasync(descriptor)
    return (time.monotonic_ns() - since) / 1e6

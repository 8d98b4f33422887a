"""What a scrape of many grants costs: the page by itself, beside the client library's, and in a daemon that rotates."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import Popen

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.openmetrics.exposition import generate_latest

from benchmarks import crowd, stage
from benchmarks.provider import Provider
from rotator.frontends.metrics import PER_GRANT_UP_TO
from rotator.frontends.metrics import catalogue as names
from tests.peers import ports

GRANTS = crowd.GRANTS
HOUSE = Path(__file__).parents[1]
ACCEPT = "application/openmetrics-text; version=1.0.0"


@dataclass
class Page:
    """One entry for each scrape: milliseconds of processor, of all and of the longest slice between two turns of the
    loop."""

    size: int = 0
    cpu: list[float] = field(default_factory=list)
    longest: list[float] = field(default_factory=list)


def pages(rounds: int) -> tuple[Page, Page]:
    """The page of `GRANTS` grants with series for each, and with the default bound; without server and socket."""
    return asyncio.run(_page(GRANTS, rounds)), asyncio.run(_page(PER_GRANT_UP_TO, rounds))


async def _page(per_grant_up_to: int, rounds: int) -> Page:
    shown = crowd.snapshot()
    counts = crowd.counting(per_grant_up_to, shown)
    # As the daemon does once it is built: what stays is not looked at for garbage.
    gc.collect()
    gc.freeze()
    found = Page()
    for _ in range(rounds):
        size, longest, since = 0, 0.0, time.process_time()
        pieces = counts.expose(shown, ACCEPT)[1]
        while True:
            before = time.thread_time()
            piece = next(pieces, None)
            longest = max(longest, time.thread_time() - before)
            if piece is None:
                break
            size += len(piece)
        found.cpu.append((time.process_time() - since) * 1000)
        found.longest.append(longest * 1000)
        found.size = size
    gc.unfreeze()
    return found


def by_client_library() -> float:
    """Milliseconds of processor in which prometheus_client writes a page with the same series."""
    registry = CollectorRegistry()
    for family in names.FAMILIES:
        if family.labels[:2] != names.GRANT:
            continue
        kind = Counter if family.type == names.COUNTER else Gauge
        metric = kind(family.name, family.help, family.labels, registry=registry)
        words = names.STATES if family is names.STATE else names.OUTCOMES
        if family is names.PUBLICATIONS:
            words = names.PUBLISHED
        for number in range(GRANTS):
            marks = ["omnifund", f"grant_{number:05}", "app", "file"][
                : len([one for one in family.labels if one in names.TARGET])
            ]
            for word in words if family.labels[-1] in ("state", "outcome") else ("",):
                metric.labels(*marks, *([word] if word else []))
    since = time.process_time()
    generate_latest(registry)
    return (time.process_time() - since) * 1000


# --- a daemon ---------------------------------------------------------------------------------------------------


@dataclass
class Beside:
    """Order → readable in milliseconds, with and without scrapes one after the other; processor time of a scrape."""

    alone: list[float] = field(default_factory=list)
    scraped: list[float] = field(default_factory=list)
    cpu: float = 0.0
    scrapes: int = 0


@dataclass(frozen=True)
class Crowded(stage.Daemon):
    """The daemon of `benchmarks.crowd`."""

    port: int = 0
    per_grant_up_to: int = PER_GRANT_UP_TO

    def spawn(self) -> Popen[bytes]:
        numbers = (str(self.port), str(self.per_grant_up_to))
        command = [sys.executable, "-m", "benchmarks.crowd", str(self.home / "rotator.toml"), *numbers]
        places = {"STATE_DIRECTORY": self.home / "state", "RUNTIME_DIRECTORY": self.home / "run", "PYTHONPATH": HOUSE}
        return stage.spawn(command, self.home, {name: str(place) for name, place in places.items()})


def beside_scrapes(provider: Provider, count: int, per_grant_up_to: int) -> Beside:
    """Orders to one grant, in turns of twenty with and without a scraper that asks for ten thousand."""
    found = Beside()
    with tempfile.TemporaryDirectory(prefix="rotator-bench-") as folder:
        daemon = Crowded(Path(folder), provider, ports.free(), per_grant_up_to)
        daemon.prepare()
        with stage.running(daemon, daemon.token) as (process, _):
            stage.wait_answering(daemon)
            _scrape(daemon)
            while len(found.scraped) < count:
                found.alone += [stage.rotate(daemon, process) for _ in range(20)]
                with _scraping(daemon, process, found):
                    found.scraped += [stage.rotate(daemon, process) for _ in range(20)]
            before = _cpu(process.pid)
            for _ in range(10):
                _scrape(daemon)
            found.cpu = (_cpu(process.pid) - before) * 100
    return found


def _scrape(daemon: Crowded) -> str:
    asked = urllib.request.Request(f"http://127.0.0.1:{daemon.port}/metrics", headers={"Accept": ACCEPT})
    with urllib.request.urlopen(asked, timeout=stage.PATIENCE) as answer:
        text: str = answer.read().decode()
        return text


@contextmanager
def _scraping(daemon: Crowded, process: Popen[bytes], found: Beside) -> Iterator[None]:
    """One scrape after the other, a breath apart: far more than any Prometheus asks."""
    done = threading.Event()

    def scrape() -> None:
        while not done.wait(0.05) and process.poll() is None:
            _scrape(daemon)
            found.scrapes += 1

    thread = threading.Thread(target=scrape, name="scraper")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _cpu(pid: int) -> float:
    """Processor seconds of a process; proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

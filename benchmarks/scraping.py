"""What a scrape of many grants costs: the page by itself, beside the client library's, and in a daemon that rotates."""

from __future__ import annotations

import asyncio
import gc
import os
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import Popen

from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.openmetrics.exposition import generate_latest

from benchmarks import stage
from benchmarks.provider import Provider
from rotator.core import events
from rotator.core.health import GrantHealth, Health, ProviderHealth, State, TargetHealth
from rotator.drivers import clock
from rotator.frontends.metrics import PER_GRANT_UP_TO, Metrics, Sources
from rotator.frontends.metrics import catalogue as names
from tests.peers.prometheus import free_port

GRANTS = 10_000
ACCEPT = "application/openmetrics-text; version=1.0.0"
STARTUP = 300.0


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
    counts = Metrics("bench", clock.SystemClock(), Sources(), per_grant_up_to=per_grant_up_to)
    snapshot = _snapshot()
    for grant in snapshot.grants:
        counts(_rotated(grant))
        counts(_delivered(grant))
    # As the daemon does once it is built: what stays is not looked at for garbage.
    gc.collect()
    gc.freeze()
    found = Page()
    for _ in range(rounds):
        size, longest, since = 0, 0.0, time.process_time()
        pieces = counts.expose(snapshot, ACCEPT)[1]
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


def _snapshot() -> Health:
    now = datetime.now(UTC)
    return Health(
        now,
        tuple(
            GrantHealth(
                name=f"grant_{number:05}", provider="omnifund", state=State.FRESH, reason="", generation=4,
                issued_at=now, expires_at=now + timedelta(hours=1), due_at=now + timedelta(minutes=45),
                passwords_left=3, targets=(TargetHealth("app", f"file:/run/rotator/{number}/token", 4),),
                published=True, refreshed_at=now, refresh_ends_at=now + timedelta(days=14),
            )
            for number in range(GRANTS)
        ),
        providers=(ProviderHealth("omnifund", 0, 0, False),),
    )  # fmt: skip


def _rotated(grant: GrantHealth) -> events.Rotated:
    now = datetime.now(UTC)
    return events.Rotated(
        at=now, grant=grant.name, provider=grant.provider, kind="refresh_token", generation=4, expires_at=now,
        due_at=now, took=timedelta(milliseconds=80), save_took=timedelta(milliseconds=2),
    )  # fmt: skip


def _delivered(grant: GrantHealth) -> events.Delivered:
    return events.Delivered(
        at=datetime.now(UTC), grant=grant.name, target="app", generation=4, found="missing", kind="file",
        took=timedelta(milliseconds=2), since_answer=timedelta(milliseconds=4),
    )  # fmt: skip


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
class ManyGrants(stage.Daemon):
    """The daemon with `GRANTS` more grants, all with series of their own."""

    address: str = ""

    def prepare(self) -> None:
        super().prepare()
        account, config = self.provider.account, self.home / "rotator.toml"
        more = "".join(
            f"""
            [grants.grant_{number:05}]
            provider = "emulated"
            client_id = "{account.client_id}"
            client_secret = {{ file = "{self.home}/client_secret" }}
            username = "{account.username}"
            password = {{ file = "{self.home}/password" }}
            [grants.grant_{number:05}.targets.app]
            file = "grant_{number:05}/token"
            """
            for number in range(GRANTS)
        )
        limits = "[providers.emulated.limits]\nin_flight = 64\nper_second = 1000\n"
        config.write_text(
            f'[http]\naddress = "{self.address}"\n[metrics]\nper_grant_up_to = 100000\n'
            f'[startup]\nrequire = "none"\n{config.read_text()}\n{limits}\n{more}'
        )


def beside_scrapes(provider: Provider, count: int) -> Beside:
    """Orders to one of ten thousand fresh grants, in turns of twenty with and without a scraper."""
    found = Beside()
    with _many(provider) as daemon, _running(daemon) as process:
        while len(found.scraped) < count:
            found.alone += [_rotate(daemon, process) for _ in range(20)]
            with _scraping(daemon, process, found):
                found.scraped += [_rotate(daemon, process) for _ in range(20)]
        before = _cpu(process.pid)
        for _ in range(10):
            _scrape(daemon)
        found.cpu = (_cpu(process.pid) - before) * 100
    return found


@contextmanager
def _many(provider: Provider) -> Iterator[ManyGrants]:
    with tempfile.TemporaryDirectory(prefix="rotator-bench-") as folder:
        made = ManyGrants(Path(folder), provider, f"127.0.0.1:{free_port()}")
        made.prepare()
        yield made


@contextmanager
def _running(daemon: ManyGrants) -> Iterator[Popen[bytes]]:
    process = daemon.spawn()
    try:
        _wait_published(daemon, process)
        yield process
    finally:
        # A drain that takes long is not what is measured here.
        process.kill()
        process.wait()


def _wait_published(daemon: ManyGrants, process: Popen[bytes]) -> None:
    until = time.monotonic() + STARTUP
    wanted = f'rotator_grants_published{{provider="emulated"}} {GRANTS + 1}'
    while True:
        try:
            if wanted in _scrape(daemon):
                return
        except OSError:
            pass
        if time.monotonic() > until or process.poll() is not None:
            raise RuntimeError("not all grants were published")
        time.sleep(2)


def _scrape(daemon: ManyGrants) -> str:
    asked = urllib.request.Request(f"http://{daemon.address}/metrics", headers={"Accept": ACCEPT})
    with urllib.request.urlopen(asked, timeout=stage.PATIENCE) as answer:
        text: str = answer.read().decode()
        return text


@contextmanager
def _scraping(daemon: ManyGrants, process: Popen[bytes], found: Beside) -> Iterator[None]:
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


def _rotate(daemon: stage.Daemon, process: Popen[bytes]) -> float:
    with stage.Appearance(daemon.token, keep=True) as appearance:
        thread = threading.Thread(target=daemon.client.rotate, args=("billing",), kwargs={"force": True})
        since = time.monotonic_ns()
        thread.start()
        readable = appearance.wait(process)
        thread.join()
    return (readable - since) / 1e6


def _cpu(pid: int) -> float:
    """Processor seconds of a process; proc_pid_stat(5)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

"""A great many grants in the register of one daemon: how late it is, what it takes of a core, and what it holds.

The state is made beforehand as a daemon would have left it: every grant has a token of an hour and is due at a time
of its own. Then the real daemon starts on it, walks through what is published, and goes on rotating, asked for nothing.

``python -m benchmarks.register COUNT [--span SECONDS] [--window SECONDS] [--one-core] [--no-files]``; a million takes
a quarter of an hour, 3 GB on the disk and 4 GB of /dev/shm.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks import aims, growth, rotations
from rotator.core import tokens
from rotator.core.grants import Grant
from rotator.core.ports import Delivery, Entry
from rotator.core.tokens import AccessToken, Secret
from rotator.drivers import clock, sqlite

QUARTER = timedelta(minutes=15)
WINDOW = 0.75 * 3600
"""In so many seconds each of a token's hour becomes due once."""
STEPS, STEP_SPAN, USUAL = (1_000, 10_000), 10.0, 100_000
"""What `steps` looks at: fewer grants in a shorter window, so that as many are due in a second as of the usual number
in theirs."""
BESIDE = 3.0
"""So many seconds before and after the first becomes due are not counted in."""
PORTION = 2000
TMPFS = Path("/dev/shm")


@dataclass(frozen=True, slots=True)
class Found:
    """``ready`` seconds until READY; memory in MB: ``started`` then, ``rss`` at the end, ``peak`` at most; ``core``
    (part of one) while it goes on, ``rest`` before anything is due: the walk and the counts; ``kept``: the
    part of the time that its loop waited for a core which neighbours had; ``late`` in seconds."""

    count: int
    ready: float
    start_cpu: float
    started: float
    rss: float
    peak: float
    rest: float
    core: float
    kept: float
    rotations: int
    late: list[float]

    def quantile(self, part: float) -> float:
        return sorted(self.late)[min(len(self.late) - 1, int(part * len(self.late)))]


@contextmanager
def _provider() -> Iterator[int]:
    lean = Path(__file__).with_name("lean.py")
    process = subprocess.Popen([sys.executable, str(lean)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline())
    finally:
        process.communicate()


async def fill(
    folder: Path, run: Path, count: int, url: str, files: bool, lead: timedelta, window: float = WINDOW
) -> dict[str, datetime]:
    """The state, and when each grant becomes due: the first after ``lead``, the last ``window`` seconds later."""
    system_clock, dice = clock.SystemClock(), clock.SystemDice()
    store = sqlite.SqliteStore(folder / "state.db", clock=system_clock, dice=dice)
    await store.open()
    key = await store.key()
    first = datetime.now(UTC) + lead
    due: dict[str, datetime] = {}
    (run / "many").mkdir()
    try:
        for begin in range(0, count, PORTION):
            names = [f"g{number:07d}" for number in range(begin, min(count, begin + PORTION))]
            await store.register.enter([_entry(name, folder, files) for name in names])
            grants = []
            for number, name in enumerate(names, start=begin):
                due[name] = first + timedelta(seconds=window * number / count)
                identity = tokens.digest((url, f"client-{name}", "user"), key)
                grants.append(_grant(name, due[name], due[name] - timedelta(seconds=window) - lead, identity))
            await asyncio.gather(*(store.enrol(grant) for grant in grants))
            if files:
                await asyncio.gather(*(store.delivered(_publish(grant, run)) for grant in grants))
    finally:
        await store.close()
    return due


def _publish(grant: Grant, run: Path) -> Delivery:
    """As it stands there and on record."""
    assert grant.access is not None
    place, value = run / "many" / grant.name, grant.access.value.reveal()
    place.write_text(value)
    place.chmod(0o600)
    mark = hashlib.sha256(value.encode()).hexdigest()
    return Delivery(grant.name, "app", f"file:{place}", grant.lineage, 1, grant.access.expires_at, mark)


def _access(name: str) -> str:
    return f"{name}{'A' * 70}"


def _entry(name: str, folder: Path, files: bool) -> Entry:
    table: dict[str, object] = {
        "provider": "lean", "client_id": f"client-{name}", "username": "user",
        "client_secret": {"file": str(folder / "secret")}, "password": {"file": str(folder / "secret")},
    }  # fmt: skip
    if files:
        table["targets"] = {"app": {"file": f"many/{name}"}}
    return Entry(name, "lean", json.dumps(table))


def _grant(name: str, due_at: datetime, issued_at: datetime, identity: str) -> Grant:
    access = AccessToken(Secret(_access(name)), "bearer", None, issued_at, due_at + QUARTER, 1)
    return Grant(
        name=name, lineage=f"lineage-{name}", identity=identity, generation=1, access=access,
        refresh=Secret(f"{name}{'R' * 70}"), refreshed_at=issued_at, due_at=due_at, exchanged_at=issued_at,
    )  # fmt: skip


def configure(folder: Path, url: str) -> Path:
    (folder / "secret").write_text(base64.b64encode(os.urandom(12)).decode())
    (folder / "secret").chmod(0o600)
    path = folder / "rotator.toml"
    path.write_text(
        f'[providers.lean]\ntoken_url = "{url}"\nreuse = "harmless"\njitter = 0\n'
        "[providers.lean.limits]\nin_flight = 64\nper_second = 1000\n"
        '[log]\nformat = "json"\n'
    )
    return path


def measure(count: int, span: float, *, window: float = WINDOW, one_core: bool = False, files: bool = True) -> Found:
    """Blocks for as long as it takes to fill, to start, and ``span`` seconds. ``one_core``: the daemon has one."""
    with (
        tempfile.TemporaryDirectory(prefix="rotator-register-") as state,
        tempfile.TemporaryDirectory(prefix="rotator-register-", dir=TMPFS if TMPFS.is_dir() else None) as run,
        _provider() as port,
    ):
        folder, url = Path(state), f"http://127.0.0.1:{port}/oauth/v2/token"
        config = configure(folder, url)
        # Enough time to fill, start and walk before the first becomes due; that it was is looked at.
        lead = timedelta(seconds=12 + count / 1500)
        due = asyncio.run(fill(folder, Path(run), count, url, files, lead, window))
        log = folder / "log"
        environ = {**os.environ, "STATE_DIRECTORY": state, "RUNTIME_DIRECTORY": run}
        with log.open("wb") as stream:
            began = time.monotonic()
            process = subprocess.Popen(
                [sys.executable, "-m", "rotator", "run", "--config", str(config)], env=environ, stderr=stream
            )
        if one_core:
            os.sched_setaffinity(process.pid, {rotations.core()})
        try:
            _wait_told(process, log, '"daemon.ready"')
            ready, start_cpu, started = time.monotonic() - began, _cpu(process.pid), _memory(process.pid, "VmRSS")
            left = (min(due.values()) - datetime.now(UTC)).total_seconds()
            if left < 2 * BESIDE:
                raise RuntimeError(
                    f"ready after {ready:.0f} s, {left:.0f} s before the first is due: give it a longer lead"
                )
            rest = _share(process.pid, left - BESIDE)
            # What follows is the daily work: from when the first ones are due.
            time.sleep(2 * BESIDE)
            waited = _waited(process.pid)
            core = _share(process.pid, span)
            kept = (_waited(process.pid) - waited) / span
            rss, peak = _memory(process.pid, "VmRSS"), _memory(process.pid, "VmHWM")
        finally:
            process.terminate()
            process.wait(60)
        late = _late(log, due)
    return Found(count, ready, start_cpu, started, rss, peak, rest, core, kept, len(late), late)


def _wait_told(process: subprocess.Popen[bytes], log: Path, word: str) -> None:
    while word not in log.read_text():
        if process.poll() is not None:
            raise RuntimeError(f"the daemon ended with {process.returncode}: {log.read_text()[-500:]}")
        time.sleep(0.2)


def _late(log: Path, due: dict[str, datetime]) -> list[float]:
    late = []
    for line in log.read_text().splitlines():
        told = json.loads(line)
        # When the new token was durable: the exchange is counted in.
        if told["event"] == "token.rotated" and told["generation"] == 2:
            late.append((datetime.fromisoformat(told["time"]) - due[told["grant"]]).total_seconds())
    return late


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _share(pid: int, span: float) -> float:
    """Of one core, during so many seconds."""
    since, at = _cpu(pid), time.monotonic()
    time.sleep(span)
    return (_cpu(pid) - since) / (time.monotonic() - at)


def _waited(pid: int) -> float:
    """Seconds for which the loop's thread could run and did not (schedstats of the kernel's documentation)."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[1]) / 1e9


def _memory(pid: int, field: str) -> float:
    """In MB; see proc_pid_status(5)."""
    (found,) = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(f"{field}:")]
    return int(found.split()[1]) * 1024 / 1e6


def rows(found: Found) -> list[tuple[str, str, str]]:
    million, p99 = found.count >= 1_000_000, found.quantile(0.99)
    return [
        (
            f"{found.count:,} grants in the register: start → ready",
            f"{found.ready:.1f} s ({found.start_cpu:.1f} s of CPU)",
            "–",
        ),
        ("… of one core while nothing is due (the walk, counts)", f"{found.rest:.1%}", "–"),
        (
            f"… of one core, {found.rotations} rotations",
            f"{found.core:.1%}",
            aims.told("≤ 50 %" if million else "≤ 5 %", found.core <= (0.5 if million else 0.05)),
        ),
        (
            "… memory, RSS (when ready; at most)",
            f"{found.rss:.0f} MB ({found.started:.0f}; {found.peak:.0f})",
            aims.told("≤ 250 MB" if million else "≤ 90 MB", found.rss <= (250 if million else 90)),
        ),
        (
            "… late: p50, p99, longest",
            _lateness(found),
            "–" if million else aims.told("p99 ≤ 250 ms", p99 <= 0.25),
        ),
        ("… of that time the loop waited for a core that neighbours had", f"{found.kept:.0%}", "–"),
    ]


def steps() -> list[tuple[str, str, str]]:
    """Two sizes in a minute: what the number of grants costs while as many are due in a second, and how that grows."""
    found = {count: measure(count, STEP_SPAN, window=WINDOW * count / USUAL) for count in STEPS}
    each = [
        (
            f"{count:,} grants in the register, {USUAL / WINDOW:.0f} due in a second (time goes {USUAL // count} × as "
            "fast): late, p50, p99, longest",
            _lateness(one),
            "–",
        )
        for count, one in found.items()
    ]
    memory = growth.row("memory over grants in the register, RSS", {one: found[one].rss for one in found}, "MB")
    start = growth.row("start over grants in the register", {one: found[one].start_cpu for one in found}, "s of CPU")
    return [*each, memory, start]


def _lateness(found: Found) -> str:
    late = statistics.median(found.late), found.quantile(0.99), max(found.late)
    return ", ".join(f"{one * 1000:.0f} ms" for one in late)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--span", type=float, default=60.0)
    parser.add_argument("--window", type=float, default=WINDOW, help="all become due in it (default: %(default)s)")
    parser.add_argument("--one-core", action="store_true", help="the daemon runs on one core")
    parser.add_argument("--no-files", action="store_true", help="without a target: only stored")
    asked = parser.parse_args()
    for row in rows(
        measure(asked.count, asked.span, window=asked.window, one_core=asked.one_core, files=not asked.no_files)
    ):
        print("| " + " | ".join(row) + " |")

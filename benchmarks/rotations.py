"""Whole rotations beside bare requests: each contender in a process of its own, one after the other, in turns.

Processor time is the figure that holds on a shared machine: of several turns the least of each contender counts, for
what neighbours add is never less than nothing.
"""

from __future__ import annotations

import datetime
import ipaddress
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import aims, growth

HERE = Path(__file__).parent
PATIENCE = 300


@dataclass(frozen=True)
class Way:
    """How one contender is run; ``count`` requests at each number in flight."""

    name: str
    counts: dict[int, int]
    cold: bool = False
    cores: str = "one"

    @property
    def shown(self) -> str:
        if self.cores != "one":
            return f"{self.name}, on {self.cores} cores"
        return f"{self.name}, a connection each" if self.cold and self.name != "rotator" else self.name


PLAIN = (
    Way("rotator", {1: 200, 10: 500, 100: 1000, 1000: 1000}),
    # Threads of CPython that really run at once fight for its one lock.
    Way("rotator", {100: 1000}, cores="all"),
    Way("authlib", {1: 100, 10: 200, 100: 200}),
    Way("requests-oauthlib", {1: 200, 10: 300}),
    Way("aiohttp", {1: 500, 10: 1000, 100: 2000}),
    # What a rotation does as well: it never speaks on a connection that may just be closed.
    Way("aiohttp", {1: 300, 10: 500, 100: 1000}, cold=True),
    Way("socket", {1: 500, 10: 2000, 100: 3000}),
)
SECURE = (
    Way("rotator", {10: 300, 100: 500}),
    Way("aiohttp", {10: 200, 100: 300}, cold=True),
    Way("socket", {10: 200, 100: 300}, cold=True),
)


@dataclass
class Found:
    """Of all turns the best: processor time (µs), rate (a second), and of a herd the longest stall of the loop (by the
    clock, and in its own processor time) and how long all took."""

    cpu: float
    rate: float
    stall: float = 0.0
    stall_cpu: float = 0.0
    seconds: float = 0.0


Results = dict[tuple[str, int], Found]


def measure(turns: int, ways: tuple[Way, ...] = PLAIN, *, secure: bool = False) -> Results:
    """Every way at every number in flight, ``turns`` times around."""
    found: Results = {}
    with endpoint(secure) as (url, authority):
        for _ in range(turns):
            for way in ways:
                for in_flight, count in way.counts.items():
                    told = _run(way, url, authority, in_flight, count)
                    _keep(found, (way.shown, in_flight), told)
    return found


def _keep(found: Results, key: tuple[str, int], told: dict[str, float]) -> None:
    one = Found(
        told["cpu_us"], told["per_second"], told.get("stall_ms", 0.0), told.get("stall_cpu_ms", 0.0), told["seconds"]
    )
    if (other := found.get(key)) is not None:
        one = Found(
            min(one.cpu, other.cpu), max(one.rate, other.rate), min(one.stall, other.stall),
            min(one.stall_cpu, other.stall_cpu), min(one.seconds, other.seconds),
        )  # fmt: skip
    found[key] = one


def _run(way: Way, url: str, authority: Path | None, in_flight: int, count: int) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.contender", way.name, "--url", url]
    command += ["--in-flight", str(in_flight), "--count", str(count), "--rounds", "2", "--cores", way.cores]
    command += ["--cold"] * way.cold + (["--ca", str(authority)] if authority is not None else [])
    done = subprocess.run(
        command, cwd=HERE.parent, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=PATIENCE
    )
    told: dict[str, float] = json.loads(done.stdout)
    return told


@contextmanager
def endpoint(secure: bool) -> Iterator[tuple[str, Path | None]]:
    """The lean endpoint in a process of its own: its URL, and the CA that vouches for it."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="rotator-bench-") as folder:
        pair = _pair(Path(folder)) if secure else None
        command = [sys.executable, str(HERE / "lean.py"), *(["--pair", str(pair[0])] if pair else [])]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            _part(process.pid)
            port = int(process.stdout.readline())
            try:
                yield f"http{'s' if secure else ''}://127.0.0.1:{port}/oauth/v2/token", pair[1] if pair else None
            finally:
                process.stdin.close()


def _part(pid: int) -> None:
    """Off the core that the contenders run on, where there are others."""
    if others := os.sched_getaffinity(0) - {core()}:
        os.sched_setaffinity(pid, others)


def core() -> int:
    """The one that a contender runs on."""
    return max(os.sched_getaffinity(0))


def _pair(folder: Path) -> tuple[Path, Path]:
    """A key with a certificate of its own for 127.0.0.1, and that certificate alone."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1)).add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True).sign(key, hashes.SHA256())
    )  # fmt: skip
    public = certificate.public_bytes(serialization.Encoding.PEM)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "pair.pem").write_bytes(private + public)
    (folder / "ca.pem").write_bytes(public)
    return folder / "pair.pem", folder / "ca.pem"


# --- what is shown ----------------------------------------------------------------------------------------------


def ratios(plain: Results, secure: Results) -> list[tuple[str, str, str]]:
    """The rows of the table: what is asked of a rotation, each as a ratio within this run."""
    ours = plain["rotator", 100]
    peers = [found.rate for (name, _), found in plain.items() if name == "authlib"]
    herd = plain["rotator", 1000]
    post, flat = ours.cpu / plain["aiohttp", 100].cpu, ours.cpu / plain["rotator", 10].cpu
    bare, best = ours.rate / plain["authlib", 100].rate, ours.rate / max(peers)
    each = ours.cpu / plain["aiohttp, a connection each", 100].cpu
    cold = secure["rotator", 100].cpu / secure["socket, a connection each", 100].cpu
    return [
        (
            "whole durable rotations a second on one core, 100 in flight",
            f"{ours.rate:.0f}",
            aims.told("≥ 2 000", ours.rate >= 2000),
        ),
        ("… over Authlib's bare refresh, 100 in flight", f"{bare:.1f} ×", aims.told("≥ 40 ×", bare >= 40)),
        ("… over its best at any number in flight", f"{best:.2f} ×", aims.told("≥ 2.5 ×", best >= 2.5)),
        ("processor time of a rotation, 100 in flight", f"{ours.cpu:.0f} µs", "–"),
        ("… over a bare aiohttp POST", f"{post:.2f} ×", aims.told("≤ 3 ×", post <= 3)),
        ("… over one with a connection each", f"{each:.2f} ×", "–"),
        ("… the same on all cores", f"{plain['rotator, on all cores', 100].cpu:.0f} µs", "–"),
        ("… over the same with 10 in flight", f"{flat:.2f} ×", aims.told("≤ 1.2 ×", flat <= 1.2)),
        growth.row("processor time of a rotation over those in flight", _by_flight(plain), "µs"),
        ("TLS, a connection each: over bare asyncio", f"{cold:.2f} ×", aims.told("≤ 1.8 ×", cold <= 1.8)),
        ("1 000 due in one instant: all done after", f"{herd.seconds:.2f} s", aims.told("≤ 1 s", herd.seconds <= 1)),
        ("… longest stall of the loop", f"{herd.stall:.0f} ms", aims.told("≤ 50 ms", herd.stall <= 50)),
        ("… of it the loop's own processor time", f"{herd.stall_cpu:.0f} ms", "–"),
    ]


def _by_flight(found: Results) -> dict[int, float]:
    return {flight: one.cpu for (name, flight), one in found.items() if name == "rotator"}


def table(found: Results, title: str) -> str:
    """Processor time and rate of every contender, by the number in flight."""
    flights = sorted({flight for _, flight in found})
    lines = [f"| {title} | {' | '.join(f'{one} in flight' for one in flights)} |", "|---" * (len(flights) + 1) + "|"]
    for name in dict.fromkeys(name for name, _ in found):
        cells = [found.get((name, flight)) for flight in flights]
        shown = ("–" if one is None else f"{one.cpu:.0f} µs · {one.rate:.0f}/s" for one in cells)
        lines.append(f"| {name} | {' | '.join(shown)} |")
    return "\n".join(lines)

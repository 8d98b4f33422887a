"""`kill -9` at any moment, above all during an exchange: readers notice nothing, and no login is wasted."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.acceptance import house
from tests.acceptance.house import House, Reader
from tests.acceptance.reader import Seen
from tests.acceptance.stage import Process, wait_for
from tests.peers import django_oauth
from tests.peers.django_oauth import DjangoOAuth, Exchanged

LIMIT = 16
# Between what the server committed and its answer: a kill in it costs the refresh token.
HOLD = 0.06
# What a request takes to arrive, and an answer to be saved, on a busy machine.
SLACK = 0.3

Figures = Callable[[str], None]


@dataclass
class Report:
    """What became of one story."""

    seed: int
    killed_at: list[float] = field(default_factory=list)
    exchanges: list[Exchanged] = field(default_factory=list)
    seen: Seen = field(default_factory=Seen)
    seconds: float = 0.0

    @property
    def passwords(self) -> int:
        return sum(one.kind == "password" for one in self.exchanges)

    @property
    def hits(self) -> int:
        """Kills that may have fallen into an exchange."""
        return sum(
            any(one.asked_at - SLACK <= at <= (one.answered_at or at) + SLACK for one in self.exchanges)
            for at in self.killed_at
        )

    @property
    def lost(self) -> int:
        """Token sets that the provider gave and nobody ever saw."""
        return sum(bool(one.access_token) and one.access_token not in self.seen.tokens for one in self.exchanges)


@dataclass(frozen=True)
class Plot:
    """One story. ``lifetime`` is that of an access token in seconds."""

    reuse: str
    kills: int
    lifetime: int


PLOTS = {plot.reuse: plot for plot in (Plot("harmless", 25, 10), Plot("kills_family", 15, 10))}


def story(folder: Path, seed: int, plot: Plot) -> Report:
    protection = plot.reuse == "kills_family"
    with django_oauth.serve(access_seconds=plot.lifetime, reuse_protection=protection, hold_seconds=HOLD) as peer:
        # Due after a second: what is killed is to be an exchange, not a daemon that rests.
        rules = {"rotate_at": str(1 / plot.lifetime), "jitter": "0.0", "spacing": '"1s"'}
        place = House(folder, peer, {"reuse": f'"{plot.reuse}"', **rules})
        place.budget = f'[grants.billing.budget]\nlimit = {LIMIT}\nwindow = "24h"\napart = "1s"'
        place.write()
        report, began = Report(seed), time.monotonic()
        process = place.start()
        try:
            place.order("wait", "billing", "--timeout", "20s")
            # A pause: this reader is to see every state of the files, not to take the processor from the restarts.
            reader = Reader(raw=str(place.raw), described=str(place.described), pause=0.002)
            with house.reading(reader):
                dice = random.Random(seed)
                for number in range(plot.kills):
                    moment = _aim(peer, place, process, dice) if number % 2 else dice.uniform(0.2, 3.0)
                    _kill_after(process, moment, report)
                    process = place.start()
                _wait_settled(peer, place, process)
            assert process.end(signal.SIGTERM) == 0, place.told()
        finally:
            house.bury(process)
        report.seen, report.exchanges = reader.seen, peer.exchanges()
        report.seconds = time.monotonic() - began
    return report


def _aim(peer: DjangoOAuth, place: House, process: Process, dice: random.Random) -> float:
    """Wait for the first exchange after a fresh publication; how long after its start the blow falls.

    Only the first: whoever kills every try of a recovery will see the token expire, whatever the daemon does."""
    _wait_published(place, process)
    before = len(peer.exchanges())
    _wait(lambda: len(peer.exchanges()) > before, "an exchange", place, process)
    return dice.uniform(0.0, 1.5 * HOLD)


def _kill_after(process: Process, seconds: float, report: Report) -> None:
    try:
        process.popen.wait(seconds)
    except subprocess.TimeoutExpired:
        os.kill(process.pid, signal.SIGKILL)
        report.killed_at.append(time.time())
    assert process.popen.wait() == -signal.SIGKILL, f"the daemon ended by itself:\n{process.told}"


def _wait_published(place: House, process: Process) -> None:
    before = place.raw.read_text()
    _wait(lambda: place.raw.read_text() != before, "another token", place, process)


def _wait_settled(peer: DjangoOAuth, place: House, process: Process) -> None:
    """The last life recovers as well, and then goes on by refreshing."""
    for _ in range(3):
        _wait_published(place, process)
    assert peer.exchanges()[-1].kind == "refresh_token", place.told()


def _wait(condition: Callable[[], bool], what: str, place: House, process: Process) -> None:
    wait_for(lambda: condition() or process.popen.poll() is not None, f"{what}\n{place.told()}", within=house.PATIENCE)
    assert process.popen.poll() is None, f"the daemon ended by itself:\n{place.told()}"


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Report]]]:
    """All at once: most of their time is waiting."""
    seed = int(os.environ.get("ROTATOR_TEST_SEED", "20260"))
    with ThreadPoolExecutor(len(PLOTS)) as pool:
        yield {
            reuse: pool.submit(story, tmp_path_factory.mktemp(reuse) / "house", seed, plot)
            for reuse, plot in PLOTS.items()
        }


@pytest.mark.parametrize("reuse", PLOTS)
def test_killed_at_any_moment(stories: dict[str, Future[Report]], reuse: str, figures: Figures) -> None:
    plot, report = PLOTS[reuse], stories[reuse].result()
    seen = report.seen
    figures(
        f"kill -9, reuse = {reuse}, tokens of {plot.lifetime} s, seed {report.seed}: {len(report.killed_at)} kills in "
        f"{report.seconds:.0f} s, {report.hits} in or near an exchange, {report.lost} answers lost; "
        f"{len(report.exchanges)} exchanges, {report.passwords} of them by password (budget {LIMIT} in 24 h)"
    )
    figures(
        f"  reader: {seen.reads} reads, {len(seen.tokens)} tokens; torn {seen.torn}, missing {seen.missing}, "
        f"expired {seen.expired}; least time left {seen.least_left:.1f} s"
    )
    assert len(report.killed_at) == plot.kills
    assert report.lost >= 2, "no kill fell between the provider's commit and our save: this proved nothing"
    assert seen.reads > 1000
    assert (seen.missing, seen.torn, seen.expired, seen.disagreed) == (0, 0, 0, 0), seen.oddities
    assert seen.generations == sorted(seen.generations), "an older generation came back"
    assert set(seen.tokens) <= {one.access_token for one in report.exchanges}
    assert report.passwords <= LIMIT
    # The first login, and one for each exchange that a kill may have cost; nothing else may spend one.
    assert report.passwords <= 1 + report.hits

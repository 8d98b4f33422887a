"""Two daemons that share a grant through a state in Vault: one rotates, the other follows."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from tests.acceptance import house
from tests.acceptance.house import House, Reader
from tests.acceptance.stage import Process, wait_for
from tests.peers import django_oauth, openbao
from tests.peers.django_oauth import DjangoOAuth, Exchanged
from tests.peers.openbao import OpenBao

SPAN = 60.0
LIFETIME = 12
HOLD = 0.06
LIMIT = 16
POLICY = """
path "kv/data/rotator/state/*"     { capabilities = ["create", "update", "read"] }
path "kv/metadata/rotator/state/*" { capabilities = ["create", "update", "read", "list", "delete"] }
"""

Figures = Callable[[str], None]


@pytest.fixture(scope="module")
def bao() -> Iterator[OpenBao]:
    with openbao.raft() as server:
        yield server


class Machine(House):
    """A house whose state is in Vault, under a prefix that it shares with others."""

    def settle(self, bao: OpenBao, mount: str, budget: int) -> None:
        role_id, secret_id = bao.app_role("daemon", POLICY.replace("kv/", f"{mount}/"))
        approle = ", ".join(
            f'{name} = {{ file = "{self.secret(name, value)}" }}'
            for name, value in (("role_id", role_id), ("secret_id", secret_id))
        )
        self.vault = f'[vault.default]\naddress = "{bao.url}"\nauth = {{ approle = {{ {approle} }} }}\n'
        self.timing = (
            f'[state]\nurl = "vault:{mount}/rotator/state"\n[timing]\nsweep_every = "300ms"\nverify_every = "1s"\n'
        )
        # Due after a second; the lease of one that was killed runs out after five.
        self.provider = {
            "rotate_at": str(1 / LIFETIME), "jitter": "0.0", "spacing": '"1s"', "deadline": '"2s"',
            "reuse": '"harmless"',
        }  # fmt: skip
        self.budget = f'[grants.billing.budget]\nlimit = {budget}\nwindow = "24h"\napart = "0s"'
        self.write()


class Sights:
    """When each token was first seen in each file."""

    def __init__(self, *files: Path) -> None:
        self.first: list[dict[str, float]] = [{} for _ in files]
        self._files = files
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def _look(self) -> None:
        # The pace of a reader, not a wait for anything.
        while not self._stop.wait(0.005):
            for seen, file in zip(self.first, self._files, strict=True):
                if file.exists():
                    seen.setdefault(file.read_text(), time.time())

    @contextmanager
    def kept(self) -> Iterator[Sights]:
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()


def machines(folder: Path, peer: DjangoOAuth, bao: OpenBao, budget: int = LIMIT) -> tuple[Machine, Machine]:
    both = Machine(folder / "one", peer), Machine(folder / "two", peer)
    mount = bao.mount_kv()
    for one in both:
        one.settle(bao, mount, budget)
    return both


def overlapping(exchanges: list[Exchanged]) -> list[tuple[Exchanged, Exchanged]]:
    ordered = sorted(exchanges, key=lambda one: one.asked_at)
    return [(one, two) for one, two in pairwise(ordered) if two.asked_at < one.answered_at]


def test_two_daemons_take_turns_while_both_are_killed(tmp_path: Path, bao: OpenBao, figures: Figures) -> None:
    dice = random.Random(4)
    with ExitStack() as stack:
        peer = stack.enter_context(django_oauth.serve(access_seconds=LIFETIME, hold_seconds=HOLD))
        both = machines(tmp_path, peer, bao)
        lives: list[Process] = []
        stack.callback(lambda: [house.bury(one) for one in lives])
        running = [one.start() for one in both]
        lives += running
        for one in both:
            one.order("wait", "billing", "--timeout", "20s")
        readers = [Reader(raw=str(one.raw), described=str(one.described), pause=0.002) for one in both]
        sights = stack.enter_context(Sights(*(one.raw for one in both)).kept())
        # When each machine's daemon was away: killed, and not yet publishing again.
        away: list[list[tuple[float, float]]] = [[], []]
        kills = 0
        with house.reading(*readers):
            until = time.monotonic() + SPAN
            while time.monotonic() < until:
                number = dice.randrange(2)
                before = len(peer.exchanges())
                wait_for(lambda: len(peer.exchanges()) > before, both[number].told(), within=house.PATIENCE)  # noqa: B023
                try:
                    running[number].popen.wait(dice.uniform(0.0, 1.5))
                except Exception:  # noqa: BLE001 (it is to be alive still)
                    running[number].popen.kill()
                assert running[number].popen.wait() == -signal.SIGKILL, both[number].told()
                kills, since = kills + 1, time.time()
                running[number] = both[number].start()
                lives.append(running[number])
                both[number].order("wait", "billing", "--timeout", "20s")
                away[number].append((since, time.time()))
        for one in running:
            assert one.end(signal.SIGTERM) == 0
        exchanges, seen = peer.exchanges(), [reader.seen for reader in readers]
    passwords = sum(one.kind == "password" for one in exchanges)
    lags = [
        abs(sights.first[1][token] - at)
        for token, at in sights.first[0].items()
        if token in sights.first[1] and not any(begin - 0.5 <= at <= end for spans in away for begin, end in spans)
    ]
    figures(
        f"two daemons, one state in a real OpenBao (raft), tokens of {LIFETIME} s: {kills} x kill -9 in {SPAN:.0f} s, "
        f"{len(exchanges)} exchanges, {passwords} by password; in flight together: {len(overlapping(exchanges))}; "
        f"the other's file behind by {1000 * sorted(lags)[len(lags) // 2]:.0f} ms (median), {1000 * max(lags):.0f} ms "
        f"(longest of {len(lags)})"
    )
    for one in seen:
        figures(
            f"  reader: {one.reads} reads, {len(one.tokens)} tokens; torn {one.torn}, missing {one.missing}, expired "
            f"{one.expired}; least time left {one.least_left:.1f} s"
        )
        assert (one.missing, one.torn, one.expired) == (0, 0, 0), one.oddities
        assert one.generations == sorted(one.generations), "an older generation came back"
        assert set(one.tokens) <= {exchange.access_token for exchange in exchanges}
    assert kills >= 8
    assert overlapping(exchanges) == []
    assert passwords <= 1 + kills
    assert len(lags) >= 5


def test_the_late_answer_of_a_stopped_owner_is_saved(tmp_path: Path, bao: OpenBao) -> None:
    with ExitStack() as stack:
        peer = stack.enter_context(django_oauth.serve(access_seconds=60))
        # One password exchange, which the first login takes: what is lost cannot be bought again.
        one, two = machines(tmp_path, peer, bao, budget=1)
        for machine in (one, two):
            machine.provider["rotate_at"] = str(2 / 60)
            machine.write()
        owner = one.start()
        stack.callback(lambda: house.bury(owner))
        one.order("wait", "billing", "--timeout", "20s")
        before = len(peer.exchanges())
        with peer.holding():
            wait_for(lambda: len(peer.exchanges()) > before, "the exchange to be stopped in", within=house.PATIENCE)
            owner.popen.send_signal(signal.SIGSTOP)
        rival = two.start()
        stack.callback(lambda: house.bury(rival))
        stack.callback(lambda: owner.popen.send_signal(signal.SIGCONT))
        # The rival takes over once the lease has run out, and tries what the stopped one has spent.
        wait_for(lambda: len(peer.exchanges()) > before + 1, two.told(), within=house.PATIENCE)
        wait_for(lambda: peer.exchanges()[before + 1].status >= 400, "the refusal", within=house.PATIENCE)
        late = peer.exchanges()[before]
        assert late.status == 200
        owner.popen.send_signal(signal.SIGCONT)
        wait_for(
            lambda: any(late.access_token == file.read_text() for file in (one.raw, two.raw) if file.exists()),
            one.told() + two.told(), within=house.PATIENCE,
        )  # fmt: skip
        # And the chain goes on from it, by whomever.
        wait_for(lambda: peer.exchanges()[-1].status == 200 and len(peer.exchanges()) > before + 2, two.told(),
                 within=house.PATIENCE)  # fmt: skip
        newest = peer.exchanges()[-1].access_token
        for machine in (one, two):
            wait_for(lambda: machine.raw.read_text() == newest or peer.exchanges()[-1].access_token != newest,  # noqa: B023
                     machine.told(), within=house.PATIENCE)  # fmt: skip
        for process in (owner, rival):
            assert process.end(signal.SIGTERM) == 0
        assert sum(exchange.kind == "password" for exchange in peer.exchanges()) == 1
        assert "billing" in two.order("status")

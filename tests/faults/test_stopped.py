"""The process stands still (SIGSTOP, as a hung hypervisor or a debugger would have it) and goes on later.

Tokens run out meanwhile, which nobody can help; what follows must be one rotation at once, no burst, no login, and
no expired token published anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance.house import House
from tests.acceptance.stage import wait_for
from tests.faults import machine, verdict
from tests.peers import django_oauth
from tests.peers.django_oauth import DjangoOAuth

LIFETIME = 6
LONG = 200.0 if machine.WHOLE else 8.0
TIMING = '[timing]\nsweep_every = "300ms"\nverify_every = "500ms"\n'
# Between what the server has committed and its answer.
HOLD = 0.5
# Shorter than what the process stands still for.
DEADLINE = 2.0

Figures = Callable[[str], None]


@pytest.fixture(scope="module")
def peer() -> Iterator[DjangoOAuth]:
    machine.require()
    with django_oauth.serve(access_seconds=LIFETIME, hold_seconds=HOLD) as served:
        yield served


@pytest.fixture
def place(peer: DjangoOAuth, tmp_path: Path) -> House:
    verdict.forget(peer)
    rules = {"rotate_at": "0.4", "jitter": "0.0", "spacing": '"1s"', "deadline": f'"{DEADLINE:g}s"'}
    return House(tmp_path / "house", peer, {"reuse": '"kills_family"', **rules}, timing=TIMING)


def test_a_process_that_stood_still_past_expiry_rotates_at_once_and_once(place: House, figures: Figures) -> None:
    with place.daemon() as process:
        before = len(place.peer.exchanges())
        machine.wait(place, process, lambda: _answered(place) > before, "a rotation")
        machine.wait(place, process, lambda: verdict.published(place).generation == _answered(place), "its publication")
        with machine.stopped(process):
            until = time.monotonic() + LONG
            count, stale = _answered(place), verdict.published(place)
            written = place.raw.stat().st_mtime_ns
            wait_for(lambda: time.monotonic() > until, "the token to run out", within=LONG + 1)
            # On waking it is missing, and must not be put back as it was: it has expired.
            place.raw.unlink()
            woken_at = time.time()
        seen = list[str]()

        def renewed() -> bool:
            if place.raw.exists():
                seen.append(place.raw.read_text())
            return bool(seen) and seen[-1] != stale.raw

        machine.wait(place, process, renewed, "a new token")
        # At once, for the next rotation is due soon.
        late = place.peer.exchanges()[count:]
        fresh_after = time.time() - woken_at
        assert stale.raw not in seen, "an expired token was published anew"
        assert place.raw.stat().st_mtime_ns > written
        assert len(late) == 1, f"{len(late)} requests on waking:\n{place.told()}"
        assert late[0].kind == "refresh_token"
        machine.wait(place, process, lambda: _answered(place) >= count + 2, "the next rotation")
        spaced = place.peer.exchanges()[count + 1].asked_at - place.peer.exchanges()[count].asked_at
        assert spaced > 1.0, "the schedule goes on in its own time"
    told = verdict.check_chain(place.peer)
    figures(
        f"stopped for {LONG:g} s with tokens of {LIFETIME} s: a new token {fresh_after:.1f} s after waking (the "
        f"provider takes {HOLD:g} s), {len(late)} request; {told}"
    )


def test_an_answer_that_came_while_the_process_stood_still_is_kept(place: House) -> None:
    """Asked, stopped, answered, woken after the deadline: the answer waits in the socket, and nothing else is known."""
    with place.daemon() as process:
        count = len(place.peer.exchanges())
        with ExitStack() as stopped:
            with place.peer.holding():
                machine.wait(place, process, lambda: len(place.peer.exchanges()) > count, "an exchange")
                stopped.enter_context(machine.stopped(process))
            wait_for(lambda: place.peer.exchanges()[count].access_token, "the provider's answer")
            until = time.monotonic() + DEADLINE + 1
            wait_for(lambda: time.monotonic() > until, "the deadline to pass")
        answer = place.peer.exchanges()[count].access_token
        machine.wait(place, process, lambda: place.raw.read_text() == answer, "the answer in the file")
        machine.wait(place, process, lambda: _answered(place) >= count + 2, "the next rotation")
    verdict.check_chain(place.peer)


def _answered(place: House) -> int:
    return sum(one.status == 200 for one in place.peer.exchanges())

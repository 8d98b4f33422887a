"""The wall clock of the daemon's machine is set forward and back by a day, under the running process and between two
lives of it; the provider's clock is right all the time.

What a token file says about expiry is by the wrong clock, so the reader does not believe it: it presents the token.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance import house
from tests.acceptance.house import House, Reader
from tests.acceptance.stage import Process, Supervisor
from tests.faults import machine, verdict
from tests.peers import django_oauth

LIFETIME = 8
ROTATE_AT = 0.4
PERIOD = LIFETIME * ROTATE_AT
WATCHDOG_USEC = 1_500_000
STEPS = ("+1d", "+0", "-1d", "+0", "+1d", "-1d", "+2h", "+0") if machine.WHOLE else ("+1d", "-1d")

Figures = Callable[[str], None]


class Clock:
    """The wall clock of one process, by libfaketime; monotonic and boot-time clocks stay true, as they do when an
    operator or an NTP daemon sets the time."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "wall-clock"
        self.set("+0")

    def set(self, to: str) -> None:
        """Relative to the true time, as libfaketime writes it: `+1d`."""
        fresh = self._file.with_suffix(".new")
        fresh.write_text(to)
        fresh.replace(self._file)

    def command(self, **more: str) -> tuple[str, ...]:
        """What a daemon is run by that shall live in this time, with more environment."""
        libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
        assert libraries, "faketime is installed and its library is not where it was"
        # Without the fix for others, which turns every timed wait for Python's own lock into a busy loop.
        settings = {
            "LD_PRELOAD": libraries[0], "FAKETIME_TIMESTAMP_FILE": self._file, "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1", "FAKETIME_FORCE_MONOTONIC_FIX": "0", **more,
        }  # fmt: skip
        return ("env", *(f"{name}={value}" for name, value in settings.items()))


def wait_rotations(place: House, process: Process, more: int) -> None:
    """So many refreshes from now on, the last of them in the file."""
    began = len(place.peer.exchanges())

    def done() -> bool:
        later = [one.access_token for one in place.peer.exchanges()[began:] if one.access_token]
        return len(later) >= more and place.raw.read_text() == later[-1]

    machine.wait(place, process, done, f"{more} rotations")


def test_a_clock_that_jumps_by_a_day_costs_no_reader_a_token_and_no_login(tmp_path: Path, figures: Figures) -> None:
    machine.require("faketime")
    clock = Clock(tmp_path)
    with django_oauth.serve(access_seconds=LIFETIME) as peer, ExitStack() as exits:
        rules = {"rotate_at": str(ROTATE_AT), "jitter": "0.0", "spacing": '"1s"', "reuse": '"kills_family"'}
        place = House(tmp_path / "house", peer, rules, timing='[timing]\nsweep_every = "500ms"\n')
        supervisor = Supervisor(tmp_path / "notify", place.raw)
        exits.callback(supervisor.close)
        place.before = clock.command(NOTIFY_SOCKET=str(supervisor.path), WATCHDOG_USEC=str(WATCHDOG_USEC))
        with place.daemon() as process:
            # As docs/consumers.md has it: a refused token is read again, for this provider revokes the old one early.
            reader = Reader(raw=str(place.raw), described=str(place.described), port=peer.port, path="/api/me",
                            patient=True, pause=0.05)  # fmt: skip
            with house.reading(reader):
                wait_rotations(place, process, 1)
                storms = [at_a_jump(place, process, clock, to, supervisor) for to in STEPS]
                told = process.told.count("clock.jumped")
        seen = reader.seen
        result = verdict.check_chain(peer)
    figures(
        f"clock steps {', '.join(STEPS)}: exchanges within {PERIOD:.1f} s of each {storms}; presented "
        f"{seen.presented} times, refused {seen.refused}; told {told} times; {result}"
    )
    assert (seen.torn, seen.missing, seen.refused) == (0, 0, 0), seen
    assert seen.presented > 100
    assert told == len(STEPS), "each jump is told, once"
    # The one that was due anyway, and one to be sure.
    assert max(storms) <= 2, f"a storm after a jump: {storms}"


def at_a_jump(place: House, process: Process, clock: Clock, to: str, supervisor: Supervisor) -> int:
    """Set the clock, live for more than the life of a token; how many exchanges the jump itself brought."""
    before = len(place.peer.exchanges())
    clock.set(to)
    heard = len(supervisor.told)
    machine.rest(process, PERIOD)
    storm = len(place.peer.exchanges()) - before
    machine.rest(process, LIFETIME - PERIOD + 1)
    signs = sum("WATCHDOG=1" in one.text for one in supervisor.told[heard:])
    # Half of what the supervisor asks for; without them it would kill the daemon.
    assert signs >= LIFETIME / (WATCHDOG_USEC / 1e6) / 2, f"{signs} signs of life after {to}:\n{place.told()}"
    assert len(place.peer.exchanges()) > before, f"no rotation after {to}:\n{place.told()}"
    return storm


@pytest.mark.parametrize("to", ["-1d", pytest.param("+1d", marks=pytest.mark.whole)])
def test_a_restart_under_another_date_costs_no_login(tmp_path: Path, to: str) -> None:
    """A machine without a clock of its own starts in the past; its store knows better."""
    machine.require("faketime")
    clock = Clock(tmp_path)
    with django_oauth.serve(access_seconds=LIFETIME) as peer:
        rules = {"rotate_at": str(ROTATE_AT), "jitter": "0.0", "spacing": '"1s"', "reuse": '"kills_family"'}
        place = House(tmp_path / "house", peer, rules, timing='[timing]\nsweep_every = "500ms"\n')
        place.before = clock.command()
        place.write()
        process = place.start()
        try:
            place.order("wait", "billing", "--timeout", "20s")
            process.end(signal.SIGKILL)
            clock.set(to)
            before = len(peer.exchanges())
            process = place.start()
            wait_rotations(place, process, 1)
            assert len(peer.exchanges()) == before + 1
            clock.set("+0")
            wait_rotations(place, process, 2)
            assert process.end() == 0, place.told()
        finally:
            house.bury(process)
        verdict.check_chain(peer)

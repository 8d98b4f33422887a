"""Memory runs out around the daemon, in a control group of its own: it works on under pressure, and where the kernel
kills it, the next life goes on with the chain."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.acceptance import house
from tests.acceptance.house import House, Reader
from tests.acceptance.stage import Process
from tests.faults import machine, memory, verdict
from tests.faults.memory import Glutton, Group
from tests.peers import django_oauth
from tests.peers.django_oauth import DjangoOAuth

KILLS = 15 if machine.WHOLE else 3
# MiB: several times what a daemon needs, and less than a Python that has imported it.
AMPLE = 160
TINY = 16
# What is left to a daemon under pressure beyond what it holds for itself.
SPARE = 12
LIMIT = 16
LIFETIME = 20
HOLD = 0.2
# What a request takes to arrive, an answer to be saved, and a kill to be carried out, on a busy machine.
SLACK = 0.5

Figures = Callable[[str], None]


def furnished(folder: Path, peer: DjangoOAuth, group: Group) -> House:
    rules = {"reuse": '"harmless"', "rotate_at": str(1 / LIFETIME), "jitter": "0.0", "spacing": '"1s"'}
    place = House(folder / "house", peer, rules)
    place.budget = f'[grants.billing.budget]\nlimit = {LIMIT}\nwindow = "24h"\napart = "1s"'
    place.before = group.entrance
    place.write()
    return place


def wait_rotated(place: House, process: Process, count: int = 1) -> None:
    """So many more rotations, the last of them in the file."""
    began = len(place.peer.exchanges())

    def done() -> bool:
        later = place.peer.exchanges()[began:]
        granted = [one.access_token for one in later if one.kind == "refresh_token" and one.access_token]
        return len(granted) >= count and place.raw.read_text() in granted[count - 1 :]

    machine.wait(place, process, done, f"{count} rotations")


def kill(place: House, process: Process, group: Group, glutton: Glutton, dice: random.Random, number: int) -> float:
    """Let the memory run out, every second time during an exchange; when the daemon was gone."""
    if number % 2 == 0:
        count = len(place.peer.exchanges())
        machine.wait(place, process, lambda: len(place.peer.exchanges()) > count, "an exchange")
    else:
        machine.rest(process, dice.uniform(0.1, 1.0))
    before = group.killed
    eaten = group.limit - group.used(process.pid) - SPARE
    # Bite by bite: once the daemon is killed there is room.
    while group.killed == before:
        eaten += 1
        assert eaten < group.limit, "the memory was eaten, and nobody died"
        glutton.eat(eaten)
    assert process.popen.wait(machine.PATIENCE) == -signal.SIGKILL, f"the daemon ended by itself:\n{process.told}"
    gone_at = time.time()
    assert group.killed > before, "it was not the kernel that killed it"
    glutton.eat(0)
    return gone_at


def test_killed_for_want_of_memory_the_chain_goes_on(tmp_path: Path, figures: Figures) -> None:
    machine.require()
    dice, killed_at = random.Random(20263), list[float]()
    with (
        django_oauth.serve(access_seconds=LIFETIME, hold_seconds=HOLD) as peer,
        memory.group(AMPLE) as group,
        memory.glutton(group) as glutton,
    ):
        place = furnished(tmp_path, peer, group)
        process = place.start()
        try:
            place.order("wait", "billing", "--timeout", "20s")
            reader = Reader(raw=str(place.raw), described=str(place.described), pause=0.005)
            with house.reading(reader):
                # Room for a few MiB more than it holds: what can be read again is taken from it.
                glutton.eat(group.limit - group.used(process.pid) - SPARE)
                wait_rotated(place, process, 2)
                assert group.killed == 0, "this was to be pressure, not death"
                glutton.eat(0)
                for number in range(KILLS):
                    killed_at.append(kill(place, process, group, glutton, dice, number))
                    process = place.start()
                    wait_rotated(place, process)
            assert process.end() == 0, place.told()
        finally:
            house.bury(process)
        verdict.check_reader(reader.seen, peer)
        told = verdict.account(peer)
    hits = sum(
        any(one.asked_at - SLACK <= at <= (one.answered_at or at) + SLACK for one in told.exchanges) for at in killed_at
    )
    figures(f"memory ran out {KILLS} times, {hits} in or near an exchange; {told}")
    figures(f"  {verdict.described(reader.seen)}")
    # The first login, and one for each exchange that a kill may have cost; nothing else may spend one.
    assert told.passwords <= 1 + hits, told
    assert told.reused <= 2 * hits, told


def test_a_limit_too_small_for_a_start_costs_no_login(tmp_path: Path) -> None:
    machine.require()
    with django_oauth.serve(access_seconds=LIFETIME) as peer:
        with memory.group(TINY) as group:
            place = furnished(tmp_path, peer, group)
            for life in range(3):
                process = place.start()
                assert process.popen.wait(machine.PATIENCE) == -signal.SIGKILL, process.told
                assert group.killed == life + 1
            assert peer.exchanges() == []
        place.before = ()
        process = place.start()
        try:
            machine.wait(place, process, place.raw.exists, "a token")
            wait_rotated(place, process)
            assert process.end() == 0, place.told()
        finally:
            house.bury(process)
        verdict.check_chain(peer)

"""The wire loses what the provider answers after it has committed, or what it is asked.

Daemon and provider live in a network of their own, where the kernel drops packets by their content: the server has
rotated, and the client never hears of it. What that costs is read in the provider's own log.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.acceptance import house
from tests.acceptance.house import House, Reader
from tests.acceptance.stage import Process
from tests.faults import machine, verdict
from tests.peers import django_oauth

DEADLINE = 3.0
LIFETIME = 16
# Packets that ask for a connection, one or two for each try.
TRIES = 3
ROUNDS = 10 if machine.WHOLE else 1

Story = Callable[[Path], str]


@contextmanager
def scene(folder: Path, *, forgiving: int = 0, protection: bool = False, **provider: str) -> Iterator[House]:
    """A server and a house in a network of their own. Tokens are due after a quarter of their life."""
    with (
        machine.own_network(),
        django_oauth.serve(access_seconds=LIFETIME, grace=forgiving, reuse_protection=protection) as peer,
    ):
        rules = {"rotate_at": "0.25", "jitter": "0.0", "spacing": '"1s"', "deadline": f'"{DEADLINE:g}s"'}
        timing = '[timing]\nsweep_every = "300ms"\n'
        place = House(folder / "house", peer, {**rules, **provider}, timing=timing)
        place.budget = '[grants.billing.budget]\napart = "0s"'
        yield place


@contextmanager
def read(place: House) -> Iterator[Process]:
    """A daemon that has published, and a reader that meets no gap."""
    with place.daemon() as process:
        reader = Reader(raw=str(place.raw), described=str(place.described), pause=0.005)
        with house.reading(reader):
            yield process
        verdict.check_reader(reader.seen, place.peer)


def answers(place: House) -> list[str]:
    """The words of iptables(8) for a packet that grants something."""
    server = ["-o", "lo", "-p", "tcp", "--sport", str(place.peer.port)]
    return [*server, "-m", "string", "--string", "200 OK", "--algo", "bm"]


def lose_one_answer(place: House, process: Process) -> int:
    """Let the provider grant what nobody hears; the number of that exchange in its log."""
    count = len(place.peer.exchanges())
    with machine.dropped(*answers(place)):
        machine.wait(place, process, lambda: len(verdict.account(place.peer).exchanges) > count, "an exchange")
        machine.wait(place, process, lambda: place.peer.exchanges()[count].access_token, "the provider's commit")
        wait_hung_up(place, process)
    return count


def wait_hung_up(place: House, process: Process) -> None:
    """Wait until the client has given up: from now on the answer cannot come any more."""
    machine.wait(place, process, lambda: not machine.is_connected(process, int(place.peer.port)), "it to hang up")


def wait_ended(place: House, process: Process, count: int) -> None:
    machine.wait(place, process, lambda: len(_ended(place)) >= count, f"{count} exchanges")


def settle(place: House, process: Process, after: int) -> None:
    """Wait for a plain rotation that began after so many exchanges, in the file."""

    def settled() -> bool:
        later = place.peer.exchanges()[after:]
        return place.raw.read_text() in {one.access_token for one in later if one.kind == "refresh_token"}

    machine.wait(place, process, settled, "a rotation")


def within_grace(folder: Path) -> str:
    """A provider that forgives a resend for a while gets exactly one, and gives the same pair again."""
    with scene(folder, forgiving=120, reuse='"kills_family"', grace='"60s"') as place:
        with read(place) as process:
            for _ in range(ROUNDS):
                lost = lose_one_answer(place, process)
                wait_ended(place, process, lost + 2)
                first, again = place.peer.exchanges()[lost : lost + 2]
                assert (again.kind, again.refresh_token) == ("refresh_token", first.refresh_token)
                assert again.access_token == first.access_token
                settle(place, process, lost)
                settle(place, process, lost + 2)
        told = verdict.account(place.peer)
        assert (told.passwords, told.reused, told.refused) == (1, ROUNDS, 0), told
        return f"within the grace: {ROUNDS} answers lost, each resent once; {told}"


def harmless(folder: Path) -> str:
    """No grace, and a spent token does no harm: presented once more, refused, and one login."""
    with scene(folder, reuse='"harmless"') as place:
        with read(place) as process:
            lost = lose_one_answer(place, process)
            settle(place, process, lost + 2)
        told = verdict.account(place.peer)
        assert told.passwords == 2, told
        # The lost one, and once the one before it, where there was one.
        assert 1 <= told.reused <= 2, told
        assert told.refused == told.reused, told
        return f"reuse = harmless: 1 answer lost; {told}"


def kills_family(folder: Path) -> str:
    """No grace, and a spent token kills the family: never presented; one login, before the token runs out."""
    with scene(folder, protection=True, reuse='"kills_family"') as place:
        with read(place) as process:
            lost = lose_one_answer(place, process)
            settle(place, process, lost + 1)
        told = verdict.account(place.peer)
        assert (told.passwords, told.reused, told.refused) == (2, 0, 0), told
        return f"reuse = kills_family: 1 answer lost; {told}"


def first_login(folder: Path) -> str:
    """The answer to the first login is lost: one more, and no third."""
    with scene(folder, reuse='"harmless"') as place:
        place.write()
        process = place.start()
        try:
            with machine.dropped(*answers(place)):
                machine.wait(place, process, lambda: _ended(place), "the provider's commit")
                wait_hung_up(place, process)
            machine.wait(place, process, place.raw.exists, "a token")
            settle(place, process, 2)
            assert process.end() == 0, place.told()
        finally:
            house.bury(process)
        told = verdict.account(place.peer)
        assert (told.passwords, told.reused, told.refused) == (2, 0, 0), told
        return f"the first login's answer lost: {told}"


def nothing_arrives(folder: Path) -> str:
    """Nobody can connect, at the start and later: nothing was sent, so nothing is spent and nothing is in doubt."""
    with scene(folder, reuse='"kills_family"') as place:
        syn = ["-o", "lo", "-p", "tcp", "--dport", str(place.peer.port), "--syn"]
        place.write()
        with machine.dropped(*syn) as tries:
            process = place.start()
            try:
                machine.wait(place, process, lambda: tries() >= TRIES, "tries to connect")
            except BaseException:
                house.bury(process)
                raise
        try:
            machine.wait(place, process, place.described.exists, "a token")
            count = len(place.peer.exchanges())
            with machine.dropped(*syn) as tries:
                machine.wait(place, process, lambda: tries() >= TRIES, "tries to connect")
                assert len(place.peer.exchanges()) == count
            settle(place, process, count)
            assert process.end() == 0, place.told()
            assert "exchange.doubtful" not in process.told
        finally:
            house.bury(process)
        return f"nobody could connect, twice: {verdict.check_chain(place.peer)}"


def _ended(place: House) -> list[str]:
    """The tokens that were granted so far; empty where something was refused."""
    return [one.access_token for one in place.peer.exchanges() if one.status]


STORIES: dict[str, Story] = {
    story.__name__: story for story in (within_grace, harmless, kills_family, first_login, nothing_arrives)
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[str]]]:
    """All at once: most of their time is waiting, and each has its own network."""
    machine.require("ip", "iptables")
    with ThreadPoolExecutor(len(STORIES)) as pool:
        yield {name: pool.submit(story, tmp_path_factory.mktemp(name)) for name, story in STORIES.items()}


@pytest.mark.parametrize("story", STORIES)
def test_a_lossy_wire_costs_what_the_provider_does_not_forgive_and_no_more(
    told: dict[str, Future[str]], story: str, figures: Callable[[str], None]
) -> None:
    figures(f"wire, {told[story].result()}")

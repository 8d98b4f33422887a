"""What every hook promises: the part of `rotator.core.ports.Publisher` for those that are judged by their mark."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from rotator.core import notices
from rotator.core.ports import Publisher
from rotator.core.publication import Found
from rotator.core.tokens import Secret
from rotator.drivers import http
from rotator.drivers.processes import CommandHook, SignalHook
from rotator.drivers.webhook import Webhook
from tests.acceptance.stage import wait_for
from tests.contracts.publishers import NOW, publication
from tests.peers import wire
from tests.peers.wire import Reply


@dataclass
class Harness:
    """One hook, and how often it was heard so far."""

    make: Callable[[], Publisher]
    heard: Callable[[], int]


@pytest.fixture(params=["command", "signal", "webhook"])
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    yield from {"command": _command, "signal": _signal, "webhook": _webhook}[request.param](tmp_path)


def _command(folder: Path) -> Iterator[Harness]:
    argv = ("/bin/sh", "-c", f'echo "$ROTATOR_ID" >> {folder}/heard')
    yield Harness(
        lambda: CommandHook("billing", "hook", argv, timeout=timedelta(seconds=20), environ={}),
        lambda: (folder / "heard").read_text().count("\n") if (folder / "heard").exists() else 0,
    )


def _signal(folder: Path) -> Iterator[Harness]:
    # To a child that counts them: ourselves are never signalled.
    ours, theirs = os.pipe()
    child = os.posix_spawn(
        "/bin/sh", ["sh", "-c", f"trap 'echo >> {folder}/heard' HUP; echo ready; while :; do sleep 0.01; done"], {},
        file_actions=[(os.POSIX_SPAWN_DUP2, theirs, 1)], setsigdef=[signal.SIGHUP],
    )  # fmt: skip
    os.read(ours, 16)
    (folder / "pid").write_text(str(child))

    def heard() -> int:
        return (folder / "heard").read_text().count("\n") if (folder / "heard").exists() else 0

    yield Harness(lambda: SignalHook("billing", "hook", folder / "pid", "HUP"), heard)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(ours)
    os.close(theirs)


def _webhook(folder: Path) -> Iterator[Harness]:
    async def key() -> bytes:
        return b"key"

    async def signing_key() -> Secret:
        return Secret("signing")

    with wire.serve(lambda asked: Reply(202)) as receiver:

        def make() -> Publisher:
            return Webhook(
                "billing", "hook", f"{receiver.url}/", http.HttpxClient(), source="//here/rotator", locations={},
                key=key, signing_key=signing_key, timeout=timedelta(seconds=20),
            )  # fmt: skip

        yield Harness(make, lambda: len(receiver.asked))


def test_it_acts_whenever_it_is_settled_and_says_that_nobody_can_see_it(harness: Harness) -> None:
    for number in (1, 2):
        hook = harness.make()
        assert hook.judged_by_mark and not hook.local
        assert asyncio.run(hook.settle(publication(1), NOW)).found is Found.UNTOLD
        wait_for(lambda number=number: harness.heard() == number, f"telling {number}")


def test_it_has_one_place_for_ever_which_is_known_as_that_of_a_hook(harness: Harness) -> None:
    one, other = harness.make(), harness.make()
    assert one.location == other.location and notices.is_hook(one.location)
    asyncio.run(one.settle(publication(1), NOW))
    assert one.location == other.location


def test_there_is_nothing_to_take_away(harness: Harness) -> None:
    mark = asyncio.run(harness.make().settle(publication(1), NOW)).mark
    assert not asyncio.run(harness.make().remove(mark))


def test_it_prints_no_token(harness: Harness) -> None:
    hook = harness.make()
    settled = asyncio.run(hook.settle(publication(1), NOW))
    assert publication(1).value.reveal() not in f"{hook!r} {hook} {settled!r} {hook.location}"

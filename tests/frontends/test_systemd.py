"""sd_notify(3) against real datagram sockets."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from rotator.core import ports
from rotator.frontends import systemd


@contextmanager
def receiver(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + address[1:] if address.startswith("@") else address)
        manager.settimeout(5)
        yield manager


def heard(manager: socket.socket) -> list[str]:
    """All datagrams that are there now: a send to a Unix socket has arrived when it returns."""
    manager.setblocking(False)
    messages = []
    while True:
        try:
            messages.append(manager.recv(1 << 16).decode("utf-8"))
        except BlockingIOError:
            return messages


def notifier() -> systemd.Notifier:
    return systemd.Notifier(os.environ, os.getpid(), lambda: 123_456_789)


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    return path


def test_each_message_is_one_datagram_with_the_words_of_the_manual(address: str) -> None:
    supervisor: ports.Supervisor = notifier()
    with receiver(address) as manager:
        supervisor.extend(timedelta(seconds=30))
        supervisor.ready("3/3 grants published")
        supervisor.alive()
        supervisor.reloading()
        supervisor.stopping("stopping")
        assert heard(manager) == [
            "EXTEND_TIMEOUT_USEC=30000000",
            "READY=1\nSTATUS=3/3 grants published",
            "WATCHDOG=1",
            "RELOADING=1\nMONOTONIC_USEC=123456789",
            "STOPPING=1\nSTATUS=stopping",
        ]


def test_an_abstract_address_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    abstract = "@rotator-test-" + secrets.token_hex(8)
    monkeypatch.setenv("NOTIFY_SOCKET", abstract)
    with receiver(abstract) as manager:
        notifier().alive()
        assert heard(manager) == ["WATCHDOG=1"]


def test_a_status_beyond_latin_1_arrives_intact(address: str) -> None:
    with receiver(address) as manager:
        notifier().ready("ok → für 東京 🔑")
        assert heard(manager) == ["READY=1\nSTATUS=ok → für 東京 🔑"]


def test_a_status_cannot_smuggle_in_another_word_nor_break_the_encoding(address: str) -> None:
    supervisor = notifier()
    with receiver(address) as manager:
        supervisor.status("bad\nREADY=1\r\x00\x1b[31m \ud800 end")
        assert heard(manager) == ["STATUS=bad READY=1 [31m end"]
        supervisor.status("x" * 600)
        assert heard(manager) == ["STATUS=" + "x" * 499 + "…"]


def test_an_unchanged_status_is_not_sent_again(address: str) -> None:
    supervisor = notifier()
    with receiver(address) as manager:
        supervisor.ready("fine")
        supervisor.status("fine")
        supervisor.status("worse")
        supervisor.status("worse")
        supervisor.ready("worse")
        assert heard(manager) == ["READY=1\nSTATUS=fine", "STATUS=worse", "READY=1\nSTATUS=worse"]


def test_a_status_that_was_lost_is_sent_at_the_next_chance(address: str) -> None:
    supervisor = notifier()
    supervisor.status("fine")
    assert supervisor.errors == 1
    with receiver(address) as manager:
        supervisor.status("fine")
        assert heard(manager) == ["STATUS=fine"]


def test_a_receiver_that_binds_anew_is_reached(address: str) -> None:
    supervisor = notifier()
    with receiver(address) as manager:
        supervisor.alive()
        assert heard(manager) == ["WATCHDOG=1"]
    Path(address).unlink()
    supervisor.alive()
    with receiver(address) as manager:
        supervisor.alive()
        assert heard(manager) == ["WATCHDOG=1"]
    assert supervisor.errors == 1


def test_a_full_queue_neither_blocks_nor_raises(address: str) -> None:
    supervisor = notifier()
    sent = 2000  # the queue holds net.unix.max_dgram_qlen, 10 to 512
    with receiver(address) as manager:
        for _ in range(sent):
            supervisor.alive()
        arrived = len(heard(manager))
    assert supervisor.errors == sent - arrived > 0


def test_a_missing_receiver_is_counted_and_leaves_no_socket(address: str) -> None:
    # Warnings are errors here: a socket left to the collector would fail this test.
    supervisor = notifier()
    before = set(os.listdir("/proc/self/fd"))
    for _ in range(50):
        supervisor.alive()
    assert supervisor.errors == 50
    assert len(set(os.listdir("/proc/self/fd")) - before) <= 1


def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    supervisor = notifier()
    supervisor.ready("fine")
    supervisor.alive()
    assert supervisor.errors == 0


def test_an_address_that_left_the_environment_is_counted(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = notifier()
    monkeypatch.delenv("NOTIFY_SOCKET")
    supervisor.alive()
    assert supervisor.errors == 1


@pytest.mark.parametrize(
    ("environ", "interval"),
    [
        ({"WATCHDOG_USEC": "60000000"}, timedelta(seconds=60)),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "77"}, timedelta(seconds=60)),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "78"}, None),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": ""}, None),
        ({"WATCHDOG_PID": "77"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "-5"}, None),
        ({"WATCHDOG_USEC": "1_000"}, None),
        ({"WATCHDOG_USEC": "٣"}, None),
        ({"WATCHDOG_USEC": "18446744073709551615"}, None),
        ({"WATCHDOG_USEC": "9" * 40}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_ours_only_if_it_is_valid_and_meant_for_us(
    environ: dict[str, str], interval: timedelta | None
) -> None:
    assert systemd.Notifier(environ, 77, lambda: 0).watchdog == interval


def test_children_cannot_speak_in_our_name() -> None:
    ours = {"NOTIFY_SOCKET": "/run/n", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "2", "PATH": "/bin", "INVOCATION_ID": "i"}
    assert systemd.scrub(ours) == {"PATH": "/bin", "INVOCATION_ID": "i"}
    assert "NOTIFY_SOCKET" in ours

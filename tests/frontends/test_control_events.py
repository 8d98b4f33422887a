"""Events over the control socket: what is remembered, who follows, and followers that are slow, many or gone."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rotator.core import errors, events, telling
from rotator.core.tokens import MASK
from rotator.frontends.control import Client
from rotator.frontends.control.chronicle import FOLLOWERS, REMEMBERED, WAITING, Chronicle, Wish
from rotator.frontends.control.server import Server
from tests.frontends.test_control import Daemon, request, run, say

AT = datetime(2026, 11, 23, 4, 5, 6, tzinfo=UTC)
SHORT = timedelta(milliseconds=200)


def followed(number: int = 1, grant: str = "billing") -> events.Followed:
    return events.Followed(at=AT + timedelta(seconds=number), grant=grant, generation=number)


def failed(reason: str = "disk full") -> events.DeliveryFailed:
    return events.DeliveryFailed(at=AT, grant="crm", target="app", reason=reason, retry_at=AT)


def begun() -> events.ExchangeStarted:
    return events.ExchangeStarted(at=AT, grant="billing", kind="password", generation=1, attempt=1)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "own" / "control.sock"


@asynccontextmanager
async def serving(path: Path, *before: events.Event, patience: timedelta = SHORT) -> AsyncIterator[Chronicle]:
    def unexpected(doing: str, error: Exception) -> None:
        raise AssertionError(doing) from error

    chronicle = Chronicle(before)
    server = Server(path, Daemon(), os.geteuid(), on_defect=unexpected, chronicle=chronicle, patience=patience)
    await server.start()
    try:
        yield chronicle
    finally:
        await server.close()


async def past(path: Path, **wish: Any) -> list[str]:
    documents = await asyncio.to_thread(lambda: list(Client(path).events(**wish)))
    return [f"{one['event']} {one.get('grant', '')} {one.get('generation', '')}".strip() for one in documents]


class Reader:
    """A connection that follows, as a program without our client has it."""

    def __init__(self, path: Path, query: str = "follow=true") -> None:
        self.link = socket.socket(socket.AF_UNIX)
        self.link.settimeout(20)
        self.link.connect(str(path))
        self.link.sendall(f"GET /v1/events?{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    def head(self) -> bytes:
        raw = b""
        while not raw.endswith(b"\r\n\r\n"):
            raw += self.link.recv(1)
        return raw

    def rest(self) -> bytes:
        raw = bytearray()
        while chunk := self.link.recv(1 << 16):
            raw += chunk
        return bytes(raw)

    def close(self) -> None:
        self.link.close()


def lines(chunked: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in chunked.split(b"\r\n") if line.startswith(b"{") for line in line.splitlines()]


# --- what is remembered -------------------------------------------------------------------------------------------


def test_the_recent_past_is_told_in_order_and_in_the_form_of_the_log(path: Path) -> None:
    async def test() -> None:
        async with serving(path, followed(1)) as chronicle:
            chronicle(failed())
            documents = await asyncio.to_thread(lambda: list(Client(path).events()))
        assert documents == [telling.document(followed(1)), telling.document(failed())]
        assert documents[0].keys() >= {"time", "level", "event", "message", "grant"}

    run(test)


def test_the_past_is_bounded(path: Path) -> None:
    async def test() -> None:
        async with serving(path) as chronicle:
            for number in range(REMEMBERED + 10):
                chronicle(followed(number))
            told = await past(path)
        assert len(told) == REMEMBERED
        assert told[0] == "grant.followed billing 10"

    run(test)


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        ({}, ["grant.followed billing 1", "delivery.failed crm", "grant.followed billing 2"]),
        ({"level": "debug"}, ["grant.followed billing 1", "exchange.started billing 1", "delivery.failed crm",
                              "grant.followed billing 2"]),
        ({"level": "error"}, ["delivery.failed crm"]),
        ({"grant": "billing"}, ["grant.followed billing 1", "grant.followed billing 2"]),
        ({"grant": "nobody"}, []),
        ({"since": telling.stamp(AT + timedelta(seconds=2))}, ["grant.followed billing 2"]),
    ],
)  # fmt: skip
def test_a_wish_leaves_out_what_is_not_asked_for(path: Path, wish: dict[str, str], told: list[str]) -> None:
    async def test() -> None:
        async with serving(path, followed(1), begun(), failed(), followed(2)):
            assert await past(path, **wish) == told

    run(test)


@pytest.mark.parametrize(
    "query",
    ["grant=s3cr3t-T", "level=s3cr3t", "since=s3cr3t", "since=2026-11-24T12:00:00", "follow=s3cr3t", "s3cr3t=1"],
)
def test_a_wish_that_is_none_is_refused_without_a_word_of_it(path: Path, query: str) -> None:
    async def test() -> None:
        async with serving(path):
            status, document, head = await say(path, request("GET", f"/v1/events?{query}"))
        assert status == 400
        assert "s3cr3t" not in str(document) + head

    run(test)


def test_events_are_asked_for_with_get(path: Path) -> None:
    async def test() -> None:
        async with serving(path):
            status, _, head = await say(path, request("POST", "/v1/events"))
        assert status == 405
        assert "Allow: GET" in head

    run(test)


def test_what_echoes_a_credential_is_masked_here_too(path: Path) -> None:
    async def test() -> None:
        async with serving(path, failed("got Bearer s3cr3t-0123456789")):
            (document,) = await asyncio.to_thread(lambda: list(Client(path).events()))
        assert "s3cr3t" not in str(document)
        assert MASK in document["reason"]

    run(test)


# --- following ----------------------------------------------------------------------------------------------------


def test_a_follower_hears_past_and_future_and_comes_to_an_end_with_the_daemon(path: Path) -> None:
    heard: list[int] = []
    first = threading.Event()

    def follow() -> None:
        for document in Client(path).events(follow=True, grant="billing"):
            heard.append(document["generation"])
            first.set()

    async def test() -> None:
        async with serving(path, followed(1)) as chronicle:
            following = asyncio.create_task(asyncio.to_thread(follow))
            await asyncio.to_thread(first.wait, 20)
            for number in range(2, 6):
                chronicle(followed(number))
                chronicle(failed())
        # The server is closed: the iterator ended, and raised nothing.
        await following
        assert heard == [1, 2, 3, 4, 5]

    run(test)


def test_the_end_of_a_follower_is_an_end_of_http(path: Path) -> None:
    async def test() -> None:
        async with serving(path) as chronicle:
            reader = Reader(path)
            head = await asyncio.to_thread(reader.head)
            chronicle(followed(1))
        raw = await asyncio.to_thread(reader.rest)
        reader.close()
        assert b"Transfer-Encoding: chunked" in head and b"application/jsonl" in head
        assert raw.endswith(b"\r\n0\r\n\r\n")
        assert [one["generation"] for one in lines(raw)] == [1]

    run(test)


def test_a_slow_reader_loses_the_oldest_and_is_told_how_many(path: Path) -> None:
    """Nobody else notices, and what waits for it stays bounded."""

    async def test() -> None:
        # Far more than the buffers of the socket hold.
        count = 5_000
        async with serving(path, patience=timedelta(seconds=10)) as chronicle:
            reader = Reader(path)
            await asyncio.to_thread(reader.head)
            for number in range(count):
                chronicle(followed(number))
                if number % 100 == 0:
                    await asyncio.sleep(0)
            assert len(await past(path)) == REMEMBERED
            closing = asyncio.create_task(asyncio.to_thread(reader.rest))
        told = lines(await closing)
        reader.close()
        dropped = [one for one in told if one["event"] == "bus.dropped"]
        numbers = [one["generation"] for one in told if one["event"] == "grant.followed"]
        assert dropped and all(one["count"] > 0 for one in dropped)
        assert sum(one["count"] for one in dropped) + len(numbers) == count
        assert numbers == sorted(numbers) and numbers[-1] == count - 1

    run(test)


def test_what_waits_for_a_follower_is_bounded() -> None:
    async def test() -> None:
        chronicle = Chronicle()
        follower = chronicle.follow(Wish(follow=True))
        for number in range(10_000):
            chronicle(followed(number))
        waiting = await follower.wait_lines()
        assert waiting is not None
        assert len(waiting) == WAITING + 1
        assert json.loads(waiting[0])["count"] == 10_000 - WAITING
        chronicle.close()
        assert await follower.wait_lines() is None

    run(test)


def test_followers_are_few_and_one_that_hangs_up_makes_room(path: Path) -> None:
    async def test() -> None:
        async with serving(path, patience=timedelta(seconds=5)):
            readers = [Reader(path) for _ in range(FOLLOWERS)]
            for reader in readers:
                await asyncio.to_thread(reader.head)
            with pytest.raises(errors.Transient, match="others follow"):
                await asyncio.to_thread(lambda: list(Client(path).events(follow=True)))
            assert await past(path) == [], "who only looks back takes no seat"
            assert (await asyncio.to_thread(Client(path).health)) == {"fine": True}
            readers[0].close()
            async with asyncio.timeout(10):
                while True:
                    late = Reader(path)
                    head = await asyncio.to_thread(late.head)
                    if b" 200 " in head:
                        break
                    late.close()
                    await asyncio.sleep(0.01)
            for reader in (*readers, late):
                reader.close()

    run(test)


def test_a_follower_that_does_not_read_does_not_hold_up_the_end(path: Path) -> None:
    async def test() -> None:
        async with serving(path, patience=SHORT) as chronicle:
            reader = Reader(path)
            await asyncio.to_thread(reader.head)
            for number in range(5000):
                chronicle(followed(number))
                await asyncio.sleep(0)
        reader.close()
        assert not path.exists()

    run(test)


@contextmanager
def answering(path: Path, answer: bytes) -> Iterator[None]:
    """Somebody who answers each with these bytes and hangs up."""
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            link, _ = listener.accept()
            with link:
                link.recv(4096)
                link.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        CHUNKED,
        CHUNKED + b'c\r\n{"event":1}\n\r\n',
        CHUNKED + b'b\r\n{"event":1}\r\n0\r\n\r\n',
        CHUNKED + b"c\r\nnot a thing\n\r\n0\r\n\r\n",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"fffffff\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}\n",
        b"SSH-2.0-x\r\n\r\n",
    ],
)
def test_an_answer_that_is_cut_off_or_none_is_no_end(path: Path, answer: bytes) -> None:
    with answering(path, answer), pytest.raises(errors.Unavailable):
        list(Client(path).events(follow=True))

"""How far the HTTP driver says that a request got, when the far end, the clock or the caller ends it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
from collections.abc import Iterator
from datetime import timedelta

import pytest

from rotator.core.ports import HttpAnswer, HttpRequest, Reach
from rotator.drivers.http import HttpxClient, dial
from tests.drivers.far_end import (
    LONG,
    OK,
    SECRET,
    SHORT,
    ask,
    expect,
    far_end,
    post,
    resets,
    says,
    says_and_hangs,
)


def test_refused_is_nothing_sent() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening: nobody else can take the port meanwhile
        answer = asyncio.run(HttpxClient().send(post(taken.getsockname()[1]), deadline=LONG))
    expect(answer, Reach.NOTHING, "refused")
    assert "127.0.0.1" in answer.detail


@pytest.mark.parametrize("host", ["no-such-host.invalid", f"{'a' * 70}.invalid", "-.invalid"])
def test_a_name_that_cannot_be_resolved(host: str) -> None:
    answer = asyncio.run(HttpxClient().send(post(80, host=host), deadline=LONG))
    expect(answer, Reach.NOTHING, "dns")


@pytest.mark.parametrize("url", ["ftp://localhost/x", "localhost", "", "https://", "http://[::1/x", "http://h:99999/"])
def test_an_impossible_url_is_told_and_not_raised(url: str) -> None:
    answer = asyncio.run(HttpxClient().send(HttpRequest("POST", url), deadline=LONG))
    assert answer.reach is Reach.NOTHING
    assert answer.failure in ("protocol", "dns")


@pytest.mark.parametrize("value", [f"{SECRET}\r\nX: y", f"{SECRET}\udc80"])
def test_a_header_that_would_break_the_request_sends_nothing(value: str) -> None:
    async def run() -> tuple[HttpAnswer, int]:
        async with far_end(says(OK)) as end:
            request = HttpRequest("POST", f"http://127.0.0.1:{end.port}/", (("A", value),))
            return await HttpxClient().send(request, deadline=LONG), end.connections

    answer, connections = asyncio.run(run())
    expect(answer, Reach.NOTHING, "protocol")
    assert connections == 0
    assert SECRET not in answer.detail


def test_one_dead_address_among_several_does_no_harm() -> None:
    """`localhost` is ::1 and 127.0.0.1 on most machines; the server listens on the latter alone."""
    answer, _ = ask(says(OK), host="localhost")
    expect(answer, Reach.COMPLETE, None, 200)


def test_reset_after_the_request_is_written() -> None:
    answer, _ = ask(resets)
    expect(answer, Reach.WRITTEN, "reset")


def test_reset_before_anything_was_read_counts_as_written() -> None:
    """Whether the bytes were looked at before the connection was thrown away, nobody can know."""
    answer, end = ask(resets, read=False)
    expect(answer, Reach.WRITTEN, "reset")
    assert end.requests == []


# More than the buffers of both ends take: the write itself is still going on.
LARGE = b"x" * (32 << 20)


def large(port: int) -> HttpRequest:
    return HttpRequest("POST", f"http://127.0.0.1:{port}/token", (), LARGE)


def test_reset_while_the_request_is_being_written() -> None:
    async def reads_a_little(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        await resets(reader, writer)

    async def run() -> HttpAnswer:
        async with far_end(reads_a_little, read=False) as end:
            return await HttpxClient().send(large(end.port), deadline=LONG)

    expect(asyncio.run(run()), Reach.WRITTEN, "reset")


def test_the_deadline_while_the_request_is_being_written() -> None:
    async def reads_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async def run() -> HttpAnswer:
        async with far_end(reads_nothing, read=False) as end:
            return await HttpxClient().send(large(end.port), deadline=SHORT)

    expect(asyncio.run(run()), Reach.WRITTEN, "timeout")


CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EARLY_HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


@pytest.mark.parametrize("interim", [CONTINUE, EARLY_HINTS, CONTINUE * 3 + EARLY_HINTS * 2])
def test_interim_answers_are_no_answer(interim: bytes) -> None:
    answer, _ = ask(says(interim, OK))
    expect(answer, Reach.COMPLETE, None, 200)
    assert answer.body == b"{}"
    answer, _ = ask(says(interim))
    expect(answer, Reach.WRITTEN, "reset")


def test_interim_answers_without_end_are_cut_by_the_deadline() -> None:
    async def forever(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            writer.write(EARLY_HINTS * 100)
            await writer.drain()

    answer, _ = ask(forever, deadline=SHORT)
    expect(answer, Reach.WRITTEN, "timeout")


def test_a_change_of_protocol_that_nobody_asked_for_is_no_answer() -> None:
    answer, _ = ask(says_and_hangs(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"), deadline=SHORT)
    assert answer.reach is Reach.WRITTEN
    assert answer.failure in ("protocol", "timeout")
    assert answer.status is None


@pytest.mark.parametrize(
    "lengths", [b"Content-Length: 2\r\nContent-Length: 3", b"Content-Length: -1", b"Content-Length: x"]
)
def test_a_length_that_is_none_makes_no_answer(lengths: bytes) -> None:
    answer, _ = ask(says_and_hangs(b"HTTP/1.1 200 OK\r\n" + lengths + b"\r\n\r\n{}"))
    expect(answer, Reach.WRITTEN, "protocol")


def test_closed_without_an_answer_is_written() -> None:
    answer, _ = ask(says())
    expect(answer, Reach.WRITTEN, "reset")


def test_headers_that_end_half_way() -> None:
    answer, _ = ask(says(b"HTTP/1.1 200 OK\r\nContent-Ty"))
    expect(answer, Reach.WRITTEN, "reset")


@pytest.mark.parametrize(
    "garbage",
    [
        f"{SECRET} is what you sent\r\n\r\n".encode(),
        b"\x00\xff" * 50 + b"\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"SSH-2.0-x\r\n",
    ],
)
def test_garbage_is_told_without_being_quoted(garbage: bytes) -> None:
    answer, _ = ask(says_and_hangs(garbage + b"\r\n" * 3))
    expect(answer, Reach.WRITTEN, "protocol")


def test_endless_headers_are_cut_off() -> None:
    answer, _ = ask(says_and_hangs(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 300_000))
    expect(answer, Reach.WRITTEN, "protocol")


def test_a_truncated_body_keeps_the_status() -> None:
    answer, _ = ask(says(OK[:-1]))
    expect(answer, Reach.STATUS, "reset", 200)
    assert answer.header("content-length") == "2"
    assert answer.body == b""


@pytest.mark.parametrize("rest", [b"5\r\nab", b"5\r\nabcde\r\n"])
def test_truncated_chunks(rest: bytes) -> None:
    answer, _ = ask(says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", rest))
    expect(answer, Reach.STATUS, "reset", 200)


def test_chunks_that_are_not_chunks() -> None:
    answer, _ = ask(says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"))
    expect(answer, Reach.STATUS, "protocol", 200)


@pytest.mark.parametrize(("size", "reach"), [(1000, Reach.COMPLETE), (1001, Reach.STATUS)])
def test_the_limit_is_the_largest_body(size: int, reach: Reach) -> None:
    answer, _ = ask(says(b"HTTP/1.1 502 Bad\r\n\r\n" + b"x" * size), limit=1000)
    expect(answer, reach, None if size == 1000 else "too large", 502)


def test_an_endless_body_is_cut_off() -> None:
    async def forever(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()

    answer, _ = ask(forever)
    expect(answer, Reach.STATUS, "too large", 200)


def test_a_compressed_body_is_not_inflated() -> None:
    answer, _ = ask(says(OK.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n")))
    expect(answer, Reach.STATUS, "protocol", 200)


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "br", "identity, gzip"])
def test_a_bomb_is_not_inflated(encoding: str) -> None:
    bomb = gzip.compress(b"0" * (64 << 20))
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(bomb)}\r\n\r\n".encode()
    answer, _ = ask(says(head, bomb))
    expect(answer, Reach.STATUS, "protocol", 200)
    assert answer.body == b""


def test_a_bomb_that_does_not_name_itself_stays_what_it_is() -> None:
    bomb = gzip.compress(b"0" * (64 << 20))
    answer, _ = ask(says(f"HTTP/1.1 200 OK\r\nContent-Length: {len(bomb)}\r\n\r\n".encode(), bomb))
    expect(answer, Reach.COMPLETE, None, 200)
    assert answer.body == bomb


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """A port that never answers a handshake: its backlog is full, so the kernel drops more, as a firewall would."""
    with socket.socket() as full, contextlib.ExitStack() as held:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield full.getsockname()[1]


def candidate(port: int, host: str = "127.0.0.1") -> dial.Address:
    return (socket.AF_INET, socket.SOCK_STREAM, 0, (host, port))


def test_the_deadline_while_connecting() -> None:
    with black_hole() as port:
        answer = asyncio.run(HttpxClient().send(post(port), deadline=SHORT))
    expect(answer, Reach.NOTHING, "connect timeout")


def test_a_silent_address_does_not_hold_up_the_next_one() -> None:
    async def run(silent: int) -> int:
        async with far_end(says(OK)) as end, asyncio.timeout(20):
            candidates = [candidate(silent), candidate(1), candidate(end.port), candidate(end.port)]
            with await dial.first_to_connect(candidates) as sock:
                return int(sock.getpeername()[1]) - end.port

    with black_hole() as silent:
        assert asyncio.run(run(silent)) == 0


def test_of_several_failures_the_most_telling_is_told() -> None:
    # A multicast address has no stream; the other one is refused.
    candidates = [candidate(1, "224.0.0.1"), candidate(1)]
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(dial.first_to_connect(candidates))
    with pytest.raises(OSError, match="unreachable"):
        asyncio.run(dial.first_to_connect(candidates[:1]))
    with pytest.raises(OSError, match="no address"):
        asyncio.run(dial.first_to_connect([]))


def test_the_deadline_in_the_tls_handshake() -> None:
    answer, _ = ask(says_and_hangs(), deadline=SHORT, scheme="https", read=False)
    expect(answer, Reach.CONNECTED, "connect timeout")


@pytest.mark.parametrize("parts", [[], [b"HTTP/1.1 100 Continue\r\n\r\n"], [b"HTTP/1.1 200 OK\r\nX"]])
def test_the_deadline_before_the_status(parts: list[bytes]) -> None:
    answer, _ = ask(says_and_hangs(*parts), deadline=SHORT)
    expect(answer, Reach.WRITTEN, "timeout")
    assert "0.3 s" in answer.detail


def test_the_deadline_in_the_body_cuts_a_slow_drip() -> None:
    async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b" ")
            await writer.drain()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reader.read(), 0.02)
                return

    answer, _ = ask(drips, deadline=SHORT)
    expect(answer, Reach.STATUS, "timeout", 200)


def test_a_deadline_of_zero_sends_nothing() -> None:
    answer, end = ask(says(OK), deadline=timedelta(0))
    expect(answer, Reach.NOTHING, "connect timeout")
    assert end.connections == 0


@pytest.mark.parametrize("parts", [[], [b"HTTP/1.1 200 OK\r\n\r\n{"]], ids=["before the status", "in the body"])
def test_cancellation_passes_through_and_closes_the_connection(parts: list[bytes]) -> None:
    async def run() -> None:
        arrived = asyncio.Event()

        async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.writelines(parts)
            await writer.drain()
            arrived.set()
            await reader.read()

        async with far_end(play) as end:
            sending = asyncio.create_task(HttpxClient().send(post(end.port), deadline=LONG))
            await asyncio.wait_for(arrived.wait(), 20)
            sending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await sending
            await asyncio.wait_for(end.ended.wait(), 20)

    asyncio.run(run())

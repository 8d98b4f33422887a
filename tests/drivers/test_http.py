"""The HTTP driver against real sockets: what it sends, and what it makes of answers."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys

import pytest

from rotator.core.ports import HttpAnswer, HttpRequest, Reach
from rotator.drivers.http import HttpxClient
from tests.drivers.far_end import (
    LONG,
    OK,
    SECRET,
    ask,
    expect,
    far_end,
    post,
    says,
    says_and_hangs,
)


def test_a_complete_answer_and_the_bytes_of_the_request() -> None:
    answer, end = ask(says(OK))
    expect(answer, Reach.COMPLETE, None, 200)
    assert answer.body == b"{}"
    assert answer.header("content-type") == "application/json"
    head, body = end.requests[0].split(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == f"POST /token?q={SECRET} HTTP/1.1".encode()
    assert set(lines[1:]) == {
        f"Host: 127.0.0.1:{end.port}".encode(), f"Content-Length: {len(SECRET)}".encode(), b"Connection: close",
        b"Accept-Encoding: identity", b"Content-Type: text/plain", f"Authorization: {SECRET}".encode(),
    }  # fmt: skip
    assert body == SECRET.encode()


def test_each_request_has_a_connection_of_its_own() -> None:
    async def run() -> int:
        client = HttpxClient()
        # The server would keep the connection open; we do not ask it to.
        async with far_end(says_and_hangs(OK)) as end:
            for _ in range(3):
                assert (await client.send(post(end.port), deadline=LONG)).reach is Reach.COMPLETE
            return end.connections

    assert asyncio.run(run()) == 3


def test_the_caller_cannot_ask_for_compression_or_keep_alive() -> None:
    async def run() -> bytes:
        async with far_end(says(OK)) as end:
            headers = (("accept-encoding", "gzip"), ("CONNECTION", "keep-alive"))
            await HttpxClient().send(HttpRequest("GET", f"http://127.0.0.1:{end.port}/", headers), deadline=LONG)
            return end.requests[0].lower()

    head = asyncio.run(run())
    assert b"gzip" not in head
    assert b"keep-alive" not in head


def test_a_client_serves_one_event_loop_after_the_other() -> None:
    client = HttpxClient()

    async def run() -> Reach:
        async with far_end(says(OK)) as end:
            return (await client.send(post(end.port), deadline=LONG)).reach

    assert [asyncio.run(run()), asyncio.run(run())] == [Reach.COMPLETE, Reach.COMPLETE]


@pytest.mark.parametrize(
    ("parts", "body"),
    [
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"], b"{}"),
        ([b"HTTP/1.1 200 OK\r\n\r\nuntil the end"], b"until the end"),
        ([b"HTTP/1.0 200 OK\r\n\r\nold"], b"old"),
        ([b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", OK], b"{}"),
        ([bytes([byte]) for byte in OK], b"{}"),
        ([b"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Length: 1\r\n\r\nx"], b"x"),
        ([b"HTTP/1.1 204 No Content\r\n\r\n"], b""),
    ],
    ids=["chunked", "until closed", "HTTP/1.0", "1xx first", "byte by byte", "identity", "204"],
)
def test_every_framing_of_a_body_is_read(parts: list[bytes], body: bytes) -> None:
    answer, _ = ask(says(*parts))
    assert answer.reach is Reach.COMPLETE
    assert answer.body == body


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_an_answer_and_is_not_followed(status: int) -> None:
    async def run() -> tuple[HttpAnswer, int]:
        async with far_end(says(OK)) as elsewhere:
            location = f"http://127.0.0.1:{elsewhere.port}/stolen"
            moved = f"HTTP/1.1 {status} Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
            async with far_end(says(moved)) as end:
                answer = await HttpxClient().send(post(end.port), deadline=LONG)
            return answer, elsewhere.connections

    answer, stolen = asyncio.run(run())
    expect(answer, Reach.COMPLETE, None, status)
    assert stolen == 0


def test_cookies_are_not_kept() -> None:
    async def run() -> list[bytes]:
        client = HttpxClient()
        cookie = OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: id=1; Path=/\r\n\r\n")
        async with far_end(says(cookie)) as end:
            await client.send(post(end.port), deadline=LONG)
            await client.send(post(end.port), deadline=LONG)
            return end.requests

    assert b"cookie" not in asyncio.run(run())[1].lower()


def test_importing_the_driver_is_cheap() -> None:
    code = (
        "import sys, rotator.drivers.http as d; d.HttpxClient();"
        "print([m for m in ('httpx', 'h11', 'ssl', 'asyncio') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert ran.stdout.strip() == "[]"


def test_the_library_does_not_log_urls(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    ask(says(OK))
    assert SECRET not in caplog.text
    assert not [record for record in caplog.records if record.name.startswith(("httpx", "httpcore"))]


def test_a_client_does_not_show_its_proxy() -> None:
    client = HttpxClient(proxy=f"http://u:{SECRET}@proxy.invalid")
    assert SECRET not in f"{client!r} {client.profile!r} {client.profile}"

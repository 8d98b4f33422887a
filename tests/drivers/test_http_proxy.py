"""The HTTP driver behind a proxy, where what is not known counts as written."""

from __future__ import annotations

import asyncio
import os
import socket
from datetime import timedelta

import pytest

from rotator.core.ports import HttpAnswer, HttpRequest, Reach
from rotator.drivers.http import HttpxClient
from tests.drivers.far_end import (
    LONG,
    OK,
    SECRET,
    FarEnd,
    Play,
    expect,
    far_end,
    post,
    says,
)


def through(
    proxy_play: Play, target: str = "http", environment: bool = False, seconds: int = 5
) -> tuple[HttpAnswer, FarEnd]:
    async def run() -> tuple[HttpAnswer, FarEnd]:
        async with far_end(proxy_play, read=target == "http") as end:
            url = f"http://user:{SECRET}@127.0.0.1:{end.port}"
            client = HttpxClient(proxy="environment" if environment else url)
            kept = {name: os.environ.pop(name, None) for name in ("HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy")}
            os.environ["HTTP_PROXY"] = url
            try:
                request = HttpRequest("POST", f"{target}://provider.invalid/token", body=b"x")
                return await client.send(request, deadline=timedelta(seconds=seconds)), end
            finally:
                del os.environ["HTTP_PROXY"]
                os.environ.update({name: value for name, value in kept.items() if value is not None})

    answer, end = asyncio.run(run())
    assert SECRET not in f"{answer!r} {answer.detail}"
    return answer, end


@pytest.mark.parametrize("environment", [False, True])
def test_a_proxy_is_used_where_configured(environment: bool) -> None:
    answer, end = through(says(OK), environment=environment)
    expect(answer, Reach.COMPLETE, None, 200)
    assert end.requests[0].startswith(b"POST http://provider.invalid/token HTTP/1.1\r\n")


def test_a_proxy_in_the_environment_is_not_used_unasked() -> None:
    async def run() -> tuple[HttpAnswer, int]:
        async with far_end(says(OK)) as proxy, far_end(says(OK)) as end:
            os.environ["ALL_PROXY"] = f"http://127.0.0.1:{proxy.port}"
            try:
                return await HttpxClient().send(post(end.port), deadline=LONG), proxy.connections
            finally:
                del os.environ["ALL_PROXY"]

    answer, proxied = asyncio.run(run())
    assert (answer.reach, proxied) == (Reach.COMPLETE, 0)


def test_a_tunnel_refused_is_nothing_sent() -> None:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await says(b"HTTP/1.1 407 Log in first\r\nContent-Length: 0\r\n\r\n")(reader, writer)

    answer, _ = through(play, "https")
    expect(answer, Reach.NOTHING, "proxy")
    assert "407" in answer.detail


def test_a_proxy_that_breaks_off_counts_as_written() -> None:
    answer, _ = through(says())
    assert (answer.reach, answer.status) == (Reach.WRITTEN, None)
    assert answer.failure in ("reset", "protocol")


@pytest.mark.parametrize("opens", [b"", b"HTTP/1.1 200 Connected\r\n\r\n"], ids=["tunnel", "handshake"])
def test_a_tunnel_that_is_not_opened_in_time_is_nothing_sent(opens: bytes) -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(opens)
        await reader.read()

    answer, _ = through(silent, "https", seconds=1)
    expect(answer, Reach.NOTHING, "timeout")


def test_a_proxy_that_keeps_silent_on_a_request_counts_as_written() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    answer, _ = through(silent, seconds=1)
    expect(answer, Reach.WRITTEN, "timeout")


def test_a_proxy_that_is_away_is_nothing_sent() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        client = HttpxClient(proxy=f"http://127.0.0.1:{taken.getsockname()[1]}")
        answer = asyncio.run(client.send(post(80, host="provider.invalid"), deadline=LONG))
    assert answer.reach is Reach.NOTHING
    assert answer.failure in ("refused", "connection")


def test_a_proxy_that_cannot_be_one_is_told_without_its_password() -> None:
    answer = asyncio.run(HttpxClient(proxy=f"gopher://u:{SECRET}@h").send(post(80), deadline=LONG))
    expect(answer, Reach.NOTHING, "proxy")
    assert SECRET not in answer.detail

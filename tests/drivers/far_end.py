"""A far end on loopback for the HTTP driver: it reads a request whole and then plays a scene."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from rotator.core.ports import HttpAnswer, HttpRequest, Reach
from rotator.drivers.http import HttpxClient

LONG = timedelta(seconds=20)
SHORT = timedelta(seconds=0.3)
SECRET = "s3cret-that-must-not-show"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"

Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@dataclass
class FarEnd:
    """A server that reads each request whole and then plays a scene. Its handlers end with it."""

    port: int = 0
    requests: list[bytes] = field(default_factory=list)
    connections: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)


@contextlib.asynccontextmanager
async def far_end(play: Play, tls: ssl.SSLContext | None = None, read: bool = True) -> AsyncIterator[FarEnd]:
    end = FarEnd()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        end.connections += 1
        try:
            if read:
                end.requests.append(await whole_request(reader))
            await play(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            end.ended.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    end.port = server.sockets[0].getsockname()[1]
    try:
        yield end
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def whole_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    return head + await reader.readexactly(length)


def says(*parts: bytes) -> Play:
    async def play(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()

    return play


def says_and_hangs(*parts: bytes) -> Play:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        await reader.read()

    return play


def says_and_ends(*parts: bytes) -> Play:
    """As `says`, under TLS with its farewell (close_notify)."""

    async def play(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.writelines(parts)
        writer.close()
        await writer.wait_closed()

    return play


async def resets(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def post(port: int, *, scheme: str = "http", host: str = "127.0.0.1", path: str = "/token") -> HttpRequest:
    headers = (("Content-Type", "text/plain"), ("Authorization", SECRET))
    return HttpRequest("POST", f"{scheme}://{host}:{port}{path}?q={SECRET}", headers, SECRET.encode())


def ask(
    play: Play, *, deadline: timedelta = LONG, limit: int = 1 << 20, tls: ssl.SSLContext | None = None,
    host: str = "127.0.0.1", ca_file: Path | None = None, scheme: str | None = None, read: bool = True,
) -> tuple[HttpAnswer, FarEnd]:  # fmt: skip
    async def run() -> tuple[HttpAnswer, FarEnd]:
        client = HttpxClient(ca_file=ca_file)
        async with far_end(play, tls, read) as end:
            request = post(end.port, scheme=scheme or ("https" if tls else "http"), host=host)
            answer = await client.send(request, deadline=deadline, limit=limit)
        await client.close()
        return answer, end

    answer, end = asyncio.run(run())
    assert SECRET not in repr(answer)
    assert SECRET not in answer.detail
    return answer, end


def expect(answer: HttpAnswer, reach: Reach, failure: str | None, status: int | None = None) -> None:
    assert (answer.reach, answer.failure, answer.status) == (reach, failure, status), answer
    assert (failure is None) == (answer.detail == "")

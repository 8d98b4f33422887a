"""From the wire to the class: every way in which a token request can end, played by a far end on loopback and seen
through both drivers. One request leaves for each exchange, whatever happens to it."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest

from rotator.core.grants import Charge, Kind, Outcome
from rotator.core.grants import OutcomeClass as C
from rotator.core.ports import Credentials, TokenRequest
from rotator.core.tokens import Secret
from rotator.drivers.http import HttpxClient
from rotator.drivers.oauth import Endpoint, Profile
from tests.drivers.far_end import LONG, SHORT, Play, far_end, resets, says, says_and_hangs

PASSWORD, SPENT = "c4n4ry-password-0123", "c4n4ry-refresh-token-4567"
TOKENS = (
    b'{"access_token":"c4n4ry-new-access","token_type":"bearer","expires_in":3600,"refresh_token":"c4n4ry-new-one"}'
)


def reply(status: str, body: bytes = b"", *headers: str, kind: str = "application/json") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def error(status: str, code: str, text: str = "") -> bytes:
    return reply(status, f'{{"error":"{code}","error_description":"{text}"}}'.encode())


def cut(raw: bytes, less: int) -> Play:
    return says(raw[:-less])


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> Play:
    body = b"".join(b"%x\r\n%s\r\n" % (len(one), one) for one in chunks)
    return says(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + body + end)


async def drips(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A byte now and a byte then: each read is quick, and the whole never ends."""
    writer.write(reply("200 OK", TOKENS)[: -len(TOKENS)])
    for byte in TOKENS * 1000:
        writer.write(bytes([byte]))
        await writer.drain()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(reader.read(), 0.02)
            return


@dataclass(frozen=True)
class Scene:
    name: str
    play: Play
    refresh: C
    password: C
    deadline: timedelta = LONG
    charge: Charge = Charge.ONE


def scene(name: str, play: Play, cls: C, password: C | None = None, **more: object) -> Scene:
    return Scene(name, play, cls, password or cls, **more)  # type: ignore[arg-type]


def said(name: str, raw: bytes, cls: C, password: C | None = None, **more: object) -> Scene:
    return scene(name, says(raw), cls, password, **more)


SCENES = [
    # --- it left, and no status came back
    scene("reset after the request", resets, C.DOUBTFUL),
    scene("closed after the request", says(), C.DOUBTFUL),
    scene("silence", says_and_hangs(), C.DOUBTFUL, deadline=SHORT),
    scene("headers cut", says(b"HTTP/1.1 200 OK\r\nContent-"), C.DOUBTFUL),
    scene("interim answers only", says(b"HTTP/1.1 100 Continue\r\n\r\n"), C.DOUBTFUL),
    scene("not HTTP", says(b"SSH-2.0-OpenSSH_9.6\r\n\r\n"), C.DOUBTFUL),
    # --- 200 and its body
    said("granted", reply("200 OK", TOKENS), C.GRANTED),
    said("granted after interim answers", b"HTTP/1.1 103 Early Hints\r\n\r\n" + reply("200 OK", TOKENS), C.GRANTED),
    scene("granted in chunks", chunked(TOKENS[:7], TOKENS[7:]), C.GRANTED),
    scene("granted until the connection closes", says(b"HTTP/1.0 200 OK\r\n\r\n" + TOKENS), C.GRANTED),
    scene("body cut", cut(reply("200 OK", TOKENS), 9), C.DOUBTFUL),
    scene("chunks without an end", chunked(TOKENS, end=b""), C.DOUBTFUL),
    scene("HTTP/1.0 body cut", says(b"HTTP/1.0 200 OK\r\n\r\n" + TOKENS[:-9]), C.DOUBTFUL),
    scene("slow drip", drips, C.DOUBTFUL, deadline=SHORT),
    said("body too large", reply("200 OK", b" " * (1 << 20) + TOKENS), C.DOUBTFUL),
    said("compressed", reply("200 OK", gzip.compress(TOKENS), "Content-Encoding: gzip"), C.DOUBTFUL),
    said("compressed without a word", reply("200 OK", gzip.compress(TOKENS)), C.DOUBTFUL),
    said("empty", reply("200 OK"), C.DOUBTFUL),
    said("204", reply("204 No Content"), C.DOUBTFUL),
    said("JSON of another shape", reply("200 OK", b"[1]"), C.DOUBTFUL),
    said("captive portal", reply("200 OK", b"<html>login", kind="text/html"), C.MISCONFIGURED, C.BUSY),
    said("line ends in the token", reply("200 OK", b'{"access_token":"a\\r\\nX: y","refresh_token":"r"}'), C.PARTIAL),
    said("error in a 200", error("200 OK", "invalid_grant"), C.REFRESH_DEAD, C.REFUSED),
    # --- the provider's own word
    said("invalid_grant", error("400 Bad Request", "invalid_grant", "It is unknown"), C.REFRESH_DEAD, C.REFUSED),
    said("invalid_grant with 403", error("403 Forbidden", "invalid_grant"), C.REFRESH_DEAD, C.REFUSED),
    said("no RFC body, but mapped", reply("400 Bad", b'{"status":"BAD_REFRESH_TOKEN"}'), C.REFRESH_DEAD, C.REFUSED),
    said("invalid_client", error("401 Unauthorized", "invalid_client"), C.REFUSED),
    said("invalid_request", error("400 Bad Request", "invalid_request"), C.MISCONFIGURED),
    said("no grant_type seen", error("400 Bad Request", "invalid_request", "Invalid grant_type parameter"),
         C.MISCONFIGURED, charge=Charge.NONE),
    said("unauthorized_client", error("400 Bad Request", "unauthorized_client"), C.MISCONFIGURED),
    said("error whose body is cut", error("400 Bad Request", "invalid_grant")[:-3], C.BUSY),
    # --- the status alone
    said("302", reply("302 Found", b"", "Location: /elsewhere"), C.MISCONFIGURED),
    said("401 of a proxy", reply("401 Unauthorized", b"", "WWW-Authenticate: Basic"), C.MISCONFIGURED),
    said("404", reply("404 Not Found", b"<html>", kind="text/html"), C.MISCONFIGURED),
    said("407", reply("407 Proxy Authentication Required"), C.MISCONFIGURED, charge=Charge.NONE),
    said("408", reply("408 Request Timeout"), C.NOT_SENT),
    said("423", reply("423 Locked"), C.MISCONFIGURED, C.REFUSED),
    said("429", reply("429 Too Many Requests", b"", "Retry-After: 7"), C.BUSY, charge=Charge.HALF),
    said("500", reply("500 Internal Server Error", b"<html>", kind="text/html"), C.DOUBTFUL),
    said("502", reply("502 Bad Gateway"), C.DOUBTFUL),
    said("503", reply("503 Service Unavailable", b"", "Retry-After: soon"), C.BUSY),
]  # fmt: skip


def request_of(kind: Kind) -> TokenRequest:
    credentials = Credentials("client", None, "user", Secret(PASSWORD), "digest")
    return TokenRequest(kind, credentials, Secret(SPENT) if kind is Kind.REFRESH else None)


def endpoint(url: str) -> Endpoint:
    profile = Profile(token_url=url, error_map={"BAD_REFRESH_TOKEN": "invalid_grant"})
    return Endpoint(profile, HttpxClient())


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize("played", SCENES, ids=lambda one: one.name)
def test_each_way_to_end_has_its_class_and_is_tried_once(played: Scene, kind: Kind) -> None:
    async def run() -> tuple[Outcome, int, int]:
        async with far_end(played.play) as end:
            far = endpoint(f"http://127.0.0.1:{end.port}/token")
            outcome = await far.exchange(request_of(kind), deadline=played.deadline)
            return outcome, len(end.requests), end.connections

    outcome, requests, connections = asyncio.run(run())
    assert outcome.cls is (played.refresh if kind is Kind.REFRESH else played.password), outcome.message
    assert outcome.charge is played.charge
    assert (requests, connections) == (1, 1), "what may have been carried out is never sent again by a driver"
    assert "c4n4ry" not in f"{outcome!r} {outcome.message} {outcome.mend}"


def a_closed_port() -> tuple[str, Callable[[], None]]:
    """Bound and not listening, so that nobody else can take it meanwhile."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    return f"http://127.0.0.1:{taken.getsockname()[1]}/token", taken.close


@pytest.mark.parametrize("kind", list(Kind))
def test_what_never_left_is_not_sent(kind: Kind) -> None:
    closed, close = a_closed_port()
    try:
        for url in (closed, "https://no-such-host.invalid/token", "http://[::1"):
            outcome = asyncio.run(endpoint(url).exchange(request_of(kind), deadline=LONG))
            assert outcome.cls is C.NOT_SENT, outcome.message
    finally:
        close()


@pytest.mark.parametrize("kind", list(Kind))
def test_a_server_that_speaks_no_tls_is_not_sent_anything_and_not_hammered(kind: Kind) -> None:
    async def run() -> tuple[Outcome, bytes]:
        heard = bytearray()

        async def listens(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            heard.extend(await reader.read(1 << 16))
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            await writer.drain()

        async with far_end(listens, read=False) as end:
            far = endpoint(f"https://127.0.0.1:{end.port}/token")
            return await far.exchange(request_of(kind), deadline=LONG), bytes(heard)

    outcome, heard = asyncio.run(run())
    assert outcome.cls is C.NOT_SENT
    assert outcome.pace == (timedelta(minutes=1), timedelta(minutes=15))
    assert b"c4n4ry" not in heard


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_place_that_a_redirect_names_hears_nothing(status: int) -> None:
    async def run() -> tuple[Outcome, int]:
        async with far_end(says(reply("200 OK", TOKENS))) as elsewhere:
            to = reply(f"{status} Moved", b"", f"Location: http://127.0.0.1:{elsewhere.port}/token")
            async with far_end(says(to)) as end:
                far = endpoint(f"http://127.0.0.1:{end.port}/token")
                return await far.exchange(request_of(Kind.PASSWORD), deadline=LONG), elsewhere.connections

    outcome, connections = asyncio.run(run())
    assert outcome.cls is C.MISCONFIGURED
    assert connections == 0

"""The HTTP driver against real sockets on loopback: what it sends, what it makes of answers, how far it says it got."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import logging
import os
import socket
import ssl
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

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


# --- answers ----------------------------------------------------------------------------------------------------


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


# --- failures, by how far the request got -----------------------------------------------------------------------


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


# --- deadlines and cancellation ---------------------------------------------------------------------------------


def test_the_deadline_while_connecting() -> None:
    # A full backlog: the kernel then drops further handshakes, as a firewall would.
    with socket.socket() as full, contextlib.ExitStack() as held:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        answer = asyncio.run(HttpxClient().send(post(full.getsockname()[1]), deadline=SHORT))
    expect(answer, Reach.NOTHING, "connect timeout")


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


# --- TLS --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Authority:
    """A CA made for these tests, and servers that it vouches for."""

    folder: Path
    name: str
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def file(self) -> Path:
        return self.folder / f"{self.name}.pem"

    def server(self, name: str, *, days: int = 1, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(name))
        except ValueError:
            alternative = x509.DNSName(name)
        signed = (
            _builder(name, self.certificate.subject, key, days)
            .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
            .sign(self.key, hashes.SHA256())
        )
        pair = self.folder / f"{self.name}-{name}-{days}.pem"
        pair.write_bytes(_pem(key) + signed.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair)
        if version is not None:
            context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
            context.maximum_version = version
        return context


def _builder(name: str, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    start, end = sorted((now - timedelta(days=30), now + timedelta(days=days)))
    return (
        x509.CertificateBuilder().subject_name(_named(name)).issuer_name(issuer).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(start).not_valid_after(end)
    )  # fmt: skip


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Authority, Authority]]:
    folder = tmp_path_factory.mktemp("authorities")

    def made(name: str) -> Authority:
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            _builder(name, _named(name), key, 2)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return Authority(folder, name, key, certificate)

    yield made("ours"), made("theirs")


Authorities = tuple[Authority, Authority]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_tls_with_our_own_ca(authorities: Authorities, host: str) -> None:
    ours, _ = authorities
    answer, end = ask(says(OK), tls=ours.server(host), host=host, ca_file=ours.file)
    expect(answer, Reach.COMPLETE, None, 200)
    assert answer.body == b"{}"
    assert len(end.requests) == 1


def test_tls_names_the_host_and_offers_http_1_only(authorities: Authorities) -> None:
    ours, _ = authorities
    context = ours.server("localhost")
    context.set_alpn_protocols(["h2", "http/1.1"])
    met: list[str | None] = []
    context.sni_callback = lambda sock, name, _: met.append(name)

    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        met.append(writer.get_extra_info("ssl_object").selected_alpn_protocol())
        await says(OK)(reader, writer)

    answer, _ = ask(play, tls=context, host="localhost", ca_file=ours.file)
    assert answer.reach is Reach.COMPLETE
    assert met == ["localhost", "http/1.1"]


@pytest.mark.parametrize("fault", ["wrong host", "expired", "unknown CA", "system store"])
def test_a_certificate_that_proves_nothing_gets_no_byte(authorities: Authorities, fault: str) -> None:
    ours, theirs = authorities
    context = {
        "wrong host": lambda: ours.server("another.example"),
        "expired": lambda: ours.server("127.0.0.1", days=-2),
        "unknown CA": lambda: theirs.server("127.0.0.1"),
        "system store": lambda: ours.server("127.0.0.1"),
    }[fault]()
    answer, end = ask(says(OK), tls=context, ca_file=None if fault == "system store" else ours.file)
    expect(answer, Reach.CONNECTED, "certificate")
    assert end.requests == []
    told = {"wrong host": "mismatch", "expired": "expired", "unknown CA": "issuer", "system store": "issuer"}[fault]
    assert told in answer.detail


def test_a_plain_server_where_tls_is_expected() -> None:
    answer, end = ask(says(OK), scheme="https", read=False)
    expect(answer, Reach.CONNECTED, "tls")
    assert "does not speak TLS" in answer.detail


def test_text_before_the_handshake_is_never_taken_for_an_answer(authorities: Authorities) -> None:
    """A stranger in between could send a plain answer first and then let TLS through."""
    ours, _ = authorities

    async def run() -> HttpAnswer:
        async with far_end(says(OK), ours.server("127.0.0.1")) as true:

            async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
                await writer.drain()
                onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", true.port)
                try:
                    onward_writer.write(await reader.read(65536))
                    writer.write(await onward_reader.read(65536))
                    await reader.read(65536)
                finally:
                    onward_writer.transport.abort()

            async with far_end(between, read=False) as end:
                return await HttpxClient(ca_file=ours.file).send(post(end.port, scheme="https"), deadline=LONG)

    answer = asyncio.run(run())
    assert answer.reach is Reach.CONNECTED
    assert answer.body == b""


def test_a_connection_cut_in_the_handshake_is_not_written() -> None:
    answer, _ = ask(resets, scheme="https", read=False)
    expect(answer, Reach.CONNECTED, "reset")


def test_old_tls_is_refused(authorities: Authorities) -> None:
    ours, _ = authorities
    with pytest.warns(DeprecationWarning):
        context = ours.server("127.0.0.1", version=ssl.TLSVersion.TLSv1_1)
    context.set_ciphers("ALL:@SECLEVEL=0")
    answer, end = ask(says(OK), tls=context, ca_file=ours.file)
    assert (answer.reach, answer.status) == (Reach.CONNECTED, None)
    assert answer.failure in ("tls", "reset")
    assert end.requests == []


def test_a_reset_under_tls_after_the_request_is_written(authorities: Authorities) -> None:
    ours, _ = authorities
    answer, _ = ask(resets, tls=ours.server("127.0.0.1"), ca_file=ours.file)
    expect(answer, Reach.WRITTEN, "reset")


@pytest.mark.parametrize("content", [None, b"not PEM"])
def test_a_ca_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None) -> None:
    ca_file = tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_bytes(content)
    answer, end = ask(says(OK), scheme="https", ca_file=ca_file)
    expect(answer, Reach.NOTHING, "certificate")
    assert str(ca_file) in answer.detail
    assert end.connections == 0


def test_a_replaced_ca_file_counts_at_once(authorities: Authorities, tmp_path: Path) -> None:
    ours, theirs = authorities
    ca_file = tmp_path / "ca.pem"
    ca_file.write_bytes(theirs.file.read_bytes())

    async def run() -> list[str | None]:
        client = HttpxClient(ca_file=ca_file)
        async with far_end(says(OK), ours.server("127.0.0.1")) as end:
            before = await client.send(post(end.port, scheme="https"), deadline=LONG)
            fresh = tmp_path / "fresh"
            fresh.write_bytes(ours.file.read_bytes())
            fresh.replace(ca_file)
            after = await client.send(post(end.port, scheme="https"), deadline=LONG)
        return [before.failure, after.failure]

    assert asyncio.run(run()) == ["certificate", None]


# --- proxies ----------------------------------------------------------------------------------------------------


def through(proxy_play: Play, target: str = "http", environment: bool = False) -> tuple[HttpAnswer, FarEnd]:
    async def run() -> tuple[HttpAnswer, FarEnd]:
        async with far_end(proxy_play, read=target == "http") as end:
            url = f"http://user:{SECRET}@127.0.0.1:{end.port}"
            client = HttpxClient(proxy="environment" if environment else url)
            kept = {name: os.environ.pop(name, None) for name in ("HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy")}
            os.environ["HTTP_PROXY"] = url
            try:
                request = HttpRequest("POST", f"{target}://provider.invalid/token", body=b"x")
                return await client.send(request, deadline=timedelta(seconds=5)), end
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


# --- manners ----------------------------------------------------------------------------------------------------


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

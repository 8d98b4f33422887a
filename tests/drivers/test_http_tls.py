"""TLS of the HTTP driver: whom it trusts, and that nobody else gets a byte."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import select
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rotator.core.ports import HttpAnswer, Reach
from rotator.drivers.http import HttpxClient, secure, tls
from tests.drivers.far_end import (
    LONG,
    OK,
    Play,
    ask,
    expect,
    far_end,
    post,
    resets,
    says,
    says_and_ends,
    says_and_hangs,
)


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
    answer, _ = ask(says(OK), scheme="https", read=False)
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


async def _dripping(true: int, client: HttpxClient) -> HttpAnswer:
    """By way of somebody who hands on one byte at a time."""

    async def between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", true)
        onward = asyncio.create_task(_pump(reader, onward_writer, 1))
        try:
            await _pump(onward_reader, writer, 1)
        finally:
            onward.cancel()
            onward_writer.transport.abort()

    async with far_end(between, read=False) as end:
        return await client.send(post(end.port, scheme="https"), deadline=LONG)


def test_a_handshake_in_single_bytes_is_a_handshake(authorities: Authorities) -> None:
    ours, _ = authorities

    async def run() -> HttpAnswer:
        client = HttpxClient(ca_file=ours.file)
        async with far_end(says(OK), ours.server("127.0.0.1")) as true:
            return await _dripping(true.port, client)

    expect(asyncio.run(run()), Reach.COMPLETE, None, 200)


def test_much_is_sent_and_read_whole_under_tls(authorities: Authorities) -> None:
    """More than any buffer on the way holds, both ways: OpenSSL then asks to write, or to read, once more."""
    ours, _ = authorities
    sent, answered = 8 << 20, 5 << 20
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {answered}\r\n\r\n".encode()

    async def run() -> tuple[HttpAnswer, list[bytes]]:
        client = HttpxClient(ca_file=ours.file)

        async with far_end(says_and_hangs(head + b"y" * answered), ours.server("127.0.0.1")) as true:
            request = replace(post(true.port, scheme="https"), body=b"x" * sent)
            return await client.send(request, deadline=LONG, limit=answered), true.requests

    answer, requests = asyncio.run(run())
    expect(answer, Reach.COMPLETE, None, 200)
    assert answer.body == b"y" * answered
    assert [len(one.partition(b"\r\n\r\n")[2]) for one in requests] == [sent]


def test_a_connection_ended_in_the_middle_of_a_body_under_tls_is_cut(authorities: Authorities) -> None:
    ours, _ = authorities
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"
    answer, _ = ask(says(head), tls=ours.server("127.0.0.1"), ca_file=ours.file)
    expect(answer, Reach.STATUS, "reset", 200)


VERSIONS = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
UNTIL_THE_END = b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"a":1}'


@VERSIONS
def test_a_body_until_the_end_is_whole_only_with_the_farewell_of_tls(
    authorities: Authorities, version: ssl.TLSVersion
) -> None:
    """RFC 9112 section 9.8: whoever cuts the line could else make a whole answer of half of one."""
    ours, _ = authorities
    context = ours.server("127.0.0.1", version=version)
    cut, _ = ask(says(UNTIL_THE_END), tls=context, ca_file=ours.file)
    expect(cut, Reach.STATUS, "reset", 200)
    ended, _ = ask(says_and_ends(UNTIL_THE_END), tls=context, ca_file=ours.file)
    expect(ended, Reach.COMPLETE, None, 200)
    assert ended.body == b'{"a":1}'


WHOLE = {
    "length": OK,
    "length, bare line ends": OK.replace(b"\r\n", b"\n"),
    "chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "no body": b"HTTP/1.1 204 No Content\r\n\r\n",
}


@VERSIONS
@pytest.mark.parametrize("kind", WHOLE)
def test_an_answer_that_is_whole_by_itself_needs_no_farewell(
    authorities: Authorities, version: ssl.TLSVersion, kind: str
) -> None:
    ours, _ = authorities
    answer, _ = ask(says(WHOLE[kind]), tls=ours.server("127.0.0.1", version=version), ca_file=ours.file)
    expect(answer, Reach.COMPLETE, None, 204 if kind == "no body" else 200)
    assert answer.body == (b"" if kind == "no body" else b"{}")


@VERSIONS
def test_the_same_holds_through_a_proxy(authorities: Authorities, version: ssl.TLSVersion) -> None:
    ours, _ = authorities
    context = ours.server("127.0.0.1", version=version)

    async def run(play: Play) -> HttpAnswer:
        async with far_end(play, context) as true, far_end(_tunnel(true.port), read=False) as proxy:
            client = HttpxClient(ca_file=ours.file, proxy=f"http://127.0.0.1:{proxy.port}")
            return await client.send(post(true.port, scheme="https"), deadline=LONG)

    expect(asyncio.run(run(says(UNTIL_THE_END))), Reach.STATUS, "reset", 200)
    for play in (says_and_ends(UNTIL_THE_END), *(says(answer) for answer in WHOLE.values())):
        assert asyncio.run(run(play)).reach is Reach.COMPLETE


def _tunnel(port: int) -> Play:
    async def play(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", port)
        onward = asyncio.create_task(_pump(reader, onward_writer))
        try:
            await _pump(onward_reader, writer)
            writer.write_eof()
        finally:
            onward.cancel()
            onward_writer.transport.abort()

    return play


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, at_once: int = 1 << 16) -> None:
    while data := await reader.read(at_once):
        writer.write(data)
        await writer.drain()


def test_who_gives_up_in_the_turn_in_which_the_handshake_goes_on_hears_of_nothing_else() -> None:
    """Both in one turn of the loop: what came is then told to somebody who is no longer there."""

    async def run() -> list[dict[str, object]]:
        loop, told = asyncio.get_running_loop(), list[dict[str, object]]()
        loop.set_exception_handler(lambda _, context: told.append(context))
        near, far = socket.socketpair()
        near.setblocking(False)
        with far:
            shaking = asyncio.create_task(secure.secured(near, tls.context(None), "provider.example"))
            # It waits for the server's first word.
            while not select.select([far], [], [], 0)[0]:
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            far.send(b"\x16")
            loop.call_soon(shaking.cancel)
            with pytest.raises(asyncio.CancelledError):
                await shaking
            await asyncio.sleep(0)
        return told

    assert asyncio.run(run()) == []


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


@pytest.mark.parametrize(
    ("named", "failure"), [("ours.pem", None), ("theirs.pem", "certificate"), ("no", "certificate")]
)
def test_the_system_store_is_where_openssl_is_told(
    authorities: Authorities, monkeypatch: pytest.MonkeyPatch, named: str, failure: str | None
) -> None:
    ours, _ = authorities
    monkeypatch.setenv("SSL_CERT_FILE", str(ours.folder / named))
    monkeypatch.setenv("SSL_CERT_DIR", str(ours.folder / "none"))
    answer, _ = ask(says(OK), tls=ours.server("127.0.0.1"))
    assert answer.failure == failure


def test_a_machine_without_cas_trusts_the_bundled_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)
    bare = ssl.get_default_verify_paths()._replace(cafile=None, capath=None)
    monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: bare)
    assert tls.context(None).cert_store_stats()["x509_ca"] > 50


def test_verification_is_always_on(authorities: Authorities) -> None:
    for made in (tls.context(None), tls.context(authorities[0].file)):
        assert made.verify_mode is ssl.CERT_REQUIRED
        assert made.check_hostname
        assert made.minimum_version is ssl.TLSVersion.TLSv1_2


def test_whom_to_trust_is_no_question_of_a_plain_url(tmp_path: Path) -> None:
    """Reading the system's authorities takes longer than the exchange; it is not done in vain."""

    async def run() -> HttpAnswer:
        async with far_end(says(OK)) as end:
            return await HttpxClient(ca_file=tmp_path / "absent.pem").send(post(end.port), deadline=LONG)

    assert asyncio.run(run()).reach is Reach.COMPLETE

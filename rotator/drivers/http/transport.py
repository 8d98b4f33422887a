"""The one file that imports httpx: one request on one connection, and how far it got.

httpx's own connections cannot tell whether a byte of the request had left when something failed, and for a token
request that is the only question: before the first byte a retry is free, after it a refresh token may be spent.
`StreamTransport` therefore speaks HTTP/1.1 itself (asyncio streams and h11) and notes every step in a `Progress`.
Behind a proxy httpx's connections are used, and what is not known counts as written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import h11

from rotator.core.ports import HttpAnswer, HttpRequest, Reach
from rotator.drivers.http import dial, failures, patience

# httpx imports its own command line where click and rich happen to be installed: 85 of 150 ms before the first
# token, and megabytes for ever. None makes that one import fail, as the language reference has it (section 5.3.1),
# and httpx provides for that.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

import httpx  # noqa: E402 (after the line above)

CHUNK = 1 << 16
HEAD_LIMIT = 1 << 16
PROXY_FROM_ENVIRONMENT = "environment"
# httpx counts per read, which a slow drip never exceeds; the deadline bounds the whole.
_NO_TIMEOUT = httpx.Timeout(None)
# Their INFO and DEBUG lines hold whole URLs and headers.
for _name in (httpx.__name__, "httpcore", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.WARNING)


@dataclass(slots=True)
class Progress:
    """How far one request got. It lives outside the request, so that a timeout can still tell."""

    reach: Reach = Reach.NOTHING
    stage: failures.Stage = failures.Stage.LOOKUP
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""

    def note(self, reach: Reach, stage: failures.Stage) -> None:
        self.reach, self.stage = reach, stage


async def exchange(
    request: HttpRequest, tls: ssl.SSLContext, proxy: str | None, *, deadline: timedelta, limit: int
) -> HttpAnswer:
    """Send one request and read its answer; whatever the far end does is told in the answer, never raised."""
    progress = Progress()
    host = "the request"
    try:
        outgoing = _outgoing(request, progress)
        host = _place(outgoing.url)
        async with patience.within(deadline), _client(tls, proxy, progress) as client:
            await _converse(client, outgoing, progress, limit)
    except (OSError, EOFError, ValueError, h11.ProtocolError, httpx.HTTPError, httpx.InvalidURL) as error:
        # An answer that is whole stays whole, also when the deadline strikes while its connection is put away.
        if progress.reach is not Reach.COMPLETE:
            reach = Reach.NOTHING if isinstance(error, _NEVER_LEFT) else progress.reach
            word, detail = failures.told(_cause(error), progress.stage, host, deadline)
            return HttpAnswer(reach, progress.status, progress.headers, failure=word, detail=detail)
    return HttpAnswer(Reach.COMPLETE, progress.status, progress.headers, progress.body)


async def knock(url: str, tls: ssl.SSLContext, *, deadline: timedelta) -> HttpAnswer:
    """Connect, shake hands for TLS, and say nothing. ``failure`` is None where somebody is there."""
    progress, place = Progress(), httpx.URL(url)
    try:
        async with patience.within(deadline):
            _reader, writer = await StreamTransport(tls).connect(place, progress)
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
    except (OSError, EOFError, ValueError) as error:
        word, detail = failures.told(_cause(error), progress.stage, _place(place), deadline)
        return HttpAnswer(progress.reach, failure=word, detail=detail)
    return HttpAnswer(progress.reach)


# What httpx raises before a byte of the request itself can have left; its tunnel refused counts among them.
_NEVER_LEFT = (
    httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol,
)  # fmt: skip


def _outgoing(request: HttpRequest, progress: Progress) -> httpx.Request:
    own = {"connection", "accept-encoding"}
    headers = [(name, value) for name, value in request.headers if name.lower() not in own]
    # identity: a body that need not be inflated cannot blow up, and the limit counts what was sent.
    headers += [("Accept-Encoding", "identity"), ("Connection", "close")]
    try:
        # Made by hand: the client's build_request would add its own headers and cookies.
        outgoing = httpx.Request(
            request.method, request.url, headers=headers, content=request.body, extensions={"progress": progress}
        )
    except UnicodeError:
        # Its text quotes the value, which may be a credential.
        raise failures.Unusable("protocol", failures.NOT_HTTP) from None
    if outgoing.url.scheme not in ("http", "https") or not outgoing.url.host:
        raise failures.Unusable("protocol", "the URL is not one of http or https with a host")
    return outgoing


def _client(tls: ssl.SSLContext, proxy: str | None, progress: Progress) -> httpx.AsyncClient:
    """A client for one request: it holds no pool, no cookies and no event loop for the next one."""
    if proxy is None:
        return httpx.AsyncClient(
            transport=StreamTransport(tls), trust_env=False, follow_redirects=False, timeout=_NO_TIMEOUT
        )
    try:
        client = httpx.AsyncClient(
            verify=tls, proxy=None if proxy == PROXY_FROM_ENVIRONMENT else _proxy(proxy, tls),
            trust_env=proxy == PROXY_FROM_ENVIRONMENT, follow_redirects=False, timeout=_NO_TIMEOUT,
        )  # fmt: skip
    except (ValueError, ImportError, httpx.InvalidURL):
        # Their texts quote the proxy's URL, which may hold a password.
        raise failures.Unusable("proxy", "the `proxy` setting is not a proxy URL that can be used") from None
    progress.note(Reach.WRITTEN, failures.Stage.PROXY)
    return client


def _proxy(url: str, tls: ssl.SSLContext) -> httpx.Proxy:
    return httpx.Proxy(url, ssl_context=tls if url.startswith("https:") else None)


async def _converse(client: httpx.AsyncClient, outgoing: httpx.Request, progress: Progress, limit: int) -> None:
    response = await client.send(outgoing, stream=True)
    try:
        progress.status = response.status_code
        progress.headers = tuple((n.decode("latin-1").lower(), v.decode("latin-1")) for n, v in response.headers.raw)
        progress.note(Reach.STATUS, failures.Stage.BODY)
        encoding = response.headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", "identity"):
            raise failures.Unusable("protocol", "the body is compressed although that was declined")
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > limit:
                raise failures.Unusable("too large", f"the body is larger than {limit} bytes")
        progress.body = bytes(body)
        progress.reach = Reach.COMPLETE
    finally:
        await response.aclose()


def _place(url: httpx.URL) -> str:
    """Host and port for a message: never the user, the path or the query."""
    name = f"[{url.host}]" if ":" in url.host else url.host
    return f"{name}:{_port(url)}"


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


def _cause(error: BaseException) -> BaseException:
    """The error of the socket or of TLS beneath what httpx made of it."""
    below: BaseException | None = error
    while below is not None:
        if isinstance(below, (OSError, UnicodeError, failures.Unusable)):
            return below
        below = below.__cause__ or below.__context__
    return failures.from_library(type(error).__name__, str(error))


class StreamTransport(httpx.AsyncBaseTransport):
    """One connection per request on asyncio streams, spoken by h11; notes each step in ``extensions["progress"]``."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._tls = tls

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Raises OSError and EOFError as the socket gives them, h11.ProtocolError for what is not HTTP."""
        progress: Progress = request.extensions["progress"]
        protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT)
        # Serialised before anything is opened: what cannot be written down has surely not been sent.
        payload = await _serialised(protocol, request)
        reader, writer = await self.connect(request.url, progress)
        answer = _Answer(protocol, reader, writer)
        try:
            # Before the write, not after it: a byte handed to the kernel is a byte the server may have.
            progress.note(Reach.WRITTEN, failures.Stage.ANSWER)
            writer.write(payload)
            await writer.drain()
            head = await answer.head()
        except BaseException:
            await answer.aclose()
            raise
        return httpx.Response(head.status_code, headers=head.headers.raw_items(), stream=answer)

    async def connect(self, url: httpx.URL, progress: Progress) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection, with TLS where the URL says so. Raises OSError and EOFError as the socket gives them."""
        host = url.raw_host.decode("ascii")
        addresses = await dial.addresses(host, _port(url))
        progress.note(Reach.NOTHING, failures.Stage.CONNECT)
        sock = await dial.first_to_connect(addresses)
        progress.note(Reach.CONNECTED, failures.Stage.HANDSHAKE)
        secure = url.scheme == "https"
        try:
            # TLS from the first byte, not StreamWriter.start_tls: that would hand on what a stranger sent before
            # the handshake as if it had come through it.
            reader, writer = await asyncio.open_connection(
                sock=sock, ssl=self._tls if secure else None, server_hostname=host if secure else None
            )
        except BaseException:
            sock.close()
            raise
        if not secure:
            # A handshake has proved that what comes is read.
            _read_on(writer)
        return reader, writer


def _read_on(writer: asyncio.StreamWriter) -> None:
    """Listen to the connection once more: asyncio begins in a callback, where a failure (epoll_ctl(2): ENOMEM, ENOSPC)
    is only logged. A request would then leave, and nobody would ever read its answer. Raises OSError."""
    transport = writer.transport
    assert isinstance(transport, asyncio.Transport)  # noqa: S101 (what open_connection makes)
    try:
        transport.pause_reading()
        transport.resume_reading()
    except BaseException:
        transport.abort()
        raise


async def _serialised(protocol: h11.Connection, request: httpx.Request) -> bytes:
    head = h11.Request(method=request.method, target=request.url.raw_path, headers=request.headers.raw)
    parts: tuple[h11.Event, ...] = (head, h11.Data(data=await request.aread()), h11.EndOfMessage())
    return b"".join(protocol.send(part) or b"" for part in parts)


class _Answer(httpx.AsyncByteStream):
    """The answer on its connection: first `head`, then the body by iteration; closing it closes the connection."""

    def __init__(self, protocol: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._protocol = protocol
        self._reader = reader
        self._writer = writer

    async def head(self) -> h11.Response:
        """The final status line and headers; interim answers (1xx) are skipped (RFC 9110 section 15.2)."""
        while True:
            event = await self._event()
            if isinstance(event, h11.Response):
                return event
            if not isinstance(event, h11.InformationalResponse):
                raise EOFError

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not isinstance(event := await self._event(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                raise EOFError
            yield bytes(event.data)

    async def _event(self) -> object:
        ended = False
        while True:
            try:
                event = self._protocol.next_event()
            except h11.RemoteProtocolError:
                if ended:
                    raise EOFError from None
                raise
            if event is not h11.NEED_DATA:
                return event
            data = await self._reader.read(CHUNK)
            ended = not data
            self._protocol.receive_data(data)

    async def aclose(self) -> None:
        # Abort, not close: nothing is left to be written, and a TLS farewell would wait for the far end's.
        self._writer.transport.abort()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

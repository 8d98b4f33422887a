"""One request on one connection of its own, and how far it got; no proxy in between.

The only question about a token request that failed is whether a byte of it had left: before the first byte a retry is
free, after it a refresh token may be spent. Hence this speaks HTTP/1.1 itself and notes every step in a `Progress`.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from rotator.core.ports import HttpAnswer, HttpRequest, Reach
from rotator.drivers.http import dial, failures, lines, patience, secure, trust, wire
from rotator.drivers.http.progress import Progress, too_large

if TYPE_CHECKING:
    import h11

HEAD_LIMIT = 1 << 16
HEAD_END = b"\r\n\r\n"


async def exchange(
    request: HttpRequest, trusted: trust.Trust, book: dial.Book, *, deadline: timedelta, limit: int
) -> HttpAnswer:
    """Send one request and read its answer; whatever the far end does is told in the answer, never raised. Raises
    Misconfigured for CA certificates that cannot be used."""
    progress, place = Progress(), "the request"
    try:
        way = lines.route(request.url)
        place = way.place
        # Written down before anything is opened: what cannot be has surely not been sent.
        payload = lines.written(request, way)
        async with patience.Within(deadline):
            connection = await _open(way, trusted, book, progress)
            try:
                # Before the write, not after it: a byte handed to the kernel is a byte the server may have.
                progress.note(Reach.WRITTEN, failures.Stage.ANSWER)
                await connection.send(payload)
                await _read(connection, request.method, progress, limit)
            finally:
                connection.close()
    except (OSError, EOFError, ValueError) as error:
        return progress.failed(error, place, deadline)
    return progress.answer()


async def knock(url: str, trusted: trust.Trust, book: dial.Book, *, deadline: timedelta) -> HttpAnswer:
    """Connect, shake hands for TLS, and say nothing. ``failure`` is None where somebody is there. Raises Misconfigured
    as `exchange` does."""
    progress, place = Progress(), "the address"
    try:
        way = lines.route(url)
        place = way.place
        async with patience.Within(deadline):
            (await _open(way, trusted, book, progress)).close()
    except (OSError, EOFError, ValueError) as error:
        return progress.failed(error, place, deadline)
    return HttpAnswer(progress.reach)


async def _open(way: lines.Route, trusted: trust.Trust, book: dial.Book, progress: Progress) -> wire.Wire:
    # A plain URL has no use for whom we trust, which takes longer to read than the exchange.
    tls = await trusted.context() if way.secure else None
    progress.note(Reach.NOTHING, failures.Stage.LOOKUP)
    sock = await book.connect(way.host, way.port, lambda: progress.note(Reach.NOTHING, failures.Stage.CONNECT))
    progress.note(Reach.CONNECTED, failures.Stage.HANDSHAKE)
    return await secure.secured(sock, tls, way.host) if tls is not None else wire.Plain(sock)


async def _read(connection: wire.Wire, method: str, progress: Progress, limit: int) -> None:
    received = connection.received
    while HEAD_END not in received:
        # However it ended: what is there may be whole for who reads bare line ends.
        if len(received) > HEAD_LIMIT or not await _more(connection):
            return await _read_any(connection, method, progress, limit)
    head = lines.head(received) if method != "HEAD" else None
    if head is None:
        return await _read_any(connection, method, progress, limit)
    progress.began(head.status, head.headers)
    if head.end - head.start > limit:
        raise too_large(limit)
    while len(received) < head.end:
        if not await connection.more():
            raise EOFError
    return progress.complete(bytes(received[head.start : head.end]))


async def _more(connection: wire.Wire) -> bool:
    """As `Wire.more`, which raises again for who asks again what broke the connection."""
    try:
        return await connection.more()
    except OSError:
        return False


async def _read_any(connection: wire.Wire, method: str, progress: Progress, limit: int) -> None:
    """Whatever HTTP/1.1 allows, by h11. Raises EOFError where it ends too early, ValueError for what is not HTTP."""
    import h11

    protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_LIMIT)
    # It reads an answer by what was asked.
    protocol.send(h11.Request(method=method, target="/", headers=[("host", "h")]))
    protocol.send(h11.EndOfMessage())
    try:
        head = await _event(protocol, connection)
        while isinstance(head, h11.InformationalResponse):  # RFC 9110 section 15.2
            head = await _event(protocol, connection)
        if not isinstance(head, h11.Response):
            raise EOFError
        headers = tuple((n.decode("latin-1").lower(), v.decode("latin-1")) for n, v in head.headers.raw_items())
        progress.began(head.status_code, headers)
        body = bytearray()
        while not isinstance(event := await _event(protocol, connection), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                raise EOFError
            body += event.data
            if len(body) > limit:
                raise too_large(limit)
    except h11.ProtocolError:
        raise ValueError from None
    progress.complete(bytes(body))


async def _event(protocol: h11.Connection, connection: wire.Wire) -> object:
    import h11

    ended = False
    while True:
        try:
            event = protocol.next_event()
        except h11.RemoteProtocolError:
            if ended:
                raise EOFError from None
            raise
        if event is not h11.NEED_DATA:
            return event
        # `received` is handed on whole and emptied, so it holds what h11 has not seen.
        if not connection.received:
            ended = not await connection.more()
        protocol.receive_data(bytes(connection.received))
        connection.received.clear()

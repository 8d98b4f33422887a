"""What the HTTP driver does without a library is what the libraries do, and how addresses are used again."""

from __future__ import annotations

import asyncio
import socket

import h11
import pytest

from rotator.core.ports import HttpRequest
from rotator.drivers.http import dial, failures, lines, transport
from tests.drivers.far_end import OK, far_end, says

URLS = [
    "https://provider.example/oauth/v2/token", "http://127.0.0.1:8080/token?a=b&c=d", "http://[::1]:8080/",
    "https://provider.example", "http://h:80/x", "https://h:443/x", "http://h:8443/~a/b.c/-_!$&'()*+,;=:@",
]  # fmt: skip
ODD_URLS = [
    "HTTPS://Provider.Example/A",
    "https://u:p@h/x",
    "http://h/a/../b",
    "http://h/%7Ex",
    "http://bücher.example/ä",
]


@pytest.mark.parametrize("url", URLS)
def test_a_plain_url_is_taken_apart_as_httpx_does_it(url: str) -> None:
    assert lines._PLAIN.fullmatch(url)
    assert lines.route(url) == lines.made(*transport.parts(url))


@pytest.mark.parametrize("url", ODD_URLS)
def test_any_other_url_is_left_to_httpx(url: str) -> None:
    assert not lines._PLAIN.fullmatch(url)
    assert lines.route(url) == lines.made(*transport.parts(url))
    assert "p@" not in lines.route(url).place


@pytest.mark.parametrize("url", ["http://h:0/", "http://h:65536/"])
def test_a_port_that_cannot_be_is_told(url: str) -> None:
    with pytest.raises(failures.Unusable):
        lines.route(url)


def test_what_is_written_is_what_h11_reads() -> None:
    request = HttpRequest("POST", "http://h:81/token?x=1", (("Accept", "a/b"), ("X", ""), ("HOST", "evil")), b"body")
    server = h11.Connection(h11.SERVER)
    server.receive_data(lines.written(request, lines.route(request.url)))
    head, data = server.next_event(), server.next_event()
    assert isinstance(head, h11.Request)
    assert (head.method, head.target) == (b"POST", b"/token?x=1")
    assert dict(head.headers) == {
        b"host": b"h:81", b"accept": b"a/b", b"x": b"", b"accept-encoding": b"identity", b"connection": b"close",
        b"content-length": b"4",
    }  # fmt: skip
    assert isinstance(data, h11.Data)
    assert bytes(data.data) == b"body"


@pytest.mark.parametrize(
    ("name", "value"), [("a b", "x"), ("", "x"), ("A", "x\ny"), ("A", " x"), ("A", "\x00"), ("A", "ä"), ("A:", "x")]
)
def test_a_header_that_cannot_be_written_is_not(name: str, value: str) -> None:
    request = HttpRequest("POST", "http://h/", ((name, value),))
    with pytest.raises(failures.Unusable):
        lines.written(request, lines.route(request.url))


USUAL = [
    OK, b"HTTP/1.1 400 Bad Request\r\ncontent-length:0\r\nX-A:  spaced out \t\r\nX-A: twice\r\n\r\n",
    b"HTTP/1.1 200\r\nContent-Length: 2\r\nEmpty:\r\n\r\n{}rest",
]  # fmt: skip


@pytest.mark.parametrize("answer", USUAL)
def test_a_usual_head_is_read_as_h11_reads_it(answer: bytes) -> None:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="POST", target="/", headers=[("host", "h")]))
    client.send(h11.EndOfMessage())
    client.receive_data(answer)
    theirs, ours = client.next_event(), lines.head(answer)
    assert isinstance(theirs, h11.Response)
    assert ours is not None
    assert ours.status == theirs.status_code
    assert ours.headers == tuple((n.decode().lower(), v.decode()) for n, v in theirs.headers.raw_items())
    body = client.next_event()
    assert answer[ours.start : ours.end] == (bytes(body.data) if isinstance(body, h11.Data) else b"")


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.0 200 OK\r\nContent-Length: 2", b"HTTP/1.1 100 Continue\r\nContent-Length: 2",
        b"HTTP/1.1 204 No\r\nA: b",
        b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked", b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2", b"HTTP/1.1 200 OK\r\nContent-Length: +2",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n folded", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: \xe4",
        b"HTTP/1.1 200 OK\r\nContent-Length : 2", b"HTTP/1.1 200 OK\nContent-Length: 2", b"",
    ],
)  # fmt: skip
def test_whatever_is_not_usual_is_left_to_h11(head: bytes) -> None:
    assert lines.head(head + b"\r\n\r\n{}") is None


# --- addresses ---------------------------------------------------------------------------------------------------


class Resolver(asyncio.SelectorEventLoop):
    """Counts how often the resolver is asked, and answers for ``provider.invalid``."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.port = 0

    async def getaddrinfo(self, host: object, port: object, **_: object) -> list[tuple[object, ...]]:  # type: ignore[override]
        self.asked += 1
        await asyncio.sleep(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", self.port))]


def test_a_herd_asks_the_resolver_once_and_what_moved_is_found_at_once() -> None:
    loop = Resolver()

    async def run() -> list[int]:
        book, found = dial.Book(), []

        async def connect() -> None:
            (await book.connect("provider.invalid", 80, lambda: None)).close()

        async with far_end(says(OK)) as end:
            loop.port = end.port
            await asyncio.gather(*(connect() for _ in range(20)))
            found.append(loop.asked)
            await connect()
            found.append(loop.asked)
        # The old address refuses; the name leads elsewhere by now.
        async with far_end(says(OK)) as moved:
            loop.port = moved.port
            await connect()
            found.append(loop.asked)
        with pytest.raises(ConnectionRefusedError):
            await connect()
        return [*found, loop.asked]

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        assert runner.run(run()) == [1, 1, 2, 3]


def test_an_address_needs_no_resolver() -> None:
    loop = Resolver()

    async def run() -> None:
        async with far_end(says(OK)) as end:
            (await dial.Book().connect("127.0.0.1", end.port, lambda: None)).close()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(run())
    assert loop.asked == 0

"""Who may see what: methods, hosts, the token, the headers of every answer; and which page answers which path."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Iterator

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rotator.core import lean
from rotator.core.errors import RotatorError
from rotator.core.health import Health
from rotator.core.tokens import Secret
from rotator.frontends.http import page, probes, stream
from rotator.frontends.http.board import Wish
from rotator.frontends.http.history import History

Metrics = Callable[[Health, str], tuple[str, Iterator[bytes]]]
METHODS = ("GET", "HEAD")
# For what shows no document of its own; the page brings its own policy.
CLOSED = "default-src 'none'; frame-ancestors 'none'"


@lean.dataclass(frozen=True, slots=True)
class Sources:
    """What is shown. ``snapshot`` raises Transient where no daemon runs any more. ``token`` is read anew for each
    request that needs it; None: nobody must show one. ``metrics`` makes (content type, body in pieces) of a snapshot
    and the Accept header; the loop turns between two pieces. ``on_defect`` is told what was being done and what was
    raised."""

    version: str
    snapshot: Callable[[], Health]
    history: History
    token: Callable[[], Awaitable[Secret]] | None
    metrics: Metrics | None
    on_defect: Callable[[str, Exception], None]


class Application:
    """The ASGI application. ``checks_host``: only names of this machine itself are answered."""

    def __init__(self, sources: Sources, *, checks_host: bool) -> None:
        self._sources = sources
        self._checks_host = checks_host
        self._streams = stream.Streams(sources.snapshot, sources.history)

    def close(self) -> None:
        """End every stream."""
        self._streams.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request, guarded = Request(scope, receive), _Guarded(send)
        try:
            answer = await self._answer(request)
            await answer(scope, receive, guarded)
        except RotatorError as error:
            if not guarded.begun:
                await _plain(503, f"{error}\n")(scope, receive, guarded)
        except Exception as error:  # noqa: BLE001 (a defect of a page must not reach uvicorn's log, which quotes it)
            self._sources.on_defect(f"answering {request.url.path} by HTTP", error)
            if not guarded.begun:
                await _plain(500, "a defect; see the log\n")(scope, receive, guarded)

    async def _answer(self, request: Request) -> ASGIApp:
        if self._checks_host and not is_own(request.headers.get("host", "")):
            return _plain(421, "this address is answered for localhost only\n")
        if request.method not in METHODS:
            return _plain(405, "read-only: GET or HEAD\n", {"allow": ", ".join(METHODS)})
        first, _, rest = request.url.path.strip("/").partition("/")
        try:
            may_see = await self._may_see(request.headers)
        except RotatorError:
            # Why is for the log to say and not for a stranger; and no restart mends it, so no probe may fail for it.
            if first not in probes.QUESTIONS:
                return _plain(503, "the token of http.token cannot be read; `rotator check` tells why\n")
            may_see = False
        if first in probes.QUESTIONS:
            return self._probe(request, first, rest, may_see)
        if not may_see:
            challenge = {"www-authenticate": 'Basic realm="rotator", charset="UTF-8", Bearer realm="rotator"'}
            return _plain(401, "show the token of http.token\n", challenge)
        return self._page(request, first, rest)

    def _probe(self, request: Request, first: str, rest: str, may_see: bool) -> ASGIApp:
        query = request.query_params
        asked = probes.Asked(
            first, rest or None, exclude=tuple(query.getlist("exclude")), verbose="verbose" in query
        )  # fmt: skip
        health = self._sources.snapshot()
        if not may_see:
            if asked != probes.Asked(first):
                return _plain(401, "show the token of http.token for more than the answer\n")
            return _plain(*probes.bare(health, asked))
        status, text = probes.told(health, asked)
        return Pieces((one.encode() for one in text), "text/plain; charset=utf-8", status)

    def _page(self, request: Request, first: str, rest: str) -> ASGIApp:
        sources = self._sources
        match first, rest:
            case "", "":
                wish = Wish.read(request.query_params)
                html = page.render(sources.snapshot(), sources.history, wish, sources.version)
                return Response(html, media_type="text/html", headers={"content-security-policy": page.policy()})
            case "events", "":
                return self._streams.follow(Wish.read(request.query_params))
            case "metrics", "" if sources.metrics is not None:
                kind, body = sources.metrics(sources.snapshot(), request.headers.get("accept", ""))
                return Pieces(body, kind)
        return _plain(404, "there is no such page\n")

    async def _may_see(self, headers: Headers) -> bool:
        if self._sources.token is None:
            return True
        shown = presented(headers.get("authorization", ""))
        if shown is None:
            return False
        wanted = await self._sources.token()
        return hmac.compare_digest(shown, wanted.reveal().encode("utf-8", "surrogateescape"))


def presented(authorization: str) -> bytes | None:
    """What a caller shows: a bearer token, or the password of a browser's login (the name does not count)."""
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return rest.strip().encode("latin-1", "replace")
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(rest.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return None
    return None


def is_own(host: str) -> bool:
    """Whether a Host header names this machine itself: a name that an attacker's DNS leads here does not."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    name = name.removeprefix("[").removesuffix("]").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Pieces:
    """An answer in pieces. Between two of them the loop turns, so that a long one holds nobody up."""

    def __init__(self, pieces: Iterable[bytes], kind: str, status: int = 200) -> None:
        self._pieces = pieces
        self._start = Response(status_code=status, media_type=kind)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(name, value) for name, value in self._start.raw_headers if name != b"content-length"]
        await send({"type": "http.response.start", "status": self._start.status_code, "headers": headers})
        for piece in self._pieces if scope["method"] != "HEAD" else ():
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await _turn()
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _turn() -> None:
    """Let everything that waits on the loop go first."""
    loop = asyncio.get_running_loop()
    turned = loop.create_future()
    loop.call_soon(turned.set_result, None)
    await turned


class _Guarded:
    """Puts the headers of every answer in, and knows whether it has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.begun = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.begun = True
            headers = MutableHeaders(scope=message)
            headers.setdefault("cache-control", "no-store")
            headers.setdefault("content-security-policy", CLOSED)
            headers["x-content-type-options"] = "nosniff"
            headers["referrer-policy"] = "no-referrer"
            headers["cross-origin-resource-policy"] = "same-origin"
        await self._send(message)


def _plain(status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    return PlainTextResponse(text, status, headers)

"""The one file that imports httpx: a request through a proxy.

While it connects to the proxy, asks for a tunnel and shakes hands in it nothing of the request has left, which a trace
of httpx tells; what no trace tells counts as written. Without a proxy `direct` does it.
"""

from __future__ import annotations

import logging
import ssl
import sys
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from rotator.core.ports import HttpAnswer, HttpRequest, Reach
from rotator.drivers.http import failures, patience, trust
from rotator.drivers.http.progress import Progress, too_large

# httpx imports its own command line where click and rich happen to be installed: 85 of 150 ms before the first
# token, and megabytes for ever. None makes that one import fail, as the language reference has it (section 5.3.1),
# and httpx provides for that.
sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]

import httpx  # noqa: E402 (after the line above)

PROXY_FROM_ENVIRONMENT = "environment"
# httpx counts per read, which a slow drip never exceeds; the deadline bounds the whole.
_NO_TIMEOUT = httpx.Timeout(None)
# Their INFO and DEBUG lines hold whole URLs and headers.
for _name in (httpx.__name__, "httpcore", "httpcore2"):
    logging.getLogger(_name).setLevel(logging.WARNING)


async def exchange(
    request: HttpRequest, trusted: trust.Trust, proxy: str, *, deadline: timedelta, limit: int
) -> HttpAnswer:
    """Send one request and read its answer; whatever the far end does is told in the answer, never raised. Raises
    Misconfigured for CA certificates that cannot be used."""
    progress = Progress()
    host = "the request"
    try:
        outgoing = _outgoing(request)
        host = _place(outgoing.url)
        async with patience.Within(deadline), _client(await trusted.context(), proxy, progress) as client:
            outgoing.extensions["trace"] = _Trace(progress)
            await _converse(client, outgoing, progress, limit)
    except (OSError, EOFError, ValueError, httpx.HTTPError, httpx.InvalidURL) as error:
        if isinstance(error, _NEVER_LEFT):
            progress.reach = Reach.NOTHING
        return progress.failed(_cause(error), host, deadline)
    return progress.answer()


# What httpx raises before a byte of the request itself can have left; its tunnel refused counts among them.
_NEVER_LEFT = (
    httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol,
)  # fmt: skip


class _Trace:
    """Called by httpcore before each step (its page "Extensions", section "trace")."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._left = False

    async def __call__(self, name: str, info: Mapping[str, Any]) -> None:
        request = info.get("request")
        if self._left or not name.endswith(".started"):
            return
        self._left = request is not None and request.method != b"CONNECT"
        if self._left:
            self._progress.note(Reach.WRITTEN, failures.Stage.PROXY)
        elif request is not None or name.startswith("connection."):
            self._progress.note(Reach.NOTHING, failures.Stage.PROXY)


def _outgoing(request: HttpRequest) -> httpx.Request:
    own = {"connection", "accept-encoding"}
    headers = [(name, value) for name, value in request.headers if name.lower() not in own]
    # identity: a body that need not be inflated cannot blow up, and the limit counts what was sent.
    headers += [("Accept-Encoding", "identity"), ("Connection", "close")]
    try:
        # Made by hand: the client's build_request would add its own headers and cookies.
        outgoing = httpx.Request(request.method, request.url, headers=headers, content=request.body)
    except UnicodeError:
        # Its text quotes the value, which may be a credential.
        raise failures.Unusable("protocol", failures.NOT_HTTP) from None
    _check(outgoing.url)
    return outgoing


def parts(url: str) -> tuple[str, str, int, str]:
    """Scheme, host, port and target of any URL, as httpx has them. Raises failures.Unusable, UnicodeError."""
    try:
        found = httpx.URL(url)
    except httpx.InvalidURL:
        # Its text quotes the URL.
        raise failures.Unusable("protocol", NO_URL) from None
    _check(found)
    return found.scheme, found.raw_host.decode("ascii"), _port(found), found.raw_path.decode("ascii")


NO_URL = "the URL is not one of http or https with a host"


def _check(url: httpx.URL) -> None:
    if url.scheme not in ("http", "https") or not url.host:
        raise failures.Unusable("protocol", NO_URL)


def _client(tls: ssl.SSLContext, proxy: str, progress: Progress) -> httpx.AsyncClient:
    """A client for one request: it holds no pool, no cookies and no event loop for the next one."""
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
    session = response.extensions["network_stream"].get_extra_info("ssl_object")
    try:
        progress.began(
            response.status_code,
            tuple((n.decode("latin-1").lower(), v.decode("latin-1")) for n, v in response.headers.raw),
        )
        body = bytearray()
        async for chunk in response.aiter_raw():
            body += chunk
            if len(body) > limit:
                raise too_large(limit)
        if session is not None and _is_delimited_by_the_end(response) and not _is_ended(session):
            raise EOFError
        progress.complete(bytes(body))
    finally:
        await response.aclose()


def _is_delimited_by_the_end(response: httpx.Response) -> bool:
    if response.request.method == "HEAD" or response.status_code in (204, 304):
        return False
    return not {"content-length", "transfer-encoding"} & response.headers.keys()


def _is_ended(session: ssl.SSLObject) -> bool:
    """Whether TLS itself said farewell (RFC 9112 section 9.8), which httpcore does not ask."""
    try:
        return session.read() == b""
    except ssl.SSLError:
        return False


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

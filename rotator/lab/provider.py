"""The provider as an ASGI app: the two endpoints over HTTP, and two more to set its faults and read its journal.

::

    GET, POST    /oauth/v2/token    the token endpoint
    POST         /api/login         Token Login
    GET          /_lab/log          counters and requests
    GET          /_lab/faults       the switches; POST sets those given as JSON, DELETE clears all of them

An ASGI server offers no way to drop a connection, and a lost answer is what this provider is for. The server of
`rotator.lab.emulator` therefore puts a plain call under ``hang_up`` into the state of the scope.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import TYPE_CHECKING

from rotator.core import errors
from rotator.lab.faults import Step
from rotator.lab.fos import Provider
from rotator.lab.messages import Reply

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Receive, Scope, Send

TOKEN_PATH = "/oauth/v2/token"  # noqa: S105 (a path)
LOGIN_PATH = "/api/login"
LOG_PATH = "/_lab/log"
FAULTS_PATH = "/_lab/faults"
HANG_UP = "hang_up"

Page = Callable[["Request"], Awaitable["Response"]]


def application(provider: Provider) -> Starlette:
    """The ASGI app over ``provider``, which stays in the caller's hands: its faults and journal are live."""
    # Imported here, because only an emulator pays for it.
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.routing import Route

    meeting = _Meeting(provider)

    class TokenEndpoint:
        """Classes, not functions: a Route then leaves the method to the provider, which has a 405 of its own."""

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            request = Request(scope, receive)
            body = await request.body()
            steps = provider.steps(request.method, request.headers, request.url.query, body)
            reply: Reply | None = None
            try:
                while True:
                    step = next(steps)
                    if step is Step.ARRIVED:
                        await _wait(provider)
                    elif step is Step.READ:
                        await meeting.wait()
            except StopIteration as end:
                reply = end.value
            finally:
                steps.close()
            await _answer(provider, reply, scope, receive, send)

    class LoginEndpoint:
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            request = Request(scope, receive)
            body = await request.body()
            await _wait(provider)
            reply = provider.login(request.method, request.headers, request.url.query, body)
            await _answer(provider, reply, scope, receive, send)

    return Starlette(
        routes=[
            Route(TOKEN_PATH, TokenEndpoint()),
            Route(LOGIN_PATH, LoginEndpoint()),
            Route(LOG_PATH, _log_page(provider), methods=["GET"]),
            Route(FAULTS_PATH, _faults_page(provider), methods=["GET", "POST", "DELETE"]),
        ]
    )


class _Meeting:
    """Holds requests that have read their refresh token until `Faults.meet` of them are there."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider
        self._met = asyncio.Event()
        self._waiting = 0

    async def wait(self) -> None:
        if self._provider.faults.meet < 2:
            return
        self._waiting += 1
        if self._waiting < self._provider.faults.meet:
            await self._met.wait()
            return
        self._provider.faults.meet = 0
        self._waiting = 0
        self._met.set()
        self._met = asyncio.Event()


async def _wait(provider: Provider) -> None:
    if provider.faults.latency_seconds > 0:
        await asyncio.sleep(provider.faults.latency_seconds)  # noqa: TID251 (a provider that is slow on purpose)


async def _answer(provider: Provider, reply: Reply | None, scope: Scope, receive: Receive, send: Send) -> None:
    hang_up = scope.get("state", {}).get(HANG_UP)
    if hang_up is None and (reply is None or not reply.complete):
        raise errors.Misconfigured("this ASGI server cannot drop a connection", mend="serve with rotator.lab.emulator")
    if reply is not None:
        # A broken answer announces one byte more than ever comes.
        length = len(reply.body) + (0 if reply.complete else 1)
        # The provider's own time, so that a skewed clock shows where a client would look for it.
        ours = (("Date", formatdate(provider.now(), usegmt=True)), ("Content-Length", str(length)))
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in (*reply.headers, *ours)]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body, "more_body": not reply.complete})
    if reply is None or not reply.complete:
        hang_up()
        # Returning before the server knows that the connection is gone would count as a fault of the app.
        while (await receive())["type"] != "http.disconnect":
            pass


def _log_page(provider: Provider) -> Page:
    from starlette.responses import JSONResponse

    async def page(request: Request) -> Response:
        return JSONResponse(provider.journal.describe())

    return page


def _faults_page(provider: Provider) -> Page:
    from starlette.responses import JSONResponse

    async def page(request: Request) -> Response:
        if request.method == "DELETE":
            provider.faults.clear()
        elif request.method == "POST":
            try:
                wanted = json.loads(await request.body())
                provider.faults.set(wanted if isinstance(wanted, dict) else {"": wanted})
            except (ValueError, RecursionError):
                return JSONResponse({"error": "the body is not JSON"}, 400)
            except errors.BadUsage as error:
                return JSONResponse({"error": str(error)}, 400)
        return JSONResponse(provider.faults.describe())

    return page

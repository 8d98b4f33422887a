"""An open page stays true: server-sent events with the pieces that changed, and only of what the page shows.

Each stream may use a twentieth of the loop at most: after a look it rests for twenty times as long as that took, so
that a page over 100 000 grants harms no rotation.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from starlette.types import Receive, Scope, Send

from rotator.core.errors import RotatorError
from rotator.core.health import GrantHealth, Health
from rotator.frontends.http import board, page, rows
from rotator.frontends.http.board import Wish
from rotator.frontends.http.history import History

STREAMS = 32
# Seconds: between two looks at least, and at most, for time alone changes words as well.
SHORTEST, LONGEST = 0.25, 2.0
SHARE = 20
# An idle line is kept open, and a browser that is gone noticed.
ALIVE_EVERY = 15.0
HEADERS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]


class Streams:
    """All open streams."""

    def __init__(self, snapshot: Callable[[], Health], history: History) -> None:
        self._snapshot = snapshot
        self._history = history
        self._closed = asyncio.Event()
        self.open = 0

    def close(self) -> None:
        """End all of them."""
        self._closed.set()

    def follow(self, wish: Wish) -> Stream:
        """A stream for one page."""
        return Stream(self, wish)

    async def run(self, wish: Wish) -> AsyncIterator[bytes]:
        """What is to be sent, as it comes about; ends with the daemon."""
        loop = asyncio.get_running_loop()
        rung, seen = asyncio.Event(), Seen(wish)
        self._history.join(rung.set)
        try:
            yield b"retry: 2000\n\n"
            sent = loop.time()
            while not self._closed.is_set():
                rung.clear()
                begin = loop.time()
                try:
                    told = seen.look(self._snapshot(), self._history)
                except RotatorError:
                    return
                if told:
                    sent = loop.time()
                    yield f"event: page\ndata: {json.dumps(told)}\n\n".encode()
                elif begin - sent >= ALIVE_EVERY:
                    sent = loop.time()
                    yield b": alive\n\n"
                await self._rest(max(SHORTEST, SHARE * (loop.time() - begin)), rung)
        finally:
            self._history.leave(rung.set)

    async def _rest(self, least: float, rung: asyncio.Event) -> None:
        """For ``least`` seconds, then until something happens."""
        await _either(least, self._closed)
        if not self._closed.is_set():
            await _either(LONGEST, rung, self._closed)


class Stream:
    """The ASGI end of one stream."""

    def __init__(self, streams: Streams, wish: Wish) -> None:
        self._streams = streams
        self._wish = wish

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._streams.open >= STREAMS:
            await send({"type": "http.response.start", "status": 503, "headers": [(b"retry-after", b"30")]})
            await send({"type": "http.response.body", "body": b""})
            return
        await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
        self._streams.open += 1
        sending = asyncio.create_task(self._send(scope, send))
        leaving = asyncio.create_task(_wait_left(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._streams.open -= 1
            for task in (sending, leaving):
                task.cancel()
            ended = await asyncio.gather(sending, leaving, return_exceptions=True)
        if isinstance(ended[0], Exception):
            raise ended[0]

    async def _send(self, scope: Scope, send: Send) -> None:
        if scope["method"] != "HEAD":
            async for piece in self._streams.run(self._wish):
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


@dataclass(slots=True)
class Seen:
    """What one page has been sent."""

    wish: Wish
    verdict: str = ""
    facts: str = ""
    grants: list[GrantHealth] = field(default_factory=list)
    drawn: dict[str, tuple[GrantHealth, int, int]] = field(default_factory=dict)
    total: tuple[GrantHealth, ...] | None = None
    counted: board.Count | None = None

    def look(self, health: Health, history: History) -> dict[str, object]:
        """What has changed since, as the script takes it; empty where nothing has."""
        if self.counted is None or health.grants is not self.total:
            self.total, self.counted = health.grants, board.count(health)
        shown = board.choose(health.grants, self.wish)
        told: dict[str, object] = {}
        verdict, facts = page.verdict(self.counted), page.facts(health)
        if verdict != self.verdict:
            told |= {"verdict": verdict, "title": page.title(self.counted)}
        if facts != self.facts:
            told["facts"] = facts
        order = page.changed(shown.grants, self.grants)
        if order:
            told |= {
                "order": [one.name for one in shown.grants],
                "found": page.found(shown, self.wish, self.counted),
                "pager": page.pager(shown, self.wish),
            }
        beat = int(health.at.timestamp() // rows.DRAWN_EVERY.total_seconds())
        keys = {one.name: (one, history.serial(one.name), beat) for one in shown.grants}
        fresh = [one for one in shown.grants if self.drawn.get(one.name) != keys[one.name]]
        if fresh:
            told["rows"] = {one.name: page.row(one, history, health) for one in fresh}
            told["since"] = page.since(history, health)
        self.verdict, self.facts = verdict, facts
        self.grants, self.drawn = list(shown.grants), keys
        return {**told, "now": health.at.timestamp()} if told else {}


async def _wait_left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _either(seconds: float, *conditions: asyncio.Event) -> None:
    """Until one of them holds, for ``seconds`` at most."""
    waiting = [asyncio.create_task(one.wait()) for one in conditions]
    try:
        await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

"""HTTP, one connection per request: TLS, deadlines, caps, no redirects, and how far a request got.

Fulfils `ports.Http`. This file is cheap to import; everything that is not (TLS, h11, httpx) waits until it is needed:
`direct` speaks HTTP/1.1 itself, `transport` goes through a proxy and is the one file that imports httpx, so that its
successor is a swap in one place.
"""

from __future__ import annotations

from dataclasses import field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rotator.core import errors, lean
from rotator.core.ports import HttpAnswer, HttpRequest, Reach

if TYPE_CHECKING:
    from rotator.drivers.http import dial, trust


@lean.dataclass(frozen=True, slots=True)
class Profile:
    """How to reach one provider. Providers with equal profiles may share a client and so its TLS context.

    ``ca_file`` replaces the system's CAs, it does not add to them. ``proxy`` is a URL, or ``environment`` for
    HTTPS_PROXY and NO_PROXY, or None for none; it may hold a password and does not print.
    """

    ca_file: Path | None = None
    proxy: str | None = field(default=None, repr=False)


class HttpxClient:
    """The port `ports.Http`. Nothing but the TLS context and addresses outlives a request, so it may serve any
    event loop."""

    def __init__(self, *, ca_file: Path | None = None, proxy: str | None = None) -> None:
        self.profile = Profile(ca_file, proxy)
        self._trust: trust.Trust | None = None
        self._book: dial.Book | None = None

    async def send(self, request: HttpRequest, *, deadline: timedelta, limit: int = 1 << 20) -> HttpAnswer:
        """Send ``request`` and read the answer whole; see the port for the contract.

        A CA file that cannot be used is told as ``certificate``: nothing was sent.
        """
        try:
            if self.profile.proxy is None:
                # asyncio's TLS and all that; a restart with a valid stored token publishes before it needs that.
                from rotator.drivers.http import dial, direct

                if self._book is None:
                    self._book = dial.Book()
                return await direct.exchange(request, self._trusted(), self._book, deadline=deadline, limit=limit)
            # httpx costs 70 ms and 5 MB, which only who has a proxy spends.
            from rotator.drivers.http import transport

            return await transport.exchange(
                request, self._trusted(), self.profile.proxy, deadline=deadline, limit=limit
            )
        except errors.Misconfigured as wrong:
            return _distrusted(wrong)

    async def knock(self, url: str, *, deadline: timedelta) -> HttpAnswer:
        """Whether somebody is there who is trusted, without saying a word to him; directly, by no proxy."""
        from rotator.drivers.http import dial, direct

        try:
            return await direct.knock(url, self._trusted(), self._book or dial.Book(), deadline=deadline)
        except errors.Misconfigured as wrong:
            return _distrusted(wrong)

    async def close(self) -> None:
        """Forget the TLS context and all addresses; every connection ended with its request. Idempotent."""
        self._trust = self._book = None

    def _trusted(self) -> trust.Trust:
        from rotator.drivers.http import trust

        if self._trust is None:
            self._trust = trust.Trust(self.profile.ca_file)
        return self._trust


def _distrusted(wrong: errors.Misconfigured) -> HttpAnswer:
    return HttpAnswer(Reach.NOTHING, failure="certificate", detail=str(wrong))

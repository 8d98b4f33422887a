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
    import ssl

    from rotator.drivers.http import dial


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
        self._tls: ssl.SSLContext | None = None
        self._stamp: tuple[int, ...] = ()
        self._book: dial.Book | None = None

    async def send(self, request: HttpRequest, *, deadline: timedelta, limit: int = 1 << 20) -> HttpAnswer:
        """Send ``request`` and read the answer whole; see the port for the contract.

        A CA file that cannot be used is told as ``certificate``: nothing was sent.
        """
        try:
            tls = self._context()
        except errors.Misconfigured as wrong:
            return HttpAnswer(Reach.NOTHING, failure="certificate", detail=str(wrong))
        if self.profile.proxy is None:
            # asyncio's TLS and all that; a restart with a valid stored token publishes before it needs that.
            from rotator.drivers.http import dial, direct

            if self._book is None:
                self._book = dial.Book()
            return await direct.exchange(request, tls, self._book, deadline=deadline, limit=limit)
        # httpx costs 70 ms and 5 MB, which only who has a proxy spends.
        from rotator.drivers.http import transport

        return await transport.exchange(request, tls, self.profile.proxy, deadline=deadline, limit=limit)

    async def knock(self, url: str, *, deadline: timedelta) -> HttpAnswer:
        """Whether somebody is there who is trusted, without saying a word to him; directly, by no proxy."""
        from rotator.drivers.http import dial, direct

        try:
            tls = self._context()
        except errors.Misconfigured as wrong:
            return HttpAnswer(Reach.NOTHING, failure="certificate", detail=str(wrong))
        return await direct.knock(url, tls, self._book or dial.Book(), deadline=deadline)

    async def close(self) -> None:
        """Forget the TLS context and all addresses; every connection ended with its request. Idempotent."""
        self._tls = self._book = None

    def _context(self) -> ssl.SSLContext:
        """The context of this profile, built once (20 ms) and again only where the CA file was replaced."""
        from rotator.drivers.http import tls

        stamp = tls.stamp(self.profile.ca_file)
        if self._tls is None or stamp != self._stamp:
            self._tls = tls.context(self.profile.ca_file)
            self._stamp = stamp
        return self._tls

"""A webhook: each generation as a CloudEvent, signed, over the port `ports.Http` that is handed to it.

Structured mode of https://github.com/cloudevents/spec (HTTP protocol binding, section 3.2); headers and signature of
https://www.standardwebhooks.com. The token is no part of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from urllib.parse import urlsplit

from rotator.core import notices, tokens
from rotator.core.errors import Misconfigured, Refused, RotatorError, Unavailable
from rotator.core.ports import Http, HttpAnswer, HttpRequest
from rotator.core.publication import Found, Publication, Settled
from rotator.core.tokens import Secret

MEDIA_TYPE = "application/cloudevents+json"
# Nobody reads the answer; a receiver that sends more than that is cut off, after its status has told all.
LARGEST = 64 << 10
# Too busy or too early: RFC 9110 section 15.5.9, RFC 8470 section 5.2, RFC 6585 section 4.
LATER = (408, 425, 429)


class Webhook:
    """A receiver of events. See `ports.Publisher`.

    ``source`` is who tells, as a URI reference; ``locations`` where the token stands, by target. ``key`` is the
    installation's, for the token's fingerprint; ``signing_key`` reads what the receiver knows us by, None for no
    signature."""

    local = False
    judged_by_mark = True

    def __init__(
        self, grant: str, target: str, url: str, http: Http, *, source: str, locations: Mapping[str, str],
        key: Callable[[], Awaitable[bytes]], signing_key: Callable[[], Awaitable[Secret]] | None, timeout: timedelta,
    ) -> None:  # fmt: skip
        self._target = target
        self._url = url
        self._http = http
        self._source = source
        self._locations = locations
        self._key = key
        self._signing_key = signing_key
        self._timeout = timeout
        # The path may be what lets one in: it is stored and shown as a hash.
        parts = urlsplit(url)
        self._place = parts.netloc
        mark = tokens.digest((url,), b"webhook")[:12]
        self.location = notices.location(grant, target, f"webhook {parts.scheme}://{parts.netloc} {mark}")

    def __repr__(self) -> str:
        return f"Webhook({self.location})"

    async def settle(self, wanted: Publication, now: datetime) -> Settled:
        """Raises Unavailable where the receiver is away or busy, Refused where it takes none, Misconfigured where it
        is another than was meant or the signing key cannot be used."""
        fingerprint = tokens.fingerprint(wanted.value, await self._key())
        told = notices.event(wanted, self._target, self._source, fingerprint, self._locations)
        body, identifier = notices.body(told), notices.identifier(wanted, self._target)
        at = int(now.timestamp())
        headers = [("content-type", MEDIA_TYPE), ("webhook-id", identifier), ("webhook-timestamp", str(at))]
        if self._signing_key is not None:
            headers.append(("webhook-signature", await self._sign(identifier, at, body)))
        request = HttpRequest("POST", self._url, tuple(headers), body)
        answer = await self._http.send(request, deadline=self._timeout, limit=LARGEST)
        error = self._judge(answer)
        if error is not None:
            raise error
        return Settled(Found.UNTOLD)

    async def remove(self, mark: str) -> bool:
        """What was told cannot be taken back."""
        return False

    async def _sign(self, identifier: str, at: int, body: bytes) -> str:
        assert self._signing_key is not None  # noqa: S101 (the caller has looked)
        key = await self._signing_key()
        with contextlib.suppress(ValueError):
            return notices.signature(key, identifier, at, body)
        raise Misconfigured(
            f"the signing key of {self._place} is not base64 behind {notices.PREFIX}", mend="copy it whole"
        )

    def _judge(self, answer: HttpAnswer) -> RotatorError | None:
        """By the status alone, also where the rest of the answer was lost: it was said after the event was read."""
        status = answer.status
        if status is None:
            if answer.failure == "certificate":
                return Misconfigured(f"the webhook is not trusted: {answer.detail}", mend="set `ca_file`")
            return Unavailable(f"the webhook does not answer: {answer.detail}")
        said = f"the webhook at {self._place} answers HTTP {status}"
        if 200 <= status < 300:
            return None
        if status in LATER or status >= 500:
            return Unavailable(said)
        if 300 <= status < 400:
            return Misconfigured(f"{said}, a redirect, which is not followed", mend="set `webhook` to where it leads")
        if status == 410:
            return Refused(f"{said}: it wants no more events", mend="remove this target, or ask the receiver's owner")
        return Refused(said, mend="ask the receiver's owner; mend `webhook` or `signing_key`")

"""HTTP/1.1 as bytes: how a request is written down, and how a usual answer is read without a library.

Usual is a final status with one `Content-Length` and nothing else about its framing, which is how token endpoints
answer. Everything else (chunks, interim answers, a body until the end, whatever is odd) is left to h11, which costs ten
times as much and is only then imported.
"""

from __future__ import annotations

import re
from functools import lru_cache

from rotator.core import lean
from rotator.core.ports import HttpRequest
from rotator.drivers.http import failures

# RFC 9110 sections 5.1 and 5.5; obsolete text beyond ASCII is left to h11.
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(r"(?:[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)?")
_STATUS = re.compile(rb"HTTP/1\.1 ([2-5][0-9][0-9])(?: [\x20-\x7e]*)?")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*((?:[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)?)[ \t]*")
_LENGTH = re.compile(r"[0-9]{1,12}")
# What needs no knowledge of URLs to be taken apart: no user, no escapes, no dot segments, no letters beyond ASCII.
_PLAIN = re.compile(
    r"(https?)://([a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(?::([0-9]{1,5}))?"
    r"((?:/(?!\.)[A-Za-z0-9_.~!$&'()*+,;=:@-]*)*)(\?[A-Za-z0-9_.~!$&'()*+,;=:@/?-]*)?"
)
_PORTS = {"http": 80, "https": 443}
_OURS = frozenset({"accept-encoding", "connection", "content-length", "host", "transfer-encoding"})
_PLAIN_FIELDS = frozenset({"accept", "content-type", "user-agent"})
_BODIED = frozenset({"PATCH", "POST", "PUT"})
_BODILESS = frozenset({204, 205, 304})


@lean.dataclass(frozen=True, slots=True)
class Route:
    """A URL taken apart. ``place`` is host and port for a message: never the user, the path or the query."""

    secure: bool
    host: str
    port: int
    target: str
    authority: str

    @property
    def place(self) -> str:
        return f"{self.authority.removesuffix(f':{self.port}')}:{self.port}"


@lru_cache(64)
def route(url: str) -> Route:
    """Raises failures.Unusable, UnicodeError, or what httpx says of a URL that is none."""
    plain = _PLAIN.fullmatch(url)
    if plain is None:
        # It knows what browsers make of the rest.
        from rotator.drivers.http import transport

        return made(*transport.parts(url))
    scheme, host, port, path, query = plain.groups()
    number = int(port or _PORTS[scheme])
    if not 0 < number < 1 << 16:
        raise failures.Unusable("protocol", "the URL has no port that can be")
    return made(scheme, host.strip("[]"), number, f"{path or '/'}{query or ''}")


def made(scheme: str, host: str, port: int, target: str) -> Route:
    name = f"[{host}]" if ":" in host else host
    authority = name if port == _PORTS[scheme] else f"{name}:{port}"
    return Route(scheme == "https", host, port, target, authority)


def written(request: HttpRequest, way: Route) -> bytes:
    """The whole request. Raises failures.Unusable for a header that would break it."""
    # Only what is the same each time is kept, and what surely holds no credential.
    is_plain = all(name.lower() in _PLAIN_FIELDS for name, _ in request.headers)
    begun = (_begun if is_plain else _begun.__wrapped__)(request.method, way, request.headers)
    told = f"Content-Length: {len(request.body)}\r\n" if request.body or request.method in _BODIED else ""
    return f"{begun}{told}\r\n".encode("ascii") + request.body


@lru_cache(64)
def _begun(method: str, way: Route, headers: tuple[tuple[str, str], ...]) -> str:
    lines = [f"{method} {way.target} HTTP/1.1", f"Host: {way.authority}"]
    for name, value in headers:
        if not (_NAME.fullmatch(name) and _VALUE.fullmatch(value)):
            # Not quoted: it may be a credential.
            raise failures.Unusable("protocol", failures.NOT_HTTP)
        if name.lower() not in _OURS:
            lines.append(f"{name}: {value}")
    if not _NAME.fullmatch(method):
        raise failures.Unusable("protocol", failures.NOT_HTTP)
    # identity: a body that need not be inflated cannot blow up, and the limit counts what was sent.
    return "\r\n".join([*lines, "Accept-Encoding: identity", "Connection: close", ""])


@lean.dataclass(frozen=True, slots=True)
class Head:
    """A usual answer without its body, which begins at ``start`` and ends at ``end``."""

    status: int
    headers: tuple[tuple[str, str], ...]
    start: int
    end: int


def head(received: bytes | bytearray) -> Head | None:
    """The head of an answer that is there whole, up to its empty line; None where it is none of the usual."""
    at = received.index(b"\r\n\r\n")
    first, *fields = bytes(received[:at]).split(b"\r\n")
    status = _STATUS.fullmatch(first)
    if status is None:
        return None
    headers: list[tuple[str, str]] = []
    length: str | None = None
    for field in fields:
        found = _FIELD.fullmatch(field)
        if found is None:
            return None
        name, value = found[1].decode("ascii").lower(), found[2].decode("ascii")
        if name == "transfer-encoding" or (name == "content-length" and length is not None):
            return None
        if name == "content-length":
            length = value
        headers.append((name, value))
    number = int(status[1])
    if length is None or not _LENGTH.fullmatch(length) or number in _BODILESS:
        return None
    return Head(number, tuple(headers), at + 4, at + 4 + int(length))

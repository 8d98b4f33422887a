"""Where something listens, as people write it: ``127.0.0.1:9465``, ``[::1]:9465`` or ``unix:/run/rotator/http``."""

from __future__ import annotations

import ipaddress
import re
from pathlib import PurePosixPath

from rotator.core import lean

_PLACE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+|localhost)):([0-9]{1,5})")
FORM = 'must be "IP:PORT" such as "127.0.0.1:9465" or "[::1]:9465", or "unix:/run/rotator/http"'


@lean.dataclass(frozen=True, slots=True)
class Address:
    """``path`` of a Unix socket, else ``host`` (an IP address) and ``port``."""

    host: str
    port: int
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return bool(self.path) or ipaddress.ip_address(self.host).is_loopback


def address(raw: object) -> Address:
    """An IP address and a port, or the path of a Unix socket. No name: what it resolves to would be chance."""
    if isinstance(raw, Address):
        return raw
    if not isinstance(raw, str):
        raise ValueError(FORM)
    kind, _, path = raw.partition(":")
    if kind == "unix":
        # sockaddr_un holds 107 bytes and a zero (unix(7)).
        if not PurePosixPath(path).is_absolute() or "\0" in path or path.endswith("/") or len(path.encode()) > 107:
            raise ValueError('must name its socket by an absolute path of at most 107 bytes: "unix:/run/rotator/http"')
        return Address("", 0, path)
    match = _PLACE.fullmatch(raw)
    if match is None:
        raise ValueError(FORM)
    host, port = match[1] or match[2], int(match[3])
    if not 0 < port < 1 << 16:
        raise ValueError("must have a port from 1 to 65535")
    try:
        return Address(str(ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)), port)
    except ValueError:
        raise ValueError(FORM) from None


def spelt(given: Address) -> str:
    return str(given)

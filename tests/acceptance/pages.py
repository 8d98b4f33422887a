"""The HTTP face of a real process, asked as a probe, a scraper or a browser would."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.peers import ports

PATIENCE = 10.0


@dataclass(frozen=True)
class Pages:
    """At ``port`` of loopback, or at the Unix socket ``path``."""

    port: int = 0
    path: Path | None = None

    @property
    def table(self) -> str:
        """The configuration that opens it."""
        where = f"unix:{self.path}" if self.path else f"127.0.0.1:{self.port}"
        return f'[http]\naddress = "{where}"\n'

    @contextmanager
    def asking(self, target: str, patience: float = PATIENCE) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port or 80, timeout=patience)
        if self.path is not None:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.settimeout(patience)
            connection.sock.connect(str(self.path))
        with closing(connection):
            connection.request("GET", target)
            yield connection.getresponse()

    def get(self, target: str, patience: float = PATIENCE) -> tuple[int, str]:
        with self.asking(target, patience) as answer:
            return answer.status, answer.read().decode()

    def status(self, target: str) -> int:
        """0 where nobody answers."""
        try:
            return self.get(target)[0]
        except OSError:
            return 0

    def first_event(self) -> str:
        """What a page is sent when it opens: all that it shows."""
        with self.asking("/events") as answer:
            lines = [answer.readline().decode() for _ in range(4)]
        return "".join(lines)


def free() -> Pages:
    """A free port of loopback."""
    return Pages(ports.free())

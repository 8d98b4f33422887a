"""Ports for servers that must be told theirs.

From below those that the kernel hands out by itself (net.ipv4.ip_local_port_range): what lies among them may be given
to somebody's connection before the server that it was meant for listens.
"""

from __future__ import annotations

import secrets
import socket

FIRST, COUNT = 12_000, 20_000


def free() -> int:
    """A port of loopback on which nobody listens."""
    while True:
        port = FIRST + secrets.randbelow(COUNT)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port

"""The journal's own protocol: one datagram for each entry, so that every field of an event can be asked for by name
(systemd.journal-fields(7), and "Native Journal Protocol" in systemd's documentation).

A value is sent with its length in front: no letter in it can begin another field. Nothing needs a memfd, as values are
cut long before a datagram's limit.
"""

from __future__ import annotations

import hashlib
import socket
from datetime import datetime
from typing import Any

from rotator.core.events import Level

SOCKET = "/run/systemd/journal/socket"
IDENTIFIER = "rotator"
PREFIX = "ROTATOR_"


def message_id(name: str) -> str:
    """The ``MESSAGE_ID`` of an event: 128 bits in hexadecimal that stay the same for as long as its name does."""
    return hashlib.sha256(f"rotator event {name}".encode()).hexdigest()[:32]


def field_name(name: str) -> str:
    """What a field of an event is called in the journal."""
    return PREFIX + name.upper()


class Journal:
    """Where entries are sent. Connected anew for each: journald may restart at any time, and an entry is rare."""

    def __init__(self, address: str = SOCKET) -> None:
        self._address = address

    def send(self, level: Level, name: str, message: str, at: datetime, fields: dict[str, Any]) -> None:
        """One entry, without waiting. Raises OSError where nobody takes it, or its queue is full."""
        pairs: dict[str, Any] = {
            "MESSAGE": message,
            "PRIORITY": level.value,
            "SYSLOG_IDENTIFIER": IDENTIFIER,
            "MESSAGE_ID": message_id(name),
            field_name("event"): name,
        }
        pairs |= {field_name(key): value for key, value in fields.items()}
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.setblocking(False)
            channel.sendto(b"".join(_pair(key, value) for key, value in pairs.items()), self._address)


def _pair(name: str, value: Any) -> bytes:
    data = _text(value).encode("utf-8", "backslashreplace")
    return name.encode("ascii") + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(_text(one) for one in value) if isinstance(value, list) else str(value)

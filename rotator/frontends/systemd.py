"""What systemd hears of us: sd_notify(3) through sdnotify, and what its environment asks of us.

sdnotify 0.3.2 encodes Latin-1 and drops what does not fit, connects once and never again, blocks on a full queue
and swallows its errors. So every message gets a notifier of its own in debug mode, on a socket that does not block,
with the UTF-8 bytes dressed up as Latin-1; whatever fails is counted in `Notifier.errors` and never raised: a lost
message must not cost a token.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

SOCKET = "NOTIFY_SOCKET"
LONGEST_STATUS = 500
MICROSECOND = timedelta(microseconds=1)
# UINT64_MAX stands for "never" in systemd (USEC_INFINITY).
NEVER = 2**64 - 1


class Notifier:
    """The port `ports.Supervisor` over sd_notify(3); does nothing where ``NOTIFY_SOCKET`` is not set.

    ``environ`` is ``os.environ``: sdnotify reads the address there itself, so a copy only decides whether anything
    is sent. ``pid`` is ours; ``monotonic_usec`` reads CLOCK_MONOTONIC in microseconds.
    """

    def __init__(self, environ: Mapping[str, str], pid: int, monotonic_usec: Callable[[], int]) -> None:
        self._enabled = bool(environ.get(SOCKET))
        self._monotonic_usec = monotonic_usec
        self._watchdog = _watchdog(environ, pid)
        self._told = ""
        self.errors = 0

    @property
    def watchdog(self) -> timedelta | None:
        """The whole interval of sd_watchdog_enabled(3); whoever pings does so at half of it or more often."""
        return self._watchdog

    @property
    def listens(self) -> bool:
        """Whether a notification socket was given (sd_notify(3))."""
        return self._enabled

    def ready(self, status: str) -> None:
        """``READY=1`` and the status in one datagram; also ends a reload."""
        self._tell("READY=1", status)

    def status(self, status: str) -> None:
        """``STATUS=``, unless systemd has shown just this line since the last message."""
        if one_line(status) != self._told:
            self._tell("", status)

    def extend(self, span: timedelta) -> None:
        self._send(f"EXTEND_TIMEOUT_USEC={max(0, span // MICROSECOND)}")

    def alive(self) -> None:
        self._send("WATCHDOG=1")

    def reloading(self) -> None:
        """Both words in one datagram: Type=notify-reload compares the time with that of its signal."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={self._monotonic_usec()}")

    def stopping(self, status: str) -> None:
        self._tell("STOPPING=1", status)

    def _tell(self, word: str, status: str) -> None:
        line = one_line(status)
        told = self._send("\n".join(part for part in (word, f"STATUS={line}") if part))
        # A status that was not taken is not remembered, so that the next one like it is sent.
        self._told = line if told else ""

    def _send(self, text: str) -> bool:
        if not self._enabled:
            return False
        try:
            notifier = _notifier()(debug=True)
            try:
                notifier.socket.setblocking(False)
                notifier.notify(text.encode("utf-8", "replace").decode("latin-1"))
            finally:
                notifier.socket.close()
        # TypeError: the address has left os.environ since we were made; sdnotify then indexes None.
        except (OSError, TypeError):
            self.errors += 1
            return False
        return True


def scrub(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` for a child, without what lets it speak to systemd in our name."""
    return {key: value for key, value in environ.items() if key != SOCKET and not key.startswith("WATCHDOG_")}


def one_line(status: str) -> str:
    """The status as systemd can show it: one line, printable, at most 500 characters."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in status).split())
    return line if len(line) <= LONGEST_STATUS else line[: LONGEST_STATUS - 1] + "…"


def _watchdog(environ: Mapping[str, str], pid: int) -> timedelta | None:
    """sd_watchdog_enabled(3): an interval that is valid, and meant for us rather than inherited."""
    raw, meant = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID")
    if not (raw.isascii() and raw.isdigit() and len(raw) <= 20) or meant not in (None, str(pid)):
        return None
    return int(raw) * MICROSECOND if 0 < int(raw) < NEVER else None


@functools.cache
def _notifier() -> Any:
    # Imported at the first message: without systemd it is never needed.
    import sdnotify

    class Closing(sdnotify.SystemdNotifier):  # type: ignore[misc]  # sdnotify has no types
        """Closes its socket where the constructor drops it: sdnotify sets None over it when connecting fails."""

        def __setattr__(self, name: str, value: object) -> None:
            dropped = self.__dict__.get("socket")
            if name == "socket" and dropped is not None:
                dropped.close()
            super().__setattr__(name, value)

    return Closing

"""The command line's end of the control socket: blocking, one request per connection, standard library only.

The HTTP is written by hand: `http.client` loads email and ssl, 27 ms against the 7 ms of `socket`, and this is what
`rotator status` waits for. It reads what our own server writes: a status line, a Content-Length, a JSON object.
"""

from __future__ import annotations

import os
import socket
from datetime import timedelta
from pathlib import Path

from rotator.core import errors
from rotator.core.tokens import Secret
from rotator.frontends.control import wire
from rotator.frontends.control.wire import Document

QUICK = timedelta(seconds=5)
# An exchange may take its whole deadline, and its deliveries after it.
SLOW = timedelta(minutes=2)
LARGEST_ANSWER = 64 << 20


class Client:
    """Speaks to the daemon that listens at ``path``. ``timeout`` bounds each wait for the other side.

    Every call raises the errors that the daemon raised. Beyond these: Unavailable where no daemon listens, so that
    the caller can do without one; Refused where we may not speak to it; BadUsage for a name that no grant can have;
    Doubtful where an order that changes something was sent and no answer came.
    """

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()

    def answers(self, *, timeout: timedelta = QUICK) -> bool:
        """Whether a daemon listens; what it is told next may still find it gone. Raises Refused."""
        try:
            self._connect(timeout).close()
        except errors.Unavailable:
            return False
        return True

    def health(self, *, timeout: timedelta = QUICK) -> Document:
        return self._call("GET", wire.target("health"), None, timeout, changes=False)

    def rotate(self, grant: str, *, force: bool = False, timeout: timedelta = SLOW) -> Document:
        return self._call("POST", wire.target("rotate", grant), {"force": force}, timeout)

    def authorize(
        self,
        grant: str,
        *,
        password: Secret | None = None,
        refresh: Secret | None = None,
        timeout: timedelta = SLOW,
    ) -> Document:
        given = {"password": password, "refresh_token": refresh}
        words = {key: value for key, value in given.items() if value is not None}
        return self._call("POST", wire.target("authorize", grant), words, timeout)

    def retire(self, grant: str, *, timeout: timedelta = SLOW) -> Document:
        return self._call("POST", wire.target("retire", grant), {}, timeout)

    def token(self, grant: str, *, timeout: timedelta = QUICK) -> Document:
        """The one answer that holds a secret: ``access_token`` in clear, for whoever asked on his own terminal."""
        return self._call("POST", wire.target("token", grant), {}, timeout, changes=False)

    def reload(self, *, timeout: timedelta = SLOW) -> Document:
        return self._call("POST", wire.target("reload"), {}, timeout)

    def _call(
        self, method: str, target: str, words: Document | None, timeout: timedelta, *, changes: bool = True
    ) -> Document:
        body = b"" if words is None else wire.encode(words, reveal=True)
        head = (
            f"{method} {target} HTTP/1.1\r\nHost: rotator\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        with self._connect(timeout) as link:
            try:
                status, raw = _exchange(link, head.encode("ascii") + body)
            except (OSError, ValueError) as error:
                why = "in time" if isinstance(error, TimeoutError) else "with a whole answer"
                what = f"the daemon at {self._path} did not reply {why}"
                if changes:
                    raise errors.Doubtful(what, mend="look with `rotator status` before you ask again") from None
                raise errors.Unavailable(what, mend="look at its log") from None
        return self._judge(status, raw)

    def _judge(self, status: int, raw: bytes) -> Document:
        try:
            document = wire.decode(raw)
        except ValueError:
            raise errors.Unavailable(f"what answers at {self._path} is not rotator") from None
        if status != 200:
            raise wire.revive(document)
        return document

    def _connect(self, timeout: timedelta) -> socket.socket:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            link.settimeout(timeout.total_seconds())
            with wire.address(self._path) as name:
                link.connect(name)
            self._recognise(wire.peer_uid(link))
        except PermissionError:
            link.close()
            raise errors.Refused(
                f"you may not open the control socket {self._path}", mend="run this as root or as the daemon's user"
            ) from None
        except OSError as error:
            link.close()
            why = error.strerror or str(error)
            raise errors.Unavailable(f"no daemon answers at {self._path}: {why}", mend="start it") from None
        except BaseException:
            link.close()
            raise
        return link

    def _recognise(self, holder: int) -> None:
        """Whoever holds the socket is given passwords: he must be us, root, or the owner of the folder."""
        if holder not in (0, os.geteuid(), self._path.parent.stat().st_uid):
            raise errors.Refused(
                f"the control socket {self._path} is held by a stranger, uid {holder}", mend="find out who that is"
            )


def _exchange(link: socket.socket, request: bytes) -> tuple[int, bytes]:
    """Status and body. Raises OSError, ValueError for an answer that is not whole."""
    try:
        link.sendall(request)
    except (BrokenPipeError, ConnectionResetError):
        # It may have answered before it read everything: a refusal, worth reading.
        pass
    raw = bytearray()
    while (end := raw.find(b"\r\n\r\n")) < 0:
        _receive(link, raw)
    status, length = _head(bytes(raw[:end]))
    while len(raw) < end + 4 + length:
        _receive(link, raw)
    return status, bytes(raw[end + 4 : end + 4 + length])


def _receive(link: socket.socket, raw: bytearray) -> None:
    chunk = link.recv(1 << 16)
    if not chunk or len(raw) > LARGEST_ANSWER:
        raise ValueError("the answer has no end")
    raw += chunk


def _head(head: bytes) -> tuple[int, int]:
    first, *lines = head.split(b"\r\n")
    version, _, rest = first.partition(b" ")
    if not version.startswith(b"HTTP/1."):
        raise ValueError("the answer is not HTTP")
    headers = dict(line.lower().split(b":", 1) for line in lines)
    return int(rest[:3]), int(headers.get(b"content-length", b""))

"""The command line's end of the control socket: blocking, one request per connection, standard library only.

The HTTP is written by hand: `http.client` loads email and ssl, 27 ms against the 7 ms of `socket`, and this is what
`rotator status` waits for. It reads what our own server writes, see `answer`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path

from rotator.core import errors
from rotator.core.tokens import Secret
from rotator.frontends.control import answer, wire
from rotator.frontends.control.wire import Document

QUICK = timedelta(seconds=5)
# An exchange may take its whole deadline, and its deliveries after it.
SLOW = timedelta(minutes=2)


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

    def events(
        self,
        *,
        follow: bool = False,
        grant: str | None = None,
        level: str | None = None,
        since: str | None = None,
        timeout: timedelta = QUICK,
    ) -> Iterator[Document]:
        """What was told of late, the oldest first, and with ``follow`` what is told from now on, until the daemon ends:
        then the iterator does. ``since`` is a time of RFC 3339 in UTC, with a Z. Raises Unavailable where it is cut
        off before that."""
        words = {"follow": "true" if follow else None, "grant": grant, "level": level, "since": since}
        query = "&".join(f"{key}={value}" for key, value in words.items() if value is not None)
        with self._connect(timeout) as link:
            try:
                link.sendall(_head_of("GET", f"{wire.target('events')}?{query}", 0))
                told = answer.Reader(link)
                if told.status != 200:
                    raise wire.revive(wire.decode(told.body()))
                if follow:
                    link.settimeout(None)
                yield from map(wire.decode, told.lines())
            except (OSError, ValueError):
                what = f"the daemon at {self._path} was cut off" if follow else f"{self._path} gave no whole answer"
                raise errors.Unavailable(what, mend="look whether it still runs") from None

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

    def show(self, grant: str, *, timeout: timedelta = SLOW) -> Document:
        return self._call("GET", wire.target("show", grant), None, timeout, changes=False)

    def enter(self, entries: Sequence[Document], *, timeout: timedelta = SLOW) -> Document:
        """Each entry is the table of a grant with its ``name``; together they must fit into a portion."""
        return self._call("POST", wire.target("enter"), {"entries": list(entries)}, timeout)

    def listed(self, after: str, limit: int, *, timeout: timedelta = QUICK) -> Document:
        return self._call("POST", wire.target("listed"), {"after": after, "limit": limit}, timeout, changes=False)

    def reload(self, *, timeout: timedelta = SLOW) -> Document:
        return self._call("POST", wire.target("reload"), {}, timeout)

    def _call(
        self, method: str, target: str, words: Document | None, timeout: timedelta, *, changes: bool = True
    ) -> Document:
        body = b"" if words is None else wire.encode(words, reveal=True)
        with self._connect(timeout) as link:
            try:
                status, raw = _exchange(link, _head_of(method, target, len(body)) + body)
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


def _head_of(method: str, target: str, length: int) -> bytes:
    return (
        f"{method} {target} HTTP/1.1\r\nHost: rotator\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    ).encode("ascii")


def _exchange(link: socket.socket, request: bytes) -> tuple[int, bytes]:
    """Status and body. Raises OSError, ValueError for an answer that is not whole."""
    try:
        link.sendall(request)
    except (BrokenPipeError, ConnectionResetError):
        # It may have answered before it read everything: a refusal, worth reading.
        pass
    told = answer.Reader(link)
    return told.status, told.body()

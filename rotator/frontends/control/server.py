"""The daemon's end of the control socket: HTTP/1.1 on a Unix socket, by h11 over asyncio.

Not uvicorn, although the probes may run on it: it costs several megabytes of idle memory, takes over the signals, and
hides the socket, so that the credentials of the peer are lost. What is needed here is one request per connection.

Who may speak is settled three times: a 0700 folder, a 0600 socket, and the credentials that the kernel vouches for
(SO_PEERCRED): our own user or root. A caller who is slow, loud or gone costs a bounded time and a bounded memory.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from contextlib import suppress
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path

from rotator.core import errors
from rotator.frontends.control import chronicle as chronicles
from rotator.frontends.control import orders, stream, wire
from rotator.frontends.control.chronicle import Chronicle, Follower
from rotator.frontends.control.orders import Answer, Defect, Orders

CONNECTIONS = 32
CHUNK = 16 << 10
MODE = 0o600
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
REST = 1.0  # seconds


class Fault(Exception):
    """A request that is not one; ``status`` None where nobody is left to be told."""

    def __init__(self, status: int | None, what: str = "") -> None:
        super().__init__(what)
        self.status = status
        self.what = what


class Server:
    """Listens at ``path`` for ``uid`` and root. The caller holds the state lock: what stands at ``path`` is stale.

    ``path.parent`` is a private folder: made (0700) where it is missing. ``patience`` is the time for a whole
    request to arrive, and for an answer to be taken; ``drain`` is how long `close` waits for orders in progress.
    """

    def __init__(
        self,
        path: Path,
        orders: Orders,
        uid: int,
        *,
        on_defect: Defect,
        chronicle: Chronicle | None = None,
        patience: timedelta = timedelta(seconds=5),
        drain: timedelta = timedelta(seconds=30),
    ) -> None:
        self._path = path.absolute()
        self._orders = orders
        self._uid = uid
        self._on_defect = on_defect
        self._chronicle = chronicle if chronicle is not None else Chronicle()
        self._patience = patience.total_seconds()
        self._drain = drain.total_seconds()
        self._listener: socket.socket | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._talks: set[asyncio.Task[None]] = set()
        self._obeying: set[asyncio.Task[None]] = set()
        self._following: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Raises Misconfigured where the folder is not ours, or the socket cannot stand there."""
        self._listener = listener = bind(self._path)
        listener.setblocking(False)
        listener.listen(CONNECTIONS)
        self._listen(listener)

    async def close(self) -> None:
        """Take no more requests, let orders in progress finish for ``drain``, then cancel them. Idempotent."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        asyncio.get_running_loop().remove_reader(listener)
        if self._rest is not None:
            self._rest.cancel()
        with suppress(OSError):
            self._path.unlink()
        # Whoever has connected already is told that we stop; a bare hang-up would leave him in doubt.
        while (link := take(listener)) is not None:
            self._receive(link)
        listener.close()
        for talk in self._talks - self._obeying - self._following:
            talk.cancel()
        self._chronicle.close()
        if self._following:
            _, late = await asyncio.wait(self._following, timeout=self._patience)
            for talk in late:
                talk.cancel()
        if self._talks:
            _, late = await asyncio.wait(self._talks, timeout=self._drain)
            for talk in late:
                talk.cancel()
            if late:
                await asyncio.wait(late, timeout=self._patience)

    def _listen(self, listener: socket.socket) -> None:
        asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        try:
            link = take(listener)
        except OSError:
            # Out of descriptors or memory: the loop would call again at once, and for ever.
            loop = asyncio.get_running_loop()
            loop.remove_reader(listener)
            self._rest = loop.call_later(REST, self._listen, listener)
            return
        if link is not None:
            self._receive(link)

    def _receive(self, link: socket.socket) -> None:
        peer = wire.peer_uid(link)
        if peer not in (0, self._uid):
            what = f"the control socket does not serve uid {peer}"
            turn_away(link, errors.Refused(what, mend=f"run this as root or as uid {self._uid}"))
        elif self._listener is None:
            turn_away(link, errors.Transient("the daemon is stopping", mend="try again once it has started"))
        elif len(self._talks) >= CONNECTIONS:
            turn_away(link, errors.Transient("the daemon has no room for another order", mend="try again"))
        else:
            talk = asyncio.get_running_loop().create_task(self._converse(link))
            self._talks.add(talk)
            talk.add_done_callback(self._talks.discard)
            # Not in the talk itself: one that is cancelled before its first step closes nothing.
            talk.add_done_callback(lambda _: link.close())

    async def _converse(self, link: socket.socket) -> None:
        """One request, one answer. Runs to its end without the caller: hanging up cancels nothing."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 (a coroutine that runs has a task)
        with suppress(OSError):
            answer = await self._answer(link, task)
            if isinstance(answer, Follower):
                self._following.add(task)
                task.add_done_callback(self._following.discard)
                await stream.pour(link, answer, self._patience)
            elif answer is not None:
                async with asyncio.timeout(self._patience):  # noqa: TID251 (of a socket, not of the engine)
                    await loop.sock_sendall(link, compose(answer))

    async def _answer(self, link: socket.socket, task: asyncio.Task[None]) -> Answer | Follower | None:
        try:
            async with asyncio.timeout(self._patience):  # noqa: TID251 (of a socket, not of the engine)
                method, target, body = await read_request(link)
        except TimeoutError:
            return orders.told(errors.BadUsage("the request took too long to arrive"), 408)
        except Fault as fault:
            return None if fault.status is None else orders.told(errors.BadUsage(fault.what), fault.status)
        path, _, query = target.partition("?")
        if (method, path) == ("GET", wire.target("events")):
            try:
                return self._chronicle.follow(chronicles.wish(query))
            except errors.RotatorError as error:
                return orders.told(error)
        self._obeying.add(task)
        try:
            return await orders.obey(self._orders, method, target, body, self._on_defect)
        finally:
            self._obeying.discard(task)


def take(listener: socket.socket) -> socket.socket | None:
    """The next connection, None where there is none now. Raises OSError where it cannot be had."""
    try:
        link, _ = listener.accept()
    except (BlockingIOError, ConnectionAbortedError):
        return None
    link.setblocking(False)
    return link


def turn_away(link: socket.socket, error: errors.RotatorError) -> None:
    """An answer without a question. It fits the buffer of a new socket, so it need not be waited for."""
    with link, suppress(OSError):
        link.send(compose(orders.told(error)))


def compose(answer: Answer) -> bytes:
    """The answer as HTTP/1.1, always the last of its connection."""
    head = [
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
        "Content-Type: application/json",
        f"Content-Length: {len(answer.body)}",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    if answer.allow:
        head.append(f"Allow: {answer.allow}")
    return "\r\n".join([*head, "", ""]).encode("ascii") + answer.body


async def read_request(link: socket.socket) -> tuple[str, str, bytes]:
    """Method, target and body. Raises Fault for what is not a request or too large, OSError."""
    # Imported at the first request: it costs 25 ms that a start does not have.
    import h11

    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=wire.HEAD_LIMIT)
    loop = asyncio.get_running_loop()
    method, target, body, received = "", "", bytearray(), 0
    try:
        while True:
            event = parser.next_event()
            if event is h11.NEED_DATA:
                # h11 measures a head only while it is incomplete; reading no further than the limit makes it exact.
                room = CHUNK if method else wire.HEAD_LIMIT - received
                if not room:
                    raise Fault(431, f"the head of the request is larger than {wire.HEAD_LIMIT} bytes")
                chunk = await loop.sock_recv(link, room)
                received += len(chunk)
                parser.receive_data(chunk)
            elif isinstance(event, h11.Request):
                method, target = event.method.decode("ascii"), event.target.decode("latin-1")
                declared = next((value for name, value in event.headers if name == b"content-length"), b"0")
                if int(declared) > wire.BODY_LIMIT:
                    raise Fault(413, f"the body of the request is larger than {wire.BODY_LIMIT} bytes")
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > wire.BODY_LIMIT:
                    raise Fault(413, f"the body of the request is larger than {wire.BODY_LIMIT} bytes")
            elif isinstance(event, h11.EndOfMessage):
                return method, target, bytes(body)
            else:
                raise Fault(None)
    except h11.RemoteProtocolError as error:
        # Its text quotes what came in, which may hold a secret.
        raise Fault(error.error_status_hint, "this is not a request of HTTP/1.1") from None


def bind(path: Path) -> socket.socket:
    """A socket bound at ``path``, with mode 0600 at every instant. Raises Misconfigured, and Unavailable where the disk
    has no room for it: a supervisor tries again then."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _prepare(path)
        # Before bind, Linux gives the file the mode of the socket less the umask: never wider, perhaps narrower.
        os.fchmod(listener.fileno(), MODE)
        with wire.address(path) as name:
            listener.bind(name)
        path.chmod(MODE)
    except OSError as error:
        listener.close()
        what = f"the control socket {path} cannot be made: {error.strerror or error}"
        if error.errno in NO_ROOM:
            raise errors.Unavailable(what, mend="make room there (df, df -i), or mount it read-write") from None
        raise errors.Misconfigured(what, mend="free its folder for our user") from None
    except BaseException:
        listener.close()
        raise
    return listener


def _prepare(path: Path) -> None:
    """Make the folder, and clear what a killed daemon left; the caller's state lock says that it is dead."""
    folder = path.parent
    try:
        folder.mkdir(mode=0o700, parents=True)
    except FileExistsError:
        pass
    else:
        folder.chmod(0o700)
    there = folder.stat()
    # Group-writable is borne: a kubelet with fsGroup makes every folder of a volume so, and the client looks who holds
    # the socket. Folders of others are not, for their owner could put a socket of his own in the place of ours.
    if there.st_uid != os.geteuid() or there.st_mode & stat.S_IWOTH:
        raise errors.Misconfigured(
            f"the folder {folder} of the control socket is not ours alone",
            mend=f"name a folder that does not exist, or give it to uid {os.geteuid()} and run chmod 0700",
        )
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise errors.Misconfigured(f"{path} is in the way of the control socket", mend="move that file away")
        path.unlink()

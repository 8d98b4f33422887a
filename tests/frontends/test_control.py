"""Both ends of the control socket, over a real Unix socket."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rotator.core import errors
from rotator.core.tokens import Secret
from rotator.frontends.control import Client, wire
from rotator.frontends.control.server import CONNECTIONS, Server

SECRET = "s3cr3t-0123456789"
SHORT = timedelta(milliseconds=150)
Document = dict[str, Any]


@dataclass
class Daemon:
    """Orders that remember what they were asked, and answer or raise what the test says."""

    answer: Document = field(default_factory=lambda: {"fine": True})
    error: BaseException | None = None
    asked: list[tuple[object, ...]] = field(default_factory=list)
    gate: asyncio.Event | None = None
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    async def _act(self, *asked: object) -> Document:
        self.asked.append(asked)
        self.begun.set()
        if self.gate is not None:
            await self.gate.wait()
        self.ended.set()
        if self.error is not None:
            raise self.error
        return self.answer

    async def health(self) -> Document:
        return await self._act("health")

    async def rotate(self, grant: str, force: bool) -> Document:
        return await self._act("rotate", grant, force)

    async def authorize(self, grant: str, password: Secret | None, refresh: Secret | None) -> Document:
        return await self._act("authorize", grant, password, refresh)

    async def retire(self, grant: str) -> Document:
        return await self._act("retire", grant)

    async def token(self, grant: str) -> Document:
        return await self._act("token", grant)

    async def reload(self) -> Document:
        return await self._act("reload")


class Defects(list[tuple[str, str]]):
    def __call__(self, doing: str, error: Exception) -> None:
        self.append((doing, type(error).__name__))


@asynccontextmanager
async def serving(
    path: Path,
    daemon: Daemon,
    *,
    on_defect: Callable[[str, Exception], None] | None = None,
    patience: timedelta = timedelta(seconds=5),
    drain: timedelta = timedelta(seconds=5),
) -> AsyncIterator[Server]:
    def unexpected(doing: str, error: Exception) -> None:
        raise AssertionError(doing) from error

    server = Server(
        path,
        daemon,
        os.geteuid(),
        on_defect=unexpected if on_defect is None else on_defect,
        patience=patience,
        drain=drain,
    )
    await server.start()
    try:
        yield server
    finally:
        await server.close()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await test()

    asyncio.run(bounded())


async def say(path: Path, raw: bytes, *, shut: bool = False) -> tuple[int, Document, str]:
    """Send bytes, read to the end: status, document, head. Status 0 where nothing came back."""

    def talk() -> bytes:
        answer = bytearray()
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(20)
            link.connect(str(path))
            # The kernel says "reset" or "broken pipe" where the far end closed before it read all that was sent.
            with suppress(BrokenPipeError, ConnectionResetError):
                link.sendall(raw)
                if shut:
                    link.shutdown(socket.SHUT_WR)
            with suppress(ConnectionResetError):
                while chunk := link.recv(1 << 16):
                    answer += chunk
        return bytes(answer)

    answer = await asyncio.to_thread(talk)
    if not answer:
        return 0, {}, ""
    head, _, body = answer.decode().partition("\r\n\r\n")
    return int(head.split(" ")[1]), json.loads(body), head


def request(method: str, target: str, body: bytes = b"") -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "own" / "control.sock"


# --- orders -----------------------------------------------------------------------------------------------------


def test_every_order_arrives_with_its_arguments_and_its_answer_comes_back(path: Path) -> None:
    daemon = Daemon(answer={"grant": "billing", "generation": 7, "note": "→ ü"})

    def command_line() -> list[Document]:
        client = Client(path)
        assert client.answers()
        return [
            client.health(),
            client.rotate("billing"),
            client.rotate("billing", force=True),
            client.authorize("billing", password=Secret(SECRET)),
            client.authorize("billing", refresh=Secret("ü → 🔑")),
            client.retire("billing"),
            client.reload(),
        ]

    async def test() -> None:
        async with serving(path, daemon):
            answers = await asyncio.to_thread(command_line)
        assert answers == [daemon.answer] * 7

    run(test)
    assert daemon.asked == [
        ("health",),
        ("rotate", "billing", False),
        ("rotate", "billing", True),
        ("authorize", "billing", Secret(SECRET), None),
        ("authorize", "billing", None, Secret("ü → 🔑")),
        ("retire", "billing"),
        ("reload",),
    ]


def test_only_the_answer_to_token_shows_a_secret(path: Path) -> None:
    daemon = Daemon(answer={"access_token": Secret(SECRET), "expires_at": "2026-11-23T04:05:06Z"})

    async def test() -> None:
        async with serving(path, daemon):
            told = await asyncio.to_thread(Client(path).token, "billing")
            assert told == {"access_token": SECRET, "expires_at": "2026-11-23T04:05:06Z"}
            assert SECRET not in str(await asyncio.to_thread(Client(path).health))

    run(test)


def test_a_large_answer_arrives_whole(path: Path) -> None:
    daemon = Daemon(answer={"grants": {f"grant_{number}": "x" * 500 for number in range(10_000)}})

    async def test() -> None:
        async with serving(path, daemon):
            assert await asyncio.to_thread(Client(path).health) == daemon.answer

    run(test)


@pytest.mark.parametrize("cls", sorted(wire.CLASSES.values(), key=lambda cls: cls.__name__))
def test_an_error_comes_back_as_what_it_was(path: Path, cls: type[errors.RotatorError]) -> None:
    daemon = Daemon(error=cls("grant 'billing' ist müde", mend="let it sleep"))

    async def test() -> None:
        async with serving(path, daemon):
            with pytest.raises(errors.RotatorError) as caught:
                await asyncio.to_thread(Client(path).rotate, "billing")
            status, document, _ = await say(path, request("POST", "/v1/grants/billing/rotate"))
        assert type(caught.value) is cls
        assert (caught.value.what, caught.value.mend) == ("grant 'billing' ist müde", "let it sleep")
        assert caught.value.exit_code == cls.exit_code
        assert 400 <= status < 500 or status == 503
        assert document["error"] == cls.__name__

    run(test)


def test_every_class_of_the_tree_can_travel() -> None:
    def tree(cls: type[errors.RotatorError]) -> Iterator[type[errors.RotatorError]]:
        yield cls
        for below in cls.__subclasses__():
            yield from tree(below)

    ours = {cls for cls in tree(errors.RotatorError) if cls.__module__ == errors.__name__}
    assert ours == set(wire.CLASSES.values())


def test_an_error_of_a_newer_daemon_keeps_its_words_and_exit_code() -> None:
    error = wire.revive({"error": "Tired", "what": "w", "mend": "m", "exit_code": 74})
    assert (type(error), str(error), error.exit_code) == (errors.RotatorError, "w; m", 74)


def test_a_defect_is_told_to_us_and_its_text_to_nobody(path: Path) -> None:
    defects = Defects()
    daemon = Daemon(error=ValueError(f"unexpected {SECRET}"))

    async def test() -> None:
        async with serving(path, daemon, on_defect=defects):
            status, document, _ = await say(path, request("GET", "/v1/health"))
            assert (status, document) == (500, {"error": "bug"})
            with pytest.raises(errors.RotatorError, match="defect") as caught:
                await asyncio.to_thread(Client(path).health)
            assert caught.value.exit_code == errors.EXIT_BUG
            daemon.error, daemon.answer = None, {"not JSON": object()}
            assert (await say(path, request("GET", "/v1/health")))[0] == 500
            daemon.answer = {}
            assert (await say(path, request("GET", "/v1/health")))[0] == 200

    run(test)
    assert [name for _, name in defects] == ["ValueError", "ValueError", "TypeError"]
    assert SECRET not in str(defects)


def test_an_order_that_the_engine_cancelled_is_doubtful_and_the_server_lives_on(path: Path) -> None:
    daemon = Daemon(error=asyncio.CancelledError())

    async def test() -> None:
        async with serving(path, daemon):
            with pytest.raises(errors.Doubtful, match="stopped during rotate"):
                await asyncio.to_thread(Client(path).rotate, "billing")
            assert await asyncio.to_thread(Client(path).answers)

    run(test)


# --- requests that are none -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (request("GET", "/"), 404),
        (request("GET", "/v1/nothing"), 404),
        (request("GET", "/v1/rotate"), 404),
        (request("POST", "/v1/grants/billing/health"), 404),
        (request("POST", f"/v1/grants/{SECRET}/rotate"), 404),
        (request("POST", f"/v1/reload?token={SECRET}"), 404),
        (request("POST", "/v1/grants/../reload"), 404),
        (request("GET", "/v1/reload"), 405),
        (request("GET", "/v1/grants/billing/token"), 405),
        (request("DELETE", "/v1/health"), 405),
        (request("POST", "/v1/grants/billing/rotate", b"{"), 400),
        (request("POST", "/v1/grants/billing/rotate", b"\xff\xfe\x00"), 400),
        (request("POST", "/v1/grants/billing/rotate", b'"' + SECRET.encode() + b'"'), 400),
        (request("POST", "/v1/grants/billing/rotate", b"[" * 60_000), 400),
        (request("POST", "/v1/grants/billing/rotate", b'{"force": "yes"}'), 400),
        (request("POST", "/v1/grants/billing/rotate", json.dumps({SECRET: 1}).encode()), 400),
        (request("POST", "/v1/grants/billing/retire", b'{"force": true}'), 400),
        (request("POST", "/v1/grants/billing/authorize"), 400),
        (request("POST", "/v1/grants/billing/authorize", b'{"password": ""}'), 400),
        (request("POST", "/v1/grants/billing/authorize", b'{"password": "\\ud800"}'), 400),
        (request("POST", "/v1/grants/billing/authorize", json.dumps({"password": [SECRET]}).encode()), 400),
        (
            request(
                "POST", "/v1/grants/billing/authorize", json.dumps({"password": SECRET, "refresh_token": "r"}).encode()
            ),
            400,
        ),
        (request("POST", "/v1/grants/billing/authorize", b"x" * (wire.BODY_LIMIT + 1)), 413),
        (b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", 413),
        (b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n14000\r\n" + b"x" * 90_000, 413),
        (b"GET /v1/health HTTP/1.1\r\nHost: x\r\nX: " + b"x" * wire.HEAD_LIMIT + b"\r\n\r\n", 431),
        (b"GET /v1/health HTTP/1.1\r\nX: " + b"x" * 5 * wire.HEAD_LIMIT, 431),
        (f"{SECRET}\r\n\r\n".encode(), 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20 + b"\r\n\r\n", 400),
        (b"GET /v1/health HTTP/1.1\r\n\r\n", 400),
        (b"GET /v1/health HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx", 400),
    ],
)  # fmt: skip
def test_what_is_not_a_request_is_refused_and_not_quoted(path: Path, raw: bytes, status: int) -> None:
    daemon = Daemon()

    async def test() -> None:
        async with serving(path, daemon):
            told, document, head = await say(path, raw)
            assert (told, document["error"]) == (status, "BadUsage")
            assert SECRET not in str(document)
            assert "Connection: close" in head and "Content-Type: application/json" in head
            # It harmed nobody else.
            assert (await say(path, request("GET", "/v1/health")))[0] == 200

    run(test)
    assert daemon.asked == [("health",)]


def test_a_head_of_just_the_limit_and_a_body_of_just_the_limit_pass(path: Path) -> None:
    fill = wire.HEAD_LIMIT - len(b"GET /v1/health HTTP/1.1\r\nHost: x\r\nX: \r\n\r\n")
    head = b"GET /v1/health HTTP/1.1\r\nHost: x\r\nX: " + b"x" * fill + b"\r\n\r\n"
    assert len(head) == wire.HEAD_LIMIT
    password = "p" * (wire.BODY_LIMIT - len(b'{"password": ""}'))
    daemon = Daemon()

    async def test() -> None:
        async with serving(path, daemon):
            assert (await say(path, head))[0] == 200
            body = json.dumps({"password": password}).encode()
            assert len(body) == wire.BODY_LIMIT
            assert (await say(path, request("POST", "/v1/grants/billing/authorize", body)))[0] == 200

    run(test)
    assert daemon.asked[1] == ("authorize", "billing", Secret(password), None)


def test_who_hangs_up_before_asking_is_forgotten(path: Path) -> None:
    daemon = Daemon()

    async def test() -> None:
        async with serving(path, daemon):
            assert await say(path, b"", shut=True) == (0, {}, "")
            assert (await say(path, b"POST /v1/reload HTTP/1.1\r\nHo", shut=True))[0] == 400
            assert (await say(path, request("POST", "/v1/reload", b"{}")[:-1], shut=True))[0] == 400

    run(test)
    assert daemon.asked == []


@pytest.mark.parametrize(
    "beginning", [b"", b"GET /v1/hea", b"POST /v1/reload HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{"]
)
def test_a_request_that_does_not_arrive_in_time_is_given_up(path: Path, beginning: bytes) -> None:
    daemon = Daemon()

    async def test() -> None:
        async with serving(path, daemon, patience=SHORT):
            status, document, _ = await say(path, beginning)
            assert (status, document["error"]) == (408, "BadUsage")

    run(test)
    assert daemon.asked == []


def test_a_caller_who_does_not_read_is_given_up(path: Path) -> None:
    daemon = Daemon(answer={"much": "x" * 8_000_000})

    async def test() -> None:
        async with serving(path, daemon, patience=SHORT) as server:
            with socket.socket(socket.AF_UNIX) as deaf:
                deaf.connect(str(path))
                deaf.sendall(request("GET", "/v1/health"))
                await daemon.ended.wait()
                # close waits for the talk: it ends by the patience, not by the drain.
                await server.close()

    run(test)


def test_more_connections_than_there_is_room_for_are_turned_away(path: Path) -> None:
    daemon = Daemon()

    async def test() -> None:
        async with serving(path, daemon):
            with ExitStack() as idle:
                for _ in range(CONNECTIONS):
                    idle.enter_context(socket.socket(socket.AF_UNIX)).connect(str(path))
                status, document, _ = await say(path, b"")
                assert (status, type(wire.revive(document))) == (503, errors.Transient)
            # Their hanging up has made room again, as soon as the loop has seen it.
            while (await say(path, request("GET", "/v1/health")))[0] != 200:
                pass

    run(test)


def test_a_daemon_out_of_descriptors_answers_once_it_has_some(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def test() -> None:
        async with serving(path, Daemon()):
            with socket.socket(socket.AF_UNIX) as link:
                link.setblocking(False)
                with ExitStack() as hoard:
                    hoard.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
                    resource.setrlimit(resource.RLIMIT_NOFILE, (link.fileno() + 20, hard))
                    with suppress(OSError):
                        while True:
                            hoard.callback(os.close, os.dup(link.fileno()))
                    link.connect(str(path))
                    link.send(request("GET", "/v1/health"))
                    for _ in range(3):
                        await asyncio.sleep(0)  # turns of the loop, in which the server fails to accept
                answer = await asyncio.get_running_loop().sock_recv(link, 1 << 16)
                assert answer.startswith(b"HTTP/1.1 200 ")

    run(test)


# --- the place --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_folder_and_socket_are_private_under_any_umask(path: Path, umask: int) -> None:
    async def test() -> None:
        before = os.umask(umask)
        try:
            server = Server(path, Daemon(), os.geteuid(), on_defect=Defects())
            await server.start()
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert await asyncio.to_thread(Client(path).answers)
        await server.close()
        assert not path.exists()

    run(test)


def test_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    path = tmp_path / ("d" * 120) / ("e" * 120) / "control.sock"
    path.parent.parent.mkdir()

    async def test() -> None:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(2):
            async with serving(path, Daemon()):
                assert await asyncio.to_thread(Client(path).health) == {"fine": True}
                assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert not path.exists()
        assert len(os.listdir("/proc/self/fd")) == before

    run(test)


def test_a_socket_left_by_a_killed_daemon_is_replaced(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    assert not Client(path).answers()

    async def test() -> None:
        async with serving(path, Daemon()):
            assert await asyncio.to_thread(Client(path).answers)

    run(test)


def test_a_file_in_the_way_is_left_alone(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.write_text("precious")

    async def test() -> None:
        with pytest.raises(errors.Misconfigured, match="in the way"):
            await Server(path, Daemon(), os.geteuid(), on_defect=Defects()).start()

    run(test)
    assert path.read_text() == "precious"


def test_a_folder_that_others_may_write_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o777)

    async def test() -> None:
        with pytest.raises(errors.Misconfigured, match="not ours alone"):
            await Server(path, Daemon(), os.geteuid(), on_defect=Defects()).start()

    run(test)


def test_a_place_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "control.sock"

    async def test() -> None:
        with pytest.raises(errors.Misconfigured) as caught:
            await Server(path, Daemon(), os.geteuid(), on_defect=Defects()).start()
        assert str(path) in caught.value.what

    run(test)


# --- who may speak ----------------------------------------------------------------------------------------------

STRANGER = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
link = socket.socket(socket.AF_UNIX)
link.settimeout(20)
link.connect(sys.argv[1])
try:
    link.sendall(b"POST /v1/grants/billing/token HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
except BrokenPipeError:
    pass
answer = b""
try:
    while chunk := link.recv(65536):
        answer += chunk
except ConnectionResetError:
    pass
sys.stdout.buffer.write(answer)
"""


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A place that anybody may enter, so that only the credentials of the peer are left to protect."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "own" / "control.sock"
        path.parent.mkdir()
        for one in (path.parent, path.parent.parent):
            one.chmod(0o711)
        yield path


needs_root = pytest.mark.skipif(
    os.geteuid() != 0 and "CI" not in os.environ, reason="only root can become somebody else"
)


@needs_root
def test_a_stranger_is_refused_even_where_the_modes_let_him_in(open_path: Path) -> None:
    daemon = Daemon(answer={"access_token": SECRET})

    async def test() -> None:
        async with serving(open_path, daemon):
            open_path.chmod(0o666)
            command = [sys.executable, "-I", "-c", STRANGER, str(open_path)]
            done = await asyncio.to_thread(
                subprocess.run, command, capture_output=True, timeout=25, check=True, cwd="/"
            )
        assert done.stdout.startswith(b"HTTP/1.1 403 ")
        assert b"uid 65534" in done.stdout and SECRET.encode() not in done.stdout

    run(test)
    assert daemon.asked == []


IMPOSTOR = """
import os, socket, sys
place = socket.socket(socket.AF_UNIX)
place.bind(sys.argv[1])
os.setgroups([]); os.setgid(65534); os.setuid(65534)
place.listen()
print("listening", flush=True)
link, _ = place.accept()
link.settimeout(20)
print(len(link.recv(65536)), flush=True)
"""


@needs_root
def test_a_password_is_not_given_to_a_stranger_who_holds_the_socket(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    command = [sys.executable, "-I", "-c", IMPOSTOR, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd="/") as impostor:
        assert impostor.stdout is not None
        assert impostor.stdout.readline() == b"listening\n"
        with pytest.raises(errors.Refused, match="stranger, uid 65534"):
            Client(path).authorize("billing", password=Secret(SECRET))
        assert impostor.stdout.readline() == b"0\n"


# --- the client alone -------------------------------------------------------------------------------------------


def test_without_a_daemon_the_caller_learns_that_it_may_do_without(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.sock", tmp_path / "missing" / "control.sock", tmp_path / ("d" * 200) / "c.sock"):
        assert not Client(path).answers()
        with pytest.raises(errors.Unavailable, match="no daemon answers"):
            Client(path).health()


@pytest.mark.parametrize("name", ["", "../reload", "a b", "Billing", "a\r\nX: y"])
def test_a_name_that_no_grant_can_have_is_not_sent(tmp_path: Path, name: str) -> None:
    with pytest.raises(errors.BadUsage):
        Client(tmp_path / "c.sock").rotate(name)


@contextmanager
def far_end(path: Path, answer: bytes | None) -> Iterator[None]:
    """A server that takes a request and answers these bytes; None: it takes it and waits for the caller to go."""

    def serve() -> None:
        link, _ = place.accept()
        with link:
            link.recv(1 << 16)
            if answer is None:
                link.recv(1)
            else:
                link.sendall(answer)

    with socket.socket(socket.AF_UNIX) as place:
        place.bind(str(path))
        place.listen()
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            thread.join(20)


@pytest.mark.parametrize("answer", [None, b"", b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}", b"220 smtp\r\n\r\n"])
def test_an_order_without_an_answer_is_doubtful_and_a_question_only_unavailable(
    tmp_path: Path, answer: bytes | None
) -> None:
    client = Client(tmp_path / "c.sock")
    with far_end(tmp_path / "c.sock", answer), pytest.raises(errors.Doubtful):
        client.rotate("billing", timeout=SHORT)
    (tmp_path / "c.sock").unlink()
    with far_end(tmp_path / "c.sock", answer), pytest.raises(errors.Unavailable):
        client.health(timeout=SHORT)


def test_the_client_loads_nothing_that_is_slow() -> None:
    program = (
        "import sys; import rotator.frontends.control; "
        "print(*(set(sys.modules) & {'asyncio', 'h11', 'ssl', 'http.client', 'email', 'logging'}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "\n"


# --- stopping ---------------------------------------------------------------------------------------------------


def test_an_order_in_progress_is_finished_before_the_server_is_closed(path: Path) -> None:
    async def test() -> None:
        daemon = Daemon(gate=asyncio.Event())
        assert daemon.gate is not None
        async with serving(path, daemon) as server:
            idle_reader, idle = await asyncio.open_unix_connection(str(path))
            order = asyncio.create_task(asyncio.to_thread(Client(path).rotate, "billing"))
            await daemon.begun.wait()
            closing = asyncio.create_task(server.close())
            assert await idle_reader.read() == b""  # who has not asked anything is not waited for
            assert not await asyncio.to_thread(Client(path).answers)
            assert not closing.done()
            daemon.gate.set()
            assert await order == {"fine": True}
            await closing
            idle.close()

    run(test)


def test_an_order_that_does_not_end_is_cancelled_after_the_drain(path: Path) -> None:
    async def test() -> None:
        daemon = Daemon(gate=asyncio.Event())
        async with serving(path, daemon, drain=SHORT) as server:
            order = asyncio.create_task(asyncio.to_thread(Client(path).rotate, "billing"))
            await daemon.begun.wait()
            await server.close()
            with pytest.raises(errors.Doubtful):
                await order
        assert not daemon.ended.is_set()

    run(test)


def test_a_caller_who_hangs_up_does_not_cancel_what_he_asked_for(path: Path) -> None:
    async def test() -> None:
        daemon = Daemon(gate=asyncio.Event())
        assert daemon.gate is not None
        async with serving(path, daemon):
            _, writer = await asyncio.open_unix_connection(str(path))
            writer.write(request("POST", "/v1/grants/billing/rotate"))
            await daemon.begun.wait()
            writer.close()
            await writer.wait_closed()
            assert (await say(path, request("POST", "/v1/nothing")))[0] == 404
            daemon.gate.set()
            await daemon.ended.wait()

    run(test)


def test_a_server_can_be_closed_twice_and_before_it_was_started(path: Path) -> None:
    async def test() -> None:
        server = Server(path, Daemon(), os.geteuid(), on_defect=Defects())
        await server.close()
        await server.start()
        await server.close()
        await server.close()

    run(test)

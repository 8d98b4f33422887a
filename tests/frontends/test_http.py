"""The HTTP face over real sockets: who is answered what. The snapshot is data, and the caller is http.client."""

from __future__ import annotations

import asyncio
import base64
import http.client
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from rotator.core import errors
from rotator.core.health import GrantHealth, Health, Pulse, State, TargetHealth
from rotator.core.tokens import Secret
from rotator.frontends.http.application import Sources, is_own
from rotator.frontends.http.history import History
from rotator.frontends.http.server import PATIENCE, Place, Server
from tests.peers import ports

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
BEATS = Pulse(NOON, timedelta(seconds=4), timedelta(seconds=30))
FRESH = GrantHealth(
    name="billing", provider="omnifund", state=State.FRESH, reason="", generation=7, issued_at=NOON - HOUR / 2,
    expires_at=NOON + HOUR / 2, due_at=NOON + HOUR / 4, passwords_left=3,
    targets=(TargetHealth("app", "/run/rotator/billing/token", 7),), published=True, passwords_limit=3,
    last_outcome="granted",
)  # fmt: skip
LATCHED = replace(
    FRESH, name="crm", state=State.LATCHED, published=False, unready="target app holds no valid token; change it",
    reason="credentials refused: HTTP 400, latched since 2026-03-01 11:02:00Z; change it",
    targets=(TargetHealth("app", "/run/rotator/crm/token", None),), due_at=None,
)  # fmt: skip


@dataclass
class Shown:
    """What the server shows, to be changed while it runs."""

    health: Health = field(default_factory=lambda: Health(NOON, (FRESH,), BEATS, started=True))
    token: str = ""
    token_fails: errors.RotatorError | None = None
    metrics: Any = None
    fails: Exception | None = None
    defects: list[str] = field(default_factory=list)
    history: History = field(default_factory=lambda: History(NOON - HOUR))

    def snapshot(self) -> Health:
        if self.fails is not None:
            raise self.fails
        return self.health

    async def read_token(self) -> Secret:
        if self.token_fails is not None:
            raise self.token_fails
        return Secret(self.token)

    def sources(self) -> Sources:
        return Sources(
            version="1.2.3",
            snapshot=self.snapshot,
            history=self.history,
            token=self.read_token if self.token else None,
            metrics=self.metrics,
            on_defect=lambda doing, error: self.defects.append(f"{doing}: {type(error).__name__}"),
        )


@dataclass(frozen=True)
class Answer:
    status: int
    text: str
    headers: dict[str, str]


class Caller:
    def __init__(self, place: Place) -> None:
        self.place = place

    def connection(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self.place.host or "localhost", self.place.port or 80, timeout=10)
        if self.place.path:
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(self.place.path)
        return connection

    def __call__(self, path: str, method: str = "GET", **headers: str) -> Answer:
        with closing(self.connection()) as connection:
            connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            told = {name.lower(): text for name, text in answer.getheaders()}
            return Answer(answer.status, answer.read().decode(), told)


@contextmanager
def serving(shown: Shown, place: Place | None = None, patience: float = PATIENCE) -> Iterator[Caller]:
    """The server on a loop of its own thread, as it runs on the daemon's."""
    chosen = place or Place("127.0.0.1", ports.free())
    started, stop = threading.Event(), asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def live() -> None:
        loops.append(asyncio.get_running_loop())
        server = Server(chosen, shown.sources(), patience=patience)
        await server.start()
        started.set()
        await stop.wait()
        await server.close()
        await server.close()

    thread = threading.Thread(target=lambda: asyncio.run(live()), name="http")
    thread.start()
    assert started.wait(10)
    try:
        yield Caller(chosen)
    finally:
        loops[0].call_soon_threadsafe(stop.set)
        thread.join(10)
        assert not thread.is_alive()


def whole(*grants: GrantHealth, **changes: Any) -> Health:
    return replace(Health(NOON, grants, BEATS, started=True), **changes)


# --- probes -----------------------------------------------------------------------------------------------------


def test_all_probes_pass_where_all_is_well() -> None:
    with serving(Shown()) as ask:
        for path in ("/livez", "/readyz", "/startupz", "/healthz", "/readyz/billing", "/livez/loop"):
            answer = ask(path)
            assert (answer.status, answer.text) == (200, "ok\n"), path
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["content-type"].startswith("text/plain")
        assert ask("/readyz", "HEAD") == replace(ask("/readyz", "HEAD"), status=200, text="")


def test_a_grant_without_a_valid_token_fails_readiness_and_nothing_else() -> None:
    with serving(Shown(whole(FRESH, LATCHED))) as ask:
        failed = ask("/readyz")
        assert failed.status == 503
        assert failed.text == "[-]crm failed: target app holds no valid token; change it\nreadyz check failed\n"
        assert ask("/readyz?verbose").text.startswith("[+]billing ok\n[-]crm failed: ")
        assert ask("/readyz?exclude=crm").status == 200
        assert "warn: there is no check 'nobody' to exclude" in ask("/readyz?exclude=crm&exclude=nobody&verbose").text
        assert (ask("/readyz/billing").status, ask("/readyz/crm").status, ask("/readyz/nobody").status) == (
            200, 503, 404,
        )  # fmt: skip
        assert (ask("/livez").status, ask("/startupz").status, ask("/healthz").status) == (200, 200, 200)


def test_a_loop_that_does_not_turn_fails_liveness_alone() -> None:
    late = Pulse(NOON, timedelta(seconds=95), timedelta(seconds=30))
    with serving(Shown(whole(FRESH, pulse=late))) as ask:
        assert ask("/livez").text == (
            "[-]loop failed: the last sweep ended 1m ago (2026-03-01T12:00:00Z); 30s are allowed\nlivez check failed\n"
        )
        assert (ask("/livez").status, ask("/healthz").status, ask("/readyz").status) == (503, 503, 200)


def test_startup_fails_until_it_has_started() -> None:
    with serving(Shown(whole(FRESH, started=False))) as ask:
        assert ask("/startupz").status == 503
        assert "1/1 grants published" in ask("/startupz").text


def test_a_long_answer_is_cut_unless_it_is_asked_for_whole() -> None:
    many = tuple(replace(LATCHED, name=f"crm_{number:05}") for number in range(2000))
    with serving(Shown(whole(*many))) as ask:
        assert len(ask("/readyz").text.splitlines()) == 102
        assert "and 1900 more; ?verbose shows all" in ask("/readyz").text
        assert len(ask("/readyz?verbose").text.splitlines()) == 2001


def test_a_daemon_that_is_gone_is_said_to_be() -> None:
    with serving(Shown(fails=errors.Transient("the daemon is stopping"))) as ask:
        assert (ask("/livez").status, ask("/livez").text) == (503, "the daemon is stopping\n")


# --- who is answered --------------------------------------------------------------------------------------------


def test_it_is_read_only() -> None:
    with serving(Shown()) as ask:
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
            answer = ask("/readyz", method)
            assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD"), method
        assert ask("/nothing").status == 404
        assert ask("/readyz/../..//etc/passwd").status == 404
        assert ask("/readyz", **{"x-content-type-options": "?"}).headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("localhost", True), ("localhost:9465", True), ("LOCALHOST:1", True), ("127.0.0.1:9465", True),
        ("127.8.9.1", True), ("[::1]:9465", True), ("[::1]", True), ("app.localhost:80", True),
        ("", False), ("evil.example:9465", False), ("127.0.0.1.evil.example", False), ("localhost.evil.example", False),
        ("10.0.0.1:9465", False), ("localhost@evil.example", False),
    ],
)  # fmt: skip
def test_only_names_of_this_machine_are_its_own(host: str, own: bool) -> None:
    assert is_own(host) is own


def test_a_foreign_name_that_leads_to_loopback_is_not_answered(tmp_path: Path) -> None:
    with serving(Shown()) as ask:
        assert ask("/livez", Host="evil.example").status == 421
    with serving(Shown(), Place("", 0, str(tmp_path / "http"))) as ask:
        assert ask("/livez", Host="anything").status == 200, "no browser gets to a Unix socket by a name"


def test_with_a_token_a_stranger_gets_the_bare_answers_of_probes_only() -> None:
    basic = base64.b64encode(b"anybody:s3cret-t0ken").decode()
    with serving(Shown(whole(FRESH, LATCHED), token="s3cret-t0ken")) as ask:
        assert (ask("/livez").status, ask("/livez").text) == (200, "ok\n")
        assert (ask("/readyz").status, ask("/readyz").text) == (503, "readyz check failed\n")
        for path in ("/readyz?verbose", "/readyz/crm", "/readyz?exclude=crm", "/", "/events", "/metrics", "/nothing"):
            assert ask(path).status == 401, path
            assert "crm" not in ask(path).text
        assert ask("/nothing").headers["www-authenticate"].startswith("Basic realm=")
        for wrong in (
            "Bearer wrong",
            "Bearer ",
            "Basic !",
            "Basic d3Jvbmc6d3Jvbmc=",
            "Digest s3cret-t0ken",
            "Bearer é",
        ):
            assert ask("/readyz?verbose", Authorization=wrong).status == 401, wrong
        for right in ("Bearer s3cret-t0ken", "bearer  s3cret-t0ken ", f"Basic {basic}"):
            assert ask("/readyz?verbose", Authorization=right).status == 503, right
            assert ask("/nothing", Authorization=right).status == 404


def test_a_token_that_cannot_be_read_fails_no_probe_and_tells_no_stranger_where_it_is() -> None:
    gone = errors.Unavailable("http.token: /run/secrets/t is missing")
    with serving(Shown(whole(FRESH), token="s3cret-t0ken", token_fails=gone)) as ask:
        for path in ("/livez", "/readyz"):
            assert ask(path, Authorization="Bearer s3cret-t0ken").status == 200, path
        refused = ask("/", Authorization="Bearer s3cret-t0ken")
        assert refused.status == 503 and "/run" not in refused.text


def test_a_defect_is_told_by_its_class_and_shows_nothing() -> None:
    shown = Shown(fails=ValueError("c4n4ry"))
    with serving(shown) as ask:
        answer = ask("/livez")
        assert (answer.status, answer.text) == (500, "a defect; see the log\n")
    assert shown.defects == ["answering /livez by HTTP: ValueError"]


# --- metrics ----------------------------------------------------------------------------------------------------


def test_metrics_are_another_room_s_and_mounted_where_there_are_any() -> None:
    def expose(health: Health, accept: str) -> tuple[str, Iterator[bytes]]:
        return "application/openmetrics-text", iter([accept.encode(), b"\n", str(len(health.grants)).encode()])

    with serving(Shown()) as ask:
        assert ask("/metrics").status == 404
    with serving(Shown(metrics=expose)) as ask:
        answer = ask("/metrics", Accept="text/plain")
        assert (answer.status, answer.text) == (200, "text/plain\n1")
        assert answer.headers["content-type"].startswith("application/openmetrics-text")
        assert ask("/metrics", "HEAD").text == ""


def test_the_loop_turns_between_two_pieces_of_a_long_answer() -> None:
    """A scrape that is half-way waits for a probe to be answered: with a loop that is held this would never end."""
    answered = threading.Event()
    begun = threading.Event()

    def expose(health: Health, accept: str) -> tuple[str, Iterator[bytes]]:
        def pieces() -> Iterator[bytes]:
            begun.set()
            while not answered.is_set():
                yield b"# more\n"

        return "text/plain", pieces()

    with serving(Shown(metrics=expose)) as ask:
        scrape = threading.Thread(target=lambda: ask("/metrics"))
        scrape.start()
        assert begun.wait(10)
        assert ask("/livez").status == 200
        answered.set()
        scrape.join(10)
        assert not scrape.is_alive()


# --- sockets and signals ----------------------------------------------------------------------------------------


def test_a_taken_place_is_one_clear_line(tmp_path: Path) -> None:
    async def start(place: Place) -> None:
        await Server(place, Shown().sources()).start()

    with (
        serving(Shown()) as ask,
        pytest.raises(
            errors.Unavailable, match=r"http\.address: cannot listen on 127\.0\.0\.1 port \d+: Address already"
        ),
    ):
        asyncio.run(start(ask.place))
    path = tmp_path / "http"
    with serving(Shown(), Place("", 0, str(path))) as ask:
        assert oct(path.stat().st_mode)[-3:] == "660"
        with pytest.raises(errors.Unavailable, match="Address already in use"):
            asyncio.run(start(Place("", 0, str(path))))
        assert ask("/livez").status == 200
    assert not path.exists()
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    with serving(Shown(), Place("", 0, str(path))) as ask:
        assert ask("/livez").status == 200, "what a killed daemon left is taken away"
    path.write_text("a file of somebody")
    with pytest.raises(errors.Unavailable, match="Address already in use"):
        asyncio.run(start(Place("", 0, str(path))))
    assert path.read_text() == "a file of somebody"
    for place in (Place("192.0.2.1", 9465), Place("", 0, str(tmp_path / "nowhere" / "http"))):
        with pytest.raises(errors.Misconfigured, match=r"http\.address: cannot listen"):
            asyncio.run(start(place))


def test_signals_stay_the_daemon_s() -> None:
    async def live(react: Callable[[], None]) -> list[Any]:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, react)
        before = signal.getsignal(signal.SIGTERM)
        server = Server(Place("127.0.0.1", ports.free()), Shown().sources())
        await server.start()
        during = signal.getsignal(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        await server.close()
        return [before, during, signal.getsignal(signal.SIGTERM)]

    heard: list[bool] = []
    handlers = asyncio.run(live(lambda: heard.append(True)))
    assert heard == [True]
    assert len({id(one) for one in handlers}) == 1


def test_who_connects_and_stays_open_does_not_hold_up_the_end() -> None:
    with serving(Shown()) as ask:
        silent = socket.create_connection(("127.0.0.1", ask.place.port))
        idle = ask.connection()
        idle.request("GET", "/livez")
        assert idle.getresponse().read() == b"ok\n"
    silent.close()
    idle.close()


def test_who_begins_another_request_and_does_not_end_it_is_hung_up_on() -> None:
    with (
        serving(Shown(), patience=1.0) as ask,
        socket.create_connection(("127.0.0.1", ask.place.port)) as slow,
    ):
        slow.settimeout(3 * PATIENCE)
        slow.sendall(b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b"\r\n0\r\n\r\n"):
            answer += slow.recv(4096)
        slow.sendall(b"G")
        assert slow.recv(4096) == b""

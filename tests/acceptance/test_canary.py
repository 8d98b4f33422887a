"""Recognisable secrets go in everywhere, a hostile provider throws them back in every way it can, and then everything
that anybody but a reader of the token could see is searched for them."""

from __future__ import annotations

import base64
import itertools
import json
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from rotator.core.errors import RotatorError
from rotator.core.tokens import Secret
from rotator.frontends.control import Client
from tests.acceptance import stage as stages
from tests.acceptance.pages import Pages
from tests.acceptance.screens import Pipe, Terminal
from tests.acceptance.stage import PATIENCE, TIMING, Process, Stage, Supervisor, wait_for
from tests.peers.collector import collector

CANARY = "c4n4ry"
CLIENT_SECRET = f"{CANARY}-client-secret"
PASSWORD = f"{CANARY}-password"
LITERAL = f"{CANARY}-literal-password"
ROLE_ID, SECRET_ID, VAULT_TOKEN = f"{CANARY}-role-id", f"{CANARY}-secret-id", f"{CANARY}-vault-token"
ACCESS, REFRESH = f"{CANARY}-access", f"{CANARY}-refresh"
BASIC = base64.b64encode(f"the-client:{CLIENT_SECRET}".encode()).decode()
# Eight letters of one are as good as all of it to whoever greps a log.
TRACES = (CANARY, base64.b64encode(CANARY.encode()).decode()[:8], BASIC[:24])


# --- the far end ------------------------------------------------------------------------------------------------


@dataclass
class Hostile:
    """A token endpoint that grants at first and then answers with all it was sent, in ever other places."""

    port: int = 0
    way: str = "granted"
    seen: list[str] = field(default_factory=list)
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/token"

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        sent = handler.rfile.read(int(handler.headers.get("Content-Length") or 0)).decode()
        # All at once, as a description that quotes the request, with the header that held the client's secret.
        told = " ".join([sent, str(handler.headers.get("Authorization")), *itertools.chain(*parse_qs(sent).values())])
        self.seen.append(told)
        status, headers, body = _answer(self.way, told, next(self.numbers))
        reason = told.replace("\n", " ") if self.way == "reason" else None
        handler.send_response(status, reason)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body) + (10 if self.way == "cut" else 0)))
        handler.end_headers()
        handler.wfile.write(body)


JSON = {"Content-Type": "application/json"}
REFUSALS = (
    "invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
    "invalid_scope", "server_error", "temporarily_unavailable", "slow_down",
)  # fmt: skip


def _answer(way: str, told: str, number: int) -> tuple[int, dict[str, str], bytes]:
    tokens = {
        "access_token": f"{ACCESS}-{number}",
        "refresh_token": f"{REFRESH}-{number}",
        "expires_in": 3600,
        "token_type": "bearer",
    }
    refusal = {"error": way, "error_description": told, "error_uri": told}
    headers, status, answered = dict(JSON), 400, json.dumps(refusal)
    match way:
        case "granted":
            status, answered = 200, json.dumps(tokens)
        case "odd scope":
            status, answered = 200, json.dumps({**tokens, "scope": told, "expires_in": told, "surplus": told})
        case "odd type":
            status, answered = 200, json.dumps({**tokens, "token_type": told})
        case "no refresh token":
            status, answered = 200, json.dumps({**tokens, "refresh_token": None})
        case "no access token":
            status, answered = 200, json.dumps({**tokens, "access_token": None})
        case "list":
            status, answered = 200, json.dumps([told, tokens])
        case "unknown":
            answered = json.dumps({"error": told, "error_description": told})
        case "nested":
            answered = json.dumps({"error": {"message": told, "code": told}})
        case "page":
            status, headers, answered = 500, {"Content-Type": "text/html"}, f"<h1>{told}</h1><pre>{tokens}</pre>"
        case "busy":
            status, headers = 503, {**JSON, "Retry-After": told.replace("\n", " ")}
        case "redirect":
            status, headers, answered = 302, {"Location": f"http://127.0.0.1:1/?{told.split()[0]}"}, told
        case "challenge":
            status, headers = 401, {**JSON, "WWW-Authenticate": f'Basic realm="{told}"'}
        case "not json":
            status, answered = 200, told + json.dumps(tokens)[:-1]
        case "cut":
            status, answered = 200, json.dumps(tokens)
    return status, headers, answered.encode()


WAYS = (
    *REFUSALS, "unknown", "nested", "page", "busy", "redirect", "challenge", "reason", "not json", "cut", "list",
    "no access token", "odd scope", "odd type", "no refresh token",
)  # fmt: skip


@contextmanager
def hostile() -> Iterator[Hostile]:
    provider = Hostile()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            provider.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        provider.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield provider
        finally:
            server.shutdown()
            thread.join()


# --- the near end -----------------------------------------------------------------------------------------------

FORMATS = ("raw", "json", "env", "header", "template")
# Port 9 of loopback (discard) has no listener: this Vault is away.
VAULTS = """
[vault.default]
address = "http://127.0.0.1:9"
timeout = "500ms"
auth = {{ approle = {{ role_id = {{ file = "{0}/role_id" }}, secret_id = {{ file = "{0}/secret_id" }} }} }}
[vault.other]
address = "http://127.0.0.1:9"
timeout = "500ms"
auth = {{ token = {{ file = "{0}/vault_token" }} }}
"""


def furnish(stage: Stage, provider: Hostile, form: str, auth: str) -> None:
    for name, value in (
        ("client_secret", CLIENT_SECRET), ("password", PASSWORD), ("role_id", ROLE_ID), ("secret_id", SECRET_ID),
        ("vault_token", VAULT_TOKEN),
    ):  # fmt: skip
        stage.secret(name, value)
    grant = (
        'provider = "hostile"\nclient_id = "the-client"\nusername = "the-user"\n'
        f'client_secret = {{ file = "{stage.folder}/client_secret" }}\n'
        # So that nothing but what the provider answers decides what is tried next.
        'budget = { limit = 16, apart = "0s" }\n'
    )
    targets = "".join(
        f'[grants.billing.targets.{name}]\nfile = "billing/{name}"\nformat = "{name}"\n'
        + ('template = "value=$access_token scope=$scope type=$token_type"\n' if name == "template" else "")
        for name in FORMATS
    )
    stage.write(
        f'[log]\nlevel = "debug"\nformat = "{form}"\n[traces]\nenabled = true\n{TIMING}[startup]\nrequire = "any"\n'
        f'[providers.hostile]\ntoken_url = "{provider.url}"\nlogin_url = "{provider.url}"\nspacing = "1ms"\n'
        f'auth = "{auth}"\nreuse = "harmless"\n{VAULTS.format(stage.folder)}{shown(stage).table}'
        f'[grants.billing]\n{grant}password = {{ file = "{stage.folder}/password" }}\n{targets}'
        '[grants.billing.targets.vault]\nvault = "secret/billing"\n'
        '[grants.billing.targets.other]\nvault = "other:secret/billing"\n'
        f'[grants.literal]\n{grant}password = "{LITERAL}"\n[grants.literal.targets.app]\nfile = "literal/token"\n'
    )


def shown(stage: Stage) -> Pages:
    return Pages(path=stage.folder / "http")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with stages.opened(tmp_path) as opened:
        yield opened


def assert_clean(what: str, text: str, *allowed: str) -> None:
    for one in allowed:
        text = text.replace(one, "")
    for trace in TRACES:
        at = text.find(trace)
        assert at < 0, f"{what} shows a secret: {text[max(0, at - 300) : at + 100]!r}"


def provoke(stage: Stage, provider: Hostile) -> list[str]:
    """Every way of answering once, to an exchange by refresh token and to a login; what the orders told about it."""
    told, client = [], Client(stage.state / "control")
    for way in WAYS:
        for order in ("rotate", "authorize"):
            provider.way = way
            try:
                if order == "rotate":
                    told.append(json.dumps(client.rotate("billing", force=True)))
                else:
                    told.append(json.dumps(client.authorize("billing", password=Secret(PASSWORD))))
            except RotatorError as error:
                told += [str(error), repr(error), error.what, error.mend, repr(error.args), repr(error.__cause__)]
        provider.way = "granted"
        try:
            told.append(json.dumps(client.rotate("billing", force=True)))
        except RotatorError as error:
            told.append(str(error))
        told.append(json.dumps(client.health()))
        its = shown(stage)
        told += [its.get(page)[1] for page in ("/", "/readyz?verbose", "/livez?verbose", "/metrics")]
        told.append(its.first_event())
    return told


# --- what can be seen -------------------------------------------------------------------------------------------

# Something that shows, of a daemon that runs with all this behind it: its name, and how to look. Another is one line.
Look = Callable[[Stage, Process], str]


def command(*words: str) -> tuple[str, Look]:
    """All that a command says, on both streams."""

    def look(stage: Stage, process: Process) -> str:
        done = stage.rotator(*words)
        return done.stdout + done.stderr

    return f"rotator {' '.join(words)}", look


def terminal(*words: str) -> tuple[str, Look]:
    """The same on a terminal, where it is drawn."""

    def look(stage: Stage, process: Process) -> str:
        shown = Terminal(stage, *words)
        shown.end()
        assert "billing" in shown.text
        return shown.raw + shown.text

    return f"rotator {' '.join(words)} on a terminal", look


def asked(target: str, verb: str = "GET") -> tuple[str, Look]:
    """What the control socket answers to somebody with curl."""

    def look(stage: Stage, process: Process) -> str:
        with socket.socket(socket.AF_UNIX) as link:
            link.settimeout(PATIENCE)
            link.connect(str(stage.state / "control"))
            link.sendall(f"{verb} {target} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
            return b"".join(iter(lambda: link.recv(1 << 16), b"")).decode()

    return f"{verb} {target}", look


def process_file(name: str) -> tuple[str, Look]:
    return f"/proc/PID/{name}", lambda stage, process: Path(f"/proc/{process.pid}/{name}").read_bytes().decode()


SURFACES: tuple[tuple[str, Look], ...] = (
    command("status"), command("status", "--json"), terminal("status"), command("status", "--worst-first", "bill*"),
    command("config", "show"), command("config", "show", "--json"), command("check"),
    command("events"), command("events", "--json", "--level", "debug"), terminal("events", "--level", "debug"),
    command("rotate", "--force", "billing"), command("rotate", "--json", "--force", "billing"),
    command("rotate", "literal"), command("verify", "--json", "billing"), command("retire", "billing"),
    command("wait", "billing", "--timeout", "100ms"),
    asked("/v1/health"), asked("/v1/events?level=debug"), asked(f"/v1/{CANARY}"), asked(f"/v1/events?{CANARY}=1"),
    asked("/v1/grants/billing/rotate", "POST"),
    process_file("cmdline"), process_file("environ"),
)  # fmt: skip


def look_around(stage: Stage, process: Process) -> None:
    """All that a person or another process sees of a daemon and its commands, but for the token itself."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        seen = pool.map(lambda surface: surface[1](stage, process), SURFACES)
        for (name, _), text in zip(SURFACES, seen, strict=True):
            assert_clean(name, text)


# Somebody who looks on all the time, from before the daemon starts or beside it, and tells in the end what he has seen.
Witness = Callable[[Stage], AbstractContextManager[Callable[[], str]]]


@contextmanager
def traced(stage: Stage) -> Iterator[Callable[[], str]]:
    """A collector of traces."""
    with collector() as there:
        stage.extra["OTEL_EXPORTER_OTLP_ENDPOINT"] = there.url
        yield lambda: "\n".join(f"{path} {head} {body!r}" for path, head, body in there.requests)


@contextmanager
def following(stage: Stage) -> Iterator[Callable[[], str]]:
    """A command that follows the events, to the end that the daemon makes."""
    follow = Pipe(stage, "events", "--follow", "--json", "--level", "debug")
    follow.wait_line("exchange.started")
    heard: list[str] = []
    try:
        yield lambda: "".join(heard)
    finally:
        code = follow.end()
        heard += [*follow.out, *follow.err]
    assert code == 0, follow.err


# Each with a word that it must have seen, or it proves nothing.
BEFORE: tuple[tuple[str, Witness, str], ...] = (("traces", traced, "exchange"),)
BESIDE: tuple[tuple[str, Witness, str], ...] = (("events --follow", following, "exchange.failed"),)


@pytest.mark.parametrize(
    ("form", "auth"), [("text", "body"), ("json", "body"), ("logfmt", "basic"), ("auto", "body")]
)  # fmt: skip
def test_no_secret_shows_anywhere(form: str, auth: str, stage: Stage) -> None:
    with hostile() as provider, stage.supervisor() as supervisor:
        furnish(stage, provider, form, auth)
        stage.extra["NOTIFY_SOCKET"] = str(supervisor.path)
        environ = {}
        if form == "auto":
            # The journal's own stream, as systemd describes it: the log is made at this very place.
            log = stage.folder / "log-1"
            log.touch()
            environ["JOURNAL_STREAM"] = f"{log.stat().st_dev}:{log.stat().st_ino}"
        with ExitStack() as witnesses:
            told = [(name, witnesses.enter_context(witness(stage)), word) for name, witness, word in BEFORE]
            with stage.daemon(**environ) as process:
                wait_for((stage.folder / "run/billing/raw").exists, "the first token")
                told += [(name, witnesses.enter_context(witness(stage)), word) for name, witness, word in BESIDE]
                converse(stage, provider, process, form)
        for name, tell, word in told:
            assert word in tell(), name
            assert_clean(name, tell())
        assert_was_provoked(provider, process, supervisor)
        assert_clean("the log", process.told)
        for one in supervisor.told:
            assert_clean("a message to systemd", one.text)
        if form == "auto":
            assert process.told.startswith("<"), "the journal's form"


def converse(stage: Stage, provider: Hostile, process: Process, form: str) -> None:
    """Ask for everything in every way; the surfaces are looked at once, with the form of a person."""
    for text in provoke(stage, provider):
        assert_clean("an answer of the control socket", text)
    if form == "text":
        look_around(stage, process)
    provider.way = "granted"
    assert_files_hold_the_access_token_alone(stage, provider)
    if form == "text":
        token = stage.rotator("token", "billing")
        assert token.stdout.startswith(ACCESS)
        assert_clean("token", token.stdout + token.stderr, token.stdout)


@pytest.mark.parametrize("level", ["info", "notice", "warning", "error", "critical"])
def test_no_level_of_the_log_shows_more(level: str, stage: Stage) -> None:
    """Level debug is what every other test here has."""
    with hostile() as provider:
        furnish(stage, provider, "json", "body")
        with stage.daemon("--log-level", level, wait="") as process:
            wait_for((stage.folder / "run/billing/raw").exists, "the first token")
            wait_for((stage.state / "control").exists, "the control socket")
            client = Client(stage.state / "control")
            for way in ("invalid_client", "page", "invalid_grant"):
                provider.way = way
                with suppress(RotatorError):
                    client.authorize("billing", password=Secret(PASSWORD))
    assert_clean(f"the log at level {level}", process.told)


def test_a_crash_dump_shows_where_it_stood_and_no_secret(stage: Stage) -> None:
    """SIGABRT is how systemd ends a daemon whose watchdog barks: faulthandler writes the stacks into the log."""
    with hostile() as provider:
        furnish(stage, provider, "json", "body")
        process = stage.start()
        wait_for((stage.folder / "run/billing/raw").exists, "the first token")
        wait_for((stage.state / "control").exists, "the control socket")
        Client(stage.state / "control").rotate("billing", force=True)
        process.end(signal.SIGABRT)
    assert "Fatal Python error: Aborted" in process.told
    assert "run_forever" in process.told
    assert_clean("a crash dump", process.told)


def assert_files_hold_the_access_token_alone(stage: Stage, provider: Hostile) -> None:
    client = Client(stage.state / "control")
    client.rotate("billing", force=True)
    token = str(client.token("billing")["access_token"])
    for name in FORMATS:
        text = (stage.folder / "run/billing" / name).read_text()
        assert token in text, name
        assert_clean(f"the file of format {name}", text, token)


def assert_was_provoked(provider: Hostile, process: Process, supervisor: Supervisor) -> None:
    """The search above only proves something if all of it was there to be found."""
    seen = "\n".join(provider.seen)
    assert len(provider.seen) > 2 * len(WAYS)
    for secret in (PASSWORD, LITERAL, REFRESH):
        assert secret in seen
    assert CLIENT_SECRET in seen or BASIC in seen
    assert "exchange.failed" in process.told
    assert "exchange.started" in process.told, "the log was at level debug"
    assert "127.0.0.1" in process.told, "the Vault that is away was tried"
    assert any("STATUS=" in one.text for one in supervisor.told)


def test_commands_without_a_daemon_show_no_secret(stage: Stage) -> None:
    with hostile() as provider:
        furnish(stage, provider, "json", "body")
        for way in ("invalid_grant", "granted"):
            provider.way = way
            for words in (
                ("run", "--once", "--within", "500ms", "--log-level", "debug"), ("status", "--json"),
                ("rotate", "--force", "billing"),
            ):  # fmt: skip
                done = stage.rotator(*words)
                assert_clean(" ".join(words), done.stdout + done.stderr)
        done = stage.rotator("authorize", "literal", "--refresh-token", "-", typed=f"{REFRESH}-typed")
        assert_clean("authorize", done.stdout + done.stderr)


def test_a_configuration_that_is_wrong_shows_no_secret(stage: Stage) -> None:
    """Errors of pydantic quote what stands beside a wrong key."""
    with hostile() as provider:
        furnish(stage, provider, "json", "body")
    good = stage.config.read_text()
    for old, new in (
        ('client_id = "the-client"', "client_id = 7"),
        (f'"{LITERAL}"', f'{{ {LITERAL} = "{LITERAL}" }}'.replace(LITERAL + " =", "fil =")),
        (f'"{LITERAL}"', f'["{LITERAL}"]'),
        (f'"{LITERAL}"', f'"{LITERAL}'),
        (f'"{LITERAL}"', f'{{ vault = "{LITERAL}" }}'),
        (f'"{LITERAL}"', f'{{ file = "{LITERAL}" }}'),
        ('username = "the-user"', 'usrname = "the-user"'),
    ):
        assert old in good
        stage.write(good.replace(old, new))
        done = stage.rotator("config", "show")
        assert done.returncode == 78, (old, new, done.stderr)
        assert_clean(f"a configuration with {new}", done.stdout + done.stderr)


def test_secrets_in_the_environment_show_nowhere_else(stage: Stage) -> None:
    with hostile() as provider:
        stage.config.unlink()
        environ = {
            "ROTATOR_PROVIDERS__HOSTILE__TOKEN_URL": provider.url,
            "ROTATOR_GRANTS__BILLING__PROVIDER": "hostile",
            "ROTATOR_GRANTS__BILLING__CLIENT_ID": "the-client",
            "ROTATOR_GRANTS__BILLING__CLIENT_SECRET__ENV": "THE_SECRET",
            "THE_SECRET": CLIENT_SECRET,
            "ROTATOR_GRANTS__BILLING__USERNAME": "the-user",
            "ROTATOR_GRANTS__BILLING__PASSWORD": LITERAL,
            "ROTATOR_GRANTS__BILLING__TARGETS__APP__FILE": "billing/token",
        }
        for words in (("run", "--once", "--log-level", "debug"), ("status", "--json"), ("config", "show"), ("check",)):
            done = stage.rotator(*words, config=False, environ=environ)
            assert done.returncode == 0, done.stderr
            assert_clean(" ".join(words), done.stdout + done.stderr)
        assert stage.token.read_text().startswith(ACCESS)


def test_what_we_keep_is_ours_alone(stage: Stage) -> None:
    """The store holds tokens in clear; its folder is private whatever the umask."""
    old = os.umask(0)
    try:
        assert stage.rotator("run", "--once").returncode == 0
    finally:
        os.umask(old)
    assert stage.state.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in stage.state.iterdir()} == {0o600}
    assert stage.token.stat().st_mode & 0o777 == 0o600

"""The provider on a real port: what HTTP adds to the rules, connections that break, and how the server stops."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from rotator.core import errors
from rotator.lab import emulator
from rotator.lab.faults import Mishap
from tests.peers.emulator import ACCOUNT, Emulator, serve

CLIENT = {"client_id": ACCOUNT.client_id, "client_secret": ACCOUNT.client_secret}
PASSWORD = {**CLIENT, "grant_type": "password", "username": ACCOUNT.username, "password": ACCOUNT.password}


@pytest.fixture(scope="module")
def running() -> Iterator[Emulator]:
    with serve() as served:
        yield served


@pytest.fixture
def peer(running: Emulator) -> Emulator:
    running.faults.clear()
    return running


class Answer:
    """One answer, read to its end; ``broken`` tells that the connection ended before it."""

    def __init__(self, url: str, fields: object = None, *, method: str = "POST", **headers: str) -> None:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        sent: str | None = None
        if isinstance(fields, dict):
            sent, headers = urlencode(fields), {"Content-Type": "application/x-www-form-urlencoded", **headers}
        elif isinstance(fields, str):
            sent = fields
        try:
            connection.request(method, f"{parts.path}?{parts.query}", body=sent, headers=headers)
            response = connection.getresponse()
            self.status, self.headers = response.status, response.headers
            self.broken = False
            try:
                self.body = response.read()
            except http.client.IncompleteRead as error:
                self.body, self.broken = error.partial, True
        finally:
            connection.close()

    def json(self) -> Any:
        return json.loads(self.body)


def password(peer: Emulator) -> dict[str, str]:
    answer = Answer(peer.token_url, PASSWORD)
    assert answer.status == 200
    tokens: dict[str, str] = answer.json()
    return tokens


def refresh(peer: Emulator, token: str) -> Answer:
    return Answer(peer.token_url, {**CLIENT, "grant_type": "refresh_token", "refresh_token": token})


def test_an_answer_as_it_stands_on_the_wire(peer: Emulator) -> None:
    answer = Answer(peer.token_url, PASSWORD)
    assert list(answer.json()) == ["access_token", "expires_in", "token_type", "scope", "refresh_token"]
    headers = {name.lower(): value for name, value in answer.headers.items() if name.lower() != "date"}
    assert headers == {
        "content-type": "application/json",
        "cache-control": "no-store, private",
        "pragma": "no-cache",
        "connection": "close",
        "content-length": str(len(answer.body)),
    }


def test_refusals_on_the_wire(peer: Emulator) -> None:
    basic = "Basic " + base64.b64encode(b"1_x:wrong").decode()
    bad_client = Answer(peer.token_url, PASSWORD, Authorization=basic)
    assert bad_client.status == 400
    assert bad_client.body == b'{"error":"invalid_client","error_description":"The client credentials are invalid"}'
    dead = refresh(peer, "unknown")
    assert dead.body == b'{"error":"invalid_grant","error_description":"Invalid refresh token"}'
    wrong_method = Answer(peer.token_url, method="PUT")
    assert (wrong_method.status, wrong_method.headers["Allow"]) == (405, "GET, POST")


def test_get_is_granted(peer: Emulator) -> None:
    assert Answer(f"{peer.token_url}?{urlencode(PASSWORD)}", method="GET").status == 200


def test_token_login(peer: Emulator) -> None:
    token = password(peer)["access_token"]
    assert Answer(peer.login_url, Authorization=f"Bearer {token}").status == 200
    lower = Answer(peer.login_url, Authorization=f"bearer {token}")
    assert lower.status == 401
    assert lower.headers["WWW-Authenticate"] == (
        'Bearer realm="Service", error="access_denied", error_description="OAuth2 authentication required"'
    )


def test_the_date_is_the_providers_own() -> None:
    with serve(now=lambda: 784_111_777.0) as peer:
        assert Answer(peer.token_url, PASSWORD).headers["Date"] == "Sun, 06 Nov 1994 08:49:37 GMT"


def test_a_lost_answer_is_a_dropped_connection(peer: Emulator) -> None:
    token = password(peer)["refresh_token"]
    peer.faults.plan(Mishap.LOST_BEFORE_COMMIT)
    peer.faults.plan(Mishap.LOST_AFTER_COMMIT)
    for _ in range(2):
        with pytest.raises(http.client.RemoteDisconnected):
            refresh(peer, token)
    assert refresh(peer, token).status == 400


def test_a_truncated_answer_announces_more_than_it_brings(peer: Emulator) -> None:
    peer.faults.plan(Mishap.TRUNCATED)
    answer = Answer(peer.token_url, PASSWORD)
    assert (answer.status, answer.broken) == (200, True)
    with pytest.raises(json.JSONDecodeError):
        answer.json()


def test_an_outage_drops_every_connection_but_the_labs_own(peer: Emulator) -> None:
    assert Answer(peer.faults_url, '{"outage": true}').status == 200
    for url in (peer.token_url, peer.login_url):
        with pytest.raises(http.client.RemoteDisconnected):
            Answer(url, PASSWORD)
    assert Answer(peer.faults_url, method="DELETE").status == 200
    password(peer)


def test_two_refreshes_at_once_are_both_granted(peer: Emulator) -> None:
    token = password(peer)["refresh_token"]
    peer.faults.meet = 2
    answers: list[Answer] = []
    threads = [threading.Thread(target=lambda: answers.append(refresh(peer, token))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status for answer in answers] == [200, 200]
    assert answers[0].json()["refresh_token"] != answers[1].json()["refresh_token"]
    assert peer.journal.max_in_flight[f"{ACCOUNT.client_id} {ACCOUNT.username}"] == 2


def test_latency_passes_before_the_answer(peer: Emulator) -> None:
    peer.faults.latency_seconds = 0.2
    before = time.monotonic()
    password(peer)
    assert time.monotonic() - before >= 0.2


def test_faults_are_set_over_http(peer: Emulator) -> None:
    planned = {"queue": [{"mishap": "busy", "status": 429, "retry_after": "7"}], "overrides": {"token_type": "mac"}}
    shown = Answer(peer.faults_url, json.dumps(planned)).json()
    assert (shown["queue"][0]["times"], shown["overrides"]) == (1, {"token_type": "mac"})
    busy = Answer(peer.token_url, PASSWORD)
    assert (busy.status, busy.headers["Retry-After"]) == (429, "7")
    assert password(peer)["token_type"] == "mac"


@pytest.mark.parametrize("body", ["{", "[]", '{"outrage": true}', '{"outage": "yes"}'])
def test_faults_that_cannot_be_read_are_refused_in_words(peer: Emulator, body: str) -> None:
    before = peer.faults.describe()
    answer = Answer(peer.faults_url, body)
    assert answer.status == 400
    assert answer.json()["error"]
    assert peer.faults.describe() == before


def test_the_journal_is_read_over_http() -> None:
    with serve() as peer:
        tokens = password(peer)
        refresh(peer, tokens["refresh_token"])
        refresh(peer, tokens["refresh_token"])
        answer = Answer(peer.log_url, method="GET")
        shown = answer.json()
        assert (shown["password_attempts"], shown["refreshes"]) == (1, 2)
        assert [(r["number"], r["outcome"], r["token"]) for r in shown["requests"]] == [
            (1, "granted", None),
            (2, "granted", "newest"),
            (3, "invalid_grant", "old"),
        ]
        secrets = [ACCOUNT.password, ACCOUNT.client_secret, tokens["access_token"], tokens["refresh_token"]]
        assert not any(secret.encode() in answer.body for secret in secrets)


def test_stopping_does_not_wait_for_a_request_that_hangs() -> None:
    held = threading.Event()

    def now() -> float:
        # The token endpoint reads the time as a request begins: from then on it is in flight.
        held.set()
        return 0.0

    with serve(now=now) as peer, socket.create_connection(("127.0.0.1", peer.port), timeout=10) as hanging:
        peer.faults.latency_seconds = 3600
        hanging.sendall(b"POST /oauth/v2/token HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert held.wait(10)
        port = peer.port
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_exit_code_0_and_nothing_on_stderr(number: signal.Signals) -> None:
    script = "import sys; from rotator.lab import emulator; sys.exit(emulator.main(port=0))"
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            told = dict(process.stdout.readline().split() for _ in range(8))
            assert Answer(told["token_url"], PASSWORD).status == 200
            process.send_signal(number)
            rest, complaints = process.communicate(timeout=20)
        finally:
            process.kill()
    assert (process.returncode, rest, complaints) == (0, "", "")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_only_loopback_is_listened_on(host: str) -> None:
    provider, _ = emulator.account()
    with pytest.raises(errors.BadUsage, match="does not listen on"):
        asyncio.run(emulator.serve(provider, host=host, on_ready=lambda port: None))


def test_elsewhere_only_where_it_is_allowed() -> None:
    provider, _ = emulator.account()

    async def run() -> int:
        ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        serving = asyncio.create_task(
            emulator.serve(provider, host="0.0.0.0", on_ready=ready.set_result, allow_remote=True)
        )
        port = await ready
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        assert serving.cancelled()
        return port

    assert asyncio.run(run()) > 0


def test_a_port_that_is_taken_is_named() -> None:
    provider, _ = emulator.account()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(errors.Misconfigured, match=f"port {port}"):
            asyncio.run(emulator.serve(provider, port=port, on_ready=lambda port: None))


def test_lifetimes_are_the_accounts() -> None:
    provider, account = emulator.account(access_ttl=timedelta(seconds=8), refresh_ttl=timedelta(minutes=1))
    body = urlencode({**PASSWORD, "client_id": account.client_id}).encode()
    reply = provider.respond("POST", {"Content-Type": "application/x-www-form-urlencoded"}, body=body)
    assert reply is not None
    assert json.loads(reply.body)["expires_in"] == 8
    assert provider.profile.refresh_seconds == 60

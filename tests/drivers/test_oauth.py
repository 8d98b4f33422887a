"""The token endpoint driver: exact requests, the exchange, and that our secrets never come back in a message."""

from __future__ import annotations

import asyncio
import base64
import html
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote, quote_plus

import pytest

from rotator import __version__
from rotator.core.grants import Kind, Outcome, OutcomeClass
from rotator.core.ports import Credentials, HttpAnswer, HttpRequest, Reach, TokenRequest
from rotator.core.tokens import MASK, Secret
from rotator.drivers.http import HttpxClient
from rotator.drivers.oauth import ClientAuth, Encoding, Endpoint, Profile
from tests.drivers.far_end import far_end, says

URL = "https://provider.example/oauth/v2/token"
CLIENT_SECRET, PASSWORD, REFRESH = "4ok2x70rlfokc8g0wws8c8kw", 'pä ss&"w=+rd/%', "ZjYyOWY5Yzg3MTg0MDU4NWJhYzIw"
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
GRANTED = b'{"access_token":"MDFj","expires_in":3600,"token_type":"bearer","scope":null,"refresh_token":"ZjFm"}'


@dataclass
class Recorded:
    """`ports.Http` that keeps what it was asked to send and gives one answer."""

    answer: HttpAnswer
    sent: list[tuple[HttpRequest, timedelta]] = field(default_factory=list)

    async def send(self, request: HttpRequest, *, deadline: timedelta, limit: int = 1 << 20) -> HttpAnswer:
        self.sent.append((request, deadline))
        return self.answer


def answered(status: int, body: bytes, *headers: tuple[str, str]) -> HttpAnswer:
    return HttpAnswer(Reach.COMPLETE, status, (("content-type", "application/json"), *headers), body)


def request_of(
    kind: Kind, *, client_id: str = "1_3bcb", client_secret: str | None = CLIENT_SECRET, username: str | None = "omni",
    password: str | None = PASSWORD, refresh: str | None = REFRESH,
) -> TokenRequest:  # fmt: skip
    credentials = Credentials(
        client_id,
        Secret(client_secret) if client_secret is not None else None,
        username,
        Secret(password) if password is not None else None,
        "digest",
    )
    return TokenRequest(kind, credentials, Secret(refresh) if refresh is not None and kind is Kind.REFRESH else None)


def exchanged(
    request: TokenRequest, answer: HttpAnswer | None = None, *, now: datetime | None = None, **settings: object
) -> tuple[Outcome, list[tuple[HttpRequest, timedelta]]]:
    http = Recorded(answer or answered(200, GRANTED))
    profile = Profile(token_url=URL, **settings)  # type: ignore[arg-type]
    endpoint = Endpoint(profile, http, now=(lambda: now) if now is not None else None)
    outcome = asyncio.run(endpoint.exchange(request, deadline=timedelta(seconds=7)))
    return outcome, http.sent


def sent(request: TokenRequest, **settings: object) -> HttpRequest:
    _, requests = exchanged(request, **settings)
    ((http_request, deadline),) = requests
    assert deadline == timedelta(seconds=7)
    assert (http_request.method, http_request.url) == ("POST", URL)
    return http_request


# --- requests ---------------------------------------------------------------------------------------------------


def test_a_password_exchange_as_the_provider_documents_it() -> None:
    request = sent(request_of(Kind.PASSWORD))
    assert request.body == (
        b"grant_type=password&client_id=1_3bcb&client_secret=4ok2x70rlfokc8g0wws8c8kw"
        b"&username=omni&password=p%C3%A4+ss%26%22w%3D%2Brd%2F%25"
    )
    assert request.headers == (
        ("Accept", "application/json"),
        ("User-Agent", f"rotator/{__version__}"),
        ("Content-Type", "application/x-www-form-urlencoded"),
    )


def test_a_refresh_as_the_provider_documents_it() -> None:
    assert sent(request_of(Kind.REFRESH)).body == (
        b"grant_type=refresh_token&client_id=1_3bcb&client_secret=4ok2x70rlfokc8g0wws8c8kw"
        b"&refresh_token=ZjYyOWY5Yzg3MTg0MDU4NWJhYzIw"
    )


def test_json_holds_the_same_fields() -> None:
    form = dict(parse_qsl(sent(request_of(Kind.PASSWORD)).body.decode()))
    request = sent(request_of(Kind.PASSWORD), encoding=Encoding.JSON)
    assert json.loads(request.body) == form
    assert ("Content-Type", "application/json") in request.headers


def test_basic_encodes_each_part_and_keeps_the_client_out_of_the_body() -> None:
    request = sent(request_of(Kind.REFRESH, client_id="a:b ü", client_secret="c:d%"), auth=ClientAuth.BASIC)
    pair = base64.b64encode(b"a%3Ab+%C3%BC:c%3Ad%25").decode()
    assert ("Authorization", f"Basic {pair}") in request.headers
    assert dict(parse_qsl(request.body.decode())) == {"grant_type": "refresh_token", "refresh_token": REFRESH}


@pytest.mark.parametrize("secret", [None, ""])
@pytest.mark.parametrize("auth", list(ClientAuth))
def test_a_public_client_names_itself_in_the_body(auth: ClientAuth, secret: str | None) -> None:
    request = sent(request_of(Kind.REFRESH, client_secret=secret), auth=auth)
    assert not [name for name, _ in request.headers if name == "Authorization"]
    fields = dict(parse_qsl(request.body.decode(), keep_blank_values=True))
    assert fields == {"grant_type": "refresh_token", "client_id": "1_3bcb", "refresh_token": REFRESH}


@pytest.mark.parametrize(("scope", "told"), [(None, None), ("", None), ("a b", "a b")])
def test_scope_is_sent_only_where_configured(scope: str | None, told: str | None) -> None:
    fields = dict(parse_qsl(sent(request_of(Kind.REFRESH), scope=scope).body.decode(), keep_blank_values=True))
    assert fields.get("scope") == told


def test_a_refresh_never_carries_the_password() -> None:
    assert b"password" not in sent(request_of(Kind.REFRESH)).body


@pytest.mark.parametrize(
    ("request_", "named"),
    [
        (request_of(Kind.PASSWORD, password=None), "password"),
        (request_of(Kind.PASSWORD, password=""), "password"),
        (request_of(Kind.PASSWORD, username=None), "username"),
        (request_of(Kind.REFRESH, refresh=None), "refresh_token"),
        (request_of(Kind.PASSWORD, password="hunter2\udcff"), "password"),
        (request_of(Kind.REFRESH, client_secret="hunter2\udcff"), "client_secret"),
        (request_of(Kind.REFRESH, client_id="\udcff"), "client_id"),
    ],
)
@pytest.mark.parametrize("auth", list(ClientAuth))
def test_a_request_that_cannot_be_made_is_not_sent_and_names_the_value(
    request_: TokenRequest, named: str, auth: ClientAuth
) -> None:
    outcome, requests = exchanged(request_, auth=auth)
    assert outcome.cls is OutcomeClass.NOT_SENT
    assert requests == []
    assert f"`{named}`" in outcome.message
    assert f"`{named}`" in outcome.mend
    assert "hunter2" not in repr(outcome)


# --- the exchange -----------------------------------------------------------------------------------------------


def test_over_a_real_connection() -> None:
    """The two drivers together: one request, one class."""

    async def run() -> tuple[Outcome, list[bytes]]:
        reply = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + GRANTED
        async with far_end(says(reply)) as end:
            endpoint = Endpoint(Profile(token_url=f"http://127.0.0.1:{end.port}/oauth/v2/token"), HttpxClient())
            outcome = await endpoint.exchange(request_of(Kind.REFRESH), deadline=timedelta(seconds=20))
            return outcome, end.requests

    outcome, requests = asyncio.run(run())
    assert outcome.cls is OutcomeClass.GRANTED
    assert outcome.answer is not None
    assert outcome.answer.access == Secret("MDFj")
    assert outcome.answer.refresh == Secret("ZjFm")
    assert outcome.answer.lifetime == timedelta(hours=1)
    assert outcome.answer.remarks == ()
    assert len(requests) == 1


@pytest.mark.parametrize(
    ("date", "told"),
    [
        ("Mon, 23 Nov 2026 12:00:59 GMT", None),
        ("Mon, 23 Nov 2026 12:05:00 GMT", "300 s ahead of ours"),
        ("Mon, 23 Nov 2026 11:00:00 GMT", "3600 s behind ours"),
        ("junk", None),
        ("Mon, 99 Nov 2026 12:00:00 GMT", None),
    ],
)
def test_a_clock_that_differs_is_told(date: str, told: str | None) -> None:
    outcome, _ = exchanged(request_of(Kind.REFRESH), answered(200, GRANTED, ("date", date)), now=NOW)
    assert outcome.answer is not None
    assert ([told in remark for remark in outcome.answer.remarks] == [True]) if told else not outcome.answer.remarks


# --- what a server echoes ---------------------------------------------------------------------------------------


BASIC = base64.b64encode(f"1_3bcb:{CLIENT_SECRET}".encode()).decode()
PASSWORD_ECHOES = [
    PASSWORD,
    quote_plus(PASSWORD),
    quote_plus(PASSWORD).lower(),
    quote(PASSWORD, safe=""),
    json.dumps(PASSWORD)[1:-1],
    html.escape(PASSWORD),
]
ECHOES = [
    *((Kind.PASSWORD, echo) for echo in (*PASSWORD_ECHOES, CLIENT_SECRET, BASIC)),
    *((Kind.REFRESH, echo) for echo in (REFRESH, REFRESH[:20], REFRESH[5:], CLIENT_SECRET, BASIC)),
]


@pytest.mark.parametrize(("kind", "echo"), ECHOES)
@pytest.mark.parametrize("filler", ["", "x" * 190])
def test_no_secret_of_ours_comes_back_in_words(kind: Kind, echo: str, filler: str) -> None:
    body = json.dumps({"error": echo, "error_description": f"{filler}you sent [{echo}]"}).encode()
    for status in (400, 200, 503):
        outcome, _ = exchanged(request_of(kind), answered(status, body))
        # Also not what is left of it where the sentence is cut, nor as escaped for the terminal.
        for piece in (echo, echo[: len(echo) // 2], echo[len(echo) // 2 :]):
            assert piece not in outcome.message


def test_the_mask_leaves_the_rest_readable() -> None:
    body = json.dumps({"error": "invalid_grant", "error_description": f"token {REFRESH} is unknown"}).encode()
    outcome, _ = exchanged(request_of(Kind.REFRESH), answered(400, body))
    assert outcome.message == f"HTTP 400 invalid_grant (token {MASK} is unknown)"


@pytest.mark.parametrize("member", ["token_type", "expires_in", "scope", "refresh_token"])
def test_no_secret_of_ours_comes_back_in_a_remark(member: str) -> None:
    body = json.dumps({"access_token": "MDFj", "refresh_token": "r", member: f"{CLIENT_SECRET}\n"}).encode()
    outcome, _ = exchanged(request_of(Kind.REFRESH), answered(200, body))
    assert CLIENT_SECRET not in repr(outcome)


def test_a_new_token_is_never_in_a_message() -> None:
    outcome, _ = exchanged(request_of(Kind.REFRESH), answered(200, GRANTED))
    assert "MDFj" not in repr(outcome)
    assert "ZjFm" not in repr(outcome)


@pytest.mark.parametrize("member", ["error", "error_description"])
def test_a_token_that_was_issued_before_is_not_repeated_either(member: str) -> None:
    """It is in nobody's hand here, so that only its looks tell."""
    before = "ZjI4MGYwN2E5" * 5
    body = json.dumps({"error": "invalid_grant", member: before}).encode()
    outcome, _ = exchanged(request_of(Kind.REFRESH), answered(400, body))
    assert before[:16] not in outcome.message + outcome.mend

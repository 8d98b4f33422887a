"""Every row of the table of outcomes, for a refresh and for a password exchange, with the words a person reads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from rotator.core.grants import Charge, Kind
from rotator.core.grants import OutcomeClass as C
from rotator.core.ports import HttpAnswer, Reach
from rotator.drivers.oauth import Encoding, Profile, bodies, table
from rotator.drivers.oauth.verdicts import classify

PROFILE = Profile(token_url="https://p.example/token", error_map={"BAD_REFRESH_TOKEN": "invalid_grant"})
JSON = ("content-type", "application/json")
HTML = ("content-type", "text/html; charset=UTF-8")
DEPLOY = (timedelta(minutes=5), timedelta(hours=1))
SOON = (timedelta(minutes=1), timedelta(minutes=15))
SPARING = (timedelta(minutes=30), timedelta(hours=8))
Pace = tuple[timedelta, timedelta] | None


def failed(reach: Reach, failure: str, status: int | None = None) -> HttpAnswer:
    return HttpAnswer(reach, status, failure=failure, detail=f"p.example:443: {failure}")


def answered(status: int, body: bytes | dict[str, object] = b"", *headers: tuple[str, str]) -> HttpAnswer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return HttpAnswer(Reach.COMPLETE, status, headers or (JSON,), raw)


def oauth(status: int, code: str, text: str | None = None) -> HttpAnswer:
    return answered(status, {"error": code, "error_description": text})


@dataclass(frozen=True)
class Case:
    answer: HttpAnswer
    refresh: C
    password: C
    message: str
    mend: str = ""
    pace: Pace = None
    password_pace: Pace = None
    charge: Charge = Charge.ONE
    barred: bool = False


def case(
    answer: HttpAnswer, cls: C | tuple[C, C], message: str, mend: str = "", pace: Pace = None, *,
    password_pace: Pace = None, charge: Charge = Charge.ONE, barred: bool = False,
) -> Case:  # fmt: skip
    refresh, password = cls if isinstance(cls, tuple) else (cls, cls)
    return Case(answer, refresh, password, message, mend, pace, password_pace or pace, charge, barred)


HALF = {"access_token": "a", "token_type": "mac", "refresh_token": "r"}
NOWHERE = ("content-length", "0")

CASES = [
    # --- not sent
    *(case(failed(Reach.NOTHING, word), C.NOT_SENT, f"p.example:443: {word}", "way out")
      for word in ("dns", "refused", "unreachable", "connection", "connect timeout")),
    case(failed(Reach.NOTHING, "proxy"), C.NOT_SENT, "proxy", "`proxy`"),
    case(failed(Reach.CONNECTED, "connect timeout"), C.NOT_SENT, "connect timeout"),
    case(failed(Reach.CONNECTED, "reset"), C.NOT_SENT, "reset"),
    case(failed(Reach.CONNECTED, "certificate"), C.NOT_SENT, "certificate", "`ca_file`", SOON),
    case(failed(Reach.CONNECTED, "tls"), C.NOT_SENT, "tls", "never skipped", SOON),
    case(failed(Reach.NOTHING, "protocol"), C.NOT_SENT, "protocol", "`token_url`"),
    case(failed(Reach.NOTHING, "a word of tomorrow"), C.NOT_SENT, "tomorrow"),
    # --- written, no answer
    *(case(failed(Reach.WRITTEN, word), C.DOUBTFUL, word)
      for word in ("timeout", "reset", "protocol", "connection", "tls", "proxy", "certificate", "dns")),
    # --- the error, whatever the status
    case(oauth(400, "invalid_grant", "Invalid refresh token"), (C.REFRESH_DEAD, C.REFUSED),
         "HTTP 400 invalid_grant (Invalid refresh token)"),
    *(case(oauth(status, "invalid_grant"), (C.REFRESH_DEAD, C.REFUSED), f"HTTP {status} invalid_grant")
      for status in (200, 401, 403, 429, 500, 503)),
    case(answered(400, {"status": "BAD_REFRESH_TOKEN", "message": "missing or unknown"}), (C.REFRESH_DEAD, C.REFUSED),
         "HTTP 400 BAD_REFRESH_TOKEN, meaning invalid_grant (missing or unknown)"),
    case(oauth(400, "invalid_client", "The client credentials are invalid"), C.REFUSED,
         "HTTP 400 invalid_client (The client credentials are invalid)", "check `client_id` and `client_secret`"),
    case(oauth(401, "invalid_client"), C.REFUSED, "HTTP 401 invalid_client"),
    case(oauth(400, "unauthorized_client"), C.MISCONFIGURED, "unauthorized_client", "grant types",
         barred=True),
    case(oauth(400, "unsupported_grant_type"), C.MISCONFIGURED, "unsupported_grant_type", "grant types",
         barred=True),
    case(oauth(400, "invalid_scope"), C.MISCONFIGURED, "invalid_scope", "`scope`"),
    case(oauth(400, "invalid_request"), C.MISCONFIGURED, "invalid_request", "`encoding`"),
    case(oauth(400, "invalid_request", 'Missing parameters. "username" and "password" required'), C.MISCONFIGURED,
         "invalid_request (Missing parameters", "`encoding`"),
    case(oauth(400, "invalid_request", "Invalid grant_type parameter or parameter missing"), C.MISCONFIGURED,
         "invalid_request (Invalid grant_type", "it saw no grant_type", charge=Charge.NONE),
    *(case(oauth(status, code), C.BUSY, f"HTTP {status} {code}")
      for code in ("temporarily_unavailable", "server_error", "slow_down", "internal_failure")
      for status in (200, 400, 500)),
    # --- 2xx
    case(answered(200, {"access_token": "a", "token_type": "Bearer"}), C.GRANTED, "HTTP 200: a new token set"),
    case(answered(201, {"access_token": "a"}), C.GRANTED, "HTTP 201: a new token set"),
    case(answered(200, {"access_token": "a"}, HTML), C.GRANTED, "HTTP 200: a new token set"),
    case(answered(200, {"access_token": "a", "error": "none"}), C.GRANTED, "HTTP 200: a new token set"),
    case(answered(200, HALF), C.PARTIAL, "token_type mac", "last good token"),
    case(answered(200, {"refresh_token": "r"}), C.PARTIAL, "tokens came, but no bearer"),
    case(answered(200, {"access_token": "a\r\nX: y", "refresh_token": "r"}), C.PARTIAL, "tokens came, but no bearer"),
    case(oauth(200, "access_denied", "no"), C.MISCONFIGURED, "HTTP 200 access_denied (no)"),
    case(answered(200), C.DOUBTFUL, "HTTP 200: there is nothing in the answer"),
    case(answered(200, b" \n", HTML), C.DOUBTFUL, "nothing in the answer"),
    case(answered(204, b"", NOWHERE), C.DOUBTFUL, "HTTP 204: there is nothing in the answer"),
    *(case(failed(Reach.STATUS, word, 200), C.DOUBTFUL, f"HTTP 200, then p.example:443: {word}")
      for word in ("timeout", "reset", "protocol", "too large")),
    *(case(answered(200, body), C.DOUBTFUL, "HTTP 200: the answer is not JSON")
      for body in (b'{"access_token":"a', b"<html>", b"\xff\xfe", b"[" * 100_000, b"{'a': 1}")),
    case(answered(200, b"access_token=a&token_type=bearer", NOWHERE), C.DOUBTFUL, "the answer is not JSON"),
    *(case(answered(200, body), C.DOUBTFUL, "HTTP 200: there is no access token")
      for body in (b"[]", b"null", b"1", b'"a"', b"{}", b'{"access_token":""}', b'{"access_token":null}',
                   b'{"access_token":7}', b'{"access_token":"a b"}', b'{"error":{"code":4}}', b'{"error":""}')),
    case(answered(200, b"<!DOCTYPE html>", HTML), (C.MISCONFIGURED, C.BUSY), "HTTP 200: a web page came", "`token_url`",
         SOON, password_pace=SPARING),
    case(answered(200, b"\n <html>", NOWHERE), (C.MISCONFIGURED, C.BUSY), "HTTP 200: a web page came", "`token_url`",
         SOON, password_pace=SPARING),
    # --- the status alone
    *(case(answered(status, b"", ("location", "https://u:p@other.example:8443/path?token=x#f")), C.MISCONFIGURED,
           f"HTTP {status}: a redirect, which is never followed, to https://other.example:8443", "`token_url`")
      for status in (300, 301, 302, 303, 304, 307, 308)),
    case(answered(302, b"", ("location", "/login?x=y")), C.MISCONFIGURED, "to another path of the same host"),
    case(answered(302, b"", ("location", "http://[broken")), C.MISCONFIGURED, "an address that cannot be read"),
    case(answered(302), C.MISCONFIGURED, "to nowhere"),
    case(answered(400, b"<h1>Bad Request</h1>", HTML), C.MISCONFIGURED, "HTTP 400: the request is refused without"),
    case(answered(400, {"code": 400, "message": "Invalid json message received"}), C.MISCONFIGURED,
         "HTTP 400: the request is refused without an OAuth error (Invalid json message received)"),
    case(oauth(400, "access_denied"), C.MISCONFIGURED, "HTTP 400 access_denied"),
    *(case(failed(Reach.STATUS, word, status), C.BUSY, f"HTTP {status}, then p.example:443: {word}")
      for status in (400, 401, 403) for word in ("reset", "timeout", "protocol")),
    case(failed(Reach.STATUS, "too large", 400), C.MISCONFIGURED, "HTTP 400, then p.example:443: too large"),
    case(answered(401), C.MISCONFIGURED, "HTTP 401: a login is asked for"),
    case(answered(403), C.MISCONFIGURED, "HTTP 403: access is forbidden", "blocked"),
    *(case(answered(status), C.MISCONFIGURED, f"HTTP {status}: there is no token endpoint here", "`token_url`", DEPLOY)
      for status in (404, 405, 410, 421, 501)),
    case(answered(407), C.MISCONFIGURED, "HTTP 407: the proxy", "`proxy`", charge=Charge.NONE),
    case(answered(408), C.NOT_SENT, "HTTP 408: the server gave up waiting"),
    *(case(answered(status), C.MISCONFIGURED, f"HTTP {status}: the form of the request", "`encoding`")
      for status in (411, 413, 414, 415, 431)),
    case(answered(423), (C.MISCONFIGURED, C.REFUSED), "HTTP 423: the account or the resource is locked", "unlock"),
    *(case(answered(status), C.MISCONFIGURED, f"HTTP {status}: the request is refused", "blocked")
      for status in (402, 406, 409, 418, 422, 451, 499)),
    *(case(answered(status), C.BUSY, f"HTTP {status}: too many requests", charge=Charge.HALF) for status in (425, 429)),
    case(answered(503, b"<html>", HTML), C.BUSY, "HTTP 503: the server is overloaded"),
    *(case(answered(status), C.DOUBTFUL, f"HTTP {status}: a gateway failed") for status in (502, 504, 520, 524)),
    *(case(answered(status), C.DOUBTFUL, f"HTTP {status}: the server failed") for status in (500, 505, 511, 525, 599)),
    *(case(answered(status), C.DOUBTFUL, f"HTTP {status}: an answer that means nothing") for status in (600, 999)),
]  # fmt: skip


@pytest.mark.parametrize("expected", CASES, ids=lambda one: one.message[:60])
def test_every_outcome_has_its_class_and_its_words(expected: Case) -> None:
    for kind, cls in ((Kind.REFRESH, expected.refresh), (Kind.PASSWORD, expected.password)):
        outcome = classify(expected.answer, kind, PROFILE)
        assert outcome.cls is cls
        assert expected.message in outcome.message
        assert expected.mend in outcome.mend
        assert outcome.pace == (expected.pace if kind is Kind.REFRESH else expected.password_pace)
        assert (outcome.charge, outcome.barred) == (expected.charge, expected.barred)
        assert (outcome.answer is not None) == (cls in (C.GRANTED, C.PARTIAL))
        if cls in (C.MISCONFIGURED, C.REFUSED):
            assert outcome.mend, "a person must act and is not told how"


def test_every_row_of_the_table_is_met() -> None:
    met: set[str] = set()
    for one in CASES:
        reading = bodies.read(one.answer, PROFILE)
        finding = table.Finding(
            one.answer.reach, one.answer.failure, one.answer.status, reading.error, reading.body
        )  # fmt: skip
        met.add(table.row(finding).what)
    assert met == {row.what for row in table.ROWS}


@pytest.mark.parametrize("encoding", list(Encoding))
def test_the_hint_at_the_other_encoding_is_only_a_hint(encoding: Encoding) -> None:
    profile = Profile(token_url="https://p.example/token", encoding=encoding)
    seen = classify(oauth(400, "invalid_request", "Invalid grant_type parameter"), Kind.REFRESH, profile)
    unseen = classify(oauth(400, "invalid_request", "something else"), Kind.REFRESH, profile)
    other = {"form": "json", "json": "form"}[encoding]
    assert f'encoding = "{other}"' in seen.mend
    assert "grant_type" not in unseen.mend
    assert seen.cls is unseen.cls


DATE = ("date", "Mon, 23 Nov 2026 12:00:00 GMT")
NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("raw", "date", "now", "seconds"),
    [
        ("30", None, None, 30),
        (" 0 ", None, None, 0),
        ("Mon, 23 Nov 2026 12:02:00 GMT", DATE, None, 120),
        ("Mon, 23 Nov 2026 12:02:00 GMT", DATE, NOON + timedelta(hours=5), 120),
        ("Mon, 23 Nov 2026 12:02:00 GMT", None, NOON, 120),
        ("Mon, 23 Nov 2026 12:02:00 -0000", None, NOON, 120),
        ("Mon, 23 Nov 2026 12:02:00 GMT", None, None, None),
        ("Mon, 23 Nov 2026 11:00:00 GMT", DATE, None, 0),
        ("-5", DATE, None, None),
        ("1.5", DATE, None, None),
        ("9" * 40, DATE, None, None),
        ("soon", DATE, None, None),
        ("٣", DATE, None, None),
        ("", DATE, None, None),
        ("Mon, 99 Nov 2026 12:02:00 GMT", DATE, None, None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", DATE, None, None),
    ],
)
def test_retry_after(raw: str, date: tuple[str, str] | None, now: datetime | None, seconds: int | None) -> None:
    headers = (("retry-after", raw), *((date,) if date else ()))
    outcome = classify(HttpAnswer(Reach.COMPLETE, 429, headers), Kind.REFRESH, PROFILE, now=now)
    assert outcome.cls is C.BUSY
    assert outcome.retry_after == (None if seconds is None else timedelta(seconds=seconds))
    assert ("asks to wait" in outcome.message) == (seconds is not None)

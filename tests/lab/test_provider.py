"""The provider against the observed behaviour of FOSOAuthServerBundle, row by row, without a network."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from urllib.parse import urlencode

import pytest

from rotator.lab.faults import Step
from rotator.lab.fos import Steps
from rotator.lab.ledger import Reuse
from rotator.lab.messages import Reply
from rotator.lab.registry import token_of
from tests.lab.bench import (
    CLIENT,
    FORM,
    INVALID_REFRESH,
    USER_AND_PASSWORD,
    Bench,
    body,
    granted,
    is_dead,
    refusal,
)

REDIRECT = "https://app.example/back"

Fields = Mapping[str, str]

GRANT_TYPE = refusal("invalid_request", "Invalid grant_type parameter or parameter missing")
NO_CLIENT = refusal("invalid_client", "Client id was not found in the headers or body")
BAD_CLIENT = refusal("invalid_client", "The client credentials are invalid")
UNAUTHORIZED = refusal("unauthorized_client", "The grant type is unauthorized for this client_id")
NO_PASSWORD = refusal("invalid_request", 'Missing parameters. "username" and "password" required')
BAD_PASSWORD = refusal("invalid_grant", "Invalid username and password combination")
NO_REFRESH = refusal("invalid_request", 'No "refresh_token" parameter found')
NO_SECRET = refusal("invalid_client", 'The client_secret is mandatory for the "client_credentials" grant type')
SCOPE = refusal("invalid_scope", "An unsupported scope was requested.")
OURS = {"client_id": CLIENT, "client_secret": "secret"}
ALL = {"client_id": "2_all", "client_secret": "secret"}

# --- the token endpoint, refusals ------------------------------------------------------------------------------------

REFUSALS: list[tuple[str, Fields, bytes]] = [
    ("no grant type", OURS, GRANT_TYPE),
    ("unknown grant type", {**OURS, "grant_type": "foo"}, GRANT_TYPE),
    ("wrong case", {**OURS, "grant_type": "Password"}, GRANT_TYPE),
    ("grant type before client", {"grant_type": "foo", "client_id": "nobody"}, GRANT_TYPE),
    ("no client id", {"grant_type": "password"}, NO_CLIENT),
    ("empty client id", {"grant_type": "password", "client_id": ""}, NO_CLIENT),
    ("unknown client", {**OURS, "grant_type": "password", "client_id": "9_nobody"}, BAD_CLIENT),
    ("client id without underscore", {**OURS, "grant_type": "password", "client_id": "nobody"}, BAD_CLIENT),
    ("wrong secret", {**OURS, "grant_type": "password", "client_secret": "wrong"}, BAD_CLIENT),
    ("no secret", {"grant_type": "password", "client_id": CLIENT}, BAD_CLIENT),
    ("client before user", {**USER_AND_PASSWORD, "grant_type": "password", "client_id": CLIENT}, BAD_CLIENT),
    ("client_credentials not allowed", {**OURS, "grant_type": "client_credentials"}, UNAUTHORIZED),
    ("token not allowed", {**OURS, "grant_type": "token"}, UNAUTHORIZED),
    ("urn not allowed", {**OURS, "grant_type": "urn:x"}, UNAUTHORIZED),
    ("no username", {**OURS, "grant_type": "password", "password": "right"}, NO_PASSWORD),
    ("no password", {**OURS, "grant_type": "password", "username": "anna"}, NO_PASSWORD),
    ("empty password", {**OURS, "grant_type": "password", "username": "anna", "password": ""}, NO_PASSWORD),
    ("password 0", {**OURS, "grant_type": "password", "username": "anna", "password": "0"}, NO_PASSWORD),
    ("unknown user", {**OURS, "grant_type": "password", "username": "bob", "password": "right"}, BAD_PASSWORD),
    ("wrong password", {**OURS, "grant_type": "password", "username": "anna", "password": "no"}, BAD_PASSWORD),
    ("no refresh token", {**OURS, "grant_type": "refresh_token"}, NO_REFRESH),
    ("empty refresh token", {**OURS, "grant_type": "refresh_token", "refresh_token": ""}, NO_REFRESH),
    ("array refresh token", {**OURS, "grant_type": "refresh_token", "refresh_token[]": "x"}, NO_REFRESH),
    ("unknown refresh token", {**OURS, "grant_type": "refresh_token", "refresh_token": "x"}, INVALID_REFRESH),
    ("scope with none stored", {**OURS, **USER_AND_PASSWORD, "grant_type": "password", "scope": "api"}, SCOPE),
    (
        "bad password before scope",
        {**OURS, "grant_type": "password", "username": "anna", "password": "no", "scope": "x"},
        BAD_PASSWORD,
    ),
    ("extension", {**ALL, "grant_type": "urn:x"}, b'{"error":"unsupported_grant_type","error_description":null}'),
    ("token allowed", {**ALL, "grant_type": "token"}, GRANT_TYPE),
    ("client_credentials without secret", {"grant_type": "client_credentials", "client_id": "3_public"}, NO_SECRET),
    (
        "no code",
        {**ALL, "grant_type": "authorization_code"},
        refusal("invalid_request", 'Missing parameter. "code" is required'),
    ),
    (
        "code without redirect",
        {**ALL, "grant_type": "authorization_code", "code": "x"},
        refusal("invalid_request", "The redirect URI parameter is required."),
    ),
    (
        "unknown code",
        {**ALL, "grant_type": "authorization_code", "code": "x", "redirect_uri": REDIRECT},
        refusal("invalid_grant", "Code doesn't exist or is invalid for the client"),
    ),
]


@pytest.mark.parametrize(("fields", "expected"), [row[1:] for row in REFUSALS], ids=[row[0] for row in REFUSALS])
def test_refusals_word_for_word(fields: Fields, expected: bytes) -> None:
    reply = Bench().provider.respond("POST", FORM, body=urlencode(fields).encode())
    assert reply is not None
    assert (reply.status, reply.body) == (400, expected)
    assert reply.headers == (
        ("Content-Type", "application/json"),
        ("Cache-Control", "no-store, private"),
        ("Pragma", "no-cache"),
        ("Connection", "close"),
    )


def test_a_grant_word_for_word() -> None:
    bench = Bench()
    reply = bench.ask("password", **USER_AND_PASSWORD)
    access, refresh = token_of(b"1"), token_of(b"2")
    assert reply.body.decode() == (
        f'{{"access_token":"{access}","expires_in":3600,"token_type":"bearer","scope":null,"refresh_token":"{refresh}"}}'
    )
    assert len(access) == len(refresh) == 86
    assert len(base64.b64decode(access + "==")) == 64
    assert reply.header("Pragma") == "no-cache"
    assert reply.header("WWW-Authenticate") is None


def test_client_credentials_bring_no_refresh_token() -> None:
    answer = granted(Bench().ask("client_credentials", "2_all"))
    assert list(answer) == ["access_token", "expires_in", "token_type", "scope"]


def test_a_client_stored_without_secret_accepts_any() -> None:
    granted(Bench().ask("password", "3_public", "whatever", **USER_AND_PASSWORD))


def test_a_password_only_client_gets_a_refresh_token_it_may_not_use() -> None:
    bench = Bench()
    answer = granted(bench.ask("password", "4_password", **USER_AND_PASSWORD))
    reply = bench.ask("refresh_token", "4_password", refresh_token=str(answer["refresh_token"]))
    assert reply.body == UNAUTHORIZED


def test_parameters_in_the_query_of_a_post_and_undecoded_json_count_for_nothing() -> None:
    provider = Bench().provider
    fields = {**OURS, **USER_AND_PASSWORD, "grant_type": "password"}
    in_query = provider.respond("POST", {}, query=urlencode(fields))
    as_json = provider.respond("POST", {"Content-Type": "application/json"}, body=json.dumps(fields).encode())
    assert in_query is not None and in_query.body == GRANT_TYPE
    assert as_json is not None and as_json.body == GRANT_TYPE


def test_get_with_a_query_is_granted() -> None:
    fields = {**OURS, **USER_AND_PASSWORD, "grant_type": "password"}
    reply = Bench().provider.respond("GET", {}, query=urlencode(fields))
    assert reply is not None
    granted(reply)


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_other_methods(method: str) -> None:
    reply = Bench().provider.respond(method, {})
    assert reply is not None
    assert (reply.status, reply.header("Allow")) == (405, "GET, POST")


def test_basic_beats_the_body_and_is_refused_with_400() -> None:
    provider = Bench().provider
    fields = {**USER_AND_PASSWORD, "grant_type": "password", "client_id": CLIENT, "client_secret": "wrong"}

    def with_basic(pair: bytes) -> Reply:
        headers = {**FORM, "Authorization": "Basic " + base64.b64encode(pair).decode()}
        reply = provider.respond("POST", headers, body=urlencode(fields).encode())
        assert reply is not None
        return reply

    granted(with_basic(b"1_billing:secret"))
    refused = with_basic(b"1_billing:wrong")
    assert (refused.status, refused.body, refused.header("WWW-Authenticate")) == (400, BAD_CLIENT, None)


def test_a_body_listener_reads_json() -> None:
    provider = Bench(json_body_listener=True).provider
    fields = {**OURS, **USER_AND_PASSWORD, "grant_type": "password"}

    def post(kind: str, sent: bytes) -> Reply:
        reply = provider.respond("POST", {"Content-Type": kind}, body=sent)
        assert reply is not None
        return reply

    granted(post("application/json", json.dumps(fields).encode()))
    granted(post("application/x-www-form-urlencoded", urlencode(fields).encode()))
    assert post("application/json", b"{").status == 400
    assert b"Invalid json message received" in post("application/json", b"{").body
    assert post("application/xml", b"<x/>").status == 415


def test_authorization_codes() -> None:
    bench = Bench()
    provider = bench.provider

    def redeem(code: str, client: str = "2_all", redirect: str = REDIRECT) -> Reply:
        return bench.ask("authorization_code", client, code=code, redirect_uri=redirect)

    code = provider.issue_code("2_all", "anna", REDIRECT)
    assert redeem(code, "3_public").body == refusal("invalid_grant", "Code doesn't exist or is invalid for the client")
    mismatch = redeem(code, redirect="https://evil.example/")
    assert mismatch.body == refusal("redirect_uri_mismatch", "The redirect URI is missing or do not match")
    assert "refresh_token" in granted(redeem(code))
    assert redeem(code).status == 400

    late = provider.issue_code("2_all", "anna", REDIRECT)
    bench.time += 30
    granted(redeem(late))
    late = provider.issue_code("2_all", "anna", REDIRECT)
    bench.time += 31
    assert redeem(late).body == refusal("invalid_grant", "The authorization code has expired")


# --- refresh and time ------------------------------------------------------------------------------------------------


def test_a_refresh_spends_the_old_refresh_token_and_leaves_the_old_access_token() -> None:
    bench = Bench()
    first = bench.password()
    second = granted(bench.refresh(first["refresh_token"]))
    assert is_dead(bench.refresh(first["refresh_token"]))
    assert bench.login(first["access_token"]).status == 200
    assert bench.login(second["access_token"]).status == 200
    granted(bench.refresh(second["refresh_token"]))


def test_a_refresh_token_of_another_client_is_invalid() -> None:
    bench = Bench()
    token = str(bench.password()["refresh_token"])
    assert is_dead(bench.ask("refresh_token", "2_all", refresh_token=token))
    granted(bench.refresh(token))


def test_a_refused_refresh_leaves_the_refresh_token_as_it_was() -> None:
    bench = Bench()
    token = bench.password()["refresh_token"]
    assert bench.refresh(token, scope="api").body == SCOPE
    assert bench.ask("refresh_token", secret="wrong", refresh_token=str(token)).body == BAD_CLIENT
    granted(bench.refresh(token, scope=""))


def test_scope_is_carried_over_and_may_be_narrowed() -> None:
    bench = Bench(scope="read write")
    first = bench.password()
    assert first["scope"] == "read write"
    assert granted(bench.refresh(first["refresh_token"], scope="read"))["scope"] == "read"


def test_tokens_hold_during_the_second_of_their_expiry() -> None:
    bench = Bench()
    first = bench.password()
    bench.time += 3600.9
    assert bench.login(first["access_token"]).status == 200
    bench.time += 0.1
    assert bench.login(first["access_token"]).status == 401

    bench.time = 1_000_000 + 1_209_600.9
    second = granted(bench.refresh(first["refresh_token"]))
    bench.time += 1_209_600
    third = granted(bench.refresh(second["refresh_token"]))
    bench.time += 1_209_601
    expired = bench.refresh(third["refresh_token"])
    assert expired.body == refusal("invalid_grant", "Refresh token has expired")
    bench.provider.purge()
    assert is_dead(bench.refresh(third["refresh_token"]))


# --- Token Login -----------------------------------------------------------------------------------------------------


def challenge(error: str, description: str) -> str:
    return f'Bearer realm="Service", error="{error}", error_description="{description}"'


@pytest.mark.parametrize(
    ("header", "error", "description"),
    [
        (None, "access_denied", "OAuth2 authentication required"),
        ("bearer {token}", "access_denied", "OAuth2 authentication required"),
        ("Bearer unknown", "invalid_grant", "The access token provided is invalid."),
    ],
)
def test_login_without_a_usable_token(header: str | None, error: str, description: str) -> None:
    bench = Bench()
    token = str(bench.password()["access_token"])
    headers = {} if header is None else {"Authorization": header.format(token=token)}
    reply = bench.provider.login("POST", headers)
    assert reply is not None
    assert (reply.status, reply.body) == (401, refusal(error, description))
    assert reply.header("WWW-Authenticate") == challenge(error, description)
    assert reply.header("Cache-Control") == "no-store, private"


def test_login_with_an_expired_token() -> None:
    bench = Bench()
    token = bench.password()["access_token"]
    bench.time += 3601
    reply = bench.login(token)
    assert reply.status == 401
    assert reply.body == refusal("invalid_grant", "The access token provided has expired.")


def test_login_looks_at_the_account_and_the_token_endpoint_does_not() -> None:
    bench = Bench()
    token = bench.password(username="locked")["access_token"]
    reply = bench.login(token)
    assert (reply.status, reply.body) == (401, refusal("access_denied", "User account is locked."))


def test_login_with_two_tokens() -> None:
    bench = Bench()
    token = str(bench.password()["access_token"])
    text = "Only one method may be used to authenticate at a time (Auth header, GET or POST)."
    bearer = {"Authorization": f"Bearer {token}"}
    in_query = bench.provider.login("POST", bearer, query=f"access_token={token}")
    in_body = bench.provider.login("POST", {**FORM, **bearer}, body=f"access_token={token}".encode())
    for reply in (in_query, in_body):
        assert reply is not None
        assert (reply.status, reply.body) == (400, refusal("invalid_request", text))


def test_login_that_wants_a_greater_scope() -> None:
    bench = Bench(scope="read", login_scope="login")
    reply = bench.login(bench.password()["access_token"])
    assert reply.status == 403
    answer = reply.json()
    assert isinstance(answer, dict)
    assert answer["error"] == "invalid_scope"
    assert answer["error_description"] == "The request requires higher privileges than provided by the access token."


def test_login_is_a_post() -> None:
    reply = Bench().provider.login("GET", {})
    assert reply is not None
    assert reply.status == 405


# --- two at once -----------------------------------------------------------------------------------------------------


def hold(bench: Bench, token: object, at: Step) -> Steps:
    """A refresh that has got as far as ``at``."""
    steps = bench.provider.steps("POST", FORM, body=body("refresh_token", refresh_token=str(token)))
    while next(steps) is not at:
        pass
    return steps


def finish(steps: Steps) -> Reply:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            assert isinstance(end.value, Reply)
            return end.value


def test_two_refreshes_that_have_both_read_get_two_valid_pairs() -> None:
    bench = Bench()
    token = bench.password()["refresh_token"]
    one, two = hold(bench, token, Step.READ), hold(bench, token, Step.READ)
    pairs = [granted(finish(one)), granted(finish(two))]
    assert pairs[0]["refresh_token"] != pairs[1]["refresh_token"]
    for pair in pairs:
        assert bench.login(pair["access_token"]).status == 200
        granted(bench.refresh(pair["refresh_token"]))
    assert is_dead(bench.refresh(token))
    assert bench.provider.journal.max_in_flight == {f"{CLIENT} anna": 2}


def test_a_refresh_that_reads_after_the_other_has_deleted_is_refused() -> None:
    bench = Bench()
    token = bench.password()["refresh_token"]
    one, two = hold(bench, token, Step.ARRIVED), hold(bench, token, Step.ARRIVED)
    granted(finish(one))
    assert is_dead(finish(two))


def test_where_the_row_is_locked_the_second_gets_the_pair_of_the_first() -> None:
    bench = Bench(reuse=Reuse.GRACE_SAME_PAIR, grace_seconds=10)
    token = bench.password()["refresh_token"]
    one, two = hold(bench, token, Step.READ), hold(bench, token, Step.READ)
    assert granted(finish(one)) == granted(finish(two))


def test_an_abandoned_request_is_no_longer_in_flight() -> None:
    bench = Bench()
    token = bench.password()["refresh_token"]
    hold(bench, token, Step.READ).close()
    granted(bench.refresh(token))
    assert bench.provider.journal.max_in_flight == {f"{CLIENT} anna": 1}

"""What a real server does with a refresh token: the facts on which the settings ``reuse`` and ``grace`` rest."""

from __future__ import annotations

import http.client
import json
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from urllib.parse import urlencode, urlsplit

from tests.peers import django_oauth
from tests.peers.django_oauth import DjangoOAuth

FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def ask(peer: DjangoOAuth, secret: str | None = None, **fields: str) -> tuple[int, Any]:
    client = {"client_id": peer.client_id, "client_secret": peer.client_secret if secret is None else secret}
    return _send("POST", peer.token_url, urlencode({**client, **fields}), FORM)


def password(peer: DjangoOAuth, **fields: str) -> tuple[int, Any]:
    known = {"grant_type": "password", "username": peer.username, "password": peer.password}
    return ask(peer, **{**known, **fields})


def refresh(peer: DjangoOAuth, token: str) -> tuple[int, Any]:
    return ask(peer, grant_type="refresh_token", refresh_token=token)


def resource(peer: DjangoOAuth, token: str) -> int:
    return _send("GET", peer.resource_url, None, {"Authorization": f"Bearer {token}"})[0]


def _send(method: str, url: str, body: str | None, headers: dict[str, str]) -> tuple[int, Any]:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    try:
        connection.request(method, parts.path, body=body, headers=headers)
        response = connection.getresponse()
        read = response.read()
        return response.status, json.loads(read) if read else None
    finally:
        connection.close()


def test_without_grace_an_old_refresh_token_is_refused_and_the_new_one_stays() -> None:
    with django_oauth.serve() as peer:
        status, first = password(peer)
        assert (status, first["token_type"], first["expires_in"]) == (200, "Bearer", 10)
        assert resource(peer, first["access_token"]) == 200
        assert resource(peer, "unknown") == 401

        status, second = refresh(peer, first["refresh_token"])
        assert status == 200
        assert resource(peer, first["access_token"]) == 401, "a refresh revokes the old access token"
        assert resource(peer, second["access_token"]) == 200

        status, refused = refresh(peer, first["refresh_token"])
        assert (status, refused["error"]) == (400, "invalid_grant")
        assert resource(peer, second["access_token"]) == 200
        assert refresh(peer, second["refresh_token"])[0] == 200


def test_refused_credentials() -> None:
    with django_oauth.serve() as peer:
        status, refused = password(peer, secret="wrong")
        assert (status, refused["error"]) == (401, "invalid_client")
        status, refused = password(peer, password="wrong")
        assert (status, refused["error"]) == (400, "invalid_grant")


def test_with_reuse_protection_an_old_refresh_token_kills_the_family() -> None:
    with django_oauth.serve(reuse_protection=True) as peer:
        first = password(peer)[1]
        other = password(peer)[1]
        second = refresh(peer, first["refresh_token"])[1]
        status, refused = refresh(peer, first["refresh_token"])
        assert (status, refused["error"]) == (400, "invalid_grant")
        status, refused = refresh(peer, second["refresh_token"])
        assert (status, refused["error"]) == (400, "invalid_grant")
        assert resource(peer, second["access_token"]) == 401
        assert resource(peer, other["access_token"]) == 200, "another family lives on"


def test_within_the_grace_the_same_new_pair_comes_back() -> None:
    with django_oauth.serve(grace=120) as peer:
        first = password(peer)[1]
        status, second = refresh(peer, first["refresh_token"])
        assert status == 200
        status, again = refresh(peer, first["refresh_token"])
        assert status == 200
        pair = ("access_token", "refresh_token")
        assert [again[key] for key in pair] == [second[key] for key in pair]
        assert [again[key] for key in pair] != [first[key] for key in pair]
        assert resource(peer, again["access_token"]) == 200


def test_an_access_token_expires() -> None:
    with django_oauth.serve(access_seconds=1) as peer:
        token = password(peer)[1]["access_token"]
        assert resource(peer, token) == 200
        deadline = time.monotonic() + 10
        while resource(peer, token) == 200:
            assert time.monotonic() < deadline, "the token lives on"
            time.sleep(0.05)


def test_many_at_once_never_meet_a_locked_database() -> None:
    with django_oauth.serve(grace=120) as peer:
        tokens = [password(peer)[1]["refresh_token"] for _ in range(8)]
        together = Barrier(len(tokens))

        def rotate(token: str) -> list[int]:
            together.wait()
            statuses = []
            for _ in range(5):
                status, answer = refresh(peer, token)
                statuses.append(status)
                token = answer["refresh_token"]
            return statuses

        with ThreadPoolExecutor(len(tokens)) as pool:
            assert list(pool.map(rotate, tokens)) == [[200] * 5] * 8

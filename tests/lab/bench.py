"""A provider on a workbench: its clock stands until it is turned, its tokens are numbered."""

from __future__ import annotations

import itertools
import json
from urllib.parse import urlencode

from rotator.lab.fos import Provider
from rotator.lab.messages import Reply
from rotator.lab.registry import Client, Profile, User, token_of

CLIENT = "1_billing"
ALL_GRANTS = frozenset({"password", "refresh_token", "client_credentials", "authorization_code", "token", "urn:x"})
FORM = {"content-type": "application/x-www-form-urlencoded"}
USER_AND_PASSWORD = {"username": "anna", "password": "right"}
INVALID_REFRESH = b'{"error":"invalid_grant","error_description":"Invalid refresh token"}'


class Bench:
    def __init__(self, **profile: object) -> None:
        self.time = 1_000_000.0
        numbers = itertools.count(1)
        self.provider = Provider(
            [
                Client(CLIENT, "secret"),
                Client("2_all", "secret", ALL_GRANTS),
                Client("3_public", None, ALL_GRANTS),
                Client("4_password", "secret", frozenset({"password"})),
            ],
            [
                User("anna", "right"),
                User("locked", "right", "User account is locked."),
            ],
            now=lambda: self.time,
            token=lambda: token_of(str(next(numbers)).encode()),
            profile=Profile(**profile),  # type: ignore[arg-type]
        )

    def ask(self, grant_type: str, client: str = CLIENT, secret: str = "secret", **fields: str) -> Reply:
        reply = self.lose(grant_type, client, secret, **fields)
        assert reply is not None
        return reply

    def lose(self, grant_type: str, client: str = CLIENT, secret: str = "secret", **fields: str) -> Reply | None:
        return self.provider.respond("POST", FORM, body=body(grant_type, client, secret, **fields))

    def password(self, **fields: str) -> dict[str, object]:
        return granted(self.ask("password", **{**USER_AND_PASSWORD, **fields}))

    def refresh(self, token: object, **fields: str) -> Reply:
        return self.ask("refresh_token", refresh_token=str(token), **fields)

    def login(self, token: object) -> Reply:
        reply = self.provider.login("POST", {"Authorization": f"Bearer {token}"})
        assert reply is not None
        return reply


def body(grant_type: str, client: str = CLIENT, secret: str = "secret", **fields: str) -> bytes:
    return urlencode({"grant_type": grant_type, "client_id": client, "client_secret": secret, **fields}).encode()


def granted(reply: Reply) -> dict[str, object]:
    assert reply.status == 200, reply.body
    answer = reply.json()
    assert isinstance(answer, dict)
    return answer


def is_dead(reply: Reply) -> bool:
    return (reply.status, reply.body) == (400, INVALID_REFRESH)


def refusal(error: str, description: str | None) -> bytes:
    return json.dumps({"error": error, "error_description": description}, separators=(",", ":")).encode()

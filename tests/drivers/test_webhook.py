"""A webhook: what a receiver gets, checked by other means than it was made, and what its answers are made of."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
from datetime import timedelta
from typing import Any

import pytest

from rotator.core import tokens
from rotator.core.errors import Misconfigured, Refused, RotatorError, Unavailable
from rotator.core.ports import HttpAnswer, HttpRequest, Reach
from rotator.core.publication import Found
from rotator.core.tokens import Secret
from rotator.drivers import http
from rotator.drivers.webhook import Webhook
from tests.contracts.publishers import NOW, publication
from tests.drivers.far_end import LONG, far_end, says
from tests.peers import wire
from tests.peers.wire import Asked, Reply

KEY = b"k" * 32
WHERE = {"app": "file:/run/rotator/billing/token"}


async def installation_key() -> bytes:
    return KEY


def webhook(url: str, signing_key: str | None = None, client: Any = None, patience: float = 20) -> Webhook:
    async def read() -> Secret:
        return Secret(signing_key or "")

    return Webhook(
        "billing", "audit", url, client or http.HttpxClient(), source="//machine/rotator", locations=WHERE,
        key=installation_key, signing_key=None if signing_key is None else read, timeout=timedelta(seconds=patience),
    )  # fmt: skip


def send(one: Webhook, generation: int = 1, later: timedelta = timedelta(0)) -> None:
    assert asyncio.run(one.settle(publication(generation), NOW + later)).found is Found.UNTOLD


def is_signed(asked: Asked, key: bytes) -> bool:
    """As https://www.standardwebhooks.com has it, written down anew."""
    headers = {name.lower(): value for name, value in asked.headers.items()}
    content = b".".join((headers["webhook-id"].encode(), headers["webhook-timestamp"].encode(), asked.body))
    digest = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    return hmac.compare_digest(headers["webhook-signature"], f"v1,{digest}")


def test_a_receiver_gets_a_cloud_event_without_the_token() -> None:
    with wire.serve(lambda asked: Reply(204)) as receiver:
        send(webhook(f"{receiver.url}/hooks?of=rotator"), 3)
    (asked,) = receiver.asked
    assert (asked.method, asked.path) == ("POST", "/hooks?of=rotator")
    headers = {name.lower(): value for name, value in asked.headers.items()}
    assert headers["content-type"] == "application/cloudevents+json"
    assert headers["webhook-id"] == "lineage-1-3-audit" and headers["webhook-timestamp"] == "1803902400"
    assert "webhook-signature" not in headers
    token = publication(3).value
    assert json.loads(asked.body) == {
        "specversion": "1.0",
        "id": "lineage-1-3-audit",
        "source": "//machine/rotator",
        "type": "dev.rotator.token.rotated",
        "subject": "billing",
        "time": "2027-03-01T15:00:00Z",
        "datacontenttype": "application/json",
        "data": {
            "grant": "billing",
            "generation": 3,
            "issued_at": "2027-03-01T15:00:00Z",
            "expires_at": "2027-03-01T16:00:00Z",
            "fingerprint": tokens.fingerprint(token, KEY),
            "targets": WHERE,
        },
    }
    assert token.reveal() not in repr(asked)


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("a passphrase of both", b"a passphrase of both"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")),
    ],
)
def test_it_is_signed_anew_at_each_try_and_otherwise_the_same(written: str, key: bytes) -> None:
    with wire.serve(lambda asked: Reply(200)) as receiver:
        for seconds in (0, 300):
            send(webhook(receiver.url, written), later=timedelta(seconds=seconds))
    first, second = receiver.asked
    assert is_signed(first, key) and is_signed(second, key)
    assert not is_signed(first, b"another")
    assert first.body == second.body and first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.headers["webhook-signature"] != second.headers["webhook-signature"]


def test_the_example_of_the_standard_is_met() -> None:
    """The test vector that its libraries share."""
    from rotator.core import notices

    body = b'{"test": 2432232314}'
    signed = notices.signature(
        Secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body
    )
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (301, Misconfigured, "a redirect, which is not followed; set `webhook` to where it leads"),
        (400, Refused, "answers HTTP 400"),
        (401, Refused, "mend `webhook` or `signing_key`"),
        (404, Refused, "answers HTTP 404"),
        (408, Unavailable, "answers HTTP 408"),
        (410, Refused, "it wants no more events"),
        (425, Unavailable, "answers HTTP 425"),
        (429, Unavailable, "answers HTTP 429"),
        (500, Unavailable, "answers HTTP 500"),
        (503, Unavailable, "answers HTTP 503"),
    ],
)
def test_what_an_answer_means(status: int, kind: type[RotatorError], words: str) -> None:
    body = "an echo of " + publication(1).value.reveal()
    elsewhere = {"Location": "/elsewhere"}
    with wire.serve(lambda asked: Reply(status, body, headers=elsewhere)) as receiver, pytest.raises(kind) as caught:
        send(webhook(f"{receiver.url}/path-that-lets-one-in"))
    assert type(caught.value) is kind and words in str(caught.value)
    assert len(receiver.asked) == 1
    assert "echo" not in str(caught.value) and "path-that" not in str(caught.value)


class Far:
    """A far end that answers without a wire."""

    def __init__(self, answer: HttpAnswer) -> None:
        self.answer = answer

    async def send(self, request: HttpRequest, *, deadline: timedelta, limit: int = 1 << 20) -> HttpAnswer:
        return self.answer


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (HttpAnswer(Reach.NOTHING, failure="refused", detail="h: the connection was refused"), Unavailable),
        (HttpAnswer(Reach.WRITTEN, failure="timeout", detail="h: out of time"), Unavailable),
        (HttpAnswer(Reach.CONNECTED, failure="certificate", detail="h: not accepted"), Misconfigured),
        (HttpAnswer(Reach.STATUS, 503, failure="reset", detail="h: cut"), Unavailable),
    ],
)
def test_no_answer_is_told_by_what_kept_it(answer: HttpAnswer, kind: type[RotatorError]) -> None:
    with pytest.raises(kind) as caught:
        send(webhook("https://h/", client=Far(answer)))
    assert type(caught.value) is kind


def test_a_good_status_counts_though_the_rest_of_the_answer_is_lost() -> None:
    send(webhook("https://h/", client=Far(HttpAnswer(Reach.STATUS, 200, failure="too large", detail="h: too large"))))


def test_a_receiver_that_keeps_silent_is_given_up_in_time() -> None:
    given_up = threading.Event()

    def silent(asked: Asked) -> Reply:
        given_up.wait(20)
        return Reply()

    with wire.serve(silent) as receiver:
        with pytest.raises(Unavailable, match="out of time"):
            send(webhook(receiver.url, patience=0.2))
        given_up.set()


def test_a_signing_key_that_is_cut_off_is_told_without_it() -> None:
    with pytest.raises(Misconfigured, match="is not base64") as caught:
        send(webhook("https://h/", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLa"))
    assert "MfKQ" not in str(caught.value)


def test_its_place_is_named_without_what_may_let_one_in() -> None:
    one, other = (webhook(f"https://hooks.example.com/services/{path}") for path in ("T0/B0/xyz", "T0/B0/abc"))
    assert one.location.startswith("hook:billing/audit webhook https://hooks.example.com ")
    assert "xyz" not in one.location + repr(one)
    assert one.location != other.location
    assert one.judged_by_mark and not one.local and not asyncio.run(one.remove(""))


def test_a_knock_says_nothing_and_tells_who_is_there() -> None:
    async def story() -> None:
        client = http.HttpxClient()
        async with far_end(says(b""), read=False) as end:
            there = await client.knock(f"http://127.0.0.1:{end.port}/hooks", deadline=LONG)
            assert (there.failure, there.reach) == (None, Reach.CONNECTED)
            await end.ended.wait()
            no_tls = await client.knock(f"https://127.0.0.1:{end.port}/hooks", deadline=LONG)
            assert no_tls.failure in ("tls", "reset")
        gone = await client.knock(f"http://127.0.0.1:{end.port}/hooks", deadline=LONG)
        assert gone.failure == "refused"
        assert end.requests == []

    asyncio.run(story())

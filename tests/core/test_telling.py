"""An event as data, and the fence behind the secret types: a text that echoes a credential loses it on the way out."""

from __future__ import annotations

import html
from datetime import timedelta
from typing import Any

import pytest
from build import HOUR, NOON

from rotator.core import events, telling
from rotator.core.tokens import MASK, Secret

# As FOSOAuthServerBundle makes them: 86 letters and digits.
TOKEN = "MGYwN2E5ZjI4ZTQ1" * 5 + "abc123"


def failed(reason: str) -> events.DeliveryFailed:
    return events.DeliveryFailed(at=NOON, grant="billing", target="app", reason=reason, retry_at=NOON + HOUR)


def test_a_document_has_the_sentence_and_every_field() -> None:
    document = telling.document(failed("disk full"))
    assert document == {
        "time": telling.stamp(NOON),
        "level": "error",
        "event": "delivery.failed",
        "message": "billing: target app not written: disk full; tried again in 60m",
        "grant": "billing",
        "target": "app",
        "reason": "disk full",
        "retry_at": telling.stamp(NOON + HOUR),
    }


def test_an_outcome_is_called_one_and_none_is_left_out() -> None:
    event = events.ExchangeFailed(
        at=NOON, grant="a", kind="password", cls="busy", reason="HTTP 503", mend="", next_at=None, valid_until=None
    )
    document = telling.document(event)
    assert document["outcome"] == "busy"
    assert not document.keys() & {"cls", "next_at", "valid_until", "at"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Secret(TOKEN), MASK), (True, True), (7, 7), (1.5, 1.5), (NOON, telling.stamp(NOON)),
        (timedelta(seconds=90), 90.0), (("a", Secret(TOKEN)), ["a", MASK]), (ValueError("x"), "x"),
    ],
)  # fmt: skip
def test_values_are_made_plain(value: Any, shown: object) -> None:
    assert telling.plain(value) == shown


@pytest.mark.parametrize(
    "text",
    [
        f"invalid token {TOKEN}",
        f"({TOKEN})",
        f"Token/{TOKEN}/unknown",
        f"Authorization: Bearer {TOKEN[:20]}",
        f"Basic {TOKEN[:24]}==",
        f"grant_type=refresh_token&refresh_token={TOKEN[:12]}&client_id=a",
        f'{{"access_token" : "{TOKEN[:12]}"}}',
        f"{{'password': '{TOKEN[:12]}'}}",
        f"proxy http://user:{TOKEN[:12]}@proxy.test:3128 refused",
        f"GET https://a.test/x?code={TOKEN[:12]} failed",
        f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.{TOKEN[:20]}",
        f"hvs.{TOKEN[:24]}",
        f"s.{TOKEN[:24]}",
    ],
)
def test_what_echoes_a_credential_loses_it(text: str) -> None:
    document = telling.document(failed(text))
    for shown in (telling.redact(text), document["reason"], document["message"]):
        assert MASK in shown
        assert TOKEN[:12] not in shown


@pytest.mark.parametrize(
    "text",
    [
        "grants.billing.password: the file /run/secrets/password is missing",
        'write password = { file = "/path" }, or client_secret = { credential = "NAME" }',
        "HTTP 400 invalid_client (The client credentials are invalid)",
        "`token_type` is missing; taken for bearer",
        "the bearer of bad news asks for basic authentication",
        "providers.omnifund.token_url: https://secure.gotobilling.com/oauth/v2/token answers HTTP 503",
        "lineage 0123456789abcdef01234567, pod 6b6f8a0e-5b0f-4c39-9a53-4d8e2f0c8a11",
        "secret:shop/billing-token, kv/data/oauth/app1/billing, /var/lib/rotator/state/state.db",
        "a" * 100,
        "-" * 100,
    ],
)
def test_our_own_sentences_are_left_alone(text: str) -> None:
    assert telling.redact(text) == text


def test_a_boundless_text_is_cut_before_it_is_searched() -> None:
    assert len(telling.plain("http://a?" * 1_000_000)) <= telling.LONGEST_VALUE
    assert telling.plain("x" * 1_000_000).endswith("…")


def test_what_a_terminal_would_obey_is_escaped() -> None:
    assert telling.escaped("a\x1b[2J\nb ü") == "a\\x1b[2J\\nb ü"


def test_markup_is_what_the_standard_library_makes_of_it() -> None:
    text = "".join(map(chr, range(0x250))) + "&amp;<b title='\"'>"
    assert telling.markup(text) == html.escape(text)

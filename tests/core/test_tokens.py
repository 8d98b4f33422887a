"""Secrets that do not print, access tokens, fingerprints and digests."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback

import build
import pytest
from build import HOUR, NOON
from hypothesis import given
from hypothesis import strategies as st

from rotator.core import tokens
from rotator.core.tokens import MASK, Secret

TEXT = st.text() | st.text(alphabet=st.characters(categories=["Cs"]))


@pytest.mark.parametrize(
    "shown",
    [
        lambda one: str(one),
        lambda one: repr(one),
        lambda one: f"{one}{one!r}{one!s}{one!a}{one:>20}",
        lambda one: "%s %r" % (one, one),  # noqa: UP031 (logging does it so)
        lambda one: "{} {:x}".format(one, one),  # noqa: UP032 (templates do it so)
        lambda one: repr([one, {"key": one}]),
        lambda one: str(build.fresh(refresh=one)),
        lambda one: str(logging.LogRecord("name", 20, "path", 1, "%s", (one,), None).getMessage()),
    ],
)
def test_a_secret_shows_a_mask_however_it_is_printed(shown: object) -> None:
    assert callable(shown)
    text = shown(build.secret("token"))
    assert build.CANARY not in text
    assert MASK in text or "?" in text or "\\u2022" in text


@pytest.mark.parametrize("carry", [pickle.dumps, copy.copy, copy.deepcopy, json.dumps])
def test_a_secret_is_not_carried_away_by_machines(carry: object) -> None:
    assert callable(carry)
    with pytest.raises(TypeError) as refused:
        carry(build.secret("token"))
    assert build.CANARY not in "".join(traceback.format_exception(refused.value))


def test_a_secret_has_no_attributes_to_list() -> None:
    assert not hasattr(build.secret("token"), "__dict__")
    with pytest.raises(AttributeError):
        build.secret("token").other = 1  # type: ignore[attr-defined]


@given(one=TEXT, other=TEXT)
def test_secrets_are_equal_as_their_values_are(one: str, other: str) -> None:
    assert (Secret(one) == Secret(other)) is (one == other)
    assert (hash(Secret(one)) == hash(Secret(other))) or one != other
    assert Secret(one).reveal() == one
    assert bool(Secret(one)) is bool(one)
    assert Secret(one) != one


def test_an_access_token_holds_until_its_last_instant() -> None:
    held = build.access()
    assert held.lifetime == HOUR
    assert held.is_valid(NOON + HOUR - tokens.timedelta.resolution)
    assert not held.is_valid(NOON + HOUR)


def test_a_grant_holds_valid_what_its_token_is() -> None:
    assert build.fresh().holds_valid(NOON)
    assert not build.fresh().holds_valid(NOON + HOUR)
    assert not build.empty().holds_valid(NOON)


def test_a_fingerprint_names_a_secret_within_one_installation_only() -> None:
    one, other = build.secret("token"), build.secret("another")
    print_of = tokens.fingerprint(one, b"key")
    assert len(print_of) == 8
    assert print_of == tokens.fingerprint(Secret(one.reveal()), b"key")
    assert len({print_of, tokens.fingerprint(other, b"key"), tokens.fingerprint(one, b"another key")}) == 3


PARTS = st.lists(st.none() | TEXT, max_size=4).map(tuple)


@given(one=PARTS, other=PARTS)
def test_a_digest_changes_with_any_part_and_no_two_tuples_run_together(
    one: tuple[str | None, ...], other: tuple[str | None, ...]
) -> None:
    assert (tokens.digest(one, b"key") == tokens.digest(other, b"key")) is (one == other)


def test_a_digest_tells_nothing_from_empty() -> None:
    assert tokens.digest((None,), b"key") != tokens.digest(("",), b"key") != tokens.digest((), b"key")
    assert tokens.digest(("a", "bc"), b"key") != tokens.digest(("ab", "c"), b"key")
    assert tokens.digest(("a",), b"key") != tokens.digest(("a",), b"another key")

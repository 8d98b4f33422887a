"""Reading what a provider granted, and surviving whatever else it sends."""

from __future__ import annotations

import json
import re
from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rotator.core.grants import Answer, Kind, OutcomeClass
from rotator.core.ports import HttpAnswer, Reach
from rotator.core.tokens import Secret
from rotator.drivers.oauth import Profile
from rotator.drivers.oauth.verdicts import classify

PROFILE = Profile(token_url="https://p.example/token", error_map={"BAD_REFRESH_TOKEN": "invalid_grant"})
FULL = {"access_token": "A-._~+/0==", "token_type": "bearer", "expires_in": 3600, "refresh_token": "r t", "scope": "x"}


def granted(body: bytes | dict[str, object], profile: Profile = PROFILE) -> Answer:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    outcome = classify(HttpAnswer(Reach.COMPLETE, 200, body=raw), Kind.REFRESH, profile)
    assert outcome.cls in (OutcomeClass.GRANTED, OutcomeClass.PARTIAL), outcome
    assert outcome.answer is not None
    return outcome.answer


def test_a_full_answer() -> None:
    assert granted(FULL) == Answer(
        Secret("A-._~+/0=="), Secret("r t"), timedelta(hours=1), scope="x", token_type="bearer", remarks=()
    )


def test_unknown_members_and_order_do_not_matter() -> None:
    odd = {"zzz": [{"a": None}], **dict(reversed(FULL.items())), "ext_expires_in": "x"}
    assert granted(odd) == granted(FULL)


def test_a_byte_order_mark_costs_no_token() -> None:
    assert granted(b"\xef\xbb\xbf" + json.dumps(FULL).encode()) == granted(FULL)


def test_of_a_member_that_stands_twice_the_last_counts() -> None:
    assert granted(b'{"access_token":"first","access_token":"last","expires_in":1}').access == Secret("last")


@pytest.mark.parametrize(
    ("raw", "seconds", "remark"),
    [
        ("3600", 3600, None),
        ('"3600"', 3600, None),
        ("3599.9", 3599, None),
        ("1e3", 1000, None),
        ("null", None, "missing"),
        ("0", None, "cannot be used (0)"),
        ("-3600", None, "cannot be used (-3600)"),
        ("NaN", None, "cannot be used (nan)"),
        ("1e400", None, "cannot be used (inf)"),
        ("true", None, "cannot be used (True)"),
        ('"an hour"', None, "cannot be used (an hour)"),
        ('"x\\u001b[31m\\n\\"' + "y" * 99 + '"', None, "cannot be used (x\\x1b[31m\\n\\"),
        ("[3600]", None, "not a number"),
        ("1" * 400, None, "cannot be used (inf)"),
        ("-" + "1" * 5000, None, "cannot be used"),
        ("1" * 5000, None, "cannot be used (inf)"),
        ("99999999", 99_999_999, "days"),
        ("1" * 31, 10**9, "days"),
    ],
)
def test_lifetimes(raw: str, seconds: int | None, remark: str | None) -> None:
    answer = granted(b'{"access_token":"a","token_type":"bearer","expires_in":%s}' % raw.encode())
    assert answer.lifetime == (timedelta(seconds=seconds) if seconds is not None else None)
    if remark is None:
        assert answer.remarks == ()
    else:
        (told,) = answer.remarks
        assert "`expires_in`" in told
        assert remark in told
        assert told.isprintable()
        assert len(told) < 160


def test_a_missing_lifetime_is_remarked() -> None:
    answer = granted({"access_token": "a", "token_type": "bearer"})
    assert answer.lifetime is None
    assert "`expires_in` is missing" in answer.remarks[0]


@pytest.mark.parametrize("kind", ["bearer", "Bearer", "BEARER", " bearer "])
def test_bearer_in_any_case(kind: str) -> None:
    assert granted({**FULL, "token_type": kind}).token_type == "bearer"


@pytest.mark.parametrize("missing", [{}, {"token_type": None}, {"token_type": ""}])
def test_a_missing_type_is_bearer_where_the_profile_says_so(missing: dict[str, object]) -> None:
    body = {**{key: value for key, value in FULL.items() if key != "token_type"}, **missing}
    answer = granted(body)
    assert answer.access is not None
    assert "`token_type` is missing" in answer.remarks[0]
    strict = granted(body, Profile(token_url="https://p.example/token", assume_bearer=False))
    assert strict.access is None
    assert strict.refresh == Secret("r t")


@pytest.mark.parametrize("kind", ["mac", "DPoP", "bearer x", 7, ["bearer"], {"a": 1}, True])
def test_another_type_is_never_used_but_its_refresh_token_is_kept(kind: object) -> None:
    answer = granted({**FULL, "token_type": kind})
    assert answer.access is None
    assert answer.refresh == Secret("r t")


@pytest.mark.parametrize("refresh", [None, "", 7, ["r"], True, "a\nb", "a\x00", "ü", "\ud800"])
def test_what_is_not_a_refresh_token_is_none(refresh: object) -> None:
    answer = granted({**FULL, "refresh_token": refresh})
    assert answer.access is not None
    assert answer.refresh is None
    assert bool(answer.remarks) == (refresh not in (None, ""))


@pytest.mark.parametrize("access", ["", "a b", "a\nb", "a\r\nX: y", "ü", "a=b", "\ud800", "a\x00", "=", 7, None, ["a"]])
def test_an_access_token_that_could_break_a_header_is_never_granted(access: object) -> None:
    assert granted({**FULL, "access_token": access}).access is None


@pytest.mark.parametrize(("scope", "kept"), [("a b", "a b"), ("", None), (None, None), (["a"], None), ('a"b', None)])
def test_scopes(scope: object, kept: str | None) -> None:
    answer = granted({**FULL, "scope": scope})
    assert answer.scope == kept
    assert bool(answer.remarks) == (scope not in ("a b", "", None))


@pytest.mark.parametrize("text", ["\x1b[2J\u202ered", 'quo"te', "back\\slash", "line\nbreak", "\ud800", "x" * 5000])
def test_the_providers_sentence_is_fit_for_a_terminal(text: str) -> None:
    body = json.dumps({"error": "invalid_grant", "error_description": text}).encode()
    message = classify(HttpAnswer(Reach.COMPLETE, 400, body=body), Kind.REFRESH, PROFILE).message
    assert message.isprintable()
    assert message.startswith("HTTP 400 invalid_grant (")
    assert len(message) <= 230
    assert not re.search(r'(?<!\\)"', message)


@pytest.mark.parametrize("code", ["two words", "x" * 65, "in\nvalid", "ü", '"'])
def test_an_error_code_that_is_none_is_not_shown(code: str) -> None:
    body = json.dumps({"error": code}).encode()
    message = classify(HttpAnswer(Reach.COMPLETE, 400, body=body), Kind.REFRESH, PROFILE).message
    assert message == "HTTP 400 with an error code that cannot be shown"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
members = st.dictionaries(
    st.sampled_from(
        ["access_token", "refresh_token", "token_type", "expires_in", "scope", "error", "error_description", "status"]
    ),
    json_values | st.sampled_from(["bearer", "abc", "invalid_grant", "invalid_request", "BAD_REFRESH_TOKEN", "3600"]),
)
raw_bodies = (
    st.binary(max_size=200)
    | members.map(lambda m: json.dumps(m).encode())
    | json_values.map(lambda v: json.dumps(v).encode())
)
names = st.sampled_from(["content-type", "retry-after", "date", "location", "www-authenticate"])
answers = st.builds(
    HttpAnswer,
    reach=st.sampled_from(Reach),
    status=st.none() | st.integers(0, 999) | st.just(200),
    headers=st.lists(
        st.tuples(names, st.text(max_size=40) | st.sampled_from(["text/html", "http://h:x/", "//", "1", "-1"])),
        max_size=4,
    ).map(tuple),
    body=raw_bodies,
    failure=st.none() | st.sampled_from(["dns", "reset", "protocol", "too large", "timeout", "other"]),
    detail=st.just("somewhere"),
)


@given(answer=answers, kind=st.sampled_from(Kind), hide=st.lists(st.text(max_size=20), max_size=3).map(tuple))
@example(HttpAnswer(Reach.COMPLETE, 200, body=b"[" * (1 << 20)), Kind.REFRESH, ())
@example(HttpAnswer(Reach.COMPLETE, 200, body=b'{"a":' * 200_000), Kind.PASSWORD, ())
@example(HttpAnswer(Reach.COMPLETE, 200, body=b"9" * 5000), Kind.REFRESH, ())
@example(HttpAnswer(Reach.COMPLETE, 200, body=b'{"access_token":"\\ud800"}'), Kind.REFRESH, ("\udc80",))
def test_no_answer_raises_and_nothing_unusable_is_granted(
    answer: HttpAnswer, kind: Kind, hide: tuple[str, ...]
) -> None:
    outcome = classify(answer, kind, PROFILE, hide=hide)
    assert outcome.message.isprintable()
    assert len(outcome.message) < 500
    if outcome.cls is OutcomeClass.GRANTED:
        assert outcome.answer is not None
        assert outcome.answer.access is not None
        assert re.fullmatch(r"[A-Za-z0-9\-._~+/]+=*", outcome.answer.access.reveal())
        assert answer.status is not None
        assert 200 <= answer.status < 300
        assert answer.reach is Reach.COMPLETE
    if answer.reach >= Reach.WRITTEN and answer.status != 408:
        assert outcome.cls is not OutcomeClass.NOT_SENT
    if answer.reach < Reach.WRITTEN:
        assert outcome.cls is OutcomeClass.NOT_SENT
    if outcome.cls is OutcomeClass.REFRESH_DEAD:
        assert kind is Kind.REFRESH


@pytest.mark.parametrize("member", ["expires_in", "token_type", "scope"])
@pytest.mark.parametrize("token", ["access_token", "refresh_token"])
def test_a_token_in_the_wrong_place_is_not_quoted(member: str, token: str) -> None:
    canary = "c4n4ry-just-issued-token"
    body = json.dumps({**FULL, token: canary, member: canary}).encode()
    outcome = classify(HttpAnswer(Reach.COMPLETE, 200, body=body), Kind.REFRESH, PROFILE)
    assert outcome.answer is not None
    assert canary not in " ".join((outcome.message, outcome.mend, *outcome.answer.remarks))

"""The reader of answers under fire: arbitrary bytes, and good answers that were damaged on purpose.

Whatever comes: never an exception out, never a token set that cannot be used, and never a word of a token in a message.
`FUZZ=20000` tries as many as asked.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import os
import re
import zlib
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rotator.core import lifecycle, records
from rotator.core.grants import Charge, Grant, Intent, Kind, Outcome, OutcomeClass, Source
from rotator.core.policy import Moment, Reuse, Rules
from rotator.core.ports import Credentials, HttpAnswer, HttpRequest, Reach, TokenRequest
from rotator.core.tokens import AccessToken, Secret
from rotator.drivers.oauth import Endpoint, Profile, table, words
from rotator.drivers.oauth.verdicts import classify

MANY = settings(max_examples=int(os.environ.get("FUZZ", "300")), deadline=None, suppress_health_check=list(HealthCheck))
URL = "https://p.example/token"
PROFILES = st.sampled_from(
    [
        Profile(token_url=URL, error_map={"BAD_REFRESH_TOKEN": "invalid_grant"}),
        Profile(token_url=URL, assume_bearer=False),
    ]
)
ACCESS, REFRESH = "c4n4ry.access~0123456789", "c4n4ry refresh 9876543210"
OURS = ("c4n4ry-password-abcdef", "c4n4ry%secret&ghijkl", "c4n4ry-spent-mnopqr")
VALID: dict[str, object] = {
    "access_token": ACCESS, "token_type": "bearer", "expires_in": 3600, "refresh_token": REFRESH, "scope": "read",
}  # fmt: skip
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)

# RFC 6749 appendix A.12 and A.17 (VSCHAR), RFC 6750 section 2.1 for what stands in a header.
VSCHAR = re.compile(r"[\x20-\x7e]+")
B64TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
SCOPE = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]+")


def hidden(answer: HttpAnswer, ours: Iterable[str]) -> set[str]:
    """Every piece, long enough to give a secret away, of ours and of what stands where a token belongs."""
    secrets = [*ours]
    try:
        members = json.loads(answer.body.decode("utf-8-sig"))
        secrets += [members[name] for name in ("access_token", "refresh_token") if isinstance(members[name], str)]
    except (ValueError, LookupError, TypeError, RecursionError):
        pass
    return {one[start : start + 16] for one in secrets if len(one) >= 8 for start in range(max(1, len(one) - 15))}


# What our own texts say is no secret, even where a server hands out the same letters as a token.
OWN_WORDS = " ".join(
    [*(f"{row.what} {row.mend} {row.password_mend}" for row in table.ROWS), "it saw no grant_type, perhaps it wants"]
)


def judge(answer: HttpAnswer, kind: Kind, outcome: Outcome, ours: Iterable[str] = OURS) -> None:
    """What must hold of any outcome of any answer."""
    pieces = hidden(answer, ours)
    told = [outcome.message, outcome.mend]
    found = outcome.answer
    if found is not None:
        told += found.remarks
        told.append(found.token_type)
    for text in told:
        assert text.isprintable()
        assert len(text) < 1000
        assert not [piece for piece in pieces if piece in text and piece not in OWN_WORDS], (
            "a token or a secret of ours is shown"
        )
    assert outcome.message
    if outcome.cls is OutcomeClass.GRANTED:
        assert found is not None
        assert found.access is not None
        assert VSCHAR.fullmatch(found.access.reveal())
        assert B64TOKEN.fullmatch(found.access.reveal())
        assert found.token_type == "bearer"
    elif outcome.cls is OutcomeClass.PARTIAL:
        assert found is not None
        assert found.access is None
    else:
        assert found is None, "tokens of an answer that is no grant"
    if found is not None:
        assert answer.reach is Reach.COMPLETE
        assert answer.status is not None
        assert 200 <= answer.status < 300
        assert found.refresh is None or VSCHAR.fullmatch(found.refresh.reveal())
        assert found.lifetime is None or timedelta(0) < found.lifetime <= timedelta(seconds=10**9)
        assert found.scope is None or SCOPE.fullmatch(found.scope)
    unsent = answer.reach < Reach.WRITTEN
    assert (outcome.cls is OutcomeClass.NOT_SENT) >= unsent
    if not unsent and answer.status != 408:
        assert outcome.cls is not OutcomeClass.NOT_SENT, "free to be sent again, but it may have been carried out"
    if kind is Kind.PASSWORD:
        assert outcome.cls is not OutcomeClass.REFRESH_DEAD
    if outcome.charge is Charge.NONE:
        proven = answer.status == 407 or "grant_type" in str(json.loads(answer.body.decode("utf-8-sig")))
        assert proven, "a login is free of charge without a proof"
    assert outcome.retry_after is None or outcome.retry_after >= timedelta(0)
    if outcome.cls in (OutcomeClass.MISCONFIGURED, OutcomeClass.REFUSED):
        assert outcome.mend


def judged(answer: HttpAnswer, kind: Kind, profile: Profile) -> Outcome:
    outcome = classify(answer, kind, profile, hide=OURS, now=NOW)
    judge(answer, kind, outcome)
    return outcome


# --- anything at all --------------------------------------------------------------------------------------------

WILD = st.text(max_size=30) | st.sampled_from(
    [ACCESS, REFRESH, *OURS, "text/html", "application/json", "gzip", "chunked", "1e9", "-1",
     "Mon, 23 Nov 2026 12:02:00 GMT", f"https://{ACCESS}.example/", "http://[", "\x00", "\r\nX: y", "\ud800", "9" * 400]
)  # fmt: skip
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WILD,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
MEMBERS = st.dictionaries(
    st.sampled_from([*VALID, "error", "error_description", "status", "code", "message", "error_uri"]),
    VALUES | st.sampled_from(["bearer", "invalid_grant", "invalid_request", "BAD_REFRESH_TOKEN", "grant_type", "3600"]),
)
BODIES = (
    st.binary(max_size=300)
    | MEMBERS.map(lambda one: json.dumps(one).encode())
    | WILD.map(lambda one: one.encode("utf-8", "replace"))
)  # fmt: skip
HEADERS = st.lists(
    st.tuples(
        st.sampled_from(["content-type", "retry-after", "date", "location", "content-encoding", "www-authenticate"]),
        WILD,
    ),
    max_size=5,
).map(tuple)  # fmt: skip
ANSWERS = st.builds(
    HttpAnswer,
    reach=st.sampled_from(Reach),
    status=st.none() | st.integers(-1, 1000) | st.sampled_from([200, 201, 204, 400, 401, 407, 408, 429, 500, 503]),
    headers=HEADERS,
    body=BODIES,
    failure=st.none()
    | st.sampled_from(["dns", "refused", "reset", "protocol", "too large", "timeout", "tls", "other"]),
    detail=st.just("somewhere"),
)


@MANY
@given(answer=ANSWERS, kind=st.sampled_from(Kind), profile=PROFILES)
def test_anything_at_all(answer: HttpAnswer, kind: Kind, profile: Profile) -> None:
    judged(answer, kind, profile)


@MANY
@given(answer=ANSWERS, kind=st.sampled_from(Kind))
def test_anything_at_all_through_the_whole_driver(answer: HttpAnswer, kind: Kind) -> None:
    class Line:
        async def send(self, request: HttpRequest, *, deadline: timedelta, limit: int = 1 << 20) -> HttpAnswer:
            return answer

    profile = Profile(token_url=URL)
    credentials = Credentials("id", Secret(OURS[1]), "user", Secret(OURS[0]), "digest")
    request = TokenRequest(kind, credentials, Secret(OURS[2]) if kind is Kind.REFRESH else None)
    endpoint = Endpoint(profile, Line(), now=lambda: NOW)
    outcome = asyncio.run(endpoint.exchange(request, deadline=timedelta(seconds=1)))
    judge(answer, kind, outcome, OURS if kind is Kind.REFRESH else OURS[:2])


def held(kind: Kind) -> Grant:
    """A grant whose exchange is out: a valid token for a quarter of an hour more."""
    intent = Intent("lineage", 4, kind, Source.CURRENT, 1, BEFORE)
    begun = lifecycle.enrol("billing", "lineage", "identity", NOW)
    access = AccessToken(Secret("good"), "bearer", None, NOW - HOUR * 3 / 4, NOW + HOUR / 4, 4)
    return replace(
        begun, generation=4, access=access, refresh=Secret(OURS[2]), refreshed_at=NOW - HOUR, intent=intent,
        debits=(BEFORE.now,) if kind is Kind.PASSWORD else (),
    )  # fmt: skip


HOUR = timedelta(hours=1)
BEFORE = Moment(NOW - timedelta(seconds=1), "boot", HOUR)
SINCE = Moment(NOW, "boot", HOUR + timedelta(seconds=1))
TOKENS = MEMBERS.map(lambda wild: {**VALID, **wild}).map(lambda one: json.dumps(one).encode())


@MANY
@given(
    answer=ANSWERS | st.builds(HttpAnswer, st.just(Reach.COMPLETE), st.sampled_from([200, 400]), HEADERS, TOKENS),
    kind=st.sampled_from(Kind),
    rules=st.builds(Rules, reuse=st.sampled_from(Reuse), password=st.booleans()),
)
def test_no_answer_makes_readers_worse_off(answer: HttpAnswer, kind: Kind, rules: Rules) -> None:
    """From the bytes to the record: the good token stays until a better one is there, nothing of the far end breaks
    the record or a sentence, and there is always a next step."""
    before, outcome = held(kind), judged(answer, kind, Profile(token_url=URL))
    fact = lifecycle.Concluded(outcome=outcome, sent_at=BEFORE.now, credentials="digest")
    step = lifecycle.advance(before, fact, SINCE, rules, 0.5)
    after = step.grant
    assert records.read(json.loads(json.dumps(records.write(after)))) == after
    for event in step.events:
        assert event.sentence.isprintable()
    assert after.intent is None
    assert after.access is not None
    if outcome.cls is OutcomeClass.GRANTED:
        assert (after.generation, after.access.generation) == (5, 5)
        assert B64TOKEN.fullmatch(after.access.value.reveal())
        assert after.access.expires_at > BEFORE.now
    else:
        assert after.access == before.access
    if outcome.answer is None and outcome.cls is not OutcomeClass.REFRESH_DEAD and not outcome.barred:
        assert after.refresh == before.refresh
    assert (after.due_at is None) is (after.latch is not None), "it goes on, or a person is told"
    if kind is Kind.PASSWORD:
        free = outcome.cls is OutcomeClass.NOT_SENT or outcome.charge is Charge.NONE
        assert bool(after.debits) is not free


@pytest.mark.parametrize("status", range(300, 309))
@pytest.mark.parametrize(
    "where", ["https://user:pw@other.example/path-part?query=part#end", "//other.example/path-part"]
)
def test_of_a_redirect_only_the_place_is_shown(status: int, where: str) -> None:
    """Path and query may repeat what was sent, in a form that nobody can look for."""
    outcome = judged(HttpAnswer(Reach.COMPLETE, status, (("location", where),)), Kind.PASSWORD, Profile(token_url=URL))
    assert outcome.message.endswith("//other.example")


# --- a good answer, damaged -------------------------------------------------------------------------------------

HOSTILE = st.sampled_from(
    [None, True, False, 0, -1, 1.5, 10**30, "", " ", "\t", "a\x00b", "a\r\nX: y", "a\nb", "\x7f", "\ud800", "ü",
     "\u202e", "a b", "=", "==a", "a=b", "\ufeff", [], ["a"], {}, {"a": {"b": []}}, "x" * 999, ACCESS, REFRESH,
     *OURS]
) | st.text(max_size=12)  # fmt: skip


@MANY
@given(
    changes=st.dictionaries(st.sampled_from([*VALID, "error", "error_description"]), HOSTILE, min_size=1),
    without=st.sets(st.sampled_from(list(VALID)), max_size=2),
    status=st.sampled_from([200, 200, 201, 400, 500]),
    kind=st.sampled_from(Kind),
    profile=PROFILES,
)
@example({"token_type": "mac", "error_description": REFRESH}, set(), 200, Kind.REFRESH, Profile(token_url=URL))
@example({"error": "invalid_grant", "error_description": ACCESS}, set(), 400, Kind.REFRESH, Profile(token_url=URL))
@example({"error": ACCESS, "access_token": "a b"}, set(), 200, Kind.REFRESH, Profile(token_url=URL))
@example({"error": "invalid_request"}, set(), 400, Kind.PASSWORD, Profile(token_url=URL))
def test_members_of_other_kinds(
    changes: dict[str, object], without: set[str], status: int, kind: Kind, profile: Profile
) -> None:
    members = {name: value for name, value in {**VALID, **changes}.items() if name not in without or name in changes}
    answer = HttpAnswer(Reach.COMPLETE, status, body=json.dumps(members).encode())
    outcome = judged(answer, kind, profile)
    if outcome.cls is OutcomeClass.GRANTED:
        assert outcome.answer is not None and outcome.answer.access is not None
        assert outcome.answer.access.reveal() == json.loads(answer.body)["access_token"]


@MANY
@given(cut=st.integers(0, 200), kind=st.sampled_from(Kind))
def test_an_answer_cut_anywhere_is_never_granted(cut: int, kind: Kind) -> None:
    raw = json.dumps(VALID).encode()
    outcome = judged(HttpAnswer(Reach.COMPLETE, 200, body=raw[: min(cut, len(raw) - 1)]), kind, Profile(token_url=URL))
    assert outcome.cls is OutcomeClass.DOUBTFUL


@MANY
@given(flips=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 7)), min_size=1, max_size=4))
def test_flipped_bits_make_no_token_that_cannot_be_used(flips: list[tuple[int, int]]) -> None:
    raw = bytearray(json.dumps(VALID).encode())
    for place, bit in flips:
        raw[place % len(raw)] ^= 1 << bit
    answer = HttpAnswer(Reach.COMPLETE, 200, body=bytes(raw))
    judged(answer, Kind.REFRESH, Profile(token_url=URL))


@pytest.mark.parametrize("first", [ACCESS, "a\r\nb", "", None, 7])
@pytest.mark.parametrize("last", [ACCESS, "a\r\nb", "", None, 7])
def test_of_a_member_that_stands_twice_one_is_judged_and_the_same_is_used(first: object, last: object) -> None:
    body = f'{{"access_token":{json.dumps(first)},"token_type":"bearer","access_token":{json.dumps(last)}}}'.encode()
    outcome = judged(HttpAnswer(Reach.COMPLETE, 200, body=body), Kind.REFRESH, Profile(token_url=URL))
    assert (outcome.cls is OutcomeClass.GRANTED) is (last == ACCESS)


WRAPPED = {
    "gzip": gzip.compress, "deflate": zlib.compress, "base64": base64.b64encode,
    "utf-16": lambda raw: raw.decode().encode("utf-16"), "utf-32": lambda raw: raw.decode().encode("utf-32"),
    "ebcdic": lambda raw: raw.decode().encode("cp500"),
    "jsonp": lambda raw: b"callback(" + raw + b");", "guarded": lambda raw: b")]}',\n" + raw,
    "twice": lambda raw: raw + raw, "in a list": lambda raw: b"[" + raw + b"]",
    "as a string": lambda raw: json.dumps(raw.decode()).encode(),
    "nul before": lambda raw: b"\x00" + raw, "nul after": lambda raw: raw + b"\x00",
    "form": lambda raw: b"access_token=abc&token_type=bearer",
    "deep": lambda raw: raw[:-1] + b',"x":' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "deep members": lambda raw: b'{"access_token":' * 100_000 + raw + b"}" * 100_000,
    "long number": lambda raw: raw[:-1] + b',"x":' + b"9" * 100_000 + b"}x",
    "latin-1": lambda raw: raw[:-1] + ',"x":"ü"}'.encode("latin-1"),
}  # fmt: skip


@pytest.mark.parametrize("wrapped", WRAPPED)
@pytest.mark.parametrize("kind", list(Kind))
def test_a_good_answer_in_a_wrapping_that_nobody_asked_for_is_a_doubt(wrapped: str, kind: Kind) -> None:
    raw = WRAPPED[wrapped](json.dumps(VALID).encode())
    outcome = judged(
        HttpAnswer(Reach.COMPLETE, 200, (("content-type", "application/json"),), raw), kind, Profile(token_url=URL)
    )
    assert outcome.cls is OutcomeClass.DOUBTFUL, "tokens may have been issued in it"


@pytest.mark.parametrize("wrapped", [b" \r\n\t%s\n", b"\xef\xbb\xbf%s", b"%s"])
def test_a_wrapping_that_means_nothing_costs_no_token(wrapped: bytes) -> None:
    raw = wrapped % json.dumps(VALID).encode()
    outcome = judged(HttpAnswer(Reach.COMPLETE, 200, body=raw), Kind.REFRESH, Profile(token_url=URL))
    assert outcome.cls is OutcomeClass.GRANTED


def test_a_token_of_a_megabyte_is_used_and_nothing_is_quoted_beside_it() -> None:
    """A search for a secret of that size would hold up every other grant."""
    huge = "c4n4ry" * 160_000
    profile = Profile(token_url=URL)
    body = json.dumps({**VALID, "access_token": huge}).encode()
    outcome = judged(HttpAnswer(Reach.COMPLETE, 200, body=body), Kind.REFRESH, profile)
    assert outcome.cls is OutcomeClass.GRANTED
    body = json.dumps({**VALID, "access_token": huge, "token_type": "mac", "expires_in": "soon"}).encode()
    outcome = judged(HttpAnswer(Reach.COMPLETE, 200, body=body), Kind.REFRESH, profile)
    assert "soon" not in repr(outcome)
    assert words.shown("soon", (huge[: words.LONGEST_SECRET],)) == "soon", "one that is only long is looked for"

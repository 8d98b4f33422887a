"""What readers get: every format, told apart from what stands there, and no refresh token in any."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import build
import pytest
from build import HOUR, MINUTE, NOON, SECOND
from hypothesis import given
from hypothesis import strategies as st

from rotator.core import publication
from rotator.core.errors import Misconfigured
from rotator.core.publication import Format, Found, Publication
from rotator.core.tokens import Secret

HELD = Publication("billing", "lineage-1", build.access(7))
VALUE = HELD.value.reveal()
TEMPLATE = "token=${access_token} for $grant costs $$5"
FORMS = [(form, TEMPLATE if form is Format.TEMPLATE else "") for form in Format]
# What an access token may hold: visible ASCII (RFC 6749 appendix A.12).
VSCHAR = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1)


def written(form: Format, held: Publication = HELD, template: str = "") -> bytes:
    return publication.render(held, form, NOON, template)


def valued(value: str) -> Publication:
    return replace(HELD, access=replace(HELD.access, value=Secret(value)))


# --- what is written --------------------------------------------------------------------------------------------


def test_raw_is_the_token_alone() -> None:
    assert written(Format.RAW) == VALUE.encode()


@pytest.mark.parametrize(("told", "scheme"), [("bearer", "Bearer"), ("BEARER", "Bearer"), ("MAC", "MAC")])
def test_the_header_has_a_capital_bearer(told: str, scheme: str) -> None:
    held = replace(HELD, access=replace(HELD.access, token_type=told))
    assert written(Format.HEADER, held) == f"Authorization: {scheme} {VALUE}\n".encode()


def test_json_has_the_keys_that_readers_know() -> None:
    assert json.loads(written(Format.JSON)) == {
        "access_token": VALUE,
        "token_type": "Bearer",
        "expires_at": "2026-03-01T13:00:00Z",
        "expires_in": 3600,
        "issued_at": "2026-03-01T12:00:00Z",
        "generation": 7,
        "scope": None,
        "grant": "billing",
        "lineage": "lineage-1",
    }
    late = json.loads(publication.render(HELD, Format.JSON, NOON + 2 * HOUR))
    assert late["expires_in"] == 0


@given(value=VSCHAR)
def test_a_shell_reads_from_env_what_was_granted(value: str) -> None:
    content = written(Format.ENV, valued(value)).decode()
    script = content + 'printf %s "$ACCESS_TOKEN"'
    assert subprocess.run(["/bin/sh", "-c", script], capture_output=True, check=True).stdout.decode() == value


def test_env_has_its_five_names() -> None:
    names = [line.partition("=")[0] for line in written(Format.ENV).decode().splitlines()]
    assert names == ["ACCESS_TOKEN", "TOKEN_TYPE", "EXPIRES_AT", "EXPIRES_AT_UNIX", "GENERATION"]


def test_a_template_is_filled_with_any_field() -> None:
    assert written(Format.TEMPLATE, template=TEMPLATE) == f"token={VALUE} for billing costs $5".encode()
    every = " ".join(f"${name}" for name in publication.fields(HELD))
    assert "1772370000" in written(Format.TEMPLATE, template=every).decode()


@pytest.mark.parametrize(("template", "named"), [("$refresh_token", "refresh_token"), ("100 %$", "placeholder")])
def test_a_template_that_cannot_be_filled_says_what_may_be_used(template: str, named: str) -> None:
    with pytest.raises(Misconfigured) as raised:
        written(Format.TEMPLATE, template=template)
    assert named in raised.value.what
    assert "access_token" in raised.value.mend
    assert build.CANARY not in str(raised.value)
    assert raised.value.__cause__ is None


def test_no_format_depends_on_when_it_is_written_but_the_json_countdown() -> None:
    for form, template in FORMS:
        later = publication.render(HELD, form, NOON + MINUTE, template)
        assert (later == written(form, template=template)) is (form is not Format.JSON)


def test_scope_is_told_where_the_provider_told_one() -> None:
    held = replace(HELD, access=replace(HELD.access, scope="read write"))
    assert publication.fields(held)["scope"] == "read write"
    assert publication.fields(HELD)["scope"] == ""
    assert json.loads(written(Format.JSON, held))["scope"] == "read write"


def test_an_expiry_is_never_told_too_late() -> None:
    held = replace(HELD, access=replace(HELD.access, expires_at=NOON + 0.999 * SECOND))
    assert publication.fields(held)["expires_at"] == "2026-03-01T12:00:00Z"
    assert publication.fields(held)["expires_at_unix"] == str(int(NOON.timestamp()))
    assert json.loads(written(Format.JSON, held))["expires_in"] == 0


# --- what stands there ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "template"), FORMS)
def test_what_was_written_is_current_whenever_one_looks(form: Format, template: str) -> None:
    content = written(form, template=template)
    assert publication.judge(content, HELD, form, NOON + 10 * MINUTE, template).found is Found.CURRENT
    for other in (content + b"x", content[1:], b""):
        assert publication.judge(other, HELD, form, NOON, template).found is Found.ALTERED


def stands(**changes: Any) -> publication.Settled:
    there = {**json.loads(written(Format.JSON)), **changes}
    return publication.judge(json.dumps(there).encode(), HELD, Format.JSON, NOON)


def test_json_tells_older_from_newer_of_the_same_lineage() -> None:
    assert stands(generation=6).found is Found.OLDER
    ahead = stands(generation=8, expires_at="2026-03-01T15:00:00+01:00")
    assert (ahead.found, ahead.generation, ahead.expires_at) == (Found.AHEAD, 8, NOON + 2 * HOUR)
    assert stands(generation=8, expires_at="soon").expires_at is None


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"access_token": "another"}, Found.ALTERED),
        ({"expires_in": "soon"}, Found.ALTERED),
        ({"generation": None, "access_token": "x"}, Found.ALTERED),
        ({"generation": "8"}, Found.ALTERED),
        ({"generation": 10**30}, Found.ALTERED),
        ({"lineage": "lineage-2", "generation": 99}, Found.FOREIGN),
        ({"lineage": None}, Found.ALTERED),
    ],
)
def test_json_that_is_not_as_it_should_be(changes: dict[str, Any], found: Found) -> None:
    assert stands(**changes).found is found


@given(content=st.binary() | st.text().map(str.encode))
def test_whatever_stands_there_is_judged_never_raised(content: bytes) -> None:
    assert publication.judge(content, HELD, Format.JSON, NOON).found is Found.ALTERED


JSON_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())


@given(changes=st.dictionaries(st.sampled_from(["generation", "lineage", "expires_at", "expires_in"]), JSON_VALUES))
def test_any_value_under_any_key_is_judged_never_raised(changes: dict[str, Any]) -> None:
    assert stands(**changes).found in Found


def test_deeply_nested_json_is_altered() -> None:
    assert publication.judge(b"[" * 10**6, HELD, Format.JSON, NOON).found is Found.ALTERED
    assert publication.judge(b"[]", HELD, Format.JSON, NOON).found is Found.ALTERED


@pytest.mark.parametrize(
    ("raw", "at"),
    [
        ("2026-03-01T12:00:00Z", NOON),
        ("2026-03-01T14:00:00+02:00", NOON),
        ("2026-03-01T12:00:00", None),
        ("0001-01-01T00:00:00+14:00", None),
        ("tomorrow", None),
        (1772366400, None),
        (None, None),
    ],
)
def test_read_time(raw: object, at: datetime | None) -> None:
    assert publication.read_time(raw) == at


@given(at=st.datetimes(datetime(1000, 1, 1), datetime(9999, 12, 30), timezones=st.just(UTC)))
def test_times_are_read_as_they_were_written(at: datetime) -> None:
    assert publication.read_time(publication.rfc3339(at)) == at.replace(microsecond=0)

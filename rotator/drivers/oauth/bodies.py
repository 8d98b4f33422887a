"""What stands in the body of an answer (RFC 6749 sections 5.1 and 5.2). Every value is hostile until checked."""

from __future__ import annotations

import json
import re
from dataclasses import field
from datetime import timedelta
from enum import StrEnum

from rotator.core import lean, policy
from rotator.core.grants import Answer
from rotator.core.ports import HttpAnswer, Reach
from rotator.core.tokens import FINGERPRINT_DIGITS, Secret
from rotator.drivers.oauth import words
from rotator.drivers.oauth.profile import Profile

# RFC 6750 section 2.1; anything else could end a header line or a line of a file.
B64TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")
# RFC 6749 appendix A.17 (refresh token) and A.4 (scope).
VSCHAR = re.compile(r"[\x20-\x7e]+")
SCOPE = re.compile(r"[\x20\x21\x23-\x5b\x5d-\x7e]+")
BEARER = "bearer"
# No number that a token endpoint means has more digits; beyond 4300 Python refuses to read one at all.
LONGEST_INTEGER = 32
ODDLY_LONG = timedelta(days=366)


class Body(StrEnum):
    """What a body holds, from best to least."""

    TOKENS = "an access token that may be used"
    HALF = "a token set whose access token may not be used"
    UNUSABLE = "JSON without an access token"
    CUT = "a body that is not whole"
    BROKEN = "something that is not JSON"
    PAGE = "a web page"
    EMPTY = "nothing"


@lean.dataclass(frozen=True, slots=True)
class Reading:
    """``error`` is the code with the profile's map applied, ``said`` the same as it came; ``text`` is the
    provider's sentence, not yet fit to be shown; ``answer`` is there for TOKENS and HALF. ``hide`` is what must not be
    shown of it: our own secrets, and whatever stands where a token belongs."""

    body: Body
    error: str | None = None
    said: str | None = None
    text: str | None = None
    answer: Answer | None = None
    hide: tuple[str, ...] = field(default=(), repr=False)


def read(answer: HttpAnswer, profile: Profile, hide: tuple[str, ...] = ()) -> Reading:
    """Read any body whatever; never raises. ``hide`` are our own secrets, kept out of remarks."""
    if answer.reach is not Reach.COMPLETE:
        return Reading(Body.CUT, hide=hide)
    if not answer.body.strip():
        return Reading(Body.EMPTY, hide=hide)
    try:
        value = _parsed(answer.body)
    except (ValueError, RecursionError):
        return Reading(Body.PAGE if _is_page(answer) else Body.BROKEN, hide=hide)
    if not isinstance(value, dict):
        return Reading(Body.UNUSABLE, hide=hide)
    hide = (*hide, *_issued(value))
    said, error = _error(value, profile)
    text = next((t for key in ("error_description", "message") if isinstance(t := value.get(key), str) and t), None)
    tokens = _tokens(value, profile, hide)
    if tokens is None:
        return Reading(Body.UNUSABLE, error, said, text, hide=hide)
    return Reading(Body.TOKENS if tokens.access is not None else Body.HALF, error, said, text, tokens, hide)


def _issued(value: dict[str, object]) -> tuple[str, ...]:
    """A confused provider may put a token where a lifetime or a sentence belongs: nothing of the answer itself is
    quoted either. What is shorter than a fingerprint is no token of anybody, and would mask ordinary words."""
    issued = (one for one in (value.get("access_token"), value.get("refresh_token")) if isinstance(one, str))
    return tuple(one for one in issued if len(one) >= FINGERPRINT_DIGITS)


def _parsed(body: bytes) -> object:
    # utf-8-sig: a byte order mark is no reason to lose a token. Of a member that stands twice the last one counts.
    return json.loads(body.decode("utf-8-sig"), parse_int=_integer)


def _integer(digits: str) -> int | float:
    return int(digits) if len(digits) <= LONGEST_INTEGER else float(digits)


def _is_page(answer: HttpAnswer) -> bool:
    kind = (answer.header("content-type") or "").lower()
    return "html" in kind or ("json" not in kind and answer.body.lstrip().startswith(b"<"))


def _error(value: dict[str, object], profile: Profile) -> tuple[str | None, str | None]:
    """The error as it came and as it is meant. Only ``error`` is RFC 6749's; other members count where mapped."""
    for member in ("error", "status", "code"):
        said = value.get(member)
        if isinstance(said, str) and said in profile.error_map:
            return said, profile.error_map[said]
    said = value.get("error")
    return (said, said) if isinstance(said, str) and said else (None, None)


def _tokens(value: dict[str, object], profile: Profile, hide: tuple[str, ...]) -> Answer | None:
    """The token set, with ``access`` None where it may not be used; None where there is nothing to keep."""
    remarks: list[str] = []
    refresh = _refresh(value.get("refresh_token"), remarks)
    access = value.get("access_token")
    usable = isinstance(access, str) and B64TOKEN.fullmatch(access) is not None
    if not usable and refresh is None:
        return None
    kind = _token_type(value.get("token_type"), profile, remarks, hide)
    lifetime = _lifetime(value, remarks, hide)
    scope = value.get("scope")
    if scope is not None and not (isinstance(scope, str) and (not scope or SCOPE.fullmatch(scope))):
        remarks.append("`scope` is not a scope and is left out")
        scope = None
    return Answer(
        access=Secret(access) if isinstance(access, str) and usable and kind == BEARER else None,
        refresh=refresh,
        lifetime=lifetime,
        scope=scope if isinstance(scope, str) and scope else None,
        token_type=kind,
        remarks=tuple(remarks),
    )


def _refresh(raw: object, remarks: list[str]) -> Secret | None:
    if raw is None or raw == "":
        return None
    if isinstance(raw, str) and VSCHAR.fullmatch(raw):
        return Secret(raw)
    remarks.append("`refresh_token` is not a token (RFC 6749 appendix A.17) and was left out")
    return None


def _token_type(raw: object, profile: Profile, remarks: list[str], hide: tuple[str, ...]) -> str:
    """``bearer``, whatever its case; else what was said instead (RFC 6749 section 7.1 forbids to use that)."""
    if raw is None or raw == "":
        if not profile.assume_bearer:
            return "none"
        remarks.append("`token_type` is missing; taken for bearer")
        return BEARER
    if isinstance(raw, str):
        return BEARER if raw.strip().lower() == BEARER else words.shown(raw, hide, 32)
    return "not a string"


def _lifetime(value: dict[str, object], remarks: list[str], hide: tuple[str, ...]) -> timedelta | None:
    raw = value.get("expires_in")
    if raw is None:
        remarks.append("`expires_in` is missing; the default lifetime counts")
        return None
    told = policy.read_lifetime(raw)
    if told is None:
        as_told = words.shown(str(raw), hide, 32) if isinstance(raw, (str, int, float)) else "not a number"
        remarks.append(f"`expires_in` cannot be used ({as_told}); the default lifetime counts")
    elif told > ODDLY_LONG:
        remarks.append(f"`expires_in` is {told.days} days; the longest lifetime that is configured counts")
    return told

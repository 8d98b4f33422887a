"""From an HTTP answer to an outcome, with a message for a person. Pure; never raises for what a server sends."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from urllib.parse import urlsplit

from rotator.core.grants import Charge, Kind, Outcome, OutcomeClass
from rotator.core.ports import HttpAnswer, Reach
from rotator.drivers.oauth import bodies, table, words
from rotator.drivers.oauth.profile import Encoding, Profile

SECONDS = re.compile(r"[0-9]{1,9}")
# Wider than an answer can be on its way, so that a slow line is not told as a wrong clock.
SKEW = timedelta(seconds=60)


def classify(
    answer: HttpAnswer, kind: Kind, profile: Profile, *, hide: tuple[str, ...] = (), now: datetime | None = None
) -> Outcome:
    """The outcome of ``answer`` by `table`. ``hide`` are the request's secrets, which no message may repeat;
    ``now`` is the base of a Retry-After date where the answer has no date of its own."""
    reading = bodies.read(answer, profile, hide)
    row = table.row(table.Finding(answer.reach, answer.failure, answer.status, reading.error, reading.body))
    cls = row.cls(kind)
    retry_after = _retry_after(answer, now)
    kept = reading.answer if cls in (OutcomeClass.GRANTED, OutcomeClass.PARTIAL) else None
    if kept is not None and reading.said is not None:
        told = words.code(reading.said, reading.hide) or "one that cannot be shown"
        kept = replace(kept, remarks=(*kept.remarks, f"the answer also names an error ({told})"))
    return Outcome(
        cls=cls,
        message=_message(answer, reading, row, retry_after if cls is OutcomeClass.BUSY else None),
        mend=_mend(reading, row, kind, profile),
        answer=kept,
        retry_after=retry_after,
        pace=row.pacing(kind),
        charge=Charge.NONE if _is_unread(reading) else row.charge,
        barred=row.barred,
    )


def _is_unread(reading: bodies.Reading) -> bool:
    """Whether the provider says that it found no grant type: without one there is no password to look at, for it is the
    grant type that says what the other fields mean (RFC 6749 section 4.3.2; oauth2-php checks it first of all). Of text
    alone no class is made, and here it can only spare a login from being counted."""
    return reading.error == "invalid_request" and "grant_type" in (reading.text or "")


def with_skew(outcome: Outcome, answer: HttpAnswer, now: datetime | None) -> Outcome:
    """The same outcome, with a remark where the provider's clock (RFC 9110 section 6.6.1) and ours differ."""
    date = _date(answer.header("date"))
    if outcome.answer is None or now is None or date is None or abs(date - now) <= SKEW:
        return outcome
    order = "ahead of" if date > now else "behind"
    seconds = int(abs(date - now).total_seconds())
    remark = f"the provider's clock is {seconds} s {order} ours; check this machine's clock"
    return replace(outcome, answer=replace(outcome.answer, remarks=(*outcome.answer.remarks, remark)))


def _message(answer: HttpAnswer, reading: bodies.Reading, row: table.Row, retry_after: timedelta | None) -> str:
    """“HTTP 400 invalid_client (The client credentials are invalid)”, or what is known instead of that."""
    if answer.reach < Reach.STATUS or answer.status is None:
        return answer.detail or row.what
    told = f"HTTP {answer.status}"
    if answer.failure is not None:
        return f"{told}, then {answer.detail or answer.failure}"
    if row.cls(Kind.REFRESH) is OutcomeClass.GRANTED:
        return f"{told}: {row.what}"
    if reading.said is not None:
        told += f" {words.code(reading.said, reading.hide) or 'with an error code that cannot be shown'}"
        if reading.said != reading.error:
            told += f", meaning {reading.error}"
    else:
        told += f": {row.what}"
    if reading.body is bodies.Body.HALF and reading.answer is not None and reading.answer.token_type != bodies.BEARER:
        told += f", token_type {reading.answer.token_type}"
    if 300 <= answer.status < 400:
        told += f", to {_place(answer.header('location'), reading.hide)}"
    if reading.text is not None:
        told += f" ({words.shown(reading.text, reading.hide)})"
    return f"{told}; it asks to wait {int(retry_after.total_seconds())} s" if retry_after is not None else told


def _mend(reading: bodies.Reading, row: table.Row, kind: Kind, profile: Profile) -> str:
    mend = row.mending(kind)
    if _is_unread(reading):
        # oauth2-php says so when it could not read the body at all.
        other = Encoding.FORM if profile.encoding is Encoding.JSON else Encoding.JSON
        mend += f'; it saw no grant_type, so perhaps it wants `encoding = "{other}"`'
    return mend


def _place(location: str | None, hide: tuple[str, ...]) -> str:
    """Scheme and host of a redirect; path and query may repeat what was sent."""
    try:
        parts = urlsplit(location or "")
        host, port = parts.hostname, parts.port
    except ValueError:
        return "an address that cannot be read"
    if not host:
        return "another path of the same host" if location else "nowhere"
    return words.shown(f"{parts.scheme or 'the same scheme'}://{host}{f':{port}' if port else ''}", hide)


def _retry_after(answer: HttpAnswer, now: datetime | None) -> timedelta | None:
    """Seconds or a date (RFC 9110 section 10.2.3); None for anything else. A date counts from the answer's own."""
    raw = (answer.header("retry-after") or "").strip()
    if SECONDS.fullmatch(raw):
        return timedelta(seconds=int(raw))
    until = _date(raw)
    base = _date(answer.header("date")) or now
    if until is None or base is None:
        return None
    return max(until - base, timedelta(0))


@lru_cache(64)
def _date(raw: str | None) -> datetime | None:
    """Every answer of one second says the same."""
    if not raw:
        return None
    try:
        date = parsedate_to_datetime(raw)
        return date.replace(tzinfo=UTC) if date.tzinfo is None else date.astimezone(UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None

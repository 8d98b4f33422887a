"""What readers get: one generation's access token, and how it looks in a file.

The refresh token is no part of it, so no format can publish it.
"""

from __future__ import annotations

import json
import string
from datetime import UTC, datetime
from enum import StrEnum

from rotator.core import lean
from rotator.core.errors import Misconfigured
from rotator.core.tokens import AccessToken, Secret

# The largest integer that every store and JSON reader holds exactly (RFC 8259 section 6); no grant rotates so often.
HIGHEST = 2**53 - 1


class Format(StrEnum):
    """How a file target is written."""

    RAW = "raw"
    JSON = "json"
    ENV = "env"
    HEADER = "header"
    TEMPLATE = "template"


@lean.dataclass(frozen=True, slots=True)
class Publication:
    """One generation of one grant, as it is carried to a target. ``scope`` None means as requested."""

    grant: str
    lineage: str
    access: AccessToken

    @property
    def generation(self) -> int:
        """The generation at which this access token was saved."""
        return self.access.generation

    @property
    def value(self) -> Secret:
        return self.access.value


class Found(StrEnum):
    """What stood at a target before it was settled."""

    CURRENT = "current"
    ABSENT = "missing"
    OLDER = "an older generation"
    ALTERED = "altered"
    FOREIGN = "a foreign value"
    AHEAD = "a newer generation"
    UNTOLD = "not told of it"


@lean.dataclass(frozen=True, slots=True)
class Settled:
    """What a publisher found and, unless it was AHEAD, that the target now holds the publication.

    ``mark`` names what stands there now (a content hash, a version), so that it can be deleted later only while it
    is still ours. With AHEAD nothing was written and ``generation``/``expires_at`` tell what is there.
    """

    found: Found
    mark: str = ""
    generation: int | None = None
    expires_at: datetime | None = None


def rfc3339(at: datetime) -> str:
    """Wall time as RFC 3339 in UTC with whole seconds, cut, so that an expiry is never told too late."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def header_type(token_type: str) -> str:
    """The scheme of an Authorization header. ``bearer`` in any case becomes ``Bearer``: FOSOAuthServerBundle reads
    it case-sensitively although it answers ``bearer`` itself."""
    return "Bearer" if token_type.lower() == "bearer" else token_type


def fields(publication: Publication) -> dict[str, str]:
    """The publication as strings by name: what a template may use and what a Vault entry holds."""
    access = publication.access
    return {
        "access_token": access.value.reveal(),
        "token_type": header_type(access.token_type),
        "expires_at": rfc3339(access.expires_at),
        "expires_at_unix": str(int(access.expires_at.timestamp())),
        "issued_at": rfc3339(access.issued_at),
        "generation": str(access.generation),
        "scope": access.scope or "",
        "grant": publication.grant,
    }


def render(publication: Publication, form: Format, now: datetime, template: str = "") -> bytes:
    """The bytes of a file. ``expires_in`` of the JSON form is counted at ``now``; nothing else depends on it.

    ``raw`` has no trailing newline, because most readers do not strip; the line formats end with one.
    Raises Misconfigured for a template that names an unknown field.
    """
    if form is Format.RAW:
        return publication.access.value.reveal().encode()
    known = fields(publication)
    match form:
        case Format.HEADER:
            text = f"Authorization: {known['token_type']} {known['access_token']}\n"
        case Format.ENV:
            text = "".join(
                f"{name}={_quoted(value)}\n"
                for name, value in (
                    ("ACCESS_TOKEN", known["access_token"]),
                    ("TOKEN_TYPE", known["token_type"]),
                    ("EXPIRES_AT", known["expires_at"]),
                    ("EXPIRES_AT_UNIX", known["expires_at_unix"]),
                    ("GENERATION", known["generation"]),
                )
            )
        case Format.JSON:
            access = publication.access
            remaining = max(0, int((access.expires_at - now).total_seconds()))
            text = json.dumps(
                {
                    "access_token": known["access_token"],
                    "token_type": known["token_type"],
                    "expires_at": known["expires_at"],
                    "expires_in": remaining,
                    "issued_at": known["issued_at"],
                    "generation": access.generation,
                    "scope": access.scope,
                    "grant": publication.grant,
                    "lineage": publication.lineage,
                },
                indent=2,
            ) + "\n"  # fmt: skip
        case Format.TEMPLATE:
            text = fill(template, known)
    return text.encode()


def fill(template: str, known: dict[str, str]) -> str:
    """Fill ``$name`` and ``${name}`` (string.Template). Raises Misconfigured naming the field that is not known."""
    try:
        return string.Template(template).substitute(known)
    except (KeyError, ValueError) as error:
        raise Misconfigured(
            f"the template is not usable: {error}", mend=f"use $name with one of {', '.join(known)}; write $$ for $"
        ) from None


def judge(content: bytes, publication: Publication, form: Format, now: datetime, template: str = "") -> Settled:
    """Compare what a file holds with what it should hold.

    CURRENT, or OLDER/AHEAD where a JSON file names a generation of our lineage, else ALTERED. A JSON file is
    compared without ``expires_in``, which counts down from the moment it was written.
    """
    if form is not Format.JSON:
        same = content == render(publication, form, now, template)
        return Settled(Found.CURRENT if same else Found.ALTERED)
    try:
        there, wanted = json.loads(content), json.loads(render(publication, form, now))
    except (ValueError, RecursionError):
        return Settled(Found.ALTERED)
    if not isinstance(there, dict):
        return Settled(Found.ALTERED)
    found = there.pop("expires_in", None)
    wanted.pop("expires_in")
    if there == wanted:
        return Settled(Found.CURRENT if isinstance(found, int) else Found.ALTERED)
    if there.get("lineage") != publication.lineage:
        return Settled(Found.FOREIGN if there.get("lineage") else Found.ALTERED)
    generation = there.get("generation")
    if not isinstance(generation, int) or generation > HIGHEST:
        return Settled(Found.ALTERED)
    if generation > publication.generation:
        return Settled(Found.AHEAD, generation=generation, expires_at=read_time(there.get("expires_at")))
    return Settled(Found.OLDER if generation < publication.generation else Found.ALTERED)


def read_time(raw: object) -> datetime | None:
    """An RFC 3339 time with an offset, or None."""
    if not isinstance(raw, str):
        return None
    try:
        at = datetime.fromisoformat(raw)
        return at.astimezone(UTC) if at.tzinfo is not None else None
    except (ValueError, OverflowError):
        return None


def _quoted(value: str) -> str:
    """A value for systemd's EnvironmentFile= and for a POSIX shell: double quotes with their four escapes."""
    escaped = value
    for character in ("\\", '"', "$", "`"):
        escaped = escaped.replace(character, "\\" + character)
    return f'"{escaped}"'

"""What must be known of a provider's token endpoint to speak with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import StrEnum

from rotator.core import lean


class Encoding(StrEnum):
    """How the body is written: as RFC 6749 asks, or as JSON for servers that want it."""

    FORM = "form"
    JSON = "json"


class ClientAuth(StrEnum):
    """How the client proves itself: fields of the body, or HTTP Basic. Never both (RFC 6749 section 2.3)."""

    BODY = "body"
    BASIC = "basic"


@lean.dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Plain settings of one provider's token endpoint.

    ``error_map`` gives words that a provider uses in place of RFC 6749's, found in ``error``, ``status`` or
    ``code`` of its answer, their meaning: ``{"BAD_REFRESH_TOKEN": "invalid_grant"}``. ``assume_bearer`` takes an
    answer without ``token_type`` for a bearer token, which most servers that forget it mean.
    """

    token_url: str
    encoding: Encoding = Encoding.FORM
    auth: ClientAuth = ClientAuth.BODY
    scope: str | None = None
    error_map: Mapping[str, str] = field(default_factory=dict)
    assume_bearer: bool = True

"""A token request as bytes (RFC 6749 sections 2.3.1, 4.3.2 and 6)."""

from __future__ import annotations

import base64
import json
import re
from urllib.parse import quote_plus

from rotator import __version__
from rotator.core.grants import Kind
from rotator.core.ports import Credentials, HttpRequest, TokenRequest
from rotator.core.tokens import Secret
from rotator.drivers.oauth.profile import ClientAuth, Encoding, Profile

# RFC 3986 section 2.3: what no encoding changes, which is nearly every token.
_UNRESERVED = re.compile(r"[A-Za-z0-9._~-]*")

_TYPES = {Encoding.JSON: "application/json", Encoding.FORM: "application/x-www-form-urlencoded"}
_HEADERS: dict[Encoding, tuple[tuple[str, str], ...]] = {
    encoding: (("Accept", "application/json"), ("User-Agent", f"rotator/{__version__}"), ("Content-Type", kind))
    for encoding, kind in _TYPES.items()
}


class Incomplete(Exception):
    """A value that the request needs is missing or cannot be encoded; never leaves this package."""

    def __init__(self, what: str, mend: str) -> None:
        super().__init__(what)
        self.what = what
        self.mend = mend


def written(request: TokenRequest, profile: Profile) -> HttpRequest:
    """The one POST of this exchange. Raises Incomplete; an empty value is left out, as section 3.1 treats it."""
    fields = _fields(request, profile)
    headers = _HEADERS[profile.encoding]
    if _by_basic(request.credentials, profile):
        headers = (*headers, ("Authorization", f"Basic {_basic(request.credentials)}"))
    if profile.encoding is Encoding.JSON:
        body = json.dumps(fields).encode("ascii")
    else:
        body = "&".join([f"{name}={_quoted(value)}" for name, value in fields.items()]).encode("ascii")
    return HttpRequest("POST", profile.token_url, headers, body)


def secrets_of(request: TokenRequest) -> tuple[str, ...]:
    """Everything secret in this request, also as HTTP Basic writes it: a server may echo it."""
    credentials = request.credentials
    held = (credentials.client_secret, credentials.password, request.refresh)
    plain = tuple(secret.reveal() for secret in held if secret)
    return (*plain, _basic(credentials)) if credentials.client_secret else plain


def _fields(request: TokenRequest, profile: Profile) -> dict[str, str]:
    credentials = request.credentials
    client_id = _checked("client_id", credentials.client_id)
    client_secret = _revealed("client_secret", credentials.client_secret)
    # In the order of OmniFund's own page; servers do not mind, people who read a capture do.
    fields = {"grant_type": request.kind.value}
    if not _by_basic(credentials, profile):
        fields |= {"client_id": client_id, "client_secret": client_secret}
    if request.kind is Kind.PASSWORD:
        username = _needed("username", _checked("username", credentials.username or ""))
        fields |= {
            "username": username,
            "password": _needed("password", _revealed("password", credentials.password)),
        }
    else:
        fields |= {"refresh_token": _needed("refresh_token", _revealed("refresh_token", request.refresh))}
    fields |= {"scope": _checked("scope", profile.scope or "")}
    return {name: value for name, value in fields.items() if value}


def _quoted(value: str) -> str:
    return value if _UNRESERVED.fullmatch(value) else quote_plus(value)


def _by_basic(credentials: Credentials, profile: Profile) -> bool:
    # A public client has nothing to prove itself with: its id goes into the body (section 3.2.1).
    return profile.auth is ClientAuth.BASIC and bool(credentials.client_secret)


def _basic(credentials: Credentials) -> str:
    # Each part is form-encoded first (section 2.3.1), so that a colon in the id cannot shift the border.
    secret = _revealed("client_secret", credentials.client_secret)
    pair = f"{_quoted(_checked('client_id', credentials.client_id))}:{_quoted(secret)}"
    return base64.b64encode(pair.encode("ascii")).decode("ascii")


def _revealed(name: str, secret: Secret | None) -> str:
    return _checked(name, secret.reveal()) if secret is not None else ""


def _checked(name: str, value: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        # From None: the error quotes the value.
        raise Incomplete(f"`{name}` is not valid UTF-8; nothing was sent", f"write `{name}` as UTF-8") from None
    return value


def _needed(name: str, value: str) -> str:
    if not value:
        raise Incomplete(f"there is no `{name}` for this exchange; nothing was sent", f"configure `{name}`")
    return value

"""What the provider reads and writes: parameters as PHP sees them, answers word for word as FOSOAuthServerBundle's.

The order of the keys, the ``null`` of a missing description and the doubled quotes of the messages are the
provider's, deviations from RFC 6749 section 5.2 included: a client has to live with them.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qsl

FORM = "application/x-www-form-urlencoded"
JSON_HEADERS = (
    ("Content-Type", "application/json"),
    ("Cache-Control", "no-store, private"),
    ("Pragma", "no-cache"),
    ("Connection", "close"),
)
PAGE_HEADERS = (
    ("Content-Type", "text/html; charset=UTF-8"),
    ("Cache-Control", "no-cache, private"),
    ("Connection", "close"),
)

# PHP keeps an array where a name ends in [...]; every filter of the provider takes only scalars.
ARRAY_NAME = re.compile(r"^([^\[]+)\[")
# Case-sensitive and unanchored, so `bearer x` is no token and `xBearer y` is one.
BEARER = re.compile(r"Bearer\s(\S+)")


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer. ``complete`` is False where the connection breaks in the middle: ``body`` is then all that
    arrives, and the ``Content-Length`` announced more. It may hold tokens and does not print."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(default=b"", repr=False)
    complete: bool = True

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def json(self) -> object:
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Parameters:
    """The fields of one request. An array, an empty string and ``"0"`` all count as missing: PHP calls them false."""

    fields: Mapping[str, str] = field(repr=False)

    def given(self, name: str) -> str | None:
        value = self.fields.get(name)
        return value if value not in (None, "", "0") else None


def lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def parse_form(text: str) -> dict[str, str]:
    """Fields of a query or a form body; the last of a repeated name wins, as in PHP."""
    fields: dict[str, str] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        array = ARRAY_NAME.match(name)
        fields[array[1] if array else name] = "" if array else value
    return fields


def parse_body(headers: Mapping[str, str], body: bytes, *, json_listener: bool) -> dict[str, str] | Reply:
    """Fields of a POST body. Without a body listener only a form is read, and anything else is silently nothing.

    The listener's refusals are FOSRestBundle's (EventListener/BodyListener); their bodies are inferred.
    """
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    if kind == FORM:
        return parse_form(body.decode("utf-8", "replace"))
    if not json_listener or not body:
        return {}
    if kind != "application/json":
        return _listener_refusal(415, f"Request body format '{kind}' not supported")
    try:
        decoded = json.loads(body)
    except (ValueError, RecursionError):
        return _listener_refusal(400, "Invalid json message received")
    if not isinstance(decoded, dict):
        return _listener_refusal(400, "Invalid json message received")
    return {name: _scalar(value) for name, value in decoded.items()}


def basic(headers: Mapping[str, str]) -> tuple[str, str] | None:
    """User and password of HTTP Basic as PHP splits them: not form-decoded, against RFC 6749 section 2.3.1."""
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, _, password = base64.b64decode(rest.strip(), validate=True).decode("utf-8", "replace").partition(":")
    except binascii.Error:
        return None
    return (user, password) if user not in ("", "0") else None


def bearer_tokens(headers: Mapping[str, str], query: str, body: bytes) -> list[str]:
    """Every access token the request carries: header, form body, query."""
    tokens = BEARER.findall(headers.get("authorization", ""))[:1]
    if headers.get("content-type", "").split(";")[0].strip() == FORM:
        form = parse_form(body.decode("utf-8", "replace"))
        tokens += [form["access_token"]] if "access_token" in form else []
    in_query = Parameters(parse_form(query)).given("access_token")
    return tokens + ([in_query] if in_query is not None else [])


def write_json(status: int, value: Mapping[str, object], extra: tuple[tuple[str, str], ...] = ()) -> Reply:
    return Reply(status, (*JSON_HEADERS, *extra), json.dumps(value, separators=(",", ":")).encode())


def refusal(error: str, description: str | None, *, status: int = 400) -> Reply:
    """A refusal of the token endpoint: always 400, also for bad client credentials in HTTP Basic."""
    return write_json(status, {"error": error, "error_description": description})


def challenge(status: int, realm: str, error: str, description: str, scope: str | None = None) -> Reply:
    """A refusal of the resource side, with the ``WWW-Authenticate`` of RFC 6750 section 3."""
    value = {"error": error, "error_description": description} | ({"scope": scope} if scope else {})
    words = ", ".join(f'{key}="{_quoted(text)}"' for key, text in value.items())
    return write_json(status, value, (("WWW-Authenticate", f'Bearer realm="{_quoted(realm)}", {words}'),))


def page(status: int, title: str, extra: tuple[tuple[str, str], ...] = ()) -> Reply:
    """An HTML page: what a framework, a proxy or a captive portal answers in the provider's place."""
    body = f"<!DOCTYPE html>\n<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>\n"
    return Reply(status, (*PAGE_HEADERS, *extra), body.encode())


def wrong_method(allowed: str) -> Reply:
    return page(405, "Method Not Allowed", (("Allow", allowed),))


def _scalar(value: object) -> str:
    # PHP turns true into "1" and false or null into "" where a string is asked for.
    if value is None or value is False or isinstance(value, dict | list):
        return ""
    return "1" if value is True else str(value)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def _listener_refusal(status: int, message: str) -> Reply:
    return write_json(status, {"code": status, "message": message})

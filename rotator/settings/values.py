"""Values as people write them, made into values that cannot be misread: durations, modes, places, secrets.

Each function takes what TOML or an environment variable holds and raises ValueError with words that follow the
name of the key (``must be …``). No message repeats a value that could be a secret put into the wrong key.
"""

from __future__ import annotations

import posixpath
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import SecretStr, StringConstraints
from pydantic_core import PydanticCustomError

from rotator.core import lean
from rotator.core.tokens import MASK
from rotator.settings import addresses, entries
from rotator.settings.addresses import Address
from rotator.settings.entries import VaultPath
from rotator.settings.schemas import By, Then

# Ten years: longer than anything kept fresh, and far below what timedelta can hold.
LONGEST = timedelta(days=3650)
UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}
NAME = "[a-z0-9_]+"
KINDS = ("credential", "file", "env", "vault")

_DURATION = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*(ms|s|m|h|d)")
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?")
_MODE = re.compile(r"0?[0-7]{3}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
LONGEST_ARGV = 4096
SIGNALS = ("HUP", "USR1", "USR2", "TERM", "INT", "WINCH", "CONT", "URG")

_CONTROL = re.compile(r"[\x00-\x20\x7f]")


@lean.dataclass(frozen=True, slots=True)
class SecretReference:
    """Where a secret is, or (``kind`` is ``literal``) the secret itself. Printing shows the kind only."""

    kind: str
    value: SecretStr


def duration(raw: object) -> timedelta:
    """A number with its unit. A bare number is refused: nobody can tell seconds from minutes or milliseconds."""
    if isinstance(raw, timedelta):
        return raw
    is_number = isinstance(raw, (int, float)) and not isinstance(raw, bool)
    if is_number or (isinstance(raw, str) and _NUMBER.fullmatch(raw)):
        raise ValueError(f'needs a unit: write "{raw}s" for seconds, or ms, m, h, d')
    match = _DURATION.fullmatch(raw.strip()) if isinstance(raw, str) else None
    if match is None:
        raise ValueError('must be a duration in quotes, such as "500ms", "30s", "15m", "24h" or "14d"')
    number, unit = float(match[1]), UNITS[match[2]]
    if number > LONGEST / unit:
        raise ValueError("must not be longer than ten years (3650d)")
    return number * unit


def written(span: timedelta) -> str:
    """A duration as it would be configured, in the largest unit that needs no fraction."""
    name, unit = next(((name, unit) for name, unit in reversed(UNITS.items()) if not span % unit), ("ms", UNITS["ms"]))
    return f"{span / unit:g}{name}" if span else "0s"


def positive(raw: object) -> timedelta:
    span = duration(raw)
    if span <= timedelta(0):
        raise ValueError("must be longer than nothing")
    return span


def mode(raw: object) -> int:
    """Permissions as chmod(1) writes them. TOML reads a bare 640 as decimal, which would be 01200."""
    if not isinstance(raw, str):
        raise ValueError('must be octal text in quotes, such as "0640"; a bare number would be read as decimal')
    if _MODE.fullmatch(raw) is None:
        raise ValueError('must be three octal digits, such as "0600" or "0640"')
    bits = int(raw, 8)
    if bits & 0o133 or not bits & 0o400:
        raise ValueError('must let the owner read and nobody else write, and nothing execute: "0600", "0640", "0440"')
    return bits


def url(raw: str) -> str:
    """An http or https URL without credentials (they would be logged) and without fragment (RFC 6749 section 3.2)."""
    try:
        parts = urlsplit(raw)
        host, _port = parts.hostname, parts.port
    except ValueError:
        raise ValueError('must be a URL such as "https://login.example.com/oauth/token"') from None
    if parts.scheme not in ("http", "https") or not host or _CONTROL.search(raw):
        raise ValueError('must be a URL such as "https://login.example.com/oauth/token"')
    if "@" in parts.netloc:
        raise ValueError("must not hold a user or password; secrets have keys of their own")
    if parts.fragment:
        raise ValueError("must not hold a #fragment")
    return raw


def proxy(raw: str) -> str:
    """``environment`` (HTTPS_PROXY, NO_PROXY and friends) or a proxy's URL, which may hold its credentials."""
    if raw == "environment":
        return raw
    try:
        parts = urlsplit(raw)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and _CONTROL.search(raw) is None
    except ValueError:
        good = False
    if not good:
        raise ValueError('must be "environment" or a URL such as "http://proxy.example.com:3128"')
    return raw


def shown_url(raw: str) -> str:
    """A URL without the credentials that may stand in it."""
    return re.sub(r"//[^/]*@", f"//{MASK}@", raw)


def store_url(raw: str) -> str:
    """``sqlite:FILE``, ``postgresql://…`` or ``vault:[NAME:]mount/path``; never with a password in it."""
    kind, colon, rest = raw.partition(":")
    if kind not in ("sqlite", "postgresql", "vault") or not colon or not rest or _CONTROL.search(raw):
        raise ValueError('must be "sqlite:FILE", "postgresql://HOST/DATABASE" or "vault:[NAME:]MOUNT/PATH"')
    if kind == "vault":
        entries.vault_entry(rest)
    if kind == "postgresql" and re.search(r"//[^/@]*:[^/]*@|[?&]password=", rest):
        raise ValueError("must not hold a password; set state.password, or a file that ?passfile=/… names")
    return raw


def absolute(raw: object) -> Path:
    """A daemon has no working directory of its own, so that a relative path would mean another file each time."""
    if isinstance(raw, Path):
        return raw
    if not isinstance(raw, str) or not raw.startswith("/") or "\0" in raw:
        raise ValueError("must be an absolute path in quotes")
    return Path(raw)


def target_file(raw: str) -> str:
    """Absolute, or relative to the runtime directory and then inside it. Normalised, so that two can be compared."""
    normal = posixpath.normpath(raw)
    if raw.endswith("/") or normal in (".", "/"):
        raise ValueError("must name a file, not a directory")
    if normal.split("/", 1)[0] == "..":
        raise ValueError("must not lead out of the runtime directory; write an absolute path")
    return normal.replace("//", "/", 1) if normal.startswith("//") else normal


def argv(raw: object) -> tuple[str, ...]:
    """A command and its arguments, each a text of its own: no shell takes them apart."""
    if not isinstance(raw, (list, tuple)) or not raw or not all(isinstance(one, str) for one in raw):
        raise ValueError('must be a list of texts, such as ["/usr/bin/systemctl", "reload", "app"]')
    if not raw[0].startswith("/"):
        raise ValueError("must begin with the absolute path of a program; no PATH is searched and no shell is asked")
    if any(_UNPRINTABLE.search(one) for one in raw) or sum(map(len, raw)) > LONGEST_ARGV:
        raise ValueError(f"must hold no control characters and {LONGEST_ARGV} characters at most; write a script")
    return tuple(raw)


def names(raw: object) -> tuple[str, ...]:
    """Names of targets: a list, or one text with commas (in the environment)."""
    found = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(found, (list, tuple)) or not all(isinstance(one, str) for one in found):
        raise ValueError('must be a list of names of targets, such as ["app"]')
    return tuple(one.strip() for one in found)


def signal_name(raw: object) -> str:
    """Signals that ask for something; those that end a process whatever it does are none to be told by."""
    name = raw.upper().removeprefix("SIG") if isinstance(raw, str) else ""
    if name not in SIGNALS:
        raise ValueError(f"must be one of {', '.join(SIGNALS)}")
    return name


def reference(raw: object) -> SecretReference:
    """A secret itself, or a table with exactly one of the KINDS."""
    if isinstance(raw, SecretReference):
        return raw
    if isinstance(raw, str):
        if not raw:
            raise ValueError("must not be empty")
        return SecretReference("literal", SecretStr(raw))
    if not isinstance(raw, dict):
        raise ValueError('must be text in quotes, or a table such as { file = "/run/secrets/name" }')
    for key in raw:
        if key not in KINDS:
            raise PydanticCustomError("unknown_key", "unknown key", {"key": str(key)})
    if len(raw) != 1:
        raise ValueError(f"must have exactly one of {', '.join(KINDS)}; it has {' and '.join(raw) or 'none'}")
    ((kind, value),) = raw.items()
    if not isinstance(value, str) or not value:
        raise ValueError(f"must have text behind {kind}")
    _check_place(kind, value)
    return SecretReference(kind, SecretStr(value))


def shown(given: SecretReference) -> dict[str, str]:
    """A reference as it may be shown: the place of a secret is none, a literal is masked."""
    return {given.kind: MASK if given.kind == "literal" else given.value.get_secret_value()}


def _check_place(kind: str, value: str) -> None:
    if kind == "file" and (not value.startswith("/") or "\0" in value):
        raise ValueError("must name its file by an absolute path")
    # A credential's name is a file name (systemd.exec(5), LoadCredential=).
    if kind == "credential" and (value in (".", "..") or len(value) > 255 or re.search(r"[/:\x00-\x1f\x7f]", value)):
        raise ValueError("must name its credential as LoadCredential= does: a file name without / and :")
    if kind == "env" and _VARIABLE.fullmatch(value) is None:
        raise ValueError("must name its environment variable: letters, digits and _")
    if kind == "vault":
        try:
            entries.vault_field(value)
        except ValueError as error:
            raise ValueError(f"as a vault reference {error}") from None


Text = Annotated[str, StringConstraints(min_length=1, pattern=r"^[^\x00-\x1f\x7f]*$")]


def octal(bits: int) -> str:
    return f"{bits:04o}"


Duration = Annotated[timedelta, By(duration, written)]
Span = Annotated[timedelta, By(positive, written)]
Mode = Annotated[int, By(mode, octal)]
Url = Annotated[str, Then(url)]
Proxy = Annotated[str, Then(proxy, shown_url)]
StoreUrl = Annotated[str, Then(store_url)]
AbsolutePath = Annotated[Path, By(absolute)]
Listen = Annotated[Address, By(addresses.address, addresses.spelt)]
TargetFile = Annotated[Text, Then(target_file)]
VaultEntry = Annotated[VaultPath, By(entries.vault_entry, entries.spelt)]
VaultFolder = Annotated[VaultPath, By(entries.vault_folder, entries.spelt)]
VaultTemplate = Annotated[VaultPath, By(entries.vault_template, entries.spelt)]
Argv = Annotated[tuple[str, ...], By(argv, list)]
Names = Annotated[tuple[str, ...], By(names, list)]
SignalName = Annotated[str, By(signal_name)]
Reference = Annotated[SecretReference, By(reference, shown)]
Mount = Annotated[Text, Then(entries.mount)]
# "[NAMESPACE/]NAME" as Kubernetes names them (RFC 1123).
SecretName = Annotated[
    str, StringConstraints(pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?/)?[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=317)
]
FileName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-][A-Za-z0-9._-]*$")]
Name = Annotated[str, StringConstraints(pattern=f"^{NAME}$")]
ProviderName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_\-]+$")]

"""Entries of a Vault as people write them: ``[NAME:]mount/path[#field]``."""

from __future__ import annotations

import re
from dataclasses import replace

from rotator.core import lean

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_SEGMENT = re.compile(r"[A-Za-z0-9_.\-]+")


@lean.dataclass(frozen=True, slots=True)
class VaultPath:
    """``[NAME:]mount/path[#field]``: an entry of a KV version 2 engine of ``[vault.NAME]``."""

    name: str
    mount: str
    path: str
    field: str | None = None

    def __str__(self) -> str:
        return f"{self.name}:{self.mount}/{self.path}"

    def filled(self, **known: str) -> VaultPath:
        """With ``{grant}`` and ``{provider}`` in the path replaced by their names."""
        path = self.path
        for key, name in known.items():
            path = path.replace(f"{{{key}}}", name)
        return replace(self, path=path)


def state_entry(url: str) -> VaultPath | None:
    """Where a state in Vault lies; None for any other."""
    kind, _, place = url.partition(":")
    return vault_entry(place) if kind == "vault" else None


def vault_folder(raw: object) -> VaultPath:
    """``[NAME:]mount/path``, with or without a slash at its end."""
    return vault_entry(raw.removesuffix("/") if isinstance(raw, str) else raw)


def vault_template(raw: object) -> VaultPath:
    """The same, with ``{grant}`` and ``{provider}`` anywhere in the path."""
    if isinstance(raw, VaultPath) or not isinstance(raw, str):
        return vault_entry(raw)
    unknown = set(_PLACEHOLDER.findall(raw)) - {"grant", "provider"}
    if unknown:
        raise ValueError("knows only {grant} and {provider} in braces")
    # They stand for names, which are well-formed segments themselves.
    vault_entry(_PLACEHOLDER.sub("name", raw))
    name, colon, rest = raw.rpartition(":")
    mount, _, path = rest.partition("/")
    if "{" in mount or (colon and "{" in name):
        raise ValueError("may have {grant} and {provider} in the path only, after the mount")
    return VaultPath(name or "default", mount, path)


def vault_entry(raw: object) -> VaultPath:
    """``[NAME:]mount/path``. The API's ``data/`` is no part of it: it is added where the API wants it."""
    if isinstance(raw, VaultPath):
        return raw
    if not isinstance(raw, str):
        raise ValueError('must be text such as "secret/oauth/billing"')
    name, colon, rest = raw.rpartition(":")
    segments = rest.split("/")
    well_formed = all(_SEGMENT.fullmatch(segment) and segment not in (".", "..") for segment in segments)
    if (colon and not re.fullmatch(r"[a-z0-9_]+", name)) or len(segments) < 2 or not well_formed:
        raise ValueError('must be "[NAME:]mount/path", such as "secret/oauth/billing", without / at either end')
    if segments[1] == "data":
        raise ValueError('must not have "data/" in it: write mount/path, such as "secret/oauth/billing"')
    return VaultPath(name or "default", segments[0], "/".join(segments[1:]))


def mount(raw: str) -> str:
    """The path of an auth method, such as "approle" or "team/approle"; ``auth/`` is no part of it."""
    if not all(_SEGMENT.fullmatch(segment) and segment not in (".", "..") for segment in raw.split("/")):
        raise ValueError('must be the path of an auth method, such as "approle", without / at either end')
    if raw.startswith("auth/"):
        raise ValueError(f'must not have "auth/" in it: write {raw.removeprefix("auth/")}')
    return raw


def vault_field(raw: str) -> VaultPath:
    """``[NAME:]mount/path#field``."""
    place, hash_sign, field = raw.partition("#")
    if not hash_sign or _SEGMENT.fullmatch(field) is None:
        raise ValueError('must be "[NAME:]mount/path#field"')
    entry = vault_entry(place)
    return VaultPath(entry.name, entry.mount, entry.path, field)


def spelt(path: VaultPath) -> str:
    return str(path)

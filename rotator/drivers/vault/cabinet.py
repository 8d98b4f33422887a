"""Secrets that are kept in a Vault: one field of a KV v2 entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rotator.core.errors import Misconfigured
from rotator.core.tokens import Secret
from rotator.drivers.vault.answers import Declined
from rotator.drivers.vault.client import Vault

if TYPE_CHECKING:
    import hvac


async def read(vault: Vault, mount: str, path: str, field: str, key: str) -> Secret:
    """The current version's ``field``; ``key`` is the dotted key of the configuration, for messages.

    Raises Misconfigured where there is no such text, and what `Vault.call` raises."""
    place = f"{mount}/{path} of Vault {vault.name}"

    def look(client: hvac.Client) -> Any:
        try:
            told = client.secrets.kv.v2.read_secret_version(path, mount_point=mount, raise_on_deleted_version=True)
        except Declined as declined:
            if declined.status == 404:
                return None
            raise
        content = told.get("data")
        return content.get("data") if isinstance(content, dict) else None

    data = await vault.call(look, mend=f'add to the policy: path "{mount}/data/{path}" {{ capabilities = ["read"] }}')
    write = f"write it there: bao kv put -mount={mount} {path} {field}=-"
    if not isinstance(data, dict):
        raise Misconfigured(f"{key}: there is nothing at {place}", mend=write)
    value = data.get(field)
    if not isinstance(value, str) or not value:
        told = "is not there" if value is None else "is empty" if value == "" else "is no text"
        raise Misconfigured(f"{key}: the field {field} of {place} {told}", mend=write)
    return Secret(value)

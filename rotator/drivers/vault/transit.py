"""Data keys that a Vault's transit engine wraps: asked for once, so that a Vault that is away stops nothing.

https://developer.hashicorp.com/vault/api-docs/secret/transit#generate-data-key
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from rotator.core.errors import Misconfigured
from rotator.drivers.vault import rights
from rotator.drivers.vault.answers import Declined
from rotator.drivers.vault.client import Vault

if TYPE_CHECKING:
    import hvac


async def make(vault: Vault, mount: str, key: str) -> tuple[bytes, str]:
    """A fresh key of 256 bits, plain and wrapped. Raises what `Vault.call` raises."""

    def ask(client: hvac.Client) -> Any:
        return client.adapter.post(f"/v1/{mount}/datakey/plaintext/{key}", json={"bits": 256})

    data = (await vault.call(ask, mend=rights.mend(rights.of_transit(mount, key)))).get("data") or {}
    return _bytes(data.get("plaintext"), mount, key), str(data["ciphertext"])


async def unwrap(vault: Vault, mount: str, key: str, wrapped: str) -> bytes:
    """Raises Misconfigured where that key did not wrap it."""

    def ask(client: hvac.Client) -> Any:
        try:
            return client.adapter.post(f"/v1/{mount}/decrypt/{key}", json={"ciphertext": wrapped})
        except Declined as declined:
            if declined.status == 400:
                return None
            raise

    told = await vault.call(ask, mend=rights.mend(rights.of_transit(mount, key)))
    if told is None:
        raise Misconfigured(
            f"the transit key {mount}/{key} of Vault {vault.name} did not wrap the key of the state",
            mend="name the one that did in state.seal.transit; it must not have been trimmed",
        )
    return _bytes((told.get("data") or {}).get("plaintext"), mount, key)


def _bytes(told: object, mount: str, key: str) -> bytes:
    if not isinstance(told, str):
        raise Misconfigured(f"{mount}/{key} does not answer like a transit key", mend="look at state.seal.transit")
    return base64.b64decode(told)

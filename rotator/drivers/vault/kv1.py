"""Publishes to one entry of a KV version 1 mount: one value, no versions, no labels and no check-and-set.

What version 2 gives is lost where two daemons write: a newer generation is looked for before each write, and one that
comes between the look and the write is overwritten, until the next look brings it back.

https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v1
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from rotator.core import publication
from rotator.core.errors import Misconfigured
from rotator.core.publication import Found, Publication, Settled
from rotator.drivers.vault import entries, rights
from rotator.drivers.vault.answers import Declined
from rotator.drivers.vault.client import Vault
from rotator.drivers.vault.entries import Entry, judge

if TYPE_CHECKING:
    import hvac

_SCHEME = "vault-kv1:"


def parse_location(location: str) -> tuple[str, str, str] | None:
    """(Vault's name, mount, path) of a `Kv1Publisher.location`; None where it is the location of something else."""
    return entries.read_location(_SCHEME, location)


class Kv1Publisher:
    """One KV v1 entry as a target; see `ports.Publisher`. ``fields`` as of `KvPublisher`; with them the entry tells
    no generation, so that whatever else stands there is overwritten."""

    local = False
    judged_by_mark = False

    def __init__(self, vault: Vault, mount: str, path: str, *, fields: Mapping[str, str] | None = None) -> None:
        self._vault = vault
        self._mount = mount
        self._path = path
        self._fields = dict(fields) if fields else None
        self._mend = rights.mend(rights.of_kv1_target(mount, path, ""))
        self._is_checked = False

    @property
    def location(self) -> str:
        return entries.write_location(_SCHEME, self._vault.name, self._mount, self._path)

    def __repr__(self) -> str:
        return f"Kv1Publisher({self.location})"

    async def settle(self, wanted: Publication, now: datetime) -> Settled:
        """See `ports.Publisher.settle`: a read, and a write where it is needed. Raises what `Vault.call` raises."""
        known = publication.fields(wanted)
        data = {**known, "lineage": wanted.lineage}
        if self._fields is not None:
            data = {key: publication.fill(template, known) for key, template in self._fields.items()}
        there = await self._vault.call(self._read, mend=self._mend)
        if there is not None and not data.keys() - there.keys() and {key: there[key] for key in data} == data:
            return Settled(Found.CURRENT, _mark(there))
        entry = Entry(0 if there is None else 1, data=there)
        settled = judge(entry, data, {}, wanted, described=self._fields is None)
        if settled.found is Found.AHEAD:
            return settled
        if not self._is_checked:
            await self._vault.call(self._check_mount)
            self._is_checked = True
        await self._vault.call(lambda client: self._write(client, data), mend=self._mend)
        found = Found.ALTERED if self._fields is not None and settled.found is Found.FOREIGN else settled.found
        return Settled(found, _mark(data))

    async def remove(self, mark: str) -> bool:
        """Between the look and the deletion another may write: KV v1 knows no condition."""
        there = await self._vault.call(self._read, mend=self._mend)
        if there is None or _mark(there) != mark:
            return False
        await self._vault.call(
            lambda client: client.secrets.kv.v1.delete_secret(self._path, mount_point=self._mount),
            mend=self._mend,
        )
        return True

    def _read(self, client: hvac.Client) -> dict[str, Any] | None:
        try:
            told: Any = client.secrets.kv.v1.read_secret(self._path, mount_point=self._mount)
        except Declined as declined:
            if declined.status == 404:
                return None
            raise
        data = told.get("data")
        return data if isinstance(data, dict) else None

    def _write(self, client: hvac.Client, data: dict[str, str]) -> None:
        client.secrets.kv.v1.create_or_update_secret(self._path, data, method="POST", mount_point=self._mount)

    def _check_mount(self, client: hvac.Client) -> None:
        """Before the first write: what is not allowed to be asked cannot be checked, and the write will tell."""
        try:
            told: Any = client.adapter.get(f"/v1/sys/internal/ui/mounts/{quote(f'{self._mount}/{self._path}')}")
        except Declined as declined:
            if declined.status in (403, 404, 405):
                return
            raise
        options = (told.get("data") or {}).get("options")
        if isinstance(options, dict) and options.get("version") == "2":
            raise Misconfigured(f"{self._mount} is a KV v2 mount of Vault {self._vault.name}", mend="remove kv = 1")


def _mark(data: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()

"""All entries of one folder of a KV v2 mount, looked at again and again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rotator.drivers.vault import kv2, rights
from rotator.drivers.vault.client import Vault

if TYPE_CHECKING:
    import hvac

# How many looks in a row must miss an entry before it counts as removed: a mount that was moved or is being restored
# must not take every grant with it at the first look.
LOOKS = 2


class Directory:
    """The entries of ``mount``/``prefix``, without those of its folders. Raises what `Vault.call` raises; then what was
    known stays known."""

    def __init__(self, vault: Vault, mount: str, prefix: str) -> None:
        self._vault = vault
        self._mount = mount
        self._prefix = prefix
        self._missed: dict[str, int] = {}
        self.entries: dict[str, dict[str, Any]] = {}

    async def look(self) -> bool:
        """Look once: one request, and one for each entry. Whether anything changed."""
        mend = rights.mend(rights.of_folder(self._mount, self._prefix, ""))
        found = await self._vault.call(self._read, mend=mend)
        for name in self.entries.keys() - found.keys():
            self._missed[name] = self._missed.get(name, 0) + 1
            if self._missed[name] < LOOKS:
                found[name] = self.entries[name]
        self._missed = {name: missed for name, missed in self._missed.items() if missed < LOOKS and name in found}
        changed, self.entries = found != self.entries, found
        return changed

    def _read(self, client: hvac.Client) -> dict[str, dict[str, Any]]:
        found = {}
        for name in sorted(kv2.names(client, self._mount, self._prefix)):
            # One that was deleted in between, or whose current version is, is not there.
            data = kv2.read_if_there(client, self._mount, f"{self._prefix}/{name}")
            if data is not None:
                self._missed.pop(name, None)
                found[name] = data
        return found

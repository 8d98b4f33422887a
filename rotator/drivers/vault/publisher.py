"""Publishes to one entry of a KV v2 mount.

One version of the entry holds everything that a reader needs, so a reader sees one generation, whole. The entry's
custom metadata repeats what an operator looks for; it is a second request, written after the data: until then it
tells an expiry that is too early, never one that is too late.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from rotator.core import publication
from rotator.core.errors import Misconfigured, Refused, Transient
from rotator.core.publication import Found, Publication, Settled
from rotator.drivers.vault import entries
from rotator.drivers.vault.answers import Declined
from rotator.drivers.vault.client import Vault
from rotator.drivers.vault.entries import Entry

if TYPE_CHECKING:
    import hvac

T = TypeVar("T")

_SCHEME = "vault:"
_ROUNDS = 3

# How long before its deletion a version is written anew, where a mount deletes versions sooner than tokens expire.
FADING = timedelta(minutes=2)


def parse_location(location: str) -> tuple[str, str, str] | None:
    """(Vault's name, mount, path) of a `KvPublisher.location`; None where it is the location of something else."""
    return entries.read_location(_SCHEME, location)


class KvPublisher:
    """One KV v2 entry as a target; see `ports.Publisher`.

    ``fields`` maps keys of the entry to templates over `publication.fields` (``$access_token``); without it the entry
    holds all of those and ``lineage``, as strings, because Vault's audit log hashes strings only. Entries with
    ``fields`` of their own tell generation and lineage by custom metadata alone.

    The policy needs create, update and read on the entry's data and metadata, and delete on its metadata for `remove`.
    Without the right to the metadata the token is published all the same, and Refused is raised afterwards.
    """

    local = False
    judged_by_mark = False

    def __init__(
        self, vault: Vault, mount: str, path: str, *, fields: Mapping[str, str] | None = None, max_versions: int = 3
    ) -> None:
        self._vault = vault
        self._mount = mount.strip("/")
        self._path = path.strip("/")
        self._fields = dict(fields) if fields else None
        self._max_versions = max_versions
        self._written: tuple[str, datetime] | None = None
        if not self._mount or not self._path or {"", ".", ".."} & set(f"{self._mount}/{self._path}".split("/")):
            raise Misconfigured(f"{mount}/{path} is no path of a Vault entry", mend="write it as MOUNT/PATH")

    @property
    def location(self) -> str:
        return entries.write_location(_SCHEME, self._vault.name, self._mount, self._path)

    def __repr__(self) -> str:
        return f"KvPublisher({self.location})"

    async def settle(self, wanted: Publication, now: datetime) -> Settled:
        """See `ports.Publisher.settle`: one read, and at most three writes with check-and-set.

        Raises what `Vault.call` raises, and Transient where others keep writing to the same entry."""
        data, labels = self._data(wanted), entries.labels(wanted)
        for _ in range(_ROUNDS):
            entry = await self._ask(self._read)
            settled = entries.judge(entry, data, labels, wanted, described=self._fields is None)
            if settled.found is Found.AHEAD:
                return settled
            if entry.data == data and not self._is_fading(entry, wanted, now):
                if settled.found is not Found.CURRENT:
                    await self._describe(entry, wanted, labels)
                return settled
            if entry.version == 0:
                await self._check_mount()
            mark = await self._publish(entry, wanted, data, labels, now)
            if mark is not None:
                return Settled(Found.OLDER if settled.found is Found.CURRENT else settled.found, mark)
        raise Transient(f"{self.location} is written by somebody else at this moment")

    async def remove(self, mark: str) -> bool:
        """Delete the entry with all its versions while its current version is ``mark``; False otherwise.

        KV v2 deletes without check-and-set: what another writes between the look and the deletion goes with it."""
        entry = await self._ask(self._read)
        if entry.version == 0 or entry.mark != mark:
            return False
        try:
            await self._ask(
                lambda client: client.secrets.kv.v2.delete_metadata_and_all_versions(
                    self._path, mount_point=self._mount
                ),
                mend=f'add to the policy: path "{self._mount}/metadata/{self._path}" {{ capabilities = ["delete"] }}',
            )
        except Refused:
            # The version has deleted itself: there is no token left for which to call a person.
            if entry.data is not None:
                raise
        return True

    def _data(self, wanted: Publication) -> dict[str, str]:
        known = publication.fields(wanted)
        if self._fields is None:
            return {**known, "lineage": wanted.lineage}
        return {key: publication.fill(template, known) for key, template in self._fields.items()}

    async def _publish(
        self, entry: Entry, wanted: Publication, data: dict[str, str], labels: dict[str, str], now: datetime
    ) -> str | None:
        """Write a version in place of ``entry`` and describe it; its mark, or None where another was first."""
        refused: Refused | None = None
        if entry.span != entries.retention(wanted):
            # It counts for versions written after it, so it goes first. A rotation like the last one needs it not.
            try:
                await self._keep(wanted)
            except Refused as error:
                refused = error
        written = await self._ask(lambda client: self._write(client, data, entry.version))
        if written is None:
            return None
        self._written = written.mark, now
        if refused is not None:
            raise refused
        await self._describe(entry, wanted, labels)
        return written.mark

    async def _keep(self, wanted: Publication, labels: dict[str, str] | None = None) -> None:
        """Set how many versions stay, and how long; and the labels where they are given."""
        await self._ask(
            lambda client: client.secrets.kv.v2.update_metadata(
                self._path,
                max_versions=self._max_versions,
                # Always given: hvac would send "0s" and so keep dead tokens for ever.
                delete_version_after=f"{entries.retention(wanted) // timedelta(seconds=1)}s",
                mount_point=self._mount,
                custom_metadata=labels,
            )
        )

    async def _describe(self, entry: Entry, wanted: Publication, labels: dict[str, str]) -> None:
        """Write the labels, keeping those of other people: Vault replaces all of them."""
        await self._keep(wanted, {**entry.labels, **labels})

    def _is_fading(self, entry: Entry, wanted: Publication, now: datetime) -> bool:
        """Whether the version will soon delete itself although its token lives on, because the mount says so.

        Told by our own clock and memory, as Vault's clock may be another; after a restart we cannot know."""
        if entry.span is None or entry.span >= wanted.access.lifetime:
            return False
        if self._written is None or self._written[0] != entry.mark:
            return True
        return now >= self._written[1] + entry.span - min(FADING, entry.span / 2)

    async def _check_mount(self) -> None:
        """Before the first write: a KV v1 mount would take it, and keep the token where nobody looks for it."""
        told = await self._ask(self._look_at_mount)
        options = told.get("options")
        version = options.get("version") if isinstance(options, dict) else None
        if told and (told.get("type"), version, told.get("path")) != ("kv", "2", f"{self._mount}/"):
            raise Misconfigured(
                f"{self._mount} is no KV v2 mount of Vault {self._vault.name}",
                mend=f"write kv = 1 beside it for a KV v1 mount, or upgrade it: bao kv enable-versioning {self._mount}",
            )

    def _look_at_mount(self, client: hvac.Client) -> dict[str, Any]:
        path = quote(f"{self._mount}/{self._path}")
        try:
            told = client.adapter.get(f"/v1/sys/internal/ui/mounts/{path}").get("data")
        except Declined as declined:
            # What may not be asked cannot be checked; the write will tell.
            if declined.status in (403, 404, 405):
                return {}
            raise
        return told if isinstance(told, dict) else {}

    def _read(self, client: hvac.Client) -> Entry:
        try:
            told = client.secrets.kv.v2.read_secret_version(
                self._path, mount_point=self._mount, raise_on_deleted_version=True
            )
        except Declined as declined:
            # An absent entry is a 404 without words; a mount that is not there is one with words.
            if declined.status != 404 or (declined.errors and declined.metadata is None):
                raise
            return entries.read(None, declined.metadata) if declined.metadata else Entry()
        content = told.get("data")
        if not isinstance(content, dict) or not isinstance(content.get("metadata"), dict):
            raise self._not_kv2()
        return entries.read(content.get("data"), content["metadata"])

    def _write(self, client: hvac.Client, data: dict[str, str], version: int) -> Entry | None:
        try:
            told = client.secrets.kv.v2.create_or_update_secret(self._path, data, cas=version, mount_point=self._mount)
        except Declined as declined:
            if declined.status == 400 and "check-and-set" in declined.words:
                return None
            raise
        if not isinstance(told.get("data"), dict) or not told["data"].get("version"):
            raise self._not_kv2()
        return entries.read(None, told["data"])

    def _not_kv2(self) -> Misconfigured:
        return Misconfigured(
            f"{self._mount} of Vault {self._vault.name} does not answer like a KV v2 mount",
            mend="name a KV v2 mount, without data/ in the path",
        )

    async def _ask(self, do: Callable[[hvac.Client], T], mend: str = "") -> T:
        return await self._vault.call(do, mend=mend or self._policy)

    @property
    def _policy(self) -> str:
        rules = (
            f'path "{self._mount}/{kind}/{self._path}" {{ capabilities = ["create", "update", "read"] }}'
            for kind in ("data", "metadata")
        )
        return f"the policy needs {' and '.join(rules)}"

"""The calls of a KV version 2 engine that a store needs, each on a worker thread with a client.

https://developer.hashicorp.com/vault/api-docs/secret/kv/kv-v2
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rotator.core.errors import Misconfigured, StateDamaged
from rotator.drivers.vault.answers import Declined

if TYPE_CHECKING:
    import hvac

# What stands in an old version is a spent refresh token: few are kept, for a person who must look.
VERSIONS = 3

Version = tuple[int, Mapping[str, Any]]


def read(client: hvac.Client, mount: str, path: str) -> Version | None:
    """(version, its data); None where there is no such entry. Raises StateDamaged where it was deleted."""
    try:
        told: Any = client.secrets.kv.v2.read_secret_version(path, mount_point=mount, raise_on_deleted_version=True)
    except Declined as declined:
        if declined.status != 404:
            raise
        if declined.metadata is not None:
            # Begun anew it would spend a password exchange for what somebody may have deleted by mistake.
            version = declined.metadata.get("version")
            raise StateDamaged(
                f"the stored entry {mount}/{path} was deleted in Vault",
                mend=f"bring it back: bao kv undelete -mount={mount} -versions={version} {path}; or end it for good: "
                f"bao kv metadata delete -mount={mount} {path}",
            ) from None
        if declined.errors:
            # A mount that is not there has words; an entry that is not there has none.
            raise
        return None
    content = told.get("data")
    if not isinstance(content, dict) or not isinstance(content.get("metadata"), dict):
        raise not_kv2(mount)
    version, data = content["metadata"].get("version"), content.get("data")
    if not isinstance(version, int) or not isinstance(data, dict):
        raise not_kv2(mount)
    return version, data


def read_if_there(client: hvac.Client, mount: str, path: str) -> dict[str, Any] | None:
    """The data of the current version; None where there is no entry, or its version was deleted."""
    try:
        found = read(client, mount, path)
    except StateDamaged:
        return None
    return None if found is None else dict(found[1])


def write(client: hvac.Client, mount: str, path: str, data: Mapping[str, str], version: int) -> int | None:
    """Check-and-set: the new version; None where ``version`` is not the current one.

    Raises Misconfigured where the mount deletes versions by itself: a state must not fade."""
    try:
        told: Any = client.secrets.kv.v2.create_or_update_secret(path, dict(data), cas=version, mount_point=mount)
    except Declined as declined:
        if declined.status == 400 and "check-and-set" in declined.words:
            return None
        raise
    metadata = told.get("data")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("version"), int):
        raise not_kv2(mount)
    if metadata.get("deletion_time"):
        raise Misconfigured(
            f"the mount {mount} deletes versions by itself (delete_version_after): a state there would fade away",
            mend=f"write {mount}/config with delete_version_after=0s, or name another mount in state.url",
        )
    written: int = metadata["version"]
    return written


def keep_few(client: hvac.Client, mount: str, path: str) -> None:
    """Every write with check-and-set, and few old versions."""
    client.adapter.post(f"/v1/{mount}/metadata/{path}", json={"max_versions": VERSIONS, "cas_required": True})


def names(client: hvac.Client, mount: str, folder: str) -> list[str]:
    """The entries of a folder, without its folders."""
    try:
        told: Any = client.secrets.kv.v2.list_secrets(folder, mount_point=mount)
    except Declined as declined:
        if declined.status == 404 and not declined.errors:
            return []
        raise
    data = told.get("data")
    found = data.get("keys") if isinstance(data, dict) else None
    if not isinstance(found, list):
        raise not_kv2(mount)
    return [name for name in found if isinstance(name, str) and not name.endswith("/")]


def delete(client: hvac.Client, mount: str, path: str) -> None:
    """With all its versions."""
    client.secrets.kv.v2.delete_metadata_and_all_versions(path, mount_point=mount)


def not_kv2(mount: str) -> Misconfigured:
    return Misconfigured(
        f"{mount} does not answer like a KV v2 mount", mend="name a KV v2 mount, without data/ in the path"
    )

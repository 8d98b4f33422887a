"""What stands in a KV v2 entry, and whether it is what should stand there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from datetime import timedelta
from typing import Any
from urllib.parse import quote, unquote

from rotator.core import lean, publication
from rotator.core.publication import Found, Publication, Settled

MANAGED_BY = "managed-by"

# A version outlives its token by this much. It counts the token's whole lifetime from the moment of writing, so a
# token that is written late, or under a clock that is off, is never deleted early.
SLACK = timedelta(minutes=5)


def write_location(scheme: str, vault: str, mount: str, path: str) -> str:
    """The location of an entry as a store remembers it; ``scheme`` tells the kind of its engine."""
    return f"{scheme}{vault}:{quote(mount, safe='')}/{path}"


def read_location(scheme: str, location: str) -> tuple[str, str, str] | None:
    """(Vault's name, mount, path); None where it is the location of something else."""
    name, colon, entry = location.removeprefix(scheme).partition(":")
    mount, slash, path = entry.partition("/")
    if not location.startswith(scheme) or not (name and colon and mount and slash and path):
        return None
    return name, unquote(mount), path


@lean.dataclass(frozen=True, slots=True)
class Entry:
    """What stands at a path. ``version`` is 0 where there is no entry; ``data`` is None where the current version is
    deleted or destroyed; ``span`` is how long after its creation the version deletes itself, None for never."""

    version: int = 0
    created: str = ""
    span: timedelta | None = None
    data: Mapping[str, Any] | None = field(default=None, repr=False)
    labels: Mapping[str, str] = field(default_factory=dict)

    @property
    def mark(self) -> str:
        """The version and its birth: an entry that was deleted and made again counts from 1 again."""
        return f"{self.version} {self.created}"


def judge(
    entry: Entry, data: Mapping[str, str], labelled: Mapping[str, str], wanted: Publication, *, described: bool
) -> Settled:
    """Compare an entry with what it should hold; ``described`` tells that the data name generation and lineage.

    Labels are never written before their data, so a higher generation in either is proof that it was published, also
    where the version itself is gone.
    """
    there = entry.data or {}
    for claim in (there, entry.labels) if described else (entry.labels,):
        generation = _generation(claim)
        if claim.get("lineage") == wanted.lineage and generation is not None and generation > wanted.generation:
            ends = publication.read_time(claim.get("expires_at"))
            return Settled(Found.AHEAD, entry.mark, generation, ends)
    if entry.data is None:
        return Settled(Found.ABSENT)
    if entry.data == data and all(entry.labels.get(key) == value for key, value in labelled.items()):
        return Settled(Found.CURRENT, entry.mark)
    # The right data with wrong labels was left by whoever died between the two.
    claim = there if described and entry.data != data else entry.labels
    lineage, generation = claim.get("lineage"), _generation(claim)
    if lineage == wanted.lineage:
        older = generation is not None and generation < wanted.generation
        return Settled(Found.OLDER if older else Found.ALTERED, entry.mark)
    ours = entry.data == data or (not lineage and entry.labels.get(MANAGED_BY) == "rotator")
    return Settled(Found.ALTERED if ours else Found.FOREIGN, entry.mark)


def labels(wanted: Publication) -> dict[str, str]:
    known = publication.fields(wanted)
    kept = {key: known[key] for key in ("grant", "generation", "issued_at", "expires_at")}
    return {MANAGED_BY: "rotator", "lineage": wanted.lineage, **kept}


def retention(wanted: Publication) -> timedelta:
    """How long a version stays: the token's lifetime and some more, in whole seconds as Vault counts them."""
    return timedelta(seconds=-(-(wanted.access.lifetime + SLACK) // timedelta(seconds=1)))


def read(data: object, metadata: Mapping[str, Any]) -> Entry:
    version, created, labels = metadata.get("version"), metadata.get("created_time"), metadata.get("custom_metadata")
    begins, ends = publication.read_time(created), publication.read_time(metadata.get("deletion_time"))
    return Entry(
        version if isinstance(version, int) else 0,
        str(created),
        ends - begins if begins and ends else None,
        data if isinstance(data, dict) else None,
        labels if isinstance(labels, dict) else {},
    )


def _generation(claim: Mapping[str, Any]) -> int | None:
    raw = claim.get("generation")
    return int(raw) if isinstance(raw, str) and raw.isascii() and raw.isdigit() and len(raw) <= 18 else None

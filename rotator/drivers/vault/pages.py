"""A grant as it stands in a Vault that is the store: one KV v2 entry, a *page*, with everything that is known of it.

All fields are strings, because an audit device hashes strings only: a refresh token never stands in an audit log.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import field, replace
from datetime import datetime, timedelta
from typing import Any

from rotator.core import lean, records
from rotator.core.errors import StateDamaged
from rotator.core.grants import Grant
from rotator.core.policy import Moment
from rotator.core.ports import Delivery, Lease

# A place on one machine: known to the daemons of that machine alone.
_LOCAL = "file:"


@lean.dataclass(frozen=True, slots=True)
class Claim:
    """A lease as it is stored. ``owner`` is empty once it was given back; the ``fence`` stays, for it only goes up.

    ``span`` is how long it was taken for: a daemon on another machine, where boot-time clocks mean nothing, counts it
    from when it first saw the claim."""

    owner: str = ""
    fence: int = 0
    span: timedelta = timedelta(0)
    boot_id: str = ""
    until: timedelta = timedelta(0)

    def is_of(self, lease: Lease) -> bool:
        return (self.owner, self.fence) == (lease.owner, lease.fence)

    def next(self, owner: str, moment: Moment, span: timedelta) -> Claim:
        return Claim(owner, self.fence + 1, span, moment.boot_id, moment.boottime + span)


@lean.dataclass(frozen=True, slots=True)
class Page:
    """``version`` is that of KV, 0 where there is no entry; ``at`` is the latest wall time of a write to it. A grant
    that was retired leaves a page of deliveries."""

    version: int = 0
    record: str = field(default="", repr=False)
    claim: Claim = field(default_factory=Claim)
    deliveries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    at: int | None = None

    @property
    def is_empty(self) -> bool:
        return not self.record and not self.deliveries

    def grant(self, name: str) -> Grant | None:
        """Raises StateDamaged for what no version of ours wrote."""
        if not self.record:
            return None
        try:
            return records.read(json.loads(self.record))
        except (ValueError, RecursionError):
            raise damaged(name) from None

    def raised(self, now: datetime) -> Page:
        micros = records.stamp(now)
        return self if self.at is not None and self.at >= micros else replace(self, at=micros)

    def data(self) -> dict[str, str]:
        """As it is written."""
        claim = self.claim
        return {
            "record": self.record,
            "lease": _dumped({
                "owner": claim.owner, "fence": claim.fence, "span": claim.span // records.MICROSECOND,
                "boot": claim.boot_id, "until": claim.until // records.MICROSECOND,
            }),
            "deliveries": _dumped(self.deliveries),
            "at": "" if self.at is None else str(self.at),
        }  # fmt: skip


def read(name: str, version: int, data: Mapping[str, Any]) -> Page:
    """Raises StateDamaged for what is none of ours."""
    try:
        claim = json.loads(data["lease"])
        deliveries = json.loads(data["deliveries"])
        if not isinstance(data["record"], str) or not isinstance(deliveries, dict):
            raise TypeError
        return Page(
            version, data["record"],
            Claim(
                str(claim["owner"]), int(claim["fence"]), _span(claim["span"]), str(claim["boot"]),
                _span(claim["until"]),
            ),
            deliveries, int(data["at"]) if data["at"] else None,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
        raise damaged(name) from None


def damaged(name: str) -> StateDamaged:
    return StateDamaged(
        f"what is stored of {name} in Vault was not written by rotator, or was changed",
        mend="bring back an earlier version (`bao kv rollback`); or delete the entry with its metadata and start anew",
    )


def record(grant: Grant) -> str:
    return _dumped(records.write(grant))


def delivery_key(host: str, location: str) -> str:
    return f"{host if location.startswith(_LOCAL) else ''} {location}"


def without_stale(known: Mapping[str, Mapping[str, Any]], dead: datetime) -> dict[str, Mapping[str, Any]]:
    """Without places on some machine whose token expired before ``dead``: machines come and go."""
    micros = records.stamp(dead)
    return {key: one for key, one in known.items() if key.startswith(" ") or one["expires_at"] > micros}


def write_delivery(delivery: Delivery) -> dict[str, Any]:
    return {
        "target": delivery.target, "location": delivery.location, "lineage": delivery.lineage,
        "generation": delivery.generation, "expires_at": records.stamp(delivery.expires_at), "mark": delivery.mark,
    }  # fmt: skip


def deliveries(name: str, page: Page, host: str) -> list[Delivery]:
    """Those that this machine has to do with. Raises StateDamaged."""
    try:
        return [
            Delivery(
                name, one["target"], one["location"], one["lineage"], one["generation"],
                records.time(one["expires_at"]), one["mark"],
            )
            for key, one in sorted(page.deliveries.items(), key=lambda item: str(item[1]["location"]))
            if key == delivery_key(host, one["location"])
        ]  # fmt: skip
    except (KeyError, TypeError, ValueError, OverflowError):
        raise damaged(name) from None


def _span(micros: object) -> timedelta:
    return timedelta(microseconds=int(str(micros)))


def _dumped(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)

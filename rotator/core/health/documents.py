"""The snapshot as JSON-ready data, and the one answer that holds a token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime

from rotator.core.errors import Transient
from rotator.core.grants import Grant
from rotator.core.health.snapshot import GrantHealth, Health, Listed
from rotator.core.publication import header_type, rfc3339


def document(health: Health) -> dict[str, object]:
    """The snapshot as JSON-ready data; ``schema`` goes up when a key changes its meaning."""
    return {
        "schema": 1,
        "at": rfc3339(health.at),
        "published": health.well,
        "ready": health.ready,
        "alive": health.alive,
        "started": health.started,
        "line": health.line(),
        "register": None if health.register is None else asdict(health.register),
        "grants": {grant.name: grant_document(grant, health.at) for grant in health.grants},
    }


def grant_document(grant: GrantHealth, now: datetime) -> Mapping[str, object]:
    """One grant as JSON-ready data."""
    return {
        "state": grant.state.value,
        "reason": grant.reason,
        "provider": grant.provider,
        "published": grant.published,
        "ready": grant.ready,
        "unready": grant.unready,
        "decided": grant.decided,
        "last_outcome": grant.last_outcome,
        "last_success_at": _time(grant.last_success_at),
        "generation": grant.generation,
        "issued_at": _time(grant.issued_at),
        "expires_at": _time(grant.expires_at),
        "expires_in": None if grant.expires_at is None else max(0.0, (grant.expires_at - now).total_seconds()),
        "lifetime": _span(grant),
        "due_at": _time(grant.due_at),
        "passwords_left": grant.passwords_left,
        "passwords_limit": grant.passwords_limit,
        "targets": {
            target.name: {
                "location": target.location, "generation": target.generation, "trouble": target.trouble,
                "required": target.required, "hook": target.hook,
            }
            for target in grant.targets
        },
    }  # fmt: skip


def listed_document(one: Listed) -> dict[str, object]:
    """One line of the register as JSON-ready data."""
    return {**asdict(one), "expires_at": _time(one.expires_at), "due_at": _time(one.due_at)}


def _span(grant: GrantHealth) -> float | None:
    if grant.issued_at is None or grant.expires_at is None:
        return None
    return (grant.expires_at - grant.issued_at).total_seconds()


def _time(at: datetime | None) -> str | None:
    return None if at is None else rfc3339(at)


def token(grant: Grant, now: datetime) -> dict[str, object]:
    """The access token of a grant in clear, for a person or a script that may see it. Raises Transient where none
    is valid."""
    access = grant.access
    if access is None or grant.unproven or not access.is_valid(now):
        raise Transient(f"{grant.name}: no valid access token", mend="see `rotator status` for the reason")
    return {
        "grant": grant.name,
        "access_token": access.value.reveal(),
        "token_type": header_type(access.token_type),
        "expires_at": rfc3339(access.expires_at),
        "generation": access.generation,
    }

"""What Vault's statuses mean here, and what of its words may be repeated.

Statuses: https://developer.hashicorp.com/vault/api-docs#http-status-codes and the `sys/health` page beside it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from rotator.core import telling
from rotator.core.errors import Misconfigured, Refused, RotatorError, Unavailable
from rotator.core.tokens import MASK

_LONGEST_ERROR = 200
_MOST_ERRORS = 3

# Tokens of Vault (hvs., hvb., hvr., s., b.) and OpenBao (s., b., r.), wherever they might be quoted back at us.
_TOKEN = re.compile(r"\b(?:hv[sbr]|[sbr])\.[A-Za-z0-9_-]{20,}")

_CAPABILITIES = {"get": '"read"', "post": '"create", "update"', "put": '"create", "update"', "delete": '"delete"'}


class Declined(Exception):
    """Vault answered, and it was no success: a status from 300 on, or a 200 that no Vault gives.

    ``path`` is the API path without ``v1/``; ``errors`` are Vault's own, redacted; ``retry_after`` and ``index`` are
    the headers Retry-After and X-Vault-Index; ``location`` is scheme and host of a redirect; ``metadata`` is what a
    404 of KV v2 tells of a deleted version. No secret is in any of them.
    """

    def __init__(
        self,
        status: int,
        method: str,
        path: str,
        *,
        errors: tuple[str, ...] = (),
        retry_after: str | None = None,
        index: str | None = None,
        location: str = "",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(f"{status} to {method} {path}")
        self.status = status
        self.method = method
        self.path = path
        self.errors = errors
        self.retry_after = retry_after
        self.index = index
        self.location = location
        self.metadata = metadata

    @property
    def words(self) -> str:
        """Vault's own words, or the bare status where it gave none."""
        return ", ".join(self.errors) or f"status {self.status}"


def redact(errors: Iterable[object], secrets: Iterable[str]) -> tuple[str, ...]:
    """Vault's error texts as they may be shown: one line each, short, without anything that we sent."""
    hidden = sorted({secret for secret in secrets if len(secret) >= 4}, key=len, reverse=True)
    shown = []
    for error in list(errors)[:_MOST_ERRORS]:
        text = " ".join(str(error).split())
        for secret in hidden:
            text = text.replace(secret, MASK)
        text = telling.redact(_TOKEN.sub(MASK, text))
        shown.append("".join(letter for letter in text if letter.isprintable())[:_LONGEST_ERROR])
    return tuple(shown)


def failure(declined: Declined, vault: str, mend: str = "") -> RotatorError:
    """The error of the house for an answer of the Vault named ``vault``; ``mend`` is the step after a 403."""
    status, asked = declined.status, f"{declined.method.upper()} {declined.path}"
    if status == 403:
        return Refused(
            f"Vault {vault} does not allow {asked}: {declined.words}", mend=mend or _policy_line(declined)
        )  # fmt: skip
    if 300 <= status < 400:
        # Following it would carry our token to another host, which requests does without asking.
        return Misconfigured(
            f"Vault {vault} redirects to {declined.location or 'another place'} and is not followed",
            mend=f"set `address` of [vault.{vault}] to the active node or to a load balancer before it",
        )
    if status == 472:
        return Misconfigured(
            f"Vault {vault} is a disaster-recovery secondary and serves nobody",
            mend=f"set `address` of [vault.{vault}] to the primary",
        )
    if status in (200, 412, 429, 473) or status >= 500:
        return Unavailable(f"Vault {vault} does not serve {asked} now: {declined.words}{_wait(declined)}")
    if status == 401:
        return Refused(f"Vault {vault} refuses {asked}: {declined.words}", mend="look at what stands before it")
    if status == 404:
        return Misconfigured(
            f"Vault {vault} has nothing at {declined.path}: {declined.words}",
            mend="look at the mount and the path, and at `namespace` if there is one",
        )
    return Misconfigured(
        f"Vault {vault} takes no {asked}: {declined.words}", mend="look at the mount, the path and the mount's settings"
    )


def _wait(declined: Declined) -> str:
    """Its Retry-After, seconds or a date (RFC 9110 section 10.2.3), where it is as short as one should be."""
    told = declined.retry_after
    return f"; it asks to wait {told[:40]}" + (" s" if told.isdigit() else "") if told and told.isprintable() else ""


def _policy_line(declined: Declined) -> str:
    capabilities = _CAPABILITIES.get(declined.method.lower(), '"list"')
    return f'add to the policy: path "{declined.path}" {{ capabilities = [{capabilities}] }}'
